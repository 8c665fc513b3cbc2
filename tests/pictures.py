"""What the tests of pictures use: a good call of each, and what a picture holds."""

import numpy as np

from tinygrad_mnist import Conv2d, Flatten, Linear, MSELoss, ReLU, Sequential, plots
from tinygrad_mnist.training import History, LearningRateCurve

RECORDS = [
    {"epoch": 1, "lr": 0.1, "seconds": 5.0, "loss": 3.0, "f1": 0.1, "val_loss": 4.0, "val_f1": 0.2},
    {"epoch": 2, "lr": 0.1, "seconds": 4.0, "loss": 2.0, "f1": 0.5, "val_loss": 2.9, "val_f1": 0.4},
    {"epoch": 3, "lr": 0.1, "seconds": 4.0, "loss": 1.0, "f1": 0.7, "val_loss": 3.0, "val_f1": 0.6},
]
CURVE = LearningRateCurve(rates=[1e-3, 1e-2, 0.1, 1], losses=[2.0, 1.5, 0.5, 90])
IMAGES = np.random.default_rng(0).random((4, 2, 3))
SCORES = np.array([[5.0, 2, 0], [0, 9, 1], [0, 2, 3], [4, 0, 0]])
COUNTS = np.diag([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]) + 1


def weights(units, inputs=784):
    return np.random.default_rng(units).standard_normal((inputs, units))


def conv_net():
    """A chain of images (6, 6, 1) to three scores."""
    conv = Conv2d(1, 2, 3, rng=0)
    return Sequential(conv, ReLU(), Flatten(), Linear(32, 3, rng=1))


def after_backward(model, x):
    loss = MSELoss()
    loss(y := model(x), y + 1)
    model.backward(loss.backward())
    return model


POINTS = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
GOOD = {
    "learning_curves": {"history": History(RECORDS)},
    "learning_rate": {"curve": CURVE},
    "first_layer_weights": {"weight": weights(3)},
    "filters": {"conv": Conv2d(1, 5, 3, rng=0)},
    "activations": {"model": conv_net(), "x": np.ones((6, 6, 1))},
    "gradient_flow": {"model": after_backward(Linear(2, 3, rng=0), POINTS)},
    "confusion_matrix": {"matrix": COUNTS},
    "worst_mistakes": {"images": IMAGES, "pred": SCORES, "target": [1, 0, 0, 0]},
    "decision_boundary": {"model": Linear(2, 3, rng=0), "x": POINTS, "t": [0, 1, 2, 0]},
    "predicted_against_true": {"pred": [1.0, 2.0, 4.0], "target": [1.0, 3.0, 5.0]},
    "dropout_masks": {"masks": np.eye(5)},
}
IN_FIGURES = ["learning_curves", "activations", "gradient_flow", "worst_mistakes"]
IN_AXES = [name for name in GOOD if name not in IN_FIGURES]


def draw(name, **options):
    return getattr(plots, name)(**GOOD[name] | options)


def lines(ax):
    """Every line of an Axes: label -> (x, y)."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}


def words(ax):
    """What the legend of an Axes says."""
    return [text.get_text() for text in ax.get_legend().get_texts()]


def labels(ax):
    """The labels of the ticks within an Axes, along x and y."""
    ax.get_figure().draw_without_rendering()
    found = []
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        places = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        found.append([label.get_text() for place, label in places if low <= place <= high])
    return found


def colours(ax):
    """The RGBA of every cell of the image in an Axes."""
    return ax.images[0].to_rgba(ax.images[0].get_array())


def tile(ax, k, height, width, columns):
    """Tile k of a mosaic, and what lies below and to the right of it."""
    picture = np.ma.filled(ax.images[0].get_array(), 99)
    top, left = k // columns * (height + 1), k % columns * (width + 1)
    below = picture[top + height : top + height + 1, left : left + width]
    right = picture[top : top + height, left + width : left + width + 1]
    return picture[top : top + height, left : left + width], [below, right]
