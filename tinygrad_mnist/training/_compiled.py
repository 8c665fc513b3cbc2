"""The steps of `fit` in compiled kernels: those of some batches at a time, in one call."""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._interrupts import holding
from tinygrad_mnist.compiled.trainer import (
    CHUNK,
    Trainer,
    check_compilable,
    refuse_shared_memory,
    settings_of,
)
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.training._arguments import Pairs
from tinygrad_mnist.training._averages import Averages, refuse_unless_finite
from tinygrad_mnist.training._resume import RunFile
from tinygrad_mnist.training.callbacks import Callback, LearningRate, Run


def checked_steps(
    run: Run, loss: Any, loader: Pairs, callbacks: Sequence[Callback], file: RunFile
) -> Callable[..., Generator[None]]:
    """Return what trains on the pairs of an epoch; refuse what no kernel can do."""
    check_compilable("fit", run.model, loss, run.optimizer)
    for callback in callbacks:
        if not _inherits(callback, "after_backward", Callback):
            contract = "callbacks that need no gradients"
            found = f"{check.described(callback)}; use the eager loop"
            raise TypeError(check.expected("fit", contract, found))
    if isinstance(loader, DataLoader):
        refuse_shared_memory(
            "fit", {"inputs": loader.inputs, "targets": loader.targets}, run.optimizer
        )
    return partial(_steps, loader=loader, is_due=file.is_due)


def _steps(
    run: Run,
    loss: Any,
    pairs: Pairs,
    averages: Averages,
    callbacks: Sequence[Callback],
    loader: Pairs,
    is_due: Callable[[int], bool],
) -> Generator[None]:
    """Train on the pairs, and yield after each chunk of them.

    The model has its weights back where a checkpoint is due, at the end, and when this is closed.
    """
    run.model.train()
    with _Chunks(run, loss, averages, callbacks, loader) as chunks:
        for x, t in pairs:
            chunks.take(x, t)
            due = is_due(averages.batches + len(chunks.taken))
            if due or chunks.one_by_one or chunks.samples >= CHUNK:
                chunks.train()
                if due:
                    chunks.write_back()
                if chunks.one_by_one:
                    for callback in callbacks:
                        callback.after_step(run)
                yield
        if chunks.taken:
            chunks.train()
            yield


class _Pair(NamedTuple):
    """Samples and targets of a step, and what else it depends on."""

    x: NDArray[Any]
    t: NDArray[Any]
    bare: bool  # one sample, without a first axis
    rate: float
    settings: tuple[float, float, bool]
    draws: list[Any]  # the numbers of its masks

    def kind(self) -> Any:
        """Return what all steps of a call have in common."""
        return self.settings, self.t.ndim, self.t.dtype


class _Chunks:
    """Takes pairs one by one, and trains on some together: a context that loses none.

    To take a pair is what a step of the eager loop begins with, so that all random numbers come in
    the same order: the loader's, those of callbacks, the masks. At the end of a `with` block, also
    after an error, a step was made for each pair taken, and the model has its weights back.
    """

    def __init__(
        self,
        run: Run,
        loss: Any,
        averages: Averages,
        callbacks: Sequence[Callback],
        loader: Any,
    ) -> None:
        self._run, self._loss, self._averages, self._loader = run, loss, averages, loader
        own = [c for c in callbacks if not _inherits(c, "before_step", Callback)]
        self._before_step = [c.before_step for c in own]
        # another callback may look at the weights before or after each step, or change them
        self.one_by_one = not (
            all(_inherits(c, "before_step", LearningRate) for c in own)
            and all(_inherits(c, "after_step", Callback) for c in callbacks)
        )
        # pairs are then rows of two arrays, which can be looked at once and need no copies
        arrays = type(loader) is DataLoader and loader.transform is None
        self._sliced = arrays and not self.one_by_one
        self._batch_size = 1
        if isinstance(loader, DataLoader):
            self._batch_size = min(loader.batch_size or 1, len(loader.inputs))
        self._trainer: Any = None
        self.taken: list[_Pair] = []
        self.samples = 0

    def __enter__(self) -> "_Chunks":
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Train on what is left."""
        try:
            self.train()
        finally:
            self.write_back()

    def take(self, x: Any, t: Any) -> None:
        """Begin a step."""
        run = self._run
        for before_step in self._before_step:
            before_step(run)
        if not self._sliced:
            x, t = check.real_array("fit", "x", x), check.real_array("fit", "t", t)
        trainer = self._trainer or self._new_trainer(x)
        bare = x.ndim == len(trainer.shape)
        if bare:
            x, t = x[None], t[None]
        if x.shape[1:] != trainer.shape or not x.size:
            contract = f"inputs of shape (N, {', '.join(map(str, trainer.shape))}), N > 0"
            raise check.value_error("fit", contract, x.shape)
        n = len(x)
        if not self._sliced:
            x, t = x.copy(), trainer.checked_targets("fit", t, n).copy()
        draws, optimizer = trainer.masks.numbers(n), run.optimizer
        self.taken.append(_Pair(x, t, bare, optimizer.lr, settings_of(optimizer), draws))
        self.samples += n
        run.step += 1

    def train(self) -> None:
        """Make the steps of what was taken."""
        for _, pairs in groupby(self.taken[:], _Pair.kind):
            self._train([*pairs])

    def _train(self, pairs: list[_Pair]) -> None:
        """Make the steps of the first of what was taken: pairs of one kind."""
        xs, ts, bare, rates, settings, draws = zip(*pairs, strict=True)
        x, t, ends = np.concatenate(xs), np.concatenate(ts), np.cumsum([0, *map(len, xs)])
        masks = self._trainer.masks.of_numbers(draws, len(x))
        with holding():  # a second Ctrl-C waits too: each step is made, and made once
            done = self._trainer.train(x, t, ends, masks, rates, settings[0])
            del self.taken[: len(pairs)]
        self.samples -= len(x)
        averages, largest = self._averages, np.finfo(done.outputs.dtype).max
        # kernels add in float64 what a loss adds in the dtype of the outputs
        losses = np.where(done.losses * done.n > largest, np.inf, done.losses)
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            self.taken.clear()  # the epoch will be undone
            where = f"in batch {averages.batches + bad[0] + 1} of epoch {self._run.epoch}"
            refuse_unless_finite(losses[bad[0]], where)
        self._run.loss = losses[-1].item()
        batches = zip(bare, pairwise(ends.tolist()), strict=True)
        parts = [start if one else slice(start, end) for one, (start, end) in batches]
        averages.add_chunk(losses, done.n, done.outputs, t, parts)
        if self.one_by_one:
            self.write_back()

    def write_back(self) -> None:
        """Give the model its weights back."""
        if self._trainer is not None:
            self._trainer.write_back()
        if self.one_by_one:
            self._trainer = None  # the next one is made of what the model is then

    def _new_trainer(self, x: NDArray[Any]) -> Trainer:
        """Return one of what the model is now, and of the shape of x or of its rows."""
        model, optimizer = self._run.model, self._run.optimizer
        shape = x.shape[x.ndim - model.sample_axes :]
        trainer = Trainer("fit", model, self._loss, optimizer, shape, self._batch_size)
        check.writeable("fit", optimizer.params)
        if self._sliced:
            trainer.checked_targets("fit", self._loader.targets, len(self._loader.targets))
        self._trainer = trainer
        return trainer


def _inherits(callback: Callback, name: str, kind: type[Callback]) -> bool:
    """Return whether its method of this name is the one of this class."""
    own = getattr(getattr(callback, name), "__func__", None)
    return own is getattr(kind, name)
