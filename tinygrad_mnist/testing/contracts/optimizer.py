"""The contract of optimizers: where ten steps lead, and what a step leaves alone.

The Parameters have several shapes, two of them the same. Their gradients have sizes from 1e-6 to
10, and some are 0.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.parameter import Parameter
from tinygrad_mnist.testing.contracts.rules import Run, refusing_skeletons
from tinygrad_mnist.testing.given import answer

Make = Callable[[list[Parameter]], Any]  # returns what has a step()
Formula = Callable[[FloatArray, FloatArray, Any], tuple[FloatArray, Any]]
# the values of each Parameter, at the start and after each step
Trajectory = list[list[FloatArray]]

STEPS = 10
_HALF = STEPS // 2
_SHAPES: tuple[tuple[int, ...], ...] = ((2,), (), (3, 2), (2,), (4, 1, 2))


class ByFormula:
    """An optimizer whose rule for one array is a function: step(value, gradient, state)."""

    def __init__(self, params: Sequence[Parameter], formula: Formula) -> None:
        self.params, self.formula = params, formula
        self.states: list[Any] = [None] * len(params)

    def step(self) -> None:
        """Move every Parameter to where the function says."""
        for i, p in enumerate(self.params):
            p.data, self.states[i] = answer(
                "formula",
                "(value, gradient, state) that returns the next value and state",
                self._moved,
                p,
                self.states[i],
            )

    def _moved(self, p: Parameter, state: Any) -> tuple[FloatArray, Any]:
        value, state = self.formula(p.data.copy(), p.grad.copy(), state)
        return np.broadcast_to(value, p.data.shape), state


class Training:
    """Parameters and their optimizer, and the path of the steps that they have made."""

    def __init__(self, make: Make, values: Iterable[FloatArray], dtype: type = np.float64) -> None:
        self.params = [Parameter(np.asarray(value, dtype)) for value in values]
        self.optimizer = make(list(self.params))
        self.path: Trajectory = [self.values]

    @property
    def values(self) -> list[FloatArray]:
        """Copies of the Parameters' values."""
        return [p.data.copy() for p in self.params]

    def go(self, gradients: Iterable[Sequence[FloatArray]]) -> "Training":
        """Make a step along each of the gradients."""
        for step in gradients:
            for p, gradient in zip(self.params, step, strict=True):
                p.grad = gradient
            self.optimizer.step()
            self.path.append(self.values)
        return self


class OptimizerRun(Run):
    """An optimizer and a reference for it, and the values and gradients that both are given.

    Args:
        make: Makes the optimizer, given Parameters.
        reference: Makes what to compare it with; None is itself.
        seed: Of the values and gradients.
    """

    def __init__(self, make: Make, reference: Make | None, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.make, self.reference = make, reference or make
        self.values = [np.asarray(rng.standard_normal(shape)) for shape in _SHAPES]
        self.gradients = [[_gradient(rng, shape) for shape in _SHAPES] for _ in range(STEPS)]
        self.owner = type(self.start(make).optimizer).__name__

    @cached_property
    def path(self) -> Trajectory:
        """The optimizer's path."""
        return self.start(self.make).go(self.gradients).path

    @cached_property
    def wanted(self) -> Trajectory:
        """The reference's path."""
        return self.start(self.reference).go(self.gradients).path

    def start(self, make: Make, dtype: type = np.float64) -> Training:
        """Return a training that has made no step yet."""
        return Training(make, self.values, dtype)

    def alone(self, make: Make) -> Trajectory:
        """Return the path if every Parameter has an optimizer to itself."""
        paths = [
            Training(make, [value]).go([[step[i]] for step in self.gradients]).path
            for i, value in enumerate(self.values)
        ]
        return [[path[step][0] for path in paths] for step in range(STEPS + 1)]

    def same(self, found: Trajectory, wanted: Trajectory, like: str, rtol: float = 1e-9) -> None:
        """Require equal paths to rounding, relative to how far an array has moved."""
        if difference := _difference(found, wanted, rtol):
            step, where, to, got = difference
            message = f"step {step} to move {where} by {to:.6g}, {like}, got {got:.6g}"
            raise self.broken(message)


def _difference(
    found: Trajectory, wanted: Trajectory, rtol: float = 1e-9
) -> tuple[Any, ...] | None:
    """Return the first step that differs, the entry, and how far each path goes there."""
    for step in range(1, len(wanted)):
        for i, start in enumerate(wanted[0]):
            array, other = found[step][i], wanted[step][i]
            moved = float(np.max(np.abs(other - start), initial=0.0))
            rounding = 4 * STEPS * np.finfo(array.dtype).eps * np.abs(other)
            close = np.abs(array - other) <= rtol * moved + rounding  # NaN is close to NaN alone
            wrong = ~(close | np.isnan(array) & np.isnan(other))
            if wrong.any():
                at = tuple(map(int, np.argwhere(wrong)[0]))
                to, got = (path[step][i][at] - path[step - 1][i][at] for path in (wanted, found))
                return step, f"params[{i}]{list(at) if at else ''}", to, got
    return None


def _gradient(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    sizes, zeros = 10.0 ** rng.uniform(-6, 1, shape), rng.random(shape) < 0.1
    return np.asarray(np.where(zeros, 0, sizes * rng.choice([-1.0, 1.0], shape)))


def implemented(run: OptimizerRun) -> None:
    """Steps move some Parameter."""
    with refusing_skeletons(run.owner, "step"):
        first, *_, last = run.path
    moved = any(not np.array_equal(a, b) for a, b in zip(first, last, strict=True))
    run.require(moved, f"{STEPS} steps to move some Parameter, got all where they were")


def in_place(run: OptimizerRun) -> None:
    """A step changes the numbers in a Parameter's array, not the array."""
    training = run.start(run.make)
    arrays = [p.data for p in training.params]
    for number, step in enumerate(run.gradients, 1):
        training.go([step])
        kept = all(p.data is array for p, array in zip(training.params, arrays, strict=True))
        run.require(kept, f"step {number} to keep the arrays of its Parameters, got one replaced")


def keeps_gradients(run: OptimizerRun) -> None:
    """A step leaves the gradients as they are."""
    training = run.start(run.make)
    for number, step in enumerate(run.gradients, 1):
        training.go([step])
        pairs = zip(training.params, step, strict=True)
        kept = all(np.array_equal(p.grad, gradient) for p, gradient in pairs)
        run.require(kept, f"step {number} to leave the gradients alone, got one modified")


def own_state(run: OptimizerRun) -> None:
    """Each Parameter moves as if it had an optimizer to itself (asked if the reference's do)."""
    if run.reference is run.make or not _difference(run.alone(run.reference), run.wanted):
        run.same(run.path, run.alone(run.make), "as it would alone")


def values(run: OptimizerRun) -> None:
    """Ten steps lead where those of the reference lead."""
    rates = [getattr(run.start(make).optimizer, "lr", None) for make in (run.make, run.reference)]
    differ = None not in rates and rates[0] != rates[1]
    other = f" (its lr is {rates[1]}, here it is {rates[0]})" if differ else ""
    run.same(run.path, run.wanted, f"as the reference does{other}")


def float32(run: OptimizerRun) -> None:
    """Parameters of float32 take the steps of float64, to rounding."""
    training = run.start(run.make, np.float32).go(run.gradients)
    run.same(training.path, run.path, "as in float64", rtol=1e-4)


def rate(run: OptimizerRun) -> None:
    """A changed `lr` counts from the next step on (asked if both have one)."""
    trainings = [run.start(make) for make in (run.make, run.reference)]
    if not all(hasattr(training.optimizer, "lr") for training in trainings):
        return
    for training in trainings:
        training.go(run.gradients[:_HALF])
        training.optimizer.lr *= 0.5
        training.go(run.gradients[_HALF:])
    found, wanted = (training.path for training in trainings)
    if not _difference(run.path, run.wanted):
        run.same(found, wanted, "as the reference does at half the lr")
    elif _difference(wanted, run.wanted):  # whether the steps are right is another rule's to say
        message = "another step at half the lr, got the same"
        run.require(_difference(found, run.path), message)


def resumes(run: OptimizerRun) -> None:
    """An optimizer that loads a `state_dict` goes on with the same steps (asked if it has one)."""
    first = run.start(run.make)
    if not all(hasattr(first.optimizer, n) for n in ("state_dict", "load_state_dict")):
        return
    first.go(run.gradients[:_HALF])
    values, state = first.values, first.optimizer.state_dict()
    first.go(run.gradients[_HALF:])
    second = Training(run.make, values)
    second.optimizer.load_state_dict(state)
    second.go(run.gradients[_HALF:])
    message = "one that loads a state to go on exactly as before, got another step"
    pairs = zip(first.path[-1], second.path[-1], strict=True)
    run.require(all(np.array_equal(a, b) for a, b in pairs), message)


OPTIMIZER_RULES: dict[str, Callable[[OptimizerRun], None]] = {
    "implemented": implemented,
    "in-place": in_place,
    "keeps-gradients": keeps_gradients,
    "own-state": own_state,
    "float32": float32,
    "resumes": resumes,
}
# of an optimizer that has a reference
COMPARED_RULES: dict[str, Callable[[OptimizerRun], None]] = {"values": values, "lr": rate}
