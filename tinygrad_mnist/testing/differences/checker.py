"""Which entries of which arrays are probed, and what the verdicts say together."""

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing.differences.hints import (
    about_open,
    about_parts,
    about_ratio,
    has_wrong_part,
    only_joins,
)
from tinygrad_mnist.testing.differences.judge import Judge, Verdict
from tinygrad_mnist.testing.differences.precision import (
    DOUBLE,
    SINGLE,
    Precision,
    precision_of,
    rounds_inside,
)
from tinygrad_mnist.testing.differences.probe import Probe
from tinygrad_mnist.testing.report import (
    ArrayReport,
    GradientCheckError,
    GradientReport,
    InconclusiveGradientCheck,
    Mismatch,
)
from tinygrad_mnist.testing.subject import (
    FORMS,
    Form,
    ModuleSubject,
    Subject,
    check_forms,
    inputs_of,
)

_AGAIN = 8  # entries of an array, about which nothing is known yet, that are judged otherwise
_PRECISION = {"rtol": "[0, inf)", "atol": "[0, inf)", "step": "(0, inf)"}


class Settings(TypedDict, total=False):
    """The keyword arguments that all checks take: `check_gradients` explains them."""

    rtol: float
    atol: float
    step: float
    max_entries: int
    directions: int
    contracts: bool
    allow_nonfinite: bool
    seed: int
    raise_on_failure: bool


class Checker:
    """Chooses the probes of each array and counts their verdicts."""

    def __init__(self, owner: str, settings: Settings, forms: Sequence[Form] = FORMS) -> None:
        known = Settings.__annotations__
        if unknown := ", ".join(sorted(settings.keys() - known.keys())):
            raise TypeError(check.expected(owner, f"settings among {', '.join(known)}", unknown))
        check_forms(owner, forms)
        get: Any = settings.get
        self.given: dict[str, Any] = {
            name: check.real(owner, name, get(name), interval)
            for name, interval in _PRECISION.items()
            if name in settings
        }
        self.max_entries = check.integer(owner, "max_entries", get("max_entries", 64), at_least=1)
        self.directions = check.integer(owner, "directions", get("directions", 2), at_least=0)
        self.contracts = get("contracts", True)
        self.allow_nonfinite = get("allow_nonfinite", False)
        self.seed = check.integer(owner, "seed", get("seed", 0), at_least=0)
        self.raises = get("raise_on_failure", True)
        self.rng = np.random.default_rng(self.seed)

    def report(self, name: str, subject: Subject, dy: FloatArray) -> GradientReport:
        """Return what the check of a subject finds, or raise what it means."""
        report = self.check(name, subject, dy)
        if report:
            _refuse_if_too_little(report, subject)
            return report
        report.hints += [*about_ratio(report, subject), *about_parts(subject, self.fails)]
        if self.raises:
            raise GradientCheckError(report)
        return report

    def check(self, name: str, subject: Subject, dy: FloatArray) -> GradientReport:
        """Return a report of each array that has a gradient, whatever it says."""
        try:
            precision = precision_of(subject, self.rng)
            report = self._check(name, subject, dy, precision)
            doubtful = not report or any(array.undecided for array in report.arrays)
            if doubtful and precision == DOUBLE and rounds_inside(subject, self.rng):
                precision = SINGLE
                report = self._check(name, subject, dy, precision)
        finally:
            subject.rewind()
        report.hints += about_open(report)
        if precision == SINGLE:
            report.hints.append("These outputs have the precision of float32.")
        return report

    def _check(
        self, name: str, subject: Subject, dy: FloatArray, precision: Precision
    ) -> GradientReport:
        judge = Judge(subject, dy, self.rng, precision._replace(**self.given))
        report = GradientReport(name, [], self.seed)
        report.arrays += [self._check_array(judge, name) for name in judge.gradients]
        self._confirm_outside(report, subject)
        if report:
            self._check_generic_parameters(judge, report)
        return report

    def cotangent(self, shape: tuple[int, ...]) -> FloatArray:
        """Return a dL/dy of mixed signs, for a backward that is not linear, no entry near 0."""
        sizes, signs = self.rng.uniform(0.5, 1.5, shape), self.rng.choice([-1.0, 1.0], shape)
        return np.asarray(sizes * signs)

    def fails(self, module: Module, inputs: tuple[ArrayLike, ...]) -> bool:
        """Return whether a part of a module is wrong by itself; one that does not run is not."""
        try:
            alone = ModuleSubject(module, inputs_of("x", module, inputs))
            return not self.check("", alone, self.cotangent(alone.y_shape))
        except Exception:
            return False

    def _check_array(self, judge: Judge, name: str) -> ArrayReport:
        gradient = judge.gradients[name]
        report = ArrayReport(name, gradient.shape)
        for i in self._entries(gradient):
            self._count(report, judge, Probe(name, i, np.ones(1)))
        for i in range(self.directions if gradient.size > self.max_entries else 0):
            if report.mismatches:
                break  # a direction over a wrong entry would only find it again
            signs = self.rng.choice([-1.0, 1.0], gradient.size)
            if i == 0:  # the direction of the gradient shows a factor best
                signs = np.where(gradient.reshape(-1) < 0, -1.0, 1.0)
            self._count(report, judge, Probe(name, 0, signs))
        if report.on_kink > 1 and not (report.outside or report.smooth):
            self._note(report, judge, *judge.judge_ties(name))
        if report.hides and not report.mismatches:
            for i in self.rng.choice(gradient.size, min(gradient.size, _AGAIN), replace=False):
                probe = Probe(name, int(i), np.ones(1))
                self._note(report, judge, probe, judge.judge_widely(probe))
        return report

    def _confirm_outside(self, report: GradientReport, subject: Subject) -> None:
        """Call an answer outside the slopes at a kink wrong, if it is not that of a composition."""
        outside, smooth = (
            [a for a in report.arrays if getattr(a, k)] for k in ("outside", "smooth")
        )
        if not (outside or smooth):
            return
        has_parts = len(subject.modules) > 1
        wrong_part = has_parts and has_wrong_part(subject, self.fails)
        joined = has_parts and not wrong_part and only_joins(subject.modules)
        for array in report.arrays:
            for found, excused in (
                (array.outside, bool(subject.parameters) or has_parts),
                (array.smooth, has_parts),
            ):
                if wrong_part or not excused:
                    array.mismatches += found
                elif not joined:
                    array.undecided += len(found)
                    array.open += [m.index for m in found]

    def _check_generic_parameters(self, judge: Judge, report: GradientReport) -> None:
        """Check again where no parameter is neutral, as a gain of 1 or a shift of 0 is.

        Of each array, an entry and a direction.
        """
        generic = judge.at_generic_parameters()
        if generic is None:
            return
        for array in report.arrays:
            size = generic.gradients[array.name].size
            for width in sorted({1, size}) if size else ():
                start = int(self.rng.integers(size - width + 1))
                probe = Probe(array.name, start, self.rng.choice([-1.0, 1.0], width))
                self._note(array, generic, *_narrowed(generic, probe), "at generic parameters")
                if array.mismatches:
                    break

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
        probe, (outcome, found) = _narrowed(judge, probe)
        if outcome == "right" and judge.quieter:
            quietly = _narrowed(judge.quieter, probe)
            if quietly[1][0] == "wrong" or judge.telling(quietly[1][1]):
                probe, (outcome, found) = quietly
        report.checked += 1
        report.on_kink += outcome in ("between", "outside", "smooth", "kink")
        if outcome == "kink":
            report.undecided += 1
            report.open.append(_index(report, probe))
            return
        report.worst = max(report.worst, found.error / found.tolerance)
        report.largest = max(report.largest, found.largest)
        report.tolerance = max(report.tolerance, found.tolerance)
        self._note(report, judge, probe, (outcome, found))

    def _note(
        self, report: ArrayReport, judge: Judge, probe: Probe, verdict: Verdict, where: str = ""
    ) -> None:
        """Count a verdict that says something, and keep what is wrong."""
        outcome, found = verdict
        report.telling += outcome != "kink" and judge.telling(found)
        kept = {"wrong": report.mismatches, "outside": report.outside, "smooth": report.smooth}
        if outcome in kept:
            values = (found.analytic, found.numeric, found.tolerance)
            note = "; ".join(filter(None, (found.note, where)))
            mismatch = Mismatch(report.name, _index(report, probe), *values, note)
            kept[outcome].append(mismatch)


def _index(report: ArrayReport, probe: Probe) -> tuple[int, ...] | None:
    """Return the index of a probe of one entry, None of a direction."""
    if len(probe.signs) > 1:
        return None
    return tuple(map(int, np.unravel_index(probe.start, report.shape)))


def _narrowed(judge: Judge, probe: Probe) -> tuple[Probe, Verdict]:
    """Return a probe with its verdict; of a wrong one, the smallest wrong half of its halves."""
    verdict = judge.judge(probe)
    if verdict[0] == "wrong" and len(probe.signs) > 1:
        for narrower in (_narrowed(judge, half) for half in probe.halves()):
            if narrower[1][0] == "wrong":
                return narrower
    return probe, verdict


def _refuse_if_too_little(report: GradientReport, subject: Subject) -> None:
    """Raise unless there was something to judge, and name the arrays where there was nothing."""
    checked = sum(array.checked for array in report.arrays)
    undecided = sum(array.undecided for array in report.arrays)
    if undecided > checked / 2:
        reason = f"{undecided} of {checked} probes lie on a kink; choose another x"
    elif not any(array.telling for array in report.arrays):
        if math.prod(subject.y_shape) == 0:
            reason = "the outputs are empty"
        elif tolerance := max((array.hides for array in report.arrays), default=0):
            reason = f"every gradient is {_hidden(tolerance)}; choose another x or a larger step"
        else:
            reason = "every gradient is 0, which no mistake need change; choose another x"
    else:
        for array in report.arrays:
            if array.checked and not array.telling:
                why = f": {_hidden(array.hides)}" if array.hides else ""
                report.hints.append(
                    f"This x says nothing about {array.name}{why or ': its gradient is 0 here'}."
                )
        return
    raise InconclusiveGradientCheck(f"{report.subject}: too little to judge: {reason}\n{report}")


def _hidden(tolerance: float) -> str:
    return f"below what rounding hides (tolerance {tolerance:.2g})"
