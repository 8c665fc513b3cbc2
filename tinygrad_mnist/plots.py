"""Pictures of training and of what was learned (needs the `plot` extra: matplotlib).

A picture in one Axes takes `ax` and returns that Axes; a picture of several takes an empty
`figure` and returns that Figure. None makes a new one, laid out so that nothing is cut off:

    plots.learning_curves(history).savefig("curves.png")
    plots.confusion_matrix(matrix).get_figure().savefig("confusion.png")

No display is needed: Figures are made without pyplot, and matplotlib's settings stay as they are.
What cannot be drawn is refused before anything is.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._extras import needing
from tinygrad_mnist.training.history import History

with needing("tinygrad_mnist.plots", "plot"):
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator

T = TypeVar("T")


def learning_curves(history: History, *, figure: Figure | None = None) -> Figure:
    """Draw loss and metrics over the epochs, one panel each, train beside validation.

    history is what `fit` returned: records with "epoch" and at least one metric. Its "lr" is a
    setting and not drawn; what a record lacks, or has as NaN, is left out.
    """
    owner = "plots.learning_curves"
    if not isinstance(history, History):
        raise check.type_error(owner, "history to be a History", history)
    keys = dict.fromkeys(key for record in history.records for key in record)
    names = dict.fromkeys(key.removeprefix("val_") for key in keys if key not in ("epoch", "lr"))
    if not names:
        raise ValueError(check.expected(owner, "a history with at least one metric", "none"))
    epochs = history.column("epoch")
    figure = _given(owner, "figure", figure, Figure) or _new_figure(4.5 * len(names), 3.5)
    panels = figure.subplots(1, len(names), squeeze=False)
    for ax, name in zip(panels.flat, names, strict=True):
        for key, label, color in ((name, "train", "C0"), (f"val_{name}", "validation", "C1")):
            if key in keys:
                values = [record.get(key, math.nan) for record in history.records]
                ax.plot(epochs, values, color=color, marker="o", markersize=3, label=label)
        ax.set(xlabel="epoch", ylabel=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(alpha=0.3)
        ax.legend()
    return figure


def first_layer_weights(
    weight: ArrayLike, *, shape: tuple[int, int] = (28, 28), ax: Axes | None = None
) -> Axes:
    """Draw each column of W as an image, row by row: what its hidden unit looks for.

    weight is W, (I, O), such as `model[0].weight.data`; shape is (height, width) with
    height * width = I. All images share one colour scale, symmetric about 0.
    """
    owner = "plots.first_layer_weights"
    if not isinstance(shape, Sequence) or len(shape) != 2:
        raise check.type_error(owner, "shape to be (height, width)", shape)
    sides = [check.integer(owner, "each side of shape", side, at_least=1) for side in shape]
    pixels, w = math.prod(sides), check.real_array(owner, "weight", weight)
    if w.ndim != 2 or len(w) != pixels or not w.size:
        raise check.value_error(owner, f"weight of shape ({pixels}, units), units > 0", w.shape)
    images = w.T.reshape(-1, *sides).astype(np.float64)
    ax = _given(owner, "ax", ax, Axes) or _new_figure(7, 6).add_subplot()
    limit = float(np.abs(images[np.isfinite(images)]).max(initial=0)) or 1.0
    mosaic = ax.imshow(_mosaic(images), cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.axis("off")
    ax.figure.colorbar(mosaic, ax=ax, label="weight")
    return ax


def confusion_matrix(matrix: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw how many samples of each true class (rows) were predicted as which (columns).

    matrix holds counts (C, C), as `metrics.confusion_matrix` returns them. Colours follow their
    logarithm, so that single mistakes show beside a thousand hits; cells of 0 are empty.
    """
    owner = "plots.confusion_matrix"
    counts = check.real_array(owner, "matrix", matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise check.value_error(owner, "matrix of shape (C, C), C > 0", counts.shape)
    if counts.dtype.kind not in "iu":
        raise TypeError(check.expected(owner, "matrix to hold integers", f"dtype {counts.dtype}"))
    if counts.min() < 0:
        raise ValueError(check.expected(owner, "counts >= 0", counts.min()))
    ax = _given(owner, "ax", ax, Axes) or _new_figure(6.5, 5.5).add_subplot()
    # from 0.6, so that a count of 1 is not as pale as none
    norm = LogNorm(vmin=0.6, vmax=max(2, counts.max()))
    image = ax.imshow(np.ma.masked_equal(counts, 0), cmap="Blues", norm=norm)
    ticks = LogLocator(subs=(1, 2, 5))
    ax.figure.colorbar(image, ax=ax, label="samples", ticks=ticks, format="%d").minorticks_off()
    ax.set(xlabel="predicted class", ylabel="true class")
    _integer_ticks(ax)
    for row, column in np.argwhere(counts):
        count = counts[row, column]
        color = "white" if norm(count) > 0.6 else "black"
        ax.text(column, row, str(count), fontsize=8, ha="center", va="center", color=color)
    return ax


def worst_mistakes(
    images: ArrayLike,
    pred: ArrayLike,
    target: ArrayLike,
    *,
    count: int = 25,
    figure: Figure | None = None,
) -> Figure:
    """Draw the images that were most confidently taken for another class, the worst first.

    Confidence is the score of the predicted class less that of the true one.

    Args:
        images: (N, height, width).
        pred: Scores (N, C).
        target: True classes, as for the functions of `metrics`.
        count: Number of images to draw, if so many are wrong.
        figure: Where to draw.
    """
    owner = "plots.worst_mistakes"
    count = check.integer(owner, "count", count, at_least=1)
    x, y = check.real_array(owner, "images", images), check.scores(owner, pred)
    if y.ndim != 2:
        raise check.value_error(owner, "pred of shape (N, classes)", y.shape)
    if x.ndim != 3 or len(x) != len(y):
        raise check.value_error(owner, f"images of shape ({len(y)}, height, width)", x.shape)
    true, predicted = check.true_classes(owner, target, y), y.argmax(axis=1)
    worst = _most_confident(y.astype(np.float64), predicted, true)[:count]
    rows, columns = _grid(max(1, len(worst)))
    figure = _given(owner, "figure", figure, Figure) or _new_figure(1 + 1.2 * columns, 1.6 * rows)
    if not len(worst):
        figure.text(0.5, 0.5, "no mistakes", ha="center", va="center")
        return figure
    panels = figure.subplots(rows, columns, squeeze=False)
    for ax in panels.flat:
        ax.axis("off")
    for ax, i in zip(panels.flat, worst, strict=False):
        ax.imshow(x[i], cmap="gray_r")
        ax.set_title(f"predicted {predicted[i]}\ntrue {true[i]}", fontsize=9)
    return figure


def dropout_masks(masks: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw which units each forward pass keeps and drops, and the fraction of both.

    masks is (passes, units), or (units,) for one pass, as `Dropout.draw_mask` returns it: 0 where
    a unit is dropped.
    """
    owner = "plots.dropout_masks"
    kept = check.real_array(owner, "masks", masks) != 0
    if kept.ndim not in (1, 2) or not kept.size:
        contract = "masks of shape (passes, units) or (units,), not empty"
        raise check.value_error(owner, contract, kept.shape)
    kept, fraction = np.atleast_2d(kept), kept.mean()
    ax = _given(owner, "ax", ax, Axes) or _new_figure(7, 4).add_subplot()
    ax.imshow(kept, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set(xlabel="unit", ylabel="forward pass")
    ax.set_title(f"kept (dark) {fraction:.1%}, dropped {1 - fraction:.1%}")
    _integer_ticks(ax)
    return ax


def _given(owner: str, name: str, value: T | None, kind: type[T]) -> T | None:
    if value is not None and not isinstance(value, kind):
        raise check.type_error(owner, f"{name} to be a matplotlib {kind.__name__} or None", value)
    return value


def _new_figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="compressed")


def _integer_ticks(ax: Axes) -> None:
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=20, integer=True, min_n_ticks=1))


def _grid(cells: int) -> tuple[int, int]:
    """Return rows and columns of about a square."""
    columns = math.ceil(math.sqrt(cells))
    return math.ceil(cells / columns), columns


def _mosaic(images: NDArray[Any]) -> NDArray[Any]:
    """Return (O, h, w) as one image: NaN, drawn as nothing, below and to the right of each."""
    rows, columns = _grid(len(images))
    missing = rows * columns - len(images)
    tiles = np.pad(images, ((0, missing), (0, 1), (0, 1)), constant_values=np.nan)
    height, width = tiles.shape[1:]
    return tiles.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, -1)


def _most_confident(y: NDArray[Any], predicted: NDArray[Any], true: NDArray[Any]) -> NDArray[Any]:
    """Return the indices of the mistakes, the most confident first."""
    wrong = np.flatnonzero(predicted != true)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        margins = y[wrong, predicted[wrong]] - y[wrong, true[wrong]]
    return wrong[np.argsort(-margins, kind="stable")]
