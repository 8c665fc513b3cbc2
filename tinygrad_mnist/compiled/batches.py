"""A kernel that trains in batches of rows.

A batch has two phases, and of each every part of the pass has its part: forward and back for its
own samples, then the steps of its own rows of each W. The parts meet after each phase. Products
with a layer's input leave out what is 0 there, in data or behind a ReLU or a Dropout; those that
cannot are BLAS's.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _blas
from tinygrad_mnist.compiled.kernel import LINEAR, NOWHERE, RELU, Plan, compiled, inlined, separate
from tinygrad_mnist.compiled.products import gemm
from tinygrad_mnist.compiled.rows import (
    all_finite,
    drop,
    loss_of_row,
    rectify,
    rectify_back,
    step,
    write_bias,
)
from tinygrad_mnist.compiled.sparse import (
    WORD,
    add_product,
    mark_nonzero,
    transpose_marks,
    words_for,
    write_marked,
)
from tinygrad_mnist.compiled.threads import meet

_GRADIENT = 32_768  # numbers of a gradient that are computed at a time: a cache holds them


class Scratch(NamedTuple):
    """What the phases tell each other.

    outputs and gradients have a row for each sample, of each layer's input and of the last output:
    a layer's rows lie one after the other, with their room behind.
    """

    starts: NDArray[np.int64]  # where a layer's rows begin
    outputs: NDArray[Any]
    inputs: NDArray[Any]  # a read-only view of outputs, of one type with the data
    gradients: NDArray[Any]
    losses: NDArray[np.float64]  # of each sample
    finite: NDArray[np.bool_]  # of each part: is all that it has met?
    marks: NDArray[np.uint64]  # of each layer's input: what is not 0
    transposed: NDArray[np.uint64]  # the marks transposed
    gradient: NDArray[Any]  # for each part, of some rows of a W


def new_scratch(plan: Plan, size: int, parts: int, dtype: np.dtype[Any]) -> Scratch:
    """Return zeros for batches of up to this size, in so many parts."""
    starts = np.append(0, np.cumsum(size * plan.rooms))
    outputs, gradients = (_blas.aligned_zeros((int(starts[-1]),), dtype) for _ in range(2))
    inputs = outputs.view()
    inputs.flags.writeable = False
    layers, words, numbers = len(plan.kinds), words_for(max(plan.widths)), max(plan.rooms)
    return Scratch(
        starts,
        outputs,
        inputs,
        gradients,
        losses=np.zeros(size),
        finite=np.zeros(parts, np.bool_),
        marks=np.zeros((layers, size, words), np.uint64),
        transposed=np.zeros((layers, words_for(size), WORD * words), np.uint64),
        gradient=_blas.aligned_zeros((parts, max(_GRADIENT, int(numbers))), dtype),
    )


@compiled
def run_batches(part, parts, meeting, plan, params, velocity, settings, chunk, scratch):
    """Train on one batch after the other."""
    # a product with 0 can be left out only while all is finite: 0 * inf is NaN
    finite, lowest = all_finite(params), first_linear(plan)
    for j in range(len(chunk.rates)):
        begin, end, lr = chunk.ends[j], chunk.ends[j + 1], chunk.rates[j]
        x, masks = chunk.inputs[begin:end], chunk.masks[begin:end]
        first, last = len(x) * part // parts, len(x) * (part + 1) // parts
        finite = forward(plan, params, x, masks, first, last, finite, scratch) and finite
        write_losses(plan, settings.loss, chunk, j, first, last, scratch)
        finite = backward(plan, params, masks, first, last, lowest, finite, scratch) and finite
        scratch.finite[part] = finite
        meet(meeting, parts)

        for p in range(parts):
            finite = finite and scratch.finite[p]
        update(plan, params, velocity, settings, lr, x, part, parts, finite, scratch)
        if part == 0:
            chunk.totals[j] = scratch.losses[: len(x)].sum()
        meet(meeting, parts)


@compiled
def first_linear(plan):
    """Return the lowest layer that needs the gradient of its output."""
    layer = 0
    while plan.kinds[layer] != LINEAR:
        layer += 1
    return layer


# Where things are


@compiled
def place(plan, scratch, layer, first, last):
    """Return the slice of these samples' rows, of a layer's input."""
    start, room = scratch.starts[layer], plan.rooms[layer]
    return slice(start + first * room, start + last * room)


@compiled
def place_of_weights(plan, layer, first, last):
    """Return the slice of these rows of a Linear's W."""
    start, room = plan.weights[layer], plan.rooms[layer + 1]
    return slice(start + first * room, start + last * room)


@inlined
def matrix(rows, room, width):
    """Return rows as a matrix, without the room behind each."""
    return rows.reshape(len(rows) // room, room)[:, :width]


@inlined
def input_row(plan, x, layer, s, scratch):
    """Return a sample's input of a layer."""
    start = scratch.starts[layer] + s * plan.rooms[layer]
    return x[s] if layer == 0 else scratch.inputs[start : start + plan.widths[layer]]


@inlined
def input_matrix(plan, x, layer, first, last, scratch):
    """Return these samples' inputs of a layer."""
    rows = scratch.inputs[place(plan, scratch, layer, first, last)]
    return x[first:last] if layer == 0 else matrix(rows, plan.rooms[layer], plan.widths[layer])


# Forward


@inlined
def forward(plan, params, x, masks, first, last, sparse, scratch):
    """Compute these samples' outputs of each layer; return whether the Linears' inputs are finite.

    x (samples, I) is the first layer's input. Zeros are left out if sparse is true. If it is None
    they never are, nothing is compiled for it, and the result means nothing.
    """
    finite = True
    for layer in range(len(plan.kinds)):
        if plan.kinds[layer] != LINEAR:
            _apply(plan, x, masks, layer, first, last, scratch)
            continue
        _write_bias(plan, params, layer, first, last, scratch)
        if sparse is not None and sparse:
            finite = _add_sparse(plan, params, x, layer, first, last, scratch) and finite
        else:
            _add_dense(plan, params, x, layer, first, last, scratch)
    return finite


@separate
def _apply(plan, x, masks, layer, first, last, scratch):
    """y = max(a, 0), where NaN stays NaN, or y = a * scale."""
    for s in range(first, last):
        a = input_row(plan, x, layer, s, scratch)
        y = scratch.outputs[place(plan, scratch, layer + 1, s, s + 1)]
        if plan.kinds[layer] == RELU:
            rectify(y, a)
        else:
            drop(y, a, masks[s, plan.masks[layer] :], plan.scales[layer])


@separate
def _write_bias(plan, params, layer, first, last, scratch):
    """y = b, or 0."""
    b = plan.biases[layer]
    for s in range(first, last):
        write_bias(scratch.outputs[place(plan, scratch, layer + 1, s, s + 1)], params, b)


@separate
def _add_sparse(plan, params, x, layer, first, last, scratch):
    """y += a @ W without the zeros of a; return whether a is finite."""
    finite, words = True, words_for(plan.widths[layer])
    marks = scratch.marks[layer, first:last, :words]
    for s in range(first, last):
        a = input_row(plan, x, layer, s, scratch)
        finite = mark_nonzero(a, marks[s - first]) and finite
    a = input_matrix(plan, x, layer, first, last, scratch)
    W = params[place_of_weights(plan, layer, 0, plan.widths[layer])]
    y = scratch.outputs[place(plan, scratch, layer + 1, first, last)]
    one = y.dtype.type(1)
    add_product(y, one, a, marks, W, plan.rooms[layer + 1], plan.blocks[layer])
    return finite


@separate
def _add_dense(plan, params, x, layer, first, last, scratch):
    """y += a @ W."""
    room, width = plan.rooms[layer + 1], plan.widths[layer + 1]
    a = input_matrix(plan, x, layer, first, last, scratch)
    W = params[place_of_weights(plan, layer, 0, plan.widths[layer])]
    y = scratch.outputs[place(plan, scratch, layer + 1, first, last)]
    gemm(1, a, matrix(W, room, width), 1, matrix(y, room, width))


@separate
def write_losses(plan, loss, chunk, j, first, last, scratch):
    """Compute these samples' losses and dy; note their outputs."""
    layers, begin = len(plan.kinds), chunk.ends[j]
    for s in range(first, last):
        at = place(plan, scratch, layers, s, s + 1)
        y, dy = scratch.outputs[at], scratch.gradients[at]
        scratch.losses[s] = loss_of_row(loss, y, chunk.targets[begin + s], chunk.factors[j], dy)
        for o in range(plan.widths[layers]):
            chunk.outputs[begin + s, o] = y[o]


# Back


@inlined
def backward(plan, params, masks, first, last, lowest, sparse, scratch):
    """Compute these samples' gradients, of the outputs of all layers from the lowest on.

    lowest = -1 stands for the first layer's input. sparse is as in forward. Return whether the
    gradients of Linears are finite.
    """
    finite = True
    for layer in range(len(plan.kinds) - 1, -1, -1):
        if plan.kinds[layer] == LINEAR:
            dy = scratch.gradients[place(plan, scratch, layer + 1, first, last)]
            finite = finite and all_finite(dy)
            if layer > lowest:
                _multiply_back(plan, params, layer, first, last, sparse, finite, scratch)
        elif layer > lowest:
            _apply_back(plan, masks, layer, first, last, scratch)
    return finite


@separate
def _multiply_back(plan, params, layer, first, last, sparse, finite, scratch):
    """da = dy @ W.T, or 0 beside the marks if the layers below would make it so."""
    width, room, columns = plan.widths[layer], plan.rooms[layer + 1], plan.widths[layer + 1]
    flat = scratch.gradients[place(plan, scratch, layer, first, last)]
    dy = scratch.gradients[place(plan, scratch, layer + 1, first, last)]
    W = params[place_of_weights(plan, layer, 0, width)]
    da = matrix(flat, plan.rooms[layer], width)
    if sparse is not None and sparse and finite and plan.gated[layer] != 0:
        flat[:] = 0
        marks = scratch.marks[layer, first:last, : words_for(width)]
        write_marked(da, dy, W, marks, room, plan.blocks[layer])
    else:
        gemm(1, matrix(dy, room, columns), matrix(W, room, columns).T, 0, da)


@separate
def _apply_back(plan, masks, layer, first, last, scratch):
    """da = dy * (y > 0), or da = dy * scale."""
    for s in range(first, last):
        at = place(plan, scratch, layer + 1, s, s + 1)
        y, dy = scratch.outputs[at], scratch.gradients[at]
        da = scratch.gradients[place(plan, scratch, layer, s, s + 1)][: plan.widths[layer]]
        if plan.kinds[layer] == RELU:
            rectify_back(da, dy, y)
        else:
            drop(da, dy[: len(da)], masks[s, plan.masks[layer] :], plan.scales[layer])


# The step


@inlined
def update(plan, params, velocity, settings, lr, x, part, parts, sparse, scratch):
    """Take a part's own rows of each W, or the biases, a step along their gradients."""
    plain = settings.momentum == 0 and settings.decay == 0
    for layer in range(len(plan.kinds)):
        if plan.kinds[layer] == LINEAR:
            rows = first, last = _own_rows(plan.widths[layer], part, parts)
            if sparse is not None and sparse:
                marks, transposed = scratch.marks[layer, : len(x)], scratch.transposed[layer]
                transpose_marks(marks, transposed, first, last)
            if plain:
                W = params[place_of_weights(plan, layer, first, last)]
                _add_gradient(W, -lr, plan, x, layer, rows, sparse, scratch)
            else:
                _step_some(
                    plan, params, velocity, settings, lr, x, layer, rows, part, sparse, scratch
                )
            if part == parts - 1 and plan.biases[layer] != NOWHERE:
                _step_bias(plan, params, velocity, settings, lr, x, layer, part, scratch)


@compiled
def _own_rows(n, part, parts):
    """Return where a part's own rows of n begin and end: whole words of marks."""
    words = words_for(n)
    return min(n, WORD * (words * part // parts)), min(n, WORD * (words * (part + 1) // parts))


@separate
def _add_gradient(out, scale, plan, x, layer, rows, sparse, scratch):
    """out += scale * a.T @ dy, for these rows of dW."""
    room, width, samples = plan.rooms[layer + 1], plan.widths[layer + 1], len(x)
    first, last = rows
    a = input_matrix(plan, x, layer, 0, samples, scratch)[:, first:last]
    dy = scratch.gradients[place(plan, scratch, layer + 1, 0, samples)]
    if sparse is not None and sparse:
        marks = scratch.transposed[layer, : words_for(samples), first:last]
        add_product(out, scale, a.T, marks.T, dy, room, plan.blocks[layer])
    else:
        gemm(scale, a.T, matrix(dy, room, width), 1, matrix(out, room, width))


@separate
def _step_some(plan, params, velocity, settings, lr, x, layer, rows, part, sparse, scratch):
    """Step along dW in these rows, as many at a time as there is room for."""
    (first, last), room, one = rows, plan.rooms[layer + 1], x.dtype.type(1)
    size = len(scratch.gradient[part]) // room
    for begin in range(first, last, size):
        end, start = min(begin + size, last), plan.weights[layer]
        dW = scratch.gradient[part, : (end - begin) * room]
        dW[:] = 0
        _add_gradient(dW, one, plan, x, layer, (begin, end), sparse, scratch)
        for i in range(begin, end):
            at = (i - begin) * room
            step(params, velocity, start + i * room, dW[at : at + room], one, lr, settings)


@separate
def _step_bias(plan, params, velocity, settings, lr, x, layer, part, scratch):
    """Step along db = dy.sum(axis=0)."""
    b, room = plan.biases[layer], plan.rooms[layer + 1]
    db = scratch.gradient[part, :room]
    db[:] = 0
    for s in range(len(x)):
        dy = scratch.gradients[place(plan, scratch, layer + 1, s, s + 1)]
        for o in range(room):
            db[o] += dy[o]
    step(params, velocity, b, db, db.dtype.type(1), lr, settings)
