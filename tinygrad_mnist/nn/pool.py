"""Pooling: one number for each window of an image, channel by channel."""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn._windows import Pair, Windows, windows_over


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
    def pooled(self, pixels: FloatArray) -> FloatArray:
        """Return y (h, C, w, N), given the n pixels of each window: (n, h, C, w, N)."""

    @abstractmethod
    def parts(self, dy: FloatArray, n: int) -> FloatArray:
        """Return what each of the n pixels gets of dy (h, C, w, N): (n, h, C, w, N)."""

    def forward(self, x: ArrayLike) -> FloatArray:
        self._windows = None
        x = check.floats(self, "x", x)
        if x.ndim < 3:
            raise check.value_error(self, "x of shape (..., H, W, C)", x.shape)
        windows = windows_over(type(self).__name__, x.shape, self.kernel_size, self.stride)
        y = self.pooled(np.stack(windows.pixels(windows.images(x, x.dtype))))
        self._windows, self._dtype = windows, x.dtype
        return windows.output(y)

    def backward(self, dy: ArrayLike) -> FloatArray:
        windows = check.kept(self, self._windows)
        dy = windows.cotangent(self, dy, windows.channels, self._dtype)
        images = windows.zeros(self._dtype)
        places = windows.pixels(images)
        for place, part in zip(places, self.parts(dy, len(places)), strict=True):
            if windows.overlap:
                place += part
            else:  # nothing is there yet to add to, and this takes half the time
                place[...] = part
        return windows.dx(images)


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

    _is_winner: Any = None  # whether each pixel is the one that y is

    def pooled(self, pixels: FloatArray) -> FloatArray:
        y: FloatArray = np.maximum.reduce(pixels)
        self._is_winner = pixels == y
        found = self._is_winner[0].copy()
        for wins in self._is_winner[1:]:  # of equal pixels the first wins
            wins &= ~found
            found |= wins
        if not found.all():  # only NaN is not equal to itself
            for nan, winner in zip(np.isnan(pixels), self._is_winner, strict=True):
                self._is_winner[:, nan] = False
                winner[nan] = True
        return y

    def parts(self, dy: FloatArray, n: int) -> FloatArray:
        bits = dy.view(f"u{dy.itemsize}")  # as floats, infinity times 0 would be NaN
        parts: FloatArray = (bits * self._is_winner).view(dy.dtype)
        return parts


class AvgPool2d(Pool2d):
    """y[..., r, c, :] = x[..., r*sh : r*sh + kh, c*sw : c*sw + kw, :].mean(axis=(-3, -2)).

    For images x (..., H, W, C) and y (..., h, w, C), with h = (H - kh) // sh + 1 and w likewise:
    what does not fill a window is left out. dx has dy[..., r, c, :] / (kh * kw) all over a window,
    added up where windows overlap.

    Args:
        kernel_size: (kh, kw), or one number for both.
        stride: (sh, sw), or one number for both; None is the kernel's size.
    """

    def pooled(self, pixels: FloatArray) -> FloatArray:
        return pixels.mean(axis=0)  # type: ignore[no-any-return]

    def parts(self, dy: FloatArray, n: int) -> FloatArray:
        return np.broadcast_to(dy / n, (n, *dy.shape))
