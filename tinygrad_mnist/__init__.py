"""tinygrad_mnist: an object-oriented mini deep-learning framework on NumPy and SciPy's BLAS.

Not part of tinygrad, the project by tiny corp.

Everywhere, a number outside its interval and an array of a shape that does not fit is a ValueError,
a value of another type a TypeError, and nothing has changed then. "Raises" in a docstring names
what is special beyond that.
"""

from tinygrad_mnist._threads import num_threads
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.losses import BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, MSELoss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import (
    GELU,
    BatchNorm,
    Dropout,
    LayerNorm,
    LeakyReLU,
    Linear,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from tinygrad_mnist.optim import SGD, Adam, AdamW
from tinygrad_mnist.parameter import Buffer, Parameter

__version__ = "0.1.0"

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "BCEWithLogitsLoss",
    "BatchNorm",
    "Buffer",
    "CrossEntropyLoss",
    "DataLoader",
    "Dropout",
    "HuberLoss",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MSELoss",
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
    "num_threads",
]
