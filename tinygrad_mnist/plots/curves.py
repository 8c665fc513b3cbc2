"""Numbers over a run: learning curves, and what a search for a learning rate found."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist.plots import _showing
from tinygrad_mnist.training import History, LearningRateCurve


def learning_curves(history: History, *, figure: Figure | None = None) -> Figure:
    """Draw loss and metrics over the epochs, one panel each, train beside validation.

    A dashed line marks the epoch with the lowest validation loss. A learning rate that changes has
    a panel, too. The scale is logarithmic where a linear one would show half of the numbers as
    nothing: within its lowest twentieth.

    Args:
        history: What `fit` returned, or records with "epoch" or "step" and at least one metric;
            what a record lacks, or has as NaN, is left out.
        figure: Where to draw.
    """
    owner = "plots.learning_curves"
    if not isinstance(history, History):
        raise check.type_error(owner, "history to be a History", history)
    keys = dict.fromkeys(key for record in history.records for key in record)
    time = "step" if "step" in keys and "epoch" not in keys else "epoch"
    settings = ("epoch", "step", "lr", "seconds")
    names = list(dict.fromkeys(k.removeprefix("val_") for k in keys if k not in settings))
    if not names:
        raise ValueError(check.expected(owner, "a history with at least one metric", "none"))
    times = history.column(time)
    columns = {
        key: np.array([record.get(key, np.nan) for record in history.records], np.float64)
        for key in keys
    }
    changing = "lr" in keys and bool(np.ptp(columns["lr"]) > 0)
    figure = _showing.figure(owner, figure, 5, 0.6 + 1.9 * (len(names) + changing))
    panels = list(figure.subplots(len(names) + changing, 1, sharex=True, squeeze=False).flat)
    for ax, name in zip(panels, names, strict=False):
        lines = {"train": columns.get(name), "validation": columns.get(f"val_{name}")}
        _draw_lines(ax, times, lines, name)
    if changing:
        _draw_lines(panels[-1], times, {"": columns["lr"]}, "learning rate")
    if len(times) > 1 and np.isfinite(columns.get("val_loss", np.nan)).all():
        best = history.best("val_loss")[time]
        for ax in panels:
            ax.axvline(best, color="0.4", linestyle="--", linewidth=1)
        panels[0].lines[-1].set_label(f"lowest val_loss: {time} {best}")
    for ax in panels[: len(names)]:
        ax.legend(fontsize="small")
    panels[-1].set(xlabel=time)
    _showing.integer_ticks(panels[-1].xaxis)
    return figure


def learning_rate(curve: LearningRateCurve, *, ax: Axes | None = None) -> Axes:
    """Draw the loss at each learning rate that a search tried, and the rate that it suggests.

    curve is what `find_learning_rate` returned. Beyond the smallest loss it may leave the picture
    at the top: there training diverges.
    """
    owner = "plots.learning_rate"
    if not isinstance(curve, LearningRateCurve):
        raise check.type_error(owner, "a LearningRateCurve", curve)
    rates, losses = np.array(curve.rates), np.array(curve.losses)
    if not losses.size or rates.shape != losses.shape or not np.isfinite(losses).all():
        contract = "a LearningRateCurve with a finite loss for each rate, one at least"
        found = f"{rates.size} rates and {np.isfinite(losses).sum()} finite losses"
        raise ValueError(check.expected(owner, contract, found))
    ax = _showing.axes(owner, ax, 5, 3)
    ax.plot(rates, losses)
    lowest = losses.argmin()
    low, high = losses[lowest], losses[: lowest + 1].max()
    room = 0.1 * (high - low) or 1.0
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(low - room, high + 2 * room))
    label = f"suggestion: {curve.suggestion:.2g}"
    ax.axvline(curve.suggestion, color="C1", linestyle="--", label=label)
    ax.legend()
    ax.grid(alpha=0.3)
    return ax


def _draw_lines(
    ax: Axes, times: list[float], lines: dict[str, NDArray[Any] | None], ylabel: str
) -> None:
    """Draw each column that there is, one colour each, on the scale that shows most of them."""
    found = {label: column for label, column in lines.items() if column is not None}
    colours = {"train": "C0", "validation": "C1"}
    for label, column in found.items():
        ax.plot(times, column, color=colours.get(label, "0.4"), label=label)
        if len(times) <= 50:
            ax.lines[-1].set(marker="o", markersize=3)
    ax.set(ylabel=ylabel)
    if _wants_log(np.concatenate(list(found.values()))):
        ax.set_yscale("log")
    ax.grid(alpha=0.3)


def _wants_log(values: NDArray[Any]) -> bool:
    """Return whether half of the numbers lie in the lowest twentieth of a linear scale."""
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and np.median(values) < values.max() / 20)
