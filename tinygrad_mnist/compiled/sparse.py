"""Products of matrices with many zeros, which are left out: beside a matrix stand its marks.

marks (M, words) belong to a matrix (M, K): bit i of marks[m, j] is 1 where its entry m, 64 j + i is
not 0. These products need nothing else, as long as all numbers are finite: a @ W, with the marks
transposed a.T @ dy, and dy @ W.T where a ReLU lets a gradient pass. They take 64 rows of W or of dy
at a time, some columns of them, as much as the first-level cache holds.
"""

import numpy as np

from tinygrad_mnist._extras import needing
from tinygrad_mnist.compiled.kernel import BLOCKS, compiled, separate
from tinygrad_mnist.compiled.vectors import load, lowest, nonzero, popcount, splat, store, total

with needing("tinygrad_mnist.compiled", "compiled"):
    from numba import literal_unroll

WORD = 64  # bits
ZERO, ALL = np.uint64(0), np.uint64(2**WORD - 1)


@compiled
def words_for(n):
    """Return how many words have a bit for each of n."""
    return (n + WORD - 1) // WORD


@compiled
def mark_nonzero(a, marks):
    """Write down the marks of a row; return whether it is finite, as its sum is."""
    whole, sums = len(a) // WORD, splat(a.dtype.type(0), WORD)
    for j in range(whole):
        entries = load(a, WORD * j, WORD)
        marks[j] = nonzero(entries)
        sums = sums + entries
    result, last = total(sums), ZERO
    for i in range(WORD * whole, len(a)):
        last |= np.uint64(a[i] != 0) << np.uint64(i % WORD)
        result += a[i]
    if len(a) % WORD:
        marks[whole] = last
    return np.isfinite(result)


@separate
def transpose_marks(marks, transposed, first, last):
    """Write the transposed marks: word k of column i is transposed[k, i].

    Of the columns from first to last; first is a multiple of 64. A square takes the marks of 64
    rows, or of fewer rows from several words: 16 rows and 4 words of a batch of 16.
    """
    rows, words, height = len(marks), words_for(last), WORD
    while 2 * rows <= height > 1:
        height //= 2
    together, low = WORD // height, ALL >> np.uint64(WORD - height)
    for k in range(words_for(rows)):
        for j in range(first // WORD, words, together):
            square = transposed[k, WORD * j : WORD * (j + 1)]
            for q in range(together):
                for i in range(height):
                    row = WORD * k + i
                    inside = row < rows and j + q < words
                    square[q * height + i] = marks[row, j + q] if inside else ZERO
            _transpose(square)
            for q in range(min(together, words - j) - 1, -1, -1):
                begin, shift = WORD * (j + q), np.uint64(q * height)
                for i in range(WORD):
                    transposed[k, begin + i] = square[i] >> shift & low


@compiled
def _transpose(square):
    """Transpose 64 words of 64 bits: swap quarters, then quarters of quarters, and so on."""
    size, low = WORD // 2, np.uint64(0x00000000FFFFFFFF)
    while size > 0:
        shift = np.uint64(size)
        for begin in range(0, WORD, 2 * size):
            for i in range(begin, begin + size):
                swap = (square[i] >> shift ^ square[i + size]) & low
                square[i] ^= swap << shift
                square[i + size] ^= swap
        size //= 2
        low ^= low << np.uint64(size)


@separate
def add_product(out, scale, a, marks, W, room, block):
    """out += scale * a @ W. out and W are flat, their rows have this room.

    a of shape (M, K) is read only where it is marked.
    """
    for at in range(0, room, block):
        for n in literal_unroll(BLOCKS):
            if n == block:
                _add_columns(out, scale, a, marks, W, room, at, n)


@compiled
def _add_columns(out, scale, a, marks, W, room, at, n):
    for j in range(marks.shape[1]):
        for m in range(len(marks)):
            bits = marks[m, j]
            if bits != 0:
                sums = load(out, m * room + at, n)
                for _ in range(popcount(bits)):
                    k = WORD * j + lowest(bits)
                    bits &= bits - np.uint64(1)
                    sums = sums + scale * a[m, k] * load(W, k * room + at, n)
                store(out, m * room + at, sums)


@separate
def write_marked(out, a, W, marks, room, block):
    """out = a @ W.T where out is marked. a and W are flat, their rows have this room."""
    for n in literal_unroll(BLOCKS):
        if n == block:
            _write_sums(out, a, W, marks, room, n)


@compiled
def _write_sums(out, a, W, marks, room, n):
    for j in range(marks.shape[1]):
        for m in range(len(marks)):
            bits = marks[m, j]
            for _ in range(popcount(bits)):
                k = WORD * j + lowest(bits)
                bits &= bits - np.uint64(1)
                sums = splat(W.dtype.type(0), n)
                for at in range(0, room, n):
                    sums = sums + load(W, k * room + at, n) * load(a, m * room + at, n)
                out[m, k] = total(sums)
