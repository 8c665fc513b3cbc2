"""ReLU: the positive part."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist._checks import FloatArray, cotangent, floats, kept
from tinygrad_mnist.module import Module


class ReLU(Module):
    """y = max(x, 0), elementwise on any shape; dx = dy * (x > 0).

    The slope is taken from the input x, and is 0 at 0. NaN stays NaN.
    """

    _passed: NDArray[np.bool_] | None = None  # where x > 0 in the last forward
    _dtype = np.dtype(np.float32)

    def forward(self, x: ArrayLike) -> FloatArray:
        self._passed = None
        x = floats(self, "x", x)
        self._passed, self._dtype = np.asarray(x > 0), x.dtype
        return np.maximum(x, 0)

    def backward(self, dy: ArrayLike) -> FloatArray:
        passed = kept(self, self._passed)
        return cotangent(self, dy, passed.shape, self._dtype) * passed
