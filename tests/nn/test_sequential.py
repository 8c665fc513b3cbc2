"""Sequential: the chain, what it passes on, and what it refuses."""

import numpy as np
import pytest
from cases import BatchNorm, Embedding, MeanPool, Product, Scale
from helpers import refusal, refusal_starting

from tinygrad_mnist import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    Module,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    Unflatten,
    nn,
)
from tinygrad_mnist.testing import check_gradients
from tinygrad_mnist.training import predict


def layers():
    return Linear(2, 3, rng=0), ReLU(), Linear(3, 4, rng=1)


def test_forward_and_backward_pass_through_the_layers_by_hand():
    a, b, c = layers()
    model = Sequential(a, b, c)
    x, dy = np.array([[1.0, -2.0]]), np.ones((1, 4))
    np.testing.assert_array_equal(model(x), c(b(a(x))))
    dx = model.backward(dy)
    grads = [p.grad.copy() for p in model.parameters()]
    model.zero_grad()
    np.testing.assert_array_equal(dx, a.backward(b.backward(c.backward(dy))))
    for p, g in zip(model.parameters(), grads, strict=True):
        np.testing.assert_array_equal(p.grad, g)


def test_it_is_a_sequence_of_its_layers():
    a, b, c = layers()
    model = Sequential(a, b, c)
    assert list(model) == [a, b, c]
    assert len(model) == 3
    assert model[0] is a
    assert model[-1] is c
    part = model[1:]
    assert isinstance(part, Sequential)
    assert list(part) == [b, c]
    assert len(Sequential()) == 0
    with pytest.raises(IndexError):
        model[3]


def test_names_are_positions_through_nesting():
    model = Sequential(Sequential(Linear(2, 3)), ReLU(), Linear(3, 1, bias=False))
    names = [name for name, _ in model.named_parameters()]
    assert names == ["0.0.weight", "0.0.bias", "2.weight"]


def test_leaves_are_the_layers_of_a_nested_chain_by_their_paths():
    class Encoder(Sequential):
        pass

    a, b, c, d = Linear(2, 2), ReLU(), Dropout(), Scale(2)
    model = Sequential(Sequential(a, Sequential(b)), Sequential(), Encoder(c), d)
    assert list(model.leaves()) == [("0.0", a), ("0.1.0", b), ("2", model[2]), ("3", d)]
    model[0].forward = np.tanh  # now it may compute anything
    assert [path for path, _ in model.leaves()] == ["0", "2", "3"]


def test_the_empty_one_is_the_identity():
    x = np.array([1.0, 2.0])
    model = Sequential()
    np.testing.assert_array_equal(model(x), x)
    np.testing.assert_array_equal(model.backward(x), x)
    assert not np.shares_memory(model(x), x)


def test_a_shared_parameter_sums_its_gradients():
    a, b = Linear(2, 2, bias=False, rng=0), Linear(2, 2, bias=False, rng=0)
    tied = Sequential(Linear(2, 2, bias=False, rng=0), Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    assert len(list(tied.parameters())) == 1
    apart = Sequential(a, b)
    x = np.array([[1.0, 2.0]])
    for model in (tied, apart):
        model(x)
        model.backward(np.ones((1, 2)))
    np.testing.assert_allclose(tied[0].weight.grad, a.weight.grad + b.weight.grad, rtol=1e-6)


def test_a_layer_that_fails_leaves_nothing_for_backward():
    model = Sequential(Linear(2, 3, rng=0), Sequential(Linear(3, 1, rng=1)), ReLU())
    model(np.ones((1, 2)))
    text = "Sequential, layer 0: Linear: expected x of shape (..., 2), got (1, 5)"
    with refusal(ValueError, text):
        model(np.ones((1, 5)))
    with refusal_starting(RuntimeError, "Sequential: expected a forward before backward, got none"):
        model.backward(np.ones((1, 1)))
    assert all(not p.grad.any() for p in model.parameters())


class Encoder(Sequential):
    """A Sequential in all but its name."""


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (lambda bad: Sequential(bad), "Sequential, layer 0: "),
        (lambda bad: Sequential(ReLU(), ReLU(), bad, ReLU()), "Sequential, layer 2: "),
        (lambda bad: Sequential(ReLU(), Sequential(bad)), "Sequential, layer 1.0: "),
        (lambda bad: Sequential(Encoder(ReLU(), Sequential(bad))), "Sequential, layer 0.1.0: "),
        (lambda bad: Encoder(bad), "Encoder, layer 0: "),
    ],
)
def test_a_shape_that_does_not_fit_names_the_layer_by_its_path(model, path):
    text = f"{path}Linear: expected x of shape (..., 9), got (2, 8)"
    with refusal(ValueError, text):
        model(Linear(9, 3))(np.ones((2, 8)))


def test_a_refusal_keeps_its_type_also_one_of_a_users_layer():
    text = "Sequential, layer 1: BatchNorm: expected more than one value of a feature, got (1, 3)"
    with refusal(ValueError, text):
        Sequential(Linear(2, 3), BatchNorm(3))(np.ones((1, 2)))
    text = "Sequential, layer 0: Embedding: expected x to be integers, got dtype float64"
    with refusal(TypeError, text):
        Sequential(Embedding(4, 2), ReLU())([0.5])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        TypeError("Sums: no refusal"),
        RuntimeError("Fails: no"),
        KeyboardInterrupt(),
    ],
)
def test_an_error_that_is_no_refusal_of_the_layer_stays_as_it_is(error):
    class Fails(ReLU):
        def forward(self, x):
            raise error

    args = error.args
    with pytest.raises(type(error)) as caught:
        Sequential(ReLU(), Sequential(Fails()))(np.ones(2))
    assert caught.value is error
    assert error.args == args


def test_the_first_layer_may_have_several_inputs():
    product, linear = Product(), Linear(3, 2, rng=0)
    model = Sequential(product, linear)
    a, b = np.arange(6.0).reshape(2, 3), np.full((2, 3), 2.0)
    np.testing.assert_array_equal(model(a, b), linear(a * b))
    da, db = model.backward(np.ones((2, 2)))
    dx = linear.backward(np.ones((2, 2)))
    np.testing.assert_array_equal(da, dx * b)
    np.testing.assert_array_equal(db, dx * a)


def test_the_first_layer_gets_arrays_whatever_the_caller_passed():
    class Sees(Product):
        def forward(self, a, b):
            seen.append((type(a), a.dtype, type(b), b.dtype))
            return super().forward(a, b)

    seen = []
    np.testing.assert_array_equal(Sequential(Sees())([1, 2], [0.5, 2]), [0.5, 4])
    assert seen == [(np.ndarray, np.int64, np.ndarray, np.float64)]
    text = "Sequential: expected x to be an array of real numbers, got None"
    for inputs in ((None, [1]), ([1], None)):
        with refusal(TypeError, text):
            Sequential(Sees())(*inputs)


def test_the_number_of_inputs_is_that_of_the_first_layer():
    model = Sequential(Product(), ReLU())
    model(np.ones(2), np.ones(2))
    for count in (1, 3):
        with pytest.raises(TypeError):
            model(*[np.ones(2)] * count)
        with pytest.raises(RuntimeError):
            model.backward(np.ones(2))


class Block(Module):
    """A custom module around a Linear."""

    def __init__(self):
        self.inner = Linear(3, 2, rng=0)

    def forward(self, x):
        return self.inner(x)

    def backward(self, dy):
        return self.inner.backward(dy)


def test_a_refusal_inside_a_custom_module_is_located_too():
    model = Sequential(ReLU(), Sequential(Block()))
    text = "Sequential, layer 1.0: Block: Linear: expected x of shape (..., 3), got (2, 4)"
    with refusal(ValueError, text):
        model(np.ones((2, 4)))


def test_a_refusal_in_backward_is_located_too():
    model = Sequential(Linear(3, 4, rng=0), ReLU())
    model(np.ones((5, 3)))
    model[0](np.ones((2, 3)))
    text = "Sequential, layer 0: Linear: expected dy of shape (2, 4), got (5, 4)"
    with refusal(ValueError, text):
        model.backward(np.ones((5, 4)))
    with pytest.raises(ValueError, match="expected x of shape"):
        model[0](np.ones(1))
    text = "expected a forward before backward, got none, or one that failed"
    with refusal(RuntimeError, f"Sequential, layer 0: Linear: {text}"):
        model.backward(np.ones((5, 4)))


def test_a_refusal_names_the_layer_itself_not_an_equal_one():
    class Scale(Module):
        def __init__(self):
            self.inner = ReLU()

        def __eq__(self, other):
            return isinstance(other, Scale)

        __hash__ = object.__hash__

        def forward(self, x):
            if x.shape[-1] == 3:
                raise ValueError("Scale: expected 4 features, got 3")
            return self.inner(x)

        def backward(self, dy):
            raise ValueError("Scale: expected another dy, got this")

    model = Sequential(Scale(), Linear(4, 3, rng=0), Scale())
    with pytest.raises(ValueError, match="^Sequential, layer 2: Scale: expected 4 features"):
        model(np.ones(4))
    model = Sequential(Scale(), ReLU(), Scale())
    model(np.ones(4))
    with pytest.raises(ValueError, match="^Sequential, layer 2: Scale: expected another dy"):
        model.backward(np.ones(4))


class Centred(Module):
    def forward(self, x):
        return (np.asarray(x) - 128) / 64

    def backward(self, dy):
        return np.asarray(dy) / 64


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int8, bool])
def test_numbers_that_would_wrap_around_reach_a_first_layer_as_floats(dtype):
    x = np.array([[0, 1, 100]]).astype(dtype)
    wanted = (x.astype(float) - 128) / 64
    np.testing.assert_allclose(Sequential(Centred())(x), wanted)


def test_a_chain_without_layers_has_one_input():
    with refusal(TypeError, "Sequential: expected one input, as it has no layer, got 2"):
        Sequential()(np.ones(2), np.ones(2))


def test_the_shape_that_dy_must_have_is_that_of_y_whatever_the_caller_makes_of_it():
    for layer in (Dropout(0.5, rng=0), Sequential(Dropout(0.5, rng=0))):
        y = layer(np.ones((4, 1)))
        y.resize(4, refcheck=False)
        with pytest.raises(ValueError, match=r"expected dy of shape \(4, 1\), got \(4,\)"):
            layer.backward(np.ones(4))


class Shift(Module):
    sample_axes = 3

    def forward(self, x):
        return np.asarray(x) + 1

    def backward(self, dy):
        return np.asarray(dy)


def test_a_sample_of_a_chain_has_the_most_axes_that_a_layer_before_an_unflatten_asks_for():
    assert Sequential(ReLU(), Dropout(), Shift()).sample_axes == 3
    assert Sequential(Linear(2, 2), Shift()).sample_axes == 3  # its features are channels
    assert Sequential(nn.BatchNorm(2), Sequential(ReLU(), Conv2d(2, 3, 1))).sample_axes == 3
    assert Sequential(nn.AvgPool2d(2), ReLU()).sample_axes == 3
    assert Sequential(Flatten(2), Linear(4, 2)).sample_axes == 2
    assert Sequential(ReLU()).sample_axes == Sequential().sample_axes == 1


def test_what_comes_after_a_flatten_has_fewer_axes_than_a_sample():
    frames = Conv2d(1, 2, 1), Flatten()  # of a film (..., frames, H, W, 1)
    for model in (
        Sequential(*frames, Flatten(2), Linear(4, 3)),
        Sequential(Sequential(*frames), Flatten(2), Linear(4, 3)),
        Sequential(Flatten(2), Conv2d(4, 2, 1)),
    ):
        assert model.sample_axes == 4
    assert Sequential(Flatten(2), Flatten(2), Flatten(2)).sample_axes == 4
    assert Sequential(Flatten(), Linear(4, 2), Flatten(1)).sample_axes == 3
    model, x = Sequential(Conv2d(1, 2, 1, rng=0), Flatten(), Flatten(2)), np.ones((5, 2, 3, 1, 1))
    assert check_gradients(model, x)


def test_layers_after_an_unflatten_say_nothing_about_the_axes_of_a_sample():
    class Images(Sequential):
        pass

    def unflatten():
        return Linear(2, 4), Unflatten((2, 2, 1))

    conv = Conv2d(1, 1, 1)
    assert Sequential(*unflatten(), conv).sample_axes == 1
    assert Sequential(Sequential(*unflatten()), conv).sample_axes == 1
    assert Sequential(Images(*unflatten()), conv).sample_axes == 1
    assert Sequential(Flatten(2), *unflatten(), conv).sample_axes == 2
    assert Sequential(Sequential(Flatten(2), *unflatten()), conv).sample_axes == 2


def test_a_custom_layer_says_how_many_axes_it_adds():
    class Image(Module):
        added_axes = 2

        def forward(self, x):
            return np.reshape(x, (-1, 2, 2, 1))

        def backward(self, dy):
            return np.reshape(dy, (-1, 4))

    model = Sequential(Image(), Conv2d(1, 3, 2, rng=0), Flatten(), Linear(3, 5, rng=1))
    assert (model.sample_axes, model.added_axes) == (1, 0)
    assert predict(model, np.ones((6, 4))).shape == (6, 5)
    pooled = Sequential(Parallel(Image()), Residual(Conv2d(1, 1, 1)))
    assert (pooled.sample_axes, pooled.added_axes) == (1, 2)


def test_integers_reach_the_first_layer_as_they_are():
    seen = []

    class Sees(Embedding):
        def forward(self, x):
            seen.append((type(x), x.dtype, x.tolist()))
            return super().forward(x)

    model = Sequential(Sees(5, 3, rng=0), Linear(3, 2, rng=1))
    y = model([[0, 4], [1, 1]])
    assert seen == [(np.ndarray, np.int64, [[0, 4], [1, 1]])]
    table, linear = model[0].table.data, model[1]
    np.testing.assert_array_equal(y, linear(table[[[0, 4], [1, 1]]]))
    model(np.array([2], np.uint8))
    assert seen[1:] == [(np.ndarray, np.uint8, [2])]
    assert model.backward(np.ones((1, 2))) is None  # indices have no gradient
    np.testing.assert_array_equal(np.flatnonzero(model[0].table.grad.any(axis=1)), [2])
    model[0].input_grad = True
    model(np.array([2], np.int32))  # whose arithmetic does not wrap around soon
    assert seen[2:] == [(np.ndarray, np.int32, [2])]


def test_one_sample_of_a_chain_has_the_axes_of_its_first_layers():
    assert Sequential().sample_axes == Sequential(Linear(2, 2)).sample_axes == 1
    assert Sequential(Sequential(MeanPool()), Linear(2, 2)).sample_axes == 3


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: [[Linear(2, 2), ReLU()]], "layer 0 to be a Module, got a list"),
        (lambda: [Linear(2, 2), ReLU], "layer 1 to be a Module, got the class ReLU"),
        (lambda: [np.tanh], "layer 0 to be a Module, got a ufunc"),
        (lambda: [None], "layer 0 to be a Module, got None"),
    ],
)
def test_what_is_no_module_is_refused(made, text):
    with refusal(TypeError, f"Sequential: expected {text}"):
        Sequential(*made())


def test_the_same_module_twice_is_refused():
    relu, linear = ReLU(), Linear(2, 2)
    text = "Sequential: expected each Module once, got the same "
    with refusal(ValueError, text + "ReLU in layers 0 and 2"):
        Sequential(relu, linear, relu)
    with refusal(ValueError, text + "Linear in layers 0 and 1"):
        Sequential(Sequential(linear), Sequential(Sequential(linear)))


def test_input_grad_false_is_refused_anywhere_but_first():
    def data_layer():
        return Linear(2, 2, input_grad=False)

    assert not Sequential(data_layer(), ReLU()).input_grad
    assert Sequential(ReLU()).input_grad
    assert Sequential().input_grad
    text = "Sequential: expected input_grad=False in no layer but the first, got it in layer 1"
    for late in (data_layer(), Sequential(data_layer(), ReLU())):
        with refusal(ValueError, text):
            Sequential(Dropout(), late)


class Signs(Module):
    """Passes gradients straight through; its y are integers."""

    def forward(self, x):
        return np.sign(x).astype(int)

    def backward(self, dy):
        return dy


def test_a_layer_that_answers_in_integers_does_not_round_gradients():
    model = Sequential(Linear(2, 2, bias=False, rng=0), Signs())
    assert model(np.ones((1, 2))).dtype.kind == "f"
    model.backward(np.full((1, 2), 0.5))
    np.testing.assert_array_equal(model[0].weight.grad, np.full((2, 2), 0.5))


def test_a_layer_that_answers_with_no_real_numbers_is_refused():
    class Roots(Signs):
        def forward(self, x):
            return np.sqrt(x.astype(complex))

    text = "Sequential: expected y to be an array of real numbers, got an array of dtype complex128"
    with refusal(TypeError, text):
        Sequential(Roots())(np.ones(2))


def test_a_first_layer_may_reshape_a_list():
    class Flatten(Signs):
        def forward(self, x):
            return x.reshape(len(x), -1)

    assert Sequential(Flatten())([[[1, 2]], [[3, 4]]]).tolist() == [[1, 2], [3, 4]]
