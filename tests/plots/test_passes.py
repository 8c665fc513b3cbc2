"""Activations, the flow of gradients, dropout masks; and that the model stays as it is."""

import copy

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs matplotlib: the `plot` extra")
from pictures import POINTS, after_backward, colours, conv_net, draw, labels, tile

from tinygrad_mnist import (
    SGD,
    Adam,
    Dropout,
    Linear,
    Residual,
    Sequential,
    Tanh,
    plots,
)


def test_each_layer_that_changes_a_number_has_a_panel():
    model, x = conv_net(), np.random.default_rng(0).random((6, 6, 1)).astype(np.float32)
    y = model[0](x)
    panels = plots.activations(model, x).axes
    assert [ax.get_title(loc="left") for ax in panels] == [
        "x: 6 x 6 x 1",
        "0 Conv2d: 4 x 4 x 2",
        "1 ReLU: 4 x 4 x 2",
        "3 Linear: 3",
    ]
    np.testing.assert_array_equal(panels[0].images[0].get_array(), x[..., 0])
    for ax, maps in ((panels[1], y), (panels[2], np.maximum(y, 0))):
        for channel in range(2):
            np.testing.assert_array_equal(tile(ax, channel, 4, 4, 8)[0], maps[..., channel])
        assert ax.images[0].get_clim() == (-abs(maps).max(), abs(maps).max())
    heights = [bar.get_height() for bar in panels[3].patches]
    np.testing.assert_allclose(heights, model(x), rtol=1e-6)


def test_many_units_are_a_strip_and_the_last_scores_have_names():
    model = Sequential(Linear(3, 40, rng=0), Tanh(), Linear(40, 2, rng=1))
    x = np.array([1, 2, 3], np.float32)
    figure = plots.activations(model, x, names=["cat", "dog"])
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), model[0](x)[None], rtol=1e-6)
    assert labels(figure.axes[-1])[0] == ["cat", "dog"]


def test_sums_of_branches_and_nested_layers_have_panels():
    model = Sequential(Sequential(Linear(2, 2, rng=0)), Residual(Linear(2, 2, rng=1)))
    titles = [ax.get_title(loc="left") for ax in plots.activations(model, [1.0, 2.0]).axes]
    assert titles == ["x: 2", "0.0 Linear: 2", "1.body.0 Linear: 2", "1 Residual: 2"]


@pytest.mark.parametrize("name", ["activations", "gradient_flow", "decision_boundary"])
def test_a_picture_of_a_model_leaves_it_as_it_is(name):
    model = Sequential(Linear(2, 5, rng=0), Dropout(0.5, rng=1), Linear(5, 3, rng=2))
    y = after_backward(model, POINTS)(POINTS)
    same = copy.deepcopy(model)
    optimizer = Adam(model.parameters())
    more = {
        "activations": {"x": [1.0, 2.0]},
        "gradient_flow": {"optimizer": optimizer},
        "decision_boundary": {},
    }
    draw(name, model=model, **more[name])
    assert all(module.training for module in model.modules())
    assert optimizer.steps == 0
    for p, other in zip(model.parameters(), same.parameters(), strict=True):
        np.testing.assert_array_equal(p.data, other.data)
        np.testing.assert_array_equal(p.grad, other.grad)
    dx = model.backward(np.ones_like(y))  # of the forward before
    np.testing.assert_array_equal(same(POINTS), model(POINTS))  # the next masks are the same
    assert dx.shape == POINTS.shape


def dots(ax):
    """Where the dots of an Axes are: row -> size."""
    return {y: x for line in ax.lines[:2] for x, y in zip(*line.get_data(), strict=True)}


def test_gradients_and_steps_of_sgd():
    model = after_backward(Linear(2, 3, rng=0, dtype=np.float64), POINTS)
    gradient, step = plots.gradient_flow(model, SGD(model.parameters(), lr=0.5)).axes
    sizes = [np.sqrt(np.mean(p.grad**2)) for p in model.parameters()]
    assert dots(gradient) == pytest.approx(dict(enumerate(sizes)))
    # the bias is 0 and has no ratio
    weight = np.sqrt(np.mean(model.weight.data**2))
    assert dots(step) == pytest.approx({0: 0.5 * sizes[0] / weight})
    assert labels(gradient)[1] == ["weight", "bias"]
    assert (gradient.get_xlabel(), step.get_xlabel()) == ("gradient", "update / parameter")
    assert gradient.get_xscale() == step.get_xscale() == "log"
    assert list(step.lines[2].get_xdata()) == [1e-3, 1e-3]
    for ax in (gradient, step):  # whole decades, and all is in sight
        low, high = np.log10(ax.get_xlim())
        assert (low, high) == (round(low), round(high))
        assert all(low < np.log10(x) < high for x in [*dots(ax).values()])


def test_the_first_step_of_adam_is_lr_in_every_entry():
    model = after_backward(Linear(2, 3, rng=0), POINTS)
    _, step = plots.gradient_flow(model, Adam(model.parameters(), lr=0.01)).axes
    weight = np.sqrt(np.mean(model.weight.data**2))
    assert dots(step) == pytest.approx({0: 0.01 / weight}, rel=1e-4)


def test_a_gradient_of_0_or_nan_is_a_word_at_the_border():
    model = after_backward(Linear(2, 3, rng=0), POINTS)
    model.weight.grad = np.zeros((2, 3))
    (ax,) = plots.gradient_flow(model).axes
    assert [(text.get_position()[1], text.get_text()) for text in ax.texts] == [(0, "0")]
    assert [*dots(ax)] == [1]
    model.weight.grad = np.full((2, 3), np.nan)
    for ax in plots.gradient_flow(model, SGD(model.parameters(), lr=1.0)).axes:
        assert [(text.get_position()[1], text.get_text()) for text in ax.texts] == [(0, "nan")]


@pytest.mark.parametrize("bias", [True, False])
def test_a_deep_net_is_no_higher_and_names_some_of_its_weights(bias):
    layers = [Linear(2, 2, bias=bias, rng=k) for k in range(40)]
    model = after_backward(Sequential(*layers), POINTS)
    (ax,) = plots.gradient_flow(model).axes
    assert len(dots(ax)) == len([*model.parameters()])
    assert labels(ax)[1] == [f"{k}.weight" for k in range(0, 40, 2)]
    assert ax.lines[1].get_markerfacecolor() == ax.get_facecolor()  # hollow, in a dark style too
    names = [name for name, _ in model.named_parameters()]
    assert [names[row] for row in ax.get_yticks()] == labels(ax)[1]
    assert ax.figure.get_figheight() <= 9


@pytest.mark.parametrize("kept", [True, 2.0])
def test_masks_are_drawn_with_the_fractions_kept_and_dropped(kept):
    ax = plots.dropout_masks([[kept, 0, kept, kept], [0, kept, kept, kept]])
    assert ax.images[0].get_array().tolist() == [[1, 0, 1, 1], [0, 1, 1, 1]]
    assert ax.get_title() == "kept (dark) 75.0%, dropped 25.0%"
    assert ax.images[0].get_interpolation() == "nearest"  # no shades between kept and dropped
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("unit", "forward pass")
    assert labels(ax) == [["0", "1", "2", "3"], ["0", "1"]]


@pytest.mark.parametrize("kept", [0, 1])
def test_one_unit_in_one_pass(kept):
    ax = plots.dropout_masks([kept])
    assert ax.images[0].get_array().tolist() == [[kept]]
    assert (colours(ax)[0, 0, :3].sum() < 1) == kept  # dark if kept, also if there is one kind
