"""What `fit` calls on its way: set the rate, stop early, keep the best model, or your own."""

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from tinygrad_mnist import _checks as check
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.optim.schedules import Schedule
from tinygrad_mnist.training import checkpoint
from tinygrad_mnist.training.history import History, Mode, mode_of


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
    columns: list[str] = field(default_factory=list)  # the names that each record will have

    def stop(self) -> None:
        """End the training: no further epoch begins."""
        self.stopped = True


class Callback:
    """Override what you need. Keep no state in it: after a resume only `run` is restored.

    A run resumed within an epoch does not call before_epoch for it again.
    """

    def before_run(self, run: Run) -> None:
        """Refuse what cannot work, before anything changes. `run.columns` names what is recorded.

        A callback that adds a number to the records adds its name there.
        """

    def before_epoch(self, run: Run) -> None:
        """Act before epoch `run.epoch`; after `run.stop()` it does not begin."""

    def before_step(self, run: Run) -> None:
        """Act before each batch."""

    def after_epoch(self, run: Run) -> None:
        """Act after its record was added to `run.history`, before a checkpoint is written."""


class LearningRate(Callback):
    """Set the optimizer's rate to schedule(t), where t counts each "epoch" or "step" from 0.

    See `optim.schedules`.
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


class _Monitoring(Callback):
    """Watches a number of the history: mode "min" if less is better, "max" if more is."""

    mode = check.Choice("min", "max")

    def __init__(self, monitor: str, mode: Mode | None) -> None:
        self.monitor, self.mode = monitor, mode or mode_of(monitor)

    def before_run(self, run: Run) -> None:
        if self.monitor not in run.columns:
            contract = f"monitor to be one of {', '.join(run.columns)}"
            raise check.value_error(self, contract, self.monitor)

    def epochs_since_best(self, run: Run) -> int:
        """Return how many epochs ago the first best record was."""
        records = run.history.records
        if not records:
            return 0
        best = run.history.best(self.monitor, self.mode)
        return next(i for i, record in enumerate(reversed(records)) if record is best)


class EarlyStopping(_Monitoring):
    """Stop when a number in the history has not improved for `patience` epochs.

    Args:
        monitor: Its name in the records; `fit` refuses another one before it trains.
        mode: "min" if less is better, "max" if more is; may be left out for a loss or an
            accuracy.
        patience: How many epochs without a new best are allowed, at least 1.
    """

    patience = check.Integer(at_least=1)

    def __init__(
        self, monitor: str = "val_loss", mode: Mode | None = None, *, patience: int = 5
    ) -> None:
        super().__init__(monitor, mode)
        self.patience = patience

    def before_epoch(self, run: Run) -> None:
        if self.epochs_since_best(run) >= self.patience:
            run.stop()


class BestCheckpoint(_Monitoring):
    """Save the model whenever a number in the history is better than ever before.

    monitor and mode are those of EarlyStopping; meta is saved beside "epoch" by `checkpoint.save`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        mode: Mode | None = None,
        **meta: Any,
    ) -> None:
        super().__init__(monitor, mode)
        self.path, self.meta = path, meta

    def before_run(self, run: Run) -> None:
        super().before_run(run)
        check.file_path(self, "path", self.path)

    def after_epoch(self, run: Run) -> None:
        if not self.epochs_since_best(run):
            meta = {**self.meta, "epoch": run.epoch}
            checkpoint.save(self.path, run.model, history=run.history, **meta)
