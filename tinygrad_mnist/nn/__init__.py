"""Layers, by family: activations, linear, dropout, images, norm; Sequential and branches."""

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
from tinygrad_mnist.nn.conv import Conv2d
from tinygrad_mnist.nn.dropout import Dropout
from tinygrad_mnist.nn.linear import Linear
from tinygrad_mnist.nn.norm import BatchNorm, LayerNorm
from tinygrad_mnist.nn.pool import AvgPool2d, MaxPool2d
from tinygrad_mnist.nn.sequential import Sequential
from tinygrad_mnist.nn.shape import Flatten, Unflatten

__all__ = [
    "GELU",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "Dropout",
    "Elementwise",
    "Flatten",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Parallel",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Unflatten",
]
