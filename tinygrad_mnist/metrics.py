"""Metrics of a classifier: how often, and on which classes, its scores are right.

pred holds the scores of C classes: (N, C), one sample (C,), or any leading axes, but at least one
sample (there is no fraction of nothing) and two classes (the largest entry of one column is always
the right one). The predicted class is `pred.argmax(axis=-1)`: of equal scores the first, and a NaN
counts as the largest.

target holds one integer label in [0, C) for each sample: (N,), or a scalar. Or it has the shape of
pred, with rows that are one-hot, or probabilities that sum to 1; the largest entry is the true
class.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check


def accuracy(pred: ArrayLike, target: ArrayLike) -> float:
    """Return the fraction of samples whose predicted class is the true one."""
    y = check.scores("metrics.accuracy", pred)
    true = check.true_classes("metrics.accuracy", target, y)
    return int(np.count_nonzero(y.argmax(axis=-1) == true)) / true.size


def top_k_accuracy(pred: ArrayLike, target: ArrayLike, *, k: int = 5) -> float:
    """Return the fraction of samples whose true class is among the k with the largest scores.

    k is in [1, C]. Of equal scores the first classes count, so k = 1 gives `accuracy`.
    """
    owner = "metrics.top_k_accuracy"
    y = check.scores(owner, pred)
    true = check.true_classes(owner, target, y)
    k, classes = check.integer(owner, "k", k, at_least=1), y.shape[-1]
    if k > classes:
        raise ValueError(check.expected(owner, f"k of at most the {classes} classes", k))
    # reversed, sorted upwards and reversed again: NaN first, and of equal scores the first
    ascending = np.argsort(y[..., ::-1], axis=-1, kind="stable")
    top = classes - 1 - ascending[..., classes - k :]
    return int(np.count_nonzero(top == true[..., None])) / true.size


def confusion_matrix(pred: ArrayLike, target: ArrayLike) -> NDArray[np.int64]:
    """Return counts (C, C): row i, column j has the samples of class i predicted as j."""
    return _confusion("metrics.confusion_matrix", pred, target)


def precision(pred: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return (C,): of the samples predicted as each class, the fraction that belongs to it.

    NaN for a class that was never predicted: 0 would say that each prediction of it was wrong.
    `np.nanmean` of the result is the mean over the others.
    """
    return _hit_rates("metrics.precision", pred, target, axis=0)


def recall(pred: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return (C,): of the samples that belong to each class, the fraction predicted as it.

    NaN for a class without a sample: 0 would say that each was missed.
    """
    return _hit_rates("metrics.recall", pred, target, axis=1)


def _confusion(owner: str, pred: ArrayLike, target: ArrayLike) -> NDArray[np.int64]:
    y = check.scores(owner, pred)
    true, classes = check.true_classes(owner, target, y), y.shape[-1]
    cells = np.ravel(true * classes + y.argmax(axis=-1))
    counts = np.bincount(cells, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int64, copy=False)


def _hit_rates(owner: str, pred: ArrayLike, target: ArrayLike, axis: int) -> NDArray[np.float64]:
    matrix = _confusion(owner, pred, target)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        rates: NDArray[np.float64] = matrix.diagonal() / matrix.sum(axis=axis)
    return rates
