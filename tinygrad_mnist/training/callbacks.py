"""What `fit` calls on its way: set the rate, clip, stop early, keep the best, or your own."""

import math
import os
from dataclasses import dataclass, field
from typing import Any, Literal

from tinygrad_mnist import _checks as check
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer, clip_grad_norm
from tinygrad_mnist.optim.schedules import Schedule
from tinygrad_mnist.training import checkpoint
from tinygrad_mnist.training._files import checked_path
from tinygrad_mnist.training._kept import set_back
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
    loss: float = math.nan  # of the last batch
    stopped: bool = False
    columns: list[str] = field(default_factory=list)  # the names that each record will have
    state: dict[str, Any] = field(default_factory=dict)  # what callbacks keep, also in a checkpoint

    def stop(self) -> None:
        """End the training: no further epoch begins."""
        self.stopped = True


class Callback:
    """Override what you need. Keep no state in it: after a resume only `run` is restored.

    What must survive goes into the records of `run.history`, or into the dict `run.state`, under a
    name of the callback's own: numbers, strings, arrays, and lists and dicts of them. A run resumed
    within an epoch does not call before_epoch for it again.
    """

    def before_run(self, run: Run) -> None:
        """Refuse what cannot work, before anything changes. `run.columns` names what is recorded.

        A callback that adds a number to the records adds its name there.
        """

    def before_epoch(self, run: Run) -> None:
        """Act before epoch `run.epoch`; after `run.stop()` it does not begin."""

    def before_step(self, run: Run) -> None:
        """Act before each batch."""

    def after_backward(self, run: Run) -> None:
        """Act when the gradients of a batch are there, before the optimizer's step."""

    def after_step(self, run: Run) -> None:
        """Act after the step, which `run.step` counts by now; `run.loss` is from before it."""

    def after_epoch(self, run: Run) -> None:
        """Act after its record was added to `run.history`, before a checkpoint is written."""

    def after_run(self, run: Run) -> None:
        """Act when no further epoch begins, after the last checkpoint; not after an error."""


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


class ClipGradients(Callback):
    """Call `optim.clip_grad_norm` on the optimizer's parameters before each step.

    Args:
        max_norm: How long all gradients, as one vector, may be: finite and >= 0.
    """

    max_norm = check.Real("[0, inf)")

    def __init__(self, max_norm: float) -> None:
        self.max_norm = max_norm

    def after_backward(self, run: Run) -> None:
        clip_grad_norm(run.optimizer.params, self.max_norm)


class CSVLog(Callback):
    """Write the history as a CSV file after each epoch, whole at any moment; see `History.to_csv`.

    A resumed run goes on with it; another run replaces it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    def before_run(self, run: Run) -> None:
        checked_path(self, "path", self.path)

    def after_epoch(self, run: Run) -> None:
        run.history.to_csv(self.path)


class _Monitoring(Callback):
    """Watches a number of the history: mode "min" if less is better, "max" if more is."""

    mode = check.Choice("min", "max")

    def __init__(self, monitor: str, mode: Mode | None) -> None:
        if not isinstance(monitor, str):
            raise check.type_error(self, "monitor to be a string", monitor)
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
        restore_best: When the run ends, also with its last epoch, set parameters and buffers back
            to those after the best epoch of this `fit`, or of all that it was resumed from. After
            an error or Ctrl-C they stay as they are then.
    """

    patience = check.Integer(at_least=1)
    restore_best = check.Flag()

    def __init__(
        self,
        monitor: str = "val_loss",
        mode: Mode | None = None,
        *,
        patience: int = 5,
        restore_best: bool = False,
    ) -> None:
        super().__init__(monitor, mode)
        self.patience, self.restore_best = patience, restore_best

    def before_epoch(self, run: Run) -> None:
        if self.epochs_since_best(run) >= self.patience:
            run.stop()

    def after_epoch(self, run: Run) -> None:
        if self.restore_best:
            record, kept = run.history.records[-1], run.state.get(self._name)
            records = History([kept["record"], record] if kept else [record])
            if records.best(self.monitor, self.mode) is record:
                run.state[self._name] = {"record": record, "arrays": run.model.state_dict()}

    def after_run(self, run: Run) -> None:
        if self.restore_best and self._name in run.state:
            set_back(run.model, run.state[self._name]["arrays"])

    @property
    def _name(self) -> str:
        """Of what it keeps in `run.state`."""
        return f"the best by {self.monitor}"


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
        checked_path(self, "path", self.path)

    def after_epoch(self, run: Run) -> None:
        if not self.epochs_since_best(run):
            meta = {**self.meta, "epoch": run.epoch}
            checkpoint.save(self.path, run.model, history=run.history, **meta)
