"""Dropout: random zeros while training."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _blas
from tinygrad_mnist._checks import FloatArray, cotangent, floats, generator, kept, real, same_shape
from tinygrad_mnist.module import Module


class Dropout(Module):
    """y = x * scale, elementwise on any shape; dx = dy * scale.

    While training, scale is 0 with probability p and 1 / (1 - p) otherwise, so that the mean of
    y is x; in evaluation mode, and at p = 0, it is 1 and nothing is drawn. (Srivastava et al.
    2014, JMLR 15:1929, section 10; their p is the probability of keeping.)

    Args:
        p: Probability of zeroing, 0 <= p < 1.
        rng: Source of the masks: a seed, a generator, or None for fresh entropy.

    Raises:
        ValueError: p is outside [0, 1).
        TypeError: p is not a number, or rng is none of the three.
    """

    def __init__(self, p: float = 0.5, *, rng: int | np.random.Generator | None = None) -> None:
        self.p = real(self, "p", p, "[0, 1)")
        self.rng = generator(self, rng)
        self._mask: NDArray[np.bool_] | None = None  # of the last forward, None if it drew none
        self._factor = 1.0
        self._shape: tuple[int, ...] | None = None
        self._dtype = np.dtype(np.float32)

    def draw_mask(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return an array of this shape, 1 where a value is kept, else 0; override for others."""
        return self.rng.random(shape, dtype=np.float32) >= self.p

    def forward(self, x: ArrayLike) -> FloatArray:
        self._shape = None
        x = floats(self, "x", x)
        mask, factor = None, 1.0
        if self.training and self.p > 0:
            mask, factor = np.asarray(self.draw_mask(x.shape), bool), 1 / (1 - self.p)
            same_shape(self, "draw_mask's array", mask, x.shape)
        self._mask, self._factor = mask, factor
        self._shape, self._dtype = x.shape, x.dtype
        return self._scaled(x)

    def backward(self, dy: ArrayLike) -> FloatArray:
        shape = kept(self, self._shape)
        return self._scaled(cotangent(self, dy, shape, self._dtype))

    def _scaled(self, x: FloatArray) -> FloatArray:
        """Return x * scale, where scale is mask * factor, or 1."""
        if self._mask is None:
            return x.copy()
        y = np.asarray(x * self._mask, order="C")
        _blas.multiply(y, self._factor)
        return y
