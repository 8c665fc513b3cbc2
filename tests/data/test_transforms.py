"""Labels to targets, images to other images of the same things; refusals of what are neither."""

import copy
import math
import pickle

import numpy as np
import pytest
from helpers import refusal, refusal_starting, traced_memory
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from tinygrad_mnist.data.transforms import one_hot, random_affine, random_shift

INTEGERS = [*"bBhHiIlLqQ", ">i4", ">u2"]
SHAPES = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


# one_hot


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


# random_shift and random_affine

SOME = {"rotation": 20, "scale": 0.2, "shear": 0.3, "shift": 1.5}
BOTH = {"shift": lambda: random_shift(2), "affine": lambda: random_affine(**SOME)}
both = pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)


def pictures(*shape, dtype=np.float32, seed=0):
    """Return numbers that say where they are: no two alike, none 0, all of them integers."""
    numbers = np.random.default_rng(seed).permutation(math.prod(shape)) % 250 + 1
    return numbers.reshape(shape).astype(dtype)


class Most(np.random.Generator):
    """Draws the largest number that it might."""

    def uniform(self, low=0.0, high=1.0, size=None):
        return np.full(size, high)


def at_most(**amounts):
    """Return what random_affine makes of an image when every draw is its amount."""
    return lambda x: random_affine(**amounts)(x, Most(np.random.PCG64()))


def shifted(x, dy, dx):
    y = np.zeros_like(x)
    for i, j, c in np.ndindex(x.shape):
        if 0 <= i - dy < x.shape[0] and 0 <= j - dx < x.shape[1]:
            y[i, j, c] = x[i - dy, j - dx, c]
    return y


@pytest.mark.parametrize("pixels", [0, 1, 2, 9])
@pytest.mark.parametrize("shape", [(4, 5, 1), (3, 2, 3), (1, 1, 2)])
def test_each_image_moves_by_whole_pixels_and_0_comes_in(shape, pixels):
    x = pictures(40, *shape)
    offsets = [(dy, dx) for dy in range(-pixels, pixels + 1) for dx in range(-pixels, pixels + 1)]
    y = random_shift(pixels)(x, np.random.default_rng(3))
    for image, moved in zip(x, y, strict=True):
        assert any(np.array_equal(moved, shifted(image, *offset)) for offset in offsets)


def test_every_shift_is_as_likely():
    n, x = 18_000, np.zeros((3, 3, 1))
    x[1, 1] = 1
    y = random_shift(1)(np.broadcast_to(x, (n, 3, 3, 1)), np.random.default_rng(0))
    assert np.all(y.sum(axis=(1, 2, 3)) == 1)
    # nine places, 2000 expected at each: five standard deviations are 211
    assert np.all(abs(y.sum(axis=0) - n / 9) < 211)
    assert abs(np.mean(y[1:] * y[:-1]) - 1 / 81) < 0.002  # an image says nothing of the next


def maps(y):
    """Return, for images that were the row and the column of each pixel, A and d of each.

    Bilinear interpolation is exact on both, but for what came in from outside.
    """
    h, w = y.shape[1:3]
    c = np.array([(h - 1) / 2, (w - 1) / 2])
    p = np.indices((h, w)).reshape(2, -1).T
    for coordinates in y.reshape(len(y), -1, 3):
        inside = coordinates[:, 2] > 1 - 1e-9  # of a third channel of ones
        ends = np.hstack([p[inside] - c, np.ones((inside.sum(), 1))])
        solution, *_ = np.linalg.lstsq(ends, coordinates[inside, :2] - c, rcond=None)
        back, start = solution[:2].T, solution[2]  # q = back @ (p - c) + start
        A = np.linalg.inv(back)
        yield A, -A @ start


def drawn(n, seed=0, **amounts):
    """Return the angle in degrees, the scale less 1, the shear and the shift of n images."""
    grid = np.concatenate([np.indices((15, 13)), np.ones((1, 15, 13))]).transpose(1, 2, 0)
    x = np.broadcast_to(grid, (n, *grid.shape))
    found = []
    for A, d in maps(random_affine(**amounts)(x, np.random.default_rng(seed))):
        angle, scale = math.atan2(-A[0, 1], A[1, 1]), math.hypot(A[0, 1], A[1, 1])
        # the first column of A is that of s * R, plus k times the second
        shear = (A[0, 0] * A[0, 1] + A[1, 0] * A[1, 1]) / scale**2
        found.append([math.degrees(angle), scale - 1, shear, *d])
    return np.array(found)


def test_each_number_is_uniform_within_its_amount_and_drawn_for_each_image():
    found = drawn(2000, **SOME)
    amounts = np.array([20, 0.2, 0.3, 1.5, 1.5])
    assert np.all(abs(found) <= amounts + 1e-9)
    assert np.all(abs(found).max(axis=0) > 0.98 * amounts)
    assert np.all(abs(found.mean(axis=0)) < 0.07 * amounts)  # five standard deviations
    deciles = np.quantile(found / amounts, [0.1, 0.3, 0.5, 0.7, 0.9], axis=0)
    np.testing.assert_allclose(deciles.T, [[-0.8, -0.4, 0, 0.4, 0.8]] * 5, atol=0.12)
    apart = np.corrcoef(np.hstack([found[1:], found[:-1]]).T) - np.eye(10)
    assert abs(apart).max() < 0.12


@pytest.mark.parametrize("name", SOME)
def test_an_amount_left_out_is_none(name):
    found = drawn(5, **{name: SOME[name]})
    named = {"rotation": [0], "scale": [1], "shear": [2], "shift": [3, 4]}[name]
    np.testing.assert_allclose(np.delete(found, named, axis=1), 0, atol=1e-9)
    assert np.all(abs(found[:, named]) > 1e-6)


def bilinear(x, i, j):
    """Return the channels at a place between the pixels; outside of x all are 0."""
    value = np.zeros(x.shape[2])
    for row in (math.floor(i), math.floor(i) + 1):
        for column in (math.floor(j), math.floor(j) + 1):
            if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                value += (1 - abs(i - row)) * (1 - abs(j - column)) * x[row, column]
    return value


@pytest.mark.parametrize("shape", [(7, 6, 1), (5, 8, 3)])
def test_an_affine_image_equals_a_loop_over_its_equation(shape):
    amounts = {"rotation": 70, "scale": 0.5, "shear": 0.8, "shift": 2.5}
    x = pictures(6, *shape, dtype=np.float64)
    draws = drawn(6, seed=4, **amounts)  # the same seed draws the same for any images
    y = random_affine(**amounts)(x, np.random.default_rng(4))
    c = [(shape[0] - 1) / 2, (shape[1] - 1) / 2]
    for image, found, (angle, scale, k, *d) in zip(x, y, draws, strict=True):
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        A = (1 + scale) * np.array([[cos, -sin], [sin, cos]]) @ [[1, 0], [k, 1]]
        for p in np.ndindex(*shape[:2]):
            i, j = np.linalg.solve(A, np.array(p) - c - d) + c
            np.testing.assert_allclose(found[p], bilinear(image, i, j), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 5, 1), (4, 4, 2)])
def test_a_quarter_turn_is_counterclockwise_as_that_of_rot90(shape):
    x = pictures(*shape, dtype=np.float64)
    np.testing.assert_allclose(at_most(rotation=90)(x), np.rot90(x), atol=1e-9)
    np.testing.assert_allclose(at_most(rotation=180)(x), x[::-1, ::-1], atol=1e-9)


def test_a_shift_by_whole_pixels_is_that_of_random_shift():
    x = pictures(6, 5, 2)
    np.testing.assert_allclose(at_most(shift=2)(x), shifted(x, 2, 2), atol=1e-4)


def test_what_is_scaled_by_half_more_shows_its_middle():
    x = pictures(5, 5, 1, dtype=np.float64)
    y = at_most(scale=0.5)(x)[:, :, 0]
    assert y[2, 2] == pytest.approx(x[2, 2, 0])
    assert y[2, 3] == pytest.approx((x[2, 2, 0] + 2 * x[2, 3, 0]) / 3)  # from 1 / 1.5 to the right


def test_a_sheared_row_moves_along_by_its_distance_from_the_middle():
    x = pictures(5, 5, 1, dtype=np.float64)
    y = at_most(shear=1)(x)
    for row, by in enumerate([-2, -1, 0, 1, 2]):
        np.testing.assert_allclose(y[row : row + 1], shifted(x[row : row + 1], 0, by), atol=1e-9)


def test_no_amounts_change_nothing_and_return_new_images():
    x = pictures(3, 4, 5, 2)
    for transform in (random_affine(), random_shift(0)):
        y = transform(x, np.random.default_rng(0))
        np.testing.assert_array_equal(y, x, strict=True)
        assert not np.shares_memory(x, y)


@both
@pytest.mark.parametrize("kind", ["f4", "f8", "f2", ">f4", "u1", "i8", "?"])
def test_the_dtype_is_kept_and_integers_are_rounded(make, kind):
    x = pictures(9, 6, 7, 2, dtype=kind)
    y = make()(x, np.random.default_rng(1))
    assert y.dtype == np.dtype(kind)
    exact = make()(x.astype(np.float64), np.random.default_rng(1))
    if np.dtype(kind).kind == "f":
        np.testing.assert_allclose(y, exact, rtol=2e-3 if kind == "f2" else 1e-4, atol=1e-4)
    else:
        assert abs(y.astype(np.float64) - exact).max() <= 0.5001


@both
@pytest.mark.parametrize("lead", [(), (1,), (3, 4), (0,), (2, 0, 3)])
def test_any_leading_axes_are_drawn_as_one_batch_is(make, lead):
    x = pictures(*lead, 5, 6, 2)
    y = make()(x, np.random.default_rng(2))
    flat = make()(x.reshape(-1, 5, 6, 2), np.random.default_rng(2))
    np.testing.assert_array_equal(y, flat.reshape(x.shape), strict=True)


@both
def test_images_of_any_layout_are_only_read(make):
    x = pictures(8, 6, 7, 3)
    x.setflags(write=False)
    kept, wanted = x.copy(), make()(x, np.random.default_rng(5))
    for other in (np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2], x[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(make()(other, np.random.default_rng(5)), wanted, strict=True)
    np.testing.assert_allclose(make()(x.tolist(), np.random.default_rng(5)), wanted, rtol=1e-6)
    np.testing.assert_array_equal(x, kept, strict=True)
    wanted += 1
    assert not np.shares_memory(wanted, x)


@both
def test_the_seed_decides_and_a_transform_keeps_nothing(make):
    x, transform = pictures(4, 6, 6, 1), make()
    one, other, again = (transform(x, np.random.default_rng(seed)) for seed in (1, 2, 1))
    np.testing.assert_array_equal(one, again, strict=True)
    assert np.any(one != other)
    for twin in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        np.testing.assert_array_equal(twin(x, np.random.default_rng(1)), one, strict=True)


@both
def test_nan_and_infinity_raise_no_warning(make):
    x = pictures(4, 6, 6, 1)
    x[0, 3], x[1, 3] = np.nan, np.inf
    with np.errstate(all="raise", under="ignore"):
        y = make()(x, np.random.default_rng(1))
    assert np.isfinite(y[2:]).all()
    assert np.isnan(y[0]).any()


@pytest.mark.parametrize("name", ["random_shift", "random_affine"])
@pytest.mark.parametrize("shape", [(5, 784), (784,), ()])
def test_what_are_no_images_is_refused(name, shape):
    transform = {"random_shift": random_shift(1), "random_affine": random_affine()}[name]
    with refusal(ValueError, f"{name}: expected x of shape (..., H, W, C), got {shape}"):
        transform(np.zeros(shape), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("pixels", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError)]
)
def test_pixels_are_a_count(pixels, error):
    text = f"random_shift: expected pixels to be an integer >= 0, got {pixels!r}"
    with refusal(error, text):
        random_shift(pixels)


@pytest.mark.parametrize(
    ("amounts", "error", "text"),
    [
        ({"rotation": -1}, ValueError, "rotation in [0, inf), got -1"),
        ({"rotation": math.inf}, ValueError, "rotation in [0, inf), got inf"),
        ({"scale": 1}, ValueError, "scale in [0, 1), got 1"),
        ({"scale": (0.9, 1.1)}, TypeError, "scale in [0, 1), got a tuple"),
        ({"shear": math.nan}, ValueError, "shear in [0, inf), got nan"),
        ({"shift": "2"}, TypeError, "shift in [0, inf), got '2'"),
    ],
)
def test_amounts_outside_their_interval_are_refused(amounts, error, text):
    with refusal(error, f"random_affine: expected {text}"):
        random_affine(**amounts)
