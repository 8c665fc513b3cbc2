"""Confusion matrices, mistakes, regions of the plane, numbers of a regression."""

import numpy as np
import pytest
from helpers import refusal

pytest.importorskip("matplotlib", reason="needs matplotlib: the `plot` extra")
from pictures import IMAGES, POINTS, SCORES, colours, draw, labels, words

from tinygrad_mnist import Linear, Module, plots

# confusion matrix


def test_each_count_stands_in_its_cell():
    ax = plots.confusion_matrix([[7, 0, 2], [1, 1000, 0], [0, 0, 0]])
    texts = {tuple(text.get_position()): text.get_text() for text in ax.texts}
    assert texts == {(0, 0): "7", (2, 0): "2", (0, 1): "1", (1, 1): "1000"}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert ax.images[0].get_array().tolist() == [[7, None, 2], [1, 1000, None], [None] * 3]


def test_the_accuracy_is_in_the_title_and_the_recall_of_a_class_in_its_row():
    ax = plots.confusion_matrix([[7, 0, 2], [1, 1000, 0], [0, 0, 0]])
    assert ax.get_title() == "accuracy 99.70% of 1,010"
    assert labels(ax.child_axes[0])[1] == ["77.8%", "99.9%", "-"]
    assert plots.confusion_matrix([[0]]).get_title() == "accuracy of no samples"


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


@pytest.mark.parametrize(("classes", "names"), [(20, None), (3, ["cat", "dog", "a red hen"])])
def test_up_to_20_classes_are_all_named(classes, names):
    every = names or [*map(str, range(classes))]
    assert labels(plots.confusion_matrix(np.eye(classes, dtype=int), names=names)) == [every] * 2


def test_of_more_classes_the_colours_are_explained_instead():
    names = [f"class {c}" for c in range(21)]
    ax = plots.confusion_matrix(np.eye(21, dtype=int), names=names)
    assert not ax.texts
    assert labels(ax) == [names, names]
    assert ax.get_figure().axes[1].get_ylabel() == "samples"


# worst mistakes


def shown(figure):
    """Title and image of every panel that holds one."""
    return [(ax.get_title(), ax.images[0].get_array().tolist()) for ax in figure.axes if ax.images]


def test_the_most_confident_mistakes_come_first():
    # margins: 5 - 2, right, 3 - 2, 4 - 0
    wanted = [
        ("0 (4.00)\nis 2", IMAGES[3].tolist()),
        ("0 (5.00)\nis 1", IMAGES[0].tolist()),
        ("2 (3.00)\nis 1", IMAGES[2].tolist()),
    ]
    target = [1, 1, 1, 2]
    figure = plots.worst_mistakes(IMAGES, SCORES, np.eye(3)[target])
    assert shown(figure) == wanted
    assert [ax.axison for ax in figure.axes] == [True] * 3 + [False]  # the last panel is empty
    images = IMAGES[..., None]
    assert shown(plots.worst_mistakes(images, SCORES, target, count=2)) == wanted[:2]


def test_a_caption_is_nearer_to_its_own_image_than_to_another():
    figure = plots.worst_mistakes(np.ones((9, 28, 28)), np.eye(9)[[1] * 9], [0] * 9, count=9)
    figure.draw_without_rendering()
    top, below = figure.axes[0], figure.axes[3]
    caption = below.title.get_window_extent()
    gap = caption.y0 - below.get_window_extent().y1
    assert 0 < 2 * gap < top.get_window_extent().y0 - caption.y1


def test_classes_may_have_names_and_images_colours():
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 3, 3)).astype(np.uint8)
    figure = draw("worst_mistakes", images=images, names=["cat", "dog", "hen"])
    titles, found = zip(*shown(figure), strict=True)
    assert titles == ("dog (9.00)\nis cat", "cat (5.00)\nis dog", "hen (3.00)\nis cat")
    np.testing.assert_allclose(found, images[[1, 0, 2]] / 255)


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.7), (-1.0, 1.0), (0.0, 255.0)])
def test_fractions_are_colours_and_other_numbers_are_stretched(low, high):
    images = np.linspace(low, high, 4 * 2 * 3 * 3).reshape(4, 2, 3, 3)
    wanted = images if (low, high) == (0.2, 0.7) else (images - low) / (high - low)
    (_, found), *_ = shown(draw("worst_mistakes", images=images))
    np.testing.assert_allclose(found, wanted[1], atol=1e-12)


def test_25_mistakes_by_default():
    assert len(shown(plots.worst_mistakes(np.zeros((30, 2, 3)), np.eye(30), [0] * 30))) == 25


def test_no_mistakes():
    figure = plots.worst_mistakes(IMAGES, SCORES, [0, 1, 2, 0])
    assert not figure.axes
    assert [text.get_text() for text in figure.texts] == ["no mistakes"]


def test_small_integers_and_infinite_scores_are_ranked_without_a_warning():
    pred = np.array([[100, 0], [127, -128]], np.int8)  # 127 - -128 is no int8
    first, _ = shown(plots.worst_mistakes(IMAGES[:2], pred, [1, 1]))
    assert first == ("0 (127.00)\nis 1", IMAGES[1].tolist())
    pred = np.array([[-np.inf, -np.inf], [0, 1], [np.nan, 0], [0, np.inf]])
    with np.errstate(all="raise"):
        found = shown(plots.worst_mistakes(IMAGES, pred, [1, 0, 1, 0]))
    assert len(found) == 4
    assert found[0] == ("1 (inf)\nis 0", IMAGES[3].tolist())


# decision boundary


def linear(weight, bias):
    layer = Linear(2, len(bias))
    layer.weight.data, layer.bias.data = weight, bias
    return layer


def plane(ax):
    """Return the class of each point of the plane, and the points."""
    image = ax.images[0]
    regions, (left, right, low, high) = image.get_array(), image.get_extent()
    assert image.origin == "lower"
    rows, columns = regions.shape
    return regions, np.meshgrid(np.linspace(left, right, columns), np.linspace(low, high, rows))


@pytest.mark.parametrize("t", [[0, 1, 0, 1], [[0.0], [1], [0], [1]], [False, True] * 2])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_one_output_is_class_1_above_the_threshold(t, threshold):
    model = linear([[1.0], [2.0]], [-0.25])
    ax = plots.decision_boundary(model, POINTS, t, threshold=threshold)
    regions, (a, b) = plane(ax)
    np.testing.assert_array_equal(regions, a + 2 * b - 0.25 > threshold)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.1, 1.1), (-0.1, 1.1))
    # (0, 1) is above both thresholds and has the class 0
    wrong = [[0.0, 1.0]]
    np.testing.assert_array_equal(ax.collections[-1].get_offsets(), wrong)
    assert (ax.get_title(), words(ax)) == ("accuracy 75.0% of 4", ["0", "1", "wrong"])


@pytest.mark.parametrize("rows", [False, True])
def test_of_several_outputs_the_largest_is_the_class(rows):
    model = linear([[1.0, 0, -1], [0, 1, -1]], [0.0, 0, 1])
    t = [2, 0, 1, 0]
    ax = plots.decision_boundary(model, POINTS, np.eye(3)[t] if rows else t, names=[*"abc"])
    regions, (a, b) = plane(ax)
    np.testing.assert_array_equal(regions, np.argmax([a, b, 1 - a - b], axis=0))
    assert (ax.get_title(), words(ax)) == ("accuracy 100.0% of 4", [*"abc"])
    for c, points in enumerate(ax.collections):
        np.testing.assert_array_equal(points.get_offsets(), POINTS[np.array(t) == c])
    assert len({str(c.get_paths()[0].vertices) for c in ax.collections}) == 3  # shapes, for grey


def test_a_model_of_another_output_is_refused():
    contract = "a model with one output or more for each sample, (N, C)"
    with refusal(ValueError, f"plots.decision_boundary: expected {contract}, got (4,)"):
        plots.decision_boundary(Flat(), POINTS, [0, 1, 0, 1])


class Flat(Module):
    def forward(self, x):
        return x[:, 0]

    def backward(self, dy):
        raise NotImplementedError


# regression


@pytest.mark.parametrize("column", [False, True])
def test_predictions_of_a_regression_over_the_truth(column):
    y, t = np.array([1.0, 2, 4]), np.array([1.0, 3, 5])
    ax = plots.predicted_against_true(y[:, None] if column else y, t)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), np.stack([t, y], axis=1))
    assert [list(line) for line in ax.lines[0].get_data()] == [[1, 5], [1, 5]]
    assert ax.get_title() == "R2 0.750, mean absolute error 0.667"  # 1 - 2 / 8 and 2 / 3
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true", "predicted")


def test_one_number_has_no_r2():
    assert plots.predicted_against_true([1.0], [3.0]).get_title() == "mean absolute error 2"


def test_as_many_numbers_as_targets():
    with refusal(
        ValueError, "plots.predicted_against_true: expected target of shape (2,), got (3,)"
    ):
        plots.predicted_against_true([1.0, 2], [1.0, 2, 3])
