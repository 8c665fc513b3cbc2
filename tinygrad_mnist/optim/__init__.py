"""Optimizers, and learning rates that change: what all optimizers do, SGD, schedules."""

from tinygrad_mnist.optim.optimizer import Optimizer
from tinygrad_mnist.optim.sgd import SGD

__all__ = ["SGD", "Optimizer"]
