"""Setup: a training on MNIST, part by part, as it is chosen on the page."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.data.transforms import random_affine, random_shift
from tinygrad_mnist.init import Initializer, he_uniform
from tinygrad_mnist.losses import CrossEntropyLoss, Loss, MSELoss
from tinygrad_mnist.metrics import accuracy
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import (
    GELU,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Tanh,
)
from tinygrad_mnist.optim import SGD, Adam, Optimizer
from tinygrad_mnist.parameter import Parameter
from tinygrad_mnist.training import predict

Data = tuple[FloatArray, FloatArray]  # images (N, 28, 28, 1) in [0, 1], and one-hot targets (N, 10)


class Layers(NamedTuple):
    """What stands between the pixels and the ten scores: 5 x 5 convolutions, then hidden layers."""

    widths: tuple[int, ...]
    channels: tuple[int, ...] = ()
    side: int = 28  # of an image

    def small(self) -> "Layers":
        """Return as many layers, for images of 6 x 6, with so few units that checks are quick."""
        return Layers((5,) * len(self.widths), (2,) * len(self.channels), side=6)


def unchanged(loss: Loss) -> Loss:
    """Return the loss as it is."""
    return loss


def step(model: Module, loss: Loss, optimizer: Optimizer, x: Any, t: Any) -> float:
    """Learn from one batch, and return its loss."""
    value = loss(model(x), t)
    optimizer.zero_grad()
    model.backward(loss.backward())
    optimizer.step()
    return value


def paired(x: FloatArray, t: FloatArray, rng: np.random.Generator) -> Data:
    """Return what an epoch trains on: each input with its target. The DataLoader shuffles them."""
    return x, t


def on_test_images(model: Module, training: Data, test: Data) -> float:
    """Return the test accuracy."""
    x, t = test
    return accuracy(predict(model, x), t)


@dataclass(frozen=True)
class Setup:
    """A training, part by part: those that the page lets one choose, and those that may be wrong.

    `step(model, loss, optimizer, x, t)` learns from one batch and returns its loss.
    `evaluate(model, training, test)` returns what is called the test accuracy.
    """

    layers: Layers
    activation: Callable[[], Module] = ReLU
    dropout: float = 0
    loss: Callable[[], Loss] = CrossEntropyLoss
    optimizer: Callable[[Iterable[Parameter], float], Optimizer] = SGD
    lr: float = 0.1
    batch_size: int = 20
    augmentation: Any = None  # a transform of a DataLoader

    init: Initializer = he_uniform
    hidden_layer: Callable[..., Module] = Linear  # after the first
    output_layer: Callable[..., Module] = Linear
    dropout_layer: Callable[..., Module] = Dropout
    wrap_loss: Callable[[Loss], Loss] = unchanged
    step: Callable[[Module, Loss, Optimizer, Any, Any], float] = step
    data: Callable[[FloatArray, FloatArray, np.random.Generator], Data] = paired
    evaluate: Callable[[Module, Data, Data], float] = on_test_images

    def build(self) -> tuple[Sequential, Loss, Optimizer]:
        """Return a new model, its loss and its optimizer: the same each time."""
        model = Sequential(*self._layers(np.random.default_rng(1)))
        return model, self.wrap_loss(self.loss()), self.optimizer(model.parameters(), self.lr)

    def batches(self, x: FloatArray, t: FloatArray, rng: np.random.Generator) -> DataLoader:
        """Return the batches of one epoch."""
        data, transform = self.data(x, t, rng), self.augmentation
        return DataLoader(*data, self.batch_size, shuffle=True, rng=rng, transform=transform)

    def small(self) -> "Setup":
        """Return the same training of a small network, which the gradient check takes."""
        return replace(self, layers=self.layers.small())

    def _layers(self, rng: np.random.Generator) -> Iterator[Module]:
        drawn: Any = {"init": self.init, "rng": rng}
        widths, (channels, side) = self.layers.widths, (1, self.layers.side)
        for filters in self.layers.channels:
            yield Conv2d(channels, filters, 5, **drawn)
            yield self.activation()
            yield MaxPool2d()
            channels, side = filters, (side - 4) // 2
        yield Flatten()
        sizes = [side * side * channels, *widths]
        for i, (width, hidden) in enumerate(pairwise(sizes)):
            yield (self.hidden_layer if i else Linear)(width, hidden, **drawn)
            yield self.activation()
            if self.dropout:
                yield self.dropout_layer(self.dropout, rng=rng)
        yield self.output_layer(sizes[-1], 10, **drawn)


_MEANING: dict[str, dict[Any, Any]] = {  # of each choice on the page; the first is the default
    "layers": {
        "784-100-10": Layers((100,)),
        "784-100-100-10": Layers((100, 100)),
        "784-30-10": Layers((30,)),
        "conv 8, 64-10": Layers((64,), channels=(8,)),
    },
    "activation": {kind.__name__: kind for kind in (ReLU, Tanh, Sigmoid, SiLU, GELU)},
    "dropout": {p: p for p in (0, 0.2, 0.5)},
    "loss": {"CrossEntropyLoss": CrossEntropyLoss, "MSELoss": partial(MSELoss, "batchmean")},
    "optimizer": {"SGD": SGD, "momentum": partial(SGD, momentum=0.9), "Adam": Adam},
    "lr": {lr: lr for lr in (0.1, 0.03, 0.01, 0.003, 0.001)},
    "batch_size": {size: size for size in (20, 5, 100)},
    "augmentation": {
        "none": None,
        "shift 1": random_shift(1),
        "affine": random_affine(rotation=12, scale=0.1, shift=1.5),
    },
}
CHOICES = {name: tuple(meaning) for name, meaning in _MEANING.items()}


def setup_of(choices: dict[str, Any]) -> Setup:
    """Return the training that these choices mean; what is not chosen is the default."""
    chosen = {name: first for name, (first, *_) in CHOICES.items()} | choices
    return Setup(**{name: _MEANING[name][value] for name, value in chosen.items()})
