"""The compiled part of a network before Flatten, against the eager layers."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist import Conv2d, Dropout, Linear, MaxPool2d, ReLU, Sequential
from tinygrad_mnist.testing.strategies import seeds

pytest.importorskip("numba")
from tinygrad_mnist.compiled import images
from tinygrad_mnist.compiled.images import backward_images, forward_images
from tinygrad_mnist.compiled.kernel import CONV2D, DROPOUT, LANES, LINEAR, MAXPOOL2D, RELU
from tinygrad_mnist.compiled.plan import Rule, drawn_masks
from tinygrad_mnist.compiled.trainer import Weights
from tinygrad_mnist.compiled.trunk import PlannedTrunk

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def rule_of(layer):
    match layer:
        case Conv2d():
            settings = layer.kernel_size, layer.stride, layer.padding
            named = dict(zip(("window", "stride", "padding"), settings, strict=True))
            return Rule(CONV2D, layer.weight, layer.bias, **named)
        case MaxPool2d():
            return Rule(MAXPOOL2D, window=layer.kernel_size, stride=layer.stride)
        case Linear():
            return Rule(LINEAR, layer.weight, layer.bias)
        case Dropout():
            return Rule(DROPOUT, p=layer.p, rng=layer.rng)
    return Rule(RELU)


def planned(model, shape):
    rules = {path: rule_of(layer) for path, layer in model.leaves()}
    return PlannedTrunk("test", rules, list(model.parameters()), shape)


def compiled(model, x, dy):
    """Return y, and the gradient of each parameter, as the kernel computes them."""
    trunk, weights = planned(model, x.shape[1:]), Weights(list(model.parameters()))
    params = weights.packed([p.data for p in model.parameters()])
    work, n = trunk.work(1, len(x)), len(x)
    masks = drawn_masks(trunk.dropouts, n, n)
    y = np.full(dy.shape, np.nan, x.dtype)
    rows = x.reshape(n, -1).view()
    rows.flags.writeable = False
    memory, bits, gradients = (array[0] for array in work)
    for s in range(0, n, LANES):
        features = y.reshape(n, -1)
        forward_images(trunk.trunk, params, memory, bits, rows, masks, features, s, s // LANES)
    state = trunk.trunk, params, memory, bits, gradients, masks
    for s in range(0, n, LANES):
        backward_images(*state, dy.reshape(n, -1), s, s // LANES)
    return [y, *(g.copy() for g in weights.windows(gradients))]


def eager(model, x, dy):
    y = model(x)
    model.zero_grad()
    model.backward(dy)
    return [y, *(p.grad for p in model.parameters())]


def assert_same(model, x, rng):
    """Compare the compiled trunk with the eager one, which draws the same masks."""
    generators = {id(m.rng): m.rng for m in model.modules() if isinstance(m, Dropout)}
    states = {key: g.bit_generator.state for key, g in generators.items()}
    shape = model(x).shape
    dy = rng.standard_normal(shape).astype(x.dtype)
    found = []
    for run in compiled, eager:
        for key, state in states.items():
            generators[key].bit_generator.state = state
        found.append(run(model, x, dy))
    tolerance = 1e-11 if x.dtype == np.float64 else 1e-4
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.max(abs(b), initial=1))


@st.composite
def trunks(draw, dtype):
    """A chain of layers on images, and the shape of these."""
    rng = np.random.default_rng(draw(seeds()))
    shape = H, W, C = draw(st.integers(1, 9)), draw(st.integers(1, 12)), draw(st.integers(1, 9))
    size = st.integers(1, 4)
    layers = []
    for kind in draw(st.lists(st.sampled_from("cccprdl"), min_size=1, max_size=5)):
        options = {"rng": rng, "dtype": dtype, "bias": draw(st.booleans())}
        out = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 9]))
        if kind == "c":
            padding = draw(st.sampled_from([0, 0, 3, (4, 7), (5, 3), "same"]))
            fitting = st.integers(1, min(H, 4)), st.integers(1, min(W, 4))
            kernel = draw(st.tuples(*fitting) if padding == 0 else st.tuples(size, size))
            layers.append(Conv2d(C, out, kernel, padding=padding, **options))
        elif kind == "p":
            window = draw(st.integers(1, min(H, 3))), draw(st.integers(1, min(W, 3)))
            layers.append(MaxPool2d(window, stride=draw(st.sampled_from([None, 1, (2, 1), 3]))))
        elif kind == "d":
            layers.append(Dropout(0.3, rng=rng))
        else:
            layers.append(ReLU() if kind == "r" else Linear(C, out, **options))
        H, W, C = layers[-1](np.zeros((H, W, C), dtype)).shape
    return Sequential(*layers, Linear(C, 2, rng=rng, dtype=dtype)), shape


@every_dtype
@given(data=st.data(), seed=seeds(), n=st.sampled_from([1, 8, 11, 16]))
@settings(max_examples=40)
def test_features_and_gradients_are_those_of_the_eager_layers(dtype, data, seed, n):
    model, shape = data.draw(trunks(dtype))
    rng = np.random.default_rng(seed)
    for p in model.parameters():  # biases, too
        p.data = rng.standard_normal(p.data.shape) / max(1, np.prod(p.data.shape[:-1])) ** 0.5
    assert_same(model, rng.standard_normal((n, *shape)).astype(dtype), rng)


def small(rng, dtype=np.float64):
    """A chain with each kind of layer, also one with fewer than four channels."""
    options = {"rng": rng, "dtype": dtype}
    return Sequential(
        Conv2d(1, 5, (3, 2), padding=(1, 4), **options),
        ReLU(),
        MaxPool2d((3, 2), stride=2),
        Dropout(0.3, rng=rng),
        Conv2d(5, 2, 2, bias=False, **options),
        MaxPool2d((1, 2)),
        ReLU(),
        Linear(2, 4, **options),
    )


@every_dtype
def test_the_kernel_in_plain_python_does_the_same(dtype, monkeypatch):
    functions = {name: f for name, f in vars(images).items() if hasattr(f, "py_func")}
    assert len(functions) >= 15
    for name, function in functions.items():
        monkeypatch.setattr(images, name, function.py_func)
    monkeypatch.setitem(globals(), "forward_images", forward_images.py_func)
    monkeypatch.setitem(globals(), "backward_images", backward_images.py_func)
    rng = np.random.default_rng(1)
    assert_same(small(rng, dtype), rng.standard_normal((9, 6, 5, 1)).astype(dtype), rng)


@pytest.mark.slow
def test_nothing_lies_outside_an_array(tmp_path):
    checks = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    test = "test_features_and_gradients_are_those_of_the_eager_layers[float32]"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"{__file__}::{test}",
    ]
    result = subprocess.run(command, env=os.environ | checks, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@every_dtype
@pytest.mark.parametrize("stride", [None, 1])
def test_the_first_of_equal_pixels_wins_and_nan_before_all(dtype, stride):
    rng = np.random.default_rng(2)
    x = rng.integers(-1, 2, (40, 5, 4, 3)).astype(dtype)
    special = rng.random(x.shape)
    x[special < 0.05], x[special > 0.95] = np.nan, -np.inf
    model = Sequential(Linear(3, 3, bias=False, dtype=dtype), MaxPool2d(2, stride=stride))
    model[0].weight.data = np.eye(3)
    x[:, :, :, 1:] = np.where(np.isfinite(x[:, :, :, 1:]), x[:, :, :, 1:], 7)
    # through the identity, a NaN or an infinity of one channel reaches all three
    dy = rng.standard_normal(model(x).shape).astype(dtype)
    with np.errstate(invalid="ignore"):
        for a, b in zip(compiled(model, x, dy), eager(model, x, dy), strict=True):
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    assert np.isnan(b).any()


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        (
            [Conv2d(1, 2, 3, stride=(1, 2))],
            (9, 9, 1),
            "test: expected stride 1 in layer 0, got (1, 2); use the eager loop",
        ),
        (
            [Conv2d(2, 2, 3)],
            (9, 9, 1),
            "test: expected weight of layer 0 of shape (3, 3, 1, 2), got (3, 3, 2, 2)",
        ),
        (
            [Conv2d(1, 2, 3), MaxPool2d((2, 3), stride=1)],
            (3, 5, 1),
            "test: expected a window that fits the images of layer 1, got 2 x 3 on 1 x 3",
        ),
        (
            [Conv2d(1, 2, (3, 6), padding=1)],
            (9, 3, 1),
            "test: expected a window that fits the images of layer 0, got 3 x 6 on 11 x 5",
        ),
    ],
)
def test_what_does_not_fit_is_refused(layers, shape, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        planned(Sequential(*layers), shape)
