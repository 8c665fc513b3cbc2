"""The product of matrices in compiled code, against plain loops and against its plain twin."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist.testing.strategies import seeds

pytest.importorskip("numba")
from numba import TypingError, from_dtype, njit, types

from tinygrad_mnist.compiled.products import gemm

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def call(alpha, a, b, beta, out):
    gemm(alpha, a, b, beta, out)


@cache
def compiled(dtype):
    """Return it for strided matrices: numba would compile it again for each layout that it sees."""
    matrix = types.Array(from_dtype(np.dtype(dtype)), 2, "A")
    read_only = matrix.copy(readonly=True)
    return njit((types.float64, read_only, read_only, types.float64, matrix))(call)


def matrix(rng, rows, columns, padding, transposed, dtype):
    """A matrix in a larger one: its rows, or its columns, have room behind."""
    if transposed:
        return matrix(rng, columns, rows, padding, False, dtype).T
    return rng.standard_normal((rows, columns + padding)).astype(dtype)[:, :columns]


def by_loops(alpha, a, b, beta, out):
    return [
        [
            beta * out[m, n] + alpha * sum(float(a[m, k]) * float(b[k, n]) for k in range(len(b)))
            for n in range(b.shape[1])
        ]
        for m in range(len(a))
    ]


@every_dtype
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@given(
    sizes=st.tuples(*[st.sampled_from([0, 1, 2, 5, 9])] * 3),
    paddings=st.tuples(*[st.sampled_from([0, 3])] * 3),
    alpha=st.sampled_from([1.0, -0.5, 0.0]),
    beta=st.sampled_from([0.0, 1.0, 0.5]),
    seed=seeds(),
)
def test_it_is_what_loops_compute(dtype, transposed, sizes, paddings, alpha, beta, seed):
    rng, (m, n, k) = np.random.default_rng(seed), sizes
    a = matrix(rng, m, k, paddings[0], transposed[0], dtype)
    b = matrix(rng, k, n, paddings[1], transposed[1], dtype)
    memory = rng.standard_normal((m, n + paddings[2])).astype(dtype)
    wanted = np.reshape(by_loops(alpha, a, b, beta, memory[:, :n]), (m, n))
    behind = memory[:, n:].copy()
    for product in (compiled(dtype), gemm):
        out = memory.copy()
        product(alpha, a, b, beta, out[:, :n])
        np.testing.assert_allclose(out[:, :n], wanted, rtol=0, atol=100 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(out[:, n:], behind)


@every_dtype
def test_what_is_multiplied_by_0_is_not_read(dtype):
    nan, one = np.full((3, 3), np.nan, dtype), np.ones((3, 3), dtype)
    for product in (compiled(dtype), gemm):
        out = nan.copy()
        product(1.0, one, one, 0.0, out)
        np.testing.assert_array_equal(out, 3 * one)
        product(0.0, nan, nan, 1.0, out)
        np.testing.assert_array_equal(out, 3 * one)


@pytest.mark.parametrize("wrong", [(3, 4), (4, 5), (5, 4)])
@pytest.mark.parametrize("which", range(3))
def test_shapes_that_do_not_fit_are_refused(which, wrong):
    shapes = [(2, 3), (3, 5), (2, 5)]
    if shapes[which] == wrong:
        pytest.skip("fits")
    shapes[which] = wrong
    a, b, out = map(np.ones, shapes)
    with pytest.raises(ValueError, match=r"gemm: expected a, b and out of shapes"):
        compiled(np.float64)(1.0, a, b, 1.0, out)


@pytest.mark.parametrize(
    "view",
    [
        lambda big: big[::2, ::2],
        lambda big: big[:3, :3][:, ::-1],
        lambda big: big[:3, :3][::-1],
        lambda big: np.broadcast_to(big[0, :3], (3, 3)),
    ],
)
def test_matrices_without_contiguous_rows_or_columns_are_refused(view):
    big, one = np.ones((5, 5)), np.ones((3, 3))
    for a, b, out in ((view(big), one, one), (one, view(big), one)):
        with pytest.raises(ValueError, match="gemm: expected contiguous rows, or in a and b"):
            compiled(np.float64)(1.0, a, b, 1.0, out)
    with pytest.raises(ValueError, match="gemm: expected contiguous rows, or in a and b"):
        compiled(np.float64)(1.0, one, one, 1.0, np.ones((3, 3)).T)


def test_dtypes_that_differ_are_refused():
    one = np.ones((3, 3))
    with pytest.raises(TypingError):
        njit(call)(1.0, one.astype(np.float32), one, 1.0, one)
