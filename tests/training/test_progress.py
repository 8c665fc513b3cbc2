"""What fit shows: a bar on a terminal that goes away, a line for each epoch that stays."""

import io
import sys
from contextlib import redirect_stderr

import numpy as np
import pytest
from helpers import refusal

from tinygrad_mnist import SGD, CrossEntropyLoss, DataLoader, Linear
from tinygrad_mnist.training import Callback, EarlyStopping, History, LearningRate, fit
from tinygrad_mnist.training import _progress as progress_module


class Terminal(io.StringIO):
    def isatty(self):
        return True


def made():
    """Return what fit needs for epochs of four steps."""
    model, x = Linear(3, 2, rng=0), np.random.default_rng(1).random((8, 3))
    loader = DataLoader(x, np.arange(8) % 2, 2)
    return model, CrossEntropyLoss(), SGD(model.parameters(), lr=0.1), loader


def shown(stream, **options):
    """Return the history of a run, and what it wrote to stderr."""
    run = made()
    with redirect_stderr(stream):
        history = fit(*run, **{"epochs": 2, **options})
    return history, stream.getvalue()


@pytest.fixture
def _impatient(monkeypatch):
    monkeypatch.setattr(progress_module, "_DELAY", 1e-9)
    monkeypatch.setattr(progress_module, "_EVERY", 0)


VALIDATION = np.eye(2, 3), np.arange(2)


def test_a_line_has_each_number_beside_that_of_validation():
    options = {"epochs": 10, "validation": VALIDATION, "metrics": ["accuracy", zeros]}
    history, text = shown(io.StringIO(), **options)
    lines = text.splitlines()
    assert len(lines) == 10
    assert "\r" not in text
    lowest = np.minimum.accumulate(history.column("val_loss"))
    for line, r, low in zip(lines, history.records, lowest, strict=True):
        pairs = (
            f"{name} {r[name]:.4f} val {r[f'val_{name}']:.4f}"
            for name in ("loss", "accuracy", "zeros")
        )
        words = [f"epoch {r['epoch']}/10".ljust(11), *pairs, f"{r['seconds']:.2f} s"]
        words += ["best"] * int(r["val_loss"] == low)
        assert line == "  ".join(words)


def zeros(pred, target):
    return 0.0


def test_without_validation_no_epoch_is_called_the_best():
    _, text = shown(io.StringIO())
    assert text.count("\n") == 2
    assert "best" not in text


def test_a_line_of_usual_numbers_fits_80_columns():
    record = {"epoch": 100, "lr": 0.1, "loss": 0.25, "accuracy": 0.925, "val_loss": 0.2}
    history = History([{**record, "val_accuracy": 0.94, "seconds": 123.4}] * 99)
    _, text = shown(io.StringIO(), epochs=100, validation=VALIDATION, history=history)
    assert len(text.rstrip().replace("0.00 s", "123.4 s")) <= 80


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("validation", [None, VALIDATION])
def test_on_a_terminal_there_is_a_bar_that_goes_away(validation):
    history, text = shown(Terminal(), validation=validation)
    first, second, end = text.split("\n")
    assert end == "\r" * end.count("\r")
    *bars, line = second.strip("\r").split("\r")
    bars = [bar for bar in bars if bar.strip()]
    fractions = [bar.split(" |")[0][-4:] for bar in bars]
    assert fractions[:4] == [" 25%", " 50%", " 75%", "100%"]
    last = history.records[1]
    numbers = f"epoch 2/2  loss {last['loss']:.4f}  accuracy {last['accuracy']:.4f}"
    assert bars[-1].startswith(f"{numbers} 100% |")
    assert bars[-1].endswith("| 00:00 left")
    assert line.startswith(f"epoch 2/2  loss {last['loss']:.4f} ")
    assert "epoch 1/2" in first


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("progress", "terminal", "bar", "lines"),
    [
        (True, True, True, True),
        (True, False, False, True),
        ("bar", True, True, False),
        ("bar", False, True, False),
        ("lines", True, False, True),
        (False, True, False, False),
    ],
)
def test_progress_says_what_is_shown(progress, terminal, bar, lines):
    _, text = shown(Terminal() if terminal else io.StringIO(), progress=progress)
    assert ("left" in text, "s\n" in text) == (bar, lines)
    assert bool(text) == (bar or lines)


@pytest.mark.usefixtures("_impatient")
def test_where_the_number_of_batches_is_not_known_they_are_counted():
    *run, loader = made()
    with redirect_stderr(Terminal()) as stream:
        fit(*run, (pair for pair in list(loader)), epochs=1)
    assert "\repoch 1/1  loss" in stream.getvalue().split("  batch 4, 00:00")[0]


def test_a_short_epoch_shows_no_bar():
    assert "left" not in shown(Terminal())[1]


@pytest.mark.parametrize("progress", [True, "bar", "lines"])
def test_without_stderr_nothing_is_shown(progress, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert len(fit(*made(), epochs=1, progress=progress).records) == 1


@pytest.mark.parametrize(("value", "error"), [("line", ValueError), (1, TypeError)])
def test_other_ways_are_refused(value, error):
    contract = 'progress to be True, "bar", "lines" or False'
    with refusal(error, f"fit: expected {contract}, got {value!r}"):
        fit(*made(), epochs=1, progress=value)


def test_a_line_shows_what_callbacks_record():
    class Gap(Callback):
        def before_run(self, run):
            run.columns.append("val_gap")

        def after_epoch(self, run):
            run.history.records[-1]["val_gap"] = 0.5

    _, text = shown(io.StringIO(), callbacks=[Gap()])
    assert "  val_gap 0.5000  0" in text.splitlines()[-1]


def test_where_nothing_is_left_it_is_said():
    history, _ = shown(io.StringIO())
    told = "nothing left to train: the history has 2 epochs, of epochs=2 in all\n"
    assert shown(io.StringIO(), history=history)[1] == told
    assert shown(io.StringIO(), history=history, progress=False)[1] == ""
    stopping = {"callbacks": [EarlyStopping("epoch", "min", patience=1)], "epochs": 9}
    told = "a callback stopped the run after epoch 2 of 9\n"
    assert shown(io.StringIO(), history=history, **stopping)[1] == told
    assert len(history.records) == 2


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def before_step(self, run):
        self.seen.append((run.epoch, run.step, run.optimizer.lr))


def test_a_run_that_goes_on_with_its_history_is_the_whole_one():
    """Also its rates: a schedule per step goes on where it was."""
    rate, whole, parts = LearningRate(lambda t: 1 / (t + 10), "step"), Rates(), Rates()
    wanted = fit(*made(), epochs=3, callbacks=[rate, whole])
    run, history = made(), History()
    for epochs in (1, 3):
        assert fit(*run, epochs=epochs, history=history, callbacks=[rate, parts]) is history
        assert len(history.records) == epochs
    assert history == wanted
    assert parts.seen == whole.seen


def test_what_an_interrupted_run_had_measured_is_in_the_history_that_it_was_given():
    class Interrupts(Callback):
        def before_step(self, run):
            if run.step == 6:
                raise KeyboardInterrupt

    history = History()
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(*made(), epochs=3, history=history, callbacks=[Interrupts()])
    assert caught.value.history is history
    assert history == fit(*made(), epochs=1)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"history": [{}]}, TypeError, "history to be a History, got a list"),
        ({"history": History(), "resume": True}, ValueError, "history or resume, got both"),
        (
            {"history": History([{"epoch": 1, "lr": 0.1, "loss": 1.0}])},
            ValueError,
            "history with epoch, lr, loss, accuracy, seconds, or an empty one, got epoch, lr, loss",
        ),
    ],
)
def test_a_history_that_cannot_go_on_is_refused(options, error, text, tmp_path):
    run = made()
    before = run[0].state_dict()
    with refusal(error, f"fit: expected {text}"):
        fit(*run, epochs=3, checkpoint=tmp_path / "run.npz", **options)
    np.testing.assert_array_equal(run[0].weight.data, before["weight"])


def test_a_history_of_the_first_version_had_no_seconds():
    record = {"epoch": 1, "lr": 0.1, "loss": 1.0, "accuracy": 0.5}
    assert len(fit(*made(), epochs=2, history=History([record])).records) == 2
