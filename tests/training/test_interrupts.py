"""Ctrl-C: whatever it stops is left as after one of its steps, and the history comes with it."""

import linecache
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tinygrad_mnist
from tinygrad_mnist import SGD, DataLoader, Linear, MSELoss
from tinygrad_mnist.training import Callback, History, fit

pytest.importorskip("numba")
from interrupts import (
    Compiled,
    Fit,
    FitCompiled,
    Load,
    LoadModel,
    LoadOptimizer,
    was_interrupted,
)

PACKAGE = str(Path(tinygrad_mnist.__file__).parent)


def at_line(n, lines):
    """Return a way to press Ctrl-C when the package comes to its n-th line; count them in lines."""

    def trace(frame, event, arg):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and text != "try:":  # Python looks for no signal there
            lines.append(text)
            if len(lines) == n:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace

    def press():
        before = sys.gettrace()
        sys.settrace(trace)
        return lambda: sys.settrace(before)

    return press


# a press at each line takes a minute; saving is pressed at each line in test_files.py
@pytest.mark.parametrize(
    ("make", "stride"),
    [(Compiled, 7), (Fit, 97), (FitCompiled, 47), (Load, 23), (LoadModel, 1), (LoadOptimizer, 1)],
)
def test_ctrl_c_leaves_the_state_after_one_of_the_steps(tmp_path, make, stride):
    case, n, lines = make(tmp_path), 1, []
    while True:
        came = was_interrupted(case, at_line(n, lines))
        assert came == (len(lines) >= n)
        if not came:
            break
        n += stride
        lines.clear()
    assert n > 10 * stride


class PressesTwice(Callback):
    """Press Ctrl-C once or twice before a step, which is a part of it."""

    def __init__(self, times):
        self.times, self.after = times, []

    def before_step(self, run):
        if run.step == 4:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
                self.after.append(run.step)


def run_of(callback):
    model, x, t = Linear(3, 2, rng=0), np.eye(3), np.eye(3, 2)
    optimizer = SGD(model.parameters(), 0.1)
    loader = DataLoader(x, t, batch_size=1)
    return fit(model, MSELoss(), optimizer, loader, epochs=2, callbacks=[callback])


def test_the_interrupt_that_leaves_fit_has_the_history_and_says_where_it_came():
    whole = run_of(Callback())
    with pytest.raises(KeyboardInterrupt) as caught:
        run_of(PressesTwice(1))
    assert caught.value.history == History(whole.records[:1])
    (note,) = caught.value.__notes__
    assert note == (
        "fit stopped in epoch 2 of 2, after step 5. The model keeps what it has learned.\n"
        "This error's `history` has the epochs before; fit(..., history=history) goes on with "
        "epoch 2.\nIn a notebook: import sys; history = sys.last_value.history"
    )


def test_a_second_ctrl_c_does_not_wait_for_the_end_of_the_step():
    callback = PressesTwice(2)
    with pytest.raises(KeyboardInterrupt) as caught:
        run_of(callback)
    assert "after step 4." in caught.value.__notes__[0]
    assert callback.after == [4]  # the second press came out where it was made


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: presses.append(1)])
def test_another_handler_of_ctrl_c_is_called_after_the_step_and_stays(handler):
    presses.clear()
    before = signal.signal(signal.SIGINT, handler)
    try:
        history = run_of(PressesTwice(1))
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(history.records) == 2
    assert len(presses) == callable(handler)


presses = []


def test_fit_in_another_thread_leaves_ctrl_c_to_the_main_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(run_of(PressesTwice(1))))

    def wait():
        thread.start()
        while True:
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):  # at once, here
        wait()
    thread.join()
    assert results == [run_of(Callback())]
