"""Pooling: one number for each window of an image, channel by channel."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn._windows import Pair, Windows


class Pool2d(Module):
    """y has a number for each window of x, channel by channel; dx adds up what the windows get.

    Write `pooled` and `parts`.
    """

    sample_axes = 3
    kernel_size = check.Sizes(at_least=1)
    stride = check.Sizes(at_least=1)
    _windows: Windows | None = None  # of the last forward
    _dtype: Any = None

    def __init__(self, kernel_size: int | Pair = 2, *, stride: int | Pair | None = None) -> None:
        self.kernel_size = kernel_size
        self.stride = self.kernel_size if stride is None else stride

    @abstractmethod
    def pooled(self, pixels: list[FloatArray]) -> FloatArray:
        """Return y, a new array, given each pixel of the windows: arrays of the shape of y."""

    @abstractmethod
    def parts(self, dy: FloatArray, n: int) -> Iterable[FloatArray]:
        """Return what each of the n pixels of the windows gets of dy, all of the shape of dy."""

    def forward(self, x: ArrayLike) -> FloatArray:
        self._windows = None
        x = check.floats(self, "x", x)
        if x.ndim < 3:
            raise check.value_error(self, "x of shape (..., H, W, C)", x.shape)
        windows = Windows(self, x.shape, self.kernel_size, self.stride)
        y = self.pooled(windows.pixels(x, x.dtype))
        self._windows, self._dtype = windows, x.dtype
        return windows.output(y)

    def backward(self, dy: ArrayLike) -> FloatArray:
        windows = check.kept(self, self._windows)
        dy = windows.cotangent(self, dy, windows.channels, self._dtype)
        return windows.added_up(self.parts(dy, windows.size), self._dtype)


class MaxPool2d(Pool2d):
    """y[..., r, c, :] = x[..., r*sh : r*sh + kh, c*sw : c*sw + kw, :].max(axis=(-3, -2)).

    For images x (..., H, W, C) and y (..., h, w, C), with h = (H - kh) // sh + 1 and w likewise:
    what does not fill a window is left out. dx has dy[..., r, c, :] where the maximum was, added up
    where windows overlap. Of equal pixels the first counts, row by row; NaN counts as larger than
    all, and of several the last does. (As in PyTorch.)

    Args:
        kernel_size: (kh, kw), or one number for both.
        stride: (sh, sw), or one number for both; None is the kernel's size.
    """

    _winner: Any = None  # which pixel of its window each y is

    def pooled(self, pixels: list[FloatArray]) -> FloatArray:
        y = pixels[0].copy()
        self._winner = winner = np.zeros(y.shape, np.min_scalar_type(len(pixels)))
        for n, pixel in enumerate(pixels[1:], 1):
            larger = np.multiply(pixel > y, n, dtype=winner.dtype)  # n, or 0
            np.maximum(winner, larger, out=winner)
            np.maximum(y, pixel, out=y)
        if np.isnan(y).any():
            for n, pixel in enumerate(pixels):
                winner[np.isnan(pixel)] = n
        return y

    def parts(self, dy: FloatArray, n: int) -> Iterable[FloatArray]:
        bits = dy.view(f"u{dy.itemsize}")  # as floats, infinity times 0 would be NaN
        return ((bits * (self._winner == i)).view(dy.dtype) for i in range(n))


class AvgPool2d(Pool2d):
    """y[..., r, c, :] = x[..., r*sh : r*sh + kh, c*sw : c*sw + kw, :].mean(axis=(-3, -2)).

    For images x (..., H, W, C) and y (..., h, w, C), with h = (H - kh) // sh + 1 and w likewise:
    what does not fill a window is left out. dx has dy[..., r, c, :] / (kh * kw) all over a window,
    added up where windows overlap.

    Args:
        kernel_size: (kh, kw), or one number for both.
        stride: (sh, sw), or one number for both; None is the kernel's size.
    """

    def pooled(self, pixels: list[FloatArray]) -> FloatArray:
        return sum(pixels[1:], pixels[0]) / len(pixels)

    def parts(self, dy: FloatArray, n: int) -> Iterable[FloatArray]:
        return [dy / n] * n
