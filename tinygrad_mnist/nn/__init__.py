"""Layers, by family: activations, linear, dropout, and the containers that chain them."""

from tinygrad_mnist.nn.activations import Elementwise, ReLU
from tinygrad_mnist.nn.containers import Sequential
from tinygrad_mnist.nn.dropout import Dropout
from tinygrad_mnist.nn.linear import Linear

__all__ = ["Dropout", "Elementwise", "Linear", "ReLU", "Sequential"]
