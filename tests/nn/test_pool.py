"""MaxPool2d and AvgPool2d against plain loops: ties, NaN, infinity, windows of any size."""

import math

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import AvgPool2d, MaxPool2d
from tinygrad_mnist.testing.strategies import batches, layouts, module_checklist, seeds, spiked

BOTH = pytest.mark.parametrize("kind", [MaxPool2d, AvgPool2d])
# the first ones are drawn most, and what fails shrinks to them: a 1 would hide mistakes
LEADING = st.sampled_from([(2,), (3, 2), (), (1,), (0,)])
SIDES = st.sampled_from([2, 3, 1])
MORE = st.sampled_from([2, 1, 3, 0])


def windows(x, kernel, stride):
    """Yield the index of each y (r, c), and of the pixels of its window, row by row."""
    H, W = x.shape[-3:-1]
    for r, top in enumerate(range(0, H - kernel[0] + 1, stride[0])):
        for c, left in enumerate(range(0, W - kernel[1] + 1, stride[1])):
            rows = range(top, top + kernel[0])
            columns = range(left, left + kernel[1])
            yield (r, c), [(row, column) for row in rows for column in columns]


def largest(values):
    """Return the place of the largest: the first of equal ones; of NaNs, the last."""
    best = 0
    for place, value in enumerate(values):
        if value > values[best] or math.isnan(value):
            best = place
    return best


def by_loops(kind, x, kernel, stride):
    """Return y, and a function of dy that returns dx, one number at a time."""
    h = len(range(0, x.shape[-3] - kernel[0] + 1, stride[0]))
    w = len(range(0, x.shape[-2] - kernel[1] + 1, stride[1]))
    y = np.zeros((*x.shape[:-3], h, w, x.shape[-1]))
    gets = {}  # which part of dy which pixel gets
    for *n, channel in np.ndindex((*x.shape[:-3], x.shape[-1])):
        for (r, c), pixels in windows(x, kernel, stride):
            out, places = (*n, r, c, channel), [(*n, *pixel, channel) for pixel in pixels]
            values = [float(x[place]) for place in places]
            if kind is MaxPool2d:
                y[out] = values[largest(values)]
                gets[out] = [(places[largest(values)], 1)]
            else:
                y[out] = sum(values) / len(values)
                gets[out] = [(place, 1 / len(values)) for place in places]

    def backward(dy):
        dx = np.zeros(x.shape)
        for out, parts in gets.items():
            for place, part in parts:
                dx[place] += part * dy[out]
        return dx

    return y, backward


@st.composite
def pools(draw):
    """Return a strategy of (kernel, stride, H, W), of which no window is larger than the image."""
    kernel, stride = ((draw(SIDES), draw(SIDES)) for _ in range(2))
    H, W = (k + draw(MORE) for k in kernel)
    return kernel, stride, H, W


@BOTH
@given(
    seed=seeds(),
    leading=LEADING,
    pool=pools(),
    channels=st.sampled_from([2, 1]),
    lay_out=layouts(),
    dtype=st.sampled_from([np.float64, np.float32]),
    ties=st.booleans(),
)
def test_values_and_gradients_are_those_of_plain_loops(
    kind, seed, leading, pool, channels, lay_out, dtype, ties
):
    kernel, stride, H, W = pool
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*leading, H, W, channels)).astype(dtype)
    if ties:
        x = rng.integers(-1, 2, x.shape).astype(dtype)
    layer = kind(kernel, stride=stride)
    y, backward = by_loops(kind, x, kernel, stride)
    found = layer(lay_out(x))
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = layer.backward(lay_out(dy))
    assert found.dtype == dx.dtype == dtype
    rtol, atol = (1e-5, 1e-6) if dtype == np.float32 else (1e-12, 1e-14)
    np.testing.assert_allclose(found, y, rtol=rtol, atol=atol)
    np.testing.assert_allclose(dx, backward(dy), rtol=rtol, atol=atol)


IMAGES = batches(sample_axes=3).filter(lambda x: x.shape[1] > 1 and x.shape[2] > 1)
test_max_pooling_keeps_the_contract = module_checklist(
    lambda channels, rng: MaxPool2d(2, stride=1), inputs=spiked(IMAGES)
)
test_average_pooling_keeps_the_contract = module_checklist(
    lambda channels, rng: AvgPool2d(2, stride=(2, 1)), inputs=spiked(IMAGES)
)


def test_of_equal_pixels_the_first_gets_the_gradient():
    layer = MaxPool2d()
    x = np.array([[0, 5, 2, 2], [5, 5, 2, 2], [-1, -1, 0, -0.0], [-1, -1, 0, 0]])[..., None]
    np.testing.assert_array_equal(layer(x)[..., 0], [[5, 2], [-1, 0]])
    dx = layer.backward(np.array([[1.0, 2], [3, 4]])[..., None])
    wanted = [[0, 1, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(dx[..., 0], wanted)


@given(seed=seeds(), pool=pools())
def test_a_nan_wins_and_of_several_the_last(seed, pool):
    kernel, stride, H, W = pool
    rng = np.random.default_rng(seed)
    x = rng.choice([0.0, 1.0, np.nan, np.inf, -np.inf], (2, H, W, 2))
    layer = MaxPool2d(kernel, stride=stride)
    y, backward = by_loops(MaxPool2d, x, kernel, stride)
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(layer(x), y)
        dy = rng.standard_normal(y.shape)
        np.testing.assert_allclose(layer.backward(dy), backward(dy), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_infinite_gradient_reaches_the_largest_pixel_alone(value, dtype):
    layer = MaxPool2d((1, 2), stride=1)
    layer(np.array([[[1], [3], [2], [0]]], dtype))
    with np.errstate(all="raise"):
        dx = layer.backward(np.array([[[1], [value], [5]]]))
    np.testing.assert_array_equal(dx[0, :, 0], [0, 1 + value, 5, 0])
    assert dx.dtype == dtype


def test_windows_of_more_than_255_pixels():
    x = np.zeros((1, 20, 30, 1))
    x[0, 15, 1, 0] = x[0, 19, 29, 0] = 1
    layer = MaxPool2d((20, 28), stride=2)
    np.testing.assert_array_equal(layer(x).ravel(), [1, 1])
    dx = layer.backward(np.array([2.0, 3.0]).reshape(1, 1, 2, 1))
    assert np.argwhere(dx[0, ..., 0]).tolist() == [[15, 1], [19, 29]]
    np.testing.assert_array_equal(dx[dx > 0], [2, 3])


@BOTH
def test_what_fills_no_window_is_left_out(kind):
    layer = kind(2)
    x = np.arange(25.0).reshape(5, 5, 1)
    assert layer(x).shape == (2, 2, 1)
    dx = layer.backward(np.ones((2, 2, 1)))
    assert not dx[4].any()
    assert not dx[:, 4].any()
    x[4] = x[:, 4] = np.nan
    assert np.isfinite(layer(x)).all()


@BOTH
def test_the_stride_is_the_kernels_size_unless_it_is_given(kind):
    assert (kind().kernel_size, kind().stride) == ((2, 2), (2, 2))
    assert kind((3, 2)).stride == (3, 2)
    assert kind(3, stride=(1, np.int64(2))).stride == (1, 2)
    assert repr(kind(3)) == f"{kind.__name__}(kernel_size=(3, 3), stride=(3, 3))"


@BOTH
def test_backward_follows_the_last_forward_not_the_settings(kind):
    x, dy = np.random.default_rng(0).random((2, 6, 5, 1)), np.ones((2, 3, 2, 1))
    layer, other = kind(), kind()
    layer(x)
    other(x)
    layer.kernel_size, layer.stride = 3, (1, 2)
    np.testing.assert_array_equal(layer.backward(dy), other.backward(dy))
    assert layer(x).shape == (2, 4, 2, 1)


@BOTH
@pytest.mark.parametrize("leading", [(7,), (), (2, 3)])
def test_the_batch_is_last_in_memory(kind, leading):
    layer = kind()
    y = layer(np.random.default_rng(0).random((*leading, 4, 6, 3)))
    dx = layer.backward(np.ones(y.shape))
    for array in (y, dx):
        images = array.reshape(-1, *array.shape[-3:])
        assert np.shares_memory(images, array)
        assert images.transpose(1, 3, 2, 0).flags.c_contiguous


@BOTH
@pytest.mark.parametrize("shape", [(), (4,), (4, 4)])
def test_what_are_no_images_is_refused(kind, shape):
    with refusal(ValueError, f"{kind.__name__}: expected x of shape (..., H, W, C), got {shape}"):
        kind()(np.zeros(shape))


@BOTH
@pytest.mark.parametrize(
    ("kernel", "shape", "got"),
    [
        (2, (3, 1, 4, 2), "a 2 x 2 kernel, padding 0, on 1 x 4"),
        ((2, 3), (2, 2, 1), "a 2 x 3 kernel, padding 0, on 2 x 2"),
        (1, (5, 0, 3, 1), "a 1 x 1 kernel, padding 0, on 0 x 3"),
    ],
)
def test_a_window_larger_than_the_image_is_refused(kind, kernel, shape, got):
    layer = kind(kernel)
    layer(np.zeros((4, 4, 1)))
    with refusal(ValueError, f"{kind.__name__}: expected a kernel that fits the image, got {got}"):
        layer(np.zeros(shape))
    with pytest.raises(RuntimeError):
        layer.backward(np.zeros((2, 2, 1)))


@BOTH
@pytest.mark.parametrize(
    ("args", "settings", "error", "text"),
    [
        ((0,), {}, ValueError, "kernel_size to be an integer >= 1, got 0"),
        ((2.0,), {}, TypeError, "kernel_size to be an integer >= 1, got 2.0"),
        (((2, True),), {}, TypeError, "kernel_size[1] to be an integer >= 1, got True"),
        (((2, 2, 2),), {}, ValueError, "kernel_size to be one integer or two, got (2, 2, 2)"),
        ((2,), {"stride": (0, 1)}, ValueError, "stride[0] to be an integer >= 1, got 0"),
        ((2,), {"stride": "2"}, TypeError, "stride to be an integer >= 1, got '2'"),
    ],
)
def test_settings_are_checked(kind, args, settings, error, text):
    with refusal(error, f"{kind.__name__}: expected {text}"):
        kind(*args, **settings)


@BOTH
def test_a_setting_that_is_refused_stays_as_it_was(kind):
    layer = kind(3)
    with pytest.raises(ValueError, match="kernel_size"):
        layer.kernel_size = -1
    with pytest.raises(TypeError, match="stride"):
        layer.stride = None
    assert (layer.kernel_size, layer.stride) == ((3, 3), (3, 3))
