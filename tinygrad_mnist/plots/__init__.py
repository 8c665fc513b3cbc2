"""Pictures of training and of what was learned (needs the `plot` extra: matplotlib).

A picture in one Axes takes `ax` and returns that Axes; a picture of several takes an empty
`figure` and returns that Figure. None makes a new one, which shows itself as the last line of a
notebook's cell:

    plots.learning_curves(history).savefig("curves.png")
    plots.confusion_matrix(matrix).figure.savefig("confusion.png")

No display is needed: Figures are made without pyplot, and matplotlib's settings stay as they are.
What cannot be drawn is refused before anything is.
"""

from importlib import import_module

from tinygrad_mnist._extras import needing

with needing("tinygrad_mnist.plots", "plot"):  # as all files of this folder are
    import_module("matplotlib")

from tinygrad_mnist.plots.curves import learning_curves, learning_rate
from tinygrad_mnist.plots.passes import activations, dropout_masks, gradient_flow
from tinygrad_mnist.plots.predictions import (
    confusion_matrix,
    decision_boundary,
    predicted_against_true,
    worst_mistakes,
)
from tinygrad_mnist.plots.weights import filters, first_layer_weights

__all__ = [
    "activations",
    "confusion_matrix",
    "decision_boundary",
    "dropout_masks",
    "filters",
    "first_layer_weights",
    "gradient_flow",
    "learning_curves",
    "learning_rate",
    "predicted_against_true",
    "worst_mistakes",
]
