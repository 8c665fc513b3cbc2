"""Flatten and Unflatten: where each number goes, what they refuse, and what stays a view."""

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import Flatten, Unflatten
from tinygrad_mnist.testing.strategies import layouts, module_checklist, seeds

LEADING = st.sampled_from([(2,), (3, 2), (), (1, 1), (0,)])
SHAPES = st.lists(st.sampled_from([2, 3, 1, 4]), min_size=1, max_size=4).map(tuple)


def flat_index(index, shape):
    """Return the place of an entry among those of one sample, counted row by row."""
    place = 0
    for i, length in zip(index, shape, strict=True):
        place = place * length + i
    return place


@given(seed=seeds(), leading=LEADING, shape=SHAPES, lay_out=layouts())
def test_each_number_goes_where_counting_row_by_row_takes_it(seed, leading, shape, lay_out):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((*leading, *shape))
    flat = np.zeros((*leading, np.prod(shape)))
    for index in np.ndindex(images.shape):
        n, rest = len(leading), index[len(leading) :]
        flat[(*index[:n], flat_index(rest, shape))] = images[index]
    flatten, unflatten = Flatten(len(shape)), Unflatten(shape)
    np.testing.assert_array_equal(flatten(lay_out(images)), flat)
    np.testing.assert_array_equal(flatten.backward(lay_out(flat)), images)
    np.testing.assert_array_equal(unflatten(lay_out(flat)), images)
    np.testing.assert_array_equal(unflatten.backward(lay_out(images)), flat)


test_flatten_keeps_the_contract = module_checklist(lambda features, rng: Flatten())
test_unflatten_keeps_the_contract = module_checklist(lambda n, rng: Unflatten((1, n, 1)))


def test_y_is_a_view_where_the_memory_allows_and_dx_never():
    x = np.zeros((2, 3, 4, 5))
    for layer, array in ((Flatten(), x), (Unflatten((5, 1)), x)):
        y = layer(array)
        assert y is not array
        assert np.shares_memory(y, array)
        dy = np.zeros(y.shape)
        assert not np.shares_memory(layer.backward(dy), dy)


def test_a_sample_of_a_flatten_has_as_many_axes_as_become_one():
    assert [Flatten(n).sample_axes for n in (1, 2, 3)] == [1, 2, 3]
    assert Flatten().sample_axes == 3
    assert Unflatten((2, 2, 1)).sample_axes == 1
    assert (Flatten().added_axes, Unflatten((2, 2, 1)).added_axes) == (-2, 2)


def test_backward_follows_the_last_forward_not_the_setting():
    flatten, unflatten = Flatten(2), Unflatten((2, 3))
    flatten(np.zeros((4, 2, 3)))
    unflatten(np.zeros((4, 6)))
    flatten.axes, unflatten.shape = 1, (6,)
    assert flatten.backward(np.zeros((4, 6))).shape == (4, 2, 3)
    assert unflatten.backward(np.zeros((4, 2, 3))).shape == (4, 6)
    assert flatten(np.zeros((4, 6))).shape == (4, 6)
    assert unflatten(np.zeros((4, 6))).shape == (4, 6)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Flatten(0), ValueError, "Flatten: expected axes to be an integer >= 1, got 0"),
        (lambda: Flatten(2.0), TypeError, "Flatten: expected axes to be an integer >= 1, got 2.0"),
        (
            lambda: Unflatten(784),
            TypeError,
            "Unflatten: expected shape to be a tuple of integers, got 784",
        ),
        (
            lambda: Unflatten(()),
            ValueError,
            "Unflatten: expected shape to be a tuple of integers, got ()",
        ),
        (
            lambda: Unflatten((28, 0)),
            ValueError,
            "Unflatten: expected shape[1] to be an integer >= 1, got 0",
        ),
        (
            lambda: Unflatten((-1, 28)),
            ValueError,
            "Unflatten: expected shape[0] to be an integer >= 1, got -1",
        ),
        (
            lambda: Unflatten([28, 28.0]),
            TypeError,
            "Unflatten: expected shape[1] to be an integer >= 1, got 28.0",
        ),
    ],
)
def test_settings_are_checked(make, error, text):
    with refusal(error, text):
        make()


def test_settings_that_are_refused_stay_as_they_were():
    flatten, unflatten = Flatten(2), Unflatten([2, 3])
    with pytest.raises(ValueError, match="axes"):
        flatten.axes = 0
    with pytest.raises(TypeError, match="shape"):
        unflatten.shape = 6
    assert (repr(flatten), repr(unflatten)) == ("Flatten(axes=2)", "Unflatten(shape=(2, 3))")


@pytest.mark.parametrize("shape", [(), (3,), (3, 4)])
def test_an_x_of_too_few_axes_is_refused(shape):
    with refusal(ValueError, f"Flatten: expected x of 3 axes or more, got {shape}"):
        Flatten()(np.zeros(shape))


@pytest.mark.parametrize("shape", [(), (5,), (6, 5), (2, 3)])
def test_a_last_axis_of_another_length_is_refused(shape):
    with refusal(ValueError, f"Unflatten: expected x of shape (..., 6), got {shape}"):
        Unflatten((2, 3))(np.zeros(shape))
