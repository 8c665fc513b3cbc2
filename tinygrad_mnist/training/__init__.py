"""Around the training loop: fit, evaluate, predict, find_learning_rate; callbacks, checkpoints."""

from tinygrad_mnist.training.callbacks import (
    BestCheckpoint,
    Callback,
    ClipGradients,
    CSVLog,
    EarlyStopping,
    LearningRate,
    Run,
)
from tinygrad_mnist.training.history import History
from tinygrad_mnist.training.learning_rate_finder import LearningRateCurve, find_learning_rate
from tinygrad_mnist.training.loop import evaluate, fit
from tinygrad_mnist.training.prediction import predict

__all__ = [
    "BestCheckpoint",
    "CSVLog",
    "Callback",
    "ClipGradients",
    "EarlyStopping",
    "History",
    "LearningRate",
    "LearningRateCurve",
    "Run",
    "evaluate",
    "find_learning_rate",
    "fit",
    "predict",
]
