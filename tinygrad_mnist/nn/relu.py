"""ReLU: the positive part."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist._checks import FloatArray, floats, kept, same_shape
from tinygrad_mnist.module import Module


class ReLU(Module):
    """y = max(x, 0), elementwise on any shape; dx = dy * (x > 0).

    The slope is taken from the input x, and is 0 at 0. NaN stays NaN.
    """

    _passed: NDArray[np.bool_] | None = None

    def forward(self, x: ArrayLike) -> FloatArray:
        self._passed = None
        x = floats(self, "x", x)
        self._passed = np.asarray(x > 0)
        return np.maximum(x, 0)

    def backward(self, dy: ArrayLike) -> FloatArray:
        passed = kept(self, self._passed)
        dy = floats(self, "dy", dy)
        same_shape(self, "dy", dy, passed.shape)
        return dy * passed
