"""What happens in a pass: activations forward, gradients backward, units that Dropout keeps."""

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._summary import outputs_of
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.parameter import Parameter
from tinygrad_mnist.plots import _images, _showing

_HEALTHY = 1e-3  # the size of a step relative to its parameter, as a rule of thumb
_NONE = -1.0  # in place of a size, where there is none
_BARS = 20  # more numbers than this are a strip of colours
_NAMED = 32  # a picture of more parameters than this is no higher, and does not name them all


def activations(
    model: Module,
    x: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw one sample on its way through the layers: what each of them makes of it.

    The maps of an image are images, of up to 20 numbers each is a bar, more are a strip. Red is
    positive, blue negative, white 0; each panel has its own scale. The layers run in evaluation
    mode, on a copy: the model stays as it is. A layer that changes no number has no panel.

    Args:
        model: Any Module of one input.
        x: One sample: an image (H, W, C), or a row of features.
        names: Of the classes, for the scores at the end. None numbers them.
        figure: Where to draw.
    """
    owner = "plots.activations"
    if not isinstance(model, Module):
        raise check.type_error(owner, "a Module", model)
    x = check.real_array(owner, "x", x)
    if x.ndim != model.sample_axes:
        contract = f"x to be one sample, of {model.sample_axes} axes"
        raise check.value_error(owner, contract, x.shape)
    steps = _steps(model, x)
    scores = steps[-1][1]
    if names is not None:
        names = check.class_names(owner, names, scores.size)
    columns = max(8, *(math.ceil(2 * math.sqrt(y.shape[2])) for _, y in steps if y.ndim == 3), 0)
    heights = [_height(y, columns) for _, y in steps]
    heights[0] = max(heights[0], 0.8 if x.ndim == 3 else 0)  # an image is seen, however many maps
    height = sum(heights) + 0.3 * len(heights) + 0.2
    figure = _showing.figure(owner, figure, 5, height, "constrained")
    panels = figure.subplots(len(steps), 1, squeeze=False, height_ratios=heights)
    for ax, (title, y) in zip(panels.flat, steps, strict=True):
        _draw_step(ax, y, columns, is_input=title == "x")
        shape = " x ".join(map(str, y.shape)) or "1"
        ax.set_title(f"{title}: {shape}", fontsize="small", loc="left", pad=3)
    if names is not None:
        panels.flat[-1].set_xticks(range(len(names)), names, fontsize="small")
    return figure


def gradient_flow(
    model: Module, optimizer: Optimizer | None = None, *, figure: Figure | None = None
) -> Figure:
    """Draw how large the gradient of each parameter is, after a backward, from first to last layer.

    A size is the root of the mean square. Weights are dots on a line, biases and other vectors are
    circles, without names where there are many. With an optimizer, its next step is drawn, too,
    relative to the parameter: most train well where that is about 0.001, a dashed line. The step is
    made on a copy: model and optimizer stay as they are. On a logarithmic scale there is no 0: it
    stands as a 0 at the left border, as NaN and infinity do, and a parameter that is 0, as biases
    are at first, has no dot on the right.

    Args:
        model: With the gradients of a backward.
        optimizer: Of the model's parameters.
        figure: Where to draw.
    """
    owner = "plots.gradient_flow"
    if not isinstance(model, Module):
        raise check.type_error(owner, "a Module", model)
    if not (optimizer is None or callable(getattr(optimizer, "step", None))):
        raise check.type_error(owner, "an Optimizer", optimizer)
    params = dict(model.named_parameters())
    sizes = {"gradient": _sizes(p.grad for p in params.values())}
    if not sizes["gradient"].any():
        raise ValueError(check.expected(owner, "the gradients of a backward", "zeros"))
    if optimizer is not None:
        moves = _sizes(_next_step(model, optimizer))
        if not moves.any():
            contract = "an optimizer that moves the model's parameters"
            raise ValueError(check.expected(owner, contract, "one that moves none"))
        weights = _sizes(p.data for p in params.values())
        ratios = np.full(len(moves), _NONE)
        sizes["update / parameter"] = np.divide(moves, weights, out=ratios, where=weights != 0)
    height = 0.8 + 0.25 * min(len(params), _NAMED)
    figure = _showing.figure(owner, figure, 2 + 2 * len(sizes), height)
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)
    for ax, (label, values) in zip(panels.flat, sizes.items(), strict=True):
        healthy = [] if label == "gradient" else [_HEALTHY]
        _draw_sizes(ax, params, values, healthy)
        ax.set(xlabel=label)
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
    ax = _showing.axes(owner, ax, 5, 3)
    ax.imshow(kept, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set(xlabel="unit", ylabel="forward pass")
    ax.set_title(f"kept (dark) {fraction:.1%}, dropped {1 - fraction:.1%}", fontsize="medium")
    _showing.integer_ticks(ax.xaxis, ax.yaxis)
    return ax


def _steps(model: Module, x: NDArray[Any]) -> list[tuple[str, NDArray[Any]]]:
    """Return x and what each module makes of it, with titles, where that is something new."""
    steps = [("x", x)]
    for path, module, y in outputs_of(model, x):
        if isinstance(y, np.ndarray) and not _same_numbers(y, steps[-1][1]):
            steps.append((f"{path} {type(module).__name__}".strip(), y))
    return steps


def _same_numbers(y: NDArray[Any], x: NDArray[Any]) -> bool:
    return y.size == x.size and bool((y.ravel() == x.ravel()).all())


def _height(y: NDArray[Any], columns: int) -> float:
    """Return the inches that a panel of y needs, with tiles of columns to a width of 5."""
    if y.ndim == 3:
        return float(math.ceil(y.shape[2] / columns) * 4.6 / columns * len(y) / y.shape[1])
    return 0.8 if y.size <= _BARS else 0.3


def _draw_step(ax: Axes, y: NDArray[Any], columns: int, is_input: bool) -> None:
    if y.ndim != 3 and y.size <= _BARS:
        colours = ["tab:red" if v > 0 else "tab:blue" for v in y.ravel()]
        ax.bar(range(y.size), y.ravel(), color=colours)
        ax.axhline(0, color="0.4", linewidth=0.6)
        ax.set_xticks(range(y.size))
        ax.tick_params(labelsize="small")
        ax.spines[["top", "right"]].set_visible(False)
        return
    if is_input and y.ndim == 3 and y.shape[2] in (1, 3):
        (image,) = _images.images("plots.activations", y[None], 1)
        ax.imshow(image, cmap=_images.INK)
    else:
        limit = float(np.abs(y[np.isfinite(y)]).max(initial=0)) or 1.0
        rows = y.reshape(-1, y.shape[-1])
        image = _images.mosaic(np.moveaxis(y, -1, 0), columns) if y.ndim == 3 else rows
        ax.imshow(image, cmap=_images.SIGNED, vmin=-limit, vmax=limit)
        ax.set_aspect("equal" if y.ndim == 3 else "auto")
    ax.set_anchor("W")
    _showing.frame(ax)


def _sizes(arrays: Iterable[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the root of the mean square of each."""
    return np.array([math.sqrt(np.square(a, dtype=np.float64).mean()) for a in arrays])


def _next_step(model: Module, optimizer: Optimizer) -> list[NDArray[Any]]:
    """Return how far each parameter would move."""
    copied, stepping = copy.deepcopy((model, optimizer))
    stepping.step()
    pairs = zip(copied.parameters(), model.parameters(), strict=True)
    return [after.data - before.data for after, before in pairs]


def _draw_sizes(
    ax: Axes, params: dict[str, Parameter], values: NDArray[Any], healthy: list[float]
) -> None:
    """Draw a dot for each size, on a scale of whole decades, and a word for what has none."""
    rows = np.arange(len(params))
    vectors = np.array([p.data.ndim < 2 for p in params.values()])
    drawn = np.isfinite(values) & (values > 0)
    for kind, line, face in ((~vectors, "o-", "C0"), (vectors, "o", ax.get_facecolor())):
        some = drawn & kind
        ax.plot(values[some], rows[some], line, color="C0", markerfacecolor=face)
        ax.lines[-1].set_markersize(min(6, 12 * _NAMED / len(rows)))
    left = ax.get_yaxis_transform()
    for row in rows[~drawn & (values != _NONE)]:
        ax.text(0.02, row, f"{values[row]:g}", color="C3", va="center", transform=left)
    for size in healthy:
        ax.axvline(size, color="0.4", linestyle="--", linewidth=1)
    if drawn.any():
        shown = np.log10([*values[drawn], *healthy])
        low, high = shown.min(), shown.max()
        ax.set(xscale="log", xlim=(10 ** math.floor(low - 0.1), 10 ** math.ceil(high + 0.1)))
    named = rows if len(rows) <= _NAMED or vectors.all() else rows[~vectors]
    named = named[:: math.ceil(len(named) / _NAMED)]
    ax.set(yticks=named, yticklabels=np.array(list(params))[named], ylim=(len(rows) - 0.5, -0.5))
    ax.grid(alpha=0.3)
