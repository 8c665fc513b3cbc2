"""Callbacks: rates that follow a schedule, and what is decided from the history alone."""

import math

import numpy as np
import pytest
from helpers import refusal

from tinygrad_mnist import SGD, DataLoader, Linear, MSELoss, ReLU, Sequential
from tinygrad_mnist.optim.schedules import cosine_decay, step_decay, warm_up
from tinygrad_mnist.training import (
    BestCheckpoint,
    Callback,
    EarlyStopping,
    History,
    LearningRate,
    Run,
    checkpoint,
    fit,
)


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


def test_early_stopping_of_a_number_that_shall_grow():
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
    assert make("loss", "max").mode == make("val_accuracy").mode == "max"
    owner = type(make("loss")).__name__
    for mode, got in (("best", "'best'"), (None, "None")):
        with refusal(ValueError, f'{owner}: expected mode "min" or "max", got {got}'):
            make("val_f1", mode)


def test_early_stopping_needs_patience():
    text = "EarlyStopping: expected patience to be an integer >= 1, got 0"
    with refusal(ValueError, text):
        EarlyStopping(patience=0)


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "acuracy"])
@pytest.mark.parametrize("make", [EarlyStopping, lambda *a: BestCheckpoint("x", *a)])
def test_what_will_not_be_recorded_is_refused_before_training(monitor, validated, make, tmp_path):
    model, loss, optimizer, loader = small_run()
    before, rng = model.state_dict(), loader.rng.bit_generator.state
    names = "epoch, lr, loss" + ", val_loss" * validated + ", seconds"
    callback, path = make(monitor, "max"), tmp_path / "run.npz"
    callbacks = [LearningRate(lambda t: 0.0), callback]
    options = {"callbacks": callbacks, "validation": loader if validated else None}
    if monitor in names:
        callback.before_run(Run(model, optimizer, History(), epochs=1, columns=names.split(", ")))
        return
    owner = type(callback).__name__
    text = f"{owner}: expected monitor to be one of {names}, got '{monitor}'"
    with refusal(ValueError, text) as caught:
        fit(model, loss, optimizer, loader, epochs=2, checkpoint=path, **options)
    assert caught.value.__notes__ == ['Names with "val_" need `validation` in `fit`.']
    assert optimizer.lr == 9
    assert not path.exists()
    assert loader.rng.bit_generator.state == rng
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_callback_may_record_a_number_of_its_own_for_others_to_monitor():
    class Counts(Callback):
        def before_run(self, run):
            run.columns.append("count")

        def after_epoch(self, run):
            run.history.records[-1]["count"] = -run.epoch

    callbacks = [Counts(), EarlyStopping("count", "max", patience=2)]
    history = fit(*small_run(), epochs=9, callbacks=callbacks)
    assert history.column("count") == [-1, -2, -3]


@pytest.mark.parametrize(
    ("path", "error", "got"),
    [
        ("nope/best.npz", ValueError, "'nope/best.npz'"),
        (".", ValueError, "'.'"),
        (None, TypeError, "None"),
    ],
)
def test_a_best_checkpoint_that_could_not_be_written_is_refused_before_training(path, error, got):
    model, *rest = small_run()
    before = model.state_dict()
    contract = "BestCheckpoint: expected path to be a file, in a folder that is there"
    with refusal(error, f"{contract}, got {got}"):
        fit(model, *rest, epochs=2, callbacks=[BestCheckpoint(path, "loss")])
    np.testing.assert_array_equal(model.weight.data, before["weight"])


def test_a_number_that_is_not_measured_is_named():
    text = "History: expected one of epoch, loss, in every record, got 'val_loss'"
    with refusal(ValueError, text):
        EarlyStopping().before_epoch(run_of([1.0], "loss"))


class Rates(Callback):
    """Notes the rate of each step."""

    def __init__(self):
        self.seen = []

    def before_step(self, run):
        self.seen.append(run.optimizer.lr)


def small_run():
    """Return what fit needs for epochs of three steps."""
    model = Linear(2, 1, rng=0)
    loader = DataLoader(np.eye(6, 2), np.ones((6, 1)), 2, shuffle=True, rng=1)
    return model, MSELoss(), SGD(model.parameters(), lr=9.0, momentum=0.5), loader


def test_a_rate_per_epoch_counts_epochs_from_0():
    rates = Rates()
    callbacks = [LearningRate(step_decay(0.4, every=1, factor=0.5)), rates]
    history = fit(*small_run(), epochs=3, callbacks=callbacks)
    assert rates.seen == [0.4] * 3 + [0.2] * 3 + [0.1] * 3
    assert history.column("lr") == [0.4, 0.2, 0.1]


def test_a_rate_per_step_counts_steps_from_0_through_all_epochs():
    rates, schedule = Rates(), warm_up(2, cosine_decay(0.3, steps=4))
    history = fit(*small_run(), epochs=3, callbacks=[LearningRate(schedule, per="step"), rates])
    wanted = [0.1, 0.2, 0.3, *(0.15 * (1 + math.cos(math.pi * t / 4)) for t in (1, 2, 3)), 0, 0, 0]
    assert rates.seen == pytest.approx(wanted, abs=1e-15)
    assert history.column("lr") == [rates.seen[2], rates.seen[5], rates.seen[8]]


def test_any_function_of_time_is_a_schedule():
    rates = Rates()
    fit(*small_run(), epochs=2, callbacks=[LearningRate(lambda t: 1 / (t + 1), "step"), rates])
    assert rates.seen == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]


def test_a_rate_is_set_on_any_optimizer_and_checked_by_it():
    class Other:
        lr = 0.0

    rate, other = LearningRate(step_decay(8.0, every=1, factor=0.5)), Other()
    rate.before_epoch(Run(None, other, History(), epochs=3, epoch=2))
    assert other.lr == 4
    with refusal(ValueError, "SGD: expected lr in [0, inf), got -1"):
        fit(*small_run(), epochs=1, callbacks=[LearningRate(lambda t: -1)])


class Killed(BaseException):
    """What a kill looks like from inside."""


class KilledAt(Callback):
    def __init__(self, step):
        self.step = step

    def before_step(self, run):
        if run.step == self.step:
            raise Killed


@pytest.mark.parametrize("per", ["epoch", "step"])
@pytest.mark.parametrize("at", [2, 4, 6, 8])
def test_a_resumed_run_goes_on_with_the_rates_of_a_whole_one(tmp_path, per, at):
    rate = LearningRate(lambda t: 1 / (t + 10), per)
    whole, before, after = Rates(), Rates(), Rates()
    history = fit(*small_run(), epochs=3, callbacks=[rate, whole])
    saving = {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 1}
    with pytest.raises(Killed):
        fit(*small_run(), epochs=3, callbacks=[rate, KilledAt(at), before], **saving)
    resumed = fit(*small_run(), epochs=3, callbacks=[rate, after], resume=True, **saving)
    assert len(before.seen) == at
    assert before.seen + after.seen == whole.seen
    assert resumed == history


def test_callbacks_act_around_epochs_and_before_each_forward():
    seen = []

    class Sees(Callback):
        def before_epoch(self, run):
            seen.append(("epoch", run.epoch, run.step))

        def before_step(self, run):
            seen.append(("step", run.epoch, run.step))

        def after_epoch(self, run):
            seen.append(("done", run.epoch, run.step))

    class Noting(ReLU):
        def forward(self, x):
            seen.append("forward")
            return super().forward(x)

    model, loss, optimizer, loader = small_run()
    fit(Sequential(model, Noting()), loss, optimizer, loader, epochs=2, callbacks=[Sees()])
    wanted = []
    for epoch in (1, 2):
        wanted.append(("epoch", epoch, 3 * epoch - 3))
        for step in range(3 * epoch - 3, 3 * epoch):
            wanted += [("step", epoch, step), "forward"]
        wanted.append(("done", epoch, 3 * epoch))
    assert seen == wanted


def test_learning_rate_refusals():
    contract = "LearningRate: expected schedule to be a function of time"
    with refusal(TypeError, f"{contract}, got 0.1"):
        LearningRate(0.1)
    with refusal(ValueError, 'LearningRate: expected per "epoch" or "step", got \'batch\''):
        LearningRate(abs, "batch")
