"""What kernels do with rows: sums of rows of W, steps of SGD, and the loss of a row.

Four fifths of MNIST's pixels are 0, and half of the outputs of a Dropout(0.5): the weights of such
an input are neither read nor updated, as long as all is finite (0 * inf is NaN).
"""

from typing import Any

import numpy as np

from tinygrad_mnist._extras import needing
from tinygrad_mnist.compiled.kernel import BLOCKS, LANES, NOWHERE, SQUARED_ERROR, compiled
from tinygrad_mnist.compiled.vectors import load, nonzero, popcount, splat, store, total

with needing("tinygrad_mnist.compiled", "compiled"):
    from numba import literal_unroll


@compiled
def list_nonzero(a, rows, finite):
    """Write down where a is not 0, and return how many entries that are, and True.

    Or all entries and False, if not finite or if one of these is not. Eight at a time and without a
    branch, which images would make hard to predict: a table says what to write, and more than that
    is written over.
    """
    count, whole, sums = 0, len(a) - len(a) % LANES, splat(a.dtype.type(0), LANES)
    for i in range(0, whole, LANES):
        eight = load(a, i, LANES)
        bits = nonzero(eight)
        store(rows, count, load(_POSITIONS, LANES * bits, LANES) + np.uint32(i))
        count += popcount(bits)
        sums = sums + eight
    result = total(sums)
    for i in range(whole, len(a)):
        rows[count] = i
        count += a[i] != 0
        result += a[i]
    if finite and np.isfinite(result):  # else an entry is not, or the sum is too large
        return count, True
    for i in range(len(a)):
        rows[i] = i
    return len(a), False


# Row after row; row m has the positions of the bits that are 1 in m, then those that are 0.
_BITS = np.arange(1 << LANES)[:, None] >> np.arange(LANES) & 1
_POSITIONS = np.argsort(_BITS == 0, axis=1, kind="stable").astype(np.uint32).reshape(-1)


@compiled
def add_rows(y, W, a, rows, count, block):
    """y += a @ W over these rows, a block of columns at a time."""
    for at in range(0, len(y), block):
        for n in literal_unroll(BLOCKS):
            if n == block:
                sums = load(y, at, n)
                for k in range(count):
                    i = rows[k]
                    sums = sums + a[i] * load(W, i * len(y) + at, n)
                store(y, at, sums)


@compiled
def step_rows(W, dy, a, rows, count, lr, block):
    """W -= lr * a.T @ dy over these rows, a block of columns at a time."""
    for at in range(0, len(dy), block):
        for n in literal_unroll(BLOCKS):
            if n == block:
                step = lr * load(dy, at, n)
                for k in range(count):
                    i = rows[k]
                    begin = i * len(dy) + at
                    store(W, begin, load(W, begin, n) - a[i] * step)


@compiled
def times_transposed(da, W, dy, rows, count, gated, block):
    """da = dy @ W.T, or if gated 0 beside these rows."""
    for k in range(len(da) if gated else 0):
        da[k] = 0
    for n in literal_unroll(BLOCKS):
        if n == block:
            for k in range(count if gated else len(da)):
                i: Any = rows[k] if gated else np.uint32(k)
                sums = splat(da.dtype.type(0), n)
                for at in range(0, len(dy), n):
                    sums = sums + load(W, i * len(dy) + at, n) * load(dy, at, n)
                da[i] = total(sums)


@compiled
def step_all(W, v, dy, a, lr, settings):
    """Step along a.T @ dy in every row."""
    for i in range(len(a)):
        step(W, v, i * len(dy), dy, a[i], lr, settings)


@compiled
def step(W, velocity, begin, dy, a, lr, settings):
    """v = momentum * v + g; w -= lr * v, for g = a * dy + decay * w; nesterov as in SGD.

    w and v are the len(dy) numbers of W and of velocity from begin on. A rate of 0 moves no w, not
    even where g is NaN.
    """
    momentum, decay = settings.momentum, settings.decay
    shrink = dy.dtype.type(1) - lr * decay
    for o in range(0, len(dy), LANES):
        g, w = a * load(dy, o, LANES), load(W, begin + o, LANES)
        if momentum != 0:
            v = momentum * load(velocity, begin + o, LANES) + g
            if decay != 0:  # 0 * inf is NaN
                v = v + decay * w
            store(velocity, begin + o, v)
            g = g + momentum * v if settings.nesterov else v
        if lr != 0:
            if momentum == 0 or settings.nesterov:
                w = shrink * w
            store(W, begin + o, w - lr * g)


@compiled
def write_bias(y, params, b):
    """y = b, which begins there in params, or 0 if it is NOWHERE."""
    for o in range(len(y)):
        y[o] = 0 if b == NOWHERE else params[b + o]


@compiled
def rectify(y, a):
    """y = max(a, 0), where NaN stays NaN."""
    for i in range(len(a)):
        y[i] = 0 if a[i] <= 0 else a[i]


@compiled
def rectify_back(da, dy, y):
    """da = dy * (y > 0), for y or what it was made of."""
    for i in range(len(da)):
        da[i] = dy[i] * (y[i] > 0)


@compiled
def drop(y, a, mask, scale):
    """y = a * scale where the mask is 1, else a * 0: also what backward does with dy."""
    for i in range(len(a)):
        y[i] = a[i] * mask[i] * scale


@compiled
def all_finite(values):
    """Return whether the sum is finite: False also if only the sum overflows."""
    result = values.dtype.type(0)
    for i in range(len(values)):
        result += values[i]
    return np.isfinite(result)


@compiled
def loss_of_row(kind, y, t, factor, dy):
    """Write dy, of the row's part of the loss, and return what the loss is a mean of."""
    if kind == SQUARED_ERROR:
        return squared_error(y, t, factor, dy)
    return cross_entropy(y, t, factor, dy)


@compiled
def squared_error(y, t, factor, dy):
    """Return sum((y - t)**2); dy = factor * (y - t)."""
    squares = 0.0
    for o in range(len(t)):
        error = y[o] - t[o]
        squares += error * error
        dy[o] = factor * error
    return squares


@compiled
def cross_entropy(y, q, factor, dy):
    """Return -sum(q * log(softmax(y))); dy = factor * (softmax(y) * sum(q) - q)."""
    largest, q_sum, e_sum = y[0], q.dtype.type(0), q.dtype.type(0)
    for o in range(len(q)):
        largest = max(largest, y[o])
        q_sum += q[o]
    for o in range(len(q)):
        dy[o] = np.exp(y[o] - largest)
        e_sum += dy[o]
    terms, log_sum = 0.0, np.log(e_sum)
    for o in range(len(q)):
        if q[o] > 0:  # 0 * log(0) is 0
            terms += q[o] * (log_sum - (y[o] - largest))
        dy[o] = factor * (dy[o] / e_sum * q_sum - q[o])
    return terms
