"""The only place that multiplies matrices: SciPy's BLAS, written straight into our arrays.

Every matrix here is C-ordered, of one dtype (float32 or float64). BLAS is Fortran: it reads a
C-ordered W as W.T, without a copy. So each product below is handed over transposed.

Threads: a product of little work runs on one thread, a large one on as many as BLAS has been given;
see `num_threads`. The count is set and set back around each call, for SciPy's BLAS alone.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy.linalg.blas import get_blas_funcs
from threadpoolctl import ThreadpoolController

from tinygrad_mnist._checks import FLOATS, FloatArray, described, expected, integer

# Multiply-adds up to which BLAS uses one thread anyway, and from which on two threads pay.
# Between them, and for a single row at any size, they cost: waking them, and fetching W from the
# other core's cache afterwards, made a step of 784 x 100 take 2 to 6 times as long.
_ALWAYS_SERIAL = 8_192
_WORTH_THREADS = 16_000_000
_MOST_THREADS = 1024


def _thread_functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Return how to get and set the thread count of SciPy's OpenBLAS, None if it has another BLAS.

    NumPy may bring a library of the same name, with threads of its own: they differ by folder.
    Where only one is loaded, as in a conda environment, both use it.
    """
    loaded = ThreadpoolController().select(internal_api="openblas").lib_controllers
    scipy_folder = Path(scipy.__file__).resolve().parent
    folders = {scipy_folder, scipy_folder.with_name("scipy.libs")}
    own = [lib for lib in loaded if folders & set(Path(lib.filepath).resolve().parents)]
    if not own and len(loaded) != 1:
        return None
    # its own functions: threadpoolctl's take three times as long, and would keep other threads
    # of the process from setting theirs
    library = (own or loaded)[0].dynlib
    for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
        get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
        if get is not None:
            return get, getattr(library, f"{prefix}openblas_set_num_threads{suffix}")
    return None


def _by_dtype(name: str) -> dict[np.dtype[Any], Any]:
    """Return the float32 and the float64 variant of a BLAS routine, by dtype."""
    return {dtype: get_blas_funcs(name, dtype=dtype) for dtype in FLOATS}


def _from_environment() -> int | None:
    """Return the count in TINYGRAD_MNIST_NUM_THREADS, None if it is not set."""
    text = os.environ.get("TINYGRAD_MNIST_NUM_THREADS", "")
    if text and not (text.isdecimal() and 1 <= int(text) <= _MOST_THREADS):
        contract = f"an integer from 1 to {_MOST_THREADS}"
        raise ValueError(expected("TINYGRAD_MNIST_NUM_THREADS", contract, described(text)))
    return int(text) if text else None


_THREADS = _thread_functions()
_fixed_count = _from_environment()
_GEMM, _GEMV, _GER = _by_dtype("gemm"), _by_dtype("gemv"), _by_dtype("ger")
_AXPY, _SCAL, _DOT = _by_dtype("axpy"), _by_dtype("scal"), _by_dtype("dot")


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Run every product of the package on n threads inside a `with` block.

    Without it, products of fewer than 16 million multiply-adds, and all of a single row, run on
    one thread, larger ones on as many as the process has given to SciPy's BLAS (by default, all
    cores). The environment variable TINYGRAD_MNIST_NUM_THREADS sets n from the start. Not for
    several Python threads at once.

    Args:
        n: From 1 to 1024.

    Raises:
        ValueError: n is any other number.
        TypeError: n is no integer.
    """
    global _fixed_count
    n = integer("num_threads", "n", n, at_least=1)
    if n > _MOST_THREADS:
        raise ValueError(expected("num_threads", f"n <= {_MOST_THREADS}", described(n)))
    before, _fixed_count = _fixed_count, n
    try:
        yield
    finally:
        _fixed_count = before


def affine(x: FloatArray, W: FloatArray, b: FloatArray | None) -> FloatArray:
    """Return x @ W + b, for x (..., I), W (I, O) and b (O,)."""
    if x.ndim == 1:
        if b is None:
            return _call(_GEMV, W, 1.0, W.T, x)  # type: ignore[no-any-return]
        return _call(_GEMV, W, 1.0, W.T, x, beta=1.0, y=b.copy(), overwrite_y=1)  # type: ignore[no-any-return]
    y = np.zeros((*x.shape[:-1], W.shape[1]), W.dtype)
    if b is not None:
        y += b
    rows, out = _rows(x), _rows(y)
    _call(_GEMM, W, 1.0, W.T, rows.T, beta=1.0, c=out.T, overwrite_c=1, rows=len(rows))
    return y


def times_transposed(dy: FloatArray, W: FloatArray) -> FloatArray:
    """Return dy @ W.T, for dy (..., O) and W (I, O)."""
    if dy.ndim == 1:
        return _call(_GEMV, W, 1.0, W.T, dy, trans=1)  # type: ignore[no-any-return]
    dx = np.zeros((*dy.shape[:-1], W.shape[0]), W.dtype)
    rows, out = _rows(dy), _rows(dx)
    _call(_GEMM, W, 1.0, W.T, rows.T, c=out.T, overwrite_c=1, trans_a=1, rows=len(rows))
    return dx


def add_product(out: FloatArray, a: FloatArray, b: FloatArray, scale: float) -> None:
    """out += scale * a.T @ b over all leading axes, for out (I, O), a (..., I) and b (..., O)."""
    if a.ndim == 1:
        _call(_GER, out, scale, b, a, a=out.T, overwrite_a=1)
        return
    a, b = _rows(a), _rows(b)
    options = {"beta": 1.0, "c": out.T, "overwrite_c": 1, "trans_b": 1}
    _call(_GEMM, out, scale, b.T, a.T, **options, rows=len(a))


def add_scaled(out: FloatArray, x: FloatArray, scale: float) -> None:
    """out += scale * x, for two arrays of one shape, without a temporary."""
    _call(_AXPY, out, x.reshape(-1), out.reshape(-1), a=scale)


def multiply(out: FloatArray, factor: float) -> None:
    """out *= factor, without NumPy's warning when a tiny number underflows to 0."""
    _call(_SCAL, out, factor, out.reshape(-1))


def dot(a: FloatArray, b: FloatArray) -> float:
    """Return the sum of a * b, for two arrays of one shape, not empty."""
    return float(_call(_DOT, a, a.reshape(-1), b.reshape(-1)))


def _rows(x: FloatArray) -> FloatArray:
    """Return x with all its leading axes as one."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _call(
    routines: dict[Any, Any], array: FloatArray, *args: Any, rows: int = 1, **options: Any
) -> Any:
    """Call the routine for array's dtype; the work is one multiply-add per row and element."""
    work = rows * array.size
    if work <= _ALWAYS_SERIAL or _THREADS is None:
        return routines[array.dtype](*args, **options) if work else None  # BLAS takes no empty ones
    count = _fixed_count
    if count is None:
        if rows > 1 and work >= _WORTH_THREADS:
            return routines[array.dtype](*args, **options)
        count = 1
    get_count, set_count = _THREADS
    before = get_count()
    if before == count:
        return routines[array.dtype](*args, **options)
    set_count(count)
    try:
        return routines[array.dtype](*args, **options)
    finally:
        set_count(before)
