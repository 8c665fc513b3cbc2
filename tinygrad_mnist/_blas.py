"""The only place that multiplies matrices: NumPy's BLAS for new arrays, SciPy's to add to old ones.

NumPy's wheel has the newer OpenBLAS, and `dot` costs less than a call of SciPy's; but only the
latter's routines can add a product to an array without a temporary. They are Fortran: they read a
C-ordered W as W.T, so what they get below is transposed. Every matrix is C-ordered, unless a
function says more, and of one dtype (float32 or float64).
"""

import math
from collections.abc import Callable
from contextvars import Context
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import get_blas_funcs

from tinygrad_mnist._checks import FLOATS, FloatArray
from tinygrad_mnist._threads import NUMPY, SCIPY, called

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

_GEMM, _GER = _by_dtype("gemm"), _by_dtype("ger")
_AXPY, _DOT, _NRM2 = _by_dtype("axpy"), _by_dtype("dot"), _by_dtype("nrm2")


def aligned(values: NDArray[Any]) -> NDArray[Any]:
    """Return a C-ordered copy that starts with a cache line, of 64 bytes.

    A step of 784 x 40 takes 1 us less than with the 16 bytes of NumPy's own arrays: fewer of the
    vectors that BLAS loads and stores lie on two lines.
    """
    memory = np.empty(values.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return a @ b, for a (..., I) and b (I, O). One of them may be a transpose.

    NumPy's `dot` of more than two axes would not ask BLAS, and its `matmul` takes twice as long to
    call.
    """
    if a.ndim > 2:
        return product(_rows(a), b).reshape(*a.shape[:-1], b.shape[1])
    if len(b) == 1:  # here `dot` takes 0 * inf and 0 * NaN for 0
        return _quietly(np.multiply, a, b[0])
    work = a.size * b.shape[1]
    if work <= _SERIAL_VECTOR:
        return _quietly(a.dot, b)
    rows = 1 if a.ndim == 1 else min(len(a), b.shape[1])
    if rows > 1 and work <= _SERIAL_MATRIX:
        return _quietly(a.dot, b)
    return called(NUMPY, work, rows, _quietly, a.dot, b)


def products(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return a @ b, for a (..., I, J) and b (..., J, K), of which one may be a single matrix."""
    rows = min(a.shape[-2], b.shape[-1])
    work = a.shape[-2] * a.shape[-1] * b.shape[-1]
    if work <= _SERIAL_MATRIX:
        return _quietly(np.matmul, a, b)
    return called(NUMPY, work, rows, _quietly, np.matmul, a, b)


def add_product(out: FloatArray, a: FloatArray, b: FloatArray, scale: float) -> None:
    """out += scale * a.T @ b over all leading axes, for out (I, O), a (..., I) and b (..., O).

    out may have several axes instead of I. A matrix a or b may be the transpose of a C-ordered one.
    A scale of 0 adds nothing.
    """
    if out.ndim != 2:
        out = _rows(out)
    if a.ndim != 2:
        a, b = _rows(a), _rows(b)
    rows = len(a)
    work = rows * out.size
    if not (work and scale):  # BLAS refuses empty arrays, and some kernels make NaN of 0 * NaN
        return
    gemm = _GEMM[out.dtype]
    if rows == 1:
        if work <= _SERIAL_MATRIX:
            gemm(scale, b.T, a, 1.0, out.T, 0, 0, 1)
        else:
            called(SCIPY, work, rows, _GER[out.dtype], scale, b[0], a[0], a=out.T, overwrite_a=1)
        return
    left, trans_a = (b.T, 0) if b.flags.c_contiguous else (b, 1)
    right, trans_b = (a.T, 1) if a.flags.c_contiguous else (a, 0)
    if work <= _SERIAL_MATRIX:
        gemm(scale, left, right, 1.0, out.T, trans_a, trans_b, 1)
    else:
        called(SCIPY, work, rows, gemm, scale, left, right, 1.0, out.T, trans_a, trans_b, 1)


def add_scaled(out: FloatArray, x: FloatArray, scale: float) -> None:
    """out += scale * x, for two arrays of one shape, without a temporary."""
    _of_vectors(_AXPY, x, out, a=scale)


def dot(a: FloatArray, b: FloatArray) -> float:
    """Return the sum of a * b, for two arrays of one shape, not empty."""
    if a.size <= _SERIAL_VECTOR:
        return float(np.vdot(a, b))
    return float(_of_vectors(_DOT, a, b))


def norm(a: FloatArray) -> float:
    """Return the root of the sum of a**2, of which no square overflows."""
    return float(_of_vectors(_NRM2, a) or 0.0)


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
