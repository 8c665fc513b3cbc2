"""A word for the product of matrices in compiled code, by the BLAS that numba calls: SciPy's."""

from typing import Any

from numpy.typing import NDArray

from tinygrad_mnist._extras import needing

with needing("tinygrad_mnist.compiled", "compiled"):
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic, overload, register_jitable
    from numba.np.linalg import ensure_blas

ensure_blas()


def gemm(alpha: Any, a: NDArray[Any], b: NDArray[Any], beta: Any, out: NDArray[Any]) -> None:
    """out = alpha * a @ b + beta * out, for matrices of one dtype.

    In each the rows are contiguous, or in a and b the columns. What is multiplied by an alpha or a
    beta of 0 is not read: it may be infinite, or NaN.
    """
    out[:] = beta * out if beta else 0
    if alpha:
        out += alpha * (a @ b)


@overload(gemm)
def _overload(alpha, a, b, beta, out):
    return _gemm if a.dtype == b.dtype == out.dtype and out.mutable else None


def _gemm(alpha, a, b, beta, out):
    (rows, columns), inner = out.shape, len(b)
    if a.shape != (rows, inner) or b.shape != (inner, columns):
        raise ValueError("gemm: expected a, b and out of shapes (M, K), (K, N) and (M, N)")
    a_order, a_step = _layout(a)
    b_order, b_step = _layout(b)
    out_order, out_step = _layout(out)
    if out_order != _BY_ROWS or 0 in (a_step, b_step, out_step):
        raise ValueError("gemm: expected contiguous rows, or in a and b columns")
    # BLAS goes by columns: it reads each matrix as its transpose, and computes out.T = b.T @ a.T.
    # Some of its kernels make NaN of 0 * NaN.
    alpha, beta = out.dtype.type(alpha), out.dtype.type(beta)
    orders, sizes = (b_order, a_order), (columns, rows, inner if alpha != 0 else 0)
    _xxgemm(orders, sizes, alpha, b, b_step, a, a_step, beta, out, out_step)  # type: ignore


_BY_ROWS, _BY_COLUMNS = ord("n"), ord("t")  # BLAS's letters: this transpose as it is, or transposed


@register_jitable
def _layout(matrix):
    """Return how the matrix is ordered, and how many numbers on the next row, or column, begins."""
    (rows, columns), (by_row, by_column) = matrix.shape, matrix.strides
    step = _step(rows, columns, by_row, by_column, matrix.itemsize)
    if step > 0:
        return _BY_ROWS, step
    return _BY_COLUMNS, _step(columns, rows, by_column, by_row, matrix.itemsize)


@register_jitable
def _step(rows, columns, by_row, by_column, itemsize):
    """Return how many numbers on the next row begins, or 0 if rows are not contiguous."""
    least = max(1, columns)
    if rows * columns == 0:
        return least
    step = by_row // itemsize if rows > 1 else least
    contiguous = columns == 1 or by_column == itemsize
    return step if contiguous and step >= least else 0


@intrinsic
def _xxgemm(typing_context, orders, sizes, alpha, b, b_step, a, a_step, beta, out, out_step):
    """Call numba's helper for `@`, which finds the routine of SciPy's BLAS."""
    operands = orders, sizes, alpha, b, b_step, a, a_step, beta, out, out_step

    def emit(context, builder, signature, arguments):
        orders, sizes, *rest = arguments
        letters = [ir.IntType(8)(ord("s" if out.dtype == types.float32 else "d"))]
        letters += [
            builder.trunc(order, ir.IntType(8)) for order in cgutils.unpack_tuple(builder, orders)
        ]
        values = [
            _pointer(context, builder, kind, value)
            for kind, value in zip(signature.args[2:], rest, strict=True)
        ]
        values = [*letters, *cgutils.unpack_tuple(builder, sizes), *values]
        kind = ir.FunctionType(ir.IntType(32), [value.type for value in values])
        helper = cgutils.get_or_insert_function(builder.module, kind, "numba_xxgemm")
        builder.call(helper, values)
        return context.get_dummy_value()

    return types.none(*operands), emit


def _pointer(context, builder, kind, value):
    """Return a pointer to an array's or a number's memory; an integer as it is."""
    if isinstance(kind, types.Integer):
        return value
    if isinstance(kind, types.Array):
        memory = context.make_array(kind)(context, builder, value).data
    else:
        memory = cgutils.alloca_once_value(builder, value)
    return builder.bitcast(memory, cgutils.voidptr_t)
