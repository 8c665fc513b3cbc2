"""Products against plain loops."""

import itertools
from concurrent.futures import ThreadPoolExecutor

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
def test_products_of_one_sample_are_plain_loops(seed, I, O, dtype):  # noqa: E741
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
def test_products_are_plain_loops(seed, B, I, O, dtype):  # noqa: E741
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


@given(seed=st.integers(0, 99), N=st.sampled_from([2, 0]), I=SIDES, J=SIDES, dtype=DTYPES)
def test_each_of_many_products_is_that_of_two_matrices(seed, N, I, J, dtype):  # noqa: E741
    a, b, single = drawn(seed, dtype, (N, I, J), (N, J, 3), (I, J))
    for n, found in enumerate(_blas.products(a, b)):
        close(found, _blas.product(a[n], b[n]), dtype)
    for n, found in enumerate(_blas.products(single, b)):
        close(found, _blas.product(single, b[n]), dtype)
    windows = np.lib.stride_tricks.sliding_window_view(single, min(2, I), axis=0).swapaxes(1, 2)
    for n, found in enumerate(_blas.products(windows, single.T)):
        close(found, _blas.product(single[n : n + 2], single.T.copy()), dtype)


@given(seed=st.integers(0, 99), shape=st.sampled_from([(3, 2), (), (5,), (0,)]), dtype=DTYPES)
def test_elementwise_routines_work_in_place_on_any_shape(seed, shape, dtype):
    a, b = (np.array(v) for v in drawn(seed, dtype, shape, shape))
    if a.size:
        assert _blas.dot(a, b) == pytest.approx(float(np.sum(a * b)), rel=1e-5, abs=1e-6)
    out = a.copy()
    _blas.add_scaled(out, b, 2.0)
    close(out, a + 2 * b, dtype)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 1), (2, 3, 1)])
def test_a_sum_of_one_term_follows_ieee_754(shape):
    b = np.array([[np.inf, np.nan, 2.0]])
    wanted = np.broadcast_to([np.nan, np.nan, 0], (*shape[:-1], 3))
    np.testing.assert_array_equal(_blas.product(np.zeros(shape), b), wanted)


@pytest.mark.parametrize("shape", [(2,), (2, 2), (600, 2)])
def test_products_report_nothing_and_leave_errstate_as_it_is(shape):
    """Some kernels of OpenBLAS raise the flag of invalid values where all are finite."""
    large = np.full(shape, 1e38, np.float32)
    with np.errstate(all="raise"):
        for product in (_blas.product, _blas.products):
            y = product(np.atleast_2d(large), large.T.reshape(2, -1))
            assert np.isinf(y).all()
        assert np.geterr()["over"] == "raise"


def test_products_of_several_threads_report_nothing_either():
    a = np.full((300, 300), 1e38, np.float32)
    with np.errstate(all="raise"), ThreadPoolExecutor(4) as executor:
        found = list(executor.map(lambda _: np.isinf(_blas.product(a, a)).all(), range(40)))
    assert all(found)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("side", [2, 600])
def test_a_scale_of_0_adds_nothing_not_even_nan(rows, side):
    out, a, b = np.ones((side, 3)), np.full((rows, side), np.nan), np.full((rows, 3), np.inf)
    _blas.add_product(out, a, b, -0.0)
    np.testing.assert_array_equal(out, np.ones((side, 3)))
