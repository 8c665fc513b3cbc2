"""Optimizers, and learning rates that change: what all optimizers do, SGD, Adam, schedules."""

from tinygrad_mnist.optim.adam import Adam, AdamW
from tinygrad_mnist.optim.clipping import clip_grad_norm
from tinygrad_mnist.optim.optimizer import Optimizer
from tinygrad_mnist.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "clip_grad_norm"]
