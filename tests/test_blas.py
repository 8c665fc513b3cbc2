"""Products against plain loops, and the thread policy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import _blas

# one row goes another way through BLAS than several, none yet another
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


@given(seed=st.integers(0, 2**32 - 1), B=ROWS, I=SIDES, O=SIDES, dtype=DTYPES)
def test_products_are_plain_loops_written_in_place(seed, B, I, O, dtype):  # noqa: E741
    x, dy, W, b = drawn(seed, dtype, (B, I), (B, O), (I, O), O)
    y, dx, dW = np.tile(b.astype(float), (B, 1)), np.zeros((B, I)), np.zeros((I, O))
    for r, i in itertools.product(range(B), range(I)):
        y[r] += x[r, i] * W[i].astype(float)
        dx[r, i] = sum(dy[r] * W[i].astype(float))
        dW[i] += x[r, i] * dy[r].astype(float)
    close(_blas.affine(x, W, b), y, dtype)
    close(_blas.affine(x, W, None), y - b, dtype)
    close(_blas.times_transposed(dy, W), dx, dtype)
    out = W.copy()
    _blas.add_product(out, x, dy, -0.5)
    close(out, W - 0.5 * dW, dtype)


@given(seed=st.integers(0, 99), shape=st.sampled_from([(3, 2), (), (5,), (0,)]), dtype=DTYPES)
def test_elementwise_routines_work_in_place_on_any_shape(seed, shape, dtype):
    a, b = (np.array(v) for v in drawn(seed, dtype, shape, shape))
    if a.size:
        assert _blas.dot(a, b) == pytest.approx(float(np.sum(a * b)), rel=1e-5, abs=1e-6)
    out = a.copy()
    _blas.add_scaled(out, b, 2.0)
    close(out, a + 2 * b, dtype)
    _blas.multiply(out, 0.5)
    close(out, 0.5 * a + b, dtype)


class Pool:
    """A thread pool that notes what it is told."""

    def __init__(self):
        self.count, self.told = 2, []

    def get_num_threads(self):
        return self.count

    def set_num_threads(self, n):
        self.count = n
        self.told.append(n)


@pytest.mark.parametrize(
    ("rows", "side", "told"),
    [
        (1, 10, []),  # too little for BLAS to wake a thread
        (1, 400, [1, 2]),
        (10, 300, [1, 2]),
        (1, 4096, [1, 2]),  # a single row never pays
        (128, 400, []),
    ],
)
def test_small_products_run_on_one_thread_and_the_count_is_restored(monkeypatch, rows, side, told):
    pool = Pool()
    monkeypatch.setattr(_blas, "_POOL", pool)
    during = []

    W = np.zeros((side, side), np.float32)
    _blas._call({W.dtype: lambda: during.append(pool.count)}, W, rows=rows)
    assert during == [1 if told else 2]
    assert pool.told == told


def test_the_thread_count_is_restored_after_an_error(monkeypatch):
    pool = Pool()
    monkeypatch.setattr(_blas, "_POOL", pool)
    W = np.zeros((400, 400), np.float32)
    with pytest.raises(TypeError):
        _blas._call({W.dtype: abs}, W)
    assert pool.told == [1, 2]


def test_the_pool_is_that_of_scipys_blas():
    assert _blas._POOL is not None
    assert "scipy" in _blas._POOL.filepath
    assert "numpy" not in _blas._POOL.filepath
