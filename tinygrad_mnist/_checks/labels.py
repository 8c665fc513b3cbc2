"""Classes: scores on the last axis, and which class is the true one."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist._checks.arrays import real_array
from tinygrad_mnist._checks.refusal import expected, value_error


def class_indices(owner: object, array: NDArray[Any], num_classes: int) -> NDArray[np.intp]:
    """Return labels as indices: integers in [0, num_classes); floats, bools and -1 are refused."""
    if array.dtype.kind not in "iu":
        raise TypeError(expected(owner, "labels to be integers", f"dtype {array.dtype}"))
    outside = (array < 0) | (array >= num_classes)
    if np.count_nonzero(outside):
        raise ValueError(expected(owner, f"labels in [0, {num_classes})", array[outside].flat[0]))
    return array.astype(np.intp, copy=False)


def scores(owner: object, pred: ArrayLike) -> NDArray[Any]:
    """Return pred as an array with the classes on its last axis; refuse an empty one."""
    y = real_array(owner, "pred", pred)
    if not (y.ndim and y.size):
        contract = "pred of shape (..., classes) with at least one element"
        raise ValueError(expected(owner, contract, f"shape {y.shape}"))
    return y


def true_classes(owner: object, target: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return the class of each sample: the argmax of a target of this shape, or a label each."""
    t = real_array(owner, "target", target)
    if t.shape == shape:
        return np.asarray(t.argmax(axis=-1))
    if t.shape != shape[:-1]:
        contract = f"target of shape {shape}, or labels of shape {shape[:-1]}"
        raise value_error(owner, contract, t.shape)
    return class_indices(owner, t, shape[-1])
