"""tinygrad_mnist: an object-oriented mini deep-learning framework on NumPy and SciPy's BLAS.

Not part of tinygrad, the project by tiny corp.
"""

from tinygrad_mnist._blas import num_threads
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.losses import MSELoss
from tinygrad_mnist.module import Module, Parameter
from tinygrad_mnist.nn import Dropout, Linear, ReLU, Sequential
from tinygrad_mnist.optim import SGD

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "DataLoader",
    "Dropout",
    "Linear",
    "MSELoss",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "num_threads",
]
