"""Pictures of training and of what was learnt (needs the `plot` extra: matplotlib).

A picture in one Axes takes `ax` and returns that Axes; a picture of several takes an empty
`figure` and returns that Figure. None makes a new one, laid out so that nothing is cut off:

    plots.learning_curves(records).savefig("curves.png")
    plots.confusion_matrix(matrix).get_figure().savefig("confusion.png")

No display is needed: Figures are made without pyplot, and matplotlib's settings stay as they are.

Every function raises TypeError for what is no array of real numbers, or no Axes or Figure, before
it draws anything.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist._checks import (
    described,
    expected,
    integer,
    real_array,
    scores,
    true_classes,
)

_READABLE = 5  # points: smaller numbers are left out


def learning_curves(
    records: Sequence[Mapping[str, float]], *, figure: Figure | None = None
) -> Figure:
    """Draw loss and metrics over the epochs, one panel each, train beside validation.

    Args:
        records: One mapping for each epoch: "epoch" and any number of metrics, each with its
            validation figure under `val_` and its name. "lr" is a setting and not drawn; what a
            record lacks, or has as NaN, is left out.
        figure: Where to draw.

    Raises:
        ValueError: No record, one without "epoch", or no metric.
        TypeError: records is no sequence of mappings.
    """
    owner = "plots.learning_curves"
    curves = {
        name: (_curve(owner, records, name), _curve(owner, records, f"val_{name}"))
        for name in _metric_names(owner, records)
    }
    figure = _figure_or_new(owner, figure, (4.5 * len(curves), 3.5))
    panels = _panels(figure, 1, len(curves))
    for ax, (name, pair) in zip(panels, curves.items(), strict=True):
        for label, color, (epochs, values) in zip(
            ("train", "validation"), ("C0", "C1"), pair, strict=True
        ):
            if len(epochs):
                ax.plot(epochs, values, color=color, marker="o", markersize=3, label=label)
        ax.set(xlabel="epoch", ylabel=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.grid(alpha=0.3)
        ax.legend()
    return figure


def first_layer_weights(
    weight: ArrayLike, *, shape: tuple[int, int] = (28, 28), ax: Axes | None = None
) -> Axes:
    """Draw each column of W as an image: what its hidden unit looks for.

    All share one colour scale, symmetric about 0. Units are numbered row by row from 0; the
    numbers are left out where they would be too small to read.

    Args:
        weight: W, (I, O), such as `model[0].weight.data`.
        shape: Height and width of an image; their product is I.
        ax: Where to draw.

    Raises:
        ValueError: weight is not of shape (height * width, O) with O > 0.
    """
    owner = "plots.first_layer_weights"
    images = _unit_images(owner, weight, _image_shape(owner, shape))
    rows, columns = _grid(len(images))
    height, width = images.shape[1:]
    side = min(8.0, 2 + 0.6 * columns)
    ax = _axes_or_new(owner, ax, (side + 1, side * (rows * height) / (columns * width) + 0.5))
    size = 0.17 * _cell_points(ax, rows, columns)
    gap = max(1, height // 4) if size >= _READABLE else 1
    limit = float(np.abs(images[np.isfinite(images)]).max(initial=0)) or 1.0
    mosaic = ax.imshow(_mosaic(images, rows, columns, gap), cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.axis("off")
    ax.figure.colorbar(mosaic, ax=ax, label="weight")
    for unit in range(len(images)) if size >= _READABLE else ():
        row, column = divmod(unit, columns)
        x, y = column * (width + 1) - 0.5, row * (height + gap) + gap - 1
        ax.text(x, y, str(unit), fontsize=min(size, 9), va="bottom")
    return ax


def confusion_matrix(matrix: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw how many samples of each true class (rows) were predicted as which (columns).

    Colours follow the logarithm of the counts, so that single mistakes show beside a thousand
    hits; cells of 0 are empty. Counts are left out where they would be too small to read.

    Args:
        matrix: Counts (C, C), as `metrics.confusion_matrix` returns them.
        ax: Where to draw.

    Raises:
        ValueError: matrix is not square, is empty, or has a negative entry.
        TypeError: matrix does not hold integers.
    """
    owner = "plots.confusion_matrix"
    counts = _counts(owner, matrix)
    ax = _axes_or_new(owner, ax, (6.5, 5.5))
    largest = max(2, int(counts.max()))
    # from 0.5, so that a count of 1 is not as pale as none
    norm = LogNorm(vmin=0.5, vmax=largest)
    image = ax.imshow(np.ma.masked_equal(counts, 0), cmap="Blues", norm=norm)
    ticks = [m * 10**e for e in range(len(str(largest))) for m in (1, 2, 5) if m * 10**e <= largest]
    bar = ax.figure.colorbar(image, ax=ax, label="samples", ticks=ticks, format="%d")
    bar.minorticks_off()
    ax.set(xlabel="predicted class", ylabel="true class")
    _integer_ticks(ax, at_most=20)
    size = _cell_points(ax, *counts.shape) / (0.7 * len(str(largest)))
    for row, column in np.argwhere(counts) if size >= _READABLE else ():
        count = counts[row, column]
        color = "white" if norm(count) > 0.6 else "black"
        text = ax.text(column, row, str(count), ha="center", va="center", color=color)
        text.set_fontsize(min(size, 10))
    return ax


def worst_mistakes(
    images: ArrayLike,
    pred: ArrayLike,
    target: ArrayLike,
    *,
    count: int = 25,
    shape: tuple[int, int] = (28, 28),
    figure: Figure | None = None,
) -> Figure:
    """Draw the images that were most confidently taken for another class, the worst first.

    Confidence is the score of the predicted class less that of the true one.

    Args:
        images: (N, height * width) or (N, height, width).
        pred: Scores (N, C).
        target: True classes, as for the functions of `metrics`.
        count: Number of images to draw, if so many are wrong.
        shape: Height and width of an image.
        figure: Where to draw.

    Raises:
        ValueError: A shape that does not fit the others, or a label outside [0, C).
        TypeError: Labels or a count that are not integers.
    """
    owner = "plots.worst_mistakes"
    count, shape = integer(owner, "count", count, at_least=1), _image_shape(owner, shape)
    y = scores(owner, pred)
    if y.ndim != 2:
        raise ValueError(expected(owner, "pred of shape (N, classes)", y.shape))
    true, predicted = true_classes(owner, target, y.shape), y.argmax(axis=1)
    x = _images(owner, images, len(y), shape)
    worst = _most_confident(y.astype(np.float64), predicted, true)[:count]
    rows, columns = _grid(max(1, len(worst)))
    figure = _figure_or_new(owner, figure, (max(3.0, 1.2 * columns), 1.6 * rows))
    if not len(worst):
        figure.text(0.5, 0.5, "no mistakes", ha="center", va="center")
        return figure
    panels = _panels(figure, rows, columns)
    for ax in panels:
        ax.axis("off")
    for ax, i in zip(panels, worst, strict=False):
        ax.imshow(x[i], cmap="gray_r")
        ax.set_title(f"predicted {predicted[i]}\ntrue {true[i]}", fontsize=9)
    return figure


def dropout_masks(masks: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Draw which units each forward pass keeps and drops, and the share of both.

    Args:
        masks: (passes, units), or (units,) for one pass, as `Dropout.draw_mask` returns them: 0
            where a unit is dropped.
        ax: Where to draw.

    Raises:
        ValueError: masks is empty, or has another number of axes.
    """
    owner = "plots.dropout_masks"
    kept = real_array(owner, "masks", masks) != 0
    if kept.ndim not in (1, 2) or not kept.size:
        contract = "masks of shape (passes, units) with at least one element"
        raise ValueError(expected(owner, contract, f"shape {kept.shape}"))
    kept = np.atleast_2d(kept)
    ax = _axes_or_new(owner, ax, (7, 4))
    colors = ListedColormap(["#f3e3c3", "#1f4e79"])
    ax.imshow(kept, cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set(xlabel="unit", ylabel="forward pass")
    _integer_ticks(ax)
    share = np.count_nonzero(kept) / kept.size
    texts = (f"dropped {1 - share:.1%}", f"kept {share:.1%}")
    keys = [Patch(fc=colors(i), ec="gray", label=text) for i, text in enumerate(texts)]
    ax.legend(handles=keys, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    return ax


def _axes_or_new(owner: str, ax: Any, size: tuple[float, float]) -> Axes:
    if ax is None:
        return Figure(figsize=size, layout="compressed").add_subplot()
    if not isinstance(ax, Axes):
        raise TypeError(expected(owner, "ax to be a matplotlib Axes or None", described(ax)))
    return ax


def _figure_or_new(owner: str, figure: Any, size: tuple[float, float]) -> Figure:
    if figure is None:
        return Figure(figsize=size, layout="compressed")
    if not isinstance(figure, Figure):
        contract = "figure to be a matplotlib Figure or None"
        raise TypeError(expected(owner, contract, described(figure)))
    return figure


def _panels(figure: Figure, rows: int, columns: int) -> list[Axes]:
    return list(figure.subplots(rows, columns, squeeze=False).flat)


def _integer_ticks(ax: Axes, at_most: int = 10) -> None:
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        bins = min(at_most, round(abs(high - low)))
        axis.set_major_locator(MaxNLocator(nbins=bins, integer=True, min_n_ticks=1))


def _cell_points(ax: Axes, rows: int, columns: int) -> float:
    """Return the shorter side of a cell in points, the unit of font sizes."""
    box = ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted())
    return 72 * min(box.height / rows, box.width / columns)


def _grid(cells: int) -> tuple[int, int]:
    """Return rows and columns of about a square."""
    columns = math.ceil(math.sqrt(cells))
    return math.ceil(cells / columns), columns


def _image_shape(owner: str, shape: Any) -> tuple[int, int]:
    if not isinstance(shape, Sequence) or len(shape) != 2:
        raise TypeError(expected(owner, "shape to be (height, width)", described(shape)))
    return integer(owner, "height", shape[0], at_least=1), integer(owner, "width", shape[1], 1)


def _images(owner: str, images: ArrayLike, n: int, shape: tuple[int, int]) -> NDArray[Any]:
    """Return images as (n, height, width)."""
    x = real_array(owner, "images", images)
    if x.shape not in ((n, math.prod(shape)), (n, *shape)):
        contract = f"images of shape {(n, math.prod(shape))} or {(n, *shape)}"
        raise ValueError(expected(owner, contract, x.shape))
    return x.reshape(n, *shape)


def _unit_images(owner: str, weight: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return W's columns as (O, height, width)."""
    w = real_array(owner, "weight", weight)
    if w.ndim != 2 or len(w) != math.prod(shape) or not w.size:
        contract = f"weight of shape ({math.prod(shape)}, units), units > 0"
        raise ValueError(expected(owner, contract, w.shape))
    return w.T.reshape(-1, *shape).astype(np.float64)


def _mosaic(images: NDArray[Any], rows: int, columns: int, gap: int) -> NDArray[Any]:
    """Return (O, h, w) side by side: NaN, drawn as nothing, above and to the right of each."""
    padded = np.pad(images, ((0, 0), (gap, 0), (0, 1)), constant_values=np.nan)
    grid = np.full((rows * columns, *padded.shape[1:]), np.nan)
    grid[: len(images)] = padded
    tiles = grid.reshape(rows, columns, *padded.shape[1:])
    return np.concatenate([np.concatenate(row, axis=1) for row in tiles])


def _metric_names(owner: str, records: Any) -> list[str]:
    """Return the metrics' names in order, without "val_"."""
    if not isinstance(records, Sequence) or not all(isinstance(r, Mapping) for r in records):
        contract = "records to be a sequence of mappings"
        raise TypeError(expected(owner, contract, described(records)))
    if not records or not all("epoch" in record for record in records):
        contract = 'records with an "epoch" each'
        raise ValueError(expected(owner, contract, "none" if not records else "one without"))
    keys = [key.removeprefix("val_") for record in records for key in record]
    names = [name for name in dict.fromkeys(keys) if name not in ("epoch", "lr")]
    if not names:
        raise ValueError(expected(owner, "records with at least one metric", "none"))
    return names


def _curve(
    owner: str, records: Sequence[Mapping[str, float]], key: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the epochs of the records that have this key, and its values."""
    having = [record for record in records if key in record]
    epochs = real_array(owner, "epoch", [record["epoch"] for record in having])
    return epochs, real_array(owner, key, [record[key] for record in having])


def _counts(owner: str, matrix: ArrayLike) -> NDArray[Any]:
    counts = real_array(owner, "matrix", matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        contract = "matrix of shape (classes, classes), classes > 0"
        raise ValueError(expected(owner, contract, counts.shape))
    if counts.dtype.kind not in "iu":
        raise TypeError(expected(owner, "matrix to hold integers", f"dtype {counts.dtype}"))
    if counts.min() < 0:
        raise ValueError(expected(owner, "counts >= 0", counts.min()))
    return counts


def _most_confident(
    y: NDArray[Any], predicted: NDArray[np.intp], true: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return the indices of the mistakes, the most confident first."""
    wrong = np.flatnonzero(predicted != true)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        margins = y[wrong, predicted[wrong]] - y[wrong, true[wrong]]
    return wrong[np.argsort(-margins, kind="stable")]
