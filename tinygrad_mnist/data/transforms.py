"""Transforms: from labels to targets, and from images to images of the same things."""

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, DTypeLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.data.loader import Transform


def one_hot(labels: ArrayLike, num_classes: int = 10, dtype: DTypeLike = np.float32) -> FloatArray:
    """Return an array of shape `(*labels.shape, num_classes)`: 1 at each label, 0 elsewhere.

    labels are integers in [0, num_classes), of any shape; dtype is float32 or float64.
    """
    num_classes = check.integer("one_hot", "num_classes", num_classes, at_least=1)
    dtype = check.float_dtype("one_hot", dtype)
    classes = check.real_array("one_hot", "labels", labels)
    if not classes.size:
        classes = classes.astype(np.int64)  # np.asarray([]) is float64; no labels are fine
    indices = check.class_indices("one_hot", classes, num_classes)
    hot = np.zeros((*classes.shape, num_classes), dtype)
    np.put_along_axis(hot, indices[..., None], 1, axis=-1)
    return hot


class _OfImages(partial[NDArray[Any]]):
    """A transform of images (H, W, C): a DataLoader refuses samples of fewer axes."""

    sample_axes = 3


def random_shift(pixels: int) -> Transform:
    """Return a transform that moves each image by a few whole pixels.

        y[i, j] = x[i - dy, j - dx]    or 0 where that is outside of x

    for each image x (H, W, C), with dy and dx drawn from -pixels to pixels, all as likely.

    A transform is what `DataLoader(transform=...)` takes: a function of images (..., H, W, C) and
    a generator that returns new images of their shape and dtype. Images without an axis of
    channels need one: `images[..., None]`.
    """
    return _OfImages(_shifted, check.integer("random_shift", "pixels", pixels, at_least=0))


def _shifted(pixels: int, x: ArrayLike, rng: np.random.Generator) -> NDArray[Any]:
    images, shape = _as_batch("random_shift", x)
    margins = (0, 0), (pixels, pixels), (pixels, pixels), (0, 0)
    windows = sliding_window_view(np.pad(images, margins), images.shape[1:3], axis=(1, 2))
    dy, dx = rng.integers(-pixels, pixels, (2, len(images)), endpoint=True)
    moved: NDArray[Any] = windows[np.arange(len(images)), pixels - dy, pixels - dx]  # (N, C, H, W)
    return np.moveaxis(moved, 1, -1).reshape(shape)


def random_affine(
    *, rotation: float = 0.0, scale: float = 0.0, shear: float = 0.0, shift: float = 0.0
) -> Transform:
    """Return a transform that turns, scales, shears and moves each image a little.

        y[c + A @ q + d] = x[c + q]    for c the centre, q = (rows down, columns to the right)
        A = s * [[cos(a), -sin(a)], [sin(a), cos(a)]] @ [[1, 0], [k, 1]]

    with numbers drawn for each image: a, the angle counterclockwise, from U(-rotation, rotation),
    s from U(1 - scale, 1 + scale), k from U(-shear, shear), and both of d from U(-shift, shift).
    Between pixels x is bilinear, outside it is 0. For what a transform is, see `random_shift`.

    Args:
        rotation: In degrees, finite and >= 0.
        scale: A fraction, in [0, 1).
        shear: Columns for each row, finite and >= 0.
        shift: In pixels, finite and >= 0.
    """
    amounts = (
        math.radians(check.real("random_affine", "rotation", rotation, "[0, inf)")),
        check.real("random_affine", "scale", scale, "[0, 1)"),
        check.real("random_affine", "shear", shear, "[0, inf)"),
        *[check.real("random_affine", "shift", shift, "[0, inf)")] * 2,
    )
    return _OfImages(_affine, amounts)


def _affine(amounts: tuple[float, ...], x: ArrayLike, rng: np.random.Generator) -> NDArray[Any]:
    from scipy.ndimage import affine_transform  # takes .07 s, which no user of one_hot shall wait

    images, shape = _as_batch("random_affine", x)
    a, s, k, *d = (rng.uniform(-amount, amount, len(images)) for amount in amounts)
    cos, sin = np.cos(a), np.sin(a)
    A = (1 + s) * np.array([[cos - k * sin, -sin], [sin + k * cos, cos]])  # (2, 2, N)
    c = (np.array(images.shape[1:3]) - 1) / 2
    back = np.linalg.inv(np.moveaxis(A, -1, 0))  # x[back @ p + start] is y[p]
    start = c - np.einsum("nij,nj->ni", back, c + np.transpose(d))
    floats = check.floats("random_affine", "x", images)
    y = np.empty_like(floats)
    for n, channel in np.ndindex(len(y), y.shape[-1]):
        of = np.s_[n, ..., channel]
        affine_transform(floats[of], back[n], start[n], output=y[of], order=1, mode="grid-constant")
    if images.dtype.kind != "f":
        np.rint(y, out=y)
    return y.astype(images.dtype, copy=False).reshape(shape)


def _as_batch(owner: str, x: ArrayLike) -> tuple[NDArray[Any], tuple[int, ...]]:
    """Return images (..., H, W, C) as (N, H, W, C), and the shape that they had."""
    images = check.real_array(owner, "x", x)
    if images.ndim < 3:
        raise check.value_error(owner, "x of shape (..., H, W, C)", images.shape)
    return images.reshape(math.prod(images.shape[:-3]), *images.shape[-3:]), images.shape
