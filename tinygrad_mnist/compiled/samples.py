"""A kernel that trains sample by sample."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist.compiled.kernel import LINEAR, NOWHERE, RELU, Plan, compiled
from tinygrad_mnist.compiled.rows import (
    add_rows,
    all_finite,
    drop,
    list_nonzero,
    loss_of_row,
    rectify,
    rectify_back,
    step,
    step_all,
    step_rows,
    times_transposed,
    write_bias,
)
from tinygrad_mnist.compiled.vectors import prefetch


class Scratch(NamedTuple):
    """A row for each layer's input, and one for the last output."""

    outputs: NDArray[Any]
    inputs: NDArray[Any]  # a read-only view of outputs, of one type with the samples
    gradients: NDArray[Any]
    rows: NDArray[np.uint32]  # the rows of W to take: those of entries that are not 0
    counts: NDArray[np.int64]  # how many these are


def new_scratch(plan: Plan, dtype: np.dtype[Any]) -> Scratch:
    """Return zeros for what a sample leaves on its way."""
    shape = len(plan.widths), int(plan.rooms.max())
    outputs = np.zeros(shape, dtype)
    inputs = outputs.view()
    inputs.flags.writeable = False
    rows, counts = np.zeros(shape, np.uint32), np.zeros(shape[0], np.int64)
    return Scratch(outputs, inputs, np.zeros(shape, dtype), rows, counts)


@compiled
def run_samples(plan, params, velocity, settings, chunk, scratch):
    """Train on one sample after the other."""
    # a product with 0 can be left out only while all is finite: 0 * inf is NaN
    finite = all_finite(params)
    layers, samples = len(plan.kinds), len(chunk.inputs)
    for s in range(samples):
        _prefetch(chunk.inputs[min(s + 2, samples - 1)])
        x, mask, lr = chunk.inputs[s], chunk.masks[s], chunk.rates[s]
        finite = _forward(plan, params, x, mask, scratch, finite)

        y, dy = scratch.outputs[layers], scratch.gradients[layers]
        for o in range(plan.widths[layers]):
            chunk.outputs[s, o] = y[o]
        chunk.totals[s] = loss_of_row(settings.loss, y, chunk.targets[s], chunk.factors[s], dy)

        finite = _backward(plan, params, velocity, settings, x, mask, lr, scratch, finite)


@compiled
def _prefetch(x):
    """Ask for a sample: the weights stay in the caches, but samples come from memory."""
    for i in range(0, len(x), 64 // x.itemsize):
        prefetch(x, i)


@compiled
def _forward(plan, params, x, mask, scratch, finite):
    """Compute each layer's output; return whether all that meets a weight is finite."""
    for layer in range(len(plan.kinds)):
        a = x if layer == 0 else scratch.inputs[layer, : plan.widths[layer]]
        y = scratch.outputs[layer + 1, : plan.rooms[layer + 1]]
        if plan.kinds[layer] == LINEAR:  # y = a @ W + b
            begin, b, rows = plan.weights[layer], plan.biases[layer], scratch.rows[layer]
            write_bias(y, params, b)
            W = params[begin : begin + len(a) * len(y)]
            scratch.counts[layer], finite = list_nonzero(a, rows, finite)
            add_rows(y, W, a, rows, scratch.counts[layer], plan.blocks[layer])
        elif plan.kinds[layer] == RELU:
            rectify(y, a)
        else:
            drop(y, a, mask[plan.masks[layer] :], plan.scales[layer])
    return finite


@compiled
def _backward(plan, params, velocity, settings, x, mask, lr, scratch, finite):
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
            finite = finite and all_finite(dy)
            if layer > 0:
                gated = finite and plan.gated[layer] != 0
                times_transposed(da, W, dy, rows, count, gated, block)
            if not (finite and settings.momentum == 0 and settings.decay == 0):
                step_all(W, v, dy, a, lr, settings)
            elif lr != 0:
                step_rows(W, dy, a, rows, count, lr, block)
            if b != NOWHERE:
                step(params, velocity, b, dy, dy.dtype.type(1), lr, settings)
        elif plan.kinds[layer] == RELU:
            rectify_back(da, dy, a)
        else:
            drop(da, dy[: len(da)], mask[plan.masks[layer] :], plan.scales[layer])
    return finite
