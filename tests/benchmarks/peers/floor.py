"""The floor: nothing but the BLAS calls that a step cannot do without, on arrays made before.

Every call through SciPy's BLAS, or the two that make a new y and dx through NumPy's.
"""

from functools import partial

import networks
import numpy as np
from scipy.linalg.blas import sgemm, sgemv, sger


def train(case, numpy=False):
    weights, layers = arrays(case)
    deltas = [np.full_like(layer, 1e-3) for layer in layers[1:]]
    calls = forward(weights, layers, numpy)
    transposed = numpy_transposed if numpy else scipy_transposed
    for k in range(len(weights) - 1, 0, -1):
        calls.append(transposed(deltas[k], weights[k], deltas[k - 1]))
    calls += [update(*three) for three in zip(weights, layers[:-1], deltas, strict=True)]
    return call_all(calls)


def ask(case, numpy=False):
    return call_all(forward(*arrays(case), numpy))


def forward(weights, layers, numpy):
    product = numpy_product if numpy else scipy_product
    return [product(*three) for three in zip(layers[:-1], weights, layers[1:], strict=True)]


def arrays(case):
    weights = [np.array(first, np.float32) for first in networks.parameters(case)]
    x, _ = networks.data(case, np.float32)
    layers = [x[: case.rows].copy()]
    return weights, layers + [np.zeros((case.rows, w.shape[1]), np.float32) for w in weights]


def call_all(calls):
    def step(steps):
        for _ in steps:
            for call in calls:
                call()

    return step


# Each returns a function. BLAS is Fortran and reads a C-ordered W as W.T: all it gets is transposed


def scipy_product(x, W, y):
    """Compute y = x @ W."""
    if len(x) == 1:
        return partial(sgemv, 1.0, W.T, x[0], y=y[0], overwrite_y=1)
    return partial(sgemm, 1.0, W.T, x.T, c=y.T, overwrite_c=1)


def scipy_transposed(dy, W, dx):
    """Compute dx = dy @ W.T."""
    if len(dy) == 1:
        return partial(sgemv, 1.0, W.T, dy[0], y=dx[0], overwrite_y=1, trans=1)
    return partial(sgemm, 1.0, W.T, dy.T, c=dx.T, overwrite_c=1, trans_a=1)


def numpy_product(x, W, y):
    return partial(np.matmul, x, W, out=y)


def numpy_transposed(dy, W, dx):
    return partial(np.matmul, dy, W.T, out=dx)


def update(W, x, dy):
    """Compute W += scale * x.T @ dy, with a scale that keeps W finite."""
    if len(x) == 1:
        return partial(sger, -1e-9, dy[0], x[0], a=W.T, overwrite_a=1)
    return partial(sgemm, -1e-9, dy.T, x.T, beta=1.0, c=W.T, overwrite_c=1, trans_b=1)
