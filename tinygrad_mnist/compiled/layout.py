"""Where parameters are in the kernels' flat array: one behind the other, with room behind rows."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from tinygrad_mnist import _blas
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.compiled.kernel import BLOCKS, NOWHERE
from tinygrad_mnist.parameter import Parameter


@cache
def block_of(columns: int, dtype: np.dtype[Any]) -> int:
    """Return how many columns of W the kernel takes at a time.

    448 bytes fill 14 of the 16 registers that AVX2 has, and leave two for what is added to them. To
    go through the rows once more takes about as long as 8 more columns.
    """
    fitting = [n for n in reversed(BLOCKS) if n * dtype.itemsize <= 448]
    return min(fitting, key=lambda n: -(-columns // n) * (n + 8))


def room_of(columns: int, dtype: np.dtype[Any]) -> int:
    """Return the number of columns, rounded up to whole blocks."""
    return columns + -columns % block_of(columns, dtype)


class Layout:
    """Where parameters, or what is like them, are in a flat array of size numbers."""

    def __init__(self, params: Sequence[Parameter]) -> None:
        self.dtype, self.size = params[0].data.dtype, 0
        self._params, self._places = params, dict[int, slice]()
        for p in params:
            *rows, columns = p.data.shape
            begin, self.size = self.size, self.size + math.prod(rows) * room_of(columns, self.dtype)
            self._places[id(p)] = slice(begin, self.size)

    def begin(self, p: Parameter | None) -> int:
        """Return where a parameter begins; None is NOWHERE."""
        return NOWHERE if p is None else self._places[id(p)].start

    def packed(self, arrays: Sequence[FloatArray]) -> FloatArray:
        """Return copies side by side, with zeros behind their rows."""
        flat = _blas.aligned_zeros((self.size,), self.dtype)
        for window, array in zip(self.windows(flat), arrays, strict=True):
            window[...] = array
        return flat

    def windows(self, flat: FloatArray) -> list[FloatArray]:
        """Return views of a flat array, in the shapes of the parameters."""
        shapes = [p.data.shape for p in self._params]
        return [
            flat[place].reshape(-1, room_of(shape[-1], self.dtype))[:, : shape[-1]].reshape(shape)
            for place, shape in zip(self._places.values(), shapes, strict=True)
        ]
