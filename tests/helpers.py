"""What several test files use: refusals by their text, arrays, optimizers, kills, processes."""

import os
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from tinygrad_mnist import Parameter
from tinygrad_mnist.training import Callback


@contextmanager
def refusal(error, text):
    """Expect an error of exactly this type and text."""
    with pytest.raises(error) as caught:
        yield caught
    assert str(caught.value) == text
    assert type(caught.value) is error


@contextmanager
def refusal_starting(error, text):
    """Expect an error of exactly this type, whose text ends in words of NumPy's or Python's."""
    with pytest.raises(error) as caught:
        yield caught
    assert str(caught.value)[: len(text)] == text
    assert type(caught.value) is error


def assert_same(found, wanted, rtol=0.0, atol=0.0):
    """Compare arrays pairwise; None equals None alone."""
    for f, w in zip(found, wanted, strict=True):
        if w is None:
            assert f is None
        else:
            np.testing.assert_allclose(f, w, rtol=rtol, atol=atol)


def bits(arrays):
    """Return every dtype, shape and bit of a dict of arrays, to compare."""
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}


def parameters(seed=0, dtype=np.float64):
    """Return Parameters with drawn numbers, of two axes, one and none."""
    rng = np.random.default_rng(seed)
    return [Parameter(rng.standard_normal(shape).astype(dtype)) for shape in ((3, 2), (4,), ())]


def make_steps(optimizer, steps, seed):
    """Make steps along drawn gradients."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for p in optimizer.params:
            p.grad = rng.standard_normal(p.data.shape)
        optimizer.step()


def state_bits(optimizer):
    """Return the settings and every bit of the slots, to compare."""
    state = optimizer.state_dict()
    slots = [bits(dict(enumerate(state.pop(name)))) for name in optimizer.slots]
    return state, slots


class Killed(BaseException):
    """What a kill -9 looks like from inside, near enough for a unit test."""


class KilledAt(Callback):
    """Ends a run before its n-th step, counted from 0."""

    def __init__(self, step):
        self.step = step

    def before_step(self, run):
        if run.step == self.step:
            raise Killed


@contextmanager
def traced_memory():
    """Trace what a `with` block allocates; its `peak` is known afterwards, in bytes."""
    memory = SimpleNamespace()
    tracemalloc.start()
    try:
        yield memory
        memory.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def run_python(*args, **environment):
    """Run Python in a separate process, with these variables changed; return how it ended."""
    return subprocess.run(
        [sys.executable, *map(str, args)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
