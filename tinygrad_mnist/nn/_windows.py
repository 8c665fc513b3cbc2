"""Windows that slide over images: their arithmetic, and each pixel of them as a slice of the image.

A layer takes and returns images (..., H, W, C). It computes on (C, H, W, N), where N counts all the
leading axes: every copy and every sum then runs along W * N numbers that lie side by side. What it
returns is a transposed view of such an array. NumPy's entrywise functions keep the order of memory,
so the next layer of images finds it as it needs it.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray

Pair = tuple[int, int]
Padding = Pair | Literal["same"]
Shape = tuple[int, ...]


class Windows:
    """The h x w windows, of kh x kw pixels, over images x (..., H, W, C) with zeros around them.

    h = (H + padding on both sides - kh) // stride + 1, and w likewise: what does not fill a window
    is left out.

    Args:
        owner: The layer, in whose name a kernel larger than the image is refused.
        shape: Of x.
        kernel: (kh, kw).
        stride: From one window to the next, in rows and columns.
        padding: On each side, in rows and columns; "same": such that h = H and w = W at stride 1,
            where a kernel of even length has the extra row or column at the end.
    """

    def __init__(
        self, owner: object, shape: Shape, kernel: Pair, stride: Pair, padding: Padding = (0, 0)
    ) -> None:
        *self._leading, H, W, self.channels = shape
        (kh, kw), (sh, sw) = kernel, stride
        (top, bottom), (left, right) = _margins(kernel, padding)
        self._padded = rows, columns = top + H + bottom, left + W + right
        if rows < kh or columns < kw:
            got = f"a {kh} x {kw} kernel, padding {_in_words(padding)}, on {H} x {W}"
            raise ValueError(check.expected(owner, "a kernel that fits the image", got))
        self.kernel = kernel
        self.size, self.counts = kh * kw, ((rows - kh) // sh + 1, (columns - kw) // sw + 1)
        self._N = math.prod(self._leading)
        self._overlap = kh > sh or kw > sw
        self._image = slice(None), slice(top, top + H), slice(left, left + W)
        down = [slice(i, i + rows - kh + 1, sh) for i in range(kh)]
        across = [slice(j, j + columns - kw + 1, sw) for j in range(kw)]
        self._pixels = [(slice(None), i, j) for i in down for j in across]  # of all windows

    def pixels(self, x: FloatArray, dtype: Any) -> list[FloatArray]:
        """Return an array (C, h, w, N) for each pixel of a window, row by row: its values in x."""
        if self._padded == x.shape[-3:-1]:
            images = batch_last(x, dtype)
        else:
            images = self._zeros(dtype)
            images[self._image] = _transposed(x)
        return [images[pixel] for pixel in self._pixels]

    def output(self, y: FloatArray) -> FloatArray:
        """Return y, channels first and the batch last, as images (..., h, w, channels): a view."""
        return self._channels_last(y.reshape(len(y), *self.counts, self._N))

    def cotangent(self, owner: object, dy: ArrayLike, channels: int, dtype: Any) -> FloatArray:
        """Return dy (..., h, w, channels) as (channels, h, w, N), a copy only if it must be."""
        array = check.floats(owner, "dy", dy)
        check.same_shape(owner, "dy", array, (*self._leading, *self.counts, channels))
        return batch_last(array, dtype)

    def added_up(self, parts: Iterable[FloatArray], dtype: Any) -> FloatArray:
        """Return dx (..., H, W, C): zeros, with one part for each pixel of the windows added."""
        images = self._zeros(dtype)
        for pixel, part in zip(self._pixels, parts, strict=True):
            place = images[pixel]
            if self._overlap:
                place += part
            else:  # nothing is there yet to add to, and this takes half the time
                place[...] = part
        return self._channels_last(images[self._image])

    def _zeros(self, dtype: Any) -> FloatArray:
        return np.zeros((self.channels, *self._padded, self._N), dtype)

    def _channels_last(self, images: FloatArray) -> FloatArray:
        C, H, W, _ = images.shape
        return images.transpose(3, 1, 2, 0).reshape(*self._leading, H, W, C)


def batch_last(x: FloatArray, dtype: Any) -> FloatArray:
    """Return images (..., H, W, C) as a C-ordered (C, H, W, N), a copy only if it must be."""
    return np.ascontiguousarray(_transposed(x), dtype)


def _transposed(x: FloatArray) -> FloatArray:
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]).transpose(3, 1, 2, 0)


def _margins(kernel: Pair, padding: Padding) -> list[Pair]:
    """Return how many zeros go before and after the image, for rows and for columns."""
    if padding == "same":
        return [((k - 1) // 2, k // 2) for k in kernel]
    return [(p, p) for p in padding]


def _in_words(padding: Padding) -> object:
    return padding if padding == "same" or padding[0] != padding[1] else padding[0]
