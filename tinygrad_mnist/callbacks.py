"""What `fit` calls between epochs: stop early, keep the best model, or what you write yourself."""

import math
import os
from dataclasses import dataclass
from typing import Any, Literal

from tinygrad_mnist import checkpoint
from tinygrad_mnist._checks import choice, integer
from tinygrad_mnist.history import History
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer

Mode = Literal["min", "max"]


@dataclass
class Run:
    """A fit in progress, as callbacks see it."""

    model: Module
    optimizer: Optimizer
    history: History
    epochs: int  # how many there are to be
    epoch: int = 0  # the one in progress, from 1
    stopped: bool = False

    def stop(self) -> None:
        """End the training: no further epoch begins."""
        self.stopped = True


class Callback:
    """Override one or both. What is decided from `run` alone survives a resume.

    A run resumed within an epoch does not call before_epoch for it again.
    """

    def before_epoch(self, run: Run) -> None:
        """Act before epoch `run.epoch`; after `run.stop()` it does not begin."""

    def after_epoch(self, run: Run) -> None:
        """Act after its record was added to `run.history`, before a checkpoint is written."""


class EarlyStopping(Callback):
    """Stop when a figure of the history has not improved for `patience` epochs.

    Args:
        monitor: Its name in the records.
        mode: "min" if less is better, "max" if more is; for a loss it need not be said.
        patience: How many epochs without a new best are allowed, at least 1.

    Raises:
        ValueError: Another mode, or patience below 1; in `fit`, a figure that no record has.
    """

    def __init__(
        self, monitor: str = "val_loss", mode: Mode | None = None, *, patience: int = 5
    ) -> None:
        self.monitor, self.mode = monitor, _checked_mode(self, monitor, mode)
        self.patience = integer(self, "patience", patience, at_least=1)

    def before_epoch(self, run: Run) -> None:
        if _epochs_since_best(run.history, self.monitor, self.mode) >= self.patience:
            run.stop()


class BestCheckpoint(Callback):
    """Save the model whenever a figure of the history is better than ever before.

    Args:
        path: The file; see `checkpoint.save`.
        monitor: Its name in the records.
        mode: "min" if less is better, "max" if more is; for a loss it need not be said.
        meta: Saved with it, beside "epoch".

    Raises:
        ValueError: Another mode; in `fit`, a figure that no record has.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        mode: Mode | None = None,
        **meta: Any,
    ) -> None:
        self.path, self.meta = path, meta
        self.monitor, self.mode = monitor, _checked_mode(self, monitor, mode)

    def after_epoch(self, run: Run) -> None:
        if not _epochs_since_best(run.history, self.monitor, self.mode):
            meta = {**self.meta, "epoch": run.epoch}
            checkpoint.save(self.path, run.model, history=run.history, **meta)


def _checked_mode(owner: object, monitor: str, mode: Mode | None) -> Mode:
    if mode is None and str(monitor).endswith("loss"):
        return "min"
    choices: tuple[Mode, Mode] = ("min", "max")
    return choice(owner, f"mode for {monitor!r}", mode, choices)


def _epochs_since_best(history: History, monitor: str, mode: Mode) -> int:
    """Return how many epochs ago the first best record was; NaN is worse than anything."""
    sign = 1 if mode == "min" else -1
    values = [math.inf if math.isnan(v) else sign * v for v in history.column(monitor)]
    return len(values) - 1 - values.index(min(values)) if values else 0
