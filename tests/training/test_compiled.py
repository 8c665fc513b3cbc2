"""fit with compiled=True against fit without: whatever a user sees is the same, up to rounding."""

import io
import signal
import sys
from functools import partial

import numpy as np
import pytest
from helpers import Killed, bits, refusal, run_python
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist import (
    SGD,
    Adam,
    Conv2d,
    CrossEntropyLoss,
    DataLoader,
    Dropout,
    Flatten,
    HuberLoss,
    Linear,
    MaxPool2d,
    MSELoss,
    ReLU,
    Sequential,
    Tanh,
    Unflatten,
    num_threads,
)
from tinygrad_mnist.optim import Groups
from tinygrad_mnist.optim.schedules import one_cycle
from tinygrad_mnist.testing.strategies import seeds
from tinygrad_mnist.training import Callback, ClipGradients, History, LearningRate, checkpoint, fit

pytest.importorskip("numba")
from tinygrad_mnist.compiled.trainer import Trainer
from tinygrad_mnist.training import _compiled, _progress

OPTIMIZERS = [
    {"momentum": 0.0},
    {"momentum": 0.9},
    {"momentum": 0.5, "weight_decay": 0.01, "nesterov": True},
]
LOSSES = [
    lambda: MSELoss("batchmean"),
    lambda: MSELoss("sum"),
    lambda: CrossEntropyLoss(class_weight=[3, 0.5, 2]),
    lambda: CrossEntropyLoss(label_smoothing=0.1),
]
SIZES = [None, 1, 3, 4]


def noisy(x, rng):
    return x + 0.1 * rng.standard_normal(x.shape)


def rows(rng, width):
    return Sequential(
        Flatten(2),
        Linear(6, width, rng=rng, dtype=np.float64),
        ReLU(),
        Dropout(0.3, rng=rng),
        Linear(width, 3, rng=rng, dtype=np.float64),
        Dropout(0.1, rng=rng),
    )


def images(rng, width):
    return Sequential(
        Conv2d(1, 2, 3, rng=rng),
        ReLU(),
        MaxPool2d(),
        Dropout(0.3, rng=rng),
        Flatten(),
        Linear(8, width, rng=rng),
        Dropout(0.1, rng=rng),
        ReLU(),
        Linear(width, 3, rng=rng),
    ).astype(np.float64)


SHAPES = {rows: (2, 3), images: (6, 7, 1)}


def made(seed=0, loss=None, batch_size=1, net=rows, width=8, **options):
    """Return model, loss, optimizer and loader of 10 samples, with one generator for all."""
    rng = np.random.default_rng(seed)
    model, loss, data = net(rng, width), loss or MSELoss(), np.random.default_rng(1)
    x, t = data.standard_normal((10, *SHAPES[net])), data.integers(0, 3, 10)
    t = t if isinstance(loss, CrossEntropyLoss) else np.eye(3)[t]
    loading = {k: options.pop(k) for k in ("transform", "drop_last", "shuffle") if k in options}
    loader = DataLoader(x, t, batch_size, rng=rng, **{"shuffle": True, **loading})
    options = {"lr": 0.01 if net is rows else 0.001, "momentum": 0.9, **options}
    return model, loss, SGD(model.parameters(), **options), loader


def repeated(run, times):
    """Return the run with as many times its samples."""
    *others, old = run
    x, t = (array.repeat(times, axis=0) for array in (old.inputs, old.targets))
    loader = DataLoader(x, t, old.batch_size, old.shuffle, old.drop_last, old.rng, old.transform)
    return *others, loader


def chunks_of(monkeypatch, samples):
    monkeypatch.setattr(_compiled, "CHUNK", samples)


def state(run):
    """Return the arrays of a run, and what else it has, exactly."""
    model, _, optimizer, loader = run
    held = optimizer.state_dict()
    arrays = {**model.state_dict(), **dict(enumerate(held.pop("velocities")))}
    modes = [module.training for module in model.modules()]
    return arrays, (held, modes, loader.rng.bit_generator.state)


def assert_alike(run, eager):
    """Compare to rounding what are numbers, and exactly what is drawn and set."""
    (found, exact), (wanted, wanted_exact) = state(run), state(eager)
    assert exact == wanted_exact
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, wanted[name], rtol=1e-9, atol=1e-12)


def assert_same_bits(run, other):
    (found, exact), (wanted, wanted_exact) = state(run), state(other)
    assert exact == wanted_exact
    assert bits(found) == bits(wanted)


def assert_records_alike(found, wanted):
    assert [list(record) for record in found] == [list(record) for record in wanted]
    for record, other in zip(found, wanted, strict=True):
        assert timeless(record) == pytest.approx(timeless(other), rel=1e-9)


def timeless(record):
    return {**record, "seconds": 0}


@given(
    seed=seeds(),
    net=st.sampled_from([rows, images]),
    make_loss=st.sampled_from(LOSSES),
    options=st.sampled_from(OPTIMIZERS),
    batch_size=st.sampled_from(SIZES),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    transform=st.sampled_from([None, noisy]),
    per=st.sampled_from(["step", "epoch"]),
    chunk=st.sampled_from([1, 4, 1024]),
)
@settings(max_examples=40)
def test_a_compiled_run_is_the_eager_one(
    seed, net, make_loss, options, batch_size, shuffle, drop_last, transform, per, chunk
):
    rate = one_cycle(0.01, steps=20) if per == "step" else (lambda epoch: 0.01 / (epoch + 1))
    loading = {"shuffle": shuffle, "drop_last": drop_last, "transform": transform}
    runs, histories = [], []
    for compiled in (True, False):
        run = made(seed, make_loss(), batch_size, net, **options, **loading)
        run[0][3].eval()
        with pytest.MonkeyPatch.context() as patch:
            chunks_of(patch, chunk)
            histories.append(
                fit(
                    *run,
                    epochs=2,
                    validation=(run[3].inputs, run[3].targets),
                    callbacks=[LearningRate(rate, per)],
                    compiled=compiled,
                )
            )
        runs.append(run)
    assert_alike(*runs)
    assert_records_alike(*(history.records for history in histories))
    assert all(not p.grad.any() for p in runs[0][0].parameters())


def test_in_float32_it_is_the_eager_run_too():
    records = []
    for compiled in (True, False):
        model, loss, optimizer, loader = made()
        history = fit(
            model.astype(np.float32), loss, optimizer, loader, epochs=3, compiled=compiled
        )
        records.append(history.records)
    for record, other in zip(*records, strict=True):
        assert timeless(record) == pytest.approx(timeless(other), rel=1e-4)


@pytest.mark.parametrize("net", [rows, images])
@pytest.mark.parametrize("batch_size", SIZES)
@pytest.mark.parametrize("transform", [None, noisy])
def test_the_size_of_a_chunk_changes_no_bit(monkeypatch, net, batch_size, transform):
    runs, histories = [], []
    for chunk in (1, 49, 1024):
        chunks_of(monkeypatch, chunk)
        runs.append(repeated(made(0, None, batch_size, net, transform=transform), 10))
        metrics = ["accuracy", "mean_absolute_error"]
        histories.append(fit(*runs[-1], epochs=2, metrics=metrics, compiled=True))
    assert histories[0] == histories[1] == histories[2]
    for run in runs[1:]:
        assert_same_bits(run, runs[0])


def test_accuracy_counts_whole_samples(monkeypatch):
    chunks_of(monkeypatch, 49)
    assert 1 / 49 * 49 != 1
    model, x, t = Linear(2, 2, rng=0), np.eye(2)[[0] * 64], np.eye(2)[[0] + 63 * [1]]
    model.weight.data = np.eye(2)
    run = model, MSELoss(), SGD(model.parameters(), 0.0), DataLoader(x, t)
    assert fit(*run, epochs=1, compiled=True).records[0]["accuracy"] == 1 / 64


class Kills:
    """Another noise, which ends the run at its n-th call."""

    def __init__(self, at, error=Killed):
        self.left, self.error = at, error

    def __call__(self, x, rng):
        self.left -= 1
        if not self.left:
            raise self.error
        return noisy(x, rng)


def resumed_after_a_kill(path, made, every, compiled=(True, True)):
    """Return a run that was killed, then resumed; one that was not; and what both recorded.

    It is killed before the last batch of the second epoch, which has perhaps fewer samples.
    """
    steps = len(made(0)[3])
    killed, resumed, whole = (
        made(seed, transform=Kills(at)) for seed, at in ((0, 2 * steps), (7, -1), (0, -1))
    )
    saving = {"checkpoint": path, "checkpoint_every": every}
    with pytest.raises(Killed):
        fit(*killed, epochs=3, compiled=compiled[0], **saving)
    written = (steps - 1) // every * every if every else 0
    assert checkpoint.load(path)["step"] == steps + written
    records = fit(*resumed, epochs=3, compiled=compiled[1], resume=True, **saving).records
    return resumed, whole, records, fit(*whole, epochs=3, compiled=True).records


@pytest.mark.parametrize("every", [1, 3, None])
@pytest.mark.parametrize("batch_size", SIZES)
@pytest.mark.parametrize(("net", "threads"), [(rows, 1), (rows, 2), (images, 2)])
def test_a_killed_run_resumes_bit_for_bit(tmp_path, every, batch_size, net, threads):
    make = partial(made, batch_size=batch_size, net=net, width=60)
    with num_threads(threads):
        resumed, whole, records, wanted = resumed_after_a_kill(tmp_path / "run", make, every)
    assert History(records) == History(wanted)
    assert_same_bits(resumed, whole)


@pytest.mark.parametrize("compiled", [(True, False), (False, True)], ids=str)
@pytest.mark.parametrize("every", [1, None])
@pytest.mark.parametrize("net", [rows, images])
def test_a_run_may_go_on_in_the_other_loop(tmp_path, compiled, every, net):
    make = partial(made, batch_size=4, net=net)
    run, whole, records, wanted = resumed_after_a_kill(tmp_path / "run", make, every, compiled)
    assert_records_alike(records, wanted)
    assert_alike(run, whole)


@pytest.mark.parametrize("every", [4, 5])
def test_checkpoints_are_written_after_the_same_batches(tmp_path, monkeypatch, every):
    written = {True: [], False: []}

    def save(path, model, optimizer, loader, history, **meta):
        at = meta["position"]
        where = meta["epoch"], meta["step"], at and (at["batches"], at["samples"])
        totals = [*at["totals"].values()] if at else []
        now = loader.rng.bit_generator.state
        written[compiled].append((where, now, [model[1].weight.data.sum(), *totals]))

    monkeypatch.setattr(checkpoint, "save", save)
    for compiled in written:
        fit(
            *made(),
            epochs=2,
            checkpoint=tmp_path / "run.npz",
            checkpoint_every=every,
            compiled=compiled,
        )
    assert len(written[True]) == 6
    for (where, now, sums), (where_, now_, sums_) in zip(*written.values(), strict=True):
        assert (where, now) == (where_, now_)
        assert sums == pytest.approx(sums_, rel=1e-9)


class Meddles(Callback):
    """Looks at the model before and after each step, and changes what a step depends on."""

    def __init__(self):
        self.seen = []

    def before_step(self, run):
        model, optimizer = run.model, run.optimizer
        velocities = optimizer.state_dict()["velocities"]
        self.seen.append(
            [run.step, *(float(a.sum()) for a in velocities), model[1].weight.data[0, 0]]
        )
        model[1].weight.data *= 0.9
        model[3].p = 0.1 * (run.step % 4)
        optimizer.momentum, optimizer.lr = 0.1 * (run.step % 3), 0.01 * run.step
        model[5].train(run.step % 2 == 0)

    def after_step(self, run):
        self.seen.append([run.step, run.loss, run.model[1].weight.data[0, 0]])
        run.model[1].weight.data += 0.1


@pytest.mark.parametrize("transform", [None, noisy])
def test_a_callback_may_look_at_the_model_around_each_step_and_change_it(transform):
    runs = [made(transform=transform), made(transform=transform)]
    meddling = [Meddles(), Meddles()]
    histories = [
        fit(*run, epochs=2, callbacks=[callback], compiled=compiled)
        for run, callback, compiled in zip(runs, meddling, (True, False), strict=True)
    ]
    assert len(meddling[0].seen) == 40
    for found, wanted in zip(*(callback.seen for callback in meddling), strict=True):
        assert found == pytest.approx(wanted, rel=1e-9)
    assert_alike(*runs)
    assert_records_alike(*(history.records for history in histories))


class Sets:
    """A schedule per step that sets all the other settings, too."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def __call__(self, step):
        momentum, decay, nesterov = [
            (0.0, 0.0, False),
            (0.0, 0.1, False),
            (0.0, 0.1, False),
            (0.9, 0.0, False),
            (0.5, 0.0, True),
            (0.5, 0.01, True),
            (0.9, 0.0, False),
        ][step % 7]
        self.optimizer.momentum, self.optimizer.weight_decay = momentum, decay
        self.optimizer.nesterov = nesterov
        return 0.001 * (step % 7 + 1)


@pytest.mark.parametrize("net", [rows, images])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("transform", [None, noisy])
def test_a_schedule_may_set_all_settings_at_each_step(net, batch_size, transform):
    runs, histories = [], []
    for compiled in (True, False):
        run = made(net=net, batch_size=batch_size, transform=transform, momentum=0.0)
        rates = LearningRate(Sets(run[2]), per="step")
        histories.append(fit(*run, epochs=2, callbacks=[rates], compiled=compiled).records)
        runs.append(run)
    assert_alike(*runs)
    assert_records_alike(*histories)


def test_velocities_that_wait_while_there_is_no_momentum_go_on():
    runs = []
    for compiled in (True, False):
        run = made()
        fit(*run, epochs=1, compiled=compiled)
        for momentum in (0.0, 0.9):
            run[2].momentum = momentum
            fit(*run, epochs=1, compiled=compiled)
        runs.append(run)
    assert_alike(*runs)


def test_a_transform_may_set_momentum_between_two_batches():
    runs = []
    for compiled in (True, False):
        *others, optimizer, loader = made(momentum=0.0)
        momenta = iter([0.0] * 3 + [0.9] * 7)

        def unchanged(x, rng, optimizer=optimizer, momenta=momenta):
            optimizer.momentum = next(momenta)
            return x

        loader.transform = unchanged
        runs.append((*others, optimizer, loader))
        fit(*runs[-1], epochs=1, compiled=compiled)
    assert_alike(*runs)


def test_an_instance_may_have_its_own_before_step():
    seen = []
    callback = LearningRate(lambda t: 0.1)
    callback.before_step = lambda run: seen.append(run.model[1].weight.data.sum())
    fit(*made(), epochs=1, callbacks=[callback], compiled=True)
    assert len(set(seen)) == 10


def test_a_callback_after_each_step_alone_finds_its_weights_and_loss():
    class Sees(Callback):
        def after_step(self, run):
            seen[compiled].append([run.step, run.loss, run.model[1].weight.data[0, 0]])

    seen = {True: [], False: []}
    for compiled in seen:
        fit(*made(), epochs=1, callbacks=[Sees()], compiled=compiled)
    assert len(seen[True]) == 10
    for found, wanted in zip(*seen.values(), strict=True):
        assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("batch_size", SIZES)
def test_a_metric_of_the_users_is_called_with_each_batch_in_order(batch_size):
    calls = {True: [], False: []}

    def first(y, t):
        calls[compiled].append((1, np.shape(y), y.sum(), t))
        return float(y.sum())

    def second(y, t):
        calls[compiled].append((2, np.shape(y), y.sum(), t))
        return 2

    histories = []
    for compiled in calls:
        run = made(loss=CrossEntropyLoss(), batch_size=batch_size)
        metrics = [first, "accuracy", second]
        histories.append(fit(*run, epochs=2, metrics=metrics, compiled=compiled).records)
    for call, eager in zip(*calls.values(), strict=True):
        assert call[:2] == eager[:2]
        assert call[2] == pytest.approx(eager[2], rel=1e-9)
        assert np.array_equal(call[3], eager[3])
        assert np.ndim(call[3]) == np.ndim(eager[3])
    assert_records_alike(*histories)


def steps_of(run, steps, **options):
    """Make so many eager steps of a run on a loader that ends then, as if by an error."""
    run[3].transform = Kills(steps + 1)
    with pytest.raises(Killed):
        fit(*run, epochs=9, **options)
    return run


@pytest.mark.parametrize("steps", [0, 7, 14])
def test_a_transform_that_raises_leaves_what_the_steps_before_made(steps):
    run, eager = made(), made()
    run[3].transform = Kills(steps + 1, ValueError("no"))
    with pytest.raises(ValueError, match="^no$"):
        fit(*run, epochs=9, compiled=True)
    assert_alike(run, steps_of(eager, steps))


def test_a_metric_that_raises_leaves_the_model_as_after_some_steps(monkeypatch):
    chunks_of(monkeypatch, 4)
    calls = []

    def second(y, t):
        calls.append(1)
        return "two" if len(calls) == 6 else 1

    run = made(transform=noisy)
    with refusal(TypeError, "second: expected a metric to be one number, got 'two'"):
        fit(*run, epochs=9, metrics=[second], compiled=True)
    assert_alike(run, steps_of(made(), 8))


def test_after_two_errors_the_steps_are_made_too():
    def third(y, t):
        calls.append(1)
        return "three" if len(calls) == 3 else 1

    calls, run = [], made(transform=Kills(8, ValueError("no")))
    with refusal(TypeError, "third: expected a metric to be one number, got 'three'") as caught:
        fit(*run, epochs=9, metrics=[third], compiled=True)
    assert str(caught.value.__context__) == "no"
    assert_alike(run, steps_of(made(), 7))


@pytest.mark.parametrize("labels_first", [True, False])
def test_targets_may_be_labels_in_one_batch_and_rows_in_the_next(labels_first):
    runs, histories = [], []
    for compiled in (True, False):
        run = made(loss=CrossEntropyLoss(), shuffle=False)
        pairs = [
            (x, t if (i % 3 == 0) == labels_first else np.eye(3)[t])
            for i, (x, t) in enumerate(run[3])
        ]
        records = fit(*run[:3], pairs, epochs=2, metrics=["accuracy"], compiled=compiled).records
        histories.append(records)
        runs.append(run)
    assert_alike(*runs)
    assert_records_alike(*histories)


def test_an_error_before_a_kernel_loses_no_step(monkeypatch):
    chunks_of(monkeypatch, 4)
    train, calls = Trainer.train, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*args)

    monkeypatch.setattr(Trainer, "train", interrupted)
    run = made(transform=noisy)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(*run, epochs=3, compiled=True)
    assert "after step 8." in caught.value.__notes__[0]
    assert_alike(run, steps_of(made(), 8))


@pytest.mark.parametrize("presses", [2, 3])
def test_two_ctrl_c_while_a_kernel_runs_wait_for_its_end(monkeypatch, presses):
    train, calls = Trainer.train, []

    def pressed(*args):
        calls.append(1)
        done = train(*args)
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)
        return done

    chunks_of(monkeypatch, 4)
    monkeypatch.setattr(Trainer, "train", pressed)
    run = made(transform=noisy)
    with pytest.raises(KeyboardInterrupt):
        fit(*run, epochs=3, compiled=True)
    assert calls == [1]
    assert_alike(run, steps_of(made(), 4))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_comes_to_its_end(monkeypatch):
    chunks_of(monkeypatch, 30)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(_progress, "_DELAY", 0)
    monkeypatch.setattr(_progress, "_EVERY", 0)
    (record,) = fit(*repeated(made(), 10), epochs=1, compiled=True).records
    bars = [part for part in sys.stderr.getvalue().split("\r") if "left" in part]
    numbers = f"loss {record['loss']:.4f}  accuracy {record['accuracy']:.4f}"
    assert bars[-1].startswith(f"epoch 1/1  {numbers} 100% |")


class Refilled:
    """An iterable that yields the same two arrays again and again."""

    def __init__(self, x, t):
        self.x, self.t = x, t

    def __iter__(self):
        x, t = np.empty_like(self.x[:1]), np.empty_like(self.t[:1])
        for i in range(len(self.x)):
            x[:], t[:] = self.x[i], self.t[i]
            yield x, t


@pytest.mark.parametrize("form", ["refilled", "list", "bare", "lists", "generator"])
def test_any_iterable_of_pairs_will_do(form):
    histories, runs = [], []
    for compiled in (True, False):
        run = made(shuffle=False)
        loader = run[3]
        bare = [(x[0], t[0]) for x, t in loader]
        data = {
            "refilled": Refilled(loader.inputs, loader.targets),
            "list": list(loader),
            "bare": bare,
            "lists": [(x.tolist(), t.tolist()) for x, t in loader],
            "generator": (pair for pair in list(loader)),
        }[form]
        epochs = 1 if form == "generator" else 2
        histories.append(fit(*run[:3], data, epochs=epochs, compiled=compiled).records)
        runs.append(run)
    assert_alike(*runs)
    assert_records_alike(*histories)


class OneHot(DataLoader):
    """Has labels, and yields rows of one hot number, always in the same array."""

    def __iter__(self):
        row = np.empty((1, 3))
        for x, t in super().__iter__():
            row[:] = np.eye(3)[t - 1]
            yield x, row


def in_one_array():
    """Return a transform that always returns the same array."""
    y = np.empty((1, 2, 3))

    def doubled(x, rng):
        return np.multiply(x, 2, out=y)

    return doubled


@pytest.mark.parametrize("cls", [DataLoader, OneHot])
@pytest.mark.parametrize("transform", [None, in_one_array()])
def test_a_loader_may_yield_what_it_likes(cls, transform):
    runs = []
    for compiled in (True, False):
        model, loss, optimizer, loader = made(loss=CrossEntropyLoss())
        t = loader.targets + (cls is OneHot)
        loader = cls(loader.inputs, t, 1, shuffle=True, rng=loader.rng, transform=transform)
        runs.append((model, loss, optimizer, loader))
        fit(*runs[-1], epochs=2, metrics=(), compiled=compiled)
    assert_alike(*runs)


def diverging(dtype):
    """Return a run of 200 samples, one matrix, and a rate that is too large from epoch 2 on."""
    x, t = np.random.default_rng(1).standard_normal((2, 200, 3)).astype(dtype)
    model = Linear(3, 3, rng=0, dtype=dtype)
    return model, MSELoss("sum"), SGD(model.parameters(), 0.01), DataLoader(x, t)


def with_a_bad_sample(dtype, x=0.0, t=0.0):
    model, loss, optimizer, loader = diverging(dtype)
    inputs, targets = loader.inputs.copy(), loader.targets.copy()
    inputs[107, 0], targets[107, 1] = x, t
    return model, loss, optimizer, DataLoader(inputs, targets)


BAD = [{}, {"x": np.nan}, {"x": -np.inf}, {"t": 1e30}, {"t": np.nan}]


@pytest.mark.parametrize("bad", BAD, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loss_that_is_no_number_is_found_in_the_same_batch(monkeypatch, bad, dtype):
    chunks_of(monkeypatch, 50)
    bad = {k: v**10 if dtype == np.float64 else v for k, v in bad.items()}
    errors, runs = [], []
    for compiled in (True, False):
        run = with_a_bad_sample(dtype, **bad) if bad else diverging(dtype)
        rates = LearningRate(lambda epoch: 5.0 if epoch and not bad else 0.01)
        with np.errstate(all="ignore"), pytest.raises(FloatingPointError) as caught:
            fit(*run, epochs=3, callbacks=[rates], compiled=compiled)
        errors.append((str(caught.value), caught.value.__notes__))
        runs.append(run)
    assert errors[0] == errors[1]
    assert "in batch 108 of epoch 1" in errors[0][0] or not bad
    for a, b in zip(*(run[0].parameters() for run in runs), strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-4 if dtype == np.float32 else 1e-9)
    assert runs[0][2].lr == runs[1][2].lr


def test_a_loss_that_is_no_number_ends_the_steps_of_other_settings_behind_it():
    errors = []
    for compiled in (True, False):
        run = with_a_bad_sample(np.float64, x=np.nan)
        rates = LearningRate(Sets(run[2]), per="step")
        with pytest.raises(FloatingPointError) as caught:
            fit(*run, epochs=1, callbacks=[rates], compiled=compiled)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
    assert "in batch 108" in errors[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [{"lr": 1e39}, {"weight_decay": 1e39}], ids=str)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_setting_too_large_for_float32_warns_in_neither_loop(options, compiled):
    model, loss, _, loader = diverging(np.float32)
    optimizer = SGD(model.parameters(), **{"lr": 0.01, **options})
    with pytest.raises(FloatingPointError):
        fit(model, loss, optimizer, loader, epochs=1, compiled=compiled)


class MyReLU(ReLU):
    pass


def with_layer(layer):
    run = made()
    model = Sequential(run[0][0], Sequential(run[0][1], layer), run[0][4])
    return {"model": model, "optimizer": SGD(model.parameters(), 0.1)}


def with_optimizer(make):
    model = made()[0]
    return {"model": model, "optimizer": make(model)}


def with_own(method):
    """Return a run whose optimizer or loss has its own method, as if to clip gradients."""
    model, loss, optimizer, _ = made()
    part = loss if method == "backward" else optimizer
    setattr(part, method, getattr(part, method))
    return {"model": model, "loss": loss, "optimizer": optimizer}


class Began(Callback):
    def before_epoch(self, run):
        raise AssertionError


LAYERS = "Sequential, Linear, ReLU, Dropout, Flatten, Unflatten, Conv2d and MaxPool2d alone"


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (with_layer(Tanh()), TypeError, f"{LAYERS}, got Tanh at 1.1; use the eager loop"),
        (with_layer(MyReLU()), TypeError, f"{LAYERS}, got MyReLU at 1.1; use the eager loop"),
        (
            {"loss": HuberLoss()},
            TypeError,
            "an MSELoss or a CrossEntropyLoss, got HuberLoss; use the eager loop",
        ),
        (
            with_optimizer(lambda model: Adam(model.parameters())),
            TypeError,
            "an SGD, got Adam; use the eager loop",
        ),
        (with_own("step"), TypeError, "an SGD, got a custom SGD; use the eager loop"),
        (
            with_own("backward"),
            TypeError,
            "an MSELoss or a CrossEntropyLoss, got a custom MSELoss; use the eager loop",
        ),
        (
            with_optimizer(lambda model: SGD(model[4].parameters(), 0.1)),
            ValueError,
            "an optimizer of the model's parameters, got one of some; use the eager loop",
        ),
        (
            with_optimizer(lambda model: Groups(SGD(model.parameters(), 0.1))),
            TypeError,
            "an SGD, got Groups; use the eager loop",
        ),
        (
            {"callbacks": [Began(), ClipGradients(1.0)]},
            TypeError,
            "callbacks that need no gradients, got a ClipGradients; use the eager loop",
        ),
        ({"compiled": 1}, TypeError, "compiled to be a bool, got 1"),
    ],
)
def test_what_no_kernel_knows_is_refused_before_anything_changes(change, error, text):
    run = made()
    arguments = dict(zip(("model", "loss", "optimizer", "train_loader"), run, strict=True))
    arguments |= {"epochs": 1, "callbacks": [Began()], "compiled": True, **change}
    model, now = arguments["model"], run[3].rng.bit_generator.state
    before = bits(model.state_dict())
    with refusal(error, f"fit: expected {text}"):
        fit(**arguments)
    assert bits(model.state_dict()) == before
    assert run[3].rng.bit_generator.state == now


BAD_PAIRS = {
    "another shape": (np.ones((1, 3, 2)), None, "inputs of shape (N, 2, 3), N > 0, got (1, 3, 2)"),
    "too many axes": (np.ones((1, 1, 2, 3)), None, "inputs of shape (N, 2, 3), N > 0, got (1, 1,"),
    "no sample": (np.ones((0, 2, 3)), None, "inputs of shape (N, 2, 3), N > 0, got (0, 2, 3)"),
    "a number": (np.array(1.0), None, "inputs of shape (N, 2, 3), N > 0, got ()"),
    "words": (np.array(["a"]), None, "x to be an array of real numbers, got an array of dtype"),
    "masked": (np.ma.ones((1, 2, 3)), None, "x to be an array of real numbers, got a masked"),
    "more targets": (None, np.ones((2, 3)), "targets of shape (1, 3), got (2, 3)"),
    "other targets": (None, np.ones((1, 2)), "targets of shape (1, 3), got (1, 2)"),
    "named targets": (None, np.array([["a"] * 3]), "t to be an array of real numbers, got an"),
}


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_a_pair_that_fits_no_kernel_is_refused_after_the_steps_before_it(name):
    x, t, text = BAD_PAIRS[name]
    run, eager = made(shuffle=False), made(shuffle=False)
    pairs = list(run[3])
    pairs[5] = (pairs[5][0] if x is None else x), (pairs[5][1] if t is None else t)
    with pytest.raises((ValueError, TypeError)) as caught:
        fit(*run[:3], pairs, epochs=1, compiled=True)
    assert str(caught.value).startswith(f"fit: expected {text}")
    fit(*eager[:3], pairs[:5], epochs=1)
    assert_alike(run, eager)


@pytest.mark.parametrize(
    ("compiled", "text"),
    [
        (True, "fit: expected layer 0 to take samples of shape (), got 2"),
        (False, "Sequential, layer 0: Unflatten: expected x of shape (..., 2), got ()"),
    ],
)
def test_a_first_pair_of_numbers_is_refused_in_a_sentence(compiled, text):
    model = Sequential(Unflatten((1, 2)), Flatten(2), Linear(2, 1, rng=0))
    run = model, MSELoss(), SGD(model.parameters(), 0.1)
    with refusal(ValueError, text):
        fit(*run, [(3.0, 1)], epochs=1, compiled=compiled)


def test_samples_that_fit_no_chain_are_refused_at_the_first_pair():
    run = made()
    before = bits(run[0].state_dict())
    text = "fit: expected layer 1 to take 8 features, got 6"
    with refusal(ValueError, text):
        fit(*run[:3], [(np.ones((1, 2, 4)), np.ones((1, 3)))], epochs=1, compiled=True)
    assert bits(run[0].state_dict()) == before


@pytest.mark.parametrize(
    ("labels", "text"),
    [(np.arange(10), "labels in [0, 3), got 3"), (np.ones(10), "labels to be integers, got")],
)
@pytest.mark.parametrize("plain", [True, False])
def test_labels_are_looked_at_before_a_step(labels, text, plain):
    run = made(loss=CrossEntropyLoss(), shuffle=False)
    loader = DataLoader(run[3].inputs, labels)
    before = bits(run[0].state_dict())
    data = loader if plain else list(loader)[3:]
    with pytest.raises((ValueError, TypeError)) as caught:
        fit(*run[:3], data, epochs=1, metrics=(), compiled=True)
    assert str(caught.value).startswith(f"fit: expected {text}")
    assert bits(run[0].state_dict()) == before


def test_parameters_that_are_read_only_are_refused():
    run = made()
    run[0][1].weight.data.setflags(write=False)
    with refusal(ValueError, "fit: expected parameters with writeable data, got a read-only one"):
        fit(*run, epochs=1, compiled=True)


def test_data_that_a_step_would_change_are_refused():
    run = made()
    weight = run[0][4].weight.data  # (8, 3)
    loader = DataLoader(np.ones((8, 2, 3)), weight)
    text = "fit: expected targets that share no memory with a parameter, got a view of one"
    with refusal(ValueError, text):
        fit(*run[:3], loader, epochs=1, callbacks=[Began()], compiled=True)


def test_no_samples_are_refused():
    run = made()
    with refusal(ValueError, "fit: expected a loader with at least one sample, got none"):
        fit(*run[:3], [], epochs=1, compiled=True)


def test_ctrl_c_comes_after_a_chunk(monkeypatch):
    chunks_of(monkeypatch, 4)

    def presses(x, rng):
        calls.append(1)
        if len(calls) == 16:
            signal.raise_signal(signal.SIGINT)
        return noisy(x, rng)

    calls, run, whole = [], made(transform=presses), made(transform=noisy)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(*run, epochs=3, compiled=True)
    assert "in epoch 2 of 3, after step 18." in caught.value.__notes__[0]  # 10 + 4 + 4
    assert caught.value.history == fit(*whole, epochs=1, compiled=True)
    assert_alike(run, steps_of(made(), 18))


def test_a_second_ctrl_c_does_not_wait_for_the_end_of_the_chunk():
    def presses(x, rng):
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            calls.append("not reached")
        return noisy(x, rng)

    calls, run = [], made(transform=presses)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(*run, epochs=3, compiled=True)
    assert calls == [1] * 6
    assert "after step 5." in caught.value.__notes__[0]
    assert_alike(run, steps_of(made(), 5))


def test_numba_is_imported_for_a_compiled_run_alone_and_its_lack_is_one_sentence():
    code = """
import sys
import numpy as np
from tinygrad_mnist import *
from tinygrad_mnist.training import fit
model, x = Linear(2, 2, rng=0), np.eye(2)
run = model, MSELoss(), SGD(model.parameters(), 0.1), DataLoader(x, x)
fit(*run, epochs=1, progress=False)
assert "numba" not in sys.modules
sys.modules["numba"] = None
before = model.state_dict()
try:
    fit(*run, epochs=1, compiled=True)
except ImportError as error:
    print(error)
assert all((before[name] == array).all() for name, array in model.state_dict().items())
"""
    done = run_python("-W", "error", "-c", code)
    assert done.stderr == ""
    contract = "the extra `compiled` (pip install 'tinygrad_mnist[compiled]')"
    assert done.stdout.startswith(f"tinygrad_mnist.compiled: expected {contract}, got ")
    assert done.stdout.count("\n") == 1
