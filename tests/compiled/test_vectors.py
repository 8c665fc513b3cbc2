"""Each word of vectors in a compiled function, against the same word in plain Python."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist.testing.strategies import seeds

pytest.importorskip("numba")
from numba import njit

from tinygrad_mnist.compiled.kernel import BLOCKS
from tinygrad_mnist.compiled.layout import block_of, room_of
from tinygrad_mnist.compiled.vectors import (
    entry,
    larger,
    load,
    nonzero,
    popcount,
    prefetch,
    splat,
    store,
    total,
    where,
)

SIZES = 1, 3, 8, 12, 16, 40, 104  # of one part or more, which have 1 to 16 numbers
PLACES = 130  # of the arrays below
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@cache
def compiled_and_plain(n):
    """Return a function that says all words about n numbers, compiled and in plain Python."""

    few = min(n, 64)

    def words(x, y, integers, at):
        """Change n numbers of y and integers; return a sum, where x is not 0, and how often."""
        a, b = load(x, at, n), load(y, at, n)
        three, two = x.dtype.type(3), x.dtype.type(2)
        prefetch(y, at + n)
        store(y, at, a * b + three * a - (b * two - splat(two, n)))
        store(integers, at, load(integers, at, n) * np.uint32(2) + np.uint32(7))
        bits = nonzero(load(x, at, few))
        return total(a), bits, popcount(bits)

    return njit(words), words


@every_dtype
@pytest.mark.parametrize("n", SIZES)
@settings(max_examples=10)
@given(seed=seeds(), data=st.data())
def test_compiled_words_do_what_they_say_in_plain_python(n, dtype, seed, data):
    rng, at = np.random.default_rng(seed), data.draw(st.integers(0, PLACES - n))
    x, y = rng.standard_normal((2, PLACES)).astype(dtype)
    x[rng.random(PLACES) < 0.5] = data.draw(st.sampled_from([0.0, -0.0]))
    integers = rng.integers(0, 2**32, PLACES, np.uint32)
    outcomes = []
    for words in compiled_and_plain(n):
        changed = y.copy(), integers.copy()
        outcomes.append([*words(x, *changed, at), *changed])
    for compiled, plain in zip(*outcomes, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=0, atol=100 * np.finfo(dtype).eps)


@every_dtype
def test_nan_is_not_zero_and_stays_what_it_is(dtype):
    x = np.array([0, np.nan, np.inf, 0, -np.inf, -0.0, 1, 0], dtype)
    for words in compiled_and_plain(8):
        y = np.ones(8, dtype)
        assert words(x, y, np.zeros(8, np.uint32), 0)[1:] == (0b1010110, 4)
        np.testing.assert_array_equal(y, 4 * x)


@every_dtype
@pytest.mark.parametrize("n", [n for n in SIZES if n <= 64])
def test_the_larger_of_two_numbers_is_chosen_and_nan_is_larger_than_all(n, dtype):
    def words(x, y, z, at):
        """Write the larger ones to z from at on; return where x is, and the first one."""
        a = load(x, at, n)
        bits = larger(a, load(y, at, len(a)))
        store(z, at, where(bits, a, load(y, at, n)))
        return bits, entry(z, at)

    rng = np.random.default_rng(n)
    x, y = rng.integers(-1, 2, (2, n + 2)).astype(dtype)
    x[rng.random(n + 2) < 0.2] = np.nan
    wanted = (x > y) | np.isnan(x)
    for function in words, njit(words):
        z = np.zeros(n + 2, dtype)
        bits, first = function(x, y, z, 1)
        assert f"{bits:0{n}b}"[::-1] == "".join(map(str, wanted[1:-1].astype(int)))
        np.testing.assert_array_equal(z, [0, *np.where(wanted, x, y)[1:-1], 0])
        np.testing.assert_equal(first, z[1])


@pytest.mark.parametrize("at", [-1, 3, 100])
@pytest.mark.parametrize("word", ["load", "store"])
def test_what_lies_outside_an_array_is_refused_if_numba_checks_bounds(word, at):
    @njit(boundscheck=True)
    def loads(x, at):
        return total(load(x, at, 8))

    @njit(boundscheck=True)
    def stores(x, at):
        store(x, at, splat(x[0], 8))

    x = np.zeros(10)
    compiled = {"load": loads, "store": stores}[word]
    with pytest.raises(IndexError):
        compiled(x, at)
    with pytest.raises(ValueError, match="reshape"):
        compiled.py_func(x, at)
    compiled(x, 2)
    compiled.py_func(x, 2)


@pytest.mark.parametrize("at", [-1, 10])
def test_an_entry_outside_an_array_is_refused_if_numba_checks_bounds(at):
    @njit(boundscheck=True)
    def entry_of(x, at):
        return entry(x, at)

    x = np.arange(10.0)
    with pytest.raises(IndexError):
        entry_of(x, at)
    with pytest.raises(ValueError, match="reshape"):
        entry_of.py_func(x, at)
    assert entry_of(x, 9) == entry_of.py_func(x, 9) == 9


@every_dtype
def test_a_block_fits_in_registers_and_whole_blocks_are_not_much_wider_than_a_row(dtype):
    dtype = np.dtype(dtype)
    for columns in range(1, 2000):
        block, room = block_of(columns, dtype), room_of(columns, dtype)
        assert block in BLOCKS
        assert block * dtype.itemsize <= 14 * 32
        assert room % block == 0
        assert columns <= room < columns + max(8, 0.4 * columns)
