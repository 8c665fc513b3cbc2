"""Activations: functions of one number, applied to each entry.

Elementwise does what all of them do; an activation is its f and its f'.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module


class Elementwise(Module):
    """y = f(x), entry by entry, on any shape; dx = dy * f'(x). Write `compute`."""

    _derivative: FloatArray | None = None  # f'(x) of the last forward

    @abstractmethod
    def compute(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return f(x) and f'(x), two new arrays of the shape and dtype of x."""

    def forward(self, x: ArrayLike) -> FloatArray:
        self._derivative = None
        y, self._derivative = self.compute(check.floats(self, "x", x))
        return y if y.ndim else np.asarray(y)  # NumPy makes a scalar of an array without axes

    def backward(self, dy: ArrayLike) -> Any:
        dx = check.cotangent(self, dy, self._derivative) * self._derivative  # type: ignore[operator]
        return dx if dx.ndim else np.asarray(dx)


class ReLU(Elementwise):
    """f(x) = max(x, 0); f'(x) = (x > 0), taken from the input, so 0 at 0. NaN stays NaN."""

    def compute(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        return np.maximum(x, 0), (x > 0).astype(x.dtype)
