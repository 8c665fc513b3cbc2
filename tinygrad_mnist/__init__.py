"""tinygrad_mnist: an object-oriented mini deep-learning framework on NumPy and SciPy's BLAS.

Not part of tinygrad, the project by tiny corp.

Everywhere, a number outside its interval and an array of a shape that does not fit is a ValueError,
a value of another type a TypeError, and nothing has changed then. "Raises" in a docstring names
what is special beyond that.
"""

from tinygrad_mnist._summary import summary
from tinygrad_mnist._threads import num_threads
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.losses import BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, MSELoss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Conv2d,
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
from tinygrad_mnist.optim import SGD, Adam, AdamW
from tinygrad_mnist.parameter import Buffer, Parameter

__version__ = "0.2.0"

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm",
    "Buffer",
    "Conv2d",
    "CrossEntropyLoss",
    "DataLoader",
    "Dropout",
    "Flatten",
    "HuberLoss",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "Parallel",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Unflatten",
    "num_threads",
    "summary",
]
