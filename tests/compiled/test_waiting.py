"""What is said while a kernel is compiled; and that none is before it is needed."""

import io
import sys
import time
from contextlib import contextmanager, redirect_stderr, suppress

import numpy as np
import pytest
from helpers import run_python
from tqdm import tqdm

from tinygrad_mnist import SGD, DataLoader, Linear, MSELoss
from tinygrad_mnist.training import fit

pytest.importorskip("numba")
from tinygrad_mnist.compiled import samples, waiting
from tinygrad_mnist.compiled.waiting import compiling

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
LINE = "compiling for float32: once, then kept on disk ... {} s"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(waiting, "_SECOND", 0.02)
    monkeypatch.setattr(waiting, "_called", set())


@contextmanager
def terminal():
    """Yield what stands for stderr: pytest sets its own after a fixture."""
    with redirect_stderr(Terminal()) as stream:
        yield stream


def wait_until_said(stream, text="1 s"):
    given_up = time.monotonic() + 60
    while text not in stream.getvalue() and time.monotonic() < given_up:
        time.sleep(0.001)


def test_the_seconds_are_counted_and_the_line_goes_away():
    with terminal() as stream, compiling("a kernel", FLOAT32):
        wait_until_said(stream, "3 s")
    shown = stream.getvalue().split("\r")
    assert [text for text in shown if text.strip()][:3] == [LINE.format(i) for i in (1, 2, 3)]
    assert shown[-2:] == [" " * len(LINE.format(1)), ""]


def test_it_stands_below_a_bar_that_is_open():
    with terminal() as stream, tqdm(total=3, desc="epoch 1/3") as bar:
        with compiling("a kernel", FLOAT32):
            wait_until_said(stream)
        bar.update(1)
    shown = stream.getvalue()
    assert "\n\r" + LINE.format(1) in shown
    assert shown.count("\n") == 1 + shown.count("\x1b[A")  # each time back up, and the bar's end
    assert "33%" in shown.split("\r")[-1]


def test_a_kernel_waits_once_for_each_dtype():
    for kernel, dtype, said in (
        ("a", FLOAT32, True),
        ("a", FLOAT32, False),
        ("a", FLOAT64, True),
        ("b", FLOAT32, True),
    ):
        with terminal() as stream, compiling(kernel, dtype):
            if said:
                wait_until_said(stream, f"for {dtype}:")
            else:
                time.sleep(0.1)
        assert (f"for {dtype}:" in stream.getvalue()) is said


def test_what_does_not_take_long_is_not_said(monkeypatch):
    monkeypatch.setattr(waiting, "_SECOND", 60)
    started = time.perf_counter()
    with terminal() as stream, compiling("a kernel", FLOAT32):
        pass
    assert stream.getvalue() == ""
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize("stderr", [None, io.StringIO()])
def test_only_a_terminal_hears_of_it(stderr):
    with redirect_stderr(stderr), compiling("a kernel", FLOAT32):
        time.sleep(0.1)
    assert stderr is None or stderr.getvalue() == ""


def test_after_an_error_it_is_said_again():
    for _ in range(2):
        with terminal() as stream, suppress(KeyboardInterrupt), compiling("a kernel", FLOAT32):
            wait_until_said(stream)
            raise KeyboardInterrupt
        assert LINE.format(1) in stream.getvalue()


def test_a_run_says_it(monkeypatch):
    run = samples.run_samples

    def slow(*args):
        wait_until_said(sys.stderr)
        return run(*args)

    monkeypatch.setattr(samples, "run_samples", slow)
    model, x = Linear(2, 2, rng=0), np.eye(2)
    run_of = model, MSELoss(), SGD(model.parameters(), 0.1), DataLoader(x, x)
    with terminal() as stream:
        fit(*run_of, epochs=2, compiled=True)
    assert LINE.format(1) in stream.getvalue()
    assert "epoch 2/2  loss" in stream.getvalue()


def test_nothing_is_compiled_by_an_import():
    code = """
from numba.core.dispatcher import Dispatcher
import pkgutil, importlib, tinygrad_mnist.compiled as package
found = []
for _, name, _ in pkgutil.iter_modules(package.__path__):
    module = importlib.import_module(f"tinygrad_mnist.compiled.{name}")
    found += [f for f in vars(module).values() if isinstance(f, Dispatcher)]
print(len(found) > 5, [f for f in found if f.signatures])
"""
    done = run_python("-c", code)
    assert (done.stdout, done.stderr) == ("True []\n", "")
