"""Dropout: its masks, its scale, its modes."""

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import Dropout

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, p=st.sampled_from([0.5, 0.2, 0.9, 0.75]))
def test_each_value_is_dropped_or_scaled_and_dx_likewise(seed, p):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((6, 7)), rng.standard_normal((6, 7))
    layer = Dropout(p, rng=seed)
    y, dx = layer(x), layer.backward(dy)
    for i in np.ndindex(x.shape):
        scale = 0 if y[i] == 0 else 1 / (1 - p)
        assert y[i] == pytest.approx(x[i] * scale, rel=1e-15)
        assert dx[i] == pytest.approx(dy[i] * scale, rel=1e-15)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_p_is_the_probability_of_zeroing_and_the_mean_stays(p):
    x = np.ones((400, 500), np.float32)
    y = Dropout(p, rng=0)(x)
    deviation = (p * (1 - p) / x.size) ** 0.5
    assert abs(np.mean(y == 0) - p) < 4 * deviation
    assert abs(y.mean() - 1) < 4 * deviation / (1 - p)


def test_masks_are_new_each_time_and_repeat_with_the_seed():
    x = np.ones(200)
    first, twin = Dropout(rng=3), Dropout(rng=np.random.default_rng(3))
    a, b = first(x), first(x)
    assert (a != b).any()
    np.testing.assert_array_equal(a, twin(x))
    np.testing.assert_array_equal(b, twin(x))
    assert (Dropout()(x) != Dropout()(x)).any()


@pytest.mark.parametrize("layer", [Dropout(0.5, rng=0), Dropout(0.5).eval(), Dropout(0)])
def test_an_array_without_axes_gives_an_array(layer):
    for array in (layer(np.array(2.0)), layer.backward(np.array(3.0))):
        assert type(array) is np.ndarray
        assert array.shape == ()


@pytest.mark.parametrize("then", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("first", [0.0, 0.5])
def test_backward_follows_the_p_of_its_forward(first, then):
    x, layer = np.ones(100), Dropout(first, rng=0)
    y = layer(x)
    layer.p = then
    np.testing.assert_array_equal(layer.backward(x), y)
    layer.eval()
    np.testing.assert_array_equal(layer.backward(x), y)


def test_a_draw_equal_to_p_is_kept():
    # draws are in [0, 1): the fraction of those below p is p
    draws = np.random.default_rng(0).random(50, dtype=np.float32)
    for p in draws:
        np.testing.assert_array_equal(Dropout(p, rng=0)(np.ones(50)) == 0, draws < p)


@pytest.mark.parametrize("layer", [Dropout(0.5, rng=0).eval(), Dropout(0, rng=0)])
def test_the_identity_draws_nothing_and_returns_a_copy_of_x(layer):
    state = layer.rng.bit_generator.state
    x = np.array([1.0, -2.0, 3.0])
    y = layer(x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(layer.backward(2 * x), 2 * x)
    assert not np.shares_memory(x, y)
    assert layer.rng.bit_generator.state == state


def test_the_mask_can_be_overridden():
    class EverySecond(Dropout):
        def draw_mask(self, shape):
            return np.arange(np.prod(shape)).reshape(shape) % 2 == 0

    layer = EverySecond(0.75)
    np.testing.assert_array_equal(layer(np.ones((2, 2))), [[4, 0], [4, 0]])
    np.testing.assert_array_equal(layer.backward(np.ones((2, 2))), [[4, 0], [4, 0]])


def test_a_mask_may_be_of_any_dtype_and_layout():
    class Half(Dropout):
        def draw_mask(self, shape):
            mask = np.zeros(shape, order="F")
            mask[::2] = 1
            return mask

    x = np.ones((4, 3), np.float32, order="F")
    layer = Half(0.75)
    for y in (layer(x), layer.backward(x)):
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, [[4] * 3, [0] * 3] * 2)


def test_a_mask_of_another_shape_is_refused():
    class Row(Dropout):
        def draw_mask(self, shape):
            return np.ones(shape[-1])

    text = "Row: expected draw_mask's array of shape (4, 3), got (3,)"
    with refusal(ValueError, text):
        Row()(np.ones((4, 3)))


@pytest.mark.parametrize(
    ("p", "error", "got"),
    [
        (1, ValueError, "1"),
        (1.5, ValueError, "1.5"),
        (-0.1, ValueError, "-0.1"),
        (float("nan"), ValueError, "nan"),
        (True, TypeError, "True"),
        (False, TypeError, "False"),
        ("0.5", TypeError, "'0.5'"),
        (None, TypeError, "None"),
        (0.5j, TypeError, "0.5j"),
    ],
)
def test_p_outside_its_interval_is_refused(p, error, got):
    with refusal(error, f"Dropout: expected p in [0, 1), got {got}"):
        Dropout(p)


def test_p_may_be_set_and_counts_from_the_next_forward():
    layer, x = Dropout(0.5, rng=0), np.ones(1000)
    y = layer(x)
    layer.p = 0.75
    np.testing.assert_array_equal(layer.backward(x), y)
    assert set(layer(x)) == {0.0, 4.0}
    layer.p = 0
    np.testing.assert_array_equal(layer(x), x)


def test_numpy_numbers_are_numbers():
    assert Dropout(np.float32(0.25)).p == 0.25
    assert Dropout(np.int64(0)).p == 0


def test_rng_is_refused_unless_it_is_one():
    text = "Dropout: expected rng to be a seed, a numpy.random.Generator or None, got 'seed'"
    with refusal(TypeError, text):
        Dropout(rng="seed")
