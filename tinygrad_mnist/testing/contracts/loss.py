"""The contract of losses: what differences cannot see.

LOSS_RULES come before the gradient, LATER_LOSS_RULES after it. LOSS_CHECKLIST_RULES are asked of
losses that nobody has called yet.
"""

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.testing.arrays import (
    MORE_LAYOUTS,
    close,
    equal,
    finite,
    is_array,
    largest,
    read_only,
    spoil,
    still_spoiled,
)
from tinygrad_mnist.testing.contracts.float32 import cast, require_alike
from tinygrad_mnist.testing.contracts.rules import Run, refusing_skeletons
from tinygrad_mnist.testing.subject import State

_TIMES = 20  # backwards: a counter may go wrong late

Results = dict[str, NDArray[Any]]


class LossRun(Run):
    """A copy of a loss, a pred and a target for it, run from the same draws each time.

    Args:
        loss: The loss; left alone.
        pred: What it takes, in float64.
        target: What it compares pred with.
        allow_nonfinite: Whether finite numbers may give NaN or infinity.
    """

    def __init__(
        self, loss: Loss, pred: FloatArray, target: NDArray[Any], allow_nonfinite: bool = False
    ) -> None:
        self.owner, self.given, self.loss = type(loss).__name__, loss, copy.deepcopy(loss)
        self.pred, self.target, self.allow_nonfinite = pred, target, allow_nonfinite

    @cached_property
    def state(self) -> State:
        """The draws before the first call, which is watched for what it edits."""
        return State(self._first_pass, self.loss)

    @cached_property
    def wanted(self) -> Results:
        """What the loss gives, to compare with."""
        return self(self.pred, self.target)

    def __call__(self, pred: FloatArray, target: NDArray[Any]) -> Results:
        """Return copies of the value and of dL/dpred, from the draws of the first call."""
        self.rewind()
        value = np.array(self.loss(pred, target))
        return {"the loss": value, "dL/dpred": np.array(self.loss.backward())}

    def rewind(self) -> None:
        """Set back what a call draws, if there was one."""
        if "state" in vars(self):
            self.state.rewind()

    def _first_pass(self) -> None:
        pred, target = self.pred.copy(), self.target.copy()
        with refusing_skeletons(self.owner, "__call__"):
            value = self.loss(pred, target)
        self.require(is_array(value), f"a number, got {check.described(value)}")
        with refusing_skeletons(self.owner, "backward"):
            gradient = self.loss.backward()
        message = f"backward to return an array, got {check.described(gradient)}"
        self.require(is_array(gradient), message)
        self.first = {"the loss": np.array(value), "dL/dpred": np.array(gradient)}
        self.kept = equal(pred, self.pred) and equal(target, self.target)


def implemented(run: LossRun) -> None:
    """The loss and its backward are written, and return a number and an array."""
    run.state  # noqa: B018  # the first pass


def keeps_input(run: LossRun) -> None:
    """The loss modifies neither pred nor target."""
    run.require(run.kept, "pred and target to be left alone, got one modified")
    try:
        run(read_only(run.pred), read_only(run.target))
    except ValueError as error:
        message = f"pred and target to be left alone, got {error}"
        run.require("read-only" not in str(error), message)
        raise


def shape(run: LossRun) -> None:
    """The loss is one number, and dL/dpred has the shape of pred."""
    value, gradient = run.wanted.values()
    run.require(value.ndim == 0, f"one number, got shape {value.shape}")
    wanted = run.pred.shape
    run.require(gradient.shape == wanted, f"dL/dpred of shape {wanted}, got {gradient.shape}")


def finite_numbers(run: LossRun) -> None:
    """Finite pred and target give a finite value and dL/dpred, also where pred is the target."""
    pred, target = run.pred, run.target
    if run.allow_nonfinite or not finite(pred, target):
        return
    run.require_finite(run.wanted)
    if target.shape == pred.shape and target.dtype.kind == "f" and pred.size:
        # a target outside the range of pred may be no pred: a probability never is 0 or 1
        inside = (target > pred.min()) & (target < pred.max())
        run.require_finite(run(np.where(inside, target, pred), target), "where pred is the target")


def dtype(run: LossRun) -> None:
    """The dtype of dL/dpred is that of pred."""
    dtype = run.wanted["dL/dpred"].dtype
    run.require(dtype == np.float64, f"dL/dpred in float64, as pred, got {dtype}")


def layout(run: LossRun) -> None:
    """The memory layout of pred and target changes nothing."""
    for name, laid_out in MORE_LAYOUTS.items() if run.pred.ndim else ():
        found = run(laid_out(run.pred), laid_out(run.target))
        for what, array in run.wanted.items():
            # another order of a sum rounds terms that may be larger than it
            same = close(found[what], array, 1e-9 * max(1.0, largest(array)))
            message = f"a {name} pred and target to change nothing, got another value of {what}"
            run.require(same, message)


def backward_again(run: LossRun) -> None:
    """A second and a third backward return the same."""
    run.loss(run.pred, run.target)
    first = np.array(run.loss.backward())
    for again in ("second", "third"):
        same = equal(np.array(run.loss.backward()), first)
        run.require(same, f"a {again} backward to return the same, got another")


def reproducible(run: LossRun) -> None:
    """The same pred and target give the same value and dL/dpred, the first time, too."""
    again = run(run.pred, run.target)
    same = all(equal(a, run.wanted[w]) and equal(a, run.first[w]) for w, a in again.items())
    run.require(same, "the same value and dL/dpred twice, got another")


LOSS_RULES: dict[str, Callable[[LossRun], None]] = {
    "implemented": implemented,
    "keeps-input": keeps_input,
    "shape": shape,
    "finite": finite_numbers,
    "dtype": dtype,
    "layout": layout,
    "backward-again": backward_again,
    "reproducible": reproducible,
}


def target_shape(run: LossRun) -> None:
    """A target (N,) for pred (N, 1) is refused, or dL/dpred has the shape of pred."""
    if run.target.shape != run.pred.shape or run.pred.size < 2:
        return
    pred, target = run.pred.reshape(-1, 1), run.target.reshape(-1)
    try:
        gradient = run(pred, target)["dL/dpred"]
    except Exception:  # refused, in whatever words
        return
    contract = f"a target of shape {target.shape} for pred of shape {pred.shape} to be refused"
    message = f"{contract}, got dL/dpred of shape {gradient.shape}"
    run.require(gradient.shape == pred.shape, message)


def float32(run: LossRun) -> None:
    """A pred in float32 gives float32: dL/dpred, and the value, as in float64."""

    def compute(dtype: Any, arrays: Sequence[NDArray[Any]]) -> Results:
        pred, target = (cast(array, dtype) for array in arrays)
        return run(pred, target)

    def rounding(what: str) -> float:
        return max(1.0, largest(run.pred))

    arrays, message = [run.pred, run.target], "float32 to give what float64 gives"
    found = require_alike(run, compute, arrays, run.wanted, rounding, message)
    dtype = found["dL/dpred"].dtype
    run.require(dtype == np.float32, f"dL/dpred in float32, as pred, got {dtype}")


def keeps_results(run: LossRun) -> None:
    """dL/dpred keeps its values through later calls."""
    run.rewind()
    run.loss(run.pred, run.target)
    gradient = run.loss.backward()
    spoil(gradient)
    run.loss.backward()
    run(run.pred, run.target)
    message = "dL/dpred to keep its values, got it overwritten by a later call"
    run.require(still_spoiled(gradient), message)


def own_copies(run: LossRun) -> None:
    """What the caller does to pred, target and dL/dpred afterwards changes no gradient."""
    wanted = run.wanted["dL/dpred"]
    for what in ("pred", "target", "dL/dpred"):
        run.rewind()
        arrays = {"pred": run.pred.copy(), "target": run.target.copy()}
        run.loss(*arrays.values())
        arrays["dL/dpred"] = run.loss.backward() if what == "dL/dpred" else wanted.copy()
        spoil(arrays[what])
        with np.errstate(all="ignore"):  # of the NaN that a faulty loss computes with
            found = np.array(run.loss.backward())
        message = f"the loss to keep a copy of {what}, got another gradient after it was changed"
        run.require(close(found, wanted, 1e-9 * largest(wanted)), message)


def still_backward_again(run: LossRun) -> None:
    """Many backwards later, it returns the same."""
    run.loss(run.pred, run.target)
    for _ in range(_TIMES):
        run.loss.backward()
    backward_again(run)


LATER_LOSS_RULES: dict[str, Callable[[LossRun], None]] = {
    "float32": float32,
    "keeps-results": keeps_results,
    "own-copies": own_copies,
    "backward-again": still_backward_again,
}


def forward_first(run: LossRun) -> None:
    """Backward before the first call raises an error, unless it needs none."""
    early, late = copy.deepcopy(run.given), copy.deepcopy(run.given)
    try:
        found = np.array(early.backward())
    except Exception:  # refused, in whatever words
        return
    late(run.pred, run.target)
    same = equal(found, np.array(late.backward()))
    run.require(same, "backward before the first call to be refused, got numbers")


LOSS_CHECKLIST_RULES: dict[str, Callable[[LossRun], None]] = {
    "target-shape": target_shape,
    "forward-first": forward_first,
}
