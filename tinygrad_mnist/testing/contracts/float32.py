"""Whether float32 makes something else of what float64 computes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist.testing.arrays import close, largest
from tinygrad_mnist.testing.contracts.rules import Run

# what is computed of some arrays in a dtype, by name
Compute = Callable[[Any, Sequence[NDArray[Any]]], dict[str, NDArray[Any]]]
EPS = float(np.finfo(np.float32).eps)
_RTOL = 1e-3
_INSIDE = 1024  # of an EPS: where tanh(200 x) rounds to 1, 200 (1 - tanh(200 x)**2) becomes 0
_TINY = 1e-30  # products of small numbers vanish sooner than in float64
_LARGEST = 1e8  # the fourth power of more overflows


def cast(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Return floats in another dtype, and integers as they are."""
    return array.astype(dtype) if array.dtype.kind == "f" else array


def differing(
    compute: Compute, arrays: Sequence[NDArray[Any]], rounding: Callable[[str], float]
) -> str | None:
    """Return the name of a result that is another in float32, or None.

    Another by more than 1e-3 of its largest entry, `rounding(name)`, and what rounding the arrays
    does: in float64, and in float32, where what cancels inside rounds by more. And not at these
    arrays alone, which may lie on a kink, but also at two others nearby.
    """
    rng, name = np.random.default_rng(0), None
    for _ in range(3):
        name = _differing_at(compute, arrays, rounding, rng)
        if name is None:
            return None
        arrays = [_shaken(array, 0.01, rng) for array in arrays]
    return name


def require_alike(
    run: Run,
    compute: Compute,
    arrays: Sequence[NDArray[Any]],
    wanted: dict[str, NDArray[Any]],
    rounding: Callable[[str], float],
    message: str,
) -> dict[str, NDArray[Any]]:
    """Require of float32 what float64 gives, to rounding, and return what it gives.

    Arrays and results that are too large for float32 may give anything.
    """
    found = compute(np.float32, arrays)
    alike = all(close(found[w], a, tolerance(a, rounding(w))) for w, a in wanted.items())
    if not alike and within_range(*arrays, *wanted.values()):
        other = differing(compute, arrays, rounding)
        run.require(other is None, f"{message}, got another value of {other}")
    return found


def tolerance(wanted: NDArray[Any], rounding: float) -> float:
    """Return how far a result may be off in float32, beside what rounding its arrays does."""
    return _RTOL * largest(wanted) + _INSIDE * EPS * rounding + _TINY


def within_range(*arrays: NDArray[Any]) -> bool:
    """Return whether numbers are so small that float32 can compute with them."""
    return all(np.abs(array).max(initial=0) < _LARGEST for array in arrays)


def _differing_at(
    compute: Compute,
    arrays: Sequence[NDArray[Any]],
    rounding: Callable[[str], float],
    rng: np.random.Generator,
) -> str | None:
    arrays = [cast(cast(array, np.float32), np.float64) for array in arrays]
    found, wanted = compute(np.float32, arrays), compute(np.float64, arrays)
    pairs = [(np.float64, wanted), (np.float32, found)] * 3
    others = [(compute(kind, [_shaken(a, 4 * EPS, rng) for a in arrays]), r) for kind, r in pairs]
    for name, array in wanted.items():
        moved = max(largest(other[name] - result[name]) for other, result in others)
        if not close(found[name], array, tolerance(array, rounding(name)) + 4 * moved):
            return name
    return None


def _shaken(array: NDArray[Any], by: float, rng: np.random.Generator) -> NDArray[Any]:
    """Return floats moved by up to a fraction of their size, zeros to small positive numbers."""
    if array.dtype.kind != "f":
        return array
    noise = by * rng.random(array.shape)
    return np.where(array == 0, noise, array * (1 + 2 * noise - by))
