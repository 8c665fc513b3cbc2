"""EarlyStopping and BestCheckpoint: decided from the history alone."""

import math

import numpy as np
import pytest
from tinygrad_mnist.callbacks import BestCheckpoint, EarlyStopping, Run
from tinygrad_mnist.history import History

from tinygrad_mnist import SGD, Linear, checkpoint


def run_of(values, name="val_loss"):
    model = Linear(2, 1, rng=0)
    history = History([{"epoch": i, name: v} for i, v in enumerate(values, 1)])
    return Run(model, SGD(model.parameters(), lr=0.1), history, epochs=99, epoch=len(values))


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, 2.0], False),
        ([1.0, 2.0, 2.0], True),
        ([1.0, 1.0, 1.0], True),  # equal is no improvement
        ([1.0, 2.0, 0.5], False),
        ([3.0, 2.0, 0.5, 0.6, 0.7], True),
        ([math.nan, 5.0, 6.0], False),
        ([5.0, math.nan, math.nan], True),
        ([math.nan, math.nan, math.nan], True),
    ],
)
def test_early_stopping_counts_epochs_since_the_best(values, stops):
    run = run_of(values)
    EarlyStopping(patience=2).before_epoch(run)
    assert run.stopped == stops


def test_early_stopping_of_a_figure_that_shall_grow():
    for values, stops in (([0.1, 0.2, 0.3], False), ([0.3, 0.2, 0.1], True)):
        run = run_of(values, "val_accuracy")
        EarlyStopping("val_accuracy", "max", patience=2).before_epoch(run)
        assert run.stopped == stops


def test_the_best_checkpoint_is_the_one_on_disk(tmp_path):
    path = tmp_path / "best.npz"
    best, run = BestCheckpoint(path, "accuracy", "max", hidden=[3]), run_of([], "accuracy")
    for epoch, value in enumerate([0.5, 0.7, 0.6, 0.7, 0.8, 0.1], 1):
        run.history.records.append({"accuracy": value})
        run.epoch = epoch
        run.model.weight.data[...] = epoch
        best.after_epoch(run)
    model, history = Linear(2, 1), History()
    assert checkpoint.load(path, model, history=history) == {"hidden": [3], "epoch": 5}
    assert np.all(model.weight.data == 5)
    assert len(history.records) == 5


@pytest.mark.parametrize("make", [EarlyStopping, lambda *a: BestCheckpoint("x", *a)])
def test_which_way_is_better_must_be_known(make):
    assert make("val_loss").mode == make("loss").mode == "min"
    for mode, told in (("best", "'best'"), (None, "None")):
        with pytest.raises(
            ValueError, match=f'expected mode for \'val_accuracy\' "min" or "max", got {told}$'
        ):
            make("val_accuracy", mode)


def test_early_stopping_needs_patience():
    with pytest.raises(
        ValueError, match="^EarlyStopping: expected patience to be an integer >= 1, got 0$"
    ):
        EarlyStopping(patience=0)


def test_a_figure_that_is_not_measured_is_named():
    with pytest.raises(
        ValueError,
        match="^History: expected one of epoch, loss, in every record, got 'val_loss'$",
    ):
        EarlyStopping().before_epoch(run_of([1.0], "loss"))
