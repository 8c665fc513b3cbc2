"""MSELoss against plain loops and central differences."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import MSELoss
from tinygrad_mnist.testing import check_loss_gradients
from tinygrad_mnist.testing.strategies import seeds

SHAPES = st.sampled_from([(3, 2), (2, 3, 4), (5,), (1, 1), (), (4, 1)])
REDUCTIONS = ["mean", "sum", "batchmean"]


def drawn(seed, shape):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), rng.standard_normal(shape)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(seed=st.integers(0, 2**32 - 1), shape=SHAPES)
def test_the_value_is_a_plain_loop(reduction, seed, shape):
    y, t = drawn(seed, shape)
    total, count = 0.0, {"mean": 0, "sum": 1, "batchmean": 0}[reduction]
    for i in np.ndindex(shape):
        total += (y[i] - t[i]) ** 2
        if reduction == "mean" or (reduction == "batchmean" and (not i or i[-1] == 0)):
            count += 1
    value = MSELoss(reduction)(y, t)
    assert type(value) is float
    assert value == pytest.approx(total / count, rel=1e-13)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(seed=seeds(), shape=SHAPES)
def test_backward_is_the_derivative_of_the_value(reduction, seed, shape):
    assert check_loss_gradients(MSELoss(reduction), *drawn(seed, shape))


def test_the_dtype_is_that_of_pred():
    y, t = np.ones((2, 2), np.float32), np.zeros((2, 2))
    loss = MSELoss()
    loss(y, t)
    assert loss.backward().dtype == np.float32
    loss(t, y)
    assert loss.backward().dtype == np.float64
    assert loss(np.array([200], np.uint8), np.array([250], np.uint8)) == 2500


def test_arrays_passed_in_are_neither_modified_nor_remembered():
    y, t = drawn(0, (3, 2))
    kept_y, kept_t = y.copy(), t.copy()
    loss = MSELoss()
    loss(y, t)
    wanted = loss.backward()
    np.testing.assert_array_equal(y, kept_y)
    np.testing.assert_array_equal(t, kept_t)
    y[:], t[:] = 0, 0
    np.testing.assert_array_equal(loss.backward(), wanted)


def test_any_layout_gives_the_same():
    y, t = drawn(0, (4, 3))
    plain, other = MSELoss(), MSELoss()
    value = plain(y, t)
    for layout in (np.asfortranarray, lambda a: np.repeat(a, 2, 0)[::2]):
        assert other(np.asfortranarray(y), layout(t)) == value
        np.testing.assert_array_equal(other.backward(), plain.backward())


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (((10, 1), (10,)), "target of shape (10, 1), got (10,)"),
        (((10,), (10, 1)), "target of shape (10,), got (10, 1)"),
        (((2, 3), (3,)), "target of shape (2, 3), got (3,)"),
        (((2, 3), ()), "target of shape (2, 3), got ()"),
        (((0, 3), (0, 3)), "pred with at least one element, got shape (0, 3)"),
    ],
)
def test_shapes_are_never_broadcast_and_never_empty(shapes, text):
    loss = MSELoss()
    loss(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="^" + re.escape(f"MSELoss: expected {text}") + "$"):
        loss(np.ones(shapes[0]), np.ones(shapes[1]))
    with pytest.raises(RuntimeError, match="^MSELoss: expected a forward before backward"):
        loss.backward()


def test_refusals():
    text = 'MSELoss: expected reduction "mean", "sum" or "batchmean", got '
    texts = np.array(["mean", "sum"])  # compared with a text, it is neither true nor false
    cases = ("none", "'none'"), (None, "None"), (texts, "an array of shape (2,) and dtype <U4")
    for bad, got in cases:
        with pytest.raises(ValueError, match="^" + re.escape(text + got) + "$"):
            MSELoss(bad)
    text = "MSELoss: expected target to be an array of real numbers, got an array of dtype complex"
    with pytest.raises(TypeError, match="^" + re.escape(text)):
        MSELoss()(np.ones(2), np.ones(2, complex))
    with pytest.raises(TypeError, match="^MSELoss: expected pred to be an array of real numbers"):
        MSELoss()("y", np.ones(2))
    with pytest.raises(RuntimeError, match="^MSELoss: expected a forward before backward"):
        MSELoss().backward()


def test_repr():
    assert repr(MSELoss("sum")) == "MSELoss(reduction='sum')"
