"""check_gradients and its kin: backward against central differences, for anybody's layers."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Sequential
from tinygrad_mnist.testing.contracts import check_loss_contracts, check_module_contracts
from tinygrad_mnist.testing.differences import STEP, Judge, Measured, Probe, Verdict
from tinygrad_mnist.testing.hints import about_ratio
from tinygrad_mnist.testing.report import (
    ArrayReport,
    GradientCheckError,
    GradientReport,
    InconclusiveGradientCheck,
    Mismatch,
)
from tinygrad_mnist.testing.subject import Subject

_FLOAT64 = np.dtype(np.float64)
_TELLING = 100  # a value so many times its tolerance could have shown a mistake


def check_gradients(
    module: Module,
    x: ArrayLike,
    *,
    grad_output: ArrayLike | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    step: float | None = None,
    max_entries: int = 64,
    directions: int = 2,
    contracts: bool = True,
    rows_independent: bool = True,
    seed: int = 0,
    raise_on_failure: bool = True,
) -> GradientReport:
    """Check a module's backward: first the contract, then every gradient by central differences.

    It works in float64 on a deep copy, in the module's present mode, and sets every reachable
    random generator back before each forward, so that the draws of a stochastic layer stay the
    same. The caller's module is untouched.

    Args:
        module: The Module to check.
        x: An input for it, (..., in).
        grad_output: dL/dy for `backward`; None draws one, its signs mixed and no entry near 0.
        rtol: Error allowed, relative to the larger of both values.
        atol: Error allowed, relative to the largest gradient in the array. What rounding of the
            outputs can do to a difference is allowed on top of both.
        step: Of the differences, relative to `max(1, |value|)`; None is `eps**(1/3)`, about 6e-6.
        max_entries: Arrays up to this size are checked entry by entry; of larger ones as many
            entries, the first, the last, the largest and the smallest gradient first.
        directions: Random +-1 directions over the whole of each larger array; a wrong one is
            traced to an entry.
        contracts: Whether to check the contract first: see `testing.contracts`.
        rows_independent: Whether each sample's output depends on that sample alone; False for
            layers that mix rows, such as a batch normalisation.
        seed: Of all that the check draws.
        raise_on_failure: False returns a report of wrong gradients instead of raising.

    Returns:
        A GradientReport, true if all is right; print it for a table.

    Raises:
        GradientCheckError: A gradient is wrong; its `report` says where.
        ModuleContractError: The module breaks the contract; its `rule` says how.
        InconclusiveGradientCheck: Too little could be judged to say anything.
        TypeError: module is no Module, or an argument is of the wrong type.
        ValueError: grad_output has another shape than y, or a number is outside its interval.
    """
    owner = "check_gradients"
    checker = _Checker(owner, rtol, atol, step, max_entries, directions, seed)
    x = check.owned(owner, "x", x, _FLOAT64)
    subject = Subject(_module(owner, module), x)
    dy = checker.cotangent(subject.y_shape)
    if grad_output is not None:
        dy = check.owned(owner, "grad_output", grad_output, _FLOAT64)
        check.same_shape(owner, "grad_output", dy, subject.y_shape)
    if contracts:
        check_module_contracts(_fresh(module), x, dy, rows_independent=rows_independent)
    return checker.report(type(module).__name__, subject, dy, module, raise_on_failure)


def check_loss_gradients(
    loss: Loss,
    pred: ArrayLike,
    target: ArrayLike,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    step: float | None = None,
    max_entries: int = 64,
    directions: int = 2,
    contracts: bool = True,
    seed: int = 0,
    raise_on_failure: bool = True,
) -> GradientReport:
    """Check that `loss.backward()` is the derivative of `loss(pred, target)` for pred.

    target is handed over as it is (copied), so that integer labels stay integers. The other
    arguments, the result and the errors are those of `check_gradients`.
    """
    owner = "check_loss_gradients"
    checker = _Checker(owner, rtol, atol, step, max_entries, directions, seed)
    pred, labels = check.owned(owner, "pred", pred, _FLOAT64), np.array(target)
    subject = Subject(Sequential(), pred, loss=_loss(owner, loss), target=labels, name="pred")
    if contracts:
        check_loss_contracts(copy.deepcopy(loss), pred, labels)
    return checker.report(type(loss).__name__, subject, np.ones(()), loss, raise_on_failure)


def check_model_gradients(
    model: Module,
    loss: Loss,
    x: ArrayLike,
    target: ArrayLike,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    step: float | None = None,
    max_entries: int = 64,
    directions: int = 2,
    contracts: bool = True,
    rows_independent: bool = True,
    seed: int = 0,
    raise_on_failure: bool = True,
) -> GradientReport:
    """Check a model and its loss together: the gradients that a training step uses.

    They are those of `loss(model(x), target)` for x and for every parameter. The arguments, the
    result and the errors are those of `check_gradients` and `check_loss_gradients`.
    """
    owner = "check_model_gradients"
    checker = _Checker(owner, rtol, atol, step, max_entries, directions, seed)
    x, labels = check.owned(owner, "x", x, _FLOAT64), np.array(target)
    subject = Subject(_module(owner, model), x, loss=_loss(owner, loss), target=labels)
    if contracts:
        dy = checker.cotangent(subject.y_shape)
        check_module_contracts(_fresh(model), x, dy, rows_independent=rows_independent)
        check_loss_contracts(copy.deepcopy(loss), Subject(model, x).outputs(), labels)
    name = f"{type(model).__name__} with {type(loss).__name__}"
    return checker.report(name, subject, np.ones(()), model, raise_on_failure)


class _Checker:
    """Chooses the probes of each array and counts their verdicts."""

    def __init__(
        self,
        owner: str,
        rtol: float,
        atol: float,
        step: float | None,
        max_entries: int,
        directions: int,
        seed: int,
    ) -> None:
        self.rtol = check.real(owner, "rtol", rtol, "[0, inf)")
        self.atol = check.real(owner, "atol", atol, "[0, inf)")
        self.step = STEP if step is None else check.real(owner, "step", step, "[1e-12, 1)")
        self.max_entries = check.integer(owner, "max_entries", max_entries, at_least=1)
        self.directions = check.integer(owner, "directions", directions, at_least=0)
        self.seed = check.integer(owner, "seed", seed, at_least=0)
        self.rng = np.random.default_rng(self.seed)

    def report(
        self, name: str, subject: Subject, cotangent: FloatArray, part: object, raises: bool
    ) -> GradientReport:
        """Return what the check of a subject finds, or raise what it means."""
        report = GradientReport(name, self.check(subject, cotangent), self.seed)
        if report.mismatches:
            report.hints += [*about_ratio(report, subject.y_shape, part), *self.suspects(subject)]
            if raises:
                raise GradientCheckError(report)
            return report
        _refuse_if_too_little(report)
        return report

    def check(self, subject: Subject, cotangent: FloatArray) -> list[ArrayReport]:
        """Return a report of each array that has a gradient."""
        settings = {"rtol": self.rtol, "atol": self.atol, "step": self.step}
        try:
            judge = Judge(subject, cotangent, self.rng, **settings)
            return [self._check_array(judge, name) for name in judge.gradients]
        finally:
            subject.streams.rewind()

    def cotangent(self, shape: tuple[int, ...]) -> FloatArray:
        """Return a dL/dy of mixed signs, for a backward that is not linear, no entry near 0."""
        sizes, signs = self.rng.uniform(0.5, 1.5, shape), self.rng.choice([-1.0, 1.0], shape)
        return np.asarray(sizes * signs)

    def suspects(self, subject: Subject) -> Iterator[str]:
        """Yield a sentence for each layer of a chain that fails alone, on its own input."""
        for path, layer, x in _layers("", subject.module, subject.x):
            alone = Subject(layer, x)
            reports = self.check(alone, self.cotangent(alone.outputs().shape))
            if path and any(report.mismatches for report in reports):
                yield f"Look at layer {path}, {type(layer).__name__}: checked alone, it fails too."

    def _check_array(self, judge: Judge, name: str) -> ArrayReport:
        gradient = judge.gradients[name]
        report = ArrayReport(name, gradient.shape)
        for i in self._entries(gradient):
            self._count(report, judge, Probe(name, i, np.ones(1)))
        for _ in range(self.directions if gradient.size > self.max_entries else 0):
            if report.mismatches:
                break  # a direction over a wrong entry would only find it again
            signs = self.rng.choice([-1.0, 1.0], gradient.size)
            self._count(report, judge, Probe(name, 0, signs))
        return report

    def _entries(self, gradient: FloatArray) -> list[int]:
        """Return the flat indices to check one by one: all, or the telling ones and a sample."""
        size = gradient.size
        if size <= self.max_entries:
            return list(range(size))
        magnitude = abs(gradient).reshape(-1)
        telling = [0, size - 1, int(magnitude.argmax()), int(magnitude.argmin())]
        sample = self.rng.choice(size, self.max_entries, replace=False)
        return list(dict.fromkeys([*telling, *sample.tolist()]))[: self.max_entries]

    def _count(self, report: ArrayReport, judge: Judge, probe: Probe) -> None:
        probe, verdict = _narrowed(judge, probe, judge.judge(probe))
        measured = verdict.measured
        report.checked += 1
        if verdict.outcome == "kink":
            report.on_kink += 1
            return
        report.worst = max(report.worst, measured.error / measured.tolerance)
        largest = max(abs(measured.analytic), abs(measured.numeric))
        report.telling += largest > _TELLING * measured.tolerance
        mismatch = _mismatch(report, probe, measured)
        if verdict.outcome == "wrong" and mismatch.index not in {
            m.index for m in report.mismatches
        }:
            report.mismatches.append(mismatch)


def _narrowed(judge: Judge, probe: Probe, verdict: Verdict) -> tuple[Probe, Verdict]:
    """Bisect a wrong direction as far as a half of it is still wrong."""
    while verdict.outcome == "wrong" and len(probe.signs) > 1:
        halves = ((half, judge.judge(half)) for half in probe.halves())
        wrong = next((half for half in halves if half[1].outcome == "wrong"), None)
        if wrong is None:
            break
        probe, verdict = wrong
    return probe, verdict


def _mismatch(report: ArrayReport, probe: Probe, measured: Measured) -> Mismatch:
    index = None
    if len(probe.signs) == 1:
        index = tuple(int(i) for i in np.unravel_index(probe.start, report.shape))
    values = (measured.analytic, measured.numeric, measured.tolerance)
    return Mismatch(report.name, index, *values)


def _module(owner: str, value: object) -> Module:
    if not isinstance(value, Module):
        raise TypeError(check.expected(owner, "a Module", check.described(value)))
    return value


def _fresh(module: Module) -> Module:
    return copy.deepcopy(module).astype(np.float64)


def _loss(owner: str, value: Any) -> Loss:
    if isinstance(value, type) or not (callable(value) and hasattr(value, "backward")):
        raise TypeError(
            check.expected(owner, "a loss to call, with a backward", check.described(value))
        )
    return value  # type: ignore[no-any-return]


def _refuse_if_too_little(report: GradientReport) -> None:
    """Raise unless there was something to judge, and name the arrays where there was nothing."""
    checked = sum(array.checked for array in report.arrays)
    on_kink = sum(array.on_kink for array in report.arrays)
    if on_kink > checked / 2:
        reason = f"{on_kink} of {checked} probes lie on a kink; choose another x"
    elif not any(array.telling for array in report.arrays):
        reason = "every gradient is 0, which no mistake need change; choose another x"
    else:
        silent = [array.name for array in report.arrays if array.checked and not array.telling]
        if silent:
            report.hints.append(f"Nothing telling at this x about {', '.join(silent)}.")
        return
    raise InconclusiveGradientCheck(f"{report.subject}: too little to judge: {reason}\n{report}")


def _layers(prefix: str, module: Module, x: FloatArray) -> Iterator[tuple[str, Module, FloatArray]]:
    """Yield each layer of a (nested) chain by its path, with the input that reaches it."""
    if type(module).forward is not Sequential.forward or not isinstance(module, Sequential):
        yield prefix.removesuffix("."), module, x
        return
    for i, layer in enumerate(module):
        yield from _layers(f"{prefix}{i}.", layer, x)
        x = layer(x)
