"""Press Ctrl-C at random moments of training, loading and saving, and look for torn states.

    python tests/interrupts.py 1000

After each, every bit of parameters, buffers, velocities and generators must be that of training on
the first so many samples, the modes and the handler of Ctrl-C must be as before, and the history
the first records of the whole one. After a load it is all of the old state or all of the new, after
a save one file or the other. `tests/training/test_interrupts.py` presses at chosen lines instead.
"""

import contextlib
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
from helpers import bits

from tinygrad_mnist import (
    SGD,
    Buffer,
    DataLoader,
    Dropout,
    Linear,
    Module,
    MSELoss,
    ReLU,
    Sequential,
)
from tinygrad_mnist.compiled import compile_sgd
from tinygrad_mnist.training import History, _compiled, checkpoint, fit


class Mean(Module):
    """Passes x on, and keeps a running mean of it."""

    def __init__(self, features):
        self.mean = Buffer(np.zeros(features))

    def forward(self, x):
        if self.training:
            self.mean.data = 0.9 * self.mean.data + 0.1 * x.mean(axis=0)
        return x

    def backward(self, dy):
        return dy


class Noisy(DataLoader):
    """Draws for each batch, too."""

    def __iter__(self):
        for x, t in super().__iter__():
            yield x + self.rng.normal(0, 0.1, x.shape), t


def objects(seed=0, *layers):
    """Return a model, its optimizer and a loader of 3 batches, with one generator for all."""
    rng = np.random.default_rng(seed)
    model = Sequential(
        Linear(6, 8, rng=rng), ReLU(), Dropout(0.3, rng=rng), *layers, Linear(8, 2, rng=rng)
    )
    data = np.random.default_rng(1)
    x, t = data.normal(size=(1000, 6)), data.normal(size=(1000, 2))
    loader = Noisy(x[:10], t[:10], batch_size=4, shuffle=True, rng=rng)
    optimizer = SGD(model.parameters(), 0.01, momentum=0.9)
    return SimpleNamespace(model=model.eval(), optimizer=optimizer, loader=loader, x=x, t=t)


def state(o):
    """Return every bit of them."""
    held = o.optimizer.state_dict()
    velocities = held.pop("velocities") or [np.zeros_like(p.data) for p in o.optimizer.params]
    arrays = {**o.model.state_dict(), **dict(enumerate(velocities))}
    modes = [module.training for module in o.model.modules()]
    return repr((bits(arrays), held, o.loader.rng.bit_generator.state, modes))


class Compiled:
    """A compiled pass over 1,000 samples, in 4 chunks."""

    def __init__(self, folder):
        self.allowed = set()
        for samples in (0, 256, 512, 768, 1000):
            o = self.made()
            self.train(o, samples)
            self.allowed.add(state(o))

    def made(self):
        o = objects()
        o.model.train()
        return o

    def train(self, o, samples=1000):
        compile_sgd(o.model, MSELoss(), o.optimizer)(o.x[:samples], o.t[:samples])

    run, found = train, staticmethod(state)


class Fit:
    """4 epochs of 3 batches, with validation."""

    def __init__(self, folder):
        o, loss = self.made(), MSELoss()
        self.allowed = {state(o)}
        for _ in range(4):
            for x, t in o.loader:
                o.model.train()
                loss(o.model(x), t)
                o.optimizer.zero_grad()
                o.model.backward(loss.backward())
                o.optimizer.step()
                o.model.eval()
                self.allowed.add(state(o))
        self.whole = self.run(self.made())

    def made(self):
        return objects(0, Mean(8))

    def run(self, o, **options):
        options = {"epochs": 4, "validation": (o.x[10:20], o.t[10:20]), **options}
        options["progress"] = False
        try:
            return fit(o.model, MSELoss(), o.optimizer, o.loader, **options)
        except KeyboardInterrupt as error:
            history = getattr(error, "history", History())  # none while it reads arguments
            assert history == History(self.whole.records[: len(history.records)])
            raise

    found = staticmethod(state)


class Noise:
    """A transform that ends the run with its last call, if it has one."""

    def __init__(self, calls=-1):
        self.left = calls

    def __call__(self, x, rng):
        if not self.left:
            raise EOFError
        self.left -= 1
        return x + rng.normal(0, 0.1, x.shape)


class FitCompiled(Fit):
    """2 epochs of 10 compiled steps, in chunks of 4, with validation."""

    def __init__(self, folder):
        self.whole = self.run(self.made())
        self.allowed = {state(self.made())}
        for epochs, steps in ((1, 4), (1, 8), (1, -1), (2, 14), (2, 18), (2, -1)):
            o = self.made(steps)
            with contextlib.suppress(EOFError):
                self.run(o, epochs)
            self.allowed.add(state(o))

    def made(self, steps=-1):
        o, rng = objects(), np.random.default_rng(3)
        o.loader = DataLoader(o.x[:10], o.t[:10], shuffle=True, rng=rng, transform=Noise(steps))
        return o

    def run(self, o, epochs=2):
        with patch.object(_compiled, "CHUNK", 4):
            return super().run(o, epochs=epochs, compiled=True)


class Load:
    """A checkpoint of another state."""

    def __init__(self, folder):
        self.path = folder / "load.npz"
        self.other = objects(2)
        fit(
            self.other.model,
            MSELoss(),
            self.other.optimizer,
            self.other.loader,
            epochs=1,
            progress=False,
        )
        self.other.optimizer.lr = 0.5
        checkpoint.save(self.path, self.other.model, self.other.optimizer, self.other.loader)
        o = self.made()
        self.allowed = {state(o)}
        self.run(o)
        self.allowed.add(state(o))

    def made(self):
        return objects()

    def run(self, o):
        checkpoint.load(self.path, o.model, o.optimizer, o.loader)

    found = staticmethod(state)


class LoadModel(Load):
    """The parameters of another state alone."""

    def run(self, o):
        o.model.load_state_dict(self.other.model.state_dict())


class LoadOptimizer(Load):
    """Its settings and velocities alone."""

    def run(self, o):
        o.optimizer.load_state_dict(self.other.optimizer.state_dict())


class Save:
    """The other one of two checkpoints, over the last."""

    def __init__(self, folder):
        self.path, self.model = folder / "save.npz", Linear(100, 100, rng=0)
        self.allowed = {self.found(self.run(i)) for i in range(2)}

    def made(self):
        return random.randrange(2)

    def run(self, i):
        checkpoint.save(self.path, self.model, i=i)

    def found(self, _):
        assert [p.name for p in self.path.parent.iterdir() if ".tmp" in p.name] == []
        return checkpoint.load(self.path)["i"]


CASES = [Compiled, Fit, FitCompiled, Load, LoadModel, LoadOptimizer, Save]


def was_interrupted(case, press):
    """Run a case after press(); return whether Ctrl-C came out. A torn state is an error."""
    made, handler, came = case.made(), signal.getsignal(signal.SIGINT), False
    try:
        release = press()
        try:
            case.run(made)
        finally:
            release()
    except KeyboardInterrupt:
        came = True
    assert signal.getsignal(signal.SIGINT) is handler, "the handler was not put back"
    assert case.found(made) in case.allowed, "a torn state"
    return came


def main(wanted):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have switched it off
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory() as name:
        for make in CASES:
            case, runs, came = make(Path(name)), 0, 0
            started = time.perf_counter()
            for _ in range(5):
                case.run(case.made())
            seconds = (time.perf_counter() - started) / 5

            def press(seconds=seconds):
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, seconds))
                return lambda: signal.setitimer(signal.ITIMER_REAL, 0)

            while came < wanted // len(CASES):
                came += was_interrupted(case, press)
                runs += 1
            print(f"{make.__name__}: {came} interrupts in {runs} runs, no torn state")


if __name__ == "__main__":
    main(int(sys.argv[1]))
