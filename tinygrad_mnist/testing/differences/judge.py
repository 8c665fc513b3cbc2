"""Central differences, and whether a gradient that disagrees with them is wrong.

The step is eps**(1/3) * max(1, |v|), which balances the truncation error h**2 f''' / 6 against
the rounding error eps |f| / h, with the eps of the function's precision.

A disagreement is not yet a mistake: the point may lie on a kink, as ReLU does at 0. With D the
first and S the second central difference, a smooth f has D(h) = D(h/2) and S(h) = 4 S(h/2), while
a kink within h of the point breaks one of the two by at least 0.4 of the error. So an error counts
if both hold to a tenth of it, and finer steps show it, too; else smaller and larger steps are
tried; else the probe lies on a kink. And it counts only if it persists at a generic point nearby,
where a small one must be much the same, as rounding never is; or if the function has a derivative
here, and the answer is another. A generic point also judges what lies on a kink here; the answer at
the kink itself is left to `testing.differences.kinks`.

A step is relative to 1, or to the usual size of an array if that is huge. Where the usual size
is tiny, steps relative to that come first: sin(x / 1e-9) at x = 1e-9 turns a thousand times within
a step of 6e-6. What rounding hides from them is left to the larger steps.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Literal, NamedTuple

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.testing.arrays import largest
from tinygrad_mnist.testing.differences.kinks import ALIKE, Slopes
from tinygrad_mnist.testing.differences.precision import Precision
from tinygrad_mnist.testing.differences.probe import SMALLEST, Probe, either_side, way_of
from tinygrad_mnist.testing.report import InconclusiveGradientCheck
from tinygrad_mnist.testing.subject import Subject

_EVIDENCE = 0.1  # of the error, up to which D and S count as smooth
_RETRIES = (1 / 16, 8.0)  # steps at which a kink may be out of reach, over the first
_CLOSER = (2.0**-8, 2.0**-16)  # steps at which a kink is still one, and no steep but smooth place
_TINY = 0.01  # a usual size below which values count as tiny
_HUGE = 100.0  # one above which steps are relative to it
_ASIDE = 8.0  # how far an entry is moved against all others, to see whether that is linear
_FINER = (1 / 16, 1 / 256)  # steps at which a mistake must still be one, of the same size
_SMALL = 1e-3  # of a gradient, an error that must be much the same wherever it is measured
_NEARBY = 2  # generic points at which an error is confirmed
_WIDER = (2.0**10, 2.0**20, 2.0**30)  # steps at which rounding hides less, over the first
_PIECES = 8  # points in the neighbourhood of a kink that must show no third slope
_FEW, _MANY = 128, 4096  # points there whose gradients are looked at, at least and at most


class Measured(NamedTuple):
    """A directional derivative in two ways, and how far they may differ by rounding."""

    analytic: float
    numeric: float
    second: float  # the second difference, over the step
    tolerance: float
    rounding: float  # what rounding alone may come to, generously
    note: str = ""  # where it was measured, if not at the point itself

    @property
    def off(self) -> float:
        return self.analytic - self.numeric

    @property
    def error(self) -> float:
        return abs(self.off)

    @property
    def largest(self) -> float:
        return max(abs(self.analytic), abs(self.numeric))


# on a kink an answer is "between" the slopes or "outside", or it is a "kink" of too many; "smooth"
# is an answer that is not the derivative, at a point beside which all answers are right
Verdict = tuple[Literal["right", "wrong", "between", "outside", "smooth", "kink"], Measured]


class Judge:
    """Judges probes of a subject for one dy, the gradient of its outputs.

    Raises:
        InconclusiveGradientCheck: The outputs are not finite, so no difference is.
    """

    def __init__(
        self,
        subject: Subject,
        dy: FloatArray,
        rng: np.random.Generator,
        precision: Precision,
        smallest: float = 1.0,
    ) -> None:
        self.subject, self.dy, self.rng, self.precision = subject, dy, rng, precision
        self.smallest = smallest  # a usual size; steps in arrays of smaller numbers do not shrink
        self.outputs = subject.outputs()
        if not np.isfinite(self.outputs).all():
            raise InconclusiveGradientCheck("expected finite outputs at x, got NaN or infinity")
        self.gradients = subject.gradients(dy)
        self._largest = {name: largest(gradient) for name, gradient in self.gradients.items()}
        self._roundings = 4 * precision.eps * np.maximum(abs(self.outputs), 1)
        roundings = (abs(dy) * self._roundings).reshape(-1)
        # many roundings add up at random, most of them to less than their sum
        self._rounding = float(min(roundings.sum(), 4 * np.linalg.norm(roundings)))
        self._nearby: list[Judge] = []
        usual = {name: _usual(subject.arrays[name]) for name in self.gradients}
        if smallest == 1:
            usual = {name: size if size > _HUGE else 1.0 for name, size in usual.items()}
        self._least = {name: max(size or 1.0, smallest) for name, size in usual.items()}

    def judge(self, probe: Probe) -> Verdict:
        """Return the verdict of steps relative to tiny values, if it is one, or of usual steps."""
        if self.closer and self.closer._least[probe.name] < _TINY:
            outcome, found = self.closer._judge(probe)
            if outcome != "kink" and self.telling(found):
                return outcome, found
        return self._judge(probe)

    def _judge(self, probe: Probe) -> Verdict:
        """Return the verdict here; where it is not "right", generic points nearby decide."""
        outcome, here = self._judge_at_first(probe)
        bent = abs(here.second) > max(100 * here.tolerance, 0.01 * here.largest)
        slopes = self._slopes(probe) if outcome == "kink" or (outcome == "right" and bent) else None
        kinked = slopes is not None and slopes.differ.any()
        if outcome == "kink" and not kinked:
            outcome, here = self._judge_again(probe, here)
        # right may be the mean of two slopes, as 0 is of those of |x| at 0
        if outcome == "right" and not kinked:
            return outcome, here
        if outcome == "wrong" and not math.isfinite(here.analytic):
            return outcome, here
        for judge in self._generic_points():
            elsewhere, there = judge._judge_here(probe)
            if elsewhere == "wrong" and (outcome != "wrong" or _confirmed(here, there)):
                return "wrong", here if outcome == "wrong" else there
            if elsewhere == "right":
                return self._judge_kink(probe, slopes or self._slopes(probe), here, there)
        # no other point could be judged: all are on kinks, or there are none
        return "kink" if self._nearby else outcome, here

    def judge_ties(self, name: str) -> tuple[Probe, Verdict]:
        """Return a probe of an array that moves up as a whole, so that ties stay, and its verdict.

        Only the outputs that are smooth then take part, their slopes all counted as positive, so
        that what is paid too much for one does not cancel with another.
        """
        probe = Probe(name, 0, np.ones(self.gradients[name].size))
        slopes = self._slopes(probe)
        weight = abs(self.dy) * np.where(slopes.differ, 0, np.sign(slopes.above))
        judge = Judge(self.subject, np.asarray(weight), self.rng, self.precision)
        here = judge._measure(probe, self.precision.step)
        return probe, judge._judge_kink(probe, slopes, here, here, tied=True)

    def judge_widely(self, probe: Probe) -> Verdict:
        """Return the verdict by large steps, of which rounding hides less, or "kink".

        Each output must be linear over the step, to a hundredth, and no smaller step may contradict
        that by more than its rounding. The verdict is as coarse: an error of a tenth is wrong, if
        it is one at generic points nearby, too.
        """
        outcome, here = self._judge_widely_here(probe)
        nearby = self._generic_points() if outcome == "wrong" else ()
        if all(judge._judge_widely_here(probe)[0] == "wrong" for judge in nearby):
            return outcome, here
        return "kink", here

    def _judge_widely_here(self, probe: Probe) -> Verdict:
        step = self.precision.step
        rises = [self._rises(probe, step)]
        for factor in _WIDER:
            rises += [self._rises(probe, factor * step / 2), self._rises(probe, factor * step)]
            slope = rises[-1][0] / rises[-1][2]
            linear = all(
                np.all(abs(rise - slope * way) <= 2 * self._roundings + 0.01 * abs(slope * way))
                for above, below, way in rises
                for rise in (above, below)
            )
            full = self._measure(probe, factor * step)
            if linear and abs(full.numeric) > 10 * full.rounding:
                return ("wrong" if full.error > 0.1 * full.largest else "right"), full
        return "kink", full

    @cached_property
    def closer(self) -> "Judge | None":
        """A judge whose steps are relative to the arrays, if the values of one are tiny."""
        sizes = [_usual(self.subject.arrays[name]) for name in self.gradients]
        if self.smallest != 1 or not any(0 < size < _TINY for size in sizes):
            return None
        return Judge(self.subject, self.dy, self.rng, self.precision, SMALLEST)

    @cached_property
    def quieter(self) -> "Judge | None":
        """A judge without the outputs whose rounding is 1000 times the usual one, if any."""
        if not self.outputs.size:
            return None
        quiet = self._roundings <= 1000 * np.median(self._roundings)
        if quiet.all():
            return None
        return Judge(self.subject, self.dy * quiet, self.rng, self.precision)

    def at_generic_parameters(self) -> "Judge | None":
        """Return a judge where each parameter has changed by up to a half, none is 0.

        Every second one has the other sign. Where the function is not defined, signs stay, and the
        change is smaller, or it is None. The parameters of a function that names none are the
        arrays that are one number throughout, as a gain of ones is.
        """
        if not self._parameters:
            return None
        flipped = self._at(partial(self._generic_parameters, flips=True), 1)
        return flipped or self._at(self._generic_parameters, 1, 0.1, 0.01)

    def telling(self, found: Measured) -> bool:
        """Return whether a mistake would show: one of a hundredth, or of twice rtol."""
        return found.tolerance < (0.01 + 2 * self.precision.rtol) * found.largest

    def _judge_here(self, probe: Probe) -> Verdict:
        outcome, here = self._judge_at_first(probe)
        return self._judge_again(probe, here) if outcome == "kink" else (outcome, here)

    def _judge_at_first(self, probe: Probe) -> Verdict:
        first = self._measure(probe, self.precision.step)
        if not math.isfinite(first.analytic) and math.isfinite(first.numeric):
            return "wrong", first
        if first.error <= first.tolerance:
            return "right", first
        return ("wrong" if self._is_wrong(probe, first, 1) else "kink"), first

    def _judge_again(self, probe: Probe, first: Measured) -> Verdict:
        """Return the verdict of other steps on an error that the first step leaves open."""
        for factor in (*_RETRIES, *_CLOSER):
            full = self._measure(probe, factor * self.precision.step)
            # a finer step says nothing about an error that its rounding hides
            open_error = first.error if math.isfinite(first.error) else full.largest
            if full.error <= full.tolerance and full.rounding < open_error:
                return "right", full
            if factor in _RETRIES and self._is_wrong(probe, full, factor):
                return "wrong", full
        return "kink", first

    def _is_wrong(self, probe: Probe, full: Measured, factor: float) -> bool:
        half = self._measure(probe, factor * self.precision.step / 2)
        odd = abs(full.numeric - half.numeric)
        even = abs(full.second - 2 * half.second)  # S / h, so that 4 becomes 2
        # where the analytic value is huge, smoothness is judged by what the differences see
        seen = max(abs(full.numeric), abs(half.numeric)) + full.rounding
        smooth = max(odd, even) < _EVIDENCE * min(full.error, seen)
        # of an error within ten roundings, both differences say nothing
        return smooth and full.error > full.rounding and self._persists(probe, full)

    def _persists(self, probe: Probe, full: Measured) -> bool:
        """Return whether the error stays where the function may only look smooth from afar."""
        # what cancels inside of a function rounds more than its outputs show: less so from afar
        factors = (*_FINER, 8.0) if full.error < _SMALL * full.largest else _FINER
        others = (self._measure(probe, factor * self.precision.step) for factor in factors)
        return all(abs(m.off - full.off) < 0.5 * full.error + m.rounding for m in others)

    def _judge_kink(
        self, probe: Probe, slopes: Slopes, here: Measured, there: Measured, *, tied: bool = False
    ) -> Verdict:
        """Return the verdict on what is right `there`, beside the point, but not `here`."""
        if not tied and not slopes.differ.any():
            numeric = float((self.dy * slopes.above).sum())
            error = abs(here.analytic - numeric)
            slack = float((abs(self.dy) * slopes.slack).sum())
            seen = abs(numeric) + 10 * here.rounding
            known = slack < _EVIDENCE * seen
            if known and error <= here.tolerance + slack:
                return "between", there
            clear = known and slack < _EVIDENCE * error
            if clear and self._has_derivative(probe, slopes, error):
                return "smooth", here._replace(numeric=numeric, note="smooth there")
        low, high, slack = slopes.bounds(self.dy, tied)
        if not slack <= _EVIDENCE * (high - low):
            return "kink", here  # these are no slopes, but those of a step
        nearest = min(max(here.analytic, low), high)
        if abs(here.analytic - nearest) <= here.tolerance + slack:
            return "between", there
        if (
            (tied or slopes.differ.any())
            and self._has_two_slopes(probe, slopes)
            and not self._found_around(probe, here, tied)
        ):
            note = f"at a kink, expected {low:.6g} to {high:.6g}"
            return "outside", here._replace(numeric=nearest, note=note)
        return "kink", here

    def _has_derivative(self, probe: Probe, slopes: Slopes, error: float) -> bool:
        """Return whether the probe adds what its slopes say wherever all other entries move.

        The median of ties does not: no entry moves it alone, but one may as soon as others have.
        What it adds otherwise must be far less than the error that is judged.
        """
        step = self.precision.step
        with np.errstate(all="ignore"), suppress(Exception):
            for _ in range(_PIECES):
                moved = self.subject.copy()
                for name in self.gradients:
                    array = moved.arrays[name]
                    width = np.maximum(abs(array), self._least[name])
                    array += step * width * self.rng.uniform(-1, 1, array.shape)
                f = moved.outputs()
                above, below, _, length = either_side(moved, self._sized(probe), _ASIDE * step)
                way = length / 2
                off = np.maximum(
                    abs((above - f) / way - slopes.above), abs((f - below) / way - slopes.below)
                )
                if not _ASIDE * float((abs(self.dy) * off).sum()) < _EVIDENCE * error:
                    return False
            return True
        return False

    def _measure(self, probe: Probe, step: float) -> Measured:
        dy, gradient, precision = self.dy, self.gradients[probe.name], self.precision
        with np.errstate(all="ignore"):  # outside the domain of a function there is NaN
            f_above, f_below, taken, length = either_side(self.subject, self._sized(probe), step)
            # the sum of the differences, not the difference of the sums: it rounds less
            numeric = float((dy * (f_above - f_below)).sum()) / length
            analytic = float((gradient.reshape(-1)[probe.part] * taken).sum()) / length
            second = float((dy * ((f_above - self.outputs) - (self.outputs - f_below))).sum())
        rounding = self._rounding / abs(length / 2)
        tolerance = (
            precision.rtol * max(abs(analytic), abs(numeric))
            + precision.atol * self._largest[probe.name]
            + rounding
            + SMALLEST  # of an empty batch all the others are 0
        )
        return Measured(analytic, numeric, second / abs(length / 2), tolerance, 10 * rounding)

    def _sized(self, probe: Probe) -> Probe:
        return probe._replace(least=self._least[probe.name])

    def _rises(self, probe: Probe, step: float) -> tuple[FloatArray, FloatArray, float]:
        """Return how much each output rises up to the point above, from the one below, and how far.

        Outputs are NaN where the function is not defined.
        """
        with np.errstate(all="ignore"):
            f_above, f_below, _, length = either_side(self.subject, self._sized(probe), step)
            return f_above - self.outputs, self.outputs - f_below, length / 2

    def _slopes(self, probe: Probe) -> Slopes:
        """Return the one-sided slopes; how far they are off is seen at far smaller steps."""
        step = self.precision.step
        above, below, way = self._rises(probe, step)
        above, below = above / way, below / way
        off = np.zeros(above.shape)
        for factor in _CLOSER:
            closer_above, closer_below, way = self._rises(probe, factor * step)
            change = np.maximum(abs(closer_above / way - above), abs(closer_below / way - below))
            off = np.maximum(off, 2 * change - 4 * self._roundings / abs(way))
        return Slopes(above, below, off + self._roundings / (step / 2))

    def _has_two_slopes(self, probe: Probe, slopes: Slopes) -> bool:
        """Return whether each output that counts has one of its slopes at every point around."""
        counts = self.dy != 0
        relevant = Slopes(*(values[counts] for values in slopes))
        step = self.precision.step
        for _ in range(_PIECES):
            with np.errstate(all="ignore"):
                try:
                    around = self._near(10 * step)
                    f_above, f_below, _, length = either_side(around, probe, step / 16)
                except Exception:
                    return False
                slope = np.broadcast_to((f_above - f_below) / length, counts.shape)
                if not relevant.include(slope[counts]):
                    return False
        return True

    def _found_around(self, probe: Probe, here: Measured, tied: bool) -> bool:
        """Return whether the answer lies among those at points around, or may do so.

        Of ties the second largest is whichever comes second, and is paid for that. No step along
        one entry shows it, but somewhere around each entry comes second.
        """
        if self._around is None:
            return True
        low, high = self._around[probe.name]
        if tied:
            low, high = low[-1], high[-1]
        else:
            way = way_of(self.subject, self._sized(probe))
            ends = way * low[:-1][probe.part], way * high[:-1][probe.part]
            low, high = np.minimum(*ends).sum(), np.maximum(*ends).sum()
        slack = here.tolerance + ALIKE * max(abs(low), abs(high))
        return bool(low - slack <= here.analytic <= high + slack)

    @cached_property
    def _around(self) -> "dict[str, tuple[FloatArray, FloatArray]] | None":
        """The least and the largest gradients at points around, and along each array as a whole.

        There are so many points that half of them show nothing new. If that takes too many, or one
        fails, it is None.
        """
        found: dict[str, tuple[FloatArray, FloatArray]] = {}
        new = 0
        for count in range(1, _MANY + 1):
            try:
                with np.errstate(all="ignore"):
                    gradients = self._near(10 * self.precision.step).gradients(self.dy)
            except Exception:
                return None
            for name, gradient in gradients.items():
                whole = way_of(self.subject, Probe(name, 0, np.ones(gradient.size)))
                values = np.append(gradient, gradient.reshape(-1) @ whole)
                low, high = found.get(name, (values, values))
                slack = ALIKE * np.maximum(abs(low), abs(high))
                if np.any((values < low - slack) | (values > high + slack)):
                    new = count
                found[name] = np.minimum(low, values), np.maximum(high, values)
            if count >= max(_FEW, 2 * new):
                return found
        return None

    def _generic_points(self) -> Iterator["Judge"]:
        """Yield judges of the same subject about 1 % away, made when first asked for."""
        yield from self._nearby
        away = min(max(0.01, 4 * self.precision.step), 0.5)
        while len(self._nearby) < _NEARBY:
            judge = self._at(self._near, away, away / 100, away / 10_000)
            if judge is None:
                return
            self._nearby.append(judge)
            yield judge

    def _at(self, place: Callable[[float], Subject], *sizes: float) -> "Judge | None":
        """Return a judge at the first place where the function is defined, or None."""
        for size in sizes:
            with np.errstate(all="ignore"), suppress(Exception):
                return Judge(place(size), self.dy, self.rng, self.precision, self.smallest)
        return None

    def _near(self, size: float) -> Subject:
        """Return the subject with every array moved."""
        subject = self.subject.copy()
        for name in self.gradients:
            array = subject.arrays[name]
            width = abs(array) + (self._least[name] if self.smallest < 1 else _near_size(array))
            array += size * width * self.rng.uniform(-1, 1, array.shape)
        return subject

    @property
    def _parameters(self) -> Sequence[str]:
        arrays = {name: self.subject.arrays[name] for name in self.gradients}
        neutral = [name for name, a in arrays.items() if a.size > 1 and np.all(a == a.flat[0])]
        return self.subject.parameters or (neutral if len(arrays) > 1 else ())

    def _generic_parameters(self, size: float, *, flips: bool = False) -> Subject:
        subject = self.subject.copy()
        for array in (subject.arrays[name] for name in self._parameters):
            width = np.where(array == 0, _root_mean_square(array) or 1.0, array)
            array += size * width * self.rng.uniform(-0.5, 0.5, array.shape)
            array.reshape(-1)[::2] *= -1 if flips else 1
        return subject


def _confirmed(here: Measured, there: Measured) -> bool:
    """Return whether an error is not small, or much the same at another point."""
    relative, again = here.off / here.largest, there.off / there.largest
    return abs(relative) > _SMALL or 0.5 < again / relative < 2


def _usual(array: FloatArray) -> float:
    """Return the median size of what is not 0 in an array, 0 of none."""
    sizes = abs(array[array != 0])
    return float(np.median(sizes)) if sizes.size else 0.0


def _root_mean_square(array: FloatArray) -> float:
    return math.sqrt(float(np.mean(array**2))) if array.size else 0.0


def _near_size(array: FloatArray) -> float:
    """Return the root mean square, or 1 where that is tiny: so are steps relative to 1."""
    usual = _root_mean_square(array)
    return usual if usual > _TINY else 1.0
