"""What a model predicts, beside what is true: classes, images, regions, numbers."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist import metrics
from tinygrad_mnist.module import Module
from tinygrad_mnist.plots import _images, _showing

_FINE = 200  # points of the plane along each axis
_WRITTEN = 20  # the most classes whose counts fit in their cells
# of Okabe and Ito: apart to the colour-blind, and by their markers in grey
_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#555555"]
_MARKERS = "os^Dv<P*"


def confusion_matrix(
    matrix: ArrayLike, *, names: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw how many samples of each true class (rows) were predicted as which (columns).

    Colours follow the logarithm of the counts, so that single mistakes show beside a thousand hits;
    cells of 0 are empty. The title has the accuracy, and the right side the recall of each class:
    the fraction of its samples that was recognised. Of more than 20 classes, colours stand for the
    counts.

    Args:
        matrix: Counts (C, C), as `metrics.confusion_matrix` returns them.
        names: Of the classes. None numbers them.
        ax: Where to draw.
    """
    owner = "plots.confusion_matrix"
    counts = check.real_array(owner, "matrix", matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise check.value_error(owner, "matrix of shape (C, C), C > 0", counts.shape)
    if counts.dtype.kind not in "iu":
        raise TypeError(check.expected(owner, "matrix to hold integers", f"dtype {counts.dtype}"))
    if counts.min() < 0:
        raise ValueError(check.expected(owner, "counts >= 0", counts.min()))
    names, classes = check.class_names(owner, names, len(counts)), len(counts)
    side = 1.3 + 0.38 * min(max(classes, 5), _WRITTEN)
    ax = _showing.axes(owner, ax, side + 0.1, side - 0.4)
    # from 0.6, so that a count of 1 is not as pale as none
    norm = LogNorm(vmin=0.6, vmax=max(2, counts.max()))
    image = ax.imshow(np.ma.masked_equal(counts, 0), cmap="Blues", norm=norm)
    total = counts.sum()
    ax.set(xlabel="predicted class", ylabel="true class")
    right = f"{counts.trace() / total:.2%} of {total:,}" if total else "of no samples"
    ax.set_title(f"accuracy {right}", fontsize="medium")
    size = "medium" if classes <= _WRITTEN else min(8, 500 / classes)  # of letters, in points
    ax.set_xticks(range(classes), names, fontsize=size, **_slanted(names))
    ax.set_yticks(range(classes), names, fontsize=size)
    if classes > _WRITTEN:
        ax.figure.colorbar(image, ax=ax, label="samples", format="%d")
        return ax
    for row, column in np.argwhere(counts):
        count = counts[row, column]
        color = "white" if norm(count) > 0.6 else "black"
        ax.text(column, row, str(count), fontsize=8, ha="center", va="center", color=color)
    samples = counts.sum(axis=1)
    recalls = [
        f"{n / of:.1%}" if of else "-" for n, of in zip(counts.diagonal(), samples, strict=True)
    ]
    recall = ax.secondary_yaxis("right")
    recall.set_yticks(range(classes), recalls, fontsize="small")
    recall.set(ylabel="recall")
    recall.tick_params(length=0)
    return ax


def worst_mistakes(
    images: ArrayLike,
    pred: ArrayLike,
    target: ArrayLike,
    *,
    count: int = 25,
    names: Sequence[str] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw the images that were most confidently taken for another class, the worst first.

    Confidence is the score of the predicted class less that of the true one. Above each image
    stand the predicted class with its score, and the true class.

    Args:
        images: (N, H, W) or (N, H, W, 1), drawn as ink: the smallest number is paper; or colours
            (N, H, W, 3), as bytes, or as fractions from 0 to 1.
        pred: Scores (N, C): probabilities, as from `Softmax()(logits)`, are the easiest to read.
        target: True classes, as for the functions of `metrics`.
        count: Number of images to draw, if so many are wrong.
        names: Of the classes. None numbers them.
        figure: Where to draw.
    """
    owner = "plots.worst_mistakes"
    count = check.integer(owner, "count", count, at_least=1)
    y = check.scores(owner, pred)
    if y.ndim != 2:
        raise check.value_error(owner, "pred of shape (N, classes)", y.shape)
    x = _images.images(owner, images, len(y))
    names = check.class_names(owner, names, y.shape[1])
    true, predicted = check.true_classes(owner, target, y), y.argmax(axis=1)
    worst = _most_confident(y.astype(np.float64), predicted, true)[:count]
    captions = [
        f"{names[predicted[i]]} ({y[i, predicted[i]]:.2f})\nis {names[true[i]]}" for i in worst
    ]
    longest = max((len(line) for c in captions for line in c.split("\n")), default=0)
    rows, columns = _images.grid(max(1, len(worst)))
    side = max(0.8, 0.085 * longest)
    figure = _showing.figure(owner, figure, max(2, side * columns), max(1, (side + 0.28) * rows))
    if not len(worst):
        figure.text(0.5, 0.5, "no mistakes", ha="center", va="center")
        return figure
    low, high = x[worst].min(), x[worst].max()
    panels = figure.subplots(rows, columns, squeeze=False)
    for ax in panels.flat[len(worst) :]:
        ax.axis("off")
    for ax, i, caption in zip(panels.flat, worst, captions, strict=False):
        ax.imshow(x[i], cmap=_images.INK, vmin=low, vmax=high)
        ax.set_title(caption, fontsize=8, pad=3, linespacing=1.1)
        _showing.frame(ax)
    return figure


def decision_boundary(
    model: Module,
    x: ArrayLike,
    t: ArrayLike,
    *,
    threshold: float = 0.0,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw which class a model predicts where in the plane, and the samples on top.

    A circle is around each sample that lies in the region of another class. The model runs in
    evaluation mode, on a copy: it stays as it is.

    Args:
        model: From two features to a score for each class, or to one output.
        x: Samples (N, 2).
        t: Their classes: labels (N,), or rows (N, C) that are one-hot; for one output 0 and 1, as
            (N,) or (N, 1).
        threshold: What one output must exceed for class 1: 0 for a logit, 0.5 for a probability.
        names: Of the classes. None numbers them.
        ax: Where to draw.
    """
    owner = "plots.decision_boundary"
    if not isinstance(model, Module):
        raise check.type_error(owner, "a Module", model)
    threshold = check.real(owner, "threshold", threshold, "(-inf, inf)")
    points = check.floats(owner, "x", x)
    if points.ndim != 2 or points.shape[1] != 2 or not points.size:
        raise check.value_error(owner, "x of shape (N, 2), N > 0", points.shape)
    if not np.isfinite(points).all():
        raise ValueError(check.expected(owner, "x of finite numbers", "NaN or infinity"))
    model = copy.deepcopy(model).eval()
    scores = _scores(owner, model, points, threshold)
    true = check.true_classes(owner, _labels(owner, t, scores), scores)
    names = check.class_names(owner, names, scores.shape[1])
    (left, low), (right, high) = _with_margins(points)
    plane = np.stack(
        np.meshgrid(np.linspace(left, right, _FINE), np.linspace(low, high, _FINE)), -1
    )
    regions = _scores(owner, model, plane.reshape(-1, 2), threshold).argmax(axis=1)
    ax = _showing.axes(owner, ax, 5, 3.8)
    ax.imshow(
        regions.reshape(_FINE, _FINE),
        cmap=ListedColormap([_colour(c) for c in range(len(names))]),
        vmin=-0.5,
        vmax=len(names) - 0.5,
        alpha=0.3,
        extent=(left, right, low, high),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    wrong = scores.argmax(axis=1) != true
    _draw_samples(ax, points, true, wrong, names)
    ax.set(xlabel="x[:, 0]", ylabel="x[:, 1]")
    ax.set_title(f"accuracy {1 - wrong.mean():.1%} of {len(points):,}", fontsize="medium")
    ax.legend(title="class", loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return ax


def predicted_against_true(pred: ArrayLike, target: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw the numbers that a regression predicts over the true ones; right ones lie on a diagonal.

    The title has R2 (1 is perfect, 0 as good as the mean of the target) and the mean absolute
    error.

    Args:
        pred: (N,), or (N, 1).
        target: As many numbers.
        ax: Where to draw.
    """
    owner = "plots.predicted_against_true"
    y, t = check.floats(owner, "pred", pred), check.floats(owner, "target", target)
    for name, numbers in (("pred", y), ("target", t)):
        if numbers.shape not in ((numbers.size,), (numbers.size, 1)) or not numbers.size:
            raise check.value_error(owner, f"{name} of shape (N,) or (N, 1), N > 0", numbers.shape)
    y, t = (numbers.ravel().astype(np.float64) for numbers in (y, t))
    check.same_shape(owner, "target", t, y.shape)
    ax = _showing.axes(owner, ax, 4, 4)
    ax.scatter(t, y, s=14, alpha=max(0.2, min(0.7, 200 / len(t))), edgecolors="none")
    ends = [min(y.min(), t.min()), max(y.max(), t.max())]
    ax.plot(ends, ends, color="0.4", linestyle="--", linewidth=1)
    ax.set(xlabel="true", ylabel="predicted", aspect="equal")
    right = f"R2 {metrics.r2(y, t):.3f}, " if len(t) > 1 else ""
    error = metrics.mean_absolute_error(y, t)
    ax.set_title(f"{right}mean absolute error {error:.3g}", fontsize="medium")
    ax.grid(alpha=0.3)
    return ax


def _slanted(names: Sequence[str]) -> dict[str, Any]:
    """Return how the names of columns are set, so that long ones do not run into each other."""
    if max(map(len, names)) <= 3 and len(names) <= _WRITTEN:
        return {}
    if len(names) > _WRITTEN:
        return {"rotation": 90}
    return {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}


def _most_confident(y: NDArray[Any], predicted: NDArray[Any], true: NDArray[Any]) -> NDArray[Any]:
    """Return the indices of the mistakes, the most confident first."""
    wrong = np.flatnonzero(predicted != true)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        margins = y[wrong, predicted[wrong]] - y[wrong, true[wrong]]
    return wrong[np.argsort(-margins, kind="stable")]


def _scores(owner: str, model: Module, x: NDArray[Any], threshold: float) -> NDArray[Any]:
    """Return a score for each class (N, C); one output y has the scores threshold and y."""
    y = check.real_array(owner, "the model's output", model(x))
    if y.ndim != 2 or not y.size:
        contract = "a model with one output or more for each sample, (N, C)"
        raise check.value_error(owner, contract, y.shape)
    return np.insert(y, 0, threshold, axis=1) if y.shape[1] == 1 else y


def _labels(owner: str, t: ArrayLike, scores: NDArray[Any]) -> NDArray[Any]:
    """Return t, with 0 and 1 as labels (N,) however they are written."""
    t = check.real_array(owner, "t", t)
    if t.shape == (len(scores), 1):
        t = t[:, 0]
    written = t.ndim == 1 and t.dtype.kind in "bf" and np.isin(t, (0, 1)).all()
    return t.astype(int) if written else t


def _colour(c: int) -> str:
    return _COLOURS[c % len(_COLOURS)]


def _draw_samples(
    ax: Axes, points: NDArray[Any], true: NDArray[Any], wrong: NDArray[Any], names: list[str]
) -> None:
    """Draw the samples of each class, and circles around the wrong ones."""
    for c, name in enumerate(names):
        own = points[true == c]
        ax.scatter(
            own[:, 0],
            own[:, 1],
            s=22,
            color=_colour(c),
            marker=_MARKERS[(c + c // len(_COLOURS)) % len(_MARKERS)],
            edgecolors="white",
            linewidths=0.5,
            label=name,
        )
    if wrong.any():
        own, black = points[wrong], ax.spines["left"].get_edgecolor()  # white in a dark style
        ax.scatter(own[:, 0], own[:, 1], s=70, facecolors="none", edgecolors=black, label="wrong")


def _with_margins(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    low, high = points.min(axis=0), points.max(axis=0)
    margin = np.where(high > low, 0.1 * (high - low), 1)
    return low - margin, high + margin
