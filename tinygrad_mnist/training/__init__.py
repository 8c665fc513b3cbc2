"""Around the training loop: fit, evaluate, predict; callbacks, histories, and checkpoints."""

from tinygrad_mnist.training.callbacks import (
    BestCheckpoint,
    Callback,
    EarlyStopping,
    LearningRate,
    Run,
)
from tinygrad_mnist.training.history import History
from tinygrad_mnist.training.loop import evaluate, fit
from tinygrad_mnist.training.prediction import predict

__all__ = [
    "BestCheckpoint",
    "Callback",
    "EarlyStopping",
    "History",
    "LearningRate",
    "Run",
    "evaluate",
    "fit",
    "predict",
]
