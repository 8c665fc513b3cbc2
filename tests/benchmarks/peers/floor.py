"""The floor: nothing but the BLAS calls that a step cannot do without, on arrays made before."""

from functools import partial

import networks
import numpy as np
from scipy.linalg.blas import sgemm, sgemv, sger


def train(case):
    weights, layers = arrays(case)
    deltas = [np.full_like(layer, 1e-3) for layer in layers[1:]]
    calls = [product(*three) for three in zip(layers[:-1], weights, layers[1:], strict=True)]
    calls += [
        product_transposed(deltas[k], weights[k], deltas[k - 1])
        for k in range(len(weights) - 1, 0, -1)
    ]
    calls += [update(*three) for three in zip(weights, layers[:-1], deltas, strict=True)]
    return call_all(calls)


def ask(case):
    weights, layers = arrays(case)
    return call_all(product(*three) for three in zip(layers[:-1], weights, layers[1:], strict=True))


def arrays(case):
    weights = [np.array(first, np.float32) for first in networks.parameters(case)]
    x, _ = networks.data(case, np.float32)
    layers = [x[: case.rows].copy()]
    return weights, layers + [np.zeros((case.rows, w.shape[1]), np.float32) for w in weights]


def call_all(calls):
    calls = list(calls)

    def step(steps):
        for _ in steps:
            for call in calls:
                call()

    return step


# Each returns a function. BLAS is Fortran and reads a C-ordered W as W.T, which is what SciPy gets.
# NumPy's BLAS is newer, but for a single row it has more to do around the call.


def product(x, W, y):
    """Compute y = x @ W."""
    if len(x) == 1:
        return partial(sgemv, 1.0, W.T, x[0], y=y[0], overwrite_y=1)
    return partial(np.matmul, x, W, out=y)


def product_transposed(dy, W, dx):
    """Compute dx = dy @ W.T."""
    if len(dy) == 1:
        return partial(sgemv, 1.0, W.T, dy[0], y=dx[0], overwrite_y=1, trans=1)
    return partial(np.matmul, dy, W.T, out=dx)


def update(W, x, dy):
    """Compute W += scale * x.T @ dy, with a scale that keeps W finite."""
    if len(x) == 1:
        return partial(sger, -1e-9, dy[0], x[0], a=W.T, overwrite_a=1)
    return partial(sgemm, -1e-9, dy.T, x.T, beta=1.0, c=W.T, overwrite_c=1, trans_b=1)
