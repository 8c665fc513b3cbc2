"""The file of a run in progress, and how to go on from it, also within an epoch."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from tinygrad_mnist import _checks as check
from tinygrad_mnist._generators import check_state, kept, streams_in
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.module import Module
from tinygrad_mnist.training import checkpoint
from tinygrad_mnist.training._averages import Averages
from tinygrad_mnist.training._files import checked_path
from tinygrad_mnist.training.callbacks import Run
from tinygrad_mnist.training.checkpoint import CheckpointError
from tinygrad_mnist.training.history import checked_records, record_of_others

Position = Mapping[str, Any]  # where in an epoch a run is


def position(start: Any, averages: Averages, seconds: float) -> Position:
    """Return where an epoch is: what its order was drawn from, averages and seconds so far."""
    return {"start": start, **averages.state_dict(), "seconds": seconds}


def opened(
    loader: Any, resumed_at: Position | None, averages: Averages
) -> tuple[Any, Iterable[Any]]:
    """Return the generator's state before the epoch's order was drawn, and the pairs to train on.

    Those are all pairs or, of an epoch that is resumed, the rest in its order; the averages then
    get its sums so far.
    """
    if not isinstance(loader, DataLoader):
        return None, loader
    generator = loader.rng.bit_generator
    now = generator.state
    if resumed_at is None:
        return now, loader
    averages.load_state_dict(resumed_at)
    with kept(streams_in(loader)):  # a transform may have its own
        generator.state = resumed_at["start"]
        pairs: Iterator[Any] = iter(loader)
        for _ in islice(pairs, averages.batches):  # a loader may draw for each pair that it yields
            pass
    return resumed_at["start"], pairs


class RunFile:
    """The checkpoint of a run, if it has one: written after epochs, and every so many batches."""

    def __init__(
        self, run: Run, loader: Any, path: str | os.PathLike[str] | None, every: int | None
    ) -> None:
        if path is not None:
            if not isinstance(loader, DataLoader):
                raise check.type_error("fit", "a DataLoader to write checkpoints of", loader)
            checked_path("fit", "checkpoint", path)
        if every is not None:
            if path is None:
                raise check.value_error("fit", "checkpoint, the file, with checkpoint_every", path)
            every = check.integer("fit", "checkpoint_every", every, at_least=1)
        self.path, self.every, self._run, self._loader = path, every, run, loader
        self._objects = run.model, run.optimizer, loader, run.history

    def load(self, metrics: list[str]) -> Position | None:
        """Go back to the file, if it is there; return where in an epoch it was written."""
        if self.path is None:
            raise ValueError(check.expected("fit", "checkpoint, the file, with resume", "None"))
        try:
            content = checkpoint.read(self.path)
        except FileNotFoundError:
            return None
        resumed_at = self._position(content, metrics)
        checkpoint.restore(self.path, content, *self._objects)
        meta = content["meta"]
        self._run.step, self._run.stopped = meta.get("step", 0), meta.get("stopped", False)
        self._run.state = meta.get("state", {})
        return resumed_at

    def is_due(self, batches: int) -> bool:
        """Return whether the file is written after so many batches of an epoch."""
        return self.every is not None and batches % self.every == 0

    def save(self, at: Position | None = None) -> None:
        """Write the file, unless a parameter is NaN or infinite: the last good one stays."""
        run = self._run
        if self.path is not None and finite(run.model):
            progress: Any = {"epoch": run.epoch, "step": run.step, "stopped": run.stopped}
            checkpoint.save(self.path, *self._objects, **progress, state=run.state, position=at)

    def _position(self, content: Mapping[str, Any], metrics: list[str]) -> Position | None:
        """Return where in an epoch a checkpoint was written, None if at the end of one.

        Whatever this run cannot go on from is refused here, before anything has changed.
        """
        meta = content["meta"]
        contract = f"{self.path} to say where in an epoch it was written"
        with check.refusing("fit", contract, CheckpointError):
            if not isinstance(meta.get("stopped", False), bool):
                raise ValueError(f"stopped = {check.described(meta['stopped'])}")
            if not isinstance(meta.get("state", {}), dict):
                raise ValueError(f"state = {check.described(meta['state'])}")
            _require_count({"step": 0, **meta}, "step", 0)
            records = checked_records(content["history"])
            found: Position | None = meta.get("position")
            if found is not None:
                _check_position(found, self._loader)
                _require_count(meta, "epoch", len(records) + 1, len(records) + 1)
        if found is not None:
            self._check_epoch(found, metrics, len(records) + 1)
        if (other := record_of_others(records, self._run.columns)) is not None:
            contract = f"the metrics and the validation of {self.path}, {', '.join(other)}"
            raise CheckpointError(check.expected("fit", contract, ", ".join(self._run.columns)))
        return found

    def _check_epoch(self, found: Position, metrics: list[str], epoch: int) -> None:
        """Refuse to go on within an epoch with other metrics, or in one that is not to be."""
        measured = list(found["totals"])
        if measured != ["loss", *metrics]:
            contract = f"the metrics of {self.path}, {measured[1:]}, within an epoch"
            raise CheckpointError(check.expected("fit", contract, metrics))
        if epoch > self._run.epochs:
            contract = f"epochs >= {epoch}, which {self.path} has begun"
            raise ValueError(check.expected("fit", contract, self._run.epochs))


def _check_position(found: Position, loader: DataLoader) -> None:
    """Raise ValueError unless `position` could have returned this for an epoch of the loader."""
    # files of the first version do not say the seconds
    if {*found} | {"seconds"} != {"start", "batches", "samples", "n", "totals", "seconds"}:
        raise ValueError(f"a position of {', '.join(map(str, found))}")
    check_state(loader.rng.bit_generator.state, found["start"])
    _require_count(found, "batches", 1, len(loader))
    _require_count(found, "samples", 1)
    for name, total in found["totals"].items():
        if not isinstance(total, float) or (name == "loss" and not math.isfinite(total)):
            raise ValueError(f"a total {name} = {check.described(total)}")
    if not isinstance(found["n"], float) or not 0 < found["n"] < math.inf:
        raise ValueError(f"n = {check.described(found['n'])}")
    seconds = found.get("seconds", 0.0)
    if not isinstance(seconds, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"seconds = {check.described(seconds)}")


def _require_count(values: Mapping[str, Any], name: str, low: int, high: int = 2**63 - 1) -> None:
    if type(values[name]) is not int or not low <= values[name] <= high:
        raise ValueError(f"{name} = {check.described(values[name])}")


def finite(model: Module) -> bool:
    """Return whether every parameter is; a Buffer may hold infinity for good reasons."""
    return all(bool(np.isfinite(p.data).all()) for p in model.parameters())
