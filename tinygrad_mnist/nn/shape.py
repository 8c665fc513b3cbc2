"""Flatten and Unflatten: the same numbers along other axes."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module


class Flatten(Module):
    """y = x.reshape(..., n), with the last axes in one: (..., H, W, C) to (..., H * W * C).

    dx = dy.reshape(x.shape). y may be a view of x.

    Args:
        axes: How many axes become one, at least 1.
    """

    axes = check.Integer(at_least=1)
    _y: FloatArray | None = None  # of the last forward: dy must be like it
    _shape: Any = None  # of x

    def __init__(self, axes: int = 3) -> None:
        self.axes = axes

    @property
    def sample_axes(self) -> int:  # type: ignore[override]
        """How many last axes of x are one sample, which are those that become one."""
        return self.axes

    @property
    def added_axes(self) -> int:  # type: ignore[override]
        """How many more axes y has than x, which is none or less."""
        return 1 - self.axes

    def forward(self, x: ArrayLike) -> FloatArray:
        self._y = None
        x = check.floats(self, "x", x)
        if x.ndim < self.axes:
            raise check.value_error(self, f"x of {self.axes} axes or more", x.shape)
        y = x.reshape(*x.shape[: -self.axes], math.prod(x.shape[-self.axes :]))
        self._y, self._shape = y[...], x.shape  # a view: the caller may reshape y in place
        return y

    def backward(self, dy: ArrayLike) -> FloatArray:
        return np.array(check.cotangent(self, dy, self._y).reshape(self._shape))


class Unflatten(Module):
    """`y = x.reshape(..., *shape)`, for x (..., n) with n = prod(shape): what Flatten does, undone.

    dx = dy.reshape(x.shape). y may be a view of x.

    Args:
        shape: What the last axis becomes, such as (28, 28, 1): a tuple of integers, at least 1.
    """

    shape = check.Integers(at_least=1)
    _y: FloatArray | None = None
    _shape: Any = None

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    @property
    def added_axes(self) -> int:  # type: ignore[override]
        """How many more axes y has than x."""
        return len(self.shape) - 1

    def forward(self, x: ArrayLike) -> FloatArray:
        self._y = None
        x = check.floats(self, "x", x)
        if x.shape[-1:] != (math.prod(self.shape),):
            raise check.value_error(self, f"x of shape (..., {math.prod(self.shape)})", x.shape)
        y = x.reshape(*x.shape[:-1], *self.shape)
        self._y, self._shape = y[...], x.shape
        return y

    def backward(self, dy: ArrayLike) -> FloatArray:
        return np.array(check.cotangent(self, dy, self._y).reshape(self._shape))
