"""Every Module of the package, and some that a user might write, for the contract's checklist."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinygrad_mnist import (
    GELU,
    AvgPool2d,
    Buffer,
    Conv2d,
    Dropout,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Module,
    Parallel,
    Parameter,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Unflatten,
    nn,
)


def floats(owner, name, values, dtype=None, shape=None):
    """Return a copy as floats; refuse what is no array of real numbers, or of another shape."""
    try:
        array = np.asarray(values)
    except ValueError:  # a ragged list
        array = np.array(None)
    if array.dtype.kind not in "biuf" or isinstance(values, np.ma.MaskedArray):
        contract = f"{name} to be an array of real numbers"
        raise TypeError(f"{type(owner).__name__}: expected {contract}, got something else")
    if shape is not None and array.shape != shape:
        raise ValueError(
            f"{type(owner).__name__}: expected {name} of shape {shape}, got {array.shape}"
        )
    return array.astype(np.promote_types(array.dtype, np.float32) if dtype is None else dtype)


def kept(owner, value):
    """Return what forward kept; refuse a backward before it."""
    if value is None:
        raise RuntimeError(f"{type(owner).__name__}: expected a forward before backward, got none")
    return value


class Scale(Module):
    """y = gain * x, for x (..., I): the smallest layer with a parameter."""

    _x = None

    def __init__(self, features):
        self.gain = Parameter(np.linspace(1, 2, features, dtype=np.float32))

    def forward(self, x):
        self._x = None
        x = floats(self, "x", x, self.gain.data.dtype)
        y = x * self.gain.data
        self._x = x
        return y

    def backward(self, dy):
        x = kept(self, self._x)
        dy = floats(self, "dy", dy, x.dtype, x.shape)
        self.gain.accumulate((dy * x).reshape(-1, dy.shape[-1]).sum(axis=0))
        return dy * self.gain.data


class Twice(Module):
    """y = 2 * x: what nothing but the eager loop has a rule for."""

    def forward(self, x):
        return 2 * x

    def backward(self, dy):
        return 2 * dy


class OwnLinear(Linear):
    """A Linear in all but its class."""


class Residual(Module):
    """y = x + inner(x): a Module that holds a Module."""

    def __init__(self, inner):
        self.branches = [inner]

    def forward(self, x):
        y = self.branches[0](x)
        return y + np.asarray(x, dtype=y.dtype)

    def backward(self, dy):
        dx = self.branches[0].backward(dy)
        return dx + np.asarray(dy, dtype=dx.dtype)


class Product(Module):
    """y = a * b, for a and b of one shape: a layer with two inputs."""

    _inputs = None

    def forward(self, a, b):
        self._inputs = None
        a = floats(self, "a", a)
        b = floats(self, "b", b, a.dtype, a.shape)
        self._inputs = a, b
        return a * b

    def backward(self, dy):
        a, b = kept(self, self._inputs)
        dy = floats(self, "dy", dy, a.dtype, a.shape)
        return dy * b, dy * a


class MeanPool(Module):
    """y = the mean of each window of 2x2, for x (..., H, W, C) and y (..., H/2, W/2, C)."""

    sample_axes = 3
    _like = None

    def forward(self, x):
        self._like = None
        x = floats(self, "x", x)
        *leading, H, W, C = x.shape
        y = x.reshape(*leading, H // 2, 2, W // 2, 2, C).mean(axis=(-4, -2))
        self._like = y.dtype, y.shape
        return y

    def backward(self, dy):
        dy = floats(self, "dy", dy, *kept(self, self._like))
        return dy.repeat(2, axis=-3).repeat(2, axis=-2) / 4


class BatchNorm(Module):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over all axes but the last, as in PyTorch.

    Mean and variance are those of the batch while training, else the running ones, into which
    each batch goes with `momentum` (its variance divided by n - 1).
    """

    momentum, eps = 0.1, 1e-5
    _normal = _std = _of_batch = None

    def __init__(self, features):
        self.weight = Parameter(np.ones(features))
        self.bias = Parameter(np.zeros(features))
        self.running_mean = Buffer(np.zeros(features))
        self.running_var = Buffer(np.ones(features))
        self.batches = Buffer(0)
        self.astype(np.float32)

    def forward(self, x):
        self._normal = None
        x = floats(self, "x", x, self.weight.data.dtype)
        rows = x.reshape(-1, x.shape[-1])
        mean, var = self.running_mean.data, self.running_var.data
        if self.training and len(rows) == 1:
            raise ValueError(f"BatchNorm: expected more than one value of a feature, got {x.shape}")
        if self.training and len(rows):
            mean, var, m = rows.mean(axis=0), rows.var(axis=0), self.momentum
            self.running_mean.data += m * (mean - self.running_mean.data)
            self.running_var.data += m * (rows.var(axis=0, ddof=1) - self.running_var.data)
            self.batches.data += 1
        self._std = np.sqrt(var + self.eps)
        normal = (x - mean) / self._std
        self._of_batch = self.training
        self._normal = normal
        return normal * self.weight.data + self.bias.data

    def backward(self, dy):
        normal = kept(self, self._normal)
        dy = floats(self, "dy", dy, normal.dtype, normal.shape)
        samples = tuple(range(dy.ndim - 1))
        self.weight.accumulate((dy * normal).sum(axis=samples))
        self.bias.accumulate(dy.sum(axis=samples))
        if self._of_batch and dy.size:
            along = (dy * normal).mean(axis=samples)
            dy = dy - dy.mean(axis=samples) - normal * along
        return dy * (self.weight.data / self._std)


class Embedding(Module):
    """y = W[x], for integers x (...), W (words, features) and y (..., features)."""

    input_grad = False
    _x = None

    def __init__(self, words, features, rng=None):
        self.table = Parameter(np.random.default_rng(rng).random((words, features), np.float32))

    def forward(self, x):
        self._x = None
        if x.dtype.kind not in "iu":
            raise TypeError(f"Embedding: expected x to be integers, got dtype {x.dtype}")
        self._x = x.copy()
        return self.table.data[x]

    def backward(self, dy):
        gradient = np.zeros_like(self.table.data)
        np.add.at(gradient, kept(self, self._x), dy)
        self.table.accumulate(gradient)


class Case(NamedTuple):
    make: Callable
    shape: tuple  # of one sample
    inputs: int = 1  # how many there are, each of that shape
    words: int | None = None  # the inputs are integers below this
    stochastic: bool = False  # what is drawn for a row depends on the rows before it
    mixes_rows: bool = False  # a row's y depends on the other rows: there must be more than one
    refuser: str | None = None  # whose refusal it is, where not the layer's own


CASES = {
    "Linear": Case(lambda: Linear(4, 3, rng=1), (4,)),
    "Linear-no-bias": Case(lambda: Linear(4, 3, bias=False, rng=1), (4,)),
    "Linear-one-feature": Case(lambda: Linear(1, 1, rng=1), (1,)),
    "Linear-float64": Case(lambda: Linear(4, 3, rng=1, dtype=np.float64), (4,)),
    "Linear-data": Case(lambda: Linear(4, 3, rng=1, input_grad=False), (4,)),
    "ReLU": Case(ReLU, (5,)),
    "LeakyReLU": Case(lambda: LeakyReLU(0.2), (5,)),
    "Tanh": Case(Tanh, (5,)),
    "Sigmoid": Case(Sigmoid, (5,)),
    "SiLU": Case(SiLU, (5,)),
    "GELU": Case(GELU, (5,)),
    "Softmax": Case(Softmax, (5,)),
    "Dropout": Case(lambda: Dropout(0.3, rng=1), (5,), stochastic=True),
    "Dropout-0": Case(lambda: Dropout(0, rng=1), (5,)),
    "Dropout-eval": Case(lambda: Dropout(0.3, rng=1).eval(), (5,)),
    "Conv2d": Case(lambda: Conv2d(2, 3, 2, rng=1), (2, 3, 2)),
    "Conv2d-no-bias": Case(lambda: Conv2d(1, 2, 2, bias=False, rng=1), (3, 3, 1)),
    "Conv2d-float64": Case(lambda: Conv2d(2, 2, (1, 3), rng=1, dtype=np.float64), (2, 4, 2)),
    "Conv2d-data": Case(lambda: Conv2d(2, 2, 2, rng=1, input_grad=False), (3, 3, 2)),
    "Conv2d-strided": Case(lambda: Conv2d(1, 2, (2, 3), stride=(3, 2), rng=1), (6, 6, 1)),
    "Conv2d-padded": Case(lambda: Conv2d(2, 1, (3, 2), padding=(2, 1), rng=1), (2, 3, 2)),
    "Conv2d-same": Case(lambda: Conv2d(1, 2, (2, 5), padding="same", rng=1), (3, 4, 1)),
    "Conv2d-one-pixel": Case(lambda: Conv2d(1, 1, 1, rng=1), (1, 1, 1)),
    "MaxPool2d": Case(MaxPool2d, (3, 4, 2)),
    "MaxPool2d-overlapping": Case(lambda: MaxPool2d((3, 2), stride=(1, 2)), (4, 4, 1)),
    "MaxPool2d-apart": Case(lambda: MaxPool2d(1, stride=2), (3, 4, 2)),
    "AvgPool2d": Case(AvgPool2d, (4, 3, 2)),
    "AvgPool2d-overlapping": Case(lambda: AvgPool2d((2, 3), stride=(2, 1)), (4, 4, 1)),
    "Flatten": Case(Flatten, (2, 3, 4)),
    "Flatten-two-axes": Case(lambda: Flatten(2), (3, 4)),
    "Unflatten": Case(lambda: Unflatten((2, 3, 2)), (12,)),
    "images-in-Sequential": Case(
        lambda: Sequential(
            Unflatten((4, 4, 1)),
            Conv2d(1, 2, 2, padding="same", rng=1),
            nn.BatchNorm(2),
            Tanh(),
            MaxPool2d(),
            Conv2d(2, 2, 2, rng=2),
            Flatten(),
            Linear(2, 2, rng=3),
        ),
        (16,),
        mixes_rows=True,
    ),
    "LayerNorm": Case(lambda: LayerNorm(4), (4,)),
    "LayerNorm-float64": Case(lambda: LayerNorm(4, eps=0.1, dtype=np.float64), (4,)),
    "BatchNorm": Case(lambda: nn.BatchNorm(3), (3,), mixes_rows=True),
    "BatchNorm-float64": Case(
        lambda: nn.BatchNorm(3, eps=0.1, momentum=1, dtype=np.float64), (3,), mixes_rows=True
    ),
    "BatchNorm-eval": Case(lambda: nn.BatchNorm(3).eval(), (3,)),
    "BatchNorm-in-Sequential": Case(
        lambda: Sequential(Linear(4, 3, rng=1), nn.BatchNorm(3), ReLU()), (4,), mixes_rows=True
    ),
    "Sequential-empty": Case(Sequential, (3,)),
    "Sequential": Case(lambda: Sequential(Linear(4, 6, rng=1), ReLU(), Linear(6, 2, rng=2)), (4,)),
    "Sequential-nested": Case(
        lambda: Sequential(
            Sequential(Linear(4, 6, rng=1, input_grad=False), ReLU()),
            Sequential(Dropout(0.5, rng=3), Linear(6, 2, bias=False, rng=2)),
        ),
        (4,),
        stochastic=True,
    ),
    "Residual": Case(lambda: nn.Residual(Linear(3, 4, rng=1), Tanh(), Linear(4, 3, rng=2)), (3,)),
    "Residual-empty": Case(nn.Residual, (3,)),
    "Residual-data": Case(lambda: nn.Residual(Linear(3, 3, rng=1, input_grad=False)), (3,)),
    "Residual-shortcut": Case(
        lambda: nn.Residual(Linear(3, 2, rng=1), shortcut=Linear(3, 2, bias=False, rng=2)), (3,)
    ),
    "Residual-in-Sequential": Case(
        lambda: Sequential(
            nn.Residual(nn.BatchNorm(3), ReLU(), Linear(3, 3, rng=1)),
            nn.Residual(nn.Residual(Linear(3, 3, rng=2)), ReLU()),
        ),
        (3,),
        mixes_rows=True,
    ),
    "Parallel-concat": Case(
        lambda: Parallel(Linear(3, 4, rng=1), Tanh(), Sequential(Linear(3, 1, rng=2), ReLU())),
        (3,),
    ),
    "Parallel-add": Case(lambda: Parallel(Linear(3, 3, rng=1), Tanh(), Scale(3), join="add"), (3,)),
    "Parallel-one-add": Case(lambda: Parallel(Sequential(), join="add"), (3,)),
    "Parallel-in-Sequential": Case(
        lambda: Sequential(
            Linear(3, 4, rng=1), Parallel(Sequential(), ReLU()), Linear(8, 2, rng=2)
        ),
        (3,),
    ),
    "Parallel-images": Case(lambda: Parallel(MeanPool(), MeanPool()), (4, 6, 2)),
    "Parallel-Embeddings": Case(
        lambda: Parallel(Embedding(9, 4, rng=1), Embedding(9, 2, rng=2)), (3,), words=9
    ),
    "user-Scale": Case(lambda: Scale(4), (4,)),
    "user-in-Sequential": Case(lambda: Sequential(Linear(4, 3, rng=1), Scale(3), ReLU()), (4,)),
    "user-Residual": Case(lambda: Residual(Linear(3, 3, rng=1)), (3,), refuser="Linear"),
    "user-Product": Case(Product, (3,), inputs=2),
    "user-Product-first": Case(lambda: Sequential(Product(), Linear(3, 2, rng=1)), (3,), inputs=2),
    "user-MeanPool": Case(MeanPool, (4, 6, 2)),
    "user-MeanPool-first": Case(lambda: Sequential(MeanPool(), Linear(2, 3, rng=1)), (2, 4, 2)),
    "user-BatchNorm": Case(lambda: BatchNorm(3), (3,), mixes_rows=True),
    "user-BatchNorm-eval": Case(lambda: BatchNorm(3).eval(), (3,)),
    "user-BatchNorm-in-Sequential": Case(
        lambda: Sequential(Linear(4, 3, rng=1), BatchNorm(3), ReLU()), (4,), mixes_rows=True
    ),
    "user-Embedding-first": Case(
        lambda: Sequential(Embedding(9, 4, rng=1), Linear(4, 2, rng=2)), (3,), words=9
    ),
}
