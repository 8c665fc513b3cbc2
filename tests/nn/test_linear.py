"""Linear against plain loops."""

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import Linear, Parameter


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.sampled_from([2, 3, 1, 70]),
    features=st.tuples(st.sampled_from([2, 3, 1, 90]), st.sampled_from([2, 3, 1, 110])),
    bias=st.booleans(),
)
def test_forward_and_backward_are_plain_loops(seed, rows, features, bias):
    rng = np.random.default_rng(seed)
    n_in, n_out = features
    layer = Linear(n_in, n_out, bias, rng=rng, dtype=np.float64)
    x, dy = rng.standard_normal((rows, n_in)), rng.standard_normal((rows, n_out))
    W, b = layer.weight.data, rng.standard_normal(n_out) * bias
    if bias:
        layer.bias.data = b
    y, dx, dW = np.zeros((rows, n_out)), np.zeros((rows, n_in)), np.zeros((n_in, n_out))
    for r in range(rows):
        for o in range(n_out):
            y[r, o] = b[o] + sum(x[r] * W[:, o])
            dx[r] += dy[r, o] * W[:, o]
            dW[:, o] += dy[r, o] * x[r]
    np.testing.assert_allclose(layer(x), y, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(layer.backward(dy), dx, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(layer.weight.grad, dW, rtol=1e-10, atol=1e-12)
    if bias:
        np.testing.assert_allclose(layer.bias.grad, sum(dy), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(layer(x[0]), y[0], rtol=1e-10, atol=1e-12)  # one sample alone
    np.testing.assert_allclose(layer.backward(dy[0]), dx[0], rtol=1e-10, atol=1e-12)


def test_without_input_grad_only_the_parameters_get_gradients():
    layers = [Linear(3, 2, rng=0, input_grad=flag) for flag in (True, False)]
    x, dy = np.arange(6).reshape(2, 3), np.ones((2, 2))
    for layer in layers:
        layer(x)
    assert layers[0].backward(dy) is not None
    assert layers[1].backward(dy) is None
    np.testing.assert_array_equal(layers[0].weight.grad, layers[1].weight.grad)


def test_the_init_may_be_any_function_of_shape_and_rng():
    layer = Linear(2, 3, init=lambda shape, rng: np.arange(6).reshape(shape))
    np.testing.assert_array_equal(layer.weight.data, [[0, 1, 2], [3, 4, 5]])


def test_the_default_dtype_is_float32():
    assert Linear(2, 3).weight.data.dtype == Linear(2, 3).bias.data.dtype == np.float32


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "text"),
    [
        ((0, 1), {}, ValueError, "Linear: expected in_features to be an integer >= 1, got 0"),
        ((1, -2), {}, ValueError, "Linear: expected out_features to be an integer >= 1, got -2"),
        ((2.0, 1), {}, TypeError, "Linear: expected in_features to be an integer >= 1, got 2.0"),
        ((True, 1), {}, TypeError, "Linear: expected in_features to be an integer >= 1, got True"),
        ((2, "3"), {}, TypeError, "Linear: expected out_features to be an integer >= 1, got '3'"),
        ((2, 3, 1), {}, TypeError, "Linear: expected bias to be a bool, got 1"),
        (
            (2, 3),
            {"input_grad": None},
            TypeError,
            "Linear: expected input_grad to be a bool, got None",
        ),
        (
            (2, 3),
            {"dtype": np.float16},
            TypeError,
            "Linear: expected dtype float32 or float64, got float16",
        ),
        ((2, 3), {"init": 0.1}, TypeError, "Linear: expected init to be a function, got 0.1"),
        (
            (2, 3),
            {"init": lambda shape, rng: np.zeros(3)},
            ValueError,
            "Linear: expected init's array of shape (2, 3), got (3,)",
        ),
        (
            (2, 3),
            {"init": lambda shape, rng: np.zeros(shape, complex)},
            TypeError,
            "Linear: expected init's array to be an array of real numbers, "
            "got an array of dtype complex128",
        ),
        (
            (2, 3),
            {"rng": 1.5},
            TypeError,
            "Linear: expected rng to be a seed, a numpy.random.Generator or None, got 1.5",
        ),
        (
            (2, 3),
            {"rng": np.random.RandomState(1)},
            TypeError,
            "Linear: expected rng to be a seed, a numpy.random.Generator or None, "
            "got a RandomState",
        ),
        (
            (2, 3),
            {"rng": True},
            TypeError,
            "Linear: expected rng to be a seed, a numpy.random.Generator or None, got True",
        ),
        ((2, 3), {"rng": -1}, ValueError, "Linear: expected rng to be an integer >= 0, got -1"),
    ],
)
def test_refusals(args, kwargs, error, text):
    with refusal(error, text):
        Linear(*args, **kwargs)


@pytest.mark.parametrize("shape", [(), (3,), (10, 783), (2, 784, 1), (784, 10)])
def test_a_wrong_number_of_features_is_refused(shape):
    with refusal(ValueError, f"Linear: expected x of shape (..., 784), got {shape}"):
        Linear(784, 10)(np.zeros(shape))


@pytest.mark.parametrize(
    ("name", "wanted", "shape"),
    [
        *(("weight", (4, 3), shape) for shape in [(4, 1), (3, 4), (4,), (12,), (4, 3, 1), ()]),
        *(("bias", (3,), shape) for shape in [(1,), (3, 1), (1, 3), (4,), ()]),
    ],
)
def test_a_parameter_of_another_shape_is_refused_when_it_is_set(name, wanted, shape):
    layer = Linear(4, 3, rng=0)
    before = getattr(layer, name)
    with refusal(ValueError, f"Linear: expected {name} of shape {wanted}, got {shape}"):
        setattr(layer, name, Parameter(np.ones(shape)))
    assert getattr(layer, name) is before
    setattr(layer, name, Parameter(np.ones(wanted)))
    assert layer(np.ones(4)).shape == (3,)


def test_a_parameter_that_was_replaced_is_forgotten():
    layer = Linear(4, 3, rng=0)
    layer(np.ones(4))
    layer.weight = weight = Parameter(np.ones((4, 3)))
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert next(layer.parameters()) is weight
    np.testing.assert_array_equal(layer(np.ones(4)), [4, 4, 4])
    layer.bias = None
    assert layer.state_dict().keys() == {"weight"}
    np.testing.assert_array_equal(layer(np.ones(4)), [4, 4, 4])
