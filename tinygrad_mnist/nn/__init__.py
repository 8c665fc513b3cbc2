"""Layers, by family: activations, linear, dropout, norm, and Sequential and branches of them."""

from tinygrad_mnist.nn.activations import (
    GELU,
    Elementwise,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from tinygrad_mnist.nn.branches import Parallel, Residual
from tinygrad_mnist.nn.dropout import Dropout
from tinygrad_mnist.nn.linear import Linear
from tinygrad_mnist.nn.norm import BatchNorm, LayerNorm
from tinygrad_mnist.nn.sequential import Sequential

__all__ = [
    "GELU",
    "BatchNorm",
    "Dropout",
    "Elementwise",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Parallel",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
