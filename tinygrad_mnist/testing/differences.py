"""Central differences, and whether a gradient that disagrees with them is wrong.

The step is eps**(1/3) * max(1, |v|), which balances the truncation error h**2 f''' / 6 against
the rounding error eps |f| / h. Along a direction of n entries each moves 1/sqrt(n) of that.

A disagreement is not yet a mistake: the point may lie on a kink, as ReLU does at 0. With D the
first and S the second central difference, a smooth f has D(h) = D(h/2) and S(h) = 4 S(h/2), while
a kink within h of the point breaks one of the two by at least 0.4 of the error. So an error counts
if both hold to a tenth of it; else smaller and larger steps are tried; else the probe lies on a
kink. And it counts only if it persists at a generic point nearby: relu(x) - relu(-x) is smooth
at 0, yet every framework answers 0 there. Such a point also judges what lies on a kink here.
"""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.testing.report import InconclusiveGradientCheck
from tinygrad_mnist.testing.subject import Subject

EPS = float(np.finfo(np.float64).eps)
STEP = EPS ** (1 / 3)
Precision = tuple[float, float, float]  # rtol, atol and step, as in `check_gradients`

_EVIDENCE = 0.1  # of the error, up to which D and S count as smooth
_RETRIES = (1.0, 1 / 16, 8.0)  # steps at which a kink may be out of reach, over the first
_SMALLEST = float(np.finfo(np.float64).tiny)
_TINY = 0.01  # a usual size below which values count as tiny
_FINER = (1 / 16, 1 / 256)  # steps at which a mistake must still be one
_NEARBY = 2  # generic points at which an error is confirmed


class Probe(NamedTuple):
    """Neighbouring entries of an array, from flat index `start` on, that move together by signs."""

    name: str
    start: int
    signs: FloatArray

    @property
    def part(self) -> slice:
        """Return the flat indices."""
        return slice(self.start, self.start + len(self.signs))

    def halves(self) -> list["Probe"]:
        """Return the probes of the first and of the second half of the entries."""
        middle = len(self.signs) // 2
        first, second = self.signs[:middle], self.signs[middle:]
        return [Probe(self.name, self.start, first), Probe(self.name, self.start + middle, second)]


class Measured(NamedTuple):
    """A directional derivative in two ways, and how far they may differ by rounding."""

    analytic: float
    numeric: float
    second: float  # the second difference, over the step
    tolerance: float
    rounding: float  # what rounding alone may come to, generously

    @property
    def error(self) -> float:
        return abs(self.analytic - self.numeric)


Verdict = tuple[Literal["right", "wrong", "kink"], Measured]


class Judge:
    """Judges probes of a subject for one dy, the gradient of its outputs.

    Raises:
        InconclusiveGradientCheck: The outputs are not finite, so no difference is.
    """

    def __init__(
        self, subject: Subject, dy: FloatArray, rng: np.random.Generator, precision: Precision
    ) -> None:
        self.subject, self.dy, self.rng = subject, dy, rng
        self.rtol, self.atol, self.step = self.precision = precision
        self.outputs = subject.outputs()
        if not np.isfinite(self.outputs).all():
            raise InconclusiveGradientCheck("expected finite outputs at x, got NaN or infinity")
        self.gradients = subject.gradients(dy)
        self._rounding = 4 * EPS * float(np.sum(abs(dy) * np.maximum(abs(self.outputs), 1)))
        self._nearby: list[Judge] = []

    def judge(self, probe: Probe) -> Verdict:
        """Return the verdict here; where it is not "right", generic points nearby decide."""
        outcome, here = self._judge_here(probe)
        if outcome == "right" or (outcome == "wrong" and not math.isfinite(here.analytic)):
            return outcome, here
        for judge in self._generic_points():
            elsewhere, there = judge._judge_here(probe)
            if elsewhere == "wrong":
                return "wrong", here if outcome == "wrong" else there
            if elsewhere == "right":
                return "kink", here
        # no other point could be judged: all are on kinks, or there are none
        return "kink" if self._nearby else outcome, here

    def _judge_here(self, probe: Probe) -> Verdict:
        first = self._measure(probe, self.step)
        if not math.isfinite(first.analytic) and math.isfinite(first.numeric):
            return "wrong", first
        for factor in _RETRIES:
            full = first if factor == 1 else self._measure(probe, factor * self.step)
            if full.error <= full.tolerance:
                return "right", full
            half = self._measure(probe, factor * self.step / 2)
            odd = abs(full.numeric - half.numeric)
            even = abs(full.second - 2 * half.second)  # S / h, so that 4 becomes 2
            # where the analytic value is huge, smoothness is judged by what the differences see
            seen = max(abs(full.numeric), abs(half.numeric)) + full.rounding
            if max(odd, even) < _EVIDENCE * min(full.error, seen) and self._persists(probe, full):
                return "wrong", full
        return "kink", first

    def _persists(self, probe: Probe, full: Measured) -> bool:
        """Return whether the error stays where the function may only look smooth from afar."""
        finer = (self._measure(probe, factor * self.step) for factor in _FINER)
        return all(m.error + m.rounding > 0.5 * full.error for m in finer)

    def _measure(self, probe: Probe, step: float) -> Measured:
        dy, gradient = self.dy, self.gradients[probe.name]
        with np.errstate(all="ignore"):  # outside the domain of a function there is NaN
            f_above, f_below, taken = self._either_side(probe, step)
            length = float(np.linalg.norm(taken)) or _SMALLEST
            if len(taken) == 1:
                length = math.copysign(length, taken[0])
            # the sum of the differences, not the difference of the sums: it rounds less
            numeric = float(np.sum(dy * (f_above - f_below))) / length
            analytic = float(np.sum(gradient.reshape(-1)[probe.part] * taken)) / length
            second = float(np.sum(dy * ((f_above - self.outputs) - (self.outputs - f_below))))
        rounding = self._rounding / abs(length / 2)
        tolerance = (
            self.rtol * max(abs(analytic), abs(numeric))
            + self.atol * float(np.max(abs(gradient), initial=0.0, where=np.isfinite(gradient)))
            + rounding
            + _SMALLEST  # of an empty batch all the others are 0
        )
        return Measured(analytic, numeric, second / abs(length / 2), tolerance, 10 * rounding)

    def _either_side(self, probe: Probe, step: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the outputs a step above and a step below, and the way between the two points."""
        array = self.subject.arrays[probe.name].reshape(-1)[probe.part]
        kept = array.copy()
        size = np.maximum(1, abs(kept))
        size = np.minimum(size, 10 * np.median(size))  # or one huge entry would be the direction
        h = probe.signs * size * (step / math.sqrt(len(kept)))
        try:
            array[:] = above = kept + h
            f_above = self._nudged_outputs()
            array[:] = below = kept - h
            f_below = self._nudged_outputs()
        finally:
            array[:] = kept
        return f_above, f_below, above - below  # not 2 h: the sums were rounded

    def _nudged_outputs(self) -> FloatArray:
        """Return the outputs, NaN where the function is not defined."""
        try:
            return self.subject.outputs()
        except Exception:
            return np.full_like(self.outputs, np.nan)

    def _generic_points(self) -> Iterator["Judge"]:
        """Yield judges of the same subject about 1 % away, made when first asked for."""
        yield from self._nearby
        while len(self._nearby) < _NEARBY:
            judge = self._moved(0.01) or self._moved(1e-4) or self._moved(1e-6)
            if judge is None:
                return
            self._nearby.append(judge)
            yield judge

    def _moved(self, part: float) -> "Judge | None":
        """Return a judge so far away, or None if the function is not defined there."""
        subject = self.subject.copy()
        for array in (subject.arrays[name] for name in self.gradients):
            usual = math.sqrt(float(np.mean(array**2))) if array.size else 0.0
            # the step is relative to max(1, |value|): where all values are tiny, so is this way
            size = abs(array) + (usual if usual > _TINY else 1.0)
            array += part * size * self.rng.uniform(-1, 1, array.shape)
        with np.errstate(all="ignore"):
            try:
                return Judge(subject, self.dy, self.rng, self.precision)
            except Exception:
                return None
