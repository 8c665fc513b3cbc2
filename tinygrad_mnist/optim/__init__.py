"""Optimizers, and learning rates that change: what all do, SGD, Adam, groups, schedules."""

from tinygrad_mnist.optim.adam import Adam, AdamW
from tinygrad_mnist.optim.clipping import clip_grad_norm
from tinygrad_mnist.optim.groups import Groups
from tinygrad_mnist.optim.optimizer import Optimizer
from tinygrad_mnist.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Groups", "Optimizer", "clip_grad_norm"]
