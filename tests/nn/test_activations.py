"""Activations: each against plain loops, into both tails; Softmax; and one that a user writes."""

import math
import warnings

import numpy as np
import pytest
from helpers import refusal, refusal_starting
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_mnist import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from tinygrad_mnist.nn import Elementwise
from tinygrad_mnist.testing import check_gradients

KINDS = {
    "ReLU": ReLU,
    "LeakyReLU": lambda: LeakyReLU(0.25),
    "Tanh": Tanh,
    "Sigmoid": Sigmoid,
    "SiLU": SiLU,
    "GELU": GELU,
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def below(x):
    """Return the probability of a standard normal number below x."""
    return math.erfc(-x / math.sqrt(2)) / 2


# f(x) and f'(x) of one number, written so that no digit is lost in either tail
LOOPS = {
    "ReLU": lambda x: (x, 1) if x > 0 else (0, 0),
    "LeakyReLU": lambda x: (x, 1) if x > 0 else (x / 4, 0.25),
    "Tanh": lambda x: (math.tanh(x), 1 / math.cosh(x) ** 2),
    "Sigmoid": lambda x: (sigmoid(x), sigmoid(x) * sigmoid(-x)),
    "SiLU": lambda x: (x * sigmoid(x), sigmoid(x) + x * sigmoid(x) * sigmoid(-x)),
    "GELU": lambda x: (
        x * below(x),
        below(x) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    ),
}


@every_kind
@every_dtype
def test_values_and_slopes_are_those_of_a_loop_to_the_last_digits_of_both_tails(kind, dtype):
    x = np.concatenate([np.arange(-12, 12, 1 / 16), [-30, -20, 0, 20, 30, 80]]).astype(dtype)
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    layer = KINDS[kind]()
    y, dx = layer(x), layer.backward(np.full_like(x, -2))
    loop = np.array([LOOPS[kind](float(number)) for number in x])
    rounding = 4 + 2 * x * x  # as in exp(-x * x / 2), whose exponent is rounded
    np.testing.assert_array_less(abs(y - loop[:, 0]), abs(loop[:, 0]) * eps * rounding + tiny)
    # a slope is a sum of numbers up to 1: in Tanh it loses the tails, in others it may cross 0
    size = 1 if kind == "Tanh" else abs(loop[:, 1]) + (abs(x + 1) < 1)
    np.testing.assert_array_less(abs(dx + 2 * loop[:, 1]), 2 * size * eps * rounding + tiny)


FAR = {  # f and f' far below 0, and far above, where f may be x itself
    "ReLU": ((0, 0), ("x", 1)),
    "LeakyReLU": (("x / 4", 0.25), ("x", 1)),
    "Tanh": ((-1, 0), (1, 0)),
    "Sigmoid": ((0, 0), (1, 0)),
    "SiLU": ((0, 0), ("x", 1)),
    "GELU": ((0, 0), ("x", 1)),
}


@every_kind
@every_dtype
def test_no_finite_number_is_too_large(kind, dtype):
    layer, far = KINDS[kind](), [1e4, 1e30, np.finfo(dtype).max]
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        for sign, (value, slope) in zip([-1, 1], FAR[kind], strict=True):
            x = sign * np.array(far, dtype)
            y, dx = layer(x), layer.backward(np.ones(3))
            assert y.dtype == dx.dtype == dtype
            np.testing.assert_array_equal(y, {"x": x, "x / 4": x / 4}.get(value, [value] * 3))
            np.testing.assert_array_equal(dx, [slope] * 3)


@pytest.mark.parametrize(
    ("kind", "values", "slopes"),
    [
        ("ReLU", [0, np.inf], [0, 1]),
        ("LeakyReLU", [-np.inf, np.inf], [0.25, 1]),
        ("Tanh", [-1, 1], [0, 0]),
        ("Sigmoid", [0, 1], [0, 0]),
        ("SiLU", [np.nan, np.inf], [np.nan, np.nan]),
        ("GELU", [np.nan, np.inf], [np.nan, np.nan]),
    ],
)
def test_infinities_give_what_they_give_in_pytorch(kind, values, slopes):
    layer = KINDS[kind]()
    with np.errstate(invalid="ignore"):
        y, dx = layer([-np.inf, np.inf, np.nan]), layer.backward(np.ones(3))
    np.testing.assert_array_equal(y, [*values, np.nan])
    np.testing.assert_array_equal(dx[:2], slopes)


def test_the_slope_is_that_of_the_input_and_0_at_0():
    layer = ReLU()
    x = np.array([-1.0, -0.0, 0.0, 1e-300, np.nan, np.inf])
    np.testing.assert_array_equal(layer(x)[3:], [1e-300, np.nan, np.inf])
    np.testing.assert_array_equal(layer.backward(np.ones(6)), [0, 0, 0, 1, 0, 1])


@every_kind
def test_an_array_without_axes_gives_an_array(kind):
    layer = KINDS[kind]()
    for array in (layer(np.array(2.0)), layer.backward(np.array(3.0))):
        assert type(array) is np.ndarray
        assert array.shape == ()


# LeakyReLU


def test_at_0_a_leaky_relu_has_the_slope_of_the_left():
    layer = LeakyReLU()
    np.testing.assert_array_equal(layer([-2.0, -0.0, 0.0, 1e-300]), [-0.02, 0, 0, 1e-300])
    np.testing.assert_array_equal(layer.backward(np.ones(4)), [0.01, 0.01, 0.01, 1])


def test_a_slope_of_0_is_a_relu_and_one_of_1_the_identity():
    x = np.array([-3.0, 0.0, 2.0])
    for layer, y in ((LeakyReLU(0), [0, 0, 2]), (LeakyReLU(1), x)):
        np.testing.assert_array_equal(layer(x), y)
        np.testing.assert_array_equal(layer.backward(x), y)


def test_a_slope_is_checked_whenever_it_is_set_and_counts_from_the_next_forward():
    layer = LeakyReLU(0.5)
    layer([-1.0])
    layer.slope = 0.25
    assert layer.backward([1.0]) == 0.5
    assert layer([-1.0]) == -0.25
    assert repr(layer) == "LeakyReLU(slope=0.25)"
    for slope, error in ((-0.1, ValueError), (1.5, ValueError), (np.nan, ValueError)):
        with refusal(error, f"LeakyReLU: expected slope in [0, 1], got {slope}"):
            layer.slope = slope
    with refusal(TypeError, "LeakyReLU: expected slope in [0, 1], got '0.1'"):
        LeakyReLU("0.1")
    assert layer.slope == 0.25


# Softmax


# ties and extremes are the point here: floats, not seeds
@given(x=hnp.arrays(np.float64, hnp.array_shapes(max_dims=3), elements=st.floats(-9, 9)))
def test_softmax_and_its_gradient_are_those_of_a_loop(x):
    layer, dy = Softmax(), np.cos(np.arange(x.size)).reshape(x.shape)
    y, dx = layer(x), layer.backward(dy)
    for i in np.ndindex(x.shape[:-1]):
        terms = [math.exp(number) for number in x[i]]
        p = [term / math.fsum(terms) for term in terms]
        np.testing.assert_allclose(y[i], p, rtol=1e-14)
        for k in range(len(p)):  # dy_j / dx_k = p_j * ((j == k) - p_k)
            slopes = [p[j] * ((j == k) - p[k]) for j in range(len(p))]
            assert dx[i][k] == pytest.approx(slopes @ dy[i], rel=1e-12, abs=1e-15)


@every_dtype
def test_softmax_of_large_scores_is_that_of_their_differences(dtype):
    layer, scores = Softmax(), np.array([[1, 2, 3], [3, 3, 0]], dtype)
    largest = np.finfo(dtype).max
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(layer(scores + 1e4), layer(scores))
        np.testing.assert_array_equal(layer(scores - 1e4), layer(scores))
        np.testing.assert_array_equal(layer([0, 1e4]), [0, 1])
        np.testing.assert_array_equal(layer(np.array([largest, -largest], dtype)), [1, 0])
        np.testing.assert_array_equal(layer.backward([1, 2]), [0, 0])


def test_a_score_of_minus_infinity_has_probability_0():
    layer = Softmax()
    np.testing.assert_array_equal(layer([2, -np.inf, 2]), [0.5, 0, 0.5])
    np.testing.assert_array_equal(layer.backward([1, 5, 3]), [-0.5, 0, 0.5])


@pytest.mark.parametrize("shape", [(), (0,), (2, 0)])
def test_softmax_of_no_scores_is_refused(shape):
    text = f"Softmax: expected x with a last axis of one entry or more, got {shape}"
    with refusal(ValueError, text):
        Softmax()(np.zeros(shape))


# the base


class Softplus(Elementwise):
    """f(x) = log(1 + exp(x)); f'(x) = 1 / (1 + exp(-x))."""

    def compute(self, x):
        return np.logaddexp(0, x), 1 / (1 + np.exp(-x))


def test_an_activation_is_written_as_f_and_its_slope():
    layer, x = Softplus(), np.linspace(-3, 3, 7)
    assert check_gradients(layer, x)
    np.testing.assert_allclose(layer(x), np.log(1 + np.exp(x)), rtol=1e-12)
    np.testing.assert_allclose(layer.backward(2 * x), 2 * x / (1 + np.exp(-x)), rtol=1e-12)


def test_the_base_refuses_in_the_name_of_the_activation():
    layer = Softplus()
    with refusal_starting(RuntimeError, "Softplus: expected a forward before backward, got none"):
        layer.backward(np.ones(3))
    layer(np.ones(3))
    with refusal(ValueError, "Softplus: expected dy of shape (3,), got (2,)"):
        layer.backward(np.ones(2))


def test_a_compute_that_fails_leaves_nothing_for_backward():
    class Fails(Softplus):
        def compute(self, x):
            if not x.all():
                raise ValueError("no zeros")
            return super().compute(x)

    layer = Fails()
    layer(np.ones(3))
    with pytest.raises(ValueError, match="no zeros"):
        layer(np.zeros(3))
    with pytest.raises(RuntimeError):
        layer.backward(np.ones(3))


def test_compute_must_be_written():
    with pytest.raises(TypeError, match="abstract method '?compute"):
        type("Half", (Elementwise,), {})()
