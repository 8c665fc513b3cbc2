"""Products that leave out zeros, in compiled code and in plain Python, against NumPy's."""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist.testing.strategies import seeds

pytest.importorskip("numba")
from tinygrad_mnist.compiled import sparse
from tinygrad_mnist.compiled.layout import block_of, room_of

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
WIDTHS = 1, 9, 63, 64, 65, 128, 200


@contextmanager
def in_plain_python():
    with pytest.MonkeyPatch.context() as patched:
        for name, function in list(vars(sparse).items()):
            if hasattr(function, "py_func"):
                patched.setattr(sparse, name, function.py_func)
        yield


both = pytest.mark.parametrize("how", [nullcontext, in_plain_python], ids=["compiled", "plain"])


def matrix_with_zeros(rng, shape, dtype):
    return (rng.standard_normal(shape) * (rng.random(shape) < 0.3)).astype(dtype)


def marks_of(a):
    """What marks are, bit by bit."""
    marks = np.zeros((len(a), -(-a.shape[1] // 64)), np.uint64)
    for m, i in zip(*np.nonzero(a), strict=True):
        marks[m, i // 64] |= np.uint64(1 << int(i % 64))
    return marks


def part_of_more(a):
    """A copy of the type that it has in kernels, so that what is compiled there serves here."""
    return np.pad(a, ((0, 0), (0, 1)))[:, :-1]


@both
@every_dtype
@pytest.mark.parametrize("width", WIDTHS)
def test_a_bit_stands_for_what_is_not_0(width, dtype, how):
    a = matrix_with_zeros(np.random.default_rng(width), (3, width), dtype)
    a[0, width // 2], a[1, 0], a[2, -1] = np.nan, -0.0, np.inf
    marks = np.full((3, sparse.words_for(width)), 99, np.uint64)
    with how():
        finite = [bool(sparse.mark_nonzero(*pair)) for pair in zip(a, marks, strict=True)]
    assert finite == [False, True, False]
    np.testing.assert_array_equal(marks, marks_of(a))


@both
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 17, 64, 65, 130])
def test_marks_of_the_transpose(rows, width, how):
    a = matrix_with_zeros(np.random.default_rng(width), (rows, width), np.float64)
    wanted = marks_of(a.T)
    found = np.full((sparse.words_for(rows), 64 * sparse.words_for(width)), 99, np.uint64)
    middle = width // 2 // 64 * 64  # in two parts, as two threads do it
    with how():
        sparse.transpose_marks(marks_of(a), found, 0, middle)
        sparse.transpose_marks(marks_of(a), found, middle, width)
    np.testing.assert_array_equal(found.T[:width], wanted)


@every_dtype
@settings(max_examples=10)
@given(
    sizes=st.tuples(*[st.sampled_from([2, 5, 64, 100])] * 2),
    columns=st.sampled_from([1, 8, 17, 100, 300]),
    scale=st.sampled_from([1.0, -0.5]),
    transposed=st.booleans(),
    seed=seeds(),
)
def test_a_product_is_added_as_numpy_adds_it(dtype, sizes, columns, scale, transposed, seed):
    rng, (m, k), dtype = np.random.default_rng(seed), sizes, np.dtype(dtype)
    a = matrix_with_zeros(rng, (k + 1, m + 1) if transposed else (m + 1, k + 1), dtype)
    a = (a.T if transposed else a)[:m, :k]
    marks = part_of_more(marks_of(a))
    a.flags.writeable = False  # as in kernels
    room, block = room_of(columns, dtype), block_of(columns, dtype)
    W, out = (rng.standard_normal((n, room)).astype(dtype) for n in (k, m))
    wanted = out + scale * (a.astype(np.float64) @ W)
    for how in nullcontext, in_plain_python:
        found, flat = out.copy(), W.reshape(-1)
        with how():
            sparse.add_product(found.reshape(-1), dtype.type(scale), a, marks, flat, room, block)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=200 * np.finfo(dtype).eps)


@every_dtype
@settings(max_examples=10)
@given(
    sizes=st.tuples(*[st.sampled_from([0, 1, 5, 64, 100])] * 2),
    columns=st.sampled_from([1, 8, 17, 100, 300]),
    seed=seeds(),
)
def test_a_product_is_written_where_it_is_marked(dtype, sizes, columns, seed):
    rng, (m, k), dtype = np.random.default_rng(seed), sizes, np.dtype(dtype)
    room, block = room_of(columns, dtype), block_of(columns, dtype)
    a, W = (rng.standard_normal((n, room)).astype(dtype) for n in (m, k))
    marked, out = matrix_with_zeros(rng, (m, k), dtype), rng.standard_normal((m, k)).astype(dtype)
    wanted = np.where(marked, a.astype(np.float64) @ W.T, out)
    for how in nullcontext, in_plain_python:
        found, marks = part_of_more(out), part_of_more(marks_of(marked))
        with how():
            sparse.write_marked(found, a.reshape(-1), W.reshape(-1), marks, room, block)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1000 * np.finfo(dtype).eps)
