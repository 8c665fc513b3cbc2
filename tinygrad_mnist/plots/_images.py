"""Images as pictures show them: of ink or of colours, and many of them in one."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check

INK = "gray_r"  # 0 is paper
SIGNED = "RdBu_r"  # 0 is white, red is positive, blue negative: also apart to the colour-blind


def images(owner: str, x: ArrayLike, n: int) -> NDArray[Any]:
    """Return n images (n, H, W) of ink as they are, or (n, H, W, 3) of colours in [0, 1]."""
    x = check.real_array(owner, "images", x)
    if len(x.shape) not in (3, 4) or len(x) != n or x.shape[3:] not in ((), (1,), (3,)):
        contract = f"images of shape ({n}, H, W), or with 1 or 3 channels last"
        raise check.value_error(owner, contract, x.shape)
    if x.shape[3:] == (3,):
        return colours(x)
    return x.reshape(x.shape[:3])


def colours(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return x in [0, 1]: bytes over 255, fractions as they are, other numbers stretched."""
    if x.dtype == np.uint8:
        return np.asarray(x / 255)
    x = x.astype(np.float64)
    low, high = float(x.min(initial=0)), float(x.max(initial=1))
    return np.asarray((x - low) / (high - low))


def scaled(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return each x[i] divided by its largest size, so that it lies in [-1, 1]."""
    x = x.astype(np.float64)
    sizes = np.where(np.isfinite(x), abs(x), 0).max(axis=tuple(range(1, x.ndim)), keepdims=True)
    return np.asarray(x / np.where(sizes == 0, 1, sizes))


def signed_colours(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return weights of colours (..., 3) in [-1, 1] as colours: 0 is grey."""
    return (1 + x) / 2


def grid(cells: int) -> tuple[int, int]:
    """Return rows and columns of about a square."""
    columns = math.ceil(math.sqrt(cells))
    return math.ceil(cells / columns), columns


def mosaic(tiles: NDArray[Any], columns: int) -> NDArray[Any]:
    """Return (n, h, w) or (n, h, w, 3) as one image, with space between and after the tiles.

    The space is NaN, or transparent where the tiles are colours.
    """
    n, h, w = tiles.shape[:3]
    rows = math.ceil(n / columns)
    if tiles.ndim == 4:
        tiles = np.concatenate([tiles, np.ones_like(tiles[..., :1])], axis=-1)
    empty = 0.0 if tiles.ndim == 4 else np.nan
    space = np.full((rows * columns, h + 1, w + 1, *tiles.shape[3:]), empty)
    space[:n, :h, :w] = tiles
    space = space.reshape(rows, columns, *space.shape[1:]).swapaxes(1, 2)
    return space.reshape(rows * (h + 1), columns * (w + 1), *space.shape[4:])[:-1, :-1]
