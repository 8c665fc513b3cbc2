"""Dropout: random zeros while training."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module


class Dropout(Module):
    """y = x * scale, entry by entry on any shape; dx = dy * scale.

    While training, scale is 0 with probability p and 1 / (1 - p) otherwise, so that the mean of
    y is x; in evaluation mode, and at p = 0, it is 1 and nothing is drawn. (Srivastava et al.
    2014, JMLR 15:1929, section 10; their p is the probability of keeping.)

    Args:
        p: Probability of zeroing, 0 <= p < 1.
        rng: Source of the masks: a seed, a generator, or None for fresh entropy.
    """

    p = check.Real("[0, 1)")
    _y: FloatArray | None = None  # of the last forward: dy must be like it
    _scale: Any = None  # None where nothing was dropped

    def __init__(self, p: float = 0.5, *, rng: int | np.random.Generator | None = None) -> None:
        self.p = p
        self.rng = check.generator(self, rng)

    def draw_mask(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return an array of this shape, 1 where a value is kept, else 0; override for others."""
        return self.rng.random(shape, dtype=np.float32) >= check.constant(self.p, check.FLOATS[0])

    def forward(self, x: ArrayLike) -> FloatArray:
        self._y = None
        x = check.floats(self, "x", x)
        self._scale = self._drawn_scale(x) if self.training and self.p > 0 else None
        y = np.array(x) if self._scale is None else np.asarray(x * self._scale)
        self._y = y[...]  # a view: the caller may reshape y in place
        return y

    def backward(self, dy: ArrayLike) -> FloatArray:
        dy = check.cotangent(self, dy, self._y)
        return np.array(dy) if self._scale is None else np.asarray(dy * self._scale)

    def _drawn_scale(self, x: FloatArray) -> NDArray[Any]:
        mask = np.asarray(self.draw_mask(x.shape), bool)
        check.same_shape(self, "draw_mask's array", mask, x.shape)
        scale: NDArray[Any] = mask * check.constant(1 / (1 - self.p), x.dtype)
        return scale
