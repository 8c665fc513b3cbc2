"""What a checked module may take and keep: images, several inputs, integers, batches, Buffers."""

import re

import numpy as np
import pytest
from faults import LAYERS
from layers import (
    BatchMean,
    ColumnMean,
    Counting,
    Embedding,
    Gain,
    Product,
    example,
    normal,
)

from tinygrad_mnist import BatchNorm, Buffer, Flatten, Linear, Module, MSELoss, ReLU, Sequential
from tinygrad_mnist.testing import (
    GradientCheckError,
    ModuleContractError,
    check_gradients,
    check_model_gradients,
)


def arrays(report):
    return [array.name for array in report.arrays]


def refused(rule):
    return pytest.raises(ModuleContractError, match=re.escape(f"[rule: {rule}]"))


# Buffers


def test_a_buffer_that_changes_y_is_set_back_before_each_forward():
    layer = Counting()
    assert check_gradients(layer, normal(3, 4))
    assert check_model_gradients(Sequential(layer), MSELoss(), normal(3, 4), normal(3, 4, seed=1))
    assert layer.n.data == 1
    assert check_gradients(layer.eval(), normal(3, 4))


def test_a_buffer_may_be_replaced_or_made_by_forward():
    class Replaces(Counting):
        def forward(self, x):
            self.n, self.made = Buffer(self.n.data), Buffer(0)
            return super().forward(x)

    assert check_gradients(Replaces(), normal(3, 4))


def test_a_layer_that_moves_a_buffer_is_still_asked_for_independent_rows():
    class Mixes(Counting):
        def forward(self, x):
            return super().forward(x[::-1])

        def backward(self, dy):
            return super().backward(dy)[::-1]

    with refused("rows-independent"):
        check_gradients(Mixes(), normal(3, 4))


@pytest.mark.parametrize("leading", [(4,), (2, 3), (1, 2)])
def test_a_batch_norm_passes_in_both_modes_and_stays_as_it_was(leading):
    layer, x = BatchNorm(3, dtype=np.float64), normal(*leading, 3)
    layer(5 + normal(4, 3, seed=1))
    before = layer.state_dict()
    report = check_gradients(layer, x, rows_independent=False)
    assert arrays(report) == ["x", "weight", "bias"]
    with refused("rows-independent"):
        check_gradients(layer, x)
    assert check_gradients(layer.eval(), x)
    assert check_gradients(layer, x.reshape(-1, 3)[0])
    t = normal(*leading, 3, seed=1)
    assert check_model_gradients(layer.train(), MSELoss(), x, t, rows_independent=False)
    for name, values in layer.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


def test_a_batch_of_equal_rows_may_round_in_another_way():
    """Their variance is 0 but for rounding, of which a division by sqrt(eps) makes more."""
    for seed in range(20):
        x = np.concatenate([np.full((6, 6), -5.6 - seed / 7), normal(6, 6, seed=seed)])
        assert check_gradients(BatchNorm(6, eps=1e-3), x, rows_independent=False, forms=("batch",))


# Samples of more than one axis


@pytest.mark.parametrize("leading", [(), (2,), (1,), (2, 3)])
@pytest.mark.parametrize("layer", [Flatten(), ColumnMean()], ids=repr)
def test_a_layer_of_images_takes_one_or_a_batch_or_more_axes(layer, leading):
    assert check_gradients(layer, normal(*leading, 3, 2, 2))


def test_a_chain_of_images_is_checked_as_its_first_layer_says():
    model = Sequential(ColumnMean(), ReLU(), Linear(2, 3, rng=0))
    for leading in ((), (4,)):
        assert check_gradients(model, normal(*leading, 3, 2, 2))


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_are_compared_along_every_leading_axis(axis):
    class Mean(Module):
        def forward(self, x):
            return x - x.mean(axis=axis, keepdims=True) if np.ndim(x) > 2 else x

        def backward(self, dy):
            return dy - dy.mean(axis=axis, keepdims=True) if np.ndim(dy) > 2 else dy

    with refused("rows-independent"):
        check_gradients(Mean(), normal(2, 3, 4))
    assert check_gradients(Mean(), normal(2, 3, 4), rows_independent=False)


def test_the_batch_size_of_images_and_of_more_axes_explains_a_mean():
    class MeanOfImages(Gain):
        sample_axes = 3

        def backward(self, dy):
            rows = (dy * self._x).reshape(-1, 4, dy.shape[-1])  # images of two by two
            self.gain.accumulate(rows.sum(axis=1).mean(axis=0))
            self.shift.accumulate(dy.reshape(-1, dy.shape[-1]).sum(axis=0))
            return self.gain.data * dy

    for leading in ((5,), (1, 5)):
        x = normal(*leading, 2, 2, 3)
        report = check_gradients(MeanOfImages(3), x, raise_on_failure=False)
        assert report.hints == [
            "Every mismatch has analytic = 0.2 x numeric: 1 over the batch size 5: a sum forward, "
            "a mean backward."
        ]


# Several inputs


def test_each_of_several_inputs_is_checked_and_named():
    a, b = normal(3, 4), normal(3, 4, seed=1)
    report = check_gradients(Product(4), (a, b))
    assert [(r.name, r.shape, r.checked) for r in report.arrays] == [
        ("x[0]", (3, 4), 12),
        ("x[1]", (3, 4), 12),
        ("gain", (4,), 4),
    ]
    assert check_gradients(Product(4), (a[0], b[0].tolist()))
    assert arrays(check_gradients(Gain(4), (a,))) == ["x", "gain", "shift"]
    with pytest.raises(
        TypeError, match=r"^check_gradients: expected x\[1\] to be an array of real"
    ):
        check_gradients(Product(4), (a, None))


def test_the_entry_of_an_input_is_named_as_python_would():
    fault = LAYERS["product: db without its gain"]
    with pytest.raises(GradientCheckError, match=r"wrong: x\[1\]\[\d, \d\]: analytic"):
        fault.check(*example(0))


def test_a_model_of_several_inputs_is_checked_with_its_loss_and_layer_by_layer():
    inputs, t = (normal(3, 4), normal(3, 4, seed=1)), normal(3, 2, seed=2)
    model = Sequential(Product(4), Linear(4, 2, rng=0))
    report = check_model_gradients(model, MSELoss(), inputs, t)
    assert arrays(report) == ["x[0]", "x[1]", "0.gain", "1.weight", "1.bias"]
    fault = LAYERS["product: db without its gain"].make(4, None)
    for faulty in (
        Sequential(fault, Linear(4, 2, rng=0)),
        Sequential(Product(4), LAYERS["dx sign"].make(4, None)),
    ):
        report = check_gradients(faulty, inputs, raise_on_failure=False)
        layer = next(i for i, part in enumerate(faulty) if "Broken" in type(part).__name__)
        name = type(faulty[layer]).__name__
        assert report.hints[-1] == f"Look at layer {layer}, {name}: checked alone, it fails too."


def test_inputs_without_a_gradient_may_all_be_none():
    class Data(Product):
        input_grad = False

        def backward(self, dy):
            super().backward(dy)

    assert arrays(check_gradients(Data(4), (normal(3, 4), normal(3, 4)))) == ["gain"]


# Integers


def test_integers_reach_a_layer_that_looks_them_up():
    for x in (3, [0, 2, 2], np.array([[1, 1], [3, 0], [2, 1]], np.uint8)):
        assert arrays(check_gradients(Embedding(4, 3, 0), x)) == ["weight"]
    model = Sequential(Embedding(4, 3, 0), Linear(3, 2, rng=0))
    t = normal(3, 2, 2)
    assert check_model_gradients(model, MSELoss(), [[1, 1], [3, 0], [2, 1]], t)
    with pytest.raises(TypeError, match="Embedding: expected integers, got float64"):
        check_gradients(Embedding(4, 3, 0), [0.0, 1.0])


def test_a_gradient_of_integers_is_not_judged():
    class Answers(Embedding):
        def backward(self, dy):
            super().backward(dy)
            return np.ones(self._x.shape)

    assert arrays(check_gradients(Answers(4, 3, 0), [[1, 1], [3, 0]])) == ["weight"]


def test_integers_are_numbers_to_a_layer_with_a_gradient_for_them():
    report = check_gradients(Gain(3), np.arange(1, 7).reshape(2, 3))
    assert arrays(report) == ["x", "gain", "shift"]


# Forms


class BatchOnly(Gain):
    """Gain, for a batch alone."""

    def forward(self, x):
        _rows, _features = np.shape(x)
        return super().forward(x)


def test_a_batch_axis_may_be_required_of_independent_rows():
    with pytest.raises(ModuleContractError, match="sample 0 alone .* got ValueError: not enough"):
        check_gradients(BatchOnly(4), normal(3, 4))
    assert check_gradients(BatchOnly(4), normal(3, 4), forms=("batch",))
    assert check_model_gradients(
        BatchOnly(4), MSELoss(), normal(3, 4), normal(3, 4), forms=("batch",)
    )
    with refused("rows-independent"):
        check_gradients(BatchMean(), normal(3, 4), forms=("batch",))


def test_a_form_that_is_none_is_refused():
    text = 'check_gradients: expected forms "sample", "batch" or "axes", got \'rows\''
    with pytest.raises(ValueError, match="^" + re.escape(text)):
        check_gradients(Gain(4), normal(3, 4), forms=("rows",))
