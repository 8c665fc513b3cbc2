"""What the pictures hold: lines, image arrays, words; not their pixels."""

import io

import numpy as np
import pytest
from helpers import refusal, run_python

pytest.importorskip("matplotlib", reason="needs matplotlib: the `plot` extra")
from matplotlib.figure import Figure

from tinygrad_mnist import plots
from tinygrad_mnist.training import History

pytestmark = pytest.mark.slow
RECORDS = [
    {"epoch": 1, "lr": 0.1, "loss": 3.0, "f1": 0.1, "val_loss": 4.0, "val_f1": 0.2},
    {"epoch": 2, "lr": 0.1, "loss": 2.0, "f1": 0.5, "val_loss": 3.5, "val_f1": 0.4},
    {"epoch": 3, "lr": 0.1, "loss": 1.0, "f1": 0.7, "val_loss": 3.0, "val_f1": 0.6},
]
IMAGES = np.random.default_rng(0).random((4, 2, 3))
SCORES = np.array([[5.0, 2, 0], [0, 9, 1], [0, 2, 3], [4, 0, 0]])
RIGHT = [0, 1, 2, 0]
COUNTS = np.diag([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]) + 1


def weights(units, inputs=784):
    return np.random.default_rng(units).standard_normal((inputs, units))


GOOD = {
    "learning_curves": {"history": History(RECORDS)},
    "first_layer_weights": {"weight": weights(3)},
    "confusion_matrix": {"matrix": COUNTS},
    "worst_mistakes": {"images": IMAGES, "pred": SCORES, "target": [1, 0, 0, 0]},
    "dropout_masks": {"masks": np.eye(5)},
}
IN_FIGURES = ["learning_curves", "worst_mistakes"]
IN_AXES = [name for name in GOOD if name not in IN_FIGURES]


def draw(name, **options):
    return getattr(plots, name)(**GOOD[name] | options)


def saved(picture):
    """Draw a picture as savefig does, and return its Figure."""
    figure = picture.get_figure()
    figure.savefig(io.BytesIO())
    return figure


def lines(ax):
    """Every line of an Axes: label -> (x, y)."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}


def ticks(ax):
    """The labels of the ticks within an Axes, along x and y."""
    saved(ax)
    found = []
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        places = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        found.append([label.get_text() for place, label in places if low <= place <= high])
    return found


def colours(ax):
    """The RGBA of every cell of the image in an Axes."""
    return ax.images[0].to_rgba(ax.images[0].get_array())


# every picture


@pytest.mark.parametrize("name", GOOD)
def test_a_picture_is_drawn_where_one_says_or_on_its_own(name):
    figure = Figure(layout="constrained")
    left, right = (part.add_subplot() for part in figure.subfigures(1, 2))
    key, place = ("ax", right) if name in IN_AXES else ("figure", Figure())
    assert draw(name, **{key: place}) is place
    assert not left.has_data()
    assert right.images if key == "ax" else place.axes
    saved(figure)
    new = draw(name)
    assert type(new) is type(place)
    assert new is not draw(name)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in GOOD),
        ("learning_curves", {"history": History(RECORDS[:1])}),
        ("first_layer_weights", {"weight": weights(1)}),
        ("first_layer_weights", {"weight": weights(100)}),
        ("confusion_matrix", {"matrix": COUNTS * 100}),
        ("confusion_matrix", {"matrix": np.zeros((1, 1), ">i4")}),
        ("worst_mistakes", {"target": RIGHT}),
        ("worst_mistakes", {"count": 1}),
        ("dropout_masks", {"masks": [1]}),
    ],
)
def test_nothing_is_cut_off(name, options):
    figure = saved(draw(name, **options))
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > 0


def test_no_display_and_no_global_state():
    code = """
import sys, io, matplotlib, numpy as np
before = matplotlib.rcParams.copy()
from tinygrad_mnist import plots
from tinygrad_mnist.training import History
plots.learning_curves(History([{"epoch": 1, "loss": 2.0}])).savefig(io.BytesIO())
plots.first_layer_weights(np.ones((784, 2))).get_figure().savefig(io.BytesIO())
plots.confusion_matrix(np.eye(3, dtype=int)).get_figure().savefig(io.BytesIO())
plots.worst_mistakes(np.ones((1, 28, 28)), [[0, 1]], [0]).savefig(io.BytesIO())
plots.dropout_masks(np.eye(3)).get_figure().savefig(io.BytesIO())
print("matplotlib.pyplot" in sys.modules, matplotlib.rcParams.copy() == before)
"""
    env = dict.fromkeys(("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"), "")
    done = run_python("-W", "error", "-c", code, **env)
    assert (done.stdout, done.stderr) == ("False True\n", "")


NO_METRIC = "a history with at least one metric, got none"
OF_UNITS = "weight of shape (784, units), units > 0, got"
SQUARE = "matrix of shape (C, C), C > 0, got"
OF_IMAGES = "images of shape (4, height, width), got"
OF_PASSES = "masks of shape (passes, units) or (units,), not empty, got"
HEIGHT_WIDTH = "shape to be (height, width), got"
SIDE = "each side of shape to be an integer >= 1, got"
INTEGERS = "matrix to hold integers, got"
AXES = "ax to be a matplotlib Axes or None, got 3"
FIGURE = "figure to be a matplotlib Figure or None, got 3"
ARRAYS = [(name, key) for name in GOOD for key in GOOD[name] if key != "history"]
REAL = "to be an array of real numbers, got None"


@pytest.mark.parametrize(
    ("name", "bad", "error", "text"),
    [
        *((name, {key: None}, TypeError, f"{key} {REAL}") for name, key in ARRAYS),
        *((name, {"ax": 3}, TypeError, AXES) for name in IN_AXES),
        *((name, {"figure": 3}, TypeError, FIGURE) for name in IN_FIGURES),
        ("learning_curves", {"history": []}, TypeError, "history to be a History, got a list"),
        ("learning_curves", {"history": History()}, ValueError, NO_METRIC),
        ("learning_curves", {"history": History([{"epoch": 1, "lr": 1}])}, ValueError, NO_METRIC),
        ("first_layer_weights", {"weight": np.zeros(784)}, ValueError, f"{OF_UNITS} (784,)"),
        ("first_layer_weights", {"weight": weights(5, 783)}, ValueError, f"{OF_UNITS} (783, 5)"),
        ("first_layer_weights", {"weight": weights(0)}, ValueError, f"{OF_UNITS} (784, 0)"),
        ("first_layer_weights", {"shape": 784}, TypeError, f"{HEIGHT_WIDTH} 784"),
        ("first_layer_weights", {"shape": (784,)}, TypeError, f"{HEIGHT_WIDTH} (784,)"),
        ("first_layer_weights", {"shape": (-28, -28)}, ValueError, f"{SIDE} -28"),
        ("confusion_matrix", {"matrix": np.ones((2, 3), int)}, ValueError, f"{SQUARE} (2, 3)"),
        ("confusion_matrix", {"matrix": [1, 2]}, ValueError, f"{SQUARE} (2,)"),
        ("confusion_matrix", {"matrix": np.ones((0, 0), int)}, ValueError, f"{SQUARE} (0, 0)"),
        ("confusion_matrix", {"matrix": [[1.0]]}, TypeError, f"{INTEGERS} dtype float64"),
        ("confusion_matrix", {"matrix": [[1, -1], [0, 2]]}, ValueError, "counts >= 0, got -1"),
        ("worst_mistakes", {"images": IMAGES[:3]}, ValueError, f"{OF_IMAGES} (3, 2, 3)"),
        ("worst_mistakes", {"images": np.ones((4, 6))}, ValueError, f"{OF_IMAGES} (4, 6)"),
        ("worst_mistakes", {"pred": [1, 2]}, ValueError, "pred of shape (N, classes), got (2,)"),
        ("worst_mistakes", {"target": [0, 1, 2, 3]}, ValueError, "labels in [0, 3), got 3"),
        ("worst_mistakes", {"count": 0}, ValueError, "count to be an integer >= 1, got 0"),
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


# learning curves


def test_each_metric_has_a_panel_with_train_and_validation():
    panels = plots.learning_curves(History(RECORDS)).axes
    for ax, name in zip(panels, ("loss", "f1"), strict=True):
        train, validation = ([record[k] for record in RECORDS] for k in (name, f"val_{name}"))
        assert lines(ax) == {"train": ([1, 2, 3], train), "validation": ([1, 2, 3], validation)}
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", name)
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "validation"]
        assert [line.get_color() for line in ax.lines] == ["C0", "C1"]


def test_a_metric_may_be_of_training_or_validation_only_or_now_and_then():
    records = [{"epoch": 5, "loss": 2, "val_f1": 0.1}, {"epoch": 6}, {"epoch": 7, "val_f1": 0.3}]
    loss, f1 = plots.learning_curves(History(records)).axes
    assert (loss.get_ylabel(), f1.get_ylabel()) == ("loss", "f1")
    np.testing.assert_equal(lines(loss), {"train": ([5, 6, 7], [2, np.nan, np.nan])})
    np.testing.assert_equal(lines(f1), {"validation": ([5, 6, 7], [0.1, np.nan, 0.3])})


def test_a_record_without_epoch_is_refused():
    with refusal(ValueError, "History: expected one of loss, in every record, got 'epoch'"):
        plots.learning_curves(History([{"epoch": 1, "loss": 2.0}, {"loss": 1.0}]))


def test_one_epoch_shows_as_a_point_at_a_whole_epoch():
    for ax in plots.learning_curves(History(RECORDS[:1])).axes:
        assert ticks(ax)[0] == ["1"]
        assert [line.get_marker() for line in ax.lines] == ["o", "o"]


# first-layer weights


@pytest.mark.parametrize("units", [1, 2, 7, 40])
@pytest.mark.parametrize("shape", [(28, 28), (5, 8)])
def test_each_image_is_a_column_of_the_weights_row_by_row(units, shape):
    (height, width), weight = shape, weights(units, shape[0] * shape[1])
    picture = np.ma.filled(plots.first_layer_weights(weight, shape=shape).images[0].get_array(), 99)
    columns = picture.shape[1] // (width + 1)
    assert (columns - 1) ** 2 < units <= columns**2  # about a square
    for unit in range(units):
        top, left = unit // columns * (height + 1), unit % columns * (width + 1)
        image = picture[top : top + height, left : left + width]
        np.testing.assert_array_equal(image, weight[:, unit].reshape(shape))
        assert (picture[top + height] == 99).all()
        assert (picture[:, left + width] == 99).all()
    assert (picture != 99).sum() == weight.size


@pytest.mark.parametrize(
    ("weight", "limit"),
    [
        ([[-3.0], [1.0]], 3),
        ([[1.0], [2.0]], 2),
        (np.zeros((2, 1)), 1),
        ([[np.nan, 0.5], [np.inf, -np.inf]], 0.5),
        ([[np.nan], [np.inf]], 1),
        (np.array([[-128], [127]], np.int8), 128),
    ],
)
def test_one_colour_scale_symmetric_about_zero(weight, limit):
    ax = plots.first_layer_weights(weight, shape=(1, 2))
    assert ax.images[0].get_clim() == (-limit, limit)
    assert saved(ax).axes[1].get_ylabel() == "weight"


# confusion matrix


def test_each_count_stands_in_its_cell():
    ax = plots.confusion_matrix([[7, 0, 2], [1, 1000, 0], [0, 0, 0]])
    texts = {tuple(text.get_position()): text.get_text() for text in ax.texts}
    assert texts == {(0, 0): "7", (2, 0): "2", (0, 1): "1", (1, 1): "1000"}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert ax.images[0].get_array().tolist() == [[7, None, 2], [1, 1000, None], [None] * 3]


def test_a_single_mistake_differs_from_none_and_from_ten():
    (hits, one), (ten, none) = colours(plots.confusion_matrix([[1000, 1], [10, 0]]))
    assert none[3] == 0  # transparent
    assert np.abs(one[:3] - 1).max() > 0.05
    assert np.abs(one - ten).max() > 0.2
    assert np.abs(ten - hits).max() > 0.2


def test_counts_contrast_with_their_cells():
    ax = plots.confusion_matrix(2 ** np.arange(16).reshape(4, 4))
    lightness = colours(ax)[..., :3] @ [0.2126, 0.7152, 0.0722]
    for text in ax.texts:
        column, row = text.get_position()
        assert abs(lightness[row, column] - (text.get_color() == "white")) > 0.4


def test_the_counts_have_a_colour_bar_of_whole_counts():
    bar = plots.confusion_matrix([[1000, 1], [10, 0]]).get_figure().axes[1]
    assert bar.get_ylabel() == "samples"
    assert ticks(bar)[1] == ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1000"]
    assert not bar.yaxis.get_minorticklocs().size


@pytest.mark.parametrize("classes", [1, 2, 10, 20])
def test_up_to_20_classes_are_all_named(classes):
    every = [*map(str, range(classes))]
    assert ticks(plots.confusion_matrix(np.eye(classes, dtype=int))) == [every, every]


# worst mistakes


def shown(figure):
    """Title and image of every panel that holds one."""
    return [(ax.get_title(), ax.images[0].get_array().tolist()) for ax in figure.axes if ax.images]


def test_the_most_confident_mistakes_come_first():
    # margins: 5 - 2, right, 3 - 2, 4 - 0
    wanted = [
        ("predicted 0\ntrue 2", IMAGES[3].tolist()),
        ("predicted 0\ntrue 1", IMAGES[0].tolist()),
        ("predicted 2\ntrue 1", IMAGES[2].tolist()),
    ]
    target = [1, 1, 1, 2]
    figure = plots.worst_mistakes(IMAGES, SCORES, np.eye(3)[target])
    assert shown(figure) == wanted
    assert [ax.axison for ax in figure.axes] == [False] * 4  # the last panel is empty
    assert shown(plots.worst_mistakes(IMAGES, SCORES, target, count=2)) == wanted[:2]


def test_25_mistakes_by_default():
    assert len(shown(plots.worst_mistakes(np.zeros((30, 2, 3)), np.eye(30), [0] * 30))) == 25


def test_no_mistakes():
    figure = plots.worst_mistakes(IMAGES, SCORES, RIGHT)
    assert not figure.axes
    assert [text.get_text() for text in figure.texts] == ["no mistakes"]


def test_small_integers_and_infinite_scores_are_ranked_without_a_warning():
    pred = np.array([[100, 0], [127, -128]], np.int8)  # 127 - -128 is no int8
    first, _ = shown(plots.worst_mistakes(IMAGES[:2], pred, [1, 1]))
    assert first == ("predicted 0\ntrue 1", IMAGES[1].tolist())
    pred = np.array([[-np.inf, -np.inf], [0, 1], [np.nan, 0], [0, np.inf]])
    with np.errstate(all="raise"):
        found = shown(plots.worst_mistakes(IMAGES, pred, [1, 0, 1, 0]))
    assert len(found) == 4
    assert found[0] == ("predicted 1\ntrue 0", IMAGES[3].tolist())


# dropout masks


@pytest.mark.parametrize("kept", [True, 2.0])
def test_masks_are_drawn_with_the_fractions_kept_and_dropped(kept):
    ax = plots.dropout_masks([[kept, 0, kept, kept], [0, kept, kept, kept]])
    assert ax.images[0].get_array().tolist() == [[1, 0, 1, 1], [0, 1, 1, 1]]
    assert ax.get_title() == "kept (dark) 75.0%, dropped 25.0%"
    assert ax.images[0].get_interpolation() == "nearest"  # no shades between kept and dropped
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("unit", "forward pass")
    assert ticks(ax) == [["0", "1", "2", "3"], ["0", "1"]]


@pytest.mark.parametrize("kept", [0, 1])
def test_one_unit_in_one_pass(kept):
    ax = plots.dropout_masks([kept])
    assert ax.images[0].get_array().tolist() == [[kept]]
    assert (colours(ax)[0, 0, :3].sum() < 1) == kept  # dark if kept, also if there is one kind
    assert ticks(ax) == [["0"], ["0"]]
