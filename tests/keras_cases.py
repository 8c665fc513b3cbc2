"""What the tests of Keras share: models of its layers, and 50 steps in both frameworks."""

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import strategies as st

from tinygrad_mnist import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Unflatten,
)
from tinygrad_mnist.testing.strategies import seeds

if not (find_spec("keras") and find_spec("jax")):
    pytest.skip("needs the extra `keras`", allow_module_level=True)

from tinygrad_mnist.interop.keras import (
    from_keras,
    keras,
    to_keras,
    to_keras_loss,
    to_keras_optimizer,
)

MARKS = [
    pytest.mark.slow,
    # Keras 3.15 reads its variables in a way that NumPy 2 is to give up
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

EXPORTED = (
    "to_keras: expected Sequential, Residual, Parallel, Linear, Conv2d, MaxPool2d, AvgPool2d, "
    "Flatten, Unflatten, ReLU, LeakyReLU, Tanh, Sigmoid, GELU, SiLU, Softmax, Dropout, BatchNorm "
    "and LayerNorm alone, got"
)

IMPORTED = (
    "from_keras: expected Sequential, Dense, Conv2D, ZeroPadding2D (before a Conv2D), "
    "MaxPooling2D, AveragePooling2D, Flatten, Reshape, ReLU, LeakyReLU, Activation, Softmax, "
    "Dropout, BatchNormalization, LayerNormalization, Add and Concatenate alone, got"
)

# of images (4, 4, 2), and of the same shape again: JAX compiles each operation once for a shape
KEEPING = {
    "same": lambda rng: Conv2d(2, 2, (2, 3), padding="same", rng=rng),
    "padded": lambda rng: Conv2d(2, 2, (3, 1), padding=(1, 0), bias=False, rng=rng),
    "linear": lambda rng: Linear(2, 2, rng=rng),
    "overlapping": lambda rng: Sequential(
        MaxPool2d(2, stride=1), Conv2d(2, 2, 2, padding=1, rng=rng)
    ),
    "means": lambda rng: Sequential(
        AvgPool2d((1, 2), stride=(1, 1)), Conv2d(2, 2, (1, 2), padding=(0, 1), rng=rng)
    ),
    "BatchNorm": lambda _: BatchNorm(2, eps=1e-3, momentum=0.3),
    "LayerNorm": lambda _: LayerNorm(2, eps=0.1),
    "Dropout": lambda rng: Dropout(0.25, rng=rng),
    "ReLU": lambda _: ReLU(),
    "LeakyReLU": lambda _: LeakyReLU(0.2),
    "Tanh": lambda _: Tanh(),
    "Sigmoid": lambda _: Sigmoid(),
    "GELU": lambda _: GELU(),
    "SiLU": lambda _: SiLU(),
    "Softmax": lambda _: Softmax(),
}

SAMPLE = (4, 4, 2)


@st.composite
def chains(draw, rng, kinds, depth=2):
    """Layers, with Residuals and Parallels of such chains among them."""
    branching = ["Residual", "shortcut", "add", "concat"] if depth else []
    layers = []
    for kind in draw(st.lists(st.sampled_from([*branching, *kinds]), max_size=3)):
        if kind not in branching:
            layers.append(KEEPING[kind](rng))
            continue
        first, second = (draw(chains(rng, kinds, depth - 1)) for _ in range(2))
        if kind == "Residual":
            layers.append(Residual(*first))
        elif kind == "shortcut":
            layers.append(Residual(*first, shortcut=Sequential(*second, Tanh())))
        elif kind == "add":
            layers.append(Parallel(Sequential(*first), Sequential(*second), Tanh(), join="add"))
        else:
            both = Parallel(Sequential(*first), Sequential(*second))
            layers.append(Sequential(both, Linear(4, 2, rng=rng)))
    return layers


@st.composite
def models(draw, kinds=tuple(KEEPING)):
    """A model of images, or of rows that it makes images of, with nothing at 0 or 1."""
    rng = np.random.default_rng(draw(seeds()))
    layers = draw(chains(rng, kinds))
    end = [Conv2d(2, 1, 2, stride=2, rng=rng), Flatten(), Linear(4, 3, rng=rng)]
    flat = draw(st.booleans())
    model = Sequential(*([Unflatten(SAMPLE)] if flat else []), Sequential(*layers), *end)
    for parameter in model.parameters():
        if parameter.data.ndim == 1:
            parameter.data = rng.uniform(0.5, 1.5, parameter.data.shape)
    for _, buffer in model.named_buffers():
        buffer.data = rng.uniform(0.5, 1.5, buffer.data.shape)
    return model, (32,) if flat else SAMPLE


def inputs(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def outputs(keras_model, x, **mode):
    return np.asarray(keras_model(x, **mode))


def small():
    return Sequential(
        Sequential(Linear(6, 5, rng=0, input_grad=False), ReLU()),
        Dropout(0.25),
        Linear(5, 3, rng=1),
    )


def sequential(*layers, shape=(4,), **kwargs):
    return keras.Sequential([keras.Input(shape, **kwargs), *layers])


def of(kind, *args, **kwargs):
    return lambda: sequential(getattr(keras.layers, kind)(*args, name="a", **kwargs))


def assert_50_steps_leave_the_same(model, shape, loss, make, seed=0, tolerance=1e-5):
    dtype = next(model.parameters()).data.dtype
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((50, 8, *shape)).astype(dtype)
    t = rng.uniform(size=(50, 8, 3)).astype(dtype)
    if isinstance(loss, CrossEntropyLoss):
        t = rng.integers(0, 3, (50, 8))
    optimizer = make(model.parameters())
    converted = to_keras(model, shape)
    converted.compile(to_keras_optimizer(optimizer), to_keras_loss(loss, dtype=dtype))
    for i in range(50):
        value = loss(model(x[i]), t[i])
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        assert converted.train_on_batch(x[i], t[i]) == pytest.approx(value, rel=1e-5)
    found = from_keras(converted).state_dict().values()
    for a, (name, b) in zip(found, model.state_dict().items(), strict=True):
        if not name.endswith("running_var"):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, strict=True)
