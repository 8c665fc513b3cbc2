"""Windows that slide over images: which rows and columns each of their pixels sees.

A layer takes and returns images (..., H, W, C), and computes on arrays (H, C, W, N), of N images in
all. N is last so that copies and sums run along many numbers that lie side by side (N, and at
stride 1 w * N), not along the few channels. H is first so that successive rows are one block of
memory: Conv2d reads them as patches, without a copy. What a layer returns is a transposed view.
NumPy's entrywise functions keep the order of memory, so the next layer of images copies nothing.
"""

import math
from functools import lru_cache
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
    is left out. Make them by `windows_over`. In images (H, C, W, N), with the zeros, the slice
    `rows[i]` has the i-th row of every window, and the slice `columns[j]` the j-th column.

    Args:
        owner: The name of the layer, which refuses a kernel larger than the image.
        shape: Of x.
        kernel: (kh, kw).
        stride: From one window to the next, in rows and columns.
        padding: On each side, in rows and columns; "same": such that h = H and w = W at stride 1,
            where a kernel of even length has the extra row or column at the end.
    """

    def __init__(
        self, owner: str, shape: Shape, kernel: Pair, stride: Pair, padding: Padding = (0, 0)
    ) -> None:
        *self._leading, H, W, self.channels = shape
        (kh, kw), (sh, sw) = kernel, stride
        (top, bottom), (left, right) = margins(kernel, padding)
        self._padded = top + H + bottom, left + W + right
        if self._padded[0] < kh or self._padded[1] < kw:
            got = f"a {kh} x {kw} kernel, padding {_in_words(padding)}, on {H} x {W}"
            raise ValueError(check.expected(owner, "a kernel that fits the image", got))
        self.kernel, self.stride = kernel, stride
        self.h, self.w = (self._padded[0] - kh) // sh + 1, (self._padded[1] - kw) // sw + 1
        self.rows = [slice(i, i + self.h * sh, sh) for i in range(kh)]
        self.columns = [slice(j, j + self.w * sw, sw) for j in range(kw)]
        self.overlap = kh > sh or kw > sw
        self._image = slice(top, top + H), slice(None), slice(left, left + W)
        self.N = math.prod(self._leading)

    def images(self, x: FloatArray, dtype: Any) -> FloatArray:
        """Return x with the zeros around it as (H, C, W, N), a copy only if it must be."""
        if self._padded == x.shape[-3:-1]:
            return batch_last(x, dtype)
        images = self.zeros(dtype)
        images[self._image] = _transposed(x)
        return images

    def zeros(self, dtype: Any) -> FloatArray:
        """Return zeros of the shape of `images`."""
        return np.zeros((self._padded[0], self.channels, self._padded[1], self.N), dtype)

    def pixels(self, images: FloatArray) -> list[FloatArray]:
        """Return a view (h, C, w, N) of each pixel of the windows, row by row."""
        return [images[rows, :, columns] for rows in self.rows for columns in self.columns]

    def output(self, y: FloatArray) -> FloatArray:
        """Return y, (h, O, w, N) or (h, O, w * N), as images (..., h, w, O): a view."""
        return self._channels_last(y.reshape(*y.shape[:2], self.w, self.N))

    def dx(self, images: FloatArray) -> FloatArray:
        """Return a gradient of `images` as dx (..., H, W, C): a view of all but the zeros."""
        return self._channels_last(images[self._image])

    def cotangent(self, owner: object, dy: ArrayLike, channels: int, dtype: Any) -> FloatArray:
        """Return dy (..., h, w, O) as (h, O, w, N), a copy only if it must be."""
        array = check.floats(owner, "dy", dy)
        check.same_shape(owner, "dy", array, (*self._leading, self.h, self.w, channels))
        return batch_last(array, dtype)

    def _channels_last(self, images: FloatArray) -> FloatArray:
        H, C, W, _ = images.shape
        return images.transpose(3, 0, 2, 1).reshape(*self._leading, H, W, C)


windows_over = lru_cache(Windows)  # one takes 4 us, and a layer meets the same shape at every step


def batch_last(x: FloatArray, dtype: Any) -> FloatArray:
    """Return images (..., H, W, C) as a C-ordered (H, C, W, N), a copy only if it must be."""
    return np.ascontiguousarray(_transposed(x), dtype)


def _transposed(x: FloatArray) -> FloatArray:
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]).transpose(1, 3, 2, 0)


def margins(kernel: Pair, padding: Padding) -> list[Pair]:
    """Return how many zeros go before and after the image, for rows and for columns."""
    if padding == "same":
        return [((k - 1) // 2, k // 2) for k in kernel]
    return [(p, p) for p in padding]


def _in_words(padding: Padding) -> object:
    return padding if padding == "same" or padding[0] != padding[1] else padding[0]
