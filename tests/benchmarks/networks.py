"""What is run: a case is a network, how it is trained or asked, and who does it."""

import itertools
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
IMAGES = 10_000  # of each part of the bundled MNIST
KERNEL = 5  # rows and columns of each convolution's
SIDE = 28  # rows and columns of an image


@dataclass(frozen=True)
class Case:
    """A network, in words that each module of peers/ reads.

    Its loss is the squared error, summed over the outputs, or the cross-entropy; both are averaged
    over the batch. A step is along y - t, as the notebook's is: half the slope of the squares.
    """

    title: str
    layers: tuple[tuple, ...]
    contenders: str  # their keys in peers.CONTENDERS
    batch: int | None  # None: sample by sample, (784,) where the library can
    optimizer: str = "sgd"  # or "momentum", with .9, or "adam"
    lr: float = 0.005
    bias: bool = False
    cross_entropy: bool = False
    trains: bool = True  # else it only answers

    @property
    def keys(self):
        """Return the contenders' keys in peers.CONTENDERS."""
        return self.contenders.split()

    @property
    def rows(self):
        return self.batch or 1

    @property
    def rate(self):
        """Return the learning rate: half of `lr` for squares, whose slope is 2 (y - t)."""
        return self.lr if self.cross_entropy else self.lr / 2

    @property
    def momentum(self):
        return 0.9 if self.optimizer == "momentum" else 0.0

    @property
    def steps(self):
        """Return how many steps all full batches are."""
        return IMAGES // self.rows

    @property
    def outputs(self):
        return self.layers[-1][-1]

    @property
    def sizes(self):
        """Return the numbers of units of a network without convolutions."""
        return [SIDE**2] + [size[1] for kind, *size in self.layers if kind == "linear"]

    @property
    def unit(self):
        return "us a step" if self.trains else "ms"


def dense(*sizes, dropout=False):
    """Return the layers of a network of Linear and, between them, ReLU and perhaps Dropout."""
    between = (("relu",), ("dropout",)) if dropout else (("relu",),)
    layers = ()
    for size in itertools.pairwise(sizes):
        layers += (("linear", *size), *between)
    return layers[: -len(between)]


CONVOLUTION = (
    ("conv", 1, 8),
    ("relu",),
    ("pool",),
    ("conv", 8, 16),
    ("relu",),
    ("pool",),
    ("flatten", 4, 4, 16),
    ("linear", 256, 10),
)
SMALL, MIDDLE = dense(784, 40, 10), dense(784, 100, 10, dropout=True)
sample = partial(
    Case, contenders="ours ours64 compiled compiled64 notebook torch jax scan floor1", batch=None
)
row = partial(Case, contenders="ours notebook torch jax", batch=1)
convolution = partial(
    Case,
    layers=CONVOLUTION,
    contenders="ours ours1 compiled torch torch-last torch1 torch-last1 jax",
    lr=0.05,
    bias=True,
    cross_entropy=True,
)
CASES = {
    "sample-40": sample("784-40-10, (784,)", SMALL),
    "row-40": row("784-40-10, (1, 784)", SMALL),
    "sample-100": sample("784-100-10 dropout, (784,)", MIDDLE),
    "row-100": row("784-100-10 dropout, (1, 784)", MIDDLE),
    "batch-16": Case(
        "784-100-10 dropout, batch 16",
        MIDDLE,
        "ours compiled notebook torch torch1 jax scan floor1",
        batch=16,
        lr=0.05,
    ),
    "batch-32": Case(
        "784-100-10 dropout, batch 32",
        MIDDLE,
        "ours compiled torch torch1 jax scan",
        batch=32,
        lr=0.05,
    ),
    "batch-100": Case(
        "784-100-10 dropout, batch 100",
        MIDDLE,
        "ours ours1 ours64 compiled notebook torch torch1 jax scan keras sklearn floor1",
        batch=100,
        lr=0.1,
    ),
    "adam-100": Case(
        "784-100-10 dropout, batch 100, Adam",
        MIDDLE,
        "ours torch torch1 torch-fused jax keras",
        batch=100,
        optimizer="adam",
        lr=0.001,
        cross_entropy=True,
    ),
    "momentum-32": Case(
        "784-512-10 momentum, batch 32",
        dense(784, 512, 10),
        "ours compiled torch torch1 jax scan",
        batch=32,
        optimizer="momentum",
    ),
    "wide-128": Case(
        "784-1024-1024-10, batch 128",
        dense(784, 1024, 1024, 10),
        "ours ours1 compiled torch torch1 jax scan floor",
        batch=128,
        lr=0.05,
    ),
    "conv-1": convolution("conv 5x5x8, 5x5x16, batch 1", batch=1),
    "conv-32": convolution("conv 5x5x8, 5x5x16, batch 32", batch=32),
    "conv-128": convolution("conv 5x5x8, 5x5x16, batch 128", batch=128),
    "inference": Case(
        "784-100-10, 10,000 images at once",
        dense(784, 100, 10),
        "ours ours64 notebook torch torch1 jax keras sklearn floor",
        batch=10_000,
        trains=False,
    ),
}


@cache
def images(part, dtype):
    """Return x (10000, 784) in [0, 1] and labels (10000,) of the bundled MNIST.

    Read with NumPy alone, so that a peer's memory does not include this framework.
    """
    with np.load(ROOT / "tinygrad_mnist" / "data" / "mnist_20k.npz") as arrays:
        x, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    x = x.reshape(len(x), -1).astype(dtype)
    x /= 255
    return x, labels.astype(np.int64)


def data(case, dtype):
    """Return x, (N, 784) or (N, 28, 28, 1), and one-hot t, or labels, of all full batches."""
    part = images("train" if case.trains else "test", np.dtype(dtype))
    x, labels = (array[: case.steps * case.rows] for array in part)
    if case.layers[0][0] == "conv":
        x = x.reshape(-1, SIDE, SIDE, 1)
    return x, labels if case.cross_entropy else np.eye(case.outputs, dtype=dtype)[labels]


def parameters(case):
    """Return the first weights, (I, O) or (5, 5, I, O), and biases, one after the other."""
    rng = np.random.default_rng(1)
    for kind, *size in case.layers:
        if kind in ("linear", "conv"):
            shape = (KERNEL, KERNEL, *size) if kind == "conv" else size
            fan_in = np.prod(shape[:-1])
            yield rng.uniform(-1, 1, shape) * min(0.1, (6 / fan_in) ** 0.5)
            if case.bias:
                yield np.zeros(size[-1])
