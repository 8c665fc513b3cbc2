"""A module under a contract, run in many ways."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing.arrays import (
    close,
    equal,
    is_array,
    largest,
    read_only,
    spoil,
    still_spoiled,
)
from tinygrad_mnist.testing.contracts.rules import Run, refusing_skeletons
from tinygrad_mnist.testing.subject import (
    FORMS,
    Form,
    Inputs,
    State,
    gradient_sums,
    gradients,
    leading,
    numbered,
)

_TOLERANCE = 1e-9  # two orders of summation in float64 differ by far less

# what a caller may overwrite, and what keeps that from changing a gradient
MISUSED = {
    "x": "keep a copy of x (np.array(x))",
    "y": "keep a copy of y (y.copy())",
    "dy": "keep a copy of dy (np.array(dy))",
    "dx": "keep a copy of dx (dx.copy())",
}
Results = dict[str, FloatArray]  # of one forward and backward, each by what a message calls it


class ModuleRun(Run):
    """A copy of a module in float64, run from the same draws and Buffers each time.

    Args:
        module: The module; left alone.
        inputs: What its forward takes.
        dy: What its backward is given.
        rows_independent: Whether the output of each sample depends on that sample alone.
        forms: What the module takes.
        allow_nonfinite: Whether finite numbers may give NaN or infinity.
    """

    def __init__(
        self,
        module: Module,
        inputs: Inputs,
        dy: FloatArray,
        rows_independent: bool = True,
        forms: Sequence[Form] = FORMS,
        allow_nonfinite: bool = False,
    ) -> None:
        self.given, self.module = module, copy.deepcopy(module).astype(np.float64)
        self.inputs, self.dy, self.dy_size = inputs, dy, largest(dy)
        self.rows_independent, self.forms = rows_independent, forms
        self.allow_nonfinite = allow_nonfinite
        self.owner, self.leading = type(module).__name__, leading(module, inputs)
        # a sum in another order rounds by a few units in the last place of its terms
        self.rounding = 64 * np.finfo(np.float64).eps * max(map(largest, inputs))
        self.usual_sizes: dict[str, float] = {}  # the largest entry of each array, at these inputs

    @cached_property
    def state(self) -> State:
        """The draws and Buffers before the first forward, which is watched for what it edits."""
        self.edits: list[tuple[str, str]] = []  # each a rule and a message
        return State(self._first_pass, self.module)

    @cached_property
    def wanted(self) -> Results:
        """What the module gives at its inputs and dy, to compare with."""
        return self(self.inputs, self.dy)

    @property
    def gradients(self) -> Results:
        """What it is to give again without another forward."""
        return {what: array for what, array in self.wanted.items() if what != "y"}

    @cached_property
    def guarded(self) -> Results:
        """What it gives where nobody can write into its inputs and dy."""
        return self(list(map(read_only, self.inputs)), read_only(self.dy))

    @cached_property
    def draws(self) -> bool:
        """Whether a forward draws from a stream."""
        self.forward(self.inputs)
        return self.state.has_drawn()

    @cached_property
    def rows_matter_alone(self) -> bool:
        """Whether there are rows, and what becomes of one depends on that one alone."""
        alone = self.rows_independent and bool(self.leading) and all(self.leading)
        return alone and not self.draws

    def rearranged(
        self, change: Callable[[FloatArray], FloatArray], contract: str
    ) -> tuple[Results, Results]:
        """Return what changed inputs and a changed dy give, and what the rows of y and dx become.

        An error breaks the rule.
        """
        try:
            found = self([change(x).copy() for x in self.inputs], change(self.dy).copy())
            return found, {what: change(a) for what, a in per_sample(self.wanted).items()}
        except Exception as error:
            raise self.broken(f"{contract}, got {type(error).__name__}: {error}") from error

    @cached_property
    def misused(self) -> tuple[Results, list[str]]:
        """What `misuse` of everything gives."""
        return self.misuse(*MISUSED)

    @np.errstate(all="ignore")  # of the NaN that a faulty module computes with
    def misuse(self, *names: str) -> tuple[Results, list[str]]:
        """Return the sums of two backwards of a copy whose arrays are overwritten in between.

        And which of dx and y a later call has written into.
        """

        def overwrite(name: str, *arrays: Any) -> None:
            if name in names:
                spoil(*arrays)

        self.rewind()
        module = copy.deepcopy(self.module)
        module.zero_grad()
        inputs, dy = [x.copy() for x in self.inputs], self.dy.copy()
        y = module(*inputs)
        overwrite("x", *inputs)
        overwrite("y", y)
        dxs = listed(module.backward(dy), len(inputs))
        first = copy.deepcopy(dxs)
        overwrite("dy", dy)
        overwrite("dx", *dxs)
        second = listed(module.backward(self.dy.copy()), len(inputs))
        sums = [
            None if x.dtype.kind != "f" or a is None else np.add(a, b)
            for x, a, b in zip(inputs, first, second, strict=True)
        ]
        found = by_name(sums, gradient_sums(module))
        module.backward(self.dy.copy())
        overwritten = [] if all(map(still_spoiled, dxs)) else ["dx"]
        for _ in range(2):  # two arrays may be used in turn
            module(*[x.copy() for x in self.inputs])
        return found, overwritten if still_spoiled(y) else [*overwritten, "y"]

    def __call__(self, inputs: Inputs, dy: FloatArray, times: int = 1) -> Results:
        results = {"y": self.forward(inputs)} | self.backward(dy, times)
        self.usual_sizes = self.usual_sizes or {
            what: largest(array) for what, array in results.items()
        }
        return results

    def forward(self, inputs: Inputs) -> FloatArray:
        """Return a copy of y, from the draws and Buffers of the first forward."""
        self.state.rewind()
        self._last = inputs
        return np.array(self.module(*inputs))

    def backward(self, dy: FloatArray, times: int = 1) -> Results:
        """Return dx and the sums of the gradients of some backwards after the last forward."""
        return by_name(*gradients(self.module, self._last, dy, times))

    def same(self, found: Results, wanted: Results, message: str, dy_size: float = 0.0) -> None:
        """Require equality to rounding: of gradients, relative to dy or to their largest entry.

        dy_size is the largest entry of a dy that is larger than the usual one.
        """
        for what, array in wanted.items():
            alike = self.all_alike(found, {what: array}, dy_size)
            self.require(alike, f"{message}, got another value of {what}")

    def all_alike(self, found: Results, wanted: Results, dy_size: float = 0.0) -> bool:
        """Return whether results are equal to rounding to what they are to be."""
        return all(w in found and self.alike(w, found[w], a, dy_size) for w, a in wanted.items())

    def alike(self, what: str, found: FloatArray, wanted: FloatArray, dy_size: float = 0.0) -> bool:
        """Return whether an array is equal to rounding to what it is to be."""
        factor = 1.0 if what == "y" else max(self.dy_size, dy_size)
        scale = max(largest(wanted), self.usual_sizes.get(what, 0.0)) + (
            0 if what == "y" else factor
        )
        # numbers below the smallest normal one round to few digits
        atol = _TOLERANCE * scale + self.rounding * factor + np.finfo(np.float64).tiny
        return close(found, wanted, atol)

    def rewind(self) -> None:
        """Set back what a forward changes, if there was one."""
        if "state" in vars(self):
            self.state.rewind()

    def _first_pass(self) -> None:
        inputs, dy = [x.copy() for x in self.inputs], self.dy.copy()
        with refusing_skeletons(self.owner, "forward"), self._watched("forward", inputs):
            y = self.module(*inputs)
            message = f"forward to return an array, got {check.described(y)}"
            self.require(is_array(y), message)
        self.first = {"y": np.array(y)}
        self.module.zero_grad()
        with refusing_skeletons(self.owner, "backward"), self._watched("backward", inputs):
            found = listed(self.module.backward(dy), len(inputs))
        self.first |= by_name(copy.deepcopy(found), gradient_sums(self.module))
        if not equal(dy, self.dy):
            self.edits.append(("keeps-dy", "backward to leave dy alone, got it modified"))

    @contextmanager
    def _watched(self, step: str, inputs: Inputs) -> Iterator[None]:
        before = self.module.state_dict()
        yield
        for (name, x), own in zip(numbered("x", self.inputs), inputs, strict=True):
            if not equal(own, x):
                message = f"{step} to leave {name} alone, got it modified"
                self.edits.append(("keeps-input", message))
        may_move = dict(self.module.named_buffers()) if step == "forward" else {}
        after = self.module.state_dict()
        for name in before.keys() - after.keys():
            message = f"{step} to keep {name} (`.data = ...` sets its values), got it replaced"
            self.edits.append(("keeps-parameters", message))
        for name, values in after.items():
            if not (name in may_move or equal(values, before.get(name, values))):
                message = f"{step} to leave {name} alone, got it changed"
                self.edits.append(("keeps-parameters", message))


def by_name(dxs: Sequence[FloatArray | None], grads: dict[str, FloatArray]) -> Results:
    """Return each dx that is there and each parameter's gradient as messages call them."""
    results = {name: dx for name, dx in numbered("dx", dxs) if dx is not None}
    return results | {f"the gradient of {name}": grad for name, grad in grads.items()}


def shapes(run: ModuleRun, change: Callable[[NDArray[Any]], NDArray[Any]]) -> str:
    """Return the shapes of changed inputs, as messages say them."""
    changed = numbered("x", [change(x) for x in run.inputs])
    return ", ".join(f"{name} of shape {x.shape}" for name, x in changed)


def listed(dx: Any, inputs: int) -> list[Any]:
    """Return what backward returned as one dx, or None, for each input."""
    return list(dx) if isinstance(dx, tuple) else [dx] * inputs


def per_sample(results: Results) -> Results:
    """Return what has a row for each sample, y and each dx, without the parameters' gradients."""
    return {what: a for what, a in results.items() if not what.startswith("the gradient of ")}
