"""Arrays on entry: converted once, or refused."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist._checks.refusal import described, expected, refusal, type_error, value_error
from tinygrad_mnist._checks.settings import FLOATS, generator

FloatArray = NDArray[np.floating[Any]]
Kept = TypeVar("Kept")


@lru_cache(maxsize=64)
def constant(value: float, dtype: np.dtype[Any]) -> FloatArray:
    """Return a number as a read-only 0-d array of a dtype of floats; for any other, of float64.

    NumPy makes one of a Python number at each use, which takes 0.3 us; this one is kept.
    """
    array = np.array(value, dtype if dtype.kind == "f" else np.float64)
    array.setflags(write=False)
    return array


def real_array(owner: object, name: str, x: ArrayLike) -> NDArray[Any]:
    """Return x as an array of bools, integers or floats, copied only if it must be."""
    if type(x) is np.ndarray and x.dtype.kind in "biuf":
        return x
    contract = f"{name} to be an array of real numbers"
    if isinstance(x, np.ma.MaskedArray):
        raise refusal(TypeError, owner, contract, "a masked array")
    try:
        array = np.asarray(x)
    except (TypeError, ValueError) as error:  # ragged nested lists among them
        raise refusal(TypeError, owner, contract, f"a {type(x).__name__}: {error}") from None
    if array.dtype.kind not in "biuf":
        of_entries = isinstance(x, (list, tuple)) or hasattr(x, "__array__")
        kind = f"an array of dtype {array.dtype}" if array.ndim and of_entries else described(x)
        raise refusal(TypeError, owner, contract, kind)
    return array


def floats(owner: object, name: str, x: ArrayLike) -> FloatArray:
    """Return x itself if it holds native float32 or float64, else converted.

    Small integers, bools and float16 become float32, everything else float64.
    """
    if type(x) is np.ndarray and x.dtype in FLOATS:
        return x
    array = real_array(owner, name, x)
    dtype = np.promote_types(array.dtype, np.float32)
    return array.astype(dtype if dtype in FLOATS else np.float64, copy=False)


def owned(owner: object, name: str, x: ArrayLike, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a C-ordered copy of x in dtype that nobody else can change.

    For a dtype of integers, fractions and numbers that it cannot hold are refused.
    """
    if type(x) is np.ndarray and x.dtype == dtype:
        return x.copy()
    array = real_array(owner, name, x)
    if dtype.kind != "f" and (array.dtype.kind == "f" or (array.astype(dtype) != array).any()):
        raise TypeError(expected(owner, f"{name} to fit {dtype}", f"dtype {array.dtype}"))
    return np.array(array, dtype=dtype, order="C")


def cotangent(owner: object, dy: ArrayLike, like: FloatArray | None) -> FloatArray:
    """Return dy in the dtype of y, copied only if it must be; refuse one of another shape.

    `like` is any array of the shape and dtype of y, None (refused) where there was no forward.
    """
    if like is None:  # the tests stand here, too: a call of the function that refuses costs 60 ns
        like = kept(owner, like)
    known = type(dy) is np.ndarray and dy.dtype == like.dtype
    array: Any = dy if known else floats(owner, "dy", dy).astype(like.dtype, copy=False)
    if array.shape != like.shape:
        same_shape(owner, "dy", array, like.shape)
    return array  # type: ignore[no-any-return]


def kept(owner: object, value: Kept | None) -> Kept:
    """Return what forward kept; refuse a backward that comes before it."""
    if value is None:
        contract, got = "a forward before backward", "none, or one that failed"
        raise refusal(RuntimeError, owner, contract, got)
    return value


def same_shape(owner: object, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse an array of any other shape: nothing is broadcast."""
    if array.shape != shape:
        raise value_error(owner, f"{name} of shape {shape}", array.shape)


def drawn(
    owner: object,
    init: Callable[[tuple[int, int], np.random.Generator], ArrayLike],
    shape: tuple[int, int],
    rng: Any,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """Return the initial weights that init draws; refuse what is no function, or another shape."""
    if not callable(init):
        raise type_error(owner, "init to be a function", init)
    weights = owned(owner, "init's array", init(shape, generator(owner, rng)), dtype)
    same_shape(owner, "init's array", weights, shape)
    return weights


def writeable(owner: object, params: Iterable[Any]) -> None:
    """Refuse parameters with read-only data: BLAS ignores the flag and would write to it."""
    for p in params:
        if not p.data.flags.writeable:
            raise ValueError(expected(owner, "parameters with writeable data", "a read-only one"))
