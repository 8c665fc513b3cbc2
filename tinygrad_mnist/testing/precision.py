"""How exact the numbers of a function are, found out rather than believed."""

from typing import NamedTuple

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.testing.subject import Subject

_FEW_BITS = 12  # counts, halves and constants need no more


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


def _float32_numbers(outputs: FloatArray) -> bool:
    with np.errstate(over="ignore"):
        fit = outputs == outputs.astype(np.float32)
    return bool(np.all(fit & np.isfinite(outputs)))


def _of_many_digits(outputs: FloatArray) -> bool:
    return bool(np.any(np.frexp(outputs)[0] * 2.0**_FEW_BITS % 1))
