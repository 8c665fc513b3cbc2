"""The contract of losses: what differences cannot see."""

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.testing.rules import Run, ask, equal
from tinygrad_mnist.testing.subject import State


class LossRun(Run):
    """A loss, a pred and a target for it, and what a forward and two backwards gave."""

    class First(NamedTuple):
        """The first forward, and two backwards after it."""

        value: Any
        gradient: FloatArray
        again: FloatArray
        kept: bool  # pred and target were left alone

    def __init__(self, loss: Loss, pred: FloatArray, target: NDArray[Any]) -> None:
        self.owner, self.loss = type(loss).__name__, copy.deepcopy(loss)
        self.pred, self.target = pred, target
        self.state = State(lambda: self.loss(pred.copy(), target), self.loss)

    @cached_property
    def first(self) -> First:
        """What the first forward and the first backwards gave."""
        self.state.rewind()
        pred, target = self.pred.copy(), self.target.copy()
        value = self.loss(pred, target)
        gradient, again = np.array(self.loss.backward()), np.array(self.loss.backward())
        kept = equal(pred, self.pred) and equal(target, self.target)
        return self.First(value, gradient, again, kept)


def check_loss_contracts(loss: Loss, pred: FloatArray, target: NDArray[Any]) -> None:
    """Raise ModuleContractError for the first rule that a copy of the loss breaks."""
    run = LossRun(loss, pred, target)
    try:
        ask(run, LOSS_RULES)
    finally:
        run.state.rewind()


def keeps_input(run: LossRun) -> None:
    """The loss modifies neither pred nor target."""
    run.require(run.first.kept, "pred and target to be left alone, got one modified")


def shape(run: LossRun) -> None:
    """The loss is one number, and dL/dpred has the shape of pred."""
    value, gradient = run.first.value, run.first.gradient
    run.require(np.ndim(value) == 0, f"one number, got shape {np.shape(value)}")
    wanted = run.pred.shape
    run.require(gradient.shape == wanted, f"dL/dpred of shape {wanted}, got {gradient.shape}")


def dtype(run: LossRun) -> None:
    """The dtype of dL/dpred is that of pred."""
    dtype = run.first.gradient.dtype
    run.require(dtype == np.float64, f"dL/dpred in float64, as pred, got {dtype}")


def accumulates(run: LossRun) -> None:
    """A second backward returns the same."""
    same = equal(run.first.gradient, run.first.again)
    run.require(same, "a second backward to return the same, got another")


def reproducible(run: LossRun) -> None:
    """The same pred and target give the same value."""
    run.state.rewind()
    same = equal(np.array(run.loss(run.pred, run.target)), np.array(run.first.value))
    run.require(same, "the same value twice, got another")


LOSS_RULES: dict[str, Callable[[LossRun], None]] = {
    "keeps-input": keeps_input,
    "shape": shape,
    "dtype": dtype,
    "accumulates": accumulates,
    "reproducible": reproducible,
}
