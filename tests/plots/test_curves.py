"""Learning curves, and what a search for a learning rate found."""

import numpy as np
import pytest
from helpers import refusal

pytest.importorskip("matplotlib", reason="needs matplotlib: the `plot` extra")
from pictures import CURVE, RECORDS, draw, labels, lines, words

from tinygrad_mnist import plots
from tinygrad_mnist.training import History


def curves(records):
    return plots.learning_curves(History(records)).axes


def test_each_metric_has_a_panel_with_train_and_validation():
    for ax, name in zip(curves(RECORDS), ("loss", "f1"), strict=True):  # neither lr nor seconds
        train, validation = ([record[k] for record in RECORDS] for k in (name, f"val_{name}"))
        found = lines(ax)
        assert (found["train"], found["validation"]) == (
            ([1, 2, 3], train),
            ([1, 2, 3], validation),
        )
        assert ax.get_ylabel() == name
        assert words(ax)[:2] == ["train", "validation"]
        assert [line.get_color() for line in ax.lines[:2]] == ["C0", "C1"]


def test_a_line_through_all_panels_marks_the_lowest_validation_loss():
    loss, f1 = curves(RECORDS)
    assert lines(loss)["lowest val_loss: epoch 2"][0] == [2, 2]
    assert f1.lines[-1].get_xdata() == [2, 2]
    assert words(loss)[2:] == ["lowest val_loss: epoch 2"]
    (alone,) = curves([{"epoch": epoch, "loss": 1.0} for epoch in (1, 2)])
    assert len(alone.lines) == 1


def test_a_metric_may_be_of_training_or_validation_only_or_now_and_then():
    records = [{"epoch": 5, "loss": 2, "val_f1": 0.1}, {"epoch": 6}, {"epoch": 7, "val_f1": 0.3}]
    loss, f1 = curves(records)
    assert (loss.get_ylabel(), f1.get_ylabel()) == ("loss", "f1")
    np.testing.assert_equal(lines(loss), {"train": ([5, 6, 7], [2, np.nan, np.nan])})
    np.testing.assert_equal(lines(f1), {"validation": ([5, 6, 7], [0.1, np.nan, 0.3])})


def test_a_learning_rate_that_changes_has_a_panel():
    records = [{"epoch": n, "loss": 1.0, "lr": 0.1 / n} for n in (1, 2, 3)]
    _, lr = curves(records)
    assert list(lr.lines[0].get_ydata()) == [record["lr"] for record in records]
    assert (lr.get_ylabel(), lr.get_xlabel(), lr.get_legend()) == ("learning rate", "epoch", None)


def test_records_of_steps_say_so():
    (ax,) = curves([{"step": n, "loss": 1.0} for n in range(60)])
    assert ax.get_xlabel() == "step"
    assert lines(ax)["train"][0] == [*range(60)]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([20, 1.1, 1.1], "linear"), ([20, 0.9, 0.9], "log"), ([20, 0.9, 0.9, 0], "linear")],
)
def test_the_scale_is_logarithmic_where_half_of_it_would_look_like_nothing(values, scale):
    (ax,) = curves([{"epoch": n, "loss": float(v)} for n, v in enumerate(values)])
    assert ax.get_yscale() == scale


def test_a_record_without_epoch_is_refused():
    with refusal(ValueError, "History: expected one of loss, in every record, got 'epoch'"):
        curves([{"epoch": 1, "loss": 2.0}, {"loss": 1.0}])


def test_one_epoch_shows_as_a_point_at_a_whole_epoch():
    for ax in curves(RECORDS[:1]):
        assert [line.get_marker() for line in ax.lines] == ["o", "o"]
    assert labels(ax)[0] == ["1"]


def test_a_search_shows_what_comes_up_to_the_lowest_loss_and_the_suggestion():
    ax = draw("learning_rate")
    assert (ax.lines[0].get_xdata() == CURVE.rates).all()
    assert (ax.lines[0].get_ydata() == CURVE.losses).all()
    assert lines(ax)["suggestion: 0.1"][0] == [0.1, 0.1]  # below 2 - 3 / 4 * (2 - 0.5)
    assert ax.get_xscale() == "log"
    low, high = ax.get_ylim()
    assert low < 0.5
    assert 2 < high < 90
