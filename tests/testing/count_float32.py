"""Count what the checker says of float32 networks: python tests/testing/count_float32.py.

Random networks of one hidden layer that compute in float32, with softmax cross-entropy on top of
half of them. Their arrays are float64, so nothing but the outputs tells. Right gradients should
raise no alarm, gradients that are 2 % too large one.
"""

import argparse
import sys
import time
from collections import Counter

import numpy as np
from layers import sigmoid, softmax

from tinygrad_mnist.testing import GradientCheckError, InconclusiveGradientCheck, check_vjp

ACTIVATIONS = {
    "tanh": (np.tanh, lambda h: 1 - h**2),
    "ReLU": (lambda z: np.maximum(z, 0), lambda h: (h > 0).astype(np.float32)),
    "sigmoid": (sigmoid, lambda h: h * (1 - h)),
}


def network(activation, labels, factor=1):
    """Return forward and vjp of act(x @ W + b) @ V, or its cross-entropy, and dW times a factor."""
    f, slope = ACTIVATIONS[activation]

    def computed(*arrays):
        x, W, b, V = (np.asarray(a, np.float32) for a in arrays)
        h = f(x @ W + b).astype(np.float32)
        return x, W, h, V, h @ V

    def forward(*arrays):
        y = computed(*arrays)[-1]
        if labels is None:
            return y
        largest = y.max(axis=-1, keepdims=True)
        log_sum = largest[:, 0] + np.log(np.exp(y - largest).sum(axis=-1))
        return (log_sum - y[np.arange(len(y)), labels]).mean()

    def vjp(dy, *arrays):
        x, W, h, V, y = computed(*arrays)
        dy = np.asarray(dy, np.float32)
        if labels is not None:
            p = softmax(y)
            p[np.arange(len(p)), labels] -= 1
            dy = dy * p / np.float32(len(p))
        dz = dy @ V.T * slope(h)
        return dz @ W.T, np.float32(factor) * (x.T @ dz), dz.sum(axis=0), h.T @ dy

    return forward, vjp


def outcome(seed, factor=1):
    """Return what a check of a random network says, and its report."""
    rng = np.random.default_rng(seed)
    rows, ins, hidden, outs = rng.integers(2, 21, 4)
    labels = rng.integers(0, outs, rows) if rng.integers(2) else None
    shapes = (rows, ins), (ins, hidden), (hidden,), (hidden, outs)
    arrays = [rng.standard_normal(shape) / np.sqrt(shape[0]) for shape in shapes]
    activation = list(ACTIVATIONS)[seed % 3]
    forward, vjp = network(activation, labels, factor)
    try:
        check_vjp(forward, vjp, *arrays, names=("x", "W", "b", "V"), seed=seed)
    except GradientCheckError as error:
        return "wrong", error
    except InconclusiveGradientCheck as error:
        return "inconclusive", error
    return "right", None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    cases = parser.parse_args().cases
    for factor in (1, 1.02):
        start = time.perf_counter()
        found = [outcome(seed, factor) for seed in range(cases)]
        seconds = time.perf_counter() - start
        print(f"dW times {factor}: {dict(Counter(said for said, _ in found))}  {seconds:.0f} s")
        alarms = [str(error) for said, error in found if said == "wrong"] if factor == 1 else []
        print(*alarms[:3], sep="\n")
        if alarms:
            sys.exit(1)


if __name__ == "__main__":
    main()
