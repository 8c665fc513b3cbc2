"""The only place that multiplies matrices, and where the arrays begin that products are added to.

NumPy's wheel has the newer OpenBLAS, which multiplies batches. SciPy's adds a product to an array
without a temporary, and serves single rows, and what is worth several threads. Its routines are
Fortran: they read a C-ordered W as W.T, so what they get below is transposed. All matrices are of
one dtype (float32 or float64), and C-ordered unless a function says more.
"""

import math
from collections.abc import Callable
from contextvars import Context
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import get_blas_funcs

from tinygrad_mnist._checks import FLOATS, FloatArray
from tinygrad_mnist._threads import NUMPY, SCIPY, WORTH_THREADS, called

# In multiply-adds: below these, OpenBLAS takes one thread by itself, for products with a vector
# and with a matrix.
_SERIAL_VECTOR = 8_192
_SERIAL_MATRIX = 262_144


def _by_dtype(name: str) -> dict[np.dtype[Any], Any]:
    """Return the float32 and the float64 variant of a BLAS routine, by dtype."""
    return {dtype: get_blas_funcs(name, dtype=dtype) for dtype in FLOATS}


# NumPy would report overflow and invalid values, and some kernels of OpenBLAS raise the flag of the
# latter where there is none. A context of our own costs 0.3 us a product, `np.errstate` 0.9.
_QUIET = Context()
_QUIET.run(np.seterr, all="ignore")

_GEMM, _GEMV, _GER = _by_dtype("gemm"), _by_dtype("gemv"), _by_dtype("ger")
_AXPY, _NRM2 = _by_dtype("axpy"), _by_dtype("nrm2")


def aligned(values: NDArray[Any]) -> NDArray[Any]:
    """Return a C-ordered copy that starts with a cache line, of 64 bytes.

    A step of 784 x 40 takes 1 us less than with the 16 bytes of NumPy's own arrays: fewer of the
    vectors that BLAS loads and stores lie on two lines.
    """
    copy = _from_cache_line(np.empty, values.shape, values.dtype)
    copy[...] = values
    return copy


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return C-ordered zeros that start with a cache line."""
    return _from_cache_line(np.zeros, shape, dtype)


def _from_cache_line(
    make: Callable[..., NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return a part of an array of bytes, which make(size, np.uint8) returns."""
    size = math.prod(shape) * dtype.itemsize
    memory = make(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return a @ b, for a (..., I) and b (I, O), a C-ordered matrix or the transpose of one."""
    if a.ndim > 1:
        return _batch_product(a, b)
    # for one row, SciPy's BLAS takes 0.3 us less than NumPy's that is kept quiet
    gemv, size = _GEMV[b.dtype], b.size
    matrix, trans = (b, 1) if b.flags.f_contiguous else (b.T, 0)
    # the numbers are beta, y, offx, incx, offy, incy: keywords would cost 0.5 us
    if size <= _SERIAL_VECTOR:
        return gemv(1.0, matrix, a, 0.0, None, 0, 1, 0, 1, trans)  # type: ignore[no-any-return]
    return called(SCIPY, size, 1, gemv, 1.0, matrix, a, 0.0, None, 0, 1, 0, 1, trans)


def products(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return a @ b, for a (..., I, J) and b (..., J, K), of which one may be a single matrix."""
    rows = min(a.shape[-2], b.shape[-1])  # and work are those of one of the products
    work = a.shape[-2] * a.shape[-1] * b.shape[-1]
    return _by_numpy(work, rows, np.matmul, a, b)


def add_product(out: FloatArray, a: FloatArray, b: FloatArray, scale: float) -> None:
    """out += scale * a.T @ b over all leading axes, for out (I, O), a (..., I) and b (..., O).

    A scale of 0 adds nothing.
    """
    if a.ndim != 2:
        a, b = _rows(a), _rows(b)
    rows = len(a)
    work = rows * out.size
    if not (work and scale):  # BLAS refuses empty arrays, and some kernels make NaN of 0 * NaN
        return
    gemm = _GEMM[out.dtype]
    # the last numbers are trans_a, trans_b and overwrite_c: keywords would cost 0.5 us
    if work > _SERIAL_MATRIX:
        if rows > 1:
            called(SCIPY, work, rows, gemm, scale, b.T, a.T, 1.0, out.T, 0, 1, 1)
        else:
            called(SCIPY, work, rows, _GER[out.dtype], scale, b[0], a[0], a=out.T, overwrite_a=1)
    elif rows > 1:
        gemm(scale, b.T, a.T, 1.0, out.T, 0, 1, 1)
    else:  # one row is its own transpose, and gemm takes half the time if it need not transpose
        gemm(scale, b.T, a, 1.0, out.T, 0, 0, 1)


def add_scaled(out: FloatArray, x: FloatArray, scale: float) -> None:
    """out += scale * x, for two arrays of one shape, without a temporary."""
    _of_vectors(_AXPY, x, out, a=scale)


def dot(a: FloatArray, b: FloatArray) -> float:
    """Return the sum of a * b, for two arrays of one shape."""
    if a.size <= _SERIAL_VECTOR:
        return float(np.vdot(a, b))
    return float(called(NUMPY, a.size, 1, np.vdot, a, b))


def norm(a: FloatArray) -> float:
    """Return the root of the sum of a**2, of which no square overflows."""
    return float(_of_vectors(_NRM2, a) or 0.0)


def _batch_product(a: FloatArray, b: FloatArray) -> FloatArray:
    if a.ndim > 2:  # NumPy's dot would not ask BLAS
        return _batch_product(_rows(a), b).reshape(*a.shape[:-1], b.shape[1])
    if len(a) == 1:
        return product(a[0], b)[None]
    if len(b) == 1:  # here NumPy's dot takes 0 * inf and 0 * NaN for 0
        return _quietly(np.multiply, a, b)
    columns = b.shape[1]
    work = a.size * columns
    if work < WORTH_THREADS or columns == 1:
        return _by_numpy(work, columns, a.dot, b)
    # an update will need SciPy's threads, and NumPy's would still be waiting for work beside them
    matrix, trans = (b, 1) if b.flags.f_contiguous else (b.T, 0)
    y = called(SCIPY, work, columns, _GEMM[b.dtype], 1.0, matrix, a.T, trans_a=trans)
    return y.T  # type: ignore[no-any-return]


def _by_numpy(work: int, rows: int, routine: Callable[..., Any], *args: FloatArray) -> FloatArray:
    """Call a routine of NumPy's; with one row, or one column, it multiplies by a vector."""
    if work <= (_SERIAL_VECTOR if rows == 1 else _SERIAL_MATRIX):
        return _quietly(routine, *args)
    return called(NUMPY, work, rows, _quietly, routine, *args)


def _quietly(routine: Callable[..., Any], *args: FloatArray) -> FloatArray:
    """Call a routine of NumPy's that reports nothing; a copy, as a context serves one thread."""
    return _QUIET.copy().run(routine, *args)


def _of_vectors(routines: dict[Any, Any], *arrays: FloatArray, **options: Any) -> Any:
    """Call a routine of vectors on one thread; on nothing, return None, as BLAS refuses empties."""
    first = arrays[0]
    if first.ndim != 1:
        arrays = tuple(a.reshape(-1) for a in arrays)
    if first.size > _SERIAL_VECTOR:
        return called(SCIPY, first.size, 1, routines[first.dtype], *arrays, **options)
    return routines[first.dtype](*arrays, **options) if first.size else None


def _rows(x: FloatArray) -> FloatArray:
    """Return x with all its leading axes as one, also if it has none."""
    if x.ndim == 2:
        return x
    return x[None] if x.ndim == 1 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
