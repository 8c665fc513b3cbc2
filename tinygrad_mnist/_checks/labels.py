"""Classes: scores on the last axis, which class is the true one, and what they are called."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist._checks.arrays import real_array
from tinygrad_mnist._checks.refusal import expected, refusal, value_error


def class_indices(owner: object, array: NDArray[Any], num_classes: int) -> NDArray[np.intp]:
    """Return labels as indices: integers in [0, num_classes); floats, bools and -1 are refused."""
    if array.dtype.kind not in "iu":
        raise refusal(TypeError, owner, "labels to be integers", f"dtype {array.dtype}")
    outside = (array < 0) | (array >= num_classes)
    if np.count_nonzero(outside):
        first = array[outside].flat[0]
        raise refusal(ValueError, owner, f"labels in [0, {num_classes})", first)
    return array.astype(np.intp, copy=False)


def scores(owner: object, pred: ArrayLike) -> NDArray[Any]:
    """Return pred as an array with the classes on its last axis: two at least, and not empty."""
    y = real_array(owner, "pred", pred)
    if not (y.ndim and y.size):
        contract = "pred of shape (..., classes) with at least one element"
        raise ValueError(expected(owner, contract, f"shape {y.shape}"))
    if y.shape[-1] == 1:  # its largest entry would always be the right one
        raise value_error(owner, "pred of shape (..., classes) with two classes or more", y.shape)
    return y


def true_classes(owner: object, target: ArrayLike, y: NDArray[Any]) -> NDArray[np.intp]:
    """Return the class of each sample of the scores y: its label, or where its row is largest."""
    t = real_array(owner, "target", target)
    if y.ndim == 1 and t.ndim and y.dtype.kind != "f":  # as scikit-learn's functions take them
        raise value_error(owner, "pred to hold scores, not predicted labels", y)
    t = labels_or_rows(owner, t, y)
    return t if t.ndim < y.ndim else np.asarray(t.argmax(axis=-1))


def labels_or_rows(owner: object, target: ArrayLike, y: NDArray[Any]) -> NDArray[Any]:
    """Return the target of the scores y (..., K): labels (...), or rows of probabilities (..., K).

    Labels are indices, rows are what was passed.
    """
    t = real_array(owner, "target", target)
    if t.shape == y.shape:
        if not are_probabilities(t):
            contract = "target to have rows that are one-hot, or probabilities that sum to 1"
            raise value_error(owner, contract, t)
        return t
    if t.shape != y.shape[:-1]:
        contract = f"target of shape {y.shape}, or labels of shape {y.shape[:-1]}"
        raise value_error(owner, contract, t.shape)
    return class_indices(owner, t, y.shape[-1])


def are_probabilities(t: NDArray[Any]) -> bool:
    """Return whether each row of t is one-hot, or holds numbers >= 0 that sum to 1."""
    if not (t.min() >= 0 and t.max() <= 2):  # nor NaN or infinity
        return False
    sums = t.sum(axis=-1, dtype=np.float64)
    return bool((abs(sums - 1) < 1e-3).all())  # float16 may be off by 5e-4


def class_names(owner: object, names: Iterable[object] | None, classes: int) -> list[str]:
    """Return a name for each class, its number where there are none; refuse another count."""
    if names is None:
        return [str(c) for c in range(classes)]
    given = [] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if len(given) != classes:
        raise value_error(owner, f"names of {classes} classes", names)
    return [str(name) for name in given]
