"""The strategies draw what they say, and a checklist is a whole property test."""

import re

import hypothesis
import numpy as np
import pytest
from faults import LAYERS
from hypothesis import Phase, find, given
from hypothesis import strategies as st
from layers import (
    ELEMENTWISE,
    BatchMean,
    ColumnMean,
    Counting,
    Elementwise,
    Embedding,
    Gain,
    Product,
)

from tinygrad_mnist import Dropout, Linear, ReLU, Sequential, nn
from tinygrad_mnist.testing import (
    GradientCheckError,
    InconclusiveGradientCheck,
    ModuleContractError,
    check_gradients,
)
from tinygrad_mnist.testing.strategies import (
    away_from,
    batches,
    layouts,
    mlps,
    module_checklist,
    seeds,
    spiked,
)


@given(batches(), batches(features=7), batches(rows=0), batches(rows=2, sample_axes=3), seeds())
def test_batches_are_generic_and_of_the_shape_asked_for(x, wide, empty, images, seed):
    assert x.dtype == np.float64
    assert x.ndim == 2
    assert set(x.shape) <= {1, 2, 3, 4, 5, 9, 17, 33}
    assert len(np.unique(x)) == x.size
    assert x.all()
    assert wide.shape[1] == 7
    assert empty.shape[0] == 0
    assert images.ndim == 4
    assert images.shape[0] == 2
    assert set(images.shape[1:3]) <= {5, 6, 7, 8, 9, 17, 33}
    np.random.default_rng(seed)


def test_most_sides_are_larger_than_1_and_shrink_to_a_telling_size():
    sizes = []

    @hypothesis.settings(max_examples=200, database=None, derandomize=True)
    @given(batches())
    def collect(x):
        sizes.append(min(x.shape))

    collect()
    assert np.mean(np.array(sizes) > 1) > 0.5
    assert find(batches(), lambda x: True).shape == (2, 2)


@given(away_from([0.0, 1.0], gap=0.1), away_from(0))
def test_away_from_keeps_its_distance(x, y):
    assert (abs(x) >= 0.1 - 1e-12).all()
    assert (abs(x - 1) >= 0.1 - 1e-12).all()
    assert (abs(y) >= 0.01 - 1e-12).all()


def test_away_from_does_not_change_what_it_draws_from():
    array = np.zeros((2, 2))
    moved = find(away_from(0, st.just(array)), lambda x: True)
    assert not array.any()
    assert (abs(moved) == 0.02).all()


@pytest.mark.parametrize(
    "special",
    [
        lambda x: (x == 0).any(),
        lambda x: len(np.unique(x)) < x.size and not (x == 0).any(),
        lambda x: (abs(x) >= 1e3).any(),
        lambda x: ((abs(x) > 0) & (abs(x) < 1e-9)).any(),
        lambda x: len(np.unique(x)) == x.size and x.all(),
        lambda x: x.shape[-1] > 2 and not x.any(axis=-1).all(),
    ],
    ids=["zero", "tie", "huge", "tiny", "none", "row of zeros"],
)
def test_spiked_arrays_have_each_kind_of_special_value(special):
    find(spiked(), special)


@given(batches(), layouts())
def test_layouts_change_no_value(x, layout):
    np.testing.assert_array_equal(layout(x), x)


def test_layouts_differ():
    x = np.ones((3, 2))
    find(layouts(), lambda f: not f(x).flags.c_contiguous)
    find(layouts(), lambda f: not f(x).flags.writeable)


@given(mlps(), mlps(in_features=7, out_features=2))
def test_mlps_are_models_that_fit_their_input(free, fixed):
    assert isinstance(free, Sequential)
    assert free(np.ones((3, free[0].in_features))).shape[0] == 3
    assert fixed(np.ones((3, 7))).shape == (3, 2)
    assert all(p.data.dtype == np.float64 for p in free.parameters())


def test_mlps_have_dropout_and_several_layers_sometimes():
    find(mlps(), lambda m: any(isinstance(layer, Dropout) for layer in m))
    find(mlps(), lambda m: len(m) >= 5)


FIRST_FAILURE = hypothesis.settings(phases=[Phase.generate], report_multiple_bugs=False)

# what a user writes, for some layers of this package and of the tests

test_linear = module_checklist(lambda features, rng: Linear(features, 3, rng=rng))
test_relu = module_checklist(lambda features, rng: ReLU())
test_dropout = module_checklist(lambda features, rng: Dropout(0.25, rng=rng))
test_gain = module_checklist(lambda features, rng: Gain(features))
test_tanh = module_checklist(lambda features, rng: Elementwise(*ELEMENTWISE["tanh"]))
test_softmax = module_checklist(lambda features, rng: nn.Softmax(), inputs=batches())
test_batch_mean = module_checklist(
    lambda features, rng: BatchMean(),
    inputs=batches(rows=4),
    rows_independent=False,
    forms=("batch",),
)
test_batch_norm = module_checklist(
    lambda features, rng: nn.BatchNorm(features), rows_independent=False, forms=("batch", "axes")
)
test_counting = module_checklist(lambda features, rng: Counting())
test_column_mean = module_checklist(lambda features, rng: ColumnMean())
test_product = module_checklist(
    lambda features, rng: Product(features),
    inputs=st.tuples(batches(features=3, rows=4), batches(features=3, rows=4)),
)
test_embedding = module_checklist(
    lambda features, rng: Embedding(5, 3, rng),
    inputs=seeds().map(lambda seed: np.random.default_rng(seed).integers(0, 5, (4, 3))),
)


@pytest.mark.parametrize(
    "name", [n for n in LAYERS if n.startswith(("ReLU", "d", "tanh")) and n != "dx infinite"]
)
def test_a_checklist_fails_for_a_faulty_layer(name):
    with pytest.raises((GradientCheckError, ModuleContractError)):
        module_checklist(LAYERS[name].make, settings=FIRST_FAILURE)()


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, LAYERS[name].rule) for name in LAYERS if LAYERS[name].settings],
)
def test_a_checklist_fails_for_a_faulty_layer_that_mixes_rows(name, rule):
    fault = LAYERS[name]
    with pytest.raises((GradientCheckError, ModuleContractError)) as caught:
        module_checklist(fault.make, settings=FIRST_FAILURE, **fault.settings)()
    assert getattr(caught.value, "rule", "") == rule


def test_the_forms_say_what_a_layer_is_given():
    # as many examples as draw every form, and the same ones in every run
    enough = hypothesis.settings(max_examples=20, derandomize=True, database=None)

    def shapes(layer, **keywords):
        seen = set()

        class Watched(layer):
            def forward(self, x):
                if np.size(x):
                    seen.add((np.ndim(x), len(x) if np.ndim(x) else 0))
                return super().forward(x)

        module_checklist(lambda features, rng: Watched(), settings=enough, **keywords)()
        return seen

    mixed = {"rows_independent": False}  # no rule asks for more rows or axes then
    assert {ndim for ndim, _ in shapes(Counting, **mixed)} == {1, 2, 3, 4}
    assert {ndim for ndim, _ in shapes(ColumnMean, **mixed)} == {3, 4, 5, 6}
    rows = shapes(Counting, forms=("batch",), **mixed)
    assert {ndim for ndim, _ in rows} == {2}
    assert (2, 1) not in rows
    assert (2, 1) in shapes(Counting, forms=("batch",))
    found = shapes(Counting, forms=("sample", "axes"), **mixed)
    assert {ndim for ndim, _ in found} == {1, 3, 4}
    assert {length for ndim, length in found if ndim > 2} == {3}


def test_a_form_that_does_not_exist_is_refused():
    text = 'module_checklist: expected forms "sample", "batch" or "axes", got \'b\''
    with pytest.raises(ValueError, match=f"^{text}$"):
        module_checklist(lambda features, rng: Counting(), forms="batch")


def test_a_layer_that_takes_one_sample_alone_is_given_no_empty_batch():
    class Alone(Gain):
        def forward(self, x):
            (_features,) = np.shape(x)
            return super().forward(x)

    few = hypothesis.settings(max_examples=10)
    module_checklist(lambda features, rng: Alone(features), forms=("sample",), settings=few)()


def test_both_modes_are_checked():
    for mode in (False, True):

        class Wrong(Elementwise):
            def backward(self, dy, mode=mode):
                return super().backward(dy) * (2 if self.training is mode else 1)

        check = module_checklist(
            lambda features, rng, cls=Wrong: cls(*ELEMENTWISE["tanh"]), settings=FIRST_FAILURE
        )
        with pytest.raises(GradientCheckError):
            check()


def test_a_failure_shrinks_to_a_small_input():
    shrunk = hypothesis.settings(phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False)
    with pytest.raises(GradientCheckError) as caught:
        module_checklist(LAYERS["db sign"].make, settings=shrunk)()
    notes = "\n".join(caught.value.__notes__)
    shown = re.search(r"batch=(array\(.*?\)),\n", notes, re.S)[1]
    assert np.size(eval(shown, {"array": np.array})) <= 4


def test_a_gradient_from_an_empty_batch_is_caught():
    class Constant(Gain):
        def backward(self, dy):
            if not np.size(dy):
                self.shift.accumulate(np.ones(self.shift.data.shape))
            return super().backward(dy)

    check = module_checklist(lambda features, rng: Constant(features), settings=FIRST_FAILURE)
    text = "Constant: expected no gradient of shift from an empty batch, got some [rule: empty]"
    with pytest.raises(ModuleContractError, match=re.escape(text)):
        check()


def test_a_layer_that_mixes_rows_is_given_an_empty_batch_too():
    class Mean(BatchMean):
        def forward(self, x):
            return x - np.mean(x, axis=0)

    check = module_checklist(
        lambda features, rng: Mean(), rows_independent=False, settings=FIRST_FAILURE
    )
    with pytest.raises(ModuleContractError, match=r"RuntimeWarning: Mean .* \[rule: empty\]"):
        check()


@given(data=st.data(), seed=seeds())
def test_random_models_pass(data, seed):
    model = data.draw(mlps())
    x = data.draw(spiked(batches(features=model[0].in_features)))
    try:
        assert check_gradients(model, x, seed=seed)
    except InconclusiveGradientCheck:
        hypothesis.reject()
