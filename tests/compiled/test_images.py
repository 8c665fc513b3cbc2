"""A compiled pass of a network with images against the eager loop that it stands for."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba")
from passes import LOSSES, OPTIMIZERS, assert_equal_passes

from tinygrad_mnist import (
    SGD,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    MSELoss,
    Parameter,
    ReLU,
    Sequential,
    Unflatten,
    num_threads,
)
from tinygrad_mnist.compiled import batches, compile_sgd, images, rows
from tinygrad_mnist.testing.strategies import seeds

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@st.composite
def networks(draw, dtype):
    """A network of any layers on images, and the shape of a sample."""
    rng = np.random.default_rng(draw(seeds()))
    shape = H, W, C = draw(st.integers(1, 9)), draw(st.integers(1, 12)), draw(st.integers(1, 9))
    size = st.integers(1, 4)
    layers = []
    for kind in draw(st.lists(st.sampled_from("ccccpprrdl"), max_size=5)):
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
            layers.append(Dropout(draw(st.sampled_from([0.3, 0.0])), rng=rng))
        else:
            layers.append(ReLU() if kind == "r" else Linear(C, out, **options))
        H, W, C = layers[-1](np.zeros((H, W, C), dtype)).shape
    if not any(isinstance(layer, Conv2d | MaxPool2d) for layer in layers):
        layers.append(MaxPool2d(1))
    hidden = [Linear(H * W * C, 5, rng=rng, dtype=dtype), ReLU(), Dropout(0.3, rng=rng)]
    hidden = draw(st.sampled_from([hidden, hidden[1:], []]))
    width = 5 if len(hidden) == 3 else H * W * C
    model = Sequential(*layers, Flatten(), *hidden, Linear(width, 3, rng=rng, dtype=dtype))
    for p in model.parameters():  # biases, too
        p.data = rng.standard_normal(p.data.shape) / max(1, np.prod(p.data.shape[:-1])) ** 0.5
    if draw(st.booleans()):
        return Sequential(Unflatten(shape), *model), (np.prod(shape),)
    return model, shape


@every_dtype
@given(
    data=st.data(),
    options=st.sampled_from(OPTIMIZERS),
    make_loss=st.sampled_from(LOSSES),
    n=st.sampled_from([1, 8, 19]),
    batch_size=st.sampled_from([1, 8, 11, 100]),
    parts=st.sampled_from([1, 2, 3]),
    shuffled=st.booleans(),
    seed=seeds(),
)
def test_a_pass_leaves_what_an_eager_pass_leaves(
    dtype, data, options, make_loss, n, batch_size, parts, shuffled, seed
):
    (model, shape), rng = data.draw(networks(dtype)), np.random.default_rng(seed)
    x, t = rng.standard_normal((n, *shape)), rng.standard_normal((n, 3))
    if isinstance(make_loss(), CrossEntropyLoss):
        t = rng.integers(0, 3, n)
    order = rng.integers(0, n, n + 2) if shuffled else None
    arguments = model, make_loss, options, 1e-3, x, t
    assert_equal_passes(*arguments, batch_size=batch_size, order=order, parts=parts)


def small(dtype):
    """A network with each kind of layer, and with fewer and more than four channels."""
    rng = np.random.default_rng(1)
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
        Flatten(),
        Linear(8, 3, **options),
    )


@every_dtype
@pytest.mark.parametrize("parts", [1, 2])
def test_the_kernel_in_plain_python_does_the_same(dtype, parts, monkeypatch):
    """Debuggers and coverage see it so."""
    for module, least in ((images, 20), (batches, 10), (rows, 5)):
        functions = {n: f for n, f in vars(module).items() if hasattr(f, "py_func")}
        assert len(functions) >= least
        for name, function in functions.items():
            monkeypatch.setattr(module, name, function.py_func)
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((19, 6, 5, 1)), rng.integers(0, 3, 19)
    model = small(dtype)
    for options in OPTIMIZERS:
        assert_equal_passes(
            model, CrossEntropyLoss, options, 0.01, x, t, batch_size=10, parts=parts
        )


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("stride", [None, 1])
def test_the_first_of_equal_pixels_wins(rectified, stride):
    rng = np.random.default_rng(2)
    x, t = rng.integers(-1, 2, (40, 5, 4, 3)), rng.random((40, 2))
    pool = MaxPool2d(2, stride=stride)
    features = pool(x.astype(float)).size // 40
    layers = [ReLU(), pool] if rectified else [pool]
    # the pool's gradient arrives at a weight that multiplies other numbers at each pixel
    mixed = Linear(3, 3, bias=False, rng=0, dtype=np.float64)
    mixed.weight.data = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]])
    last = Linear(features, 2, rng=1, dtype=np.float64)
    model = Sequential(mixed, *layers, Flatten(), last)
    assert_equal_passes(model, MSELoss, {}, 0.01, x, t, batch_size=40)


@pytest.mark.parametrize(
    ("window", "stride"), [(2, 2), (2, 3), (2, 1), (1, 2), ((1, 4), None), ((3, 2), (2, 3))]
)
def test_windows_with_gaps_between_them_or_that_overlap(window, stride):
    rng = np.random.default_rng(4)
    x, t = rng.standard_normal((20, 6, 12, 2)), rng.random((20, 2))
    pool = MaxPool2d(window, stride=stride)
    features = pool(x).size // 20
    mixed = Linear(2, 5, rng=0, dtype=np.float64)
    last = Linear(5 * features // 2, 2, rng=1, dtype=np.float64)
    assert_equal_passes(
        Sequential(mixed, pool, Flatten(), last), MSELoss, {}, 0.1, x, t, batch_size=10
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("padding", [0, 1])
def test_nan_and_infinity_reach_the_loss_as_in_the_eager_loop(value, padding):
    rng = np.random.default_rng(3)
    for pixel in ((4, 0, 0, 0), (4, 2, 3, 0), (11, 4, 4, 0)):
        x, t = rng.standard_normal((12, 5, 5, 1)), rng.integers(0, 3, 12)
        x[pixel] = value
        conv = Conv2d(1, 4, 2, padding=padding, rng=1, dtype=np.float64)
        features = (5 + 2 * padding) // 2 if padding else 2
        layers = conv, ReLU(), MaxPool2d(), Flatten()
        model = Sequential(*layers, Linear(4 * features**2, 3, rng=1, dtype=np.float64))
        assert_equal_passes(model, CrossEntropyLoss, {}, 0.1, x, t, batch_size=6)


@pytest.mark.parametrize("options", OPTIMIZERS)
def test_a_rate_of_0_moves_no_weight(options):
    x, t = np.full((9, 6, 5, 1), np.nan), np.zeros(9, int)
    model = small(np.float64)
    before = model.state_dict()
    assert_equal_passes(model, CrossEntropyLoss, options, 0.0, x, t, batch_size=4)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("parts", [1, 3])
def test_the_same_bits_for_the_same_number_of_parts(parts):
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((50, 6, 5, 1)), rng.integers(0, 3, 50)
    results = []
    for _ in range(3):
        model = small(np.float64)
        with num_threads(parts):
            optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
            compile_sgd(model, CrossEntropyLoss(), optimizer)(x, t, batch_size=25)
        results.append([p.data.copy() for p in model.parameters()])
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(a, b)


END = "; use the eager loop"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [Conv2d(1, 2, 3, stride=(1, 2)), Flatten(), Linear(2, 2)],
            f"expected stride 1 in layer 0, got (1, 2){END}",
        ),
        (
            [Conv2d(1, 2, 3), Flatten(2), Linear(2, 2)],
            f"expected layer 1 to flatten 3 axes, got 2{END}",
        ),
        (
            [Linear(2, 2), Conv2d(1, 2, 3)],
            f"expected a Flatten and a Linear behind images, got none{END}",
        ),
        (
            [Conv2d(1, 2, 3), Linear(2, 2), Flatten()],
            f"expected a Flatten and a Linear behind images, got none{END}",
        ),
        (
            [Linear(4, 4), Unflatten((2, 2, 1)), MaxPool2d(), Flatten(), Linear(1, 1)],
            f"expected images in the beginning alone, got some at layer 1{END}",
        ),
        (
            [Flatten(), Unflatten((2, 2, 1)), MaxPool2d(), Flatten(), Linear(1, 1)],
            f"expected images in the beginning alone, got some at layer 2{END}",
        ),
        (
            [ReLU(), Flatten(), Unflatten((2, 2, 1)), MaxPool2d(), Flatten(), Linear(1, 1)],
            f"expected images in the beginning alone, got some at layer 3{END}",
        ),
    ],
)
def test_other_models_are_refused(layers, message):
    model = Sequential(*layers)
    with pytest.raises(ValueError, match=f"^{re.escape(f'compile_sgd: {message}')}$"):
        compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((9, 9), "samples of shape (H, W, C), got (9, 9)"),
        ((9, 9, 3), "weight of layer 0 of shape (3, 4, 3, 2), got (3, 4, 1, 2)"),
        ((2, 9, 1), "a window that fits the images of layer 0, got 3 x 4 on 2 x 9"),
        ((4, 4, 1), "a window that fits the images of layer 1, got 2 x 2 on 2 x 1"),
        ((5, 6, 1), "layer 3 to take 2 features, got 3"),
    ],
)
def test_images_that_do_not_fit_are_refused_before_anything_moves(shape, message):
    model = Sequential(Conv2d(1, 2, (3, 4), rng=0), MaxPool2d(), Flatten(), Linear(3, 2, rng=0))
    train = compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))
    before = model.state_dict()
    with pytest.raises(ValueError, match=f"^{re.escape(f'compile_sgd: expected {message}')}$"):
        train(np.ones((5, *shape)), np.ones((5, 2)))
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_parameters_of_other_shapes_are_refused():
    model = Sequential(Conv2d(1, 2, 3, rng=0), Flatten(), Linear(2, 2, rng=0))
    x, t = np.ones((5, 3, 3, 1)), np.ones((5, 2))
    model[0].bias = Parameter(np.zeros(1, np.float32))
    train = compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))
    with pytest.raises(ValueError, match=r"^compile_sgd: expected bias of layer 0 of shape \(2,\)"):
        train(x, t)
    model[0].bias = None
    model[0].kernel_size = 2
    train = compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))
    with pytest.raises(ValueError, match=r"^compile_sgd: expected weight of layer 0 of shape \(2"):
        train(x, t)
