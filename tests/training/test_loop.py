"""fit and evaluate against a loop written out, and what they do when something goes wrong."""

import math

import numpy as np
import pytest
from helpers import Killed, KilledAt, bits, refusal
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import (
    SGD,
    Adam,
    CrossEntropyLoss,
    DataLoader,
    Dropout,
    Linear,
    Module,
    MSELoss,
    Parameter,
    ReLU,
    Sequential,
)
from tinygrad_mnist.metrics import accuracy
from tinygrad_mnist.optim.schedules import step_decay
from tinygrad_mnist.training import (
    Callback,
    EarlyStopping,
    LearningRate,
    evaluate,
    fit,
)

REDUCTIONS = ["mean", "sum", "batchmean"]


def made(seed=0, *, momentum=0.9, lr=0.05, batch_size=4, shuffle=True, reduction="mean"):
    """Return model, loss, optimizer and loader of a small run, of one generator."""
    rng = np.random.default_rng(seed)
    model = Sequential(
        Linear(5, 8, rng=rng, dtype=np.float64),
        ReLU(),
        Dropout(0.3, rng=rng),
        Linear(8, 3, rng=rng, dtype=np.float64),
    )
    inputs, targets = np.random.default_rng(1).random((10, 5)), np.eye(3)[np.arange(10) % 3]
    loader = DataLoader(inputs, targets, batch_size=batch_size, shuffle=shuffle, rng=rng)
    return model, MSELoss(reduction), SGD(model.parameters(), lr, momentum), loader


def weights(model):
    return bits(model.state_dict())


def velocities(optimizer):
    return bits(dict(enumerate(optimizer.state_dict()["velocities"])))


@given(
    seed=st.integers(0, 2**32),
    batch_size=st.sampled_from([None, 1, 3, 4, 10, 99]),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_fit_is_the_loop_written_out(seed, batch_size, reduction):
    settings = {"batch_size": batch_size, "reduction": reduction, "lr": 1e-3}
    model, loss, optimizer, loader = made(seed, **settings)
    history = fit(model, loss, optimizer, loader, epochs=2, progress=False)

    model_, loss_, optimizer_, loader_ = made(seed, **settings)
    for epoch in (1, 2):
        total, correct = 0.0, 0
        for x, t in loader_:
            y = model_(x)
            n = 1 if batch_size is None else len(x)
            total += loss_(y, t) * (1 if reduction == "sum" else n / 10)
            correct += int(np.sum(y.argmax(axis=-1) == t.argmax(axis=-1)))
            optimizer_.zero_grad()
            model_.backward(loss_.backward())
            optimizer_.step()
        record = history.records[epoch - 1]
        assert list(record) == ["epoch", "lr", "loss", "accuracy", "seconds"]
        assert (record["epoch"], record["lr"]) == (epoch, 1e-3)
        assert record["loss"] == pytest.approx(total, rel=1e-12)
        assert record["accuracy"] == pytest.approx(correct / 10)
    assert weights(model) == weights(model_)


@given(
    seed=st.integers(0, 2**32),
    batch_size=st.sampled_from([None, 1, 3, 4, 10]),
    reduction=st.sampled_from(REDUCTIONS),
)
def test_evaluate_is_what_all_samples_give_at_once(seed, batch_size, reduction):
    model, loss, _, loader = made(seed, batch_size=batch_size, reduction=reduction)
    found = evaluate(model, loss, loader)
    y = model.eval()(loader.inputs)
    assert found["loss"] == pytest.approx(loss(y, loader.targets), rel=1e-12)
    assert found["accuracy"] == np.mean(y.argmax(axis=1) == loader.targets.argmax(axis=1))


CROSS_ENTROPY = [
    {},
    {"label_smoothing": 0.2},
    {"class_weight": [1, 5, 0.1]},
    {"label_smoothing": 0.2, "class_weight": [1, 5, 0.1]},
]


def labelled(seed=0, batch_size=4, **settings):
    """Return a small run on integer labels, with Adam."""
    model, _, _, loader = made(seed, batch_size=batch_size)
    labels = np.random.default_rng(2).integers(0, 3, 10)
    loader = DataLoader(loader.inputs, labels, batch_size, shuffle=True, rng=loader.rng)
    return model, CrossEntropyLoss(**settings), Adam(model.parameters(), 0.05), loader


@pytest.mark.parametrize("settings", CROSS_ENTROPY, ids=str)
@given(
    seed=st.integers(0, 2**32),
    batch_size=st.sampled_from([None, 1, 3, 4, 10]),
    reduction=st.sampled_from(["mean", "sum"]),
    rows=st.booleans(),
)
def test_evaluate_with_labels_is_what_all_samples_give_at_once(
    settings, seed, batch_size, reduction, rows
):
    """A batch counts by the weights of its classes, where its loss was divided by them."""
    model, loss, _, loader = labelled(seed, batch_size, reduction=reduction, **settings)
    t = np.eye(3)[loader.targets] if rows else loader.targets
    found = evaluate(model, loss, DataLoader(loader.inputs, t, batch_size))
    y = model.eval()(loader.inputs)
    assert found["loss"] == pytest.approx(loss(y, t), rel=1e-12)
    assert found["accuracy"] == np.mean(y.argmax(axis=1) == loader.targets)


def test_fit_learns_from_labels_and_the_metrics_take_them():
    model, loss, optimizer, loader = labelled()
    x, t = loader.inputs, loader.targets
    history = fit(
        model, loss, optimizer, loader, epochs=60, validation=(x, t), metrics=["accuracy"]
    )
    assert list(history.records[0])[2:-1] == ["loss", "accuracy", "val_loss", "val_accuracy"]
    first, last = history.records[0], history.records[-1]
    assert last["val_loss"] < first["val_loss"] / 2
    assert last["val_accuracy"] == accuracy(model.eval()(x), t) > first["val_accuracy"]


@pytest.mark.parametrize("settings", CROSS_ENTROPY, ids=str)
def test_a_run_on_labels_that_was_killed_within_an_epoch_has_the_same_averages(tmp_path, settings):
    saving = {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 1}
    with pytest.raises(Killed):
        fit(*labelled(**settings), epochs=3, callbacks=[KilledAt(4)], **saving)
    resumed, whole = labelled(9, **settings), labelled(**settings)
    assert fit(*resumed, epochs=3, resume=True, **saving) == fit(*whole, epochs=3)
    assert weights(resumed[0]) == weights(whole[0])


@pytest.mark.parametrize("base", [object, MSELoss])
def test_a_loss_that_does_not_tell_its_n_is_a_mean_over_samples(base):
    class Own(base):
        def __call__(self, y, t):
            return float(np.sum(y**2)) / len(y)

    if base is object:
        Own.n = 7  # of whatever this is in somebody's own loss
    model, _, _, loader = made(batch_size=4)
    y = model.eval()(loader.inputs)
    assert evaluate(model, Own(), loader)["loss"] == pytest.approx(np.sum(y**2) / 10)


def test_validation_is_measured_after_each_epoch():
    model, loss, optimizer, loader = made(shuffle=False)
    expected = []

    class Sees(Callback):
        def after_epoch(self, run):
            expected.append(evaluate(run.model, loss, loader))

    history = fit(model, loss, optimizer, loader, epochs=3, validation=loader, callbacks=[Sees()])
    for name in ("loss", "accuracy"):
        assert history.column(f"val_{name}") == [measured[name] for measured in expected]
        assert history.column(f"val_{name}") != history.column(name)


def mean_error(pred, target):
    return np.abs(pred - target).mean()


def test_metrics_are_names_or_functions_weighted_by_samples():
    model, loss, _, loader = made(batch_size=4, shuffle=False)
    found = evaluate(model, loss, loader, metrics=["accuracy", mean_error])
    y = model.eval()(loader.inputs)
    assert list(found) == ["loss", "accuracy", "mean_error"]
    assert found["mean_error"] == pytest.approx(np.abs(y - loader.targets).mean(), rel=1e-12)
    assert list(evaluate(model, loss, loader, metrics=())) == ["loss"]


@pytest.mark.parametrize(
    ("value", "got"), [(np.ones(2), "an array of shape (2,) and dtype float64"), (None, "None")]
)
def test_a_metric_that_is_not_one_number_is_named(value, got):
    def spread(pred, target):
        return value

    model, loss, _, loader = made()
    with refusal(TypeError, f"spread: expected a metric to be one number, got {got}"):
        evaluate(model, loss, loader, metrics=[spread])


def targets_of(kind, n=12):
    labels = np.arange(n) % 3
    return {
        "labels": labels,
        "one-hot": np.eye(3)[labels],
        "one-hot integers": np.eye(3, dtype=np.uint8)[labels],
        "probabilities": 0.9 * np.eye(3, dtype=np.float32)[labels] + 0.1 / 3,
        "numbers": np.linspace(0, 1, n),
        "one column": np.linspace(0, 1, n)[:, None],
        "one column of integers": labels[:, None],
        "one column of ones": np.ones((n, 1)),
        "many columns": np.random.default_rng(0).random((n, 3)),
        "many columns of integers": np.arange(3 * n).reshape(n, 3),
        "several classes at once": np.array([[1, 0, 1], [0, 1, 0]] * (n // 2)),
        "-1 and 1": 2 * np.eye(3)[labels] - 1,
        "NaN": np.full((n, 3), np.nan),
    }[kind]


class AnyLoss:
    """Takes whatever target there is."""

    def __call__(self, y, t):
        self.y = y
        return float(np.sum(y * y))

    def backward(self):
        return 2 * self.y


@pytest.mark.parametrize("form", ["loader", "samples", "list", "arrays"])
@pytest.mark.parametrize("kind", ["labels", "one-hot", "one-hot integers", "probabilities"])
def test_accuracy_is_measured_by_default_where_targets_are_classes(kind, form):
    assert default_columns(kind, form) == ["loss", "accuracy"]


@pytest.mark.parametrize("form", ["loader", "samples", "list", "arrays", "generator"])
@pytest.mark.parametrize(
    "kind",
    [
        "numbers",
        "one column",
        "one column of integers",
        "one column of ones",
        "many columns",
        "many columns of integers",
        "several classes at once",
        "-1 and 1",
        "NaN",
    ],
)
def test_a_regression_has_no_accuracy_by_default(kind, form):
    assert default_columns(kind, form) == ["loss"]


def default_columns(kind, form):
    """What fit and evaluate measure without `metrics`, with data of this form."""
    t = targets_of(kind)
    x = np.ones((len(t), 4))
    model = Linear(4, t.shape[1] if t.ndim > 1 else 3, rng=0)
    batch_size = None if form == "samples" else 5
    loader = DataLoader(x, t, batch_size, shuffle=True, rng=0)
    data = {
        "list": lambda: list(loader),
        "arrays": lambda: (x, t),
        "generator": lambda: (pair for pair in loader),
    }.get(form, lambda: loader)
    measured = list(evaluate(model, AnyLoss(), data()))
    optimizer = SGD(model.parameters(), 0.0)
    train = loader if form == "arrays" else data()
    history = fit(model, AnyLoss(), optimizer, train, epochs=1, validation=data())
    wanted = ["epoch", "lr", *measured, *(f"val_{name}" for name in measured), "seconds"]
    assert list(history.records[0]) == wanted
    return measured


@pytest.mark.parametrize(("other", "names"), [(999, []), (1000, ["accuracy"])])
def test_the_first_thousand_targets_decide_and_no_epoch_begins(other, names):
    class Sees(Callback):
        def before_run(self, run):
            assert run.columns == ["epoch", "lr", "loss", *names, "seconds"]
            raise Killed

    t = np.eye(3)[np.arange(2000) % 3]
    t[other] = 7.0
    loader, model = DataLoader(np.ones((2000, 4)), t, shuffle=True, rng=0), Linear(4, 3)
    state = loader.rng.bit_generator.state
    with pytest.raises(Killed):
        fit(model, MSELoss(), SGD(model.parameters(), 1), loader, epochs=1, callbacks=[Sees()])
    assert loader.rng.bit_generator.state == state


def test_a_metric_that_refuses_does_so_before_the_parameters_move():
    model = Linear(4, 1, rng=0)
    before = weights(model)
    loader = DataLoader(np.ones((6, 4)), np.ones((6, 1)), 2)
    text = "metrics.accuracy: expected pred of shape (..., classes) with two classes or more"
    with refusal(ValueError, f"{text}, got (2, 1)") as caught:
        fit(model, MSELoss(), SGD(model.parameters(), 1), loader, epochs=1, metrics=["accuracy"])
    assert "np.mean((pred > 0) == target)" in caught.value.__notes__[0]
    assert weights(model) == before


@pytest.mark.parametrize("kind", [np.asarray, np.float32])
def test_two_arrays_will_do_as_validation(kind):
    model, loss, optimizer, loader = made(shuffle=False)
    x, t = (kind(a) for a in (loader.inputs, loader.targets))
    wanted = evaluate(model, loss, DataLoader(x, t, batch_size=10))
    assert evaluate(model, loss, (x, t)) == pytest.approx(wanted)
    assert evaluate(model, loss, [x, t]) == pytest.approx(wanted)
    history = fit(model, loss, optimizer, loader, epochs=2, validation=(x, t))
    assert history.records[-1]["val_loss"] == pytest.approx(evaluate(model, loss, (x, t))["loss"])
    rows = []

    class Sees(FailsAt):
        def forward(self, x):
            rows.append(len(x))
            return x

    many = np.random.default_rng(0).random((1500, 5)), np.eye(3)[np.arange(1500) % 3]
    wanted = loss(model.eval()(many[0]), many[1])
    model = Sequential(*model, Sees(0, None))
    assert evaluate(model, loss, many)["loss"] == pytest.approx(wanted)
    assert rows == [512, 512, 476]


@pytest.mark.parametrize("container", [list, tuple])
def test_two_pairs_are_no_two_arrays(container):
    model, loss, _, loader = made(batch_size=5, shuffle=False)
    pairs = container(loader)
    assert len(pairs) == 2
    assert evaluate(model, loss, pairs) == evaluate(model, loss, loader)


def test_an_optimizer_of_one_parameter_too_many_is_refused():
    model, loss, _, loader = made()
    before = weights(model)
    optimizer = SGD([*model.parameters(), Parameter([1.0])], 0.1)
    text = "an optimizer of the model's parameters, got 1 of another model"
    with refusal(ValueError, f"fit: expected {text}") as caught:
        fit(model, loss, optimizer, loader, epochs=1)
    assert "run the cell of the optimizer again" in caught.value.__notes__[0]
    assert weights(model) == before


def test_an_optimizer_of_some_of_the_parameters_leaves_the_others():
    model, loss, _, loader = made()
    before = weights(model)
    fit(model, loss, SGD(model[3].parameters(), 0.1), loader, epochs=1)
    moved = {name for name, now in weights(model).items() if now != before[name]}
    assert moved == {"3.weight", "3.bias"}


def test_any_iterable_of_batches_will_do():
    model, loss, optimizer, loader = made(shuffle=False)
    history = fit(model, loss, optimizer, list(loader), epochs=2, progress=False)
    model_, loss_, optimizer_, loader_ = made(shuffle=False)
    assert history == fit(model_, loss_, optimizer_, loader_, epochs=2, progress=False)
    assert weights(model) == weights(model_)


class FailsAt(Module):
    """The identity, until a given forward."""

    def __init__(self, count, error):
        self.count, self.error = count, error

    def forward(self, x):
        self.count -= 1
        if not self.count:
            raise self.error
        return x

    def backward(self, dy):
        return dy


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), ValueError("no")])
@pytest.mark.parametrize("at", [1, 5])
def test_every_module_is_left_in_its_mode(mode, error, at):
    model, loss, optimizer, loader = made()
    model = Sequential(*model, FailsAt(at if error else 0, error))
    model.train(mode)
    model[1].eval()
    try:
        fit(model, loss, optimizer, loader, epochs=1, validation=loader)
        evaluate(model, loss, loader)
    except BaseException as raised:
        if raised is not error:
            raise
    assert [m.training for m in model] == [mode, False, mode, mode, mode]


def test_fit_trains_in_training_mode_and_evaluates_in_evaluation_mode():
    modes = []

    class Sees(FailsAt):
        def forward(self, x):
            modes.append(self.training)
            return x

    model, loss, optimizer, loader = made()
    model = Sequential(*model, Sees(0, None)).eval()
    fit(model, loss, optimizer, loader, epochs=2, validation=loader)
    assert modes == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3


def diverging(epoch, batch, value=math.nan):
    """Return a run whose loss is this value from a given batch of a given epoch on."""
    model, _, optimizer, loader = made()
    calls = 0

    class Turns(MSELoss):
        def __call__(self, pred, target):
            nonlocal calls
            calls += 1
            right = super().__call__(pred, target)
            return right if calls < (epoch - 1) * 3 + batch else value

    return model, Turns(), optimizer, loader


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("epoch", "batch"), [(1, 1), (1, 3), (3, 2)])
def test_a_loss_that_is_no_number_stops_at_the_last_good_epoch(value, epoch, batch):
    model, loss, optimizer, loader = diverging(epoch, batch, value)
    text = f"fit: expected a finite loss, got {value} in batch {batch} of epoch {epoch}"
    with refusal(FloatingPointError, text) as caught:
        fit(model, loss, optimizer, loader, epochs=5)
    remedy, note = caught.value.__notes__
    assert remedy.startswith("Divide the learning rate by 10.")
    assert note.startswith(
        "Parameters and optimizer are as before this epoch, or as resumed within"
    )
    assert len(caught.value.history.records) == epoch - 1
    good, loss, optimizer_, loader = made()
    if epoch > 1:
        fit(good, loss, optimizer_, loader, epochs=epoch - 1)
    assert weights(model) == weights(good)
    assert velocities(optimizer) == velocities(optimizer_)


def test_parameters_that_overflow_in_the_last_batch_stop_it_too():
    model, loss, optimizer, loader = made(shuffle=False, momentum=0.0)

    class Explodes(Callback):
        def before_epoch(self, run):
            run.optimizer.lr = 1e300 if run.epoch == 2 else 0.01

    loader = DataLoader(loader.inputs, loader.targets, batch_size=10)
    text = "fit: expected finite parameters, got NaN or infinity after the last batch of epoch 2"
    with np.errstate(all="ignore"), refusal(FloatingPointError, text):
        fit(model.astype(np.float32), loss, optimizer, loader, epochs=5, callbacks=[Explodes()])
    assert all(np.isfinite(p.data).all() for p in model.parameters())


def test_a_validation_loss_that_is_no_number_stops_it_too():
    model, loss, optimizer, loader = made()
    bad = DataLoader(np.full((1, 5), np.inf), np.eye(3)[:1])
    text = "fit: expected a finite loss, got nan in the validation of epoch 1"
    with np.errstate(all="ignore"), refusal(FloatingPointError, text):
        fit(model, loss, optimizer, loader, epochs=5, validation=bad)


def test_callbacks_may_come_from_an_iterator():
    seen = []

    class Sees(Callback):
        def before_epoch(self, run):
            seen.append(run.epoch)

    model, loss, optimizer, loader = made()
    fit(model, loss, optimizer, loader, epochs=2, callbacks=iter([Sees()]))
    assert seen == [1, 2]


def test_callbacks_are_called_in_order_and_may_stop():
    calls = []

    class Told(Callback):
        def __init__(self, name):
            self.name = name

        def before_epoch(self, run):
            calls.append((self.name, "before", run.epoch, len(run.history.records)))

        def after_epoch(self, run):
            calls.append((self.name, "after", run.epoch, len(run.history.records)))
            if run.epoch == 2:
                run.stop()

    model, loss, optimizer, loader = made()
    history = fit(model, loss, optimizer, loader, epochs=9, callbacks=[Told("a"), Told("b")])
    assert len(history.records) == 2
    one = [
        [(n, "before", e, e - 1) for n in "ab"] + [(n, "after", e, e) for n in "ab"] for e in (1, 2)
    ]
    assert calls == one[0] + one[1]


def test_schedule_and_early_stopping_work_in_fit():
    model, loss, optimizer, loader = made()
    rate = LearningRate(step_decay(0.4, every=2, factor=0.0))
    callbacks = [rate, EarlyStopping("lr", "min", patience=3)]
    history = fit(model, loss, optimizer, loader, epochs=50, callbacks=callbacks)
    assert history.column("lr") == [0.4, 0.4, 0.0, 0.0, 0.0, 0.0]


def test_frozen_parameters_stay_and_the_others_are_set_back():
    model, loss, _, loader = diverging(1, 3)
    model[0].weight.data.setflags(write=False)
    before = weights(model)
    with pytest.raises(FloatingPointError, match="in batch 3 of epoch 1"):
        fit(model, loss, SGD(model[3].parameters(), lr=0.1), loader, epochs=1)
    assert weights(model) == before


def test_a_loss_in_float32_is_summed_in_full():
    class Tenth:
        def __call__(self, pred, target):
            return np.float32(0.1)

    found = evaluate(Sequential(), Tenth(), [(np.zeros((3, 1)),) * 2] * 3000, metrics=())
    assert type(found["loss"]) is float
    assert found["loss"] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


OTHERS = SGD(made()[0].parameters(), 0.1)
PAIR = np.ones((2, 4)), np.ones((2, 3))
LIST = "metrics to be a list of names and functions"
LOSS = "a loss to call, with a backward"
OWN = "an optimizer of the model's parameters"
CALLBACKS = "callbacks to be a list of Callbacks"
PAIRS = "a DataLoader, or an iterable of pairs"
NAMES = "metrics of accuracy or top_k_accuracy or mean_absolute_error, or functions with names of"
NAMES += " their own"


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"epochs": 0}, ValueError, "epochs to be an integer >= 1, got 0"),
        (
            {"callbacks": [print]},
            TypeError,
            "callbacks to be a list of Callbacks, got a builtin_function_or_method",
        ),
        (
            {"checkpoint": "no/folder.npz"},
            FileNotFoundError,
            "checkpoint to be a file, in a folder that is there, got 'no/folder.npz'",
        ),
        (
            {"checkpoint": "."},
            ValueError,
            "checkpoint to be a file, in a folder that is there, got '.'",
        ),
        ({"epochs": 1.0}, TypeError, "epochs to be an integer >= 1, got 1.0"),
        ({"resume": 1, "checkpoint": "x"}, TypeError, "resume to be a bool, got 1"),
        ({"resume": True}, ValueError, "checkpoint, the file, with resume, got None"),
        (
            {"checkpoint_every": 2},
            ValueError,
            "checkpoint, the file, with checkpoint_every, got None",
        ),
        (
            {"checkpoint_every": 0, "checkpoint": "x"},
            ValueError,
            "checkpoint_every to be an integer >= 1, got 0",
        ),
        ({"metrics": ["loss"]}, ValueError, f"{NAMES}, got 'loss'"),
        ({"metrics": ["accuracy", accuracy]}, ValueError, f"{NAMES}, got a function"),
        ({"metrics": [3]}, TypeError, f"{NAMES}, got 3"),
        ({"metrics": "accuracy"}, TypeError, f"{LIST}, got 'accuracy'"),
        ({"metrics": accuracy}, TypeError, f"{LIST}, got a function"),
        ({"model": Sequential}, TypeError, "a Module, got the class Sequential"),
        ({"loss": MSELoss}, TypeError, f"{LOSS}, got the class MSELoss"),
        ({"loss": mean_error}, TypeError, f"{LOSS}, got a function"),
        ({"loss": "mse"}, TypeError, f"{LOSS}, got 'mse'"),
        ({"optimizer": SGD}, TypeError, "an Optimizer, got the class SGD"),
        ({"optimizer": OTHERS}, ValueError, f"{OWN}, got 4 of another model"),
        ({"callbacks": EarlyStopping("loss")}, TypeError, f"{CALLBACKS}, got an EarlyStopping"),
        ({"train_loader": PAIR}, TypeError, f"{PAIRS}, got a tuple"),
        ({"train_loader": list(PAIR)}, TypeError, f"{PAIRS}, got a list"),
        (
            {"train_loader": PAIR[0]},
            TypeError,
            f"{PAIRS}, got an array of shape (2, 4) and dtype float64",
        ),
        ({"train_loader": 3}, TypeError, f"{PAIRS}, got 3"),
        ({"validation": [*PAIR, 1]}, TypeError, f"{PAIRS}, got a list"),
        ({"validation": 3}, TypeError, f"{PAIRS}, got 3"),
        ({"validation": PAIR}, ValueError, "validation inputs of shape (..., 5), got (2, 4)"),
        (
            {"validation": DataLoader(np.ones((2, 5)), np.ones((2, 4)))},
            ValueError,
            "validation targets of shape (..., 3), got (2, 4)",
        ),
        ({"train_loader": []}, ValueError, "a loader with at least one sample, got none"),
        (
            {"train_loader": [], "checkpoint": "x"},
            TypeError,
            "a DataLoader to write checkpoints of, got a list",
        ),
    ],
)
def test_refusals_change_nothing(change, error, text):
    model, loss, optimizer, loader = made()
    before, state = weights(model), loader.rng.bit_generator.state
    arguments = {"model": model, "loss": loss, "optimizer": optimizer, "train_loader": loader}
    with refusal(error, f"fit: expected {text}"):
        fit(**{**arguments, "epochs": 1, **change})
    assert weights(model) == before
    assert loader.rng.bit_generator.state == state


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": Sequential}, "a Module, got the class Sequential"),
        ({"loss": MSELoss}, "a loss to call, with a backward, got the class MSELoss"),
        ({"loader": 3}, "a DataLoader, or an iterable of pairs, got 3"),
        ({"metrics": "accuracy"}, "metrics to be a list of names and functions, got 'accuracy'"),
    ],
)
def test_evaluate_refuses_in_the_same_words(change, text):
    model, loss, _, loader = made()
    with refusal(TypeError, f"evaluate: expected {text}"):
        evaluate(**{"model": model, "loss": loss, "loader": loader, **change})


@pytest.mark.parametrize("transformed", ["train", "validation"])
def test_validation_may_have_another_width_than_what_a_transform_is_given(transformed):
    model, loss, optimizer, loader = made()
    inputs = {"train": loader.inputs, "validation": loader.inputs}
    inputs[transformed] = np.repeat(loader.inputs, 2, axis=-1)
    loaders = {name: DataLoader(x, loader.targets, 4) for name, x in inputs.items()}
    loaders[transformed].transform = lambda x, rng: x[:, ::2]
    train, validation = loaders["train"], loaders["validation"]
    history = fit(model, loss, optimizer, train, epochs=1, validation=validation)
    assert history.records[0]["val_loss"] > 0
    validation.targets = loader.targets[:, :2]  # these are still compared
    text = f"fit: expected validation targets of shape (..., 3), got {validation.targets.shape}"
    with refusal(ValueError, text):
        fit(model, loss, optimizer, train, epochs=1, validation=validation)


def test_validation_may_have_labels_for_rows_or_sequences_of_another_length():
    model, _, optimizer, loader = made()
    validation = DataLoader(loader.inputs, loader.targets.argmax(axis=1))
    fit(model, AnyLoss(), optimizer, loader, epochs=1, validation=validation)
    words = DataLoader(np.ones((4, 7), int), np.eye(2)[[0, 1, 0, 1]])
    longer = DataLoader(np.ones((4, 9), int), np.eye(2)[[0, 1, 0, 1]])
    table = Parameter([[0.0, 1.0], [1.0, 0.0]])

    class Bag(Module):
        def forward(self, x):
            self.x = x
            return table.data[x].mean(axis=1)

        def backward(self, dy):
            table.accumulate(np.zeros((2, 2)))

    bag = Bag()
    bag.table = table
    fit(bag, MSELoss(), SGD([table], 0.1), words, epochs=1, validation=longer)


def test_evaluate_refuses_no_samples():
    model, loss, _, _ = made()
    text = "evaluate: expected a loader with at least one sample, got none"
    for nothing in ([], DataLoader(np.ones((0, 5)), np.ones((0, 3)))):
        with refusal(ValueError, text):
            evaluate(model, loss, nothing)
