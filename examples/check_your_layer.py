"""Check a custom layer, right and with a mistake: python examples/check_your_layer.py.

The layer is Swish with a slope b for each feature to learn (Ramachandran et al. 2017,
arXiv:1710.05941), for s = sigmoid(b * x):

    y = x * s        dx = dy * (s + b * x * s * (1 - s))
                     db = sum over the rows of dy * x**2 * s * (1 - s)
"""

import numpy as np

from tinygrad_mnist import Module, Parameter
from tinygrad_mnist.testing import GradientCheckError, check_gradients


class Swish(Module):
    _x = _s = None  # what forward keeps is None on the class, so that copies leave it behind

    def __init__(self, features):
        self.b = Parameter(np.ones(features, np.float32))

    def forward(self, x):
        self._x = np.array(x, self.b.data.dtype)  # a copy: the caller may change x before backward
        self._s = 0.5 + 0.5 * np.tanh(0.5 * self.b.data * self._x)  # as exp, but never overflows
        return self._x * self._s

    def backward(self, dy):
        x, s, slope = self._x, self._s, self._s * (1 - self._s)
        rows = np.reshape(dy * x**2 * slope, (-1, x.shape[-1]))  # whatever the leading axes
        self.b.accumulate(rows.sum(axis=0))
        return dy * (s + self.b.data * x * slope)


class MeanSwish(Swish):
    def backward(self, dy):
        x, s, slope = self._x, self._s, self._s * (1 - self._s)
        rows = np.reshape(dy * x**2 * slope, (-1, x.shape[-1]))
        self.b.accumulate(rows.mean(axis=0))  # wrong: the loss has taken its mean already
        return dy * (s + self.b.data * x * slope)


x = np.random.default_rng(0).standard_normal((5, 3))

print("A right layer:\n")
print(check_gradients(Swish(3), x))

print("\nThe same with one mistake, a mean for a sum:\n")
try:
    check_gradients(MeanSwish(3), x)
except GradientCheckError as error:
    print(error.report)

print("\nAs a test for pytest, on random inputs of many shapes (needs Hypothesis):")
print("""
from my_layers import Swish  # the file that has your layer
from tinygrad_mnist.testing.strategies import module_checklist

test_swish = module_checklist(lambda features, rng: Swish(features))
""")
