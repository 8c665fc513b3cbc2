"""Conv2d against plain loops and JAX: kernels, strides, paddings, what it keeps and how it lies."""

from itertools import product

import numpy as np
import pytest
from helpers import refusal, refusal_starting, traced_memory
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import (
    GELU,
    SGD,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    LayerNorm,
    Linear,
    MaxPool2d,
    Parameter,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)
from tinygrad_mnist.testing.strategies import batches, layouts, module_checklist, seeds

# the first ones are drawn most, and what fails shrinks to them: a 1 would hide mistakes
LEADING = st.sampled_from([(2,), (2, 2), (), (1,), (0,)])
SIDES = st.sampled_from([2, 3, 1, 4])
MORE = st.sampled_from([1, 2, 0])


def margins(kernel, padding):
    """Return how many zeros are before and after the rows, and the columns."""
    if padding != "same":
        return [(n, n) for n in padding]
    found = []
    for k in kernel:
        before = after = 0
        while before + after < k - 1:  # the end gets its zero first
            after, before = (after + 1, before) if after == before else (after, before + 1)
        found.append((before, after))
    return found


def by_loops(x, W, b, stride, padding, dy):
    """Return y, and dx, dW and db for dy(y), of images x (N, H, W, I), one product at a time."""
    (kh, kw, _, n_out), (N, H, width, _) = W.shape, x.shape
    (top, bottom), (left, right) = margins((kh, kw), padding)
    corners_r = range(-top, H + bottom - kh + 1, stride[0])
    corners_c = range(-left, width + right - kw + 1, stride[1])
    y = np.zeros((N, len(corners_r), len(corners_c), n_out)) + b
    dx, dW, terms = np.zeros(x.shape), np.zeros(W.shape), []
    for n, (r, row), (c, column) in product(range(N), enumerate(corners_r), enumerate(corners_c)):
        for i, j, k, o in np.ndindex(W.shape):
            if 0 <= row + i < H and 0 <= column + j < width:
                terms.append(((n, r, c, o), (n, row + i, column + j, k), (i, j, k, o)))
    for at_y, at_x, at_W in terms:
        y[at_y] += x[at_x] * W[at_W]
    dy = dy(y)
    for at_y, at_x, at_W in terms:
        dx[at_x] += dy[at_y] * W[at_W]
        dW[at_W] += dy[at_y] * x[at_x]
    db = np.array([sum(dy[..., o].ravel().tolist()) for o in range(n_out)])
    return y, dy, dx, dW, db


@st.composite
def convolutions(draw, padding):
    """Return a strategy of (kernel, stride, H, W), of which no kernel is too large."""
    kernel = draw(SIDES), draw(SIDES)
    stride = (1, 1) if padding == "same" else (draw(SIDES), draw(SIDES))
    around = [sum(pair) for pair in margins(kernel, padding)]
    H, W = (max(1, k - n) + draw(MORE) for k, n in zip(kernel, around, strict=True))
    return kernel, stride, H, W


@pytest.mark.parametrize("padding", [(0, 0), "same", (1, 2), (2, 0)], ids=str)
@given(
    seed=seeds(),
    leading=LEADING,
    channels=st.sampled_from([(2, 3), (1, 2), (3, 1)]),
    bias=st.sampled_from([True, False]),
    lay_out=layouts(),
    dtype=st.sampled_from([np.float64, np.float32]),
    data=st.data(),
)
def test_forward_and_backward_are_plain_loops(
    padding, seed, leading, channels, bias, lay_out, dtype, data
):
    kernel, stride, H, W = data.draw(convolutions(padding))
    rng = np.random.default_rng(seed)
    layer = Conv2d(
        *channels, kernel, stride=stride, padding=padding, bias=bias, rng=rng, dtype=dtype
    )
    if bias:
        layer.bias.data = rng.standard_normal(channels[1])
    b = layer.bias.data if bias else 0
    x = rng.standard_normal((*leading, H, W, channels[0])).astype(dtype)
    images = x.reshape(int(np.prod(leading)), *x.shape[-3:])
    y, dy, dx, dW, db = by_loops(
        images.astype(float),
        layer.weight.data.astype(float),
        b,
        stride,
        padding,
        lambda y: rng.standard_normal(y.shape).astype(dtype).astype(float),
    )
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == np.float32 else {"atol": 1e-12}
    shaped = dy.reshape(*leading, *dy.shape[1:]).astype(dtype)
    found = layer(lay_out(x)), layer.backward(lay_out(shaped)), layer.weight.grad
    for array, wanted in zip(found, (y, dx, dW), strict=True):
        assert array.dtype == dtype
        np.testing.assert_allclose(array.reshape(wanted.shape), wanted, **tolerance)
    assert found[0].shape[: len(leading)] == leading
    assert found[1].shape == x.shape
    if bias:
        np.testing.assert_allclose(layer.bias.grad, db, **tolerance)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "in_jax"),
    [
        ((4, 3), (1, 1), "same", "SAME"),
        ((2, 5), (1, 1), "same", "SAME"),
        ((3, 2), (2, 3), (2, 1), [(2, 2), (1, 1)]),
        ((1, 4), (3, 1), (0, 0), "VALID"),
    ],
)
def test_values_and_gradients_are_those_of_jax(kernel, stride, padding, in_jax):
    jax = pytest.importorskip("jax", reason="needs the extra `keras`")
    rng = np.random.default_rng(0)
    layer = Conv2d(3, 2, kernel, stride=stride, padding=padding, bias=False, rng=rng)
    x = rng.standard_normal((4, 7, 6, 3), dtype=np.float32)
    y, pull = jax.vjp(
        lambda x, W: jax.lax.conv_general_dilated(
            x, W, stride, in_jax, dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        x,
        layer.weight.data,
    )
    dy = rng.standard_normal(y.shape, dtype=np.float32)
    dx, dW = pull(dy)
    np.testing.assert_allclose(layer(x), y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.backward(dy), dx, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.weight.grad, dW, rtol=1e-4, atol=1e-4)


test_it_keeps_the_contract = module_checklist(
    lambda channels, rng: Conv2d(channels, 2, (2, 3), stride=(2, 1), padding=(0, 1), rng=rng),
    inputs=batches(sample_axes=3).filter(lambda x: x.shape[1] > 1),
)


@pytest.mark.parametrize("padding", [0, (2, 1), "same"])
@pytest.mark.parametrize("leading", [(7,), (), (2, 3)])
def test_the_batch_is_last_in_memory(leading, padding):
    layer = Conv2d(2, 3, 3, padding=padding, rng=0)
    x = np.random.default_rng(0).random((*leading, 4, 5, 2), np.float32)
    y = layer(x)
    for array in (y, layer.backward(np.ones_like(y))):
        images = array.reshape(-1, *array.shape[-3:])
        assert np.shares_memory(images, array)
        (_, _, W, C), (batch, row, column, channel) = images.shape, images.strides
        assert row == C * channel
        assert channel >= W * column  # equal where no padding has been cut off
        assert column == len(images) * 4
        assert len(images) == 1 or batch == 4
    assert y.reshape(-1, *y.shape[-3:]).transpose(1, 3, 2, 0).flags.c_contiguous


@pytest.mark.parametrize(
    "layer",
    [ReLU(), GELU(), Dropout(0), BatchNorm(3), LayerNorm(3), MaxPool2d(), Residual(Tanh())],
    ids=lambda layer: type(layer).__name__,
)
def test_other_layers_keep_the_batch_last_in_memory(layer):
    conv = Conv2d(2, 3, 3, rng=0)
    y = layer(conv(np.random.default_rng(0).random((7, 6, 8, 2), np.float32)))
    dy = np.ascontiguousarray(y.transpose(1, 3, 2, 0)).transpose(3, 0, 2, 1)
    for array in (y, layer.backward(dy)):
        assert array.transpose(1, 3, 2, 0).flags.c_contiguous


def test_a_dy_that_lies_as_y_does_may_be_changed_afterwards():
    layer = Conv2d(2, 3, 2, rng=0)
    y = layer(np.random.default_rng(0).random((5, 4, 4, 2), np.float32))
    dy = np.ones_like(y)
    layer.backward(dy)
    dy[...] = 1e6
    grad = layer.weight.grad
    layer.zero_grad()
    layer.backward(np.ones(y.shape))
    np.testing.assert_array_equal(layer.weight.grad, grad)


def small_net():
    return Sequential(
        Conv2d(1, 8, 5, rng=0, input_grad=False),
        ReLU(),
        MaxPool2d(),
        Conv2d(8, 16, 5, rng=1),
        ReLU(),
        MaxPool2d(),
        Flatten(),
        Linear(256, 10, rng=2),
    )


def test_training_on_a_batch_of_images_stays_under_15_megabytes():
    model = small_net()
    optimizer = SGD(model.parameters(), lr=0.01)
    x = np.random.default_rng(0).random((128, 28, 28, 1), np.float32)
    with traced_memory() as memory:
        for _ in range(3):
            y = model(x)
            optimizer.zero_grad()
            model.backward(y / 1280)
            optimizer.step()
    assert memory.peak < 15e6
    with traced_memory() as memory:
        model[3](model[:3](x))
    assert memory.peak < 12e6  # all patches alone would be 14


def test_a_forward_keeps_no_memory_of_the_one_before():
    layer = Conv2d(4, 4, 5, rng=0)
    x = np.zeros((32, 20, 20, 4), np.float32)
    rows = 5 * 32 * 20 * 16 * 4 * 4  # once for each column of the kernel
    with traced_memory() as memory:
        for _ in range(3):
            y = layer(x)
    assert memory.peak < rows + 2 * x.nbytes + 2 * y.nbytes


def test_without_input_grad_only_the_parameters_get_gradients():
    layers = [Conv2d(2, 3, 2, rng=0, input_grad=flag) for flag in (True, False)]
    x, dy = np.random.default_rng(0).random((2, 3, 4, 2), np.float32), np.ones((2, 2, 3, 3))
    for layer in layers:
        layer(x)
    assert layers[0].backward(dy) is not None
    assert layers[1].backward(dy) is None
    np.testing.assert_array_equal(layers[0].weight.grad, layers[1].weight.grad)


def test_the_init_draws_a_matrix_of_patches_by_channels():
    shapes = []

    def counted(shape, rng):
        shapes.append(shape)
        return np.arange(np.prod(shape)).reshape(shape)

    layer = Conv2d(2, 5, (3, 4), init=counted)
    assert shapes == [(24, 5)]
    np.testing.assert_array_equal(layer.weight.data, np.arange(120).reshape(3, 4, 2, 5))
    drawn = Conv2d(2, 5, (3, 4), rng=7).weight.data
    np.testing.assert_array_equal(drawn, Linear(24, 5, rng=7).weight.data.reshape(3, 4, 2, 5))
    assert layer.weight.data.dtype == layer.bias.data.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("stride", 1, 2), ("padding", 0, 2), ("padding", "same", 0), ("kernel_size", 2, 3)],
)
def test_backward_follows_the_last_forward_not_the_settings(name, before, after):
    x = np.random.default_rng(0).random((2, 5, 6, 2), np.float32)
    layer, other = (Conv2d(2, 3, 2, rng=0) for _ in range(2))
    setattr(layer, name, before)
    setattr(other, name, before)
    y = layer(x)
    other(x)
    setattr(layer, name, after)
    dy = np.random.default_rng(1).random(y.shape)
    np.testing.assert_array_equal(layer.backward(dy), other.backward(dy))
    np.testing.assert_array_equal(layer.weight.grad, other.weight.grad)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("of_input", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_parameters_decide_the_dtype(dtype, of_input, padding):
    layer = Conv2d(1, 2, 3, padding=padding, rng=0, dtype=dtype)
    y = layer(np.ones((2, 4, 4, 1), of_input))
    dx = layer.backward(np.ones(y.shape))
    assert y.dtype == dx.dtype == layer.weight.grad.dtype == dtype


def test_backward_in_another_dtype_follows_the_parameters():
    layer = Conv2d(2, 3, 2, rng=0)
    y = layer(np.random.default_rng(0).random((2, 4, 4, 2), np.float32))
    dx = layer.backward(np.ones_like(y))
    grad = layer.weight.grad.copy()
    layer.zero_grad()
    layer.astype(np.float64)
    found = layer.backward(np.ones_like(y))
    assert found.dtype == layer.weight.grad.dtype == np.float64
    np.testing.assert_allclose(found, dx, rtol=1e-5)
    np.testing.assert_allclose(layer.weight.grad, grad, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"in_channels": 0}, ValueError, "in_channels to be an integer >= 1, got 0"),
        ({"out_channels": 2.0}, TypeError, "out_channels to be an integer >= 1, got 2.0"),
        ({"kernel_size": 0}, ValueError, "kernel_size to be an integer >= 1, got 0"),
        ({"kernel_size": (3, 0)}, ValueError, "kernel_size[1] to be an integer >= 1, got 0"),
        ({"kernel_size": "same"}, TypeError, "kernel_size to be an integer >= 1, got 'same'"),
        ({"kernel_size": None}, TypeError, "kernel_size to be an integer >= 1, got None"),
        ({"stride": 0}, ValueError, "stride to be an integer >= 1, got 0"),
        ({"stride": (1, 2, 3)}, ValueError, "stride to be one integer or two, got (1, 2, 3)"),
        ({"padding": -1}, ValueError, "padding to be an integer >= 0, got -1"),
        ({"padding": (0.5, 1)}, TypeError, "padding[0] to be an integer >= 0, got 0.5"),
        (
            {"padding": "valid"},
            ValueError,
            "padding \"same\", or a number of rows and columns, got 'valid'",
        ),
        (
            {"padding": "same", "stride": (1, 2)},
            ValueError,
            'stride 1 with padding "same", got (1, 2)',
        ),
        ({"bias": 1}, TypeError, "bias to be a bool, got 1"),
        ({"input_grad": None}, TypeError, "input_grad to be a bool, got None"),
        ({"dtype": "float16"}, TypeError, "dtype float32 or float64, got float16"),
        ({"init": 0.1}, TypeError, "init to be a function, got 0.1"),
        (
            {"init": lambda shape, rng: np.zeros((3, 3, 2, 4))},
            ValueError,
            "init's array of shape (18, 4), got (3, 3, 2, 4)",
        ),
        ({"rng": -1}, ValueError, "rng to be an integer >= 0, got -1"),
    ],
)
def test_refusals(settings, error, text):
    with refusal(error, f"Conv2d: expected {text}"):
        Conv2d(**{"in_channels": 2, "out_channels": 4, "kernel_size": 3, **settings})


def test_a_setting_that_is_refused_stays_as_it_was():
    layer = Conv2d(2, 3, (4, 2), padding="same")
    for stride in (2, (1, 2), (3, 1)):
        with refusal(ValueError, f'Conv2d: expected stride 1 with padding "same", got {stride}'):
            layer.stride = stride
    layer.stride = 1
    layer.padding = 1
    layer.stride = 2
    with refusal(ValueError, 'Conv2d: expected stride 1 with padding "same", got (2, 2)'):
        layer.padding = "same"
    with pytest.raises(ValueError, match="kernel_size"):
        layer.kernel_size = (1, 2, 3)
    assert (layer.kernel_size, layer.stride, layer.padding) == ((4, 2), (2, 2), (1, 1))


def test_the_repr_shows_the_sizes():
    text = "kernel_size=(3, 3), stride=(1, 1), padding='same', input_grad=True, bias=False"
    layer = Conv2d(1, 2, 3, padding="same", bias=False)
    assert repr(layer) == f"Conv2d(in_channels=1, out_channels=2, {text})"


@pytest.mark.parametrize("shape", [(), (3,), (8, 3), (2, 28, 28), (3, 8, 8), (2, 8, 8, 1)])
def test_images_of_other_channels_are_refused(shape):
    with refusal(ValueError, f"Conv2d: expected x of shape (..., H, W, 3), got {shape}") as caught:
        Conv2d(3, 2, 1)(np.zeros(shape))
    assert "`x[..., None]`" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("settings", "shape", "got"),
    [
        ({}, (3, 3), "a 5 x 5 kernel, padding 0, on 3 x 3"),
        ({"padding": 1}, (5, 2), "a 5 x 5 kernel, padding 1, on 5 x 2"),
        ({"padding": (0, 1)}, (4, 9), "a 5 x 5 kernel, padding (0, 1), on 4 x 9"),
        ({"kernel_size": (1, 6)}, (5, 5), "a 1 x 6 kernel, padding 0, on 5 x 5"),
        ({"padding": "same"}, (0, 3), "a 5 x 5 kernel, padding same, on 0 x 3"),
    ],
)
def test_a_kernel_larger_than_the_padded_image_is_refused(settings, shape, got):
    layer = Conv2d(1, 1, **{"kernel_size": 5, **settings}, rng=0)
    layer(np.zeros((2, 9, 9, 1)))
    with refusal(ValueError, f"Conv2d: expected a kernel that fits the image, got {got}"):
        layer(np.zeros((2, *shape, 1)))
    with refusal_starting(RuntimeError, "Conv2d: expected a forward before backward"):
        layer.backward(np.zeros((2, 5, 5, 1)))


@pytest.mark.parametrize(
    ("name", "wanted", "shape"),
    [
        *(("weight", (2, 3, 4, 5), s) for s in [(3, 2, 4, 5), (24, 5), (2, 3, 4, 1), (), (5,)]),
        *(("bias", (5,), s) for s in [(1,), (5, 1), ()]),
    ],
)
def test_a_parameter_replaced_by_one_of_another_shape_is_refused_at_use(name, wanted, shape):
    layer, x = Conv2d(4, 5, (2, 3), rng=0), np.ones((3, 3, 4))
    layer(x)
    setattr(layer, name, Parameter(np.ones(shape)))
    with refusal(ValueError, f"Conv2d: expected {name} of shape {wanted}, got {shape}"):
        layer.backward(np.ones((2, 1, 5)))
    assert not any(p.grad.any() for p in layer.parameters())
    with refusal(ValueError, f"Conv2d: expected {name} of shape {wanted}, got {shape}"):
        layer(x)
    with refusal_starting(RuntimeError, "Conv2d: expected a forward before backward"):
        layer.backward(np.ones((2, 1, 5)))
    setattr(layer, name, Parameter(np.ones(wanted)))
    assert layer(x).shape == (2, 1, 5)
