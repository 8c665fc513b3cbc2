"""Runs: the training that was chosen, two in turn, stopped and gone on with, and who goes first."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from helpers import bits

from tinygrad_mnist.page import runs
from tinygrad_mnist.page.faults import setups
from tinygrad_mnist.page.reading import reading
from tinygrad_mnist.page.runs import Run, Runs, Training
from tinygrad_mnist.page.setups import Layers, Setup

CHOICES = {}  # the first of each


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """Let an epoch have 20 steps of a small network."""
    rng = np.random.default_rng(0)
    x, t = rng.uniform(0, 1, (300, 28, 28, 1)).astype(np.float32), np.eye(10, dtype=np.float32)
    t = t[rng.integers(0, 10, 300)]
    x[np.arange(300), t.argmax(axis=1)] = 1  # the row says which digit
    monkeypatch.setattr(runs, "images", lambda: ((x[:200], t[:200]), (x[200:], t[200:])))
    monkeypatch.setattr(runs, "EPOCHS", 2)
    small = {"layers": Layers((30,)), "batch_size": 10}
    monkeypatch.setattr(runs, "setups", lambda *args: [replace(s, **small) for s in setups(*args)])
    monkeypatch.setattr(runs, "verdict", lambda setup, fault: f"says of {fault}")
    return runs.images


def after(run, state="done", since=0):
    """Return the progress of a run once it is in this state."""
    for _ in range(2000):
        found = json.loads(json.dumps(run.progress(since), allow_nan=False))
        if found["state"] == state:
            return found
        time.sleep(0.01)
    raise AssertionError(found)


def test_the_curve_is_that_of_the_training_that_was_chosen(few_images):
    found = after(Run(CHOICES, "none"))
    (setup,) = runs.setups(CHOICES)
    (model, loss, optimizer), rng = setup.build(), np.random.default_rng(3)
    training, test = few_images()
    points, losses = [], []
    for step, (x, t) in enumerate((b for _ in range(2) for b in setup.batches(*training, rng)), 1):
        losses.append(loss(model(x), t))
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        if step % 2 == 0:  # ten points an epoch
            points.append([step, [np.mean(losses[-2:]), setup.evaluate(model, training, test)]])
    for (step, (value, accuracy)), wanted in zip(found["points"], points, strict=True):
        assert [step, accuracy] == [wanted[0], wanted[1][1]]
        assert value == pytest.approx(wanted[1][0])
    assert (found["step"], found["epoch"]) == (40, 2)
    assert found["verdict"] == "says of none"
    assert found["steps_per_second"] > 0


def test_right_and_broken_differ_by_the_fault_alone(monkeypatch):
    broken = after(Run(CHOICES, "the gradient is t - y"))
    alone = after(Run(CHOICES, "none"))
    assert [point[:2] for point in broken["points"]] == alone["points"]
    assert all(right != wrong for _, right, wrong in broken["points"])
    assert broken["verdict"] == "says of the gradient is t - y"
    twice = runs.setups(CHOICES) * 2
    monkeypatch.setattr(runs, "setups", lambda choices, fault: twice)
    assert all(one == other for _, one, other in after(Run(CHOICES, "none"))["points"])


def test_points_are_told_from_one_on():
    run = Run(CHOICES, "none")
    points = after(run)["points"]
    assert run.progress(15)["points"] == points[15:]
    assert run.progress(10**30)["points"] == []


def test_reading_does_not_disturb_a_training():
    fault = "Dropout stays on in the test"
    alone, read = Run(CHOICES, fault), Run(CHOICES, fault)
    image = np.random.default_rng(0).uniform(0, 1, (28, 28)).astype(np.float32)
    while read.state in ("checking", "training"):
        for training in read.trainings:
            reading(training.snapshot, image, training.scores_of)
    assert after(read)["points"] == after(alone)["points"]


def test_a_run_that_is_stopped_waits_and_goes_on_where_it_was(monkeypatch):
    wanted = after(Run(CHOICES, "none"))["points"]
    run = Run(CHOICES, "none")
    run.stop()
    assert run.state == "stopped"
    first = after(run, "stopped")["step"]
    time.sleep(0.05)
    assert run.progress(0)["step"] <= first + 1  # the step that it was in
    run.go_on()
    assert after(run)["points"] == wanted
    run.stop()
    assert run.state == "done"


def test_a_run_that_has_ended_does_not_wait():
    run = Run(CHOICES, "none")
    run.end()
    run.stop()  # by a tab that does not know
    assert after(run)["step"] < 40


@pytest.mark.parametrize("part", ["verdict", "images"])
def test_a_run_that_cannot_go_on_says_why(monkeypatch, part):
    def failing(*_):
        raise MemoryError("no more of it")

    told = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: told.set())  # in the terminal
    monkeypatch.setattr(runs, part, failing)
    run = Run(CHOICES, "none")
    assert after(run, "failed: MemoryError: no more of it")["points"] == []
    run.stop()
    assert run.state == "failed: MemoryError: no more of it"
    assert told.wait(10)


def test_a_training_that_diverges_makes_no_more_steps(monkeypatch):
    good, bad = Setup(Layers((30,)), batch_size=10), Setup(Layers((30,)), batch_size=10, lr=1e30)
    for both, state, steps in (([bad], "diverged", 5), ([good, bad], "done", 40)):
        monkeypatch.setattr(runs, "setups", lambda choices, fault, both=both: both)
        found = after(Run(CHOICES, "none"), state)
        assert found["step"] <= steps if state == "diverged" else found["step"] == steps
        if found["points"]:
            assert found["points"][-1][-1][0] is None
            assert 0 <= found["points"][-1][-1][1] <= 1


def test_what_is_shown_of_a_model_is_as_it_was_at_the_last_point(few_images):
    (setup,) = runs.setups(CHOICES)
    training = Training(setup)
    training.step(next(iter(training.batches())))
    training.point()
    kept = bits(training.snapshot.state_dict())
    assert kept == bits(training.model.state_dict())
    training.step(next(iter(training.batches())))
    assert kept == bits(training.snapshot.state_dict())
    assert kept != bits(training.model.state_dict())


def test_a_training_that_diverged_is_left_as_it_is():
    training = Training(Setup(Layers((30,)), lr=1e30))
    with np.errstate(all="ignore"):
        while not training.diverged:
            training.step(next(iter(training.batches())))
        for p in training.model.parameters():
            p.data[...] = 0.001  # with which its loss is finite
        training.step(next(iter(training.batches())))
    assert training.diverged
    assert all((p.data == np.float32(0.001)).all() for p in training.model.parameters())


def test_scores_are_what_the_loss_teaches():
    y = np.array([[-1.0, 0.5, 2.0]])
    (logits,), (scores,) = (
        Run({"loss": name}, "none").trainings for name in ("CrossEntropyLoss", "MSELoss")
    )
    np.testing.assert_allclose(logits.scores_of(y), np.exp(y) / np.exp(y).sum())
    np.testing.assert_array_equal(scores.scores_of(y), [[0, 0.5, 1]])


def test_the_run_that_was_asked_for_longest_ago_goes(monkeypatch):
    monkeypatch.setattr(runs, "KEPT", 2)
    kept = Runs()
    first, second, third = (Run(CHOICES, "none") for _ in range(3))
    second.stop()
    names = [kept.add(first), kept.add(second)]
    assert kept.get(names[0]) is first  # asked for after the second one
    names.append(kept.add(third))
    assert [kept.get(name) for name in (*names, "another")] == [first, None, third, None]
    assert after(second)["step"] < 40
    assert after(first)["step"] == after(third)["step"] == 40


def test_the_images_are_those_of_mnist(monkeypatch):
    from tinygrad_mnist.data import mnist

    monkeypatch.undo()
    (x, y), (u, v) = mnist.load_data()
    for (images, t), (raw, labels) in zip(runs.images(), ((x, y), (u, v)), strict=True):
        np.testing.assert_allclose(images[:50, ..., 0], raw[:50] / np.float32(255))
        np.testing.assert_array_equal(t.argmax(axis=1), labels)
