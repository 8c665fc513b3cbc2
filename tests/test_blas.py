"""Products against plain loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import _blas

ROWS = st.sampled_from([2, 3, 1, 0, 40])
SIDES = st.sampled_from([2, 3, 1, 130])
DTYPES = st.sampled_from([np.float64, np.float32])


def close(found, wanted, dtype):
    assert found.dtype == dtype
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def drawn(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@given(seed=st.integers(0, 2**32 - 1), I=SIDES, O=SIDES, dtype=DTYPES)
def test_products_of_one_sample_are_plain_loops_written_in_place(seed, I, O, dtype):  # noqa: E741
    x, dy, W = drawn(seed, dtype, I, O, (I, O))
    y, dx, dW = np.zeros(O), np.zeros(I), np.zeros((I, O))
    for i in range(I):
        y = y + x[i] * W[i].astype(float)
        dx[i] = sum(dy * W[i].astype(float))
        dW[i] = x[i] * dy.astype(float)
    close(_blas.product(x, W), y, dtype)
    close(_blas.product(dy, W.T), dx, dtype)
    out = W.copy()
    _blas.add_product(out, x, dy, -0.5)
    close(out, W - 0.5 * dW, dtype)


@given(seed=st.integers(0, 2**32 - 1), B=ROWS, I=SIDES, O=SIDES, dtype=DTYPES)
def test_products_are_plain_loops_written_in_place(seed, B, I, O, dtype):  # noqa: E741
    x, dy, W = drawn(seed, dtype, (B, I), (B, O), (I, O))
    y, dx, dW = np.zeros((B, O)), np.zeros((B, I)), np.zeros((I, O))
    for r, i in itertools.product(range(B), range(I)):
        y[r] += x[r, i] * W[i].astype(float)
        dx[r, i] = sum(dy[r] * W[i].astype(float))
        dW[i] += x[r, i] * dy[r].astype(float)
    close(_blas.product(x, W), y, dtype)
    close(_blas.product(dy, W.T), dx, dtype)
    out = W.copy()
    _blas.add_product(out, x, dy, -0.5)
    close(out, W - 0.5 * dW, dtype)


@given(seed=st.integers(0, 2**32 - 1), B=ROWS, I=SIDES, O=SIDES, dtype=DTYPES)
def test_products_of_columns_are_those_of_rows(seed, B, I, O, dtype):  # noqa: E741
    x, dy, W, b = drawn(seed, dtype, (I, B), (O, B), (I, O), O)
    rows_x, rows_dy = x.T.copy(), dy.T.copy()
    close(_blas.affine_of_columns(x, W, b), _blas.product(rows_x, W).T + b[:, None], dtype)
    close(_blas.affine_of_columns(x, W, None), _blas.product(rows_x, W).T, dtype)
    close(_blas.times_columns(dy, W), _blas.product(rows_dy, W.T).T, dtype)
    wanted = W.copy()
    _blas.add_product(wanted, rows_x, rows_dy, -0.5)
    for factors in ((x.T, dy.T), (rows_x, dy.T), (x.T, rows_dy)):
        out = W.copy()
        _blas.add_product(out, *factors, -0.5)
        close(out, wanted, dtype)


@given(seed=st.integers(0, 99), shape=st.sampled_from([(3, 2), (), (5,), (0,)]), dtype=DTYPES)
def test_elementwise_routines_work_in_place_on_any_shape(seed, shape, dtype):
    a, b = (np.array(v) for v in drawn(seed, dtype, shape, shape))
    if a.size:
        assert _blas.dot(a, b) == pytest.approx(float(np.sum(a * b)), rel=1e-5, abs=1e-6)
    out = a.copy()
    _blas.add_scaled(out, b, 2.0)
    close(out, a + 2 * b, dtype)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("side", [2, 600])
def test_a_scale_of_0_adds_nothing_not_even_nan(rows, side):
    out, a, b = np.ones((side, 3)), np.full((rows, side), np.nan), np.full((rows, 3), np.inf)
    _blas.add_product(out, a, b, -0.0)
    np.testing.assert_array_equal(out, np.ones((side, 3)))
