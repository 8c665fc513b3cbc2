"""Layers, by family: activations, linear, dropout, and the chain of them, Sequential."""

from tinygrad_mnist.nn.activations import Elementwise, ReLU
from tinygrad_mnist.nn.dropout import Dropout
from tinygrad_mnist.nn.linear import Linear
from tinygrad_mnist.nn.sequential import Sequential

__all__ = ["Dropout", "Elementwise", "Linear", "ReLU", "Sequential"]
