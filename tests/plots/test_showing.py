"""Every picture: where it is drawn, that it shows itself, that it fits, what is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from helpers import refusal, run_python

pytest.importorskip("matplotlib", reason="needs matplotlib: the `plot` extra")
from matplotlib.figure import Figure
from matplotlib.image import imread
from pictures import COUNTS, GOOD, IMAGES, IN_AXES, IN_FIGURES, RECORDS, draw, weights
from PIL import Image

from tinygrad_mnist import SGD, Conv2d, Linear
from tinygrad_mnist.training import History, LearningRateCurve

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("name", GOOD)
def test_a_picture_is_drawn_where_one_says_and_that_is_returned(name):
    figure = Figure()
    left, right = (part.add_subplot() for part in figure.subfigures(1, 2))
    key, place = ("ax", right) if name in IN_AXES else ("figure", Figure())
    assert draw(name, **{key: place}) is place
    assert not left.has_data()
    assert right.has_data() if key == "ax" else place.axes


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in GOOD),
        ("learning_curves", {"history": History(RECORDS[:1])}),
        ("first_layer_weights", {"weight": weights(1)}),
        ("filters", {"conv": Conv2d(8, 2, 3, rng=0)}),
        ("confusion_matrix", {"matrix": COUNTS * 100, "names": ["a rather long name"] * 10}),
        ("confusion_matrix", {"matrix": np.zeros((1, 1), ">i4")}),
        ("worst_mistakes", {"target": [0, 1, 2, 0]}),
        ("worst_mistakes", {"names": ["a rather long name"] * 3, "count": 1}),
        ("dropout_masks", {"masks": [1]}),
    ],
)
def test_a_new_picture_shows_itself_and_nothing_is_cut_off(name, options):
    picture = draw(name, **options)
    shown = imread(io.BytesIO(picture._repr_png_()))
    figure = picture.get_figure()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0
    # what is shown is that box, with matplotlib's margin of 0.1
    wanted = [side * figure.dpi for side in (box.height + 0.2, box.width + 0.2)]
    np.testing.assert_allclose(shown.shape[:2], wanted, atol=2)
    assert len({axis.get_figure() for axis in figure.axes}) <= 1


def test_ipython_shows_a_picture_once_with_and_without_pyplots_figures():
    formatters = pytest.importorskip("IPython.core.formatters", reason="needs IPython")
    png = formatters.PNGFormatter()
    ax = draw("dropout_masks")
    assert png(ax) == png(ax.figure) == ax._repr_png_()
    png.for_type(Figure, lambda figure: b"pyplot's")  # what %matplotlib inline does
    assert (png(ax), png(ax.figure)) == (ax._repr_png_(), b"pyplot's")


def test_in_a_terminal_show_opens_what_a_notebook_shows(monkeypatch):
    opened = []
    monkeypatch.setattr(Image.Image, "show", lambda image: opened.append(image.size))
    figure = draw("dropout_masks").figure
    figure.show()
    assert opened == [Image.open(io.BytesIO(figure._repr_png_())).size]


def test_no_display_and_no_global_state():
    code = """
import sys, matplotlib
before = matplotlib.rcParams.copy()
from pictures import GOOD, draw
for name in GOOD:
    draw(name)
draw(name)._repr_png_()
print("matplotlib.pyplot" in sys.modules, matplotlib.rcParams.copy() == before)
"""
    env = dict.fromkeys(("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"), "")
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r}){code}"
    done = run_python("-W", "error", "-c", code, **env)
    assert (done.stdout, done.stderr) == ("False True\n", "")


NO_METRIC = "a history with at least one metric, got none"
OF_UNITS = "weight of shape (784, units), units > 0, got"
SQUARE = "matrix of shape (C, C), C > 0, got"
OF_IMAGES = "images of shape (4, H, W), or with 1 or 3 channels last, got"
OF_PASSES = "masks of shape (passes, units) or (units,), not empty, got"
SHAPE = "shape to be (height, width), or with 1 or 3 channels last, got"
SIDE = "each side of shape to be an integer >= 1, got"
INTEGERS = "matrix to hold integers, got"
AXES = "ax to be a matplotlib Axes or None, got 3"
FIGURE = "figure to be a matplotlib Figure or None, got 3"
PLANE = "x of shape (N, 2), N > 0, got"
ONE = "x to be one sample, of 3 axes, got"
RUN = "a LearningRateCurve with a finite loss for each rate, one at least, got"
COLUMN = "of shape (N,) or (N, 1), N > 0, got"

OTHERS = SGD(Linear(2, 3).parameters(), lr=0.1)
NOT_ARRAYS = {"history", "curve", "conv", "model"}
ARRAYS = [(name, key) for name in GOOD for key in GOOD[name] if key not in NOT_ARRAYS]
REAL = "to be an array of real numbers, got None"


@pytest.mark.parametrize(
    ("name", "bad", "error", "text"),
    [
        *((name, {key: None}, TypeError, f"{key} {REAL}") for name, key in ARRAYS),
        *((name, {"ax": 3}, TypeError, AXES) for name in IN_AXES),
        *((name, {"figure": 3}, TypeError, FIGURE) for name in IN_FIGURES),
        *(
            (name, {"model": 3}, TypeError, "a Module, got 3")
            for name in ("activations", "gradient_flow", "decision_boundary")
        ),
        ("learning_curves", {"history": []}, TypeError, "history to be a History, got a list"),
        ("learning_curves", {"history": History()}, ValueError, NO_METRIC),
        ("learning_curves", {"history": History([{"epoch": 1, "lr": 1}])}, ValueError, NO_METRIC),
        ("learning_rate", {"curve": 3}, TypeError, "a LearningRateCurve, got 3"),
        *(
            (
                "learning_rate",
                {"curve": LearningRateCurve([0.1, 0.2], losses)},
                ValueError,
                f"{RUN} 2 rates and {finite} finite losses",
            )
            for losses, finite in (([], 0), ([1.0], 1), ([1.0, np.nan], 1))
        ),
        ("first_layer_weights", {"weight": np.zeros(784)}, ValueError, f"{OF_UNITS} (784,)"),
        ("first_layer_weights", {"weight": weights(5, 783)}, ValueError, f"{OF_UNITS} (783, 5)"),
        ("first_layer_weights", {"weight": weights(0)}, ValueError, f"{OF_UNITS} (784, 0)"),
        ("first_layer_weights", {"shape": 784}, TypeError, f"{SHAPE} 784"),
        ("first_layer_weights", {"shape": (784,)}, TypeError, f"{SHAPE} (784,)"),
        ("first_layer_weights", {"shape": (14, 28, 2)}, ValueError, f"{SHAPE} (14, 28, 2)"),
        ("first_layer_weights", {"shape": (-28, -28)}, ValueError, f"{SIDE} -28"),
        ("first_layer_weights", {"count": 0}, ValueError, "count to be an integer >= 1, got 0"),
        ("filters", {"conv": Linear(2, 3)}, TypeError, "a Conv2d, got a Linear"),
        ("activations", {"x": np.ones((1, 6, 6, 1))}, ValueError, f"{ONE} (1, 6, 6, 1)"),
        ("activations", {"names": ["a"]}, ValueError, "names of 3 classes, got a list"),
        (
            "gradient_flow",
            {"model": Linear(2, 3)},
            ValueError,
            "the gradients of a backward, got zeros",
        ),
        ("gradient_flow", {"optimizer": 3}, TypeError, "an Optimizer, got 3"),
        (
            "gradient_flow",
            {"optimizer": OTHERS},
            ValueError,
            "an optimizer that moves the model's parameters, got one that moves none",
        ),
        (
            "decision_boundary",
            {"x": [[0.0, np.nan]] * 4},
            ValueError,
            "x of finite numbers, got NaN or infinity",
        ),
        ("confusion_matrix", {"matrix": np.ones((2, 3), int)}, ValueError, f"{SQUARE} (2, 3)"),
        ("confusion_matrix", {"matrix": [1, 2]}, ValueError, f"{SQUARE} (2,)"),
        ("confusion_matrix", {"matrix": np.ones((0, 0), int)}, ValueError, f"{SQUARE} (0, 0)"),
        ("confusion_matrix", {"matrix": [[1.0]]}, TypeError, f"{INTEGERS} dtype float64"),
        ("confusion_matrix", {"matrix": [[1, -1], [0, 2]]}, ValueError, "counts >= 0, got -1"),
        ("confusion_matrix", {"names": ["a"]}, ValueError, "names of 10 classes, got a list"),
        ("worst_mistakes", {"images": IMAGES[:3]}, ValueError, f"{OF_IMAGES} (3, 2, 3)"),
        ("worst_mistakes", {"images": np.ones((4, 6))}, ValueError, f"{OF_IMAGES} (4, 6)"),
        (
            "worst_mistakes",
            {"images": np.ones((4, 3, 6, 6))},
            ValueError,
            f"{OF_IMAGES} (4, 3, 6, 6)",
        ),
        ("worst_mistakes", {"pred": [1, 2]}, ValueError, "pred of shape (N, classes), got (2,)"),
        ("worst_mistakes", {"target": [0, 1, 2, 3]}, ValueError, "labels in [0, 3), got 3"),
        ("worst_mistakes", {"count": 0}, ValueError, "count to be an integer >= 1, got 0"),
        ("worst_mistakes", {"names": "abcd"}, ValueError, "names of 3 classes, got 'abcd'"),
        ("decision_boundary", {"x": np.ones((4, 3))}, ValueError, f"{PLANE} (4, 3)"),
        ("decision_boundary", {"t": [0, 1, 2, 3]}, ValueError, "labels in [0, 3), got 3"),
        (
            "decision_boundary",
            {"threshold": "0"},
            TypeError,
            "threshold in (-inf, inf), got '0'",
        ),
        ("predicted_against_true", {"pred": []}, ValueError, f"pred {COLUMN} (0,)"),
        (
            "predicted_against_true",
            {"target": np.ones((3, 2))},
            ValueError,
            f"target {COLUMN} (3, 2)",
        ),
        ("dropout_masks", {"masks": 1}, ValueError, f"{OF_PASSES} ()"),
        ("dropout_masks", {"masks": np.ones((3, 0))}, ValueError, f"{OF_PASSES} (3, 0)"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is(name, bad, error, text):
    figure = Figure()
    where = {"ax": figure.add_subplot()} if name in IN_AXES else {"figure": figure}
    with refusal(error, f"plots.{name}: expected {text}"):
        draw(name, **where | bad)
    assert len(figure.axes) == (name in IN_AXES)
    assert not any(ax.has_data() for ax in figure.axes)
