"""Callbacks: when each is called, rates that follow a schedule, clipping, the best epoch."""

import csv
import math
import signal

import numpy as np
import pytest
from helpers import Killed, KilledAt, refusal

from tinygrad_mnist import (
    SGD,
    Buffer,
    DataLoader,
    Linear,
    Module,
    MSELoss,
    Parameter,
    Sequential,
)
from tinygrad_mnist.optim import clip_grad_norm
from tinygrad_mnist.optim.schedules import cosine_decay, step_decay, warm_up
from tinygrad_mnist.training import (
    BestCheckpoint,
    Callback,
    ClipGradients,
    CSVLog,
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


@pytest.mark.parametrize("make", [EarlyStopping, lambda *a: BestCheckpoint("x", *a)])
def test_a_monitor_that_is_no_name_is_refused_with_the_name_of_patience(make):
    text = f"{type(make()).__name__}: expected monitor to be a string, got 3"
    with refusal(TypeError, text) as caught:
        make(3)
    assert "EarlyStopping(patience=3)" in caught.value.__notes__[0]


def test_a_callback_may_record_a_number_of_its_own_for_others_to_monitor():
    class Counts(Callback):
        def before_run(self, run):
            run.columns.append("count")

        def after_epoch(self, run):
            run.history.records[-1]["count"] = -run.epoch

    callbacks = [Counts(), EarlyStopping("count", "max", patience=2)]
    history = fit(*small_run(), epochs=9, callbacks=callbacks)
    assert history.column("count") == [-1, -2, -3]


def test_a_callback_of_other_names_would_never_be_called_and_is_refused():
    class Prints(Callback):
        def on_epoch_end(self, epoch, logs=None):
            print(epoch)

    told = "fit: expected a callback to define one of before_run, before_epoch, "
    with pytest.raises(TypeError, match=f"{told}.*, after_run, got on_epoch_end"):
        fit(*small_run(), epochs=1, callbacks=[Prints()])


@pytest.mark.parametrize(
    ("path", "error", "got"),
    [
        ("nope/best.npz", FileNotFoundError, "'nope/best.npz'"),
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


HOOKS = ["before_run", "before_epoch", "before_step", "after_backward", "after_step"]
HOOKS += ["after_epoch", "after_run"]


def test_callbacks_act_around_epochs_and_in_the_midst_of_a_step(monkeypatch):
    seen, losses = [], []

    def noting(owner, name):
        """Note each call of a method, with what is known then."""
        method = getattr(owner, name)

        def noted(self, *args):
            made = method(self, *args)
            if isinstance(self, Callback):
                (run,) = args
                seen.append((name, run.epoch, run.step))
                if name == "after_step":
                    losses.append(run.loss)
            else:
                seen.append(name)
            return made

        monkeypatch.setattr(owner, name, noted)

    for name in HOOKS:
        noting(Callback, name)
    for owner, name in ((Linear, "forward"), (Linear, "backward"), (SGD, "step")):
        noting(owner, name)
    history = fit(*small_run(), epochs=2, callbacks=[Callback()])
    wanted = [("before_run", 0, 0)]
    for epoch in (1, 2):
        wanted.append(("before_epoch", epoch, 3 * epoch - 3))
        for step in range(3 * epoch - 3, 3 * epoch):
            wanted += [("before_step", epoch, step), "forward", "backward"]
            wanted += [("after_backward", epoch, step), "step", ("after_step", epoch, step + 1)]
        wanted.append(("after_epoch", epoch, 3 * epoch))
    assert seen == [*wanted, ("after_run", 2, 6)]
    means = [np.mean(losses[:3]), np.mean(losses[3:])]
    np.testing.assert_allclose(history.column("loss"), means)


def test_gradients_are_clipped_before_each_step():
    runs = [small_run(), small_run()]
    fit(*runs[0], epochs=2, callbacks=[ClipGradients(0.05)])
    model, loss, optimizer, loader = runs[1]
    norms = []
    for _ in range(2):
        for x, t in loader:
            loss(model(x), t)
            model.zero_grad()
            model.backward(loss.backward())
            norms.append(clip_grad_norm(model.parameters(), 0.05))
            optimizer.step()
    assert min(norms) < 0.05 < max(norms)
    np.testing.assert_array_equal(runs[0][0].weight.data, model.weight.data)
    with refusal(ValueError, "ClipGradients: expected max_norm in [0, inf), got -1"):
        ClipGradients(-1)


def test_a_csv_log_is_whole_after_each_epoch_and_goes_on_after_a_resume(tmp_path):
    path, lengths = tmp_path / "log.csv", []

    class Reads(Callback):
        def after_epoch(self, run):
            with path.open() as file:
                rows = [*csv.DictReader(file)]
            assert [float(row["loss"]) for row in rows] == run.history.column("loss")
            lengths.append(len(rows))

    for epochs in (2, 3):
        callbacks = [LearningRate(lambda t: 0.1), CSVLog(path), Reads()]
        saving = {"checkpoint": tmp_path / "run.npz", "resume": True}
        fit(*small_run(), epochs=epochs, callbacks=callbacks, **saving)
    assert lengths == [1, 2, 3]
    contract = "CSVLog: expected path to be a file, in a folder that is there"
    with refusal(FileNotFoundError, f"{contract}, got 'nope/log.csv'"):
        fit(*small_run(), epochs=1, callbacks=[CSVLog("nope/log.csv")])


def test_a_frozen_parameter_has_the_gradient_of_the_last_batch_alone():
    """And no product of the batches before: those would be multiplied out at every step."""
    frozen, head = Linear(2, 3, rng=0), Linear(3, 1, rng=1)
    _, loss, _, loader = small_run()
    gradients = []

    class Sees(Callback):
        def after_backward(self, run):
            gradients.append(frozen.weight.grad.copy())

    before = frozen.state_dict()
    optimizer = SGD(head.parameters(), lr=0.0)
    fit(Sequential(frozen, head), loss, optimizer, loader, epochs=2, callbacks=[Sees()])
    assert len(gradients) == 6
    shuffled = DataLoader(loader.inputs, loader.targets, 2, shuffle=True, rng=1)
    model = Sequential(frozen, head)
    pairs = [pair for _ in range(2) for pair in shuffled]
    for (x, t), gradient in zip(pairs, gradients, strict=True):
        loss(model(x), t)
        model.zero_grad()
        model.backward(loss.backward())
        np.testing.assert_array_equal(gradient, frozen.weight.grad)
    np.testing.assert_array_equal(frozen.weight.data, before["weight"])


# the best epoch


class Counting(Module):
    """A model whose Parameter and Buffer tell after how many steps they are; y is always t - 1."""

    def __init__(self):
        self.weight, self.seen = Parameter([0.0]), Buffer([0.0])

    def forward(self, x):
        self.seen.data += self.training
        return np.zeros((len(x), 1), np.float32)

    def backward(self, dy):
        self.weight.accumulate([-1.0])


def counting_run(scores, **options):
    """Return what fit needs for an epoch of one step for each of the scores it records."""

    class Scores(Callback):
        def before_run(self, run):
            run.columns.append("score")

        def after_epoch(self, run):
            run.history.records[-1]["score"] = scores[run.epoch - 1]

    model, loader = Counting(), DataLoader(np.ones((2, 1)), np.ones((2, 1)), 2)
    stopping = EarlyStopping("score", "max", **{"restore_best": True, **options})
    callbacks = [Scores(), stopping]
    return (model, MSELoss(), SGD(model.parameters(), lr=1.0), loader), callbacks


def state_of(model):
    return [float(a[0]) for a in model.state_dict().values()]


@pytest.mark.parametrize(
    ("scores", "epochs", "best"),
    [
        ([1, 3, 2, 2, 9], 4, 2),  # stopped
        ([1, 3, 2], 3, 2),  # the epochs run out
        ([1, 2, 3], 3, 3),
        ([3, 3, 2], 3, 1),  # the first of equals
        ([math.nan, 1, math.nan], 3, 2),
    ],
)
def test_the_best_parameters_and_buffers_come_back(scores, epochs, best):
    for restore_best, wanted in ((True, best), (False, epochs)):
        run, callbacks = counting_run(scores, patience=2, restore_best=restore_best)
        history = fit(*run, epochs=len(scores), callbacks=callbacks)
        assert len(history.records) == epochs
        assert state_of(run[0]) == [wanted, wanted]


@pytest.mark.parametrize("killed_at", [1, 2, 3, 4])
def test_a_resumed_run_has_the_best_of_all_its_epochs(tmp_path, killed_at):
    saving = {"checkpoint": tmp_path / "run.npz", "resume": True}
    run, callbacks = counting_run([1, 3, 2, 2.5])
    with pytest.raises(Killed):
        fit(*run, epochs=5, callbacks=[*callbacks, KilledAt(killed_at)], **saving)
    run, callbacks = counting_run([1, 3, 2, 2.5])
    fit(*run, epochs=4, callbacks=callbacks, **saving)
    assert state_of(run[0]) == [2, 2]
    model = Counting()  # the file goes on from the last epoch, and resuming it ends alike
    assert checkpoint.load(tmp_path / "run.npz", model)["epoch"] == 4
    assert state_of(model) == [4, 4]
    run, callbacks = counting_run([1, 3, 2, 2.5])
    fit(*run, epochs=4, callbacks=callbacks, **saving)
    assert state_of(run[0]) == [2, 2]


def interrupted(run):
    signal.raise_signal(signal.SIGINT)


def diverged(run):
    run.model.weight.data[:] = math.nan


@pytest.mark.parametrize(
    ("fail", "error", "left"),
    [(interrupted, KeyboardInterrupt, 4), (diverged, FloatingPointError, 3)],
)
def test_after_an_error_or_ctrl_c_the_model_stays_as_it_is_then(fail, error, left):
    class Fails(Callback):
        def before_step(self, run):
            if run.epoch == 4:
                fail(run)

    run, callbacks = counting_run([1, 3, 2, 2])
    with pytest.raises(error):
        fit(*run, epochs=9, callbacks=[*callbacks, Fails()])
    assert state_of(run[0]) == [left, left]


def test_a_parameter_that_is_read_only_is_left_out_of_the_best():
    run, callbacks = counting_run([1, 3, 2])
    run[0].fixed = Parameter([7.0])
    run[0].fixed.data.flags.writeable = False
    run[2].params[:] = [run[0].weight]
    fit(*run, epochs=3, callbacks=callbacks)
    assert state_of(run[0]) == [2, 2, 7]


def test_a_parameter_that_is_read_only_until_later_comes_back_too():
    class Thaws(Callback):
        def before_epoch(self, run):
            run.model.fixed.data.flags.writeable = run.epoch > 1

        def after_step(self, run):
            if run.epoch > 1:
                run.model.fixed.data[:] = run.epoch

    run, callbacks = counting_run([3, 1, 2])
    run[0].fixed = Parameter([7.0])
    run[2].params[:] = [run[0].weight]
    fit(*run, epochs=3, callbacks=[*callbacks, Thaws()])
    assert state_of(run[0]) == [1, 1, 7]


def test_restore_best_is_a_bool():
    with refusal(TypeError, "EarlyStopping: expected restore_best to be a bool, got 1"):
        EarlyStopping(restore_best=1)


def test_learning_rate_refusals():
    contract = "LearningRate: expected schedule to be a function of time"
    with refusal(TypeError, f"{contract}, got 0.1"):
        LearningRate(0.1)
    with refusal(ValueError, 'LearningRate: expected per "epoch" or "step", got \'batch\''):
        LearningRate(abs, "batch")
