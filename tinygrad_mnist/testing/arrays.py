"""Arrays that are laid out, compared and overwritten, to see who notices."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of the same numbers that nobody can write into."""
    return np.broadcast_to(array.copy(), array.shape)


# the same numbers in other memory
LAYOUTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "Fortran-ordered": partial(np.array, order="F"),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
}
MORE_LAYOUTS = LAYOUTS | {
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "read-only": read_only,
}


def is_array(value: Any) -> bool:
    """Return whether a value is an array of real numbers, or one number."""
    numeric = isinstance(value, (np.ndarray, np.generic, float, int))
    return numeric and np.asarray(value).dtype.kind in "biuf"


def equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Return whether two arrays have the same shape and the same numbers, NaN equal to NaN."""
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def close(a: NDArray[Any], b: NDArray[Any], atol: float) -> bool:
    """Return whether two arrays have the same shape, and numbers no further apart than atol."""
    if a.shape != b.shape:
        return False
    with np.errstate(invalid="ignore", over="ignore"):  # infinity - infinity
        near = np.abs(a - b) <= atol
    return bool(near.all()) or np.allclose(a, b, rtol=0, atol=atol, equal_nan=True)


def largest(array: NDArray[Any]) -> float:
    """Return the largest finite size of an entry, 0 of none."""
    sizes = np.abs(array)
    top = float(sizes.max(initial=0))
    return top if top < np.inf else float(sizes.max(initial=0, where=np.isfinite(sizes)))


def finite(*arrays: NDArray[Any]) -> bool:
    """Return whether there is neither NaN nor infinity in any of the arrays."""
    return all(np.isfinite(array).all() for array in arrays)


def spoil(*arrays: Any) -> None:
    """Overwrite arrays, where that can be done: floats with NaN, others with 0."""
    for array in arrays:
        if isinstance(array, np.ndarray) and array.flags.writeable:
            array[...] = np.nan if array.dtype.kind == "f" else 0


def still_spoiled(array: Any) -> bool:
    """Return whether nobody has written into an array since."""
    if not isinstance(array, np.ndarray) or not array.flags.writeable:
        return True
    return bool((np.isnan(array) if array.dtype.kind == "f" else array == 0).all())
