"""The training loop with everything around it: `fit`, `evaluate`, and the History they fill.

The loop itself is five lines, and the examples write them out. `fit` is those five lines with
modes, averages, a progress bar, callbacks, checkpoints, and a stop when the loss is no number.
"""

import math
import numbers
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tinygrad_mnist import checkpoint as checkpoints
from tinygrad_mnist import metrics as metric_functions
from tinygrad_mnist._checks import described, expected, flag, integer, refusing
from tinygrad_mnist._generators import check_state
from tinygrad_mnist.callbacks import Callback, Run
from tinygrad_mnist.checkpoint import CheckpointError
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
    *,
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
        metrics: "accuracy" or "top_k_accuracy" (k = 5), or functions of (pred, target) that
            return one number for a batch.

    Returns:
        "loss", and each metric by its name.

    Raises:
        ValueError: There is no sample, or no such metric.
        TypeError: A metric is neither a name nor a function with one.
    """
    averages = _Averages(loss, _by_name("evaluate", metrics))
    with _modes_kept(model):
        model.eval()
        for x, t in loader:
            y = model(x)
            averages.add(loss(y, t), y, t, _samples_in(loader, x))
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
        resume: Go on from that file, bit for bit, with the rate that it holds; start anew if it
            is not there. Without resume, a file that is there is replaced.

    Raises:
        FloatingPointError: The loss or a parameter became NaN or infinite. The parameters and the
            optimizer are set back to the start of the epoch, or to where it was resumed.
        CheckpointError: With resume, the file is damaged, or of another model, optimizer or
            loader, or of other metrics. Nothing has changed then.
        ValueError: A number outside its interval, no such metric, no sample in an epoch, or the
            file stands within an epoch after the last.
        TypeError: An argument of the wrong type.
    """
    functions = _by_name("fit", metrics)
    shown = flag("fit", "progress", progress) and sys.stderr is not None
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(expected("fit", "callbacks to be Callbacks", described(callback)))
    run = Run(model, optimizer, History(), integer("fit", "epochs", epochs, at_least=1))
    saver = _Saver(run, train_loader, checkpoint, checkpoint_every)
    if flag("fit", "resume", resume):
        saver.load(list(functions))
    with _modes_kept(model):
        for epoch in range(len(run.history.records) + 1, run.epochs + 1):
            run.epoch = epoch
            for callback in callbacks:
                if not (run.stopped or saver.within_epoch):
                    callback.before_epoch(run)
            if run.stopped:
                break
            with _set_back_unless_finite(run), _bar(run, train_loader, shown) as bar:
                figures = _train(run, loss, train_loader, _Averages(loss, functions), saver, bar)
                if validation is not None:
                    measured = evaluate(model, loss, validation, metrics=metrics)
                    _refuse_unless_finite(measured["loss"], f"in the validation of epoch {epoch}")
                    figures |= {f"val_{name}": value for name, value in measured.items()}
                bar.set_postfix(figures)
            run.history.records.append({"epoch": epoch, "lr": optimizer.lr, **figures})
            for callback in callbacks:
                callback.after_epoch(run)
            saver.save()
    return run.history


class _Averages:
    """The loss and the metrics over samples, as they would be on all of them at once."""

    def __init__(self, loss: Loss, metrics: Mapping[str, Metric]) -> None:
        self.totals, self.samples = dict.fromkeys(["loss", *metrics], 0.0), 0
        self.batches = 0
        self._metrics, self._summed = metrics, getattr(loss, "reduction", None) == "sum"

    def add(self, value: float, y: Any, t: Any, samples: int) -> None:
        self.batches += 1
        self.samples += samples
        self.totals["loss"] += float(value) if self._summed else float(value) * samples
        for name, metric in self._metrics.items():
            number = metric(y, t)
            if not isinstance(number, numbers.Real):
                raise TypeError(expected(name, "a metric to be one number", described(number)))
            self.totals[name] += float(number) * samples

    def result(self, owner: str) -> dict[str, float]:
        if not self.samples:
            raise ValueError(expected(owner, "a loader with at least one sample", "none"))
        figures = {name: total / self.samples for name, total in self.totals.items()}
        return figures | {"loss": self.totals["loss"]} if self._summed else figures


def _train(
    run: Run, loss: Loss, loader: Pairs, averages: _Averages, saver: "_Saver", bar: Any
) -> dict[str, float]:
    """Train for an epoch, or for the rest of one that was begun; return its averages."""
    model, optimizer = run.model, run.optimizer
    pairs = saver.begin(averages)
    bar.update(averages.batches)
    model.train()
    for x, t in pairs:
        y = model(x)
        value = loss(y, t)
        _refuse_unless_finite(value, f"in batch {averages.batches + 1} of epoch {run.epoch}")
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        averages.add(value, y, t, _samples_in(loader, x))
        saver.batch_done(averages)
        bar.update()
        if averages.batches % _FIGURES_EVERY == 0:
            bar.set_postfix(averages.result("fit"), refresh=False)
    return averages.result("fit")


class _Saver:
    """The checkpoints of a fit: one after every epoch, and one after every so many batches."""

    def __init__(
        self, run: Run, loader: Any, path: str | os.PathLike[str] | None, every: int | None
    ) -> None:
        if path is not None and not isinstance(loader, DataLoader):
            contract = "a DataLoader to write checkpoints of"
            raise TypeError(expected("fit", contract, described(loader)))
        if every is not None and path is None:
            contract = "checkpoint, the file, with checkpoint_every"
            raise ValueError(expected("fit", contract, described(path)))
        if every is not None:
            every = integer("fit", "checkpoint_every", every, at_least=1)
        if path is not None and (Path(path).is_dir() or not Path(path).parent.is_dir()):
            contract = "checkpoint to be a file, in a folder that is there"
            raise ValueError(expected("fit", contract, repr(str(path))))
        self._path, self._every, self._run, self._loader = path, every, run, loader
        self._objects = run.model, run.optimizer, loader, run.history
        self._begun: dict[str, Any] | None = None  # the epoch within which the file was written
        self._start: Any = None  # state of the loader's generator before it drew its order

    @property
    def within_epoch(self) -> bool:
        """Whether the epoch in progress was begun before the file was written."""
        return self._begun is not None

    def load(self, metrics: list[str]) -> None:
        """Go back to the checkpoint, if there is one."""
        if self._path is None:
            raise ValueError(expected("fit", "checkpoint, the file, with resume", "None"))
        if not Path(self._path).exists():
            return
        meta = checkpoints.load(self._path)
        position = meta.get("position")
        if position is not None:
            self._check(position, metrics)
            if meta["epoch"] > self._run.epochs:
                contract = f"epochs >= {meta['epoch']}, which {self._path} has begun"
                raise ValueError(expected("fit", contract, self._run.epochs))
        checkpoints.load(self._path, *self._objects)
        self._begun, self._run.stopped = position, bool(meta.get("stopped", False))

    def _check(self, position: Any, metrics: list[str]) -> None:
        """Refuse a position that this fit cannot go on from, before anything has changed."""
        contract = f"{self._path} to say where in an epoch it was written"
        with refusing("fit", contract, CheckpointError):
            check_state(self._loader.rng.bit_generator.state, position["start"])
            found = list(position["totals"])
            for number in (position["batches"], position["samples"], *position["totals"].values()):
                float(number)
        if found != ["loss", *metrics]:
            contract = f"the metrics of {self._path}, {found[1:]}, within an epoch"
            raise CheckpointError(expected("fit", contract, metrics))

    def begin(self, averages: _Averages) -> Iterator[tuple[Any, Any]]:
        """Start an epoch and return its pairs, or those that are left of the one begun."""
        if self._path is None:
            return iter(self._loader)
        generator = self._loader.rng.bit_generator
        now, begun, self._begun = generator.state, self._begun, None
        if begun is None:
            self._start = now
            return iter(self._loader)
        self._start = generator.state = begun.pop("start")  # so that it draws the same order
        vars(averages).update(begun)
        pairs: Iterator[tuple[Any, Any]] = iter(self._loader)
        for _ in islice(pairs, averages.batches):
            pass
        generator.state = now
        return pairs

    def batch_done(self, averages: _Averages) -> None:
        if self._every and averages.batches % self._every == 0:
            names = ("batches", "samples", "totals")
            self.save({"start": self._start} | {name: getattr(averages, name) for name in names})

    def save(self, position: dict[str, Any] | None = None) -> None:
        """Write the file, unless a parameter is NaN or infinite: the last good one stays."""
        if self._path is not None and _finite(self._run.model):
            run = self._run
            progress: Any = {"epoch": run.epoch, "stopped": run.stopped, "position": position}
            checkpoints.save(self._path, *self._objects, **progress)


@contextmanager
def _set_back_unless_finite(run: Run) -> Iterator[None]:
    """Undo what was trained when the loss or a parameter is NaN or infinite."""
    before = [(p, p.data.copy()) for p in run.model.parameters() if p.data.flags.writeable]
    settings = run.optimizer.state_dict()
    try:
        yield
        if not _finite(run.model):
            found = f"NaN or infinity after the last batch of epoch {run.epoch}"
            raise FloatingPointError(expected("fit", "finite parameters", found))
    except FloatingPointError as error:
        for parameter, data in before:
            parameter.data = data
        run.optimizer.load_state_dict(settings)
        error.add_note(
            "Parameters and optimizer are as before this epoch, or as resumed within it."
        )
        raise


def _refuse_unless_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(expected("fit", "a finite loss", f"{loss} {where}"))


def _finite(model: Module) -> bool:
    return all(bool(np.isfinite(p.data).all()) for p in model.parameters())


def _samples_in(loader: Pairs, x: Any) -> int:
    """Return how many samples x is: a loader may yield bare ones."""
    return 1 if isinstance(loader, DataLoader) and loader.batch_size is None else len(x)


def _by_name(owner: str, metrics: Sequence[str | Metric]) -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for metric in metrics:
        name: Any = metric if isinstance(metric, str) else getattr(metric, "__name__", None)
        function: Any = _NAMED.get(metric) if isinstance(metric, str) else metric
        contract = f"metrics of {' or '.join(_NAMED)}, or functions with names of their own"
        if name is None:
            raise TypeError(expected(owner, contract, described(metric)))
        if not callable(function) or name in (*_OWN_COLUMNS, *found):
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


def _bar(run: Run, loader: Pairs, shown: bool) -> Any:
    total = len(loader) if isinstance(loader, Sized) else None
    disable = None if shown else True  # None: unless it is a terminal
    return tqdm(total=total, desc=f"epoch {run.epoch}/{run.epochs}", unit="batch", disable=disable)
