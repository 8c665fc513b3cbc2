"""clip_grad_norm against the formula."""

import math

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import Linear, Parameter
from tinygrad_mnist.optim import clip_grad_norm


def parameters(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    params = [Parameter(np.zeros(shape, dtype)) for shape in ((3, 2), (4,), (), (0, 3))]
    for p in params:
        p.grad = rng.standard_normal(p.data.shape)
    return params


@given(seed=st.integers(0, 2**32 - 1), max_norm=st.sampled_from([0.0, 1e-3, 1.0, 3.0, 1e3]))
def test_the_gradients_of_all_are_clipped_as_one_vector(seed, max_norm):
    params = parameters(seed)
    before = [p.grad.copy() for p in params]
    squares = sum(g[i] ** 2 for g in before for i in np.ndindex(g.shape))
    factor = min(1, max_norm / (math.sqrt(squares) + 1e-6))
    norm = clip_grad_norm(iter(params), max_norm)
    assert type(norm) is float
    assert norm == pytest.approx(math.sqrt(squares), rel=1e-13)
    for p, g in zip(params, before, strict=True):
        np.testing.assert_allclose(p.grad, g * factor, rtol=1e-13)
    assert clip_grad_norm(params, 1e9) <= max(max_norm, 1e-300) * (1 + 1e-12) or factor == 1


def test_a_model_is_clipped_also_where_its_gradient_is_a_product():
    layer = Linear(3, 2, rng=0)
    layer(np.ones((4, 3)))
    layer.backward(np.ones((4, 2)))
    norm = clip_grad_norm(layer.parameters(), 0.5)
    assert norm == pytest.approx(math.sqrt(6 * 4**2 + 2 * 4**2), rel=1e-6)
    np.testing.assert_allclose(layer.weight.grad, np.full((3, 2), 4 * 0.5 / norm), rtol=1e-6)


def test_a_parameter_that_appears_twice_counts_once():
    p = Parameter([0.0, 0.0])
    p.grad = [3, 4]
    assert clip_grad_norm([p, p], 2.5) == 5
    np.testing.assert_allclose(p.grad, [1.5, 2], rtol=1e-6)


def test_a_norm_within_the_bound_changes_no_bit():
    p = Parameter([0.0, 0.0])
    p.grad = [3, 4]
    assert clip_grad_norm([p], 5.1) == 5
    np.testing.assert_array_equal(p.grad, [3, 4])


def test_without_gradients_the_norm_is_0():
    p = Parameter([0.0, 0.0])
    assert clip_grad_norm([p], 1) == 0
    assert not p.grad.any()


@pytest.mark.parametrize(("dtype", "large"), [(np.float32, 1e30), (np.float64, 1e300)])
def test_squares_that_would_overflow_or_vanish_are_counted(dtype, large):
    for size in (large, 1 / large):
        params = [Parameter(np.zeros(4, dtype)) for _ in range(4)]
        for p in params:
            p.grad = np.full(4, size)
        with np.errstate(all="raise"):
            assert clip_grad_norm(params, 1.0) == pytest.approx(4 * size, rel=1e-6)
        assert params[0].grad[0] == pytest.approx(min(size, 0.25), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradients_that_no_factor_makes_finite_stay_as_they_are(bad):
    a, b = Parameter([0.0, 0.0]), Parameter([0.0])
    a.grad, b.grad = [1, bad], [2]
    norm = clip_grad_norm([a, b], 1.0)
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
    np.testing.assert_array_equal(a.grad, [1, bad])
    np.testing.assert_array_equal(b.grad, [2])


@pytest.mark.parametrize(
    ("params", "max_norm", "error", "text"),
    [
        ([Parameter(1.0)], -1, ValueError, "max_norm in [0, inf), got -1"),
        ([Parameter(1.0)], math.nan, ValueError, "max_norm in [0, inf), got nan"),
        ([Parameter(1.0)], "1", TypeError, "max_norm in [0, inf), got '1'"),
        (Parameter(1.0), 1, TypeError, "an iterable of Parameters, got a Parameter"),
        ([], 1, ValueError, "at least one Parameter, got none"),
        (
            [np.ones(2)],
            1,
            TypeError,
            "params to be Parameters, got an array of shape (2,) and dtype float64",
        ),
    ],
)
def test_other_arguments_are_refused(params, max_norm, error, text):
    with refusal(error, f"clip_grad_norm: expected {text}"):
        clip_grad_norm(params, max_norm)
