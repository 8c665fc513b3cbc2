"""fit with resume: a run goes on bit for bit, or is refused before anything changes."""

import json
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import Killed, KilledAt, bits, refusal, refusal_starting, run_python

from tinygrad_mnist import SGD, DataLoader, Dropout, Linear, Module, MSELoss, Sequential
from tinygrad_mnist.data.transforms import random_shift
from tinygrad_mnist.optim.schedules import step_decay
from tinygrad_mnist.training import Callback, EarlyStopping, History, LearningRate, checkpoint, fit
from tinygrad_mnist.training.checkpoint import CheckpointError


def made(seed=0):
    """Return model, loss, optimizer and loader: an epoch has 3 batches, of 4, 4 and 2 samples."""
    rng = np.random.default_rng(seed)
    model = Sequential(Linear(5, 3, rng=rng), Dropout(0.3, rng=rng))
    inputs, targets = np.random.default_rng(1).random((10, 5)), np.eye(3)[np.arange(10) % 3]
    loader = DataLoader(inputs, targets, batch_size=4, shuffle=True, rng=rng)
    return model, MSELoss(), SGD(model.parameters(), 0.05, momentum=0.9), loader


def state(run):
    """Return every bit of a run, as a string."""
    model, _, optimizer, loader = run
    held = optimizer.state_dict()
    arrays = {**model.state_dict(), **dict(enumerate(held.pop("velocities")))}
    return repr((bits(arrays), held, loader.rng.bit_generator.state))


class Rows(Module):
    """One sample of shape (4, 3, 1) to one of 12 numbers."""

    sample_axes = 3

    def forward(self, x):
        return x.reshape(*x.shape[:-3], 12)

    def backward(self, dy):
        return dy.reshape(*dy.shape[:-1], 4, 3, 1)


def kill(run, path, at, *, epochs=3, every=1, callbacks=(), **options):
    """Leave the checkpoint of a run that ended before a step, counted from 0."""
    saving = {"checkpoint": path, "checkpoint_every": every}
    with pytest.raises(Killed):
        fit(*run, epochs=epochs, callbacks=[*callbacks, KilledAt(at)], **saving, **options)


def killed(path, at=5):
    """Leave the checkpoint of a killed run; return meta, and the objects as it has them."""
    kill(made(), path, at)
    run, history = made(), History()
    meta = checkpoint.load(path, run[0], run[2], run[3], history)
    return meta, (run[0], run[2], run[3], history)


def start(**values):
    """Return a change of the state that the epoch's order was drawn from, a PCG64's."""

    def change(meta):
        outer = meta["position"]["start"]
        for name, value in values.items():
            (outer["state"] if name in outer["state"] else outer)[name] = value

    return change


def position(**values):
    return lambda meta: meta["position"].update(values)


def total(value):
    return lambda meta: meta["position"]["totals"].update(loss=value)


CHANGES = {
    "no position": (lambda m: m.update(position=3), "'int' object is not iterable"),
    "an empty position": (lambda m: m.update(position={}), "a position of "),
    "a list": (lambda m: m.update(position=[*m["position"]]), ""),
    "one more": (position(add=1), "a position of start, batches, samples, n, totals, seconds, add"),
    "one less": (lambda m: m["position"].pop("samples"), "a position of "),
    "no batches": (position(batches=0), "batches = 0"),
    "negative batches": (position(batches=-1), "batches = -1"),
    "too many batches": (position(batches=4), "batches = 4"),
    "far too many batches": (position(batches=10**300), "batches = an integer of more than 80"),
    "fractions of batches": (position(batches=1.5), "batches = 1.5"),
    "batches by name": (position(batches="1"), "batches = '1'"),
    "a true number of batches": (position(batches=True), "batches = True"),
    "an array of batches": (position(batches=np.ones(2)), "batches = an array of shape (2,)"),
    "no samples": (position(samples=0), "samples = 0"),
    "negative samples": (position(samples=-6), "samples = -6"),
    "too many samples": (position(samples=2**63), "samples = 9223372036854775808"),
    "an array of samples": (position(samples=np.ones(2)), "samples = an array of shape (2,)"),
    "nothing to divide by": (position(n=0.0), "n = 0.0"),
    "a negative n": (position(n=-1.0), "n = -1.0"),
    "an n of NaN": (position(n=np.nan), "n = nan"),
    "an infinite n": (position(n=np.inf), "n = inf"),
    "an integer n": (position(n=6), "n = 6"),
    "an array of n": (position(n=np.ones(2)), "n = an array of shape (2,)"),
    "negative seconds": (position(seconds=-1.0), "seconds = -1.0"),
    "seconds without end": (position(seconds=np.inf), "seconds = inf"),
    "seconds by name": (position(seconds="1"), "seconds = '1'"),
    "no totals": (position(totals=None), ""),
    "a list of totals": (position(totals=[1.0]), ""),
    "a total by name": (total("1.0"), "a total loss = '1.0'"),
    "an integer total": (total(1), "a total loss = 1"),
    "a total of NaN": (total(np.nan), "a total loss = nan"),
    "an infinite total": (total(-np.inf), "a total loss = -inf"),
    "an array of totals": (total(np.ones(2)), "a total loss = an array of shape (2,)"),
    "no epoch": (lambda m: m.pop("epoch"), "'epoch'"),
    "an epoch by name": (lambda m: m.update(epoch="2"), "epoch = '2'"),
    "a list of epochs": (lambda m: m.update(epoch=[2]), "epoch = a list"),
    "an epoch that has ended": (lambda m: m.update(epoch=1), "epoch = 1"),
    "an epoch that has not begun": (lambda m: m.update(epoch=3), "epoch = 3"),
    "steps by name": (lambda m: m.update(step="5"), "step = '5'"),
    "steps beyond a float": (lambda m: m.update(step=10**308), "step = an integer of more"),
    "negative steps": (lambda m: m.update(step=-1), "step = -1"),
    "an array of stops": (
        lambda m: m.update(stopped=np.ones(2)),
        "stopped = an array of shape (2,)",
    ),
    "stopped by name": (lambda m: m.update(stopped="no"), "stopped = 'no'"),
    "a state of callbacks by name": (lambda m: m.update(state="no"), "state = 'no'"),
    "another generator": (start(bit_generator="SFC64"), "a state of another generator than dict"),
    "a state of zeros": (start(inc=0, state=0), "a state of PCG64 with an even inc"),
    "an even increment": (start(inc=2), "a state of PCG64 with an even inc"),
    "a negative state": (start(state=-1), "a state with state = -1"),
    "a state of 129 bits": (start(state=2**128), f"a state with state = {2**128}"),
    "an increment of 129 bits": (start(inc=2**128 + 1), f"a state with inc = {2**128 + 1}"),
    "half a number in reserve": (start(has_uint32=2), "a state with has_uint32 = 2"),
    "a reserve of 33 bits": (start(uinteger=2**32), "a state with uinteger = 4294967296"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_run_cannot_go_on_from_is_refused_and_nothing_changes(tmp_path, name):
    change, found = CHANGES[name]
    path, other = tmp_path / "run.npz", made(seed=3)
    meta, objects = killed(path)
    change(meta)
    checkpoint.save(path, *objects, **meta)
    before, written = state(other), path.read_bytes()
    contract = f"{path} to say where in an epoch it was written"
    with refusal_starting(CheckpointError, f"fit: expected {contract}, got {found}"):
        fit(*other, epochs=3, checkpoint=path, resume=True)
    assert state(other) == before
    assert path.read_bytes() == written


@pytest.mark.parametrize("records", [[], [{"epoch": 1}] * 2])
def test_a_history_of_another_length_than_the_position_says_is_refused(tmp_path, records):
    path, other = tmp_path / "run.npz", made(seed=3)
    meta, (*objects, _) = killed(path)
    checkpoint.save(path, *objects, History(records), **meta)
    before = state(other)
    contract = f"{path} to say where in an epoch it was written"
    with refusal(CheckpointError, f"fit: expected {contract}, got epoch = 2"):
        fit(*other, epochs=3, checkpoint=path, resume=True)
    assert state(other) == before


def test_a_run_that_measures_something_else_is_refused_and_nothing_changes(tmp_path):
    path = tmp_path / "run.npz"
    fit(*made(), epochs=1, checkpoint=path)
    run = made(seed=3)
    before, loader = state(run), run[3]
    told = f"fit: expected the metrics and the validation of {path}, epoch, lr, loss, accuracy"
    with refusal_starting(CheckpointError, told) as caught:
        fit(
            *run, epochs=2, checkpoint=path, resume=True, validation=(loader.inputs, loader.targets)
        )
    assert str(caught.value).endswith(
        "got epoch, lr, loss, accuracy, val_loss, val_accuracy, seconds"
    )
    assert state(run) == before


def mean_error(pred, target):
    return np.abs(pred - target).mean()


@pytest.mark.parametrize("metrics", [(), (mean_error,), ("accuracy", mean_error)])
def test_resuming_within_an_epoch_with_other_metrics_is_refused(tmp_path, metrics):
    path, other = tmp_path / "run.npz", made(seed=3)
    killed(path, 4)
    before = state(other)
    names = [getattr(metric, "__name__", metric) for metric in metrics]
    contract = f"the metrics of {path}, ['accuracy'], within an epoch"
    with refusal(CheckpointError, f"fit: expected {contract}, got {names}"):
        fit(*other, epochs=3, checkpoint=path, resume=True, metrics=metrics)
    assert state(other) == before


def test_resuming_with_fewer_epochs_than_were_begun_is_refused(tmp_path):
    path, other = tmp_path / "run.npz", made(seed=3)
    killed(path, 4)
    before = state(other)
    with refusal(ValueError, f"fit: expected epochs >= 2, which {path} has begun, got 1"):
        fit(*other, epochs=1, checkpoint=path, resume=True)
    assert state(other) == before


def test_resuming_another_run_is_refused(tmp_path):
    saving = {"checkpoint": tmp_path / "run.npz", "resume": True}
    fit(*made(), epochs=1, **saving)
    other = made(seed=3)
    other[3].batch_size = 5
    before = state(other)
    with pytest.raises(CheckpointError, match="'batch_size': 4.*not.*'batch_size': 5"):
        fit(*other, epochs=2, **saving)
    assert state(other) == before


def test_a_refused_resume_changes_nothing(tmp_path):
    saving = {"checkpoint": tmp_path / "run.npz", "resume": True}
    fit(*made(), epochs=1, **saving)
    other = made(seed=3)
    before = state(other)
    text = (
        "fit: expected metrics of accuracy or top_k_accuracy or mean_absolute_error, or functions"
    )
    with refusal_starting(ValueError, text):
        fit(*other, epochs=2, metrics=["loss"], **saving)
    assert state(other) == before


def assert_resumed_bit_for_bit(new_run, path, at):
    """Compare a run that stops at a step, and is resumed, with one that goes on."""
    whole, other = new_run(), new_run()
    history = fit(*whole, epochs=3)
    kill(new_run(), path, at)
    assert fit(*other, epochs=3, checkpoint=path, resume=True) == history
    assert state(other) == state(whole)


def settings(run):
    loader = run[3]
    rate = LearningRate(step_decay(0.2, every=1, factor=0.9))
    return {
        "epochs": 4,
        "validation": DataLoader(loader.inputs, loader.targets, batch_size=4),
        "callbacks": [rate, EarlyStopping(patience=3)],
    }


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2, None])
@pytest.mark.parametrize("at", range(12))
def test_a_killed_run_resumes_bit_for_bit(tmp_path, at, every):
    path, whole, run = tmp_path / "run.npz", made(), made()
    history = fit(*whole, **settings(whole))
    kill(run, path, at, every=every, **settings(run))
    written = at >= (every or 3)
    assert path.exists() == written

    # whatever it is resumed with, the file decides
    resumed = made(seed=7 if written else 0)
    assert fit(*resumed, **settings(resumed), checkpoint=path, resume=True) == history
    assert state(resumed) == state(whole)


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["compiled"]])
def test_kill_9_at_random_moments_loses_nothing(how):
    """The whole test kills 50 times: python tests/training/kill_and_resume.py 50."""
    if how:
        pytest.importorskip("numba")
    done = run_python(Path(__file__).with_name("kill_and_resume.py"), 3, *how)
    assert done.stderr == ""
    assert re.fullmatch(r"3 kills in \d+ runs: all bits the same\n", done.stdout)


def test_a_loader_that_draws_for_each_batch_resumes_too(tmp_path):
    class Noisy(DataLoader):
        def __iter__(self):
            for x, t in super().__iter__():
                yield x + self.rng.normal(0, 0.1, x.shape), t

    def noisy():
        *run, loader = made()
        return *run, Noisy(loader.inputs, loader.targets, 4, shuffle=True, rng=loader.rng)

    assert_resumed_bit_for_bit(noisy, tmp_path / "run.npz", 5)


def test_an_epoch_resumed_is_not_begun_again(tmp_path):
    class Halves(Callback):
        def before_epoch(self, run):
            run.optimizer.lr /= 2

    whole = fit(*made(), epochs=3, callbacks=[Halves()])
    kill(made(), tmp_path / "run.npz", 4, callbacks=[Halves()])
    saving = {"checkpoint": tmp_path / "run.npz", "resume": True}
    assert fit(*made(), epochs=3, callbacks=[Halves()], **saving) == whole


def test_a_finished_run_is_not_trained_again(tmp_path):
    saving = {"checkpoint": tmp_path / "run.npz", "resume": True}
    run = made()
    history = fit(*run, epochs=2, **saving)
    before = state(run)
    assert fit(*run, epochs=2, **saving) == history
    assert state(run) == before
    assert History(fit(*run, epochs=3, **saving).records[:2]) == history


def test_a_stop_is_remembered(tmp_path):
    class Enough(Callback):
        def after_epoch(self, run):
            run.stop()

    saving = {"checkpoint": tmp_path / "run.npz", "callbacks": [Enough()]}
    first = fit(*made(), epochs=5, **saving)
    assert len(first.records) == 1
    assert fit(*made(), epochs=5, resume=True, **saving) == first


def test_a_checkpoint_saved_by_hand_can_be_resumed(tmp_path):
    path, run, other = tmp_path / "run.npz", made(), made(seed=3)
    model, _, optimizer, loader = run
    checkpoint.save(path, model, optimizer, loader, History())
    assert fit(*other, epochs=2, checkpoint=path, resume=True) == fit(*run, epochs=2)
    assert state(other) == state(run)


def test_a_checkpoint_never_holds_what_is_not_finite(tmp_path):
    run = made()
    steps = 0

    def explodes():
        nonlocal steps
        steps += 1
        run[0][0].weight.data[...] = np.nan if steps == 5 else 1.0

    run[2].step = explodes
    path = tmp_path / "run.npz"
    with pytest.raises(FloatingPointError, match="in batch 3 of epoch 2"):
        fit(*run, epochs=4, checkpoint=path, checkpoint_every=1)
    model, *_ = made()
    assert checkpoint.load(path, model)["position"]["batches"] == 1
    assert np.isfinite(model[0].weight.data).all()


@pytest.mark.parametrize("at", range(9))
def test_a_run_whose_loader_transforms_is_resumed_bit_for_bit_from_any_step(tmp_path, at):
    """Orders, shifts and masks come from one generator; an epoch has three batches."""

    def shifting():
        rng = np.random.default_rng(0)
        model = Sequential(Dropout(0.3, rng=rng), Rows(), Linear(12, 2, rng=rng))
        images = np.random.default_rng(1).random((10, 4, 3, 1))
        loader = DataLoader(
            images, np.eye(2)[[0, 1] * 5], 4, shuffle=True, rng=rng, transform=random_shift(2)
        )
        return model, MSELoss(), SGD(model.parameters(), 0.05, momentum=0.9), loader

    assert_resumed_bit_for_bit(shifting, tmp_path / "run.npz", at)


class Noise:
    """A transform with a generator of its own."""

    def __init__(self):
        self.rng = np.random.default_rng(2)

    def __call__(self, x, rng):
        return x + self.rng.random(x.shape)


def plus(draw, x, rng):
    return x + draw(x.shape)


def noised(x, rng, own):
    return x + own.random(x.shape)


OWN = {
    "object": lambda noise: noise,
    "method": lambda noise: noise.__call__,
    "partial": lambda noise: partial(plus, noise.rng.random),
    "keyword": lambda noise: partial(noised, own=noise.rng),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_transform_that_draws_from_its_own_generator_is_resumed_bit_for_bit(tmp_path, name, at):
    noises = []

    def noisy():
        run = made()
        noises.append(Noise())
        run[3].transform = OWN[name](noises[-1])
        return run

    assert_resumed_bit_for_bit(noisy, tmp_path / "run.npz", at)
    assert noises[0].rng.random() == noises[1].rng.random()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_metric_that_is_not_finite_is_resumed_too(tmp_path, value):
    """Such as the precision of a class that one batch does not have."""

    def odd(pred, target):
        return value if len(pred) == 4 else 1.0

    path, other = tmp_path / "run.npz", made(seed=3)
    kill(made(), path, 5, epochs=2, metrics=[odd])
    history = fit(*other, epochs=2, metrics=[odd], checkpoint=path, resume=True)
    assert repr(history.column("odd")) == repr(fit(*made(), epochs=2, metrics=[odd]).column("odd"))


def test_what_was_not_changed_is_resumed(tmp_path):
    """The tests above would pass if everything were refused."""
    path, other, whole = tmp_path / "run.npz", made(seed=3), made()
    meta, objects = killed(path)
    checkpoint.save(path, *objects, **meta)
    assert fit(*other, epochs=3, checkpoint=path, resume=True) == fit(*whole, epochs=3)
    assert state(other) == state(whole)


@pytest.mark.parametrize("seconds", [1000.0, None])
def test_an_epoch_resumed_counts_the_seconds_before(tmp_path, seconds):
    """Files of the first version do not have them."""
    path = tmp_path / "run.npz"
    meta, objects = killed(path)
    assert 0 < meta["position"].pop("seconds") < 100
    if seconds:
        meta["position"]["seconds"] = seconds
    checkpoint.save(path, *objects, **meta)
    took = fit(*made(), epochs=3, checkpoint=path, resume=True).column("seconds")
    assert 0 < took[1] - (seconds or 0) < 100
    assert 0 < took[2] < 100


def test_a_file_that_another_run_replaces_meanwhile_is_read_once(tmp_path, monkeypatch):
    path, later, whole = tmp_path / "run.npz", tmp_path / "later.npz", made()
    killed(path, at=4)
    killed(later, at=7)
    load, replaced = json.loads, []

    def meanwhile(text):  # at the latest when the file's tree is read, its bytes have been
        if not replaced:
            replaced.append(os.replace(later, path))
        return load(text)

    monkeypatch.setattr(json, "loads", meanwhile)
    other = made(seed=3)
    history = fit(*other, epochs=3, checkpoint=path, resume=True)
    assert replaced
    assert history == fit(*whole, epochs=3)
    assert state(other) == state(whole)


@pytest.mark.skipif(os.name != "posix", reason="needs pipes and links")
@pytest.mark.parametrize(
    ("kind", "error"), [("pipe", ValueError), ("link to nowhere", FileNotFoundError)]
)
def test_a_path_that_cannot_be_written_later_is_refused_before_training(tmp_path, kind, error):
    path, run = tmp_path / "run.npz", made()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "no" / "run.npz")
    before = state(run)
    contract = "checkpoint to be a file, in a folder that is there"
    with refusal(error, f"fit: expected {contract}, got {str(path)!r}"):
        fit(*run, epochs=1, checkpoint=path)
    assert state(run) == before
