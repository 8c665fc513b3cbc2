"""The layers, one to a file."""

from tinygrad_mnist.nn.dropout import Dropout
from tinygrad_mnist.nn.linear import Linear
from tinygrad_mnist.nn.relu import ReLU
from tinygrad_mnist.nn.sequential import Sequential

__all__ = ["Dropout", "Linear", "ReLU", "Sequential"]
