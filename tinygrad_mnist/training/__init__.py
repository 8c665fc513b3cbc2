"""Around the training loop: fit and evaluate, callbacks, what they measure, and checkpoints."""

from tinygrad_mnist.training.callbacks import (
    BestCheckpoint,
    Callback,
    EarlyStopping,
    LearningRate,
    Run,
)
from tinygrad_mnist.training.history import History
from tinygrad_mnist.training.loop import evaluate, fit

__all__ = [
    "BestCheckpoint",
    "Callback",
    "EarlyStopping",
    "History",
    "LearningRate",
    "Run",
    "evaluate",
    "fit",
]
