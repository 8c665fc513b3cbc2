"""Grade a student's layer: python examples/grade_a_layer.py.

The assignment was Softplus, y = log(1 + exp(x)), entry by entry:

    dx = dy / (1 + exp(-x))
"""

import numpy as np

from tinygrad_mnist import Module
from tinygrad_mnist.testing import grade


class Softplus(Module):
    """As it was handed in: right on paper."""

    def forward(self, x):
        self._x = x
        return np.log(1 + np.exp(x))

    def backward(self, dy):
        return dy / (1 + np.exp(-self._x))


class Revised(Module):
    """After two hints: exp(1000) overflows, and x belongs to the caller, who may change it."""

    _x = None

    def forward(self, x):
        self._x = np.array(x)
        return np.logaddexp(0, x)

    def backward(self, dy):
        return dy * (0.5 + 0.5 * np.tanh(0.5 * self._x))


def softplus(x):
    return np.logaddexp(0, x)


for layer in (Softplus, Revised):
    result = grade(lambda features, rng, layer=layer: layer(), reference=softplus)
    print(result, end="\n\n")

print("A mark is result.score; result.to_json(path) writes a file; a notebook shows a table.")
