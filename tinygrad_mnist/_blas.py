"""The only place that multiplies matrices: SciPy's BLAS, written straight into our arrays.

Every matrix is C-ordered, unless a function says more, and of one dtype (float32 or float64). BLAS
is Fortran: it reads a C-ordered W as W.T, without a copy. So each product below is passed
transposed.
"""

import math
from typing import Any

import numpy as np
from scipy.linalg.blas import get_blas_funcs

from tinygrad_mnist import _threads
from tinygrad_mnist._checks import FLOATS, FloatArray
from tinygrad_mnist._threads import ALWAYS_SERIAL, COUNT_FUNCTIONS, WORTH_THREADS


def _by_dtype(name: str) -> dict[np.dtype[Any], Any]:
    """Return the float32 and the float64 variant of a BLAS routine, by dtype."""
    return {dtype: get_blas_funcs(name, dtype=dtype) for dtype in FLOATS}


_GEMM, _GEMV, _GER = _by_dtype("gemm"), _by_dtype("gemv"), _by_dtype("ger")
_AXPY, _DOT, _NRM2 = _by_dtype("axpy"), _by_dtype("dot"), _by_dtype("nrm2")


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


def affine_of_columns(x: FloatArray, W: FloatArray, b: FloatArray | None) -> FloatArray:
    """Return W.T @ x + b[:, None], for x (I, B), W (I, O) and b (O,)."""
    y = np.zeros((W.shape[1], x.shape[1]), W.dtype)
    if b is not None:
        y += b[:, None]
    _call(_GEMM, W, 1.0, x.T, W.T, beta=1.0, c=y.T, overwrite_c=1, trans_b=1, rows=x.shape[1])
    return y


def times_columns(dy: FloatArray, W: FloatArray) -> FloatArray:
    """Return W @ dy, for dy (O, B) and W (I, O)."""
    dx = np.zeros((W.shape[0], dy.shape[1]), W.dtype)
    _call(_GEMM, W, 1.0, dy.T, W.T, c=dx.T, overwrite_c=1, rows=dy.shape[1])
    return dx


def add_product(out: FloatArray, a: FloatArray, b: FloatArray, scale: float) -> None:
    """out += scale * a.T @ b over all leading axes, for out (I, O), a (..., I) and b (..., O).

    out may have several axes instead of I. A matrix a or b may be the transpose of a C-ordered one.
    """
    if out.ndim != 2:
        out = _rows(out)
    if a.ndim == 1:
        _call(_GER, out, scale, b, a, a=out.T, overwrite_a=1)
        return
    a, b = _rows(a), _rows(b)
    a_in_rows, b_in_rows = a.flags.c_contiguous, b.flags.c_contiguous
    left, right = b.T if b_in_rows else b, a.T if a_in_rows else a
    trans = {"trans_a": not b_in_rows, "trans_b": a_in_rows}
    _call(_GEMM, out, scale, left, right, beta=1.0, c=out.T, overwrite_c=1, **trans, rows=len(a))


def add_scaled(out: FloatArray, x: FloatArray, scale: float) -> None:
    """out += scale * x, for two arrays of one shape, without a temporary."""
    _call(_AXPY, out, x.reshape(-1), out.reshape(-1), a=scale)


def dot(a: FloatArray, b: FloatArray) -> float:
    """Return the sum of a * b, for two arrays of one shape, not empty."""
    return float(_call(_DOT, a, a.reshape(-1), b.reshape(-1)))


def norm(a: FloatArray) -> float:
    """Return the root of the sum of a**2, of which no square overflows."""
    return float(_call(_NRM2, a, a.reshape(-1)) or 0.0)


def _rows(x: FloatArray) -> FloatArray:
    """Return x with all its leading axes as one."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _call(
    routines: dict[Any, Any], work_of: FloatArray, *args: Any, rows: int = 1, **options: Any
) -> Any:
    """Call the routine for an array's dtype; the work is rows * its size, in multiply-adds.

    The thread policy is written out here: a separate function would cost 1 to 3 microseconds.
    """
    work = rows * work_of.size
    if work <= ALWAYS_SERIAL or COUNT_FUNCTIONS is None:
        return routines[work_of.dtype](*args, **options) if work else None  # BLAS refuses empties
    count = _threads.fixed_count
    if count is None:
        if rows > 1 and work >= WORTH_THREADS:
            return routines[work_of.dtype](*args, **options)
        count = 1
    get_count, set_count = COUNT_FUNCTIONS
    before = get_count()
    if before == count:
        return routines[work_of.dtype](*args, **options)
    try:
        set_count(count)
        return routines[work_of.dtype](*args, **options)
    finally:
        set_count(before)
