"""The floor: nothing but the BLAS calls that a step cannot do without, on arrays made before."""

from functools import partial

import networks
import numpy as np
from scipy.linalg.blas import sgemm

from tinygrad_mnist._blas import aligned


def train(case):
    weights, layers = arrays(case)
    deltas = [np.full_like(layer, 1e-3) for layer in layers[1:]]
    calls = products(weights, layers)
    calls += [  # dx = dy @ W.T, not for the first x
        partial(dy.dot, W.T, dx)
        for dx, W, dy in zip(deltas[:-1], weights[1:], deltas[1:], strict=True)
    ]
    calls += [update(*three) for three in zip(weights, layers[:-1], deltas, strict=True)]
    return call_all(calls)


def ask(case):
    return call_all(products(*arrays(case)))


def arrays(case):
    weights = [aligned(np.array(first, np.float32)) for first in networks.parameters(case)]
    x, _ = networks.data(case, np.float32)
    layers = [x[: case.rows].copy()]
    return weights, layers + [np.zeros((case.rows, W.shape[1]), np.float32) for W in weights]


def products(weights, layers):
    """Return functions that compute y = x @ W. `dot` costs less to call than `matmul`."""
    return [partial(x.dot, W, y) for x, W, y in zip(layers[:-1], weights, layers[1:], strict=True)]


def update(W, x, dy):
    """Return a function that computes W += scale * x.T @ dy, with a scale that keeps W finite.

    BLAS is Fortran and reads a C-ordered W as W.T. A single row takes less time as x than as x.T,
    and less than with `ger` up to 262,144 weights, which is more than a case of one row has.
    """
    right, transposed = (x, 0) if len(x) == 1 else (x.T, 1)
    return partial(sgemm, -1e-9, dy.T, right, 1.0, W.T, 0, transposed, 1)


def call_all(calls):
    def step(steps):
        for _ in steps:
            for call in calls:
                call()

    return step
