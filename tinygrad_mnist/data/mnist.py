"""MNIST: 28 x 28 grey images of handwritten digits, and where to get them.

The database is by Yann LeCun and Corinna Cortes, licensed CC BY-SA 3.0; NOTICE.md beside this
file has the details. Fashion-MNIST, clothes in ten classes, comes in the same forms (Xiao et al.
2017, arXiv:1708.07747).
"""

import hashlib
import io
import math
import os
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._extras import import_keras
from tinygrad_mnist.data._formats import OWNER, Bytes, Integers, read_idx_folder, read_npz
from tinygrad_mnist.data.transforms import one_hot

_LOCAL = '"bundled" (20,000 images, shipped), a .npz file or a folder of IDX files'
_SHA256 = "3be1bb6efef62c4154f22f1c60c12b6a271e20181b29300050905b41f0045b24"

Split = tuple[Bytes, Bytes]


def load_data(source: str | os.PathLike[str] = "bundled") -> tuple[Split, Split]:
    """Return (x_train, y_train), (x_test, y_test), as `keras.datasets.mnist.load_data()` does.

    Args:
        source: "bundled": the first 10,000 training images and all 10,000 test images, shipped
            with the package and checked by SHA-256. "keras": all 70,000, downloaded and cached by
            Keras (extra `keras`), on JAX unless the environment variable KERAS_BACKEND says
            otherwise. "keras-fashion": Fashion-MNIST, in the same way. Or a path: a `.npz` file in
            Keras's layout, with labels of any dtype of integers, or a folder with the four IDX
            files, plain or `.gz`. Images of another size, and labels above 9, are refused: such
            arrays need no function of MNIST's, and go into a DataLoader as they are.

    Returns:
        Images x, uint8 (N, 28, 28), from 0 for paper to 255 for ink, and labels y, uint8 (N,).

    Raises:
        ValueError: A file is truncated, damaged, or not MNIST; it says which and why. Nothing is
            allocated on the word of a header.
        FileNotFoundError: There is nothing at the path, or one of the four files is missing.
        ImportError: "keras" without Keras or a backend of it.
        ConnectionError: Keras could not download the data.
    """
    contract = f'source="keras", "keras-fashion", {_LOCAL}'
    if not isinstance(source, (str, os.PathLike)):
        raise check.type_error(OWNER, contract, source)
    if source in ("keras", "keras-fashion"):
        return _load_keras("mnist" if source == "keras" else "fashion_mnist")
    if source == "bundled":
        return _split(_read_bundled(), "the bundled data")
    path = Path(source)
    if path.is_dir():
        return _split(read_idx_folder(path), str(path))
    if not path.is_file():
        found = f"{str(source)!r}, where there is no file"
        raise FileNotFoundError(check.expected(OWNER, contract, found))
    return _split(read_npz(io.BytesIO(path.read_bytes()), str(path)), str(path))


def preprocess(
    images: ArrayLike, labels: ArrayLike, dtype: DTypeLike = np.float32
) -> tuple[FloatArray, FloatArray]:
    """Return inputs (N, pixels) in [0, 1] and one-hot targets (N, 10).

    images (N, H, W) or (N, H, W, C) are uint8, the raw bytes and not scaled ones; labels (N,) are
    integers from 0 to 9, ten classes even where some do not occur; dtype is that of both results,
    float32 or float64. For other classes, `one_hot(labels, num_classes)`, or CrossEntropyLoss,
    which takes the labels as they are.
    """
    owner = "mnist.preprocess"
    dtype = check.float_dtype(owner, dtype)
    x, y = check.real_array(owner, "images", images), check.real_array(owner, "labels", labels)
    if x.dtype != np.uint8:
        raise check.refusal(TypeError, owner, "images of dtype uint8", x.dtype)
    if x.ndim not in (3, 4):
        contract = "images of shape (N, H, W) or (N, H, W, C)"
        raise ValueError(check.expected(owner, contract, x.shape))
    if y.shape != x.shape[:1]:
        raise ValueError(check.expected(owner, f"labels of shape ({len(x)},)", y.shape))
    inputs: FloatArray = x.reshape(len(x), math.prod(x.shape[1:])).astype(dtype)
    inputs /= 255
    return inputs, one_hot(y, 10, dtype)


def size_normalized(ink: ArrayLike) -> FloatArray:
    """Return a drawn digit in the form of MNIST's: (28, 28), from 0 for paper to 1 for ink.

    It is cut out and scaled to fit 20 x 20 pixels, its proportions kept, and its centre of mass is
    put on the pixel in row 14 and column 14. So were the images of MNIST made, and they come out
    as they are. ink (H, W) is one digit, of any size: 0 for paper, and numbers > 0 for ink.
    """
    owner = "mnist.size_normalized"
    ink = check.floats(owner, "ink", ink)
    if ink.ndim != 2:
        raise check.value_error(owner, "ink of shape (H, W)", ink.shape)
    if not (ink.any() and np.min(ink) >= 0 and np.max(ink) < np.inf):  # nor NaN
        raise check.value_error(owner, "ink >= 0, some of it > 0", ink)
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / ink.max()
    height, width = (max(1, round(20 * n / max(digit.shape))) for n in digit.shape)
    small = _averaging(height, digit.shape[0]) @ digit @ _averaging(width, digit.shape[1]).T
    small /= small.max()
    y, x = (np.arange(n) @ small.sum(axis=1 - i) / small.sum() for i, n in enumerate(small.shape))
    top = int(np.clip(round(14 - y), 0, 28 - height))
    left = int(np.clip(round(14 - x), 0, 28 - width))
    image = np.zeros((28, 28), np.float32)
    image[top : top + height, left : left + width] = small
    return image


def _averaging(new: int, old: int) -> FloatArray:
    """Return the matrix (new, old) by which new pixels are averages of the old ones around them.

    Weights fall linearly to 0 within one new pixel, or one old one if those are larger.
    """
    size = old / new
    distance = size * (np.arange(new)[:, None] + 0.5) - (np.arange(old) + 0.5)
    weights = np.maximum(0, 1 - abs(distance) / max(size, 1))
    averaging: FloatArray = weights / weights.sum(axis=1, keepdims=True)
    return averaging


def _read_bundled() -> dict[str, Integers]:
    content = (resources.files("tinygrad_mnist.data") / "mnist_20k.npz").read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256:
        raise ValueError(check.expected(OWNER, f"mnist_20k.npz with SHA-256 {_SHA256}", found))
    return read_npz(io.BytesIO(content), "mnist_20k.npz")


def _load_keras(name: str) -> tuple[Split, Split]:
    keras = import_keras(OWNER)
    contract = f"Keras to download {name} (without a network: source={_LOCAL})"
    with check.refusing(OWNER, contract, ConnectionError):  # Keras raises bare Exceptions
        return getattr(keras.datasets, name).load_data()  # type: ignore[no-any-return]


def _split(arrays: dict[str, Integers], name: str) -> tuple[Split, Split]:
    """Return the four arrays as two pairs of bytes, or refuse those that do not fit together."""
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if len(images) != len(labels):
            contract = f"{name} to have as many {part} labels as images ({len(images)})"
            raise ValueError(check.expected(OWNER, contract, len(labels)))
        outside = labels[(labels < 0) | (labels > 9)]
        if outside.size:
            raise ValueError(check.expected(OWNER, f"{name} to have labels 0 to 9", outside[0]))
    x_train, y_train, x_test, y_test = (
        arrays[key].astype(np.uint8, copy=False)
        for key in ("x_train", "y_train", "x_test", "y_test")
    )
    return (x_train, y_train), (x_test, y_test)
