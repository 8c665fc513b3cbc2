"""How exact the numbers of a function are, found out rather than believed."""

from typing import NamedTuple

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.testing.arrays import largest
from tinygrad_mnist.testing.subject import Subject

_FEW_BITS = 12  # counts, halves and constants need no more
_LINES = (1e-7, 1e-6)  # steps relative to each entry, of about the width of float32's own
_POINTS = 13  # on a line
_ROUNDED = (2e-8, 1e-4)  # of the largest output, what fourth differences of float32 come to


class Precision(NamedTuple):
    """A dtype, its eps, and the settings of `check_gradients` that suit it."""

    name: str
    eps: float
    rtol: float
    atol: float
    step: float


# the step balances what a difference leaves out, step**2, with its rounding, eps / step
DOUBLE = Precision("float64", 2**-52, 1e-7, 1e-12, step=(2**-52) ** (1 / 3))
SINGLE = Precision("float32", 2**-23, 2e-3, 1e-3, step=(2**-23) ** (1 / 3))


def precision_of(subject: Subject, rng: np.random.Generator) -> Precision:
    """Return SINGLE if the arrays are float32, or the outputs float32 numbers in whatever arrays.

    At arrays with every digit of float64 no function of them gives only float32 numbers by chance,
    but for numbers of few digits, as counts are.
    """
    if any(array.dtype == np.float32 for array in subject.arrays.values()):
        return SINGLE
    if not _float32_numbers(subject.outputs()):
        return DOUBLE
    moved = subject.copy()
    for array in moved.arrays.values():
        if array.dtype.kind == "f":
            array += 0.001 * (1 + abs(array)) * rng.uniform(-1, 1, array.shape)
    with np.errstate(all="ignore"):
        try:
            outputs = moved.outputs()
        except Exception:  # outside the function's domain
            return DOUBLE
    return SINGLE if _float32_numbers(outputs) and _of_many_digits(outputs) else DOUBLE


def rounds_inside(subject: Subject, rng: np.random.Generator) -> bool:
    """Return whether a function of float64 outputs rounds to float32 on its way.

    On a short line a function that is computed in float64 is smooth. One that is rounded to
    float32 is a staircase: at any step it has fourth differences of some 1e-7. Those of a smooth
    function grow with the step to the fourth, by 10,000 from one line to the other.
    """
    least, most = _ROUNDED
    with np.errstate(all="ignore"):
        try:
            short, long = (_fourth_differences(subject.copy(), step, rng) for step in _LINES)
        except Exception:  # outside the function's domain
            return False
    return bool(least < short and long < most and long < 100 * short)


def _float32_numbers(outputs: FloatArray) -> bool:
    with np.errstate(over="ignore"):
        fit = outputs == outputs.astype(np.float32)
    return bool(np.all(fit & np.isfinite(outputs)))


def _of_many_digits(outputs: FloatArray) -> bool:
    return bool(np.any(np.frexp(outputs)[0] * 2.0**_FEW_BITS % 1))


def _fourth_differences(subject: Subject, step: float, rng: np.random.Generator) -> float:
    """Return how large they usually are on a line, relative to the largest output."""
    arrays = [array for array in subject.arrays.values() if array.dtype.kind == "f"]
    steps = [step * array * rng.uniform(-1, 1, array.shape) for array in arrays]
    outputs = [subject.outputs()]
    for _ in range(_POINTS - 1):
        for array, way in zip(arrays, steps, strict=True):
            array += way
        outputs.append(subject.outputs())
    differences = [largest(difference) for difference in np.diff(outputs, 4, axis=0)]
    # the median, since less than half of them are of points on either side of a kink
    return float(np.median(differences)) / max(map(largest, outputs))
