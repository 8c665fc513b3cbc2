"""A probe: entries that move together by a step, up and down.

An entry v moves by the step times max(least, |v|). Along a direction of n entries each moves
1/sqrt(n) of that, and none by more than ten times the median.
"""

import math
from typing import NamedTuple

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.testing.subject import Subject

SMALLEST = float(np.finfo(np.float64).tiny)


class Probe(NamedTuple):
    """Neighbouring entries of an array, from flat index `start` on, that move together by signs."""

    name: str
    start: int
    signs: FloatArray
    least: float = 1.0  # a step is relative to the size of an entry, or to this if that is less

    @property
    def part(self) -> slice:
        """Return the flat indices."""
        return slice(self.start, self.start + len(self.signs))

    def halves(self) -> list["Probe"]:
        """Return the probes of the first and of the second half of the entries."""
        middle = len(self.signs) // 2
        first, second = self.signs[:middle], self.signs[middle:]
        return [
            self._replace(signs=first),
            self._replace(start=self.start + middle, signs=second),
        ]


def either_side(
    subject: Subject, probe: Probe, step: float
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Return the outputs a step above and a step below, the way between them and its length.

    The length is negative where a single entry moves down. Outputs are NaN where the function is
    not defined.
    """
    array = subject.arrays[probe.name].reshape(-1)[probe.part]
    kept = array.copy()
    h = step * _way(kept, probe)
    try:
        array[:] = kept + h
        above, f_above = array.astype(np.float64), _outputs_or_nan(subject)
        array[:] = kept - h
        below, f_below = array.astype(np.float64), _outputs_or_nan(subject)
    finally:
        array[:] = kept
    taken = above - below  # not 2 h: the sums were rounded, to the array's dtype
    length = math.sqrt(taken @ taken) or SMALLEST
    return f_above, f_below, taken, math.copysign(length, taken[0]) if len(taken) == 1 else length


def way_of(subject: Subject, probe: Probe) -> FloatArray:
    """Return the direction in which a probe moves, of length 1."""
    way = _way(subject.arrays[probe.name].reshape(-1)[probe.part], probe)
    return np.asarray(way / (np.linalg.norm(way) or 1))


def _way(values: FloatArray, probe: Probe) -> FloatArray:
    size = np.maximum(probe.least, abs(values))
    if len(size) > 1:  # or one huge entry would be the direction
        size = np.minimum(size, 10 * np.median(size))
    return probe.signs * size / math.sqrt(len(size))


def _outputs_or_nan(subject: Subject) -> FloatArray:
    try:
        return subject.outputs()
    except Exception:
        return np.array(np.nan)
