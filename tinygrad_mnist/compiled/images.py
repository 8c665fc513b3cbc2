"""What a kernel does with images: eight samples are the lanes of a vector.

A group is LANES samples. An image of a group is an array (C, H, W, LANES), so one vector has the
same pixel of all its samples, and each loop below is written as for one sample. Lanes without a
sample hold zeros, and their gradients are 0. A `trunk` is the part of a network before Flatten.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._extras import needing
from tinygrad_mnist.compiled import batches
from tinygrad_mnist.compiled.kernel import (
    CONV2D,
    LANES,
    MAXPOOL2D,
    NOWHERE,
    RELU,
    compiled,
    inlined,
    separate,
)
from tinygrad_mnist.compiled.rows import step
from tinygrad_mnist.compiled.threads import meet
from tinygrad_mnist.compiled.vectors import entry, larger, load, splat, store, total, where

with needing("tinygrad_mnist.compiled", "compiled"):
    from numba import literal_unroll

TILES = 8, 16, 24, 32  # numbers of a row that are computed at a time: LANES for each column
TAPS = 3  # weights of a channel whose gradients are computed at a time
CHANNELS = 4  # channels that are computed at a time
_ALL = (1 << LANES) - 1  # a bit for each lane


def _integers(names: str) -> np.dtype[Any]:
    return np.dtype([(name, np.int64) for name in names.split()])


# Where an image of a group is: pixel (c, h, w) of group g is the vector that begins at
# begin + g * step + c * plane + h * row + w * LANES.
PLACE = _integers("channels rows columns begin step plane row")

# The weights of a correlation, in the order of the kernel's rows, its columns, and the channels of
# x. From begin on the tables have two lists for them, of count numbers each: how far a weight's
# pixel is from the window's first one, and where its weight for channel 0 of y is in params. That
# for channel o is o * stride further on.
WEIGHTS = _integers("rows columns top left begin count stride bias tile")

OPERATION = np.dtype(
    [(name, np.int64) for name in ("kind", "mask", "rectified", "disjoint", "bits", "bits_step")]
    + [("scale", np.float64)]  # 1 / (1 - p) of a Dropout
    + [(name, PLACE) for name in ("x", "dx", "y", "dy")]
    + [("forward", WEIGHTS), ("backward", WEIGHTS)]
    # how far each pixel of a pool's window is stands in the tables, too
    + [("window", _integers("begin count stride_h stride_w"))]
    + [("gradient", _integers("begin count W numbers b room"))]
)


class Trunk(NamedTuple):
    """The operations, and the tables of their correlations."""

    operations: NDArray[Any]
    tables: NDArray[np.int64]
    first: int  # the first operation with weights: no gradient goes below it


class Work(NamedTuple):
    """What a pass works on. Of the first three each part has its row."""

    memory: NDArray[Any]  # images
    bits: NDArray[np.uint8]  # one for each lane
    gradients: NDArray[Any]  # of params, summed over the part's samples
    features: NDArray[Any]  # (samples, features)
    inputs: NDArray[Any]  # a read-only view of features


@compiled
def run_images(part, parts, meeting, trunk, plan, params, velocity, settings, chunk, scratch, work):
    """Train on one batch after the other. plan and scratch are of the layers behind the trunk."""
    memory, bits, gradients = work.memory[part], work.bits[part], work.gradients[part]
    for j in range(len(chunk.rates)):
        begin, end = chunk.ends[j], chunk.ends[j + 1]
        x, masks, n = chunk.inputs[begin:end], chunk.masks[begin:end], end - begin
        groups = (n + LANES - 1) // LANES
        first, last = (
            LANES * (groups * part // parts),
            min(n, LANES * (groups * (part + 1) // parts)),
        )

        rows, features = x.reshape(-1), work.features.reshape(-1)
        for s in range(first, last, LANES):
            group = (s - first) // LANES
            forward_images(trunk, params, memory, bits, rows, masks, features, s, n, group)
        inputs = work.inputs[:n]
        batches.forward(plan, params, inputs, masks, first, last, None, scratch)
        batches.write_losses(plan, settings.loss, chunk, j, first, last, scratch)
        batches.backward(plan, params, masks, first, last, -1, None, scratch)
        dfeatures = scratch.gradients[batches.place(plan, scratch, 0, 0, n)]
        _clear_gradients(trunk, gradients)
        for s in range(first, last, LANES):
            group = (s - first) // LANES
            state = memory, bits, gradients
            backward_images(trunk, params, state, masks, dfeatures, plan.rooms[0], s, n, group)
        meet(meeting, parts)

        if part == 0:
            chunk.totals[j] = scratch.losses[:n].sum()
        lr = chunk.rates[j]
        _update(trunk, params, velocity, settings, lr, part, parts, work.gradients)
        batches.update(plan, params, velocity, settings, lr, inputs, part, parts, None, scratch)
        meet(meeting, parts)


@inlined
def forward_images(trunk, params, memory, bits, rows, masks, features, s, n, group):
    """Compute the features of a group: of the samples from s on, up to n."""
    operations = trunk.operations
    x, last = operations[0].x, operations[len(operations) - 1].y
    _gather(memory, x, group, rows, x.channels * x.rows * x.columns, s, n)
    for k in range(len(operations)):
        op = operations[k]
        if op.kind == CONV2D:
            _correlate(memory, group, op.x, op.y, op.forward, trunk.tables, params)
        elif op.kind == MAXPOOL2D:
            _pool(memory, group, op, trunk.tables, bits)
        elif op.kind == RELU:
            _rectify(memory, group, op, bits)
        else:
            _drop(memory, group, op.x, op.y, op.mask, op.scale, masks, s)
    _scatter(memory, last, group, features, last.channels * last.rows * last.columns, s, n)


@inlined
def backward_images(trunk, params, state, masks, dfeatures, room, s, n, group):
    """Add the gradients of all weights, given those of a group's features, room for each sample."""
    operations, (memory, bits, gradients) = trunk.operations, state
    _gather(memory, operations[len(operations) - 1].dy, group, dfeatures, room, s, n)
    for k in range(len(operations) - 1, trunk.first - 1, -1):
        op = operations[k]
        if op.kind == CONV2D:
            _add_products(memory, group, op.x, op.dy, op.gradient, trunk.tables, gradients)
            if op.gradient.b != NOWHERE:
                _add_sums(memory, group, op.dy, op.gradient.b, gradients)
            if k > trunk.first:
                _correlate(memory, group, op.dy, op.dx, op.backward, trunk.tables, params)
        elif op.kind == MAXPOOL2D:
            _unpool(memory, group, op, trunk.tables, bits)
        elif op.kind == RELU:
            _gate(memory, group, op, bits)
        else:
            _drop(memory, group, op.dy, op.dx, op.mask, op.scale, masks, s)


@separate
def _clear_gradients(trunk, gradients):
    for k in range(len(trunk.operations)):
        op = trunk.operations[k]
        if op.kind == CONV2D:
            gradients[op.gradient.W : op.gradient.W + op.gradient.numbers] = 0
            if op.gradient.b != NOWHERE:
                gradients[op.gradient.b : op.gradient.b + op.gradient.room] = 0


@separate
def _update(trunk, params, velocity, settings, lr, part, parts, gradients):
    """Take a part's rows of each W, and the biases, a step along the gradients of all parts."""
    for k in range(len(trunk.operations)):
        op = trunk.operations[k]
        if op.kind == CONV2D:
            W, b, room = op.gradient.W, op.gradient.b, op.gradient.room
            rows = op.gradient.numbers // room
            first, last = W + rows * part // parts * room, W + rows * (part + 1) // parts * room
            _step(params, velocity, settings, lr, first, last, gradients)
            if b != NOWHERE and part == parts - 1:
                _step(params, velocity, settings, lr, b, b + room, gradients)


@separate
def _step(params, velocity, settings, lr, first, last, gradients):
    total = gradients[0, first:last]
    for p in range(1, len(gradients)):
        for i in range(last - first):
            total[i] += gradients[p, first + i]
    step(params, velocity, first, total, total.dtype.type(1), lr, settings)


@separate
def _gather(memory, place, group, rows, room, s, n):
    """Write the rows of samples s, s + 1, ... as lanes; zeros if there are no more than n.

    A row is (H, W, C), and the next one begins room further on.
    """
    W, C, zero = place.columns, place.channels, splat(memory.dtype.type(0), 1)
    for lane in range(LANES):
        for c in range(C):
            for h in range(place.rows):
                at = place.begin + group * place.step + c * place.plane + h * place.row + lane
                first = (s + lane) * room + h * W * C + c
                for w in range(W):
                    x = load(rows, first + w * C, 1) if s + lane < n else zero
                    store(memory, at + w * LANES, x)


@separate
def _scatter(memory, place, group, rows, room, s, n):
    """Write the lanes as rows of samples s, s + 1, ..., but no more than n."""
    W, C = place.columns, place.channels
    for lane in range(min(LANES, n - s)):
        for c in range(C):
            for h in range(place.rows):
                at = place.begin + group * place.step + c * place.plane + h * place.row + lane
                first = (s + lane) * room + h * W * C + c
                for w in range(W):
                    store(rows, first + w * C, load(memory, at + w * LANES, 1))


@separate
def _correlate(memory, group, x, y, weights, tables, params):
    """y[o, h, w] = b[o] + sum(W[i, j, c, o] * x[c, h + i - top, w + j - left] for all i, j, c).

    Where x ends there are zeros. This is a convolution's forward, and the gradient of its input:
    there x is dy, y is dx, and W is read from its end.
    """
    for n in literal_unroll(TILES):
        if n == weights.tile:
            zeros = splat(memory.dtype.type(0), n)
            _correlate_by(zeros, memory, group, x, y, weights, tables, params)


class _Tile(NamedTuple):
    """Some columns of a row of y, and the weights of all that their windows see."""

    at: int  # where the window of the first column begins
    to: int  # where that column of channel 0 of y is
    first: int  # the weights are first ... first + length, and as many each span further on
    length: int
    times: int
    span: int


@inlined
def _correlate_by(zeros, memory, group, x, y, weights, tables, params):
    """The same, as many columns at a time as there are zeros, and four channels or one.

    The last ones may be some of those before. Rows of zeros above and below x are left out, and
    columns where a whole tile sees zeros; the other columns of zeros are in memory.
    """
    columns, span = len(zeros) // LANES, weights.columns * x.channels
    begin = x.begin + group * x.step - weights.top * x.row - weights.left * LANES
    for h in range(y.rows):
        top, bottom = max(0, weights.top - h), min(weights.rows, weights.top - h + x.rows)
        for next_w in range(0, y.columns, columns):
            w = min(next_w, y.columns - columns)
            left = max(0, weights.left - w - columns + 1)
            right = min(weights.columns, weights.left - w + x.columns)
            at = begin + h * x.row + w * LANES
            to = y.begin + group * y.step + h * y.row + w * LANES
            first, length = top * span + left * x.channels, (right - left) * x.channels
            tile = _Tile(at, to, first, length, bottom - top, span)
            if y.channels < CHANNELS:
                for o in range(y.channels):
                    _one_channel(zeros, memory, tile, o, y.plane, weights, tables, params)
            else:
                for next_o in range(0, y.channels, CHANNELS):
                    o = min(next_o, y.channels - CHANNELS)
                    _four_channels(zeros, memory, tile, o, y.plane, weights, tables, params)


@inlined
def _one_channel(zeros, memory, tile, o, plane, weights, tables, params):
    """Compute channel o of a tile."""
    pixels, places, b = weights.begin, weights.begin + weights.count, weights.bias
    sums = zeros if b == NOWHERE else splat(params[b + o], len(zeros))
    for i in range(tile.times):
        begin = tile.first + i * tile.span
        for q in range(begin, begin + tile.length):
            x = load(memory, tile.at + entry(tables, pixels + q), len(zeros))
            sums = sums + entry(params, entry(tables, places + q) + o * weights.stride) * x
    store(memory, tile.to + o * plane, sums)


@inlined
def _four_channels(zeros, memory, tile, o, plane, weights, tables, params):
    """Compute the channels of a tile from o on."""
    pixels, places, stride = weights.begin, weights.begin + weights.count, weights.stride
    a, b, c, d = zeros, zeros, zeros, zeros
    if weights.bias != NOWHERE:
        bias, n = weights.bias + o, len(zeros)
        a, b = splat(params[bias], n), splat(params[bias + 1], n)
        c, d = splat(params[bias + 2], n), splat(params[bias + 3], n)
    for i in range(tile.times):
        begin = tile.first + i * tile.span
        for q in range(begin, begin + tile.length):
            x = load(memory, tile.at + entry(tables, pixels + q), len(zeros))
            W = entry(tables, places + q) + o * stride
            a = a + entry(params, W) * x
            b = b + entry(params, W + stride) * x
            c = c + entry(params, W + 2 * stride) * x
            d = d + entry(params, W + 3 * stride) * x
    to = tile.to + o * plane
    store(memory, to, a)
    store(memory, to + plane, b)
    store(memory, to + 2 * plane, c)
    store(memory, to + 3 * plane, d)


@separate
def _add_products(memory, group, x, dy, gradient, tables, gradients):
    """dW[i, j, c, o] += sum(dy[o, h, w] * x[c, h + i - top, w + j - left] for all h, w, lanes).

    TAPS of the (i, j, c) and CHANNELS of the o at a time. There is room for them: behind the last
    weights others, which nobody reads, and behind the last channels of dy zeros.
    """
    zero = splat(memory.dtype.type(0), LANES)
    first = x.begin + group * x.step
    for o in range(0, dy.channels, CHANNELS):
        there, plane = dy.begin + group * dy.step + o * dy.plane, dy.plane
        for q in range(gradient.begin, gradient.begin + gradient.count, TAPS):
            x0, x1, x2 = first + tables[q], first + tables[q + 1], first + tables[q + 2]
            a0, a1, a2, b0, b1, b2 = zero, zero, zero, zero, zero, zero
            c0, c1, c2, d0, d1, d2 = zero, zero, zero, zero, zero, zero
            for h in range(dy.rows):
                at, to = h * x.row, there + h * dy.row
                for w in range(0, dy.columns * LANES, LANES):
                    pixels0 = load(memory, x0 + at + w, LANES)
                    pixels1 = load(memory, x1 + at + w, LANES)
                    pixels2 = load(memory, x2 + at + w, LANES)
                    a, b = load(memory, to + w, LANES), load(memory, to + plane + w, LANES)
                    a0, a1, a2 = a0 + a * pixels0, a1 + a * pixels1, a2 + a * pixels2
                    b0, b1, b2 = b0 + b * pixels0, b1 + b * pixels1, b2 + b * pixels2
                    c = load(memory, to + 2 * plane + w, LANES)
                    d = load(memory, to + 3 * plane + w, LANES)
                    c0, c1, c2 = c0 + c * pixels0, c1 + c * pixels1, c2 + c * pixels2
                    d0, d1, d2 = d0 + d * pixels0, d1 + d * pixels1, d2 + d * pixels2
            q += gradient.count
            _add_totals(gradients, tables[q] + o, a0, b0, c0, d0)
            _add_totals(gradients, tables[q + 1] + o, a1, b1, c1, d1)
            _add_totals(gradients, tables[q + 2] + o, a2, b2, c2, d2)


@separate
def _add_sums(memory, group, dy, begin, gradients):
    """db[o] += sum(dy[o, h, w] for all h, w, lanes), CHANNELS of the o at a time."""
    zero = splat(memory.dtype.type(0), LANES)
    for o in range(0, dy.channels, CHANNELS):
        a, b, c, d = zero, zero, zero, zero
        for h in range(dy.rows):
            at = dy.begin + group * dy.step + o * dy.plane + h * dy.row
            for w in range(at, at + dy.columns * LANES, LANES):
                a, b = a + load(memory, w, LANES), b + load(memory, w + dy.plane, LANES)
                c = c + load(memory, w + 2 * dy.plane, LANES)
                d = d + load(memory, w + 3 * dy.plane, LANES)
        _add_totals(gradients, begin + o, a, b, c, d)


@inlined
def _add_totals(gradients, at, a, b, c, d):
    gradients[at] += total(a)
    gradients[at + 1] += total(b)
    gradients[at + 2] += total(c)
    gradients[at + 3] += total(d)


@separate
def _pool(memory, group, op, tables, bits):
    """y = the largest of each window of x; bits say at which pixels one was larger than before.

    If rectified, only what is larger than 0 counts, else y is 0: a ReLU is done, too.
    """
    if op.window.count == 4:  # as a constant: LLVM then writes the loop out
        _pool_by(4, memory, group, op, tables, bits)
    else:
        _pool_by(op.window.count, memory, group, op, tables, bits)


@inlined
def _pool_by(count, memory, group, op, tables, bits):
    x, y, window, zero = op.x, op.y, op.window, splat(memory.dtype.type(0), LANES)
    stride_h, stride_w, pixels = window.stride_h * x.row, window.stride_w * LANES, window.begin
    always = 0 if op.rectified else _ALL  # the first pixel counts anyway
    flags = op.bits + group * op.bits_step
    for c in range(y.channels):
        for h in range(y.rows):
            at = x.begin + group * x.step + c * x.plane + h * stride_h
            to = y.begin + group * y.step + c * y.plane + h * y.row
            for _ in range(y.columns):
                pixel = load(memory, at, LANES)
                found = larger(pixel, zero) | always
                largest = where(found, pixel, zero)
                _put(bits, flags, found)
                for k in range(1, count):
                    pixel = load(memory, at + entry(tables, pixels + k), LANES)
                    found = larger(pixel, largest)
                    largest = where(found, pixel, largest)
                    _put(bits, flags + k, found)
                store(memory, to, largest)
                at, to, flags = at + stride_w, to + LANES, flags + count


@separate
def _unpool(memory, group, op, tables, bits):
    """dx = dy where the largest of each window was, the last that was found; added if not disjoint.

    Windows are disjoint if each pixel of x is in just one.
    """
    if op.window.count == 4 and op.disjoint:
        _unpool_by(4, True, memory, group, op, tables, bits)
    else:
        _clear(memory, group, op.dx)
        _unpool_by(op.window.count, False, memory, group, op, tables, bits)


@inlined
def _unpool_by(count, disjoint, memory, group, op, tables, bits):
    dx, dy, window, zero = op.dx, op.dy, op.window, splat(memory.dtype.type(0), LANES)
    stride_h, stride_w, pixels = window.stride_h * dx.row, window.stride_w * LANES, window.begin
    flags = op.bits + group * op.bits_step
    for c in range(dy.channels):
        for h in range(dy.rows):
            to = dx.begin + group * dx.step + c * dx.plane + h * stride_h
            at = dy.begin + group * dy.step + c * dy.plane + h * dy.row
            for _ in range(dy.columns):
                rest = load(memory, at, LANES)
                for k in range(count - 1, -1, -1):
                    found, place = entry(bits, flags + k), to + entry(tables, pixels + k)
                    part, rest = where(found, rest, zero), where(found, zero, rest)
                    store(memory, place, part if disjoint else part + load(memory, place, LANES))
                at, to, flags = at + LANES, to + stride_w, flags + count


@inlined
def _put(bits, at, found):
    store(bits, at, splat(np.uint8(found), 1))


@inlined
def _clear(memory, group, place):
    zero = splat(memory.dtype.type(0), LANES)
    for c in range(place.channels):
        for h in range(place.rows):
            at = place.begin + group * place.step + c * place.plane + h * place.row
            for w in range(at, at + place.columns * LANES, LANES):
                store(memory, w, zero)


@separate
def _rectify(memory, group, op, bits):
    """y = max(x, 0), where NaN stays NaN; bits say where it is x."""
    x, y, zero = op.x, op.y, splat(memory.dtype.type(0), LANES)
    flags = op.bits + group * op.bits_step
    for c in range(y.channels):
        for h in range(y.rows):
            at = x.begin + group * x.step + c * x.plane + h * x.row
            to = y.begin + group * y.step + c * y.plane + h * y.row
            for w in range(0, y.columns * LANES, LANES):
                pixel = load(memory, at + w, LANES)
                found = larger(pixel, zero)
                store(memory, to + w, where(found, pixel, zero))
                _put(bits, flags, found)
                flags += 1


@separate
def _gate(memory, group, op, bits):
    """dx = dy where y is x, else 0."""
    dx, dy, zero = op.dx, op.dy, splat(memory.dtype.type(0), LANES)
    flags = op.bits + group * op.bits_step
    for c in range(dy.channels):
        for h in range(dy.rows):
            at = dy.begin + group * dy.step + c * dy.plane + h * dy.row
            to = dx.begin + group * dx.step + c * dx.plane + h * dx.row
            for w in range(0, dy.columns * LANES, LANES):
                store(memory, to + w, where(entry(bits, flags), load(memory, at + w, LANES), zero))
                flags += 1


@separate
def _drop(memory, group, x, y, mask, scale, masks, s):
    """y = x * scale where a sample's mask is 1, else x * 0: also what backward does with dy."""
    here, scale = min(LANES, len(masks) - s), memory.dtype.type(scale)
    for c in range(x.channels):
        for h in range(x.rows):
            at = x.begin + group * x.step + c * x.plane + h * x.row
            to = y.begin + group * y.step + c * y.plane + h * y.row
            for w in range(x.columns):
                k = mask + (h * x.columns + w) * x.channels + c
                for lane in range(here):
                    memory[to + lane] = memory[at + lane] * (scale * masks[s + lane, k])
                for lane in range(here, LANES):
                    memory[to + lane] = 0
                at, to = at + LANES, to + LANES
