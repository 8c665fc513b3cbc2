"""Dropout: random zeros while training."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
        self._scale: FloatArray | None = None  # of the last forward

    def draw_mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return an array of this shape, True where a value is kept; override for other masks."""
        return self.rng.random(shape, dtype=np.float32) >= self.p

    def forward(self, x: ArrayLike) -> FloatArray:
        self._scale = None
        x = floats(self, "x", x)
        if self.training and self.p > 0:
            mask = np.asarray(self.draw_mask(x.shape))
            same_shape(self, "draw_mask's array", mask, x.shape)
            scale = np.multiply(mask, 1 / (1 - self.p), dtype=x.dtype)
        else:
            scale = np.broadcast_to(x.dtype.type(1), x.shape)
        self._scale = scale
        return x * scale

    def backward(self, dy: ArrayLike) -> FloatArray:
        scale = kept(self, self._scale)
        return cotangent(self, dy, scale.shape, scale.dtype) * scale
