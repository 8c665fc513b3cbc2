"""The training loop with everything around it: `fit`, `evaluate`, and the History they fill.

The loop itself is five lines, and the examples write them out. `fit` is those five lines with
modes, averages, a progress bar, callbacks, checkpoints, and a stop when the loss is no number.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tinygrad_mnist import checkpoint as checkpoints
from tinygrad_mnist import metrics as metric_functions
from tinygrad_mnist._checks import described, expected, flag, integer
from tinygrad_mnist._generators import set_states, states, streams_in
from tinygrad_mnist.callbacks import Callback, Run
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.history import History
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer

__all__ = ["History", "evaluate", "fit"]

Metric = Callable[[Any, Any], float]
Pairs = Iterable[tuple[Any, Any]]

_NAMED: dict[str, Metric] = {
    "accuracy": metric_functions.accuracy,
    "top_k_accuracy": metric_functions.top_k_accuracy,
}
_OWN_COLUMNS = ("epoch", "lr", "loss")
_FIGURES_EVERY = 50  # batches: to write the figures beside the bar takes some 20 us


def evaluate(
    model: Module,
    loss: Loss,
    loader: Pairs,
    metrics: Sequence[str | Metric] = ("accuracy",),
) -> dict[str, float]:
    """Return the loss and the metrics over all of loader, in evaluation mode.

    The loss is what it would be on all samples at once, also with a short last batch; a metric is
    its mean over the samples. Every module is then in the mode it was in.

    Args:
        model: Any Module.
        loss: MSELoss, or whatever can be called like it. One whose `reduction` is "sum" is summed
            over the batches.
        loader: A DataLoader, or any iterable of pairs of batches.
        metrics: "accuracy" or "top_k_accuracy" (k = 5), or functions of (pred, target).

    Returns:
        "loss", and each metric by its name.

    Raises:
        ValueError: There is no sample, or no such metric.
        TypeError: A metric is no function with a name.
    """
    averages = _Averages(loss, _by_name("evaluate", metrics))
    with _modes_kept(model):
        model.eval()
        for x, t in loader:
            y = model(x)
            averages.add(loss(y, t), y, t, _rows(loader, x))
    return averages.result("evaluate")


def fit(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    train_loader: Pairs,
    *,
    epochs: int,
    validation: Pairs | None = None,
    metrics: Sequence[str | Metric] = ("accuracy",),
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
) -> History:
    """Train for a number of epochs, and return what was measured in each.

    The figures of an epoch are those of the passes that trained, dropout included; those named
    `val_...` are of `evaluate` after it. Every module is then in the mode it was in, also after an
    error or Ctrl-C.

    Args:
        model: Any Module.
        loss: MSELoss, or whatever can be called like it; see `evaluate`.
        optimizer: SGD over the model's parameters, or whatever has its methods.
        train_loader: A DataLoader, or any iterable of pairs that can be iterated over anew.
        epochs: How many in all, also with resume.
        validation: The same for data that is not trained on; unshuffled, for repeatable figures.
        metrics: As for `evaluate`.
        callbacks: Called in order before and after each epoch: schedules, EarlyStopping,
            BestCheckpoint, or your own.
        progress: Show a bar for each epoch; there is none where stderr is no terminal.
        checkpoint: A file to write after each epoch; see `tinygrad_mnist.checkpoint`.
        checkpoint_every: Write it every so many batches, too.
        resume: Go on from that file, bit for bit, if it is there.

    Raises:
        FloatingPointError: The loss or a parameter became NaN or infinite. The parameters and the
            optimizer are those after the last good epoch.
        CheckpointError: With resume, the file is damaged, or of another model, optimizer or loader.
        ValueError: A number outside its interval, no such metric, or no sample in an epoch.
        TypeError: An argument of the wrong type.
    """
    run = Run(model, optimizer, History(), integer("fit", "epochs", epochs, at_least=1))
    saver = _Saver(run, train_loader, checkpoint, checkpoint_every)
    hidden = None if flag("fit", "progress", progress) else True  # None: unless it is a terminal
    begun = saver.load() if flag("fit", "resume", resume) else None
    trainer = _Trainer(run, loss, train_loader, _by_name("fit", metrics), saver)
    with _modes_kept(model):
        for epoch in range(len(run.history.records) + 1, run.epochs + 1):
            run.epoch = epoch
            for callback in callbacks:
                callback.before_epoch(run)
            if run.stopped:
                break
            with _bar(run, train_loader, hidden) as bar:
                record = {"epoch": epoch, "lr": optimizer.lr, **trainer.train(bar, begun)}
                if validation is not None:
                    figures = evaluate(model, loss, validation, metrics)
                    trainer.refuse_unless_finite(figures["loss"], "in the validation")
                    record |= {f"val_{name}": value for name, value in figures.items()}
                bar.set_postfix({k: v for k, v in record.items() if k not in ("epoch", "lr")})
            trainer.keep_as_good()
            run.history.records.append(record)
            for callback in callbacks:
                callback.after_epoch(run)
            saver.save()
            begun = None
    return run.history


class _Averages:
    """The loss and the metrics over samples, as they would be on all of them at once."""

    def __init__(self, loss: Loss, metrics: Mapping[str, Metric]) -> None:
        self.totals, self.samples = dict.fromkeys(["loss", *metrics], 0.0), 0
        self._metrics, self._summed = metrics, getattr(loss, "reduction", None) == "sum"

    def add(self, value: float, y: Any, t: Any, samples: int) -> None:
        self.samples += samples
        self.totals["loss"] += value if self._summed else value * samples
        for name, metric in self._metrics.items():
            self.totals[name] += float(metric(y, t)) * samples

    def result(self, owner: str) -> dict[str, float]:
        if not self.samples:
            raise ValueError(expected(owner, "a loader with at least one sample", "none"))
        figures = {name: total / self.samples for name, total in self.totals.items()}
        return figures | {"loss": self.totals["loss"]} if self._summed else figures


class _Trainer:
    """Trains an epoch at a time, and goes back to the last good one rather than end in NaN."""

    def __init__(
        self, run: Run, loss: Loss, loader: Pairs, metrics: dict[str, Metric], saver: "_Saver"
    ) -> None:
        self._run, self._loss, self._loader = run, loss, loader
        self._metrics, self._saver = metrics, saver
        self._good_epoch = len(run.history.records)
        self._good = run.model.state_dict(), run.optimizer.state_dict()

    def train(self, bar: Any, begun: "_Position | None") -> dict[str, float]:
        """Train for an epoch, or for the rest of one that was begun; return its averages."""
        model, loss, optimizer = self._run.model, self._loss, self._run.optimizer
        averages, pairs = _Averages(loss, self._metrics), self._saver.begin(begun)
        done = 0
        if begun is not None:
            done, averages.totals, averages.samples = begun.batch, begun.totals, begun.samples
        model.train()
        bar.update(done)
        for batch, (x, t) in enumerate(pairs, done + 1):
            y = model(x)
            value = loss(y, t)
            self.refuse_unless_finite(value, f"in batch {batch}")
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
            averages.add(value, y, t, _rows(self._loader, x))
            self._saver.batch_done(batch, averages)
            bar.update()
            if batch % _FIGURES_EVERY == 0:
                bar.set_postfix(averages.result("fit"), refresh=False)
        return averages.result("fit")

    def keep_as_good(self) -> None:
        """Take the state after this epoch for the one to go back to."""
        if not _finite(self._run.model):
            self._refuse("finite parameters", "NaN or infinity after the last batch")
        self._good_epoch = self._run.epoch
        self._good = self._run.model.state_dict(), self._run.optimizer.state_dict()

    def refuse_unless_finite(self, value: float, where: str) -> None:
        if not math.isfinite(value):
            self._refuse("a finite loss", f"{value} {where}")

    def _refuse(self, contract: str, found: str) -> None:
        self._run.model.load_state_dict(self._good[0])
        self._run.optimizer.load_state_dict(self._good[1])
        kept = f"the parameters are again those after epoch {self._good_epoch}"
        found = f"{found} of epoch {self._run.epoch} ({kept})"
        raise FloatingPointError(expected("fit", contract, found))


@dataclass
class _Position:
    """Where within an epoch a checkpoint was written."""

    batch: int  # how many are done
    start: list[Any]  # states of the generators before the loader drew its order
    totals: dict[str, float]
    samples: int


class _Saver:
    """The checkpoints of a fit: one after every epoch, and one after every so many batches."""

    def __init__(
        self, run: Run, loader: Pairs, path: str | os.PathLike[str] | None, every: int | None
    ) -> None:
        if path is not None and not isinstance(loader, DataLoader):
            contract = "a DataLoader to write checkpoints of"
            raise TypeError(expected("fit", contract, described(loader)))
        if every is not None and path is None:
            contract = "checkpoint, the file, with checkpoint_every"
            raise ValueError(expected("fit", contract, described(path)))
        self._run, self._loader, self._path = run, loader, path
        self._every = None if every is None else integer("fit", "checkpoint_every", every, 1)
        self._start: list[Any] = []

    def begin(self, position: _Position | None) -> Iterator[tuple[Any, Any]]:
        """Start an epoch and return its pairs, or those that are left of one."""
        streams = list(streams_in([self._run.model, self._loader]))
        if position is None:
            self._start = states(streams)
            return iter(self._loader)
        now, self._start = states(streams), position.start
        set_states(streams, position.start)
        pairs = iter(self._loader)
        set_states(streams, now)
        return islice(pairs, position.batch, None)

    def batch_done(self, batch: int, averages: _Averages) -> None:
        if self._every is not None and batch % self._every == 0 and _finite(self._run.model):
            self.save(_Position(batch, self._start, averages.totals, averages.samples))

    def save(self, position: _Position | None = None) -> None:
        if self._path is None:
            return
        run, within = self._run, None if position is None else asdict(position)
        objects: Any = (run.model, run.optimizer, self._loader, run.history)
        checkpoints.save(self._path, *objects, epoch=run.epoch, position=within)

    def load(self) -> _Position | None:
        """Go back to the checkpoint, if there is one; return where within an epoch it was."""
        if self._path is None:
            raise ValueError(expected("fit", "checkpoint, the file, with resume", "None"))
        if not Path(self._path).exists():
            return None
        run = self._run
        objects: Any = (run.model, run.optimizer, self._loader, run.history)
        within = checkpoints.load(self._path, *objects).get("position")
        return None if within is None else _Position(**within)


def _finite(model: Module) -> bool:
    return all(bool(np.isfinite(p.data).all()) for p in model.parameters())


def _rows(loader: Pairs, x: Any) -> int:
    """Return how many samples x is: a loader may yield bare ones."""
    return 1 if getattr(loader, "batch_size", 1) is None else len(x)


def _by_name(owner: str, metrics: Sequence[str | Metric]) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for metric in metrics:
        name: Any = metric if isinstance(metric, str) else getattr(metric, "__name__", None)
        function: Any = _NAMED.get(metric) if isinstance(metric, str) else metric
        if not callable(function) or name is None or name in (*_OWN_COLUMNS, *found):
            contract = f"metrics of {' or '.join(_NAMED)}, or functions with names of their own"
            raise ValueError(expected(owner, contract, described(metric)))
        found[name] = function
    return found


@contextmanager
def _modes_kept(model: Module) -> Iterator[None]:
    """Set every module back to the mode that it was in."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _bar(run: Run, loader: Pairs, hidden: bool | None) -> Any:
    total = len(loader) if isinstance(loader, Sized) else None
    return tqdm(total=total, desc=f"epoch {run.epoch}/{run.epochs}", unit="batch", disable=hidden)
