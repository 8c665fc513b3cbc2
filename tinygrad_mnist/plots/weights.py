"""What a layer looks for: the weights of the first layer, the filters of a convolution."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist.nn import Conv2d
from tinygrad_mnist.plots import _images, _showing


def first_layer_weights(
    weight: ArrayLike,
    *,
    shape: tuple[int, ...] = (28, 28),
    count: int = 64,
    ax: Axes | None = None,
) -> Axes:
    """Draw columns of W as images: what a hidden unit looks for, red, and what it avoids, blue.

    Each unit has its own scale, symmetric about 0. Of many units, those with the largest single
    weights are drawn, the largest first: what has hardly learned still has the small weights, all
    of about one size, that it started from.

    Args:
        weight: W, (I, O), such as `model[0].weight.data`.
        shape: Of the image that a column is: (height, width), or with 1 or 3 channels last, with
            a product of I. Those of 3 channels are drawn as colours, and 0 is grey.
        count: Number of units to draw, if there are so many.
        ax: Where to draw.
    """
    owner = "plots.first_layer_weights"
    sides, count = _sides(owner, shape), check.integer(owner, "count", count, at_least=1)
    pixels, w = math.prod(sides), check.real_array(owner, "weight", weight)
    if w.ndim != 2 or len(w) != pixels or not w.size:
        raise check.value_error(owner, f"weight of shape ({pixels}, units), units > 0", w.shape)
    units, title = w.T.astype(np.float64), f"{w.shape[1]} units"
    if count < len(units):
        largest = abs(np.nan_to_num(units)).max(axis=1)
        units = units[np.argsort(-largest, kind="stable")[:count]]
        title = f"the {count} of {title} with the largest weights"
    tiles = _images.scaled(units.reshape(-1, *sides))
    return _drawn(owner, ax, tiles, _images.grid(len(tiles))[1], title)


def filters(conv: Conv2d, *, ax: Axes | None = None) -> Axes:
    """Draw the kernels of a Conv2d: the patterns that it looks for.

    Kernels of one channel are images, red for what a filter looks for and blue for what it avoids;
    those of 3 channels are colours, and 0 is grey. Of more channels, a row is a filter and a column
    a channel of x. Each filter has its own scale. The first 64 are drawn, or the first 16 of the
    first 16 channels.
    """
    owner = "plots.filters"
    if not isinstance(conv, Conv2d):
        raise check.type_error(owner, "a Conv2d", conv)
    kernels = _images.scaled(np.moveaxis(conv.weight.data, -1, 0))  # (O, kh, kw, I)
    n, channels = len(kernels), kernels.shape[-1]
    if channels in (1, 3):
        kernels = kernels[:64]
        columns = _images.grid(len(kernels))[1]
        return _drawn(owner, ax, kernels, columns, f"{_counted(len(kernels), n)} filters")
    kernels = kernels[:16, ..., :16]
    rows, height, width, columns = kernels.shape
    tiles = kernels.transpose(0, 3, 1, 2).reshape(-1, height, width)
    title = f"{_counted(rows, n)} filters (down), {_counted(columns, channels)} channels (across)"
    return _drawn(owner, ax, tiles, columns, title)


def _counted(some: int, all_of_them: int) -> str:
    return f"{some} of {all_of_them}" if some < all_of_them else str(all_of_them)


def _sides(owner: str, shape: Any) -> list[int]:
    contract = "shape to be (height, width), or with 1 or 3 channels last"
    if not isinstance(shape, Sequence) or len(shape) not in (2, 3):
        raise check.type_error(owner, contract, shape)
    sides = [check.integer(owner, "each side of shape", side, at_least=1) for side in shape]
    if sides[2:] not in ([], [1], [3]):
        raise check.value_error(owner, contract, shape)
    return sides


def _drawn(owner: str, ax: Axes | None, tiles: NDArray[Any], columns: int, title: str) -> Axes:
    """Draw tiles (n, h, w), (n, h, w, 1) or (n, h, w, 3) in [-1, 1] as one image."""
    if tiles.shape[3:] == (3,):
        tiles = _images.signed_colours(tiles)
    elif tiles.shape[3:] == (1,):
        tiles = tiles[..., 0]
    image = _images.mosaic(tiles, columns)
    width = min(5.0, max(2.5, 0.8 * columns))
    height = width * len(image) / image.shape[1]
    ax = _showing.axes(owner, ax, width, min(height, 8.0) + 0.3)
    ax.imshow(image, cmap=_images.SIGNED, vmin=-1, vmax=1)
    ax.set_title(title, fontsize="medium")
    ax.axis("off")
    return ax
