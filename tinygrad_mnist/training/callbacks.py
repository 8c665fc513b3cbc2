"""What `fit` calls on its way: set the rate, stop early, keep the best model, or your own."""

import math
import os
from dataclasses import dataclass
from typing import Any, Literal

from tinygrad_mnist import _checks as check
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.optim.schedules import Schedule
from tinygrad_mnist.training import checkpoint
from tinygrad_mnist.training.history import History

Mode = Literal["min", "max"]


@dataclass
class Run:
    """A fit in progress, as callbacks see it."""

    model: Module
    optimizer: Optimizer
    history: History
    epochs: int  # how many there are to be
    epoch: int = 0  # the one in progress, from 1
    step: int = 0  # how many steps the optimizer has made
    stopped: bool = False

    def stop(self) -> None:
        """End the training: no further epoch begins."""
        self.stopped = True


class Callback:
    """Override what you need. Keep no state of your own: after a resume only `run` is restored.

    A run resumed within an epoch does not call before_epoch for it again.
    """

    def before_epoch(self, run: Run) -> None:
        """Act before epoch `run.epoch`; after `run.stop()` it does not begin."""

    def before_step(self, run: Run) -> None:
        """Act before each batch."""

    def after_epoch(self, run: Run) -> None:
        """Act after its record was added to `run.history`, before a checkpoint is written."""


class LearningRate(Callback):
    """Set the optimizer's rate to schedule(t).

    Args:
        schedule: A function of time t, counted from 0; see `optim.schedules`.
        per: What t counts: "epoch" or "step".
    """

    per = check.Choice("epoch", "step")

    def __init__(self, schedule: Schedule, per: Literal["epoch", "step"] = "epoch") -> None:
        if not callable(schedule):
            raise check.type_error(self, "schedule to be a function of time", schedule)
        self.schedule, self.per = schedule, per

    def before_epoch(self, run: Run) -> None:
        if self.per == "epoch":
            run.optimizer.lr = self.schedule(run.epoch - 1)

    def before_step(self, run: Run) -> None:
        if self.per == "step":
            run.optimizer.lr = self.schedule(run.step)


class EarlyStopping(Callback):
    """Stop when a number in the history has not improved for `patience` epochs.

    Args:
        monitor: Its name in the records.
        mode: "min" if less is better, "max" if more is; may be left out for a loss.
        patience: How many epochs without a new best are allowed, at least 1.

    Raises:
        ValueError: Another mode, or patience below 1; in `fit`, a name that no record has.
    """

    mode = check.Choice("min", "max")
    patience = check.Integer(at_least=1)

    def __init__(
        self, monitor: str = "val_loss", mode: Mode | None = None, *, patience: int = 5
    ) -> None:
        self.monitor, self.mode, self.patience = monitor, _mode_of(monitor, mode), patience

    def before_epoch(self, run: Run) -> None:
        if _epochs_since_best(run.history, self.monitor, self.mode) >= self.patience:
            run.stop()


class BestCheckpoint(Callback):
    """Save the model whenever a number in the history is better than ever before.

    Args:
        path: The file; see `checkpoint.save`.
        monitor: Its name in the records.
        mode: "min" if less is better, "max" if more is; may be left out for a loss.
        meta: Saved with it, beside "epoch".

    Raises:
        ValueError: Another mode; in `fit`, a name that no record has.
    """

    mode = check.Choice("min", "max")

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        mode: Mode | None = None,
        **meta: Any,
    ) -> None:
        self.path, self.monitor, self.mode = path, monitor, _mode_of(monitor, mode)
        self.meta = meta

    def after_epoch(self, run: Run) -> None:
        if not _epochs_since_best(run.history, self.monitor, self.mode):
            meta = {**self.meta, "epoch": run.epoch}
            checkpoint.save(self.path, run.model, history=run.history, **meta)


def _mode_of(monitor: str, mode: Mode | None) -> Any:
    return "min" if mode is None and str(monitor).endswith("loss") else mode


def _epochs_since_best(history: History, monitor: str, mode: str) -> int:
    """Return how many epochs ago the first best record was; NaN is worse than anything."""
    sign = 1 if mode == "min" else -1
    values = [math.inf if math.isnan(v) else sign * v for v in history.column(monitor)]
    return len(values) - 1 - values.index(min(values)) if values else 0
