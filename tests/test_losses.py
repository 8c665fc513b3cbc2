"""MSELoss against plain loops and central differences."""

import numpy as np
import pytest
from helpers import refusal, refusal_starting
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
    with refusal(ValueError, f"MSELoss: expected {text}"):
        loss(np.ones(shapes[0]), np.ones(shapes[1]))
    with refusal_starting(RuntimeError, "MSELoss: expected a forward before backward, got none"):
        loss.backward()


def test_labels_as_targets_are_refused_with_the_remedy():
    text = "MSELoss: expected target of shape (4, 10), got (4,)"
    with refusal(ValueError, text) as caught:
        MSELoss()(np.zeros((4, 10)), np.arange(4))
    (note,) = caught.value.__notes__
    assert "`one_hot` turns labels into targets." in note


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        ("none", "'none'"),
        (None, "None"),
        # an array compared with a string is neither true nor false
        (np.array(["mean", "sum"]), "an array of shape (2,) and dtype <U4"),
    ],
)
def test_another_reduction_is_refused(bad, got):
    text = f'MSELoss: expected reduction "mean", "sum" or "batchmean", got {got}'
    with refusal(ValueError, text):
        MSELoss(bad)


def test_what_is_no_array_of_real_numbers_is_refused():
    text = "to be an array of real numbers, got"
    with refusal(TypeError, f"MSELoss: expected target {text} an array of dtype complex128"):
        MSELoss()(np.ones(2), np.ones(2, complex))
    with refusal(TypeError, f"MSELoss: expected pred {text} 'y'"):
        MSELoss()("y", np.ones(2))


def test_backward_before_a_call_is_refused():
    text = "MSELoss: expected a forward before backward, got none, or one that failed"
    with refusal(RuntimeError, text):
        MSELoss().backward()


def test_errors_too_small_for_float32_are_0_and_raise_nothing():
    loss, y = MSELoss(), np.full((2, 3), 1e-30, np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert loss(y, np.zeros((2, 3))) == 0
        loss.backward()


def test_repr():
    assert repr(MSELoss("sum")) == "MSELoss(reduction='sum')"
