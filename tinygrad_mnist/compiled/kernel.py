"""The compiled kernel: per-sample SGD through a chain of layers, with a rule for each kind.

`a` and `da` are a layer's input and its gradient, `y` and `dy` its output and its gradient. Four
fifths of MNIST's pixels are 0, and half of the outputs of a Dropout(0.5): the weights of such an
input are neither read nor updated. The functions are compiled when first called, and kept on disk;
`f.py_func` is f in plain Python.

Parameters are flat: W (I, O) row after row, and behind each row zeros up to a whole number of
blocks of columns. A row of y or of dy has the same room behind it. What is computed there is 0, or
NaN in a row that has met infinity.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._extras import needing
from tinygrad_mnist.compiled.vectors import load, nonzero, popcount, prefetch, splat, store, total

with needing("tinygrad_mnist.compiled", "compiled"):
    from numba import literal_unroll, njit

LINEAR, RELU, DROPOUT = range(3)
NOWHERE = -1  # the offset of a bias where there is none
BLOCKS = 8, 16, 24, 32, 40, 56, 64, 104  # numbers of columns that fill registers: see block_of
LANES = 8  # every block is a multiple

# Sums run in any order, while NaN and infinity stay what they are. Nothing is allocated, so slices
# need no counts of references (_nrt, a switch of numba's own), each an atomic operation. Everything
# becomes one function: passing the arrays of a plan would take as long as the small loops. What is
# kept on disk is compiled again when this file has changed, but not when only vectors.py has.
_OPTIONS: Any = {
    "cache": True,
    "fastmath": {"contract", "nsz", "reassoc"},
    "forceinline": True,
    "_nrt": False,
}
_compiled = njit(**_OPTIONS)


class Plan(NamedTuple):
    """A chain in numbers. Layer l maps widths[l] features to widths[l + 1]."""

    widths: NDArray[np.int64]  # one more than there are layers
    rooms: NDArray[np.int64]  # the same, with the room behind
    blocks: NDArray[np.int64]  # columns of a Linear to take at a time
    kinds: NDArray[np.int64]
    weights: NDArray[np.int64]  # offsets into the flat parameters
    biases: NDArray[np.int64]
    gated: NDArray[np.int64]  # 1 where the layers below pass no gradient on to an output of 0
    masks: NDArray[np.int64]  # offsets into a sample's masks


class Settings(NamedTuple):
    """Those of SGD, in the parameters' dtype, and slope = dL/dy / (y - t)."""

    lr: np.floating[Any]
    momentum: np.floating[Any]
    decay: np.floating[Any]
    slope: np.floating[Any]
    nesterov: bool


class Scratch(NamedTuple):
    """A row for each layer's input, and one for the last output."""

    outputs: NDArray[Any]
    inputs: NDArray[Any]  # a read-only view of outputs, of one type with the samples
    gradients: NDArray[Any]
    rows: NDArray[np.uint32]  # the rows of W to take: those of entries that are not 0
    counts: NDArray[np.int64]  # how many these are


@_compiled
def run_samples(plan, params, velocity, settings, inputs, targets, masks, factors, scratch):
    """Train on each row of inputs; return the sum of squared errors and the number of hits."""
    # a product with 0 can be left out only while all is finite: 0 * inf is NaN
    finite = _all_finite(params)
    layers, squares, hits = len(plan.kinds), 0.0, 0
    for s in range(len(inputs)):
        _prefetch(inputs[min(s + 2, len(inputs) - 1)])
        x = inputs[s]
        finite = _forward(plan, params, x, masks[s], factors, scratch, finite)

        y = scratch.outputs[layers, : plan.widths[layers]]
        for o in range(len(y)):  # L = sum((y - t)**2) / n
            error = y[o] - targets[s, o]
            squares += error * error
            scratch.gradients[layers, o] = settings.slope * error
        hits += np.argmax(y) == np.argmax(targets[s])

        finite = _backward(plan, params, velocity, settings, x, masks[s], factors, scratch, finite)
    return squares, hits


@_compiled
def _prefetch(x):
    """Ask for a sample: the weights stay in the caches, but samples come from memory."""
    for i in range(0, len(x), 64 // x.itemsize):
        prefetch(x, i)


@_compiled
def _forward(plan, params, x, mask, factors, scratch, finite):
    """Compute each layer's output; return whether all that meets a weight is finite."""
    for layer in range(len(plan.kinds)):
        a = x if layer == 0 else scratch.inputs[layer, : plan.widths[layer]]
        y = scratch.outputs[layer + 1, : plan.rooms[layer + 1]]
        if plan.kinds[layer] == LINEAR:  # y = a @ W + b
            begin, b, rows = plan.weights[layer], plan.biases[layer], scratch.rows[layer]
            for o in range(len(y)):
                y[o] = 0 if b == NOWHERE else params[b + o]
            W = params[begin : begin + len(a) * len(y)]
            scratch.counts[layer], finite = _list_nonzero(a, rows, finite)
            _add_rows(y, W, a, rows, scratch.counts[layer], plan.blocks[layer])
        elif plan.kinds[layer] == RELU:  # y = max(a, 0), where NaN stays NaN
            for i in range(len(a)):
                y[i] = 0 if a[i] <= 0 else a[i]
        else:  # y = a * scale
            for i in range(len(a)):
                y[i] = a[i] * mask[plan.masks[layer] + i] * factors[layer]
    return finite


@_compiled
def _backward(plan, params, velocity, settings, x, mask, factors, scratch, finite):
    """Train each layer, from the last gradient on; return what _forward returns."""
    for layer in range(len(plan.kinds) - 1, -1, -1):
        a = x if layer == 0 else scratch.inputs[layer, : plan.widths[layer]]
        da = scratch.gradients[layer, : plan.widths[layer]]
        dy = scratch.gradients[layer + 1, : plan.rooms[layer + 1]]
        if plan.kinds[layer] == LINEAR:  # da = dy @ W.T; dW = a.T @ dy; db = dy
            begin, b, block = plan.weights[layer], plan.biases[layer], plan.blocks[layer]
            part = slice(begin, begin + len(a) * len(dy))
            W, v = params[part], velocity[part]
            rows, count = scratch.rows[layer], scratch.counts[layer]
            finite = finite and _all_finite(dy)
            if layer > 0:
                gated = finite and plan.gated[layer] != 0
                _times_transposed(da, W, dy, rows, count, gated, block)
            if finite and settings.momentum == 0 and settings.decay == 0:
                _step_rows(W, dy, a, rows, count, settings.lr, block)
            else:
                _step_all(W, v, dy, a, settings)
            if b != NOWHERE:
                _step(params, velocity, b, dy, dy.dtype.type(1), settings)
        elif plan.kinds[layer] == RELU:  # da = dy * (a > 0)
            for i in range(len(a)):
                da[i] = dy[i] * (a[i] > 0)
        else:  # da = dy * scale
            for i in range(len(a)):
                da[i] = dy[i] * mask[plan.masks[layer] + i] * factors[layer]
    return finite


@_compiled
def _list_nonzero(a, rows, finite):
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


@_compiled
def _add_rows(y, W, a, rows, count, block):
    """y += a @ W over these rows, a block of columns at a time."""
    for at in range(0, len(y), block):
        for n in literal_unroll(BLOCKS):
            if n == block:
                sums = load(y, at, n)
                for k in range(count):
                    i = rows[k]
                    sums = sums + a[i] * load(W, i * len(y) + at, n)
                store(y, at, sums)


@_compiled
def _step_rows(W, dy, a, rows, count, lr, block):
    """W -= lr * a.T @ dy over these rows, a block of columns at a time."""
    for at in range(0, len(dy), block):
        for n in literal_unroll(BLOCKS):
            if n == block:
                step = lr * load(dy, at, n)
                for k in range(count):
                    i = rows[k]
                    begin = i * len(dy) + at
                    store(W, begin, load(W, begin, n) - a[i] * step)


@_compiled
def _times_transposed(da, W, dy, rows, count, gated, block):
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


@_compiled
def _step_all(W, v, dy, a, settings):
    """Step along a.T @ dy in every row."""
    for i in range(len(a)):
        _step(W, v, i * len(dy), dy, a[i], settings)


@_compiled
def _step(W, velocity, begin, dy, a, settings):
    """v = momentum * v + g; w -= lr * v, for g = a * dy + decay * w; nesterov as in SGD.

    w and v are the len(dy) numbers of W and of velocity from begin on.
    """
    lr, momentum, decay = settings.lr, settings.momentum, settings.decay
    shrink = dy.dtype.type(1) - lr * decay
    for o in range(0, len(dy), LANES):
        g, w = a * load(dy, o, LANES), load(W, begin + o, LANES)
        if momentum == 0:
            store(W, begin + o, shrink * w - lr * g)
            continue
        v = momentum * load(velocity, begin + o, LANES) + g
        if decay != 0:  # 0 * inf is NaN
            v = v + decay * w
        store(velocity, begin + o, v)
        if settings.nesterov:
            w, v = shrink * w, g + momentum * v
        store(W, begin + o, w - lr * v)


@_compiled
def _all_finite(values):
    """Return whether the sum is finite: False also if only the sum overflows."""
    result = values.dtype.type(0)
    for i in range(len(values)):
        result += values[i]
    return np.isfinite(result)
