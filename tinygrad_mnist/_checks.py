"""One style of refusal for bad input: `Owner: expected <contract>, got <value>`.

`owner` is the object that refuses, or the name of the function that does.
"""

import math
import numbers
import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

FloatArray = NDArray[np.floating[Any]]
T = TypeVar("T")

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def expected(owner: object, contract: str, value: object) -> str:
    """Return the text of a refusal."""
    name = owner if isinstance(owner, str) else type(owner).__name__
    return f"{name}: expected {contract}, got {value}"


@contextmanager
def refusing(owner: object, contract: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """Turn whatever goes wrong in a `with` block into one refusal of this kind."""
    try:
        yield
    except Exception as error:  # of zipfile, zlib, tokenize, Keras, ...: the list has no end
        found = str(error) or type(error).__name__
        raise kind(expected(owner, contract, found)) from error


def described(value: object) -> str:
    """Return how a message shows a value: numbers and short texts as they are, the rest by kind."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, int) and abs(value) >= 10**80:
        return "an integer of more than 80 digits"
    if value is None or isinstance(value, (numbers.Number, np.generic, str)):
        return repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"a {type(value).__name__}"


def integer(owner: object, name: str, value: Any, *, at_least: int) -> int:
    """Return value as an int, or refuse: bools and floats are no integers."""
    contract = f"{name} to be an integer >= {at_least}"
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(expected(owner, contract, described(value)))
    if number < at_least:
        raise ValueError(expected(owner, contract, described(value)))
    return number


def real(owner: object, name: str, value: Any, interval: str) -> float:
    """Return value as a finite float within an interval written as in "[0, 1)", or refuse."""
    contract = f"{name} in {interval}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(expected(owner, contract, described(value)))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    inside = (low < number or (interval[0] == "[" and number == low)) and (
        number < high or (interval[-1] == "]" and number == high)
    )
    if not (inside and math.isfinite(number)):
        raise ValueError(expected(owner, contract, described(value)))
    return number


def flag(owner: object, name: str, value: Any) -> bool:
    """Return value if it is a bool, or refuse."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(expected(owner, f"{name} to be a bool", described(value)))
    return bool(value)


def choice(owner: object, name: str, value: Any, choices: tuple[T, ...]) -> T:
    """Return value if it is one of the choices, all of them texts, or refuse."""
    if not isinstance(value, str) or value not in choices:
        *others, last = (f'"{known}"' for known in choices)
        contract = f"{name} {', '.join(others)} or {last}"
        raise ValueError(expected(owner, contract, described(value)))
    return value


def float_dtype(owner: object, dtype: DTypeLike) -> np.dtype[Any]:
    """Return dtype if it is float32 or float64 in native byte order, or refuse."""
    contract = "dtype float32 or float64"
    try:
        found = np.dtype(dtype) if dtype is not None else None
    except (SyntaxError, TypeError, ValueError):
        found = None
    if found is None or found not in FLOATS:
        raise TypeError(expected(owner, contract, described(dtype) if found is None else found))
    return found


def generator(owner: object, rng: Any) -> np.random.Generator:
    """Return rng if it is a Generator, one seeded with it if an int, a fresh one if None."""
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is None:
        return np.random.default_rng()
    try:
        return np.random.default_rng(integer(owner, "rng", rng, at_least=0))
    except TypeError:
        contract = "rng to be a seed, a numpy.random.Generator or None"
        raise TypeError(expected(owner, contract, described(rng))) from None


def real_array(owner: object, name: str, x: ArrayLike) -> NDArray[Any]:
    """Return x as an array of bools, integers or floats, or refuse; copies only what it must."""
    contract = f"{name} to be an array of real numbers"
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(expected(owner, contract, "a masked array"))
    try:
        array = np.asarray(x)
    except (TypeError, ValueError) as error:  # ragged nested lists among them
        raise TypeError(expected(owner, contract, f"a {type(x).__name__}: {error}")) from None
    if array.dtype.kind not in "biuf":
        kind = f"an array of dtype {array.dtype}" if array.ndim else described(x)
        raise TypeError(expected(owner, contract, kind))
    return array


def floats(owner: object, name: str, x: ArrayLike) -> FloatArray:
    """Return x itself if it holds native float32 or float64, else converted, or refuse.

    Small integers, bools and float16 become float32, everything else float64.
    """
    if type(x) is np.ndarray and x.dtype in FLOATS:
        return x
    array = real_array(owner, name, x)
    dtype = np.promote_types(array.dtype, np.float32)
    return array.astype(dtype if dtype in FLOATS else np.float64, copy=False)


def owned(owner: object, name: str, x: ArrayLike, dtype: np.dtype[Any]) -> FloatArray:
    """Return a C-ordered copy of x in dtype that nobody else can change."""
    if type(x) is np.ndarray and x.dtype == dtype:
        return x.copy()
    with np.errstate(under="ignore"):  # too small for float32 is 0
        return np.array(real_array(owner, name, x), dtype=dtype, order="C")


def cotangent(
    owner: object, dy: ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> FloatArray:
    """Return dy in the dtype of y, not copied if it is already, or refuse another shape."""
    array = floats(owner, "dy", dy)
    if array.dtype != dtype:
        with np.errstate(under="ignore"):  # too small for float32 is 0
            array = array.astype(dtype)
    same_shape(owner, "dy", array, shape)
    return array


def writeable(owner: object, arrays: Iterable[NDArray[Any]]) -> None:
    """Refuse parameters of which one is read-only: BLAS would write all the same."""
    if not all([array.flags.writeable for array in arrays]):
        raise ValueError(expected(owner, "parameters with writeable data", "a read-only one"))


def same_shape(owner: object, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse an array of any other shape: nothing is broadcast."""
    if array.shape != shape:
        raise ValueError(expected(owner, f"{name} of shape {shape}", array.shape))


def kept(owner: object, value: T | None) -> T:
    """Return what forward kept, or refuse a backward that comes before it."""
    if value is None:
        raise RuntimeError(expected(owner, "a forward before backward", "none, or one that failed"))
    return value


def class_indices(owner: object, array: NDArray[Any], num_classes: int) -> NDArray[np.intp]:
    """Return labels as indices, or refuse: floats and bools are none, -1 is no index."""
    if array.dtype.kind not in "iu":
        raise TypeError(expected(owner, "labels to be integers", f"dtype {array.dtype}"))
    outside = (array < 0) | (array >= num_classes)
    if np.count_nonzero(outside):
        raise ValueError(expected(owner, f"labels in [0, {num_classes})", array[outside].flat[0]))
    return array.astype(np.intp, copy=False)


def scores(owner: object, pred: ArrayLike) -> NDArray[Any]:
    """Return pred as an array with the classes on its last axis, or refuse."""
    y = real_array(owner, "pred", pred)
    if not (y.ndim and y.size):
        contract = "pred of shape (..., classes) with at least one element"
        raise ValueError(expected(owner, contract, f"shape {y.shape}"))
    return y


def true_classes(owner: object, target: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the class of each sample: the argmax of a target of this shape, or a label each."""
    t = real_array(owner, "target", target)
    if t.shape == shape:
        return np.asarray(t.argmax(axis=-1))
    if t.shape != shape[:-1]:
        contract = f"target of shape {shape}, or labels of shape {shape[:-1]}"
        raise ValueError(expected(owner, contract, t.shape))
    return class_indices(owner, t, shape[-1])
