"""The compiled kernel: per-sample SGD through a chain of layers, with a rule for each kind.

`a` and `da` are a layer's input and its gradient, `y` and `dy` its output and its gradient. Four
fifths of MNIST's pixels are 0, and half of the outputs of a Dropout(0.5): the weights of such an
input are neither read nor updated. All arrays are flat, W (I, O) row after row. The functions are
compiled when first called, and kept on disk; `f.py_func` is f in plain Python.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._extras import needing

with needing("tinygrad_mnist.compiled", "compiled"):
    from numba import njit

LINEAR, RELU, DROPOUT = range(3)
NOWHERE = -1  # the offset of a bias where there is none

# Sums run in any order, while NaN and infinity stay what they are. Nothing is allocated, so slices
# need no counts of references (_nrt, a switch of numba's own), each an atomic operation.
_OPTIONS: Any = {"cache": True, "fastmath": {"contract", "nsz", "reassoc"}, "_nrt": False}
_compiled = njit(**_OPTIONS)


class Plan(NamedTuple):
    """A chain in numbers. Layer l maps widths[l] features to widths[l + 1]."""

    widths: NDArray[np.int64]  # one more than there are layers
    kinds: NDArray[np.int64]
    weights: NDArray[np.int64]  # offsets into the flat parameters
    biases: NDArray[np.int64]
    masks: NDArray[np.int64]  # offsets into a sample's masks


class Settings(NamedTuple):
    """Those of SGD, in the parameters' dtype, and slope = dL/dy / (y - t)."""

    lr: np.floating[Any]
    momentum: np.floating[Any]
    decay: np.floating[Any]
    slope: np.floating[Any]
    nesterov: bool


@_compiled
def run_samples(plan, params, velocity, settings, inputs, targets, masks, factors, scratch):
    """Train on each row of inputs; return the sum of squared errors and the number of hits.

    scratch is room for each layer's input, for its gradient, and for the indices of its non-zero
    entries, and how many those are.
    """
    outputs, gradients, nonzero, counts = scratch
    # a product with 0 can be left out only while all is finite: 0 * inf is NaN
    finite = _all_finite(params)
    layers, total, hits = len(plan.kinds), 0.0, 0
    for s in range(len(inputs)):
        a = outputs[0, : plan.widths[0]]
        for i in range(len(a)):
            a[i] = inputs[s, i]
        finite = finite and _all_finite(a)
        _forward(plan, params, masks[s], factors, outputs, nonzero, counts, finite)

        y = outputs[layers, : plan.widths[layers]]
        for o in range(len(y)):  # L = sum((y - t)**2) / n
            error = y[o] - targets[s, o]
            total += error * error
            gradients[layers, o] = settings.slope * error
        hits += np.argmax(y) == np.argmax(targets[s])

        finite = finite and _all_finite(gradients[layers, : len(y)])
        _backward(plan, params, velocity, settings, masks[s], factors, scratch, finite)
    return total, hits


@_compiled
def _forward(plan, params, mask, factors, outputs, nonzero, counts, finite):
    for layer in range(len(plan.kinds)):
        a, y = outputs[layer, : plan.widths[layer]], outputs[layer + 1, : plan.widths[layer + 1]]
        if plan.kinds[layer] == LINEAR:  # y = a @ W + b
            begin, b = plan.weights[layer], plan.biases[layer]
            for o in range(len(y)):
                y[o] = 0 if b == NOWHERE else params[b + o]
            W = params[begin : begin + len(a) * len(y)]
            counts[layer] = _list_nonzero(a, nonzero[layer], finite)
            _add_rows(y, W, a, nonzero[layer], counts[layer])
        elif plan.kinds[layer] == RELU:  # y = max(a, 0), where NaN stays NaN
            for i in range(len(a)):
                y[i] = 0 if a[i] <= 0 else a[i]
        else:  # y = a * scale
            for i in range(len(a)):
                y[i] = a[i] * mask[plan.masks[layer] + i] * factors[layer]


@_compiled
def _backward(plan, params, velocity, settings, mask, factors, scratch, finite):
    outputs, gradients, nonzero, counts = scratch
    for layer in range(len(plan.kinds) - 1, -1, -1):
        a, da = outputs[layer, : plan.widths[layer]], gradients[layer, : plan.widths[layer]]
        dy = gradients[layer + 1, : plan.widths[layer + 1]]
        if plan.kinds[layer] == LINEAR:  # da = dy @ W.T; dW = a.T @ dy; db = dy
            begin, b = plan.weights[layer], plan.biases[layer]
            span = slice(begin, begin + len(a) * len(dy))
            finite = finite and _all_finite(dy)
            if layer > 0:
                _times_transposed(da, params[span], dy)
            _step_weights(
                params[span], velocity[span], a, dy, settings, nonzero[layer], counts[layer], finite
            )
            if b != NOWHERE:
                one = dy.dtype.type(1)
                _step(params[b : b + len(dy)], velocity[b : b + len(dy)], dy, one, settings)
        elif plan.kinds[layer] == RELU:  # da = dy * (a > 0)
            for i in range(len(a)):
                da[i] = dy[i] * (a[i] > 0)
        else:  # da = dy * scale
            for i in range(len(a)):
                da[i] = dy[i] * mask[plan.masks[layer] + i] * factors[layer]


@_compiled
def _list_nonzero(a, indices, finite):
    """Write the indices of the entries that are not 0, all if not finite; return their number."""
    if not finite:
        for i in range(len(a)):
            indices[i] = i
        return len(a)
    count = np.uint64(0)  # unsigned: no test for a negative index
    for i in range(len(a)):  # without a branch, which images would make hard to predict
        indices[count] = i
        count += np.uint64(a[i] != 0)
    return np.int64(count)


@_compiled
def _add_rows(y, W, a, rows, count):
    """y += a @ W over the rows listed, four at a time: y is read and written a quarter as often."""
    n, whole = len(y), count - count % 4
    for k in range(0, whole, 4):
        i, j, p, q = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        ai, aj, ap, aq = a[i], a[j], a[p], a[q]
        Wi, Wj = W[i * n : (i + 1) * n], W[j * n : (j + 1) * n]
        Wp, Wq = W[p * n : (p + 1) * n], W[q * n : (q + 1) * n]
        for o in range(n):
            y[o] += ai * Wi[o] + aj * Wj[o] + ap * Wp[o] + aq * Wq[o]
    for k in range(whole, count):
        i = rows[k]
        row, ai = W[i * n : (i + 1) * n], a[i]
        for o in range(n):
            y[o] += ai * row[o]


@_compiled
def _times_transposed(da, W, dy):
    """da = dy @ W.T."""
    n = len(dy)
    for i in range(len(da)):
        row, total = W[i * n : (i + 1) * n], da.dtype.type(0)
        for o in range(n):
            total += row[o] * dy[o]
        da[i] = total


@_compiled
def _step_weights(W, v, a, dy, settings, rows, count, finite):
    """Step along a.T @ dy: plain SGD over the rows listed, of non-zero inputs, else over all."""
    n, plain = len(dy), settings.momentum == 0 and settings.decay == 0
    if plain and finite:
        for k in range(count):
            i = rows[k]
            row, step = W[i * n : (i + 1) * n], settings.lr * a[i]
            for o in range(n):
                row[o] -= step * dy[o]
    else:
        for i in range(len(a)):
            _step(W[i * n : (i + 1) * n], v[i * n : (i + 1) * n], dy, a[i], settings)


@_compiled
def _step(w, v, dy, a, settings):
    """v = momentum * v + g; w -= lr * v, for g = a * dy + decay * w; nesterov as in SGD."""
    lr, momentum, decay = settings.lr, settings.momentum, settings.decay
    shrink = w.dtype.type(1) - lr * decay
    for o in range(len(w)):
        g = a * dy[o]
        if momentum == 0:
            w[o] = shrink * w[o] - lr * g
            continue
        v[o] = momentum * v[o] + g
        if decay != 0:  # 0 * inf is NaN
            v[o] += decay * w[o]
        w[o] = shrink * w[o] - lr * (g + momentum * v[o]) if settings.nesterov else w[o] - lr * v[o]


@_compiled
def _all_finite(values):
    """Return whether the sum is finite: False also if only the sum overflows."""
    total = values.dtype.type(0)
    for i in range(len(values)):
        total += values[i]
    return np.isfinite(total)
