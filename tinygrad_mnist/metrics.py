"""Metrics: how often, and on which classes, scores are right; how far off a regression is.

Of a classifier, pred holds the scores of C classes: (N, C), one sample (C,), or any leading axes,
but at least one sample (there is no fraction of nothing) and two classes (the largest entry of one
column is always the right one). The predicted class is `pred.argmax(axis=-1)`: of equal scores the
first, and a NaN counts as the largest. target holds one integer label in [0, C) for each sample:
(N,), or a scalar. Or it has the shape of pred, with rows that are one-hot, or probabilities that
sum to 1; the largest entry is the true class.

Of a regression, `mean_absolute_error` and `r2`, pred and target are numbers of one shape.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._display import Table


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
    return _rates(_confusion("metrics.precision", pred, target))[0]


def recall(pred: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return (C,): of the samples that belong to each class, the fraction predicted as it.

    NaN for a class without a sample: 0 would say that each was missed.
    """
    return _rates(_confusion("metrics.recall", pred, target))[1]


def f1(pred: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """Return (C,): the harmonic mean of precision and recall, 2 * hits / (predicted + true).

    It is 0 where there was no hit, and NaN for a class that neither was predicted nor has a sample.
    """
    return _rates(_confusion("metrics.f1", pred, target))[2]


def support(pred: ArrayLike, target: ArrayLike) -> NDArray[np.int64]:
    """Return (C,): how many samples belong to each class."""
    counts: NDArray[np.int64] = _confusion("metrics.support", pred, target).sum(axis=1)
    return counts


def report(pred: ArrayLike, target: ArrayLike, names: Sequence[str] | None = None) -> Table:
    """Return a table: precision, recall, F1 and support of each class, their means, accuracy.

    It shows itself as the last line of a cell, and by `print`. names are those of the classes, in
    the order of their labels; None numbers them. A macro mean counts each class alike, however
    many samples it has, and is NaN if one of its numbers is.
    """
    matrix = _confusion("metrics.report", pred, target)
    labels = check.class_names("metrics.report", names, len(matrix))
    rates = np.stack(_rates(matrix), axis=1)
    means, total = rates.mean(axis=0), str(matrix.sum())
    rows = [
        [name, *_decimals(rate), str(count)]
        for name, rate, count in zip(labels, rates, matrix.sum(axis=1), strict=True)
    ]
    right = matrix.trace() / matrix.sum()
    rows += [["macro mean", *_decimals(means), total], ["accuracy", "", "", f"{right:.3f}", total]]
    return Table(["", "precision", "recall", "F1", "support"], rows)


def mean_absolute_error(pred: ArrayLike, target: ArrayLike) -> float:
    """Return the mean of abs(pred - target) over all entries: in the unit of the target."""
    y, t = _numbers("metrics.mean_absolute_error", pred, target)
    return float(abs(y - t).mean())


def r2(pred: ArrayLike, target: ArrayLike) -> float:
    """Return R2 = 1 - sum((t - y)**2) / sum((t - mean(t))**2), for y = pred and t = target.

    1 is perfect, 0 as good as the mean of t, and less is worse. The sums and the mean are over the
    first axis, two samples or more; of several outputs, R2 is the mean of theirs. Where t is
    constant, it is 1 if y equals t and 0 if not, as in `sklearn.metrics.r2_score`. It is not a mean
    over batches: call it on what `training.predict` returns for all samples.
    """
    y, t = _numbers("metrics.r2", pred, target)
    if len(np.atleast_1d(y)) < 2:
        raise check.value_error("metrics.r2", "pred of two samples or more", y.shape)
    errors, spread = ((t - y) ** 2).sum(axis=0), ((t - t.mean(axis=0)) ** 2).sum(axis=0)
    rest = np.where(errors == 0, 0.0, 1.0)  # what y leaves unexplained of a constant t
    np.divide(errors, spread, out=rest, where=np.ptp(t, axis=0) != 0)
    return float(1 - rest.mean())


def _confusion(owner: str, pred: ArrayLike, target: ArrayLike) -> NDArray[np.int64]:
    y = check.scores(owner, pred)
    true, classes = check.true_classes(owner, target, y), y.shape[-1]
    cells = np.ravel(true * classes + y.argmax(axis=-1))
    counts = np.bincount(cells, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int64, copy=False)


def _rates(matrix: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Return precision, recall and F1, each (C,)."""
    hits, predicted, true = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return hits / predicted, hits / true, 2 * hits / (predicted + true)


def _decimals(rates: NDArray[np.float64]) -> list[str]:
    return [f"{rate:.3f}" for rate in rates]


def _numbers(owner: str, pred: ArrayLike, target: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both in float64; refuse unequal shapes, and none at all."""
    y, t = (
        check.real_array(owner, name, x).astype(np.float64)
        for name, x in (("pred", pred), ("target", target))
    )
    if not y.size:
        contract = "pred with at least one element"
        raise ValueError(check.expected(owner, contract, f"shape {y.shape}"))
    check.same_shape(owner, "target", t, y.shape)
    return y, t
