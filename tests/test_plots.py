"""What the pictures hold: lines, image arrays, texts; not their pixels."""

import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs matplotlib: the `plot` extra")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinygrad_mnist import plots

RECORDS = [
    {"epoch": 1, "lr": 0.1, "loss": 3.0, "accuracy": 0.1, "val_loss": 4.0, "val_accuracy": 0.2},
    {"epoch": 2, "lr": 0.1, "loss": 2.0, "accuracy": 0.5, "val_loss": 3.5, "val_accuracy": 0.4},
    {"epoch": 3, "lr": 0.1, "loss": 1.0, "accuracy": 0.7, "val_loss": 3.0, "val_accuracy": 0.6},
]
IMAGES = np.random.default_rng(0).random((4, 6))  # of shape (2, 3)
SCORES = np.array([[5.0, 2, 0], [0, 9, 1], [0, 2, 3], [4, 0, 0]])
COUNTS = np.diag([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]) + 1

DISPLAY = {"DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"}

IN_AXES = {
    "first_layer_weights": (lambda **where: plots.first_layer_weights(weights(3), **where)),
    "confusion_matrix": (lambda **where: plots.confusion_matrix(COUNTS, **where)),
    "dropout_masks": (lambda **where: plots.dropout_masks(np.eye(5), **where)),
}
IN_FIGURES = {
    "learning_curves": (lambda **where: plots.learning_curves(RECORDS, **where)),
    "worst_mistakes": (lambda **where: mistakes([1, 0, 0, 0], **where)),
}


def weights(units, inputs=784):
    return np.random.default_rng(units).standard_normal((inputs, units))


def mistakes(target, **options):
    return plots.worst_mistakes(IMAGES, SCORES, target, **{"shape": (2, 3)} | options)


def refused(error, name, text):
    return pytest.raises(error, match=f"^{re.escape(f'plots.{name}: {text}')}$")


def saved(picture):
    """Draw a picture as savefig does, and return its Figure."""
    figure = picture if isinstance(picture, Figure) else picture.get_figure()
    figure.savefig(io.BytesIO())
    return figure


def lines(ax):
    return {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
        for line in ax.lines
    }


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def texts(ax):
    return {tuple(text.get_position()): text.get_text() for text in ax.texts}


def labels(ax):
    """The texts of the ticks within an Axes, along x and y."""
    saved(ax)
    found = []
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        found.append([label.get_text() for place, label in ticks if low <= place <= high])
    return found


# every picture


@pytest.mark.parametrize("name", IN_AXES)
def test_a_picture_in_one_axes_takes_and_returns_it(name):
    left, right = Figure().subplots(1, 2)
    assert IN_AXES[name](ax=right) is right
    assert right.images
    assert not left.has_data()
    new = IN_AXES[name]()
    assert isinstance(new, Axes)
    assert new is not IN_AXES[name]()
    np.testing.assert_array_equal(new.images[0].get_array(), right.images[0].get_array())


@pytest.mark.parametrize("name", IN_AXES)
def test_an_axes_of_a_subfigure_will_do(name):
    figure = Figure(layout="constrained")
    ax = figure.subfigures(1, 2)[1].add_subplot()
    assert IN_AXES[name](ax=ax) is ax
    saved(figure)


@pytest.mark.parametrize("name", IN_FIGURES)
def test_a_picture_of_several_takes_and_returns_a_figure(name):
    figure = Figure()
    assert IN_FIGURES[name](figure=figure) is figure
    assert figure.axes
    new = IN_FIGURES[name]()
    assert isinstance(new, Figure)
    assert new is not IN_FIGURES[name]()
    assert len(new.axes) == len(figure.axes)


@pytest.mark.parametrize("name", IN_AXES)
@pytest.mark.parametrize(("wrong", "found"), [(Figure(), "a Figure"), (3, "3")])
def test_what_is_no_axes_is_refused(name, wrong, found):
    with refused(TypeError, name, f"expected ax to be a matplotlib Axes or None, got {found}"):
        IN_AXES[name](ax=wrong)


@pytest.mark.parametrize("name", IN_FIGURES)
@pytest.mark.parametrize(("wrong", "found"), [(Figure().add_subplot(), "a Axes"), (3, "3")])
def test_what_is_no_figure_is_refused(name, wrong, found):
    contract = "figure to be a matplotlib Figure or None"
    with refused(TypeError, name, f"expected {contract}, got {found}"):
        IN_FIGURES[name](figure=wrong)


@pytest.mark.parametrize(
    "picture",
    [
        *IN_AXES.values(),
        *IN_FIGURES.values(),
        lambda: plots.learning_curves(RECORDS[:1]),
        lambda: plots.first_layer_weights(weights(1)),
        lambda: plots.first_layer_weights(weights(100)),
        lambda: plots.first_layer_weights(weights(5, 2), shape=(1, 2)),
        lambda: plots.first_layer_weights(weights(5, 2), shape=(2, 1)),
        lambda: plots.confusion_matrix(COUNTS * 100),
        lambda: plots.confusion_matrix([[1]]),
        lambda: plots.confusion_matrix(np.zeros((2, 2), int)),
        lambda: mistakes([0, 1, 2, 0]),
        lambda: plots.dropout_masks([1]),
    ],
)
def test_nothing_is_cut_off(picture):
    figure = saved(picture())
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > 0


def test_no_display_and_no_global_state():
    code = """
import sys, io, matplotlib, numpy as np
before = matplotlib.rcParams.copy()
from tinygrad_mnist import plots
pictures = [
    plots.learning_curves([{"epoch": 1, "loss": 2.0}]),
    plots.first_layer_weights(np.ones((784, 2))).get_figure(),
    plots.confusion_matrix(np.eye(3, dtype=int)).get_figure(),
    plots.worst_mistakes(np.ones((1, 784)), [[0, 1]], [0]),
    plots.dropout_masks(np.eye(3)).get_figure(),
]
for picture in pictures:
    picture.savefig(io.BytesIO())
print("matplotlib.pyplot" in sys.modules, matplotlib.rcParams.copy() == before)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key not in DISPLAY},
    )
    assert (done.stdout, done.stderr) == ("False True\n", "")


# learning curves


def test_each_metric_has_a_panel_with_train_and_validation():
    loss, accuracy = plots.learning_curves(RECORDS).axes
    epochs = [1, 2, 3]
    assert lines(loss) == {"train": (epochs, [3, 2, 1]), "validation": (epochs, [4, 3.5, 3])}
    assert lines(accuracy) == {
        "train": (epochs, [0.1, 0.5, 0.7]),
        "validation": (epochs, [0.2, 0.4, 0.6]),
    }
    assert [ax.get_xlabel() for ax in (loss, accuracy)] == ["epoch", "epoch"]
    assert [ax.get_ylabel() for ax in (loss, accuracy)] == ["loss", "accuracy"]
    for ax in (loss, accuracy):
        assert legend(ax) == ["train", "validation"]
        assert len({line.get_color() for line in ax.lines}) == 2


def test_without_validation_only_train_is_drawn():
    (ax,) = plots.learning_curves([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]).axes
    assert lines(ax) == {"train": ([1, 2], [2, 1])}
    assert legend(ax) == ["train"]


def test_a_metric_may_be_validated_only_or_now_and_then():
    records = [{"epoch": 5, "val_f1": 0.1}, {"epoch": 6}, {"epoch": 7, "val_f1": 0.3, "f1": 1}]
    (ax,) = plots.learning_curves(tuple(records)).axes
    assert ax.get_ylabel() == "f1"
    assert lines(ax) == {"train": ([7], [1]), "validation": ([5, 7], [0.1, 0.3])}


def test_one_epoch_shows_as_a_point_at_a_whole_epoch():
    figure = plots.learning_curves(RECORDS[:1])
    for ax in figure.axes:
        assert labels(ax)[0] == ["1"]
        assert all(line.get_marker() == "o" for line in ax.lines)


@pytest.mark.parametrize("value", [np.nan, np.inf, np.float32(2)])
def test_a_loss_may_be_no_number(value):
    saved(plots.learning_curves([{"epoch": 1, "loss": value}, {"epoch": 2, "loss": 1.0}]))


@pytest.mark.parametrize(
    ("records", "error", "contract", "found"),
    [
        ([], ValueError, 'records with an "epoch" each', "none"),
        (
            [{"epoch": 1, "loss": 1}, {"loss": 1}],
            ValueError,
            'records with an "epoch" each',
            "one without",
        ),
        ([{"epoch": 1, "lr": 0.1}], ValueError, "records with at least one metric", "none"),
        ({"loss": [1]}, TypeError, "records to be a sequence of mappings", "a dict"),
        ([1, 2], TypeError, "records to be a sequence of mappings", "a list"),
        (None, TypeError, "records to be a sequence of mappings", "None"),
        (
            [{"epoch": 1, "loss": "low"}],
            TypeError,
            "loss to be an array of real numbers",
            "an array of dtype <U3",
        ),
        (
            [{"epoch": "one", "loss": 1}],
            TypeError,
            "epoch to be an array of real numbers",
            "an array of dtype <U3",
        ),
    ],
)
def test_what_are_no_records_is_refused(records, error, contract, found):
    figure = Figure()
    with refused(error, "learning_curves", f"expected {contract}, got {found}"):
        plots.learning_curves(records, figure=figure)
    assert not figure.axes


# first-layer weights


@pytest.mark.parametrize("units", [1, 2, 7, 40, 100])
@pytest.mark.parametrize("shape", [(28, 28), (5, 8), (2, 3)])
def test_each_numbered_image_is_a_column_of_the_weights(units, shape):
    (height, width), weight = shape, weights(units, shape[0] * shape[1])
    ax = plots.first_layer_weights(weight, shape=shape)
    picture = np.ma.filled(ax.images[0].get_array(), np.nan)
    numbers = texts(ax)
    assert sorted(numbers.values(), key=int) == [str(unit) for unit in range(units)]
    for (x, y), number in numbers.items():  # a number stands on its image's upper left corner
        left, top = int(x + 0.5), int(y + 1)
        image = picture[top : top + height, left : left + width]
        np.testing.assert_array_equal(image, weight[:, int(number)].reshape(shape))
        assert np.isnan(picture[top - 1]).all()
    assert np.isfinite(picture).sum() == weight.size


def test_numbers_too_small_to_read_are_left_out():
    weight = weights(1024, 24)
    ax = plots.first_layer_weights(weight, shape=(8, 3))
    picture = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert not ax.texts
    assert picture.shape == (32 * 9, 32 * 4)
    for unit in range(1024):
        top, left = unit // 32 * 9 + 1, unit % 32 * 4
        image = picture[top : top + 8, left : left + 3]
        np.testing.assert_array_equal(image, weight[:, unit].reshape(8, 3))
    assert np.isfinite(picture).sum() == weight.size


@pytest.mark.parametrize(
    ("weight", "limit"),
    [
        ([[-3.0], [1.0]], 3),
        ([[1.0], [2.0]], 2),
        (np.zeros((2, 1)), 1),
        ([[np.nan], [-0.5]], 0.5),
        ([[np.inf], [0.5]], 0.5),
        ([[np.nan], [np.inf]], 1),
        (np.array([[-128], [127]], np.int8), 128),
    ],
)
def test_one_colour_scale_symmetric_about_zero(weight, limit):
    ax = plots.first_layer_weights(weight, shape=(1, 2))
    assert ax.images[0].get_clim() == (-limit, limit)
    saved(ax)


def test_the_weights_have_a_colour_bar():
    _, bar = plots.first_layer_weights(weights(3)).get_figure().axes
    assert bar.get_ylabel() == "weight"


@pytest.mark.parametrize("shape", [(784,), (783, 5), (784, 0), (28, 28), (1, 784, 5)])
def test_weights_of_another_shape_are_refused(shape):
    ax = Figure().add_subplot()
    contract = "weight of shape (784, units), units > 0"
    with refused(ValueError, "first_layer_weights", f"expected {contract}, got {shape}"):
        plots.first_layer_weights(np.zeros(shape), ax=ax)
    assert not ax.has_data()


@pytest.mark.parametrize(
    ("shape", "error", "contract", "found"),
    [
        (784, TypeError, "shape to be (height, width)", "784"),
        ((28, 28, 1), TypeError, "shape to be (height, width)", "a tuple"),
        ((0, 28), ValueError, "height to be an integer >= 1", "0"),
        ((28, 28.0), TypeError, "width to be an integer >= 1", "28.0"),
    ],
)
def test_what_is_no_shape_of_images_is_refused(shape, error, contract, found):
    with refused(error, "first_layer_weights", f"expected {contract}, got {found}"):
        plots.first_layer_weights(weights(3), shape=shape)
    with refused(error, "worst_mistakes", f"expected {contract}, got {found}"):
        mistakes([1, 0, 0, 0], shape=shape)


# confusion matrix


def test_each_count_stands_in_its_cell():
    ax = plots.confusion_matrix([[7, 0, 2], [1, 1000, 0], [0, 0, 0]])
    assert texts(ax) == {(0, 0): "7", (2, 0): "2", (0, 1): "1", (1, 1): "1000"}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert labels(ax) == [["0", "1", "2"], ["0", "1", "2"]]
    assert ax.images[0].get_array().tolist() == [[7, None, 2], [1, 1000, None], [None] * 3]


def test_a_single_mistake_differs_from_none_and_from_ten():
    ax = plots.confusion_matrix([[1000, 1], [10, 0]])
    image = ax.images[0]
    hits, one, ten, none = image.to_rgba(image.get_array())[[0, 0, 1, 1], [0, 1, 0, 1], :]
    assert none[3] == 0  # transparent
    assert np.abs(one[:3] - 1).max() > 0.05
    assert np.abs(one - ten).max() > 0.2
    assert np.abs(ten - hits).max() > 0.2


def test_counts_contrast_with_their_cells():
    ax = plots.confusion_matrix(2 ** np.arange(16).reshape(4, 4))
    image = ax.images[0]
    for text in ax.texts:
        column, row = text.get_position()
        lightness = image.to_rgba(image.get_array())[row, column, :3] @ [0.2126, 0.7152, 0.0722]
        assert abs(lightness - (text.get_color() == "white")) > 0.4


def test_the_counts_have_a_colour_bar_of_whole_counts():
    figure = saved(plots.confusion_matrix([[1000, 1], [10, 0]]))
    _, bar = figure.axes
    assert bar.get_ylabel() == "samples"
    wanted = ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1000"]
    assert [text.get_text() for text in bar.get_yticklabels()] == wanted
    assert not bar.yaxis.get_minorticklocs().size


def test_counts_too_small_to_read_are_left_out():
    ax = plots.confusion_matrix(np.ones((100, 100), int))
    assert not ax.texts
    assert ax.images[0].get_array().shape == (100, 100)
    assert 2 < len(labels(ax)[0]) <= 21


@pytest.mark.parametrize("classes", [10, 20])
def test_up_to_20_classes_are_all_named(classes):
    every = [str(number) for number in range(classes)]
    assert labels(plots.confusion_matrix(np.eye(classes, dtype=int))) == [every, every]


@pytest.mark.parametrize(
    "matrix", [[[0]], np.zeros((3, 3), np.uint8), [[1]], np.eye(2, dtype=">i4")]
)
def test_few_counts_or_none(matrix):
    ax = plots.confusion_matrix(matrix)
    assert len(saved(ax).axes) == 2
    assert len(ax.texts) == np.count_nonzero(matrix)


@pytest.mark.parametrize(
    ("matrix", "error", "contract", "found"),
    [
        (
            np.ones((2, 3), int),
            ValueError,
            "matrix of shape (classes, classes), classes > 0",
            "(2, 3)",
        ),
        (np.ones(4, int), ValueError, "matrix of shape (classes, classes), classes > 0", "(4,)"),
        (
            np.ones((0, 0), int),
            ValueError,
            "matrix of shape (classes, classes), classes > 0",
            "(0, 0)",
        ),
        (np.ones((2, 2)), TypeError, "matrix to hold integers", "dtype float64"),
        ([[1, -1], [0, 2]], ValueError, "counts >= 0", "-1"),
        (None, TypeError, "matrix to be an array of real numbers", "None"),
    ],
)
def test_what_are_no_counts_is_refused(matrix, error, contract, found):
    ax = Figure().add_subplot()
    with refused(error, "confusion_matrix", f"expected {contract}, got {found}"):
        plots.confusion_matrix(matrix, ax=ax)
    assert not ax.has_data()


# worst mistakes


def shown(figure):
    """Title and image of every panel that holds one."""
    return [(ax.get_title(), ax.images[0].get_array().tolist()) for ax in figure.axes if ax.images]


def test_the_most_confident_mistakes_come_first():
    # margins: 5 - 2, right, 3 - 2, 4 - 0
    wanted = [
        ("predicted 0\ntrue 2", IMAGES[3].reshape(2, 3).tolist()),
        ("predicted 0\ntrue 1", IMAGES[0].reshape(2, 3).tolist()),
        ("predicted 2\ntrue 1", IMAGES[2].reshape(2, 3).tolist()),
    ]
    target = [1, 1, 1, 2]
    assert shown(mistakes(target)) == wanted
    assert shown(mistakes(np.eye(3)[target])) == wanted
    assert shown(mistakes(target, count=2)) == wanted[:2]
    square = IMAGES.reshape(4, 2, 3)
    assert shown(plots.worst_mistakes(square, SCORES, target, shape=(2, 3))) == wanted


def test_25_mistakes_by_default():
    images, pred = np.zeros((30, 784), np.uint8), np.tile([1, 0], (30, 1))
    figure = plots.worst_mistakes(images, pred, np.ones(30, int))
    assert len(shown(figure)) == len(figure.axes) == 25
    assert not any(ax.axison for ax in figure.axes)


def test_panels_without_an_image_are_empty():
    figure = mistakes([1, 1, 1, 2])
    assert len(figure.axes) == 4
    assert not any(ax.axison for ax in figure.axes)


def test_no_mistakes():
    figure = mistakes([0, 1, 2, 0])
    assert not figure.axes
    assert [text.get_text() for text in figure.texts] == ["no mistakes"]


def test_small_integers_and_infinite_scores_are_ranked_without_a_warning():
    pred = np.array([[100, 0], [127, -128]], np.int8)  # 127 - -128 is no int8
    first, _ = shown(plots.worst_mistakes(IMAGES[:2], pred, [1, 1], shape=(2, 3)))
    assert first == ("predicted 0\ntrue 1", IMAGES[1].reshape(2, 3).tolist())
    pred = np.array([[-np.inf, -np.inf], [0, 1], [np.nan, 0], [0, np.inf]])
    with np.errstate(all="raise"):
        figure = plots.worst_mistakes(IMAGES, pred, [1, 0, 1, 0], shape=(2, 3))
    assert len(shown(figure)) == 4
    assert shown(figure)[0] == ("predicted 1\ntrue 0", IMAGES[3].reshape(2, 3).tolist())


@pytest.mark.parametrize(
    ("images", "pred", "target", "contract", "found"),
    [
        ((4, 6), (4,), (4,), "pred of shape (N, classes)", "(4,)"),
        ((4, 6), (4, 3), (3,), "target of shape (4, 3), or labels of shape (4,)", "(3,)"),
        ((3, 6), (4, 3), (4,), "images of shape (4, 6) or (4, 2, 3)", "(3, 6)"),
        ((4, 3, 2), (4, 3), (4,), "images of shape (4, 6) or (4, 2, 3)", "(4, 3, 2)"),
        (
            (0, 6),
            (0, 3),
            (0,),
            "pred of shape (..., classes) with at least one element",
            "shape (0, 3)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(images, pred, target, contract, found):
    figure = Figure()
    with refused(ValueError, "worst_mistakes", f"expected {contract}, got {found}"):
        plots.worst_mistakes(
            np.ones(images), np.ones(pred), np.ones(target, int), shape=(2, 3), figure=figure
        )
    assert not figure.axes


@pytest.mark.parametrize(
    ("target", "options", "error", "contract", "found"),
    [
        ([0, 1, 2, 3], {}, ValueError, "labels in [0, 3)", "3"),
        ([0.0, 1, 2, 0], {}, TypeError, "labels to be integers", "dtype float64"),
        ([0, 1, 2, 0], {"count": 0}, ValueError, "count to be an integer >= 1", "0"),
        ([0, 1, 2, 0], {"count": 2.0}, TypeError, "count to be an integer >= 1", "2.0"),
    ],
)
def test_labels_and_counts_that_are_none_are_refused(target, options, error, contract, found):
    with refused(error, "worst_mistakes", f"expected {contract}, got {found}"):
        mistakes(target, **options)


# dropout masks


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_masks_are_drawn_with_their_shares(dtype):
    ax = plots.dropout_masks(np.array([[1, 0, 1, 1], [0, 1, 1, 1]], dtype))
    assert ax.images[0].get_array().tolist() == [[1, 0, 1, 1], [0, 1, 1, 1]]
    assert legend(ax) == ["dropped 25.0%", "kept 75.0%"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("unit", "forward pass")
    assert labels(ax) == [["0", "1", "2", "3"], ["0", "1"]]
    colors = ax.images[0].to_rgba(np.array([0, 1]))
    keys = [patch.get_facecolor() for patch in ax.get_legend().get_patches()]
    np.testing.assert_allclose(colors, keys)
    assert np.abs(colors[0] - colors[1]).max() > 0.5


@pytest.mark.parametrize("kept", [0, 1])
def test_one_unit_in_one_pass(kept):
    ax = plots.dropout_masks([kept])
    assert ax.images[0].get_array().tolist() == [[kept]]
    colour = ax.images[0].to_rgba(np.array([kept]))[0]
    np.testing.assert_allclose(colour, ax.get_legend().get_patches()[kept].get_facecolor())
    assert labels(ax) == [["0"], ["0"]]


def test_scales_are_masks_too():
    ax = plots.dropout_masks([[2.0, 0.0]])
    assert ax.images[0].get_array().tolist() == [[1, 0]]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4)])
def test_masks_of_another_shape_are_refused(shape):
    ax = Figure().add_subplot()
    contract = "masks of shape (passes, units) with at least one element"
    with refused(ValueError, "dropout_masks", f"expected {contract}, got shape {shape}"):
        plots.dropout_masks(np.ones(shape), ax=ax)
    assert not ax.has_data()
