"""Runs: trainings in threads of their own, the right one and a broken one step by step in turn."""

import copy
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.data import DataLoader, mnist
from tinygrad_mnist.losses import MSELoss
from tinygrad_mnist.nn import Softmax
from tinygrad_mnist.page.faults import setups, verdict
from tinygrad_mnist.page.setups import Data, Setup

EPOCHS = 10
POINTS = 10  # of a curve, an epoch
TESTED = 1000  # images that an accuracy is measured on
KEPT = 8  # runs


@cache
def images() -> tuple[Data, Data]:
    """Return the bundled images (N, 28, 28, 1) with their targets: to train on, and to test."""
    rows = (mnist.preprocess(*part) for part in mnist.load_data())
    training, test = ((x.reshape(-1, 28, 28, 1), t) for x, t in rows)
    return training, test


class Training:
    """One of the trainings of a run. `snapshot` is a copy of its model that no step changes."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.diverged = setup, False
        self.model, self._loss, self._optimizer = setup.build()
        self._rng = np.random.default_rng(3)
        self._losses: list[float] = []  # since the last point
        self.snapshot = copy.deepcopy(self.model)

    def __str__(self) -> str:
        """Return what is trained: the model, its loss and its optimizer."""
        return f"{self.model!r}\n{self._loss!r}\n{self._optimizer!r}"

    def batches(self) -> DataLoader:
        """Return the batches of an epoch."""
        return self.setup.batches(*images()[0], self._rng)

    def step(self, batch: tuple[Any, Any]) -> None:
        """Learn from a batch, unless an earlier loss was infinite or NaN."""
        if not self.diverged:
            loss = self.setup.step(self.model, self._loss, self._optimizer, *batch)
            self._losses.append(float(loss))
            self.diverged = not math.isfinite(loss)

    def point(self) -> list[float | None]:
        """Return the mean of the losses since the last point, or None, and the accuracy now."""
        self.snapshot = copy.deepcopy(self.model)
        training, test = ((x[:TESTED], t[:TESTED]) for x, t in images())
        accuracy = self.setup.evaluate(self.model, training, test)
        loss = None if self.diverged else sum(self._losses) / len(self._losses)
        self._losses.clear()
        return [loss, float(accuracy)]

    def scores_of(self, y: FloatArray) -> Any:
        """Return the scores, 0 to 1, of outputs that the loss made logits, or scores already."""
        return np.clip(y, 0, 1) if isinstance(self.setup.loss(), MSELoss) else Softmax()(y)


class Run:
    """A training, or a right and a broken one in turn, with what the kit says of the last."""

    def __init__(self, choices: dict[str, Any], fault: str) -> None:
        self.trainings = [Training(setup) for setup in setups(choices, fault)]
        self._fault = fault
        self._verdict: str | None = None  # until the checks have been made
        self._phase, self._going, self.ended = "checking", threading.Event(), False
        self._step, self._epoch, self._seconds = 0, 0.0, 0.0
        self._points: list[list[Any]] = []
        self._going.set()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def state(self) -> str:
        """What the run is doing."""
        going = self._going.is_set() or self._phase not in ("checking", "training")
        return self._phase if going else "stopped"

    def stop(self) -> None:
        """Wait before the next step, unless there is none."""
        self._going.clear()
        if self.ended:  # meanwhile, by a tab that has started one run too many
            self._going.set()

    def go_on(self) -> None:
        """Make the next step."""
        self._going.set()

    def end(self) -> None:
        """Make no more steps, ever."""
        self.ended = True
        self._going.set()

    def progress(self, since: int) -> dict[str, Any]:
        """Return how far it is, and the points of its curves from this one on."""
        return {
            "state": self.state,  # before the points: those of a run that is done are all there
            "verdict": self._verdict,
            "step": self._step,
            "epoch": self._epoch,
            "steps_per_second": self._step / self._seconds if self._step else 0,
            "points": self._points[since:],
        }

    def _run(self) -> None:
        try:
            with np.errstate(all="ignore"):  # some trainings diverge
                self._verdict = verdict(self.trainings[-1].setup, self._fault)
                self._phase = "training"
                for _ in self._steps():
                    self._going.wait()
                    if self.ended or all(training.diverged for training in self.trainings):
                        break
            self._phase = "diverged" if self.trainings[0].diverged else "done"
        except Exception as error:  # out of memory, or a mistake of ours: the terminal shows where
            self._phase = f"failed: {type(error).__name__}: {error}"
            raise

    def _steps(self) -> Iterator[None]:
        """Make a step of each training in turn, and a point of the curves every so often."""
        for epoch in range(EPOCHS):
            epochs = [training.batches() for training in self.trainings]
            steps = len(epochs[0])
            for i, batches in enumerate(zip(*epochs, strict=True), start=1):
                yield
                started = time.perf_counter()
                for training, batch in zip(self.trainings, batches, strict=True):
                    training.step(batch)
                self._seconds += time.perf_counter() - started
                self._step, self._epoch = self._step + 1, epoch + i / steps
                if i * POINTS // steps > (i - 1) * POINTS // steps:
                    points = [training.point() for training in self.trainings]
                    self._points.append([self._step, *points])


class Runs:
    """KEPT runs, by ids that nobody can guess.

    One that has been ended goes first, or else the one asked for longest ago.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, run: Run) -> str:
        """Keep a run, and return its id."""
        name = secrets.token_urlsafe()
        with self._lock:
            self._runs[name] = run
            if len(self._runs) > KEPT:
                goes = min(self._runs, key=lambda name: not self._runs[name].ended)
                self._runs.pop(goes).end()
        return name

    def get(self, name: str) -> Run | None:
        """Return the run of an id, or None where there is none any more."""
        with self._lock:
            if name in self._runs:
                self._runs.move_to_end(name)
            return self._runs.get(name)
