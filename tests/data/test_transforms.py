"""one_hot: 1 at each label, 0 elsewhere, and a refusal of what are no labels."""

import numpy as np
import pytest
from helpers import refusal, refusal_starting, traced_memory
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from tinygrad_mnist.data.transforms import one_hot

INTEGERS = [*"bBhHiIlLqQ", ">i4", ">u2"]
SHAPES = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=SHAPES,
    num_classes=st.integers(1, 100),
    kind=st.sampled_from(INTEGERS),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_equals_a_loop(seed, shape, num_classes, kind, dtype):
    labels = np.random.default_rng(seed).integers(0, num_classes, shape).astype(kind)
    wanted = np.zeros((*shape, num_classes), dtype)
    for index in np.ndindex(*shape):
        wanted[(*index, int(labels[index]))] = 1
    np.testing.assert_array_equal(one_hot(labels, num_classes, dtype), wanted, strict=True)


def test_ten_classes_in_float32_by_default():
    hot = one_hot([3, 0])
    wanted = [[0, 0, 0, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(hot, np.array(wanted, np.float32), strict=True)


@pytest.mark.parametrize("labels", [2, [2], [[0, 1], [2, 0]], (1,), range(3), np.int64(1)])
def test_whatever_makes_an_array(labels):
    hot = one_hot(labels, 3)
    assert hot.shape == (*np.shape(labels), 3)
    np.testing.assert_array_equal(hot.argmax(axis=-1), labels)


@pytest.mark.parametrize("labels", [[], [[], []], np.zeros((0, 2)), np.zeros(0, np.uint8)])
def test_no_labels(labels):
    hot = one_hot(labels, 3)
    assert (hot.shape, hot.dtype) == ((*np.shape(labels), 3), np.float32)


def test_more_classes_than_the_labels_could_count():
    hot = one_hot(np.array([0, 255], np.uint8), 300)
    assert hot.shape == (2, 300)
    assert np.argwhere(hot).tolist() == [[0, 0], [1, 255]]


def test_memory_grows_with_the_result_not_with_the_square_of_the_classes():
    with traced_memory() as memory:
        hot = one_hot([7], 30_000)
    assert memory.peak < 4 * hot.nbytes
    assert np.flatnonzero(hot).tolist() == [7]


def test_the_result_is_the_callers_own():
    labels = np.array([1, 1, 0])
    labels.setflags(write=False)
    hot = one_hot(labels, 2)
    hot[0] = 7
    assert hot.tolist() == [[7, 7], [0, 1], [1, 0]]
    assert one_hot(labels, 2).tolist() == [[0, 1], [0, 1], [1, 0]]
    assert labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0.0, 1.0], "float64"),
        (np.float32([1]), "float32"),
        (1.0, "float64"),
        ([True, False], "bool"),
        (True, "bool"),
    ],
)
def test_floats_and_bools_are_refused(labels, found):
    with refusal(TypeError, f"one_hot: expected labels to be integers, got dtype {found}"):
        one_hot(labels)


@pytest.mark.parametrize(
    "labels",
    [None, "3", ["3"], [1, None], 1j, np.array(["3"]), np.ma.masked_array([1]), [[1], [1, 2]]],
    ids=["None", "string", "strings", "objects", "complex", "of-strings", "masked", "ragged"],
)
def test_what_is_no_array_of_real_numbers_is_refused(labels):
    text = "one_hot: expected labels to be an array of real numbers, got "
    with refusal_starting(TypeError, text):
        one_hot(labels)


@given(
    seed=st.integers(0, 2**32 - 1),
    num_classes=st.integers(1, 100),
    by=st.integers(0, 20),
    below=st.booleans(),
)
def test_one_label_outside_is_refused(seed, num_classes, by, below):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, (3, 4))
    wrong = -1 - by if below else num_classes + by
    labels.flat[rng.integers(12)] = wrong
    with refusal(ValueError, f"one_hot: expected labels in [0, {num_classes}), got {wrong}"):
        one_hot(labels, num_classes)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.array([10], np.uint8), 10),
        (np.array([-1], np.int8), -1),
        (np.array([2**64 - 1], np.uint64), 2**64 - 1),
        (np.array([-(2**63)]), -(2**63)),
        (10, 10),
        ([0, 11, 12], 11),
    ],
)
def test_labels_outside_of_any_type_are_refused(labels, found):
    with refusal(ValueError, f"one_hot: expected labels in [0, 10), got {found}"):
        one_hot(labels)


@pytest.mark.parametrize(
    ("num_classes", "error", "found"),
    [
        (0, ValueError, "0"),
        (-3, ValueError, "-3"),
        (True, TypeError, "True"),
        (np.True_, TypeError, "np.True_"),
        (10.0, TypeError, "10.0"),
        (None, TypeError, "None"),
        ("10", TypeError, "'10'"),
        ([10], TypeError, "a list"),
    ],
)
def test_num_classes_that_is_none_is_refused(num_classes, error, found):
    with refusal(error, f"one_hot: expected num_classes to be an integer >= 1, got {found}"):
        one_hot([0], num_classes)


def test_num_classes_may_be_a_numpy_integer():
    assert one_hot([0], np.uint8(1)).tolist() == [[1]]


@pytest.mark.parametrize(
    ("dtype", "found"), [(np.float16, "float16"), (bool, "bool"), (None, "None"), ("no", "'no'")]
)
def test_other_dtypes_are_refused(dtype, found):
    with refusal(TypeError, f"one_hot: expected dtype float32 or float64, got {found}"):
        one_hot([0], dtype=dtype)
