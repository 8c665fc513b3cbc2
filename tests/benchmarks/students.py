"""What a checklist answers to a student's layer, and how soon.

    python tests/benchmarks/students.py

Nine layers as students write them: eight are wrong, one is right for batches and does not say so.
A teacher's test file asks `module_checklist` of all of them, by `pytest -q`, then of each alone.
Every run is a process of its own, and the first row says what its start takes. "message" is the
first line of its error. With another checkout in PYTHONPATH the answers are that checkout's.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinygrad_mnist import Linear, Module, Parameter, Sequential, nn


class SlopeTanh(Module):
    """A wrong slope: 1 - y for 1 - y**2."""

    def forward(self, x):
        self._y = np.tanh(x)
        return self._y.copy()

    def backward(self, dy):
        return dy * (1 - self._y)


class TodoTanh(Module):
    """The skeleton as it was given out."""

    def forward(self, x):
        raise NotImplementedError("your code here")

    def backward(self, dy):
        raise NotImplementedError("your code here")


class PassTanh(Module):
    """Another skeleton."""

    def forward(self, x):
        pass

    def backward(self, dy):
        pass


class CacheTanh(Module):
    """A forward that returns what backward needs: `y *= 0` changes dx."""

    def forward(self, x):
        self._y = np.tanh(x)
        return self._y

    def backward(self, dy):
        return dy * (1 - self._y**2)


class BatchLinear(Module):
    """Right for x (B, I), and for nothing else."""

    def __init__(self, features, rng):
        self.W = Parameter(rng.standard_normal((features, 3)))
        self.b = Parameter(np.zeros(3))

    def forward(self, x):
        self._x = x.copy()
        return x @ self.W.data + self.b.data

    def backward(self, dy):
        self.W.grad += self._x.T @ dy
        self.b.grad += dy.sum(axis=0)
        return dy @ self.W.data.T


class TwiceLinear(BatchLinear):
    """The factor 2 of a squared error, which dy has already, once more in dW."""

    def backward(self, dy):
        self.W.grad += self._x.T @ dy
        return super().backward(dy)


class MyDropout(Module):
    """Masks of the global generator, and none for backward in evaluation mode."""

    def forward(self, x):
        if not self.training:
            return x.copy()
        self.m = 2 * np.random.randint(2, size=x.shape)  # noqa: NPY002
        return x * self.m

    def backward(self, dy):
        return dy * self.m


class NaiveSoftmax(Module):
    """exp(x) / sum(exp(x)), which overflows."""

    def forward(self, x):
        e = np.exp(x)
        self._y = e / e.sum(axis=-1, keepdims=True)
        return self._y.copy()

    def backward(self, dy):
        return self._y * (dy - (dy * self._y).sum(axis=-1, keepdims=True))


class TwoSteps(Module):
    """A recurrent net that calls one cell twice: the cell remembers the second call alone."""

    def __init__(self, features, rng):
        self.cell = Sequential(Linear(features, features, rng=rng), nn.Tanh())

    def forward(self, x):
        return self.cell(self.cell(x))

    def backward(self, dy):
        return self.cell.backward(self.cell.backward(dy))


class Student(NamedTuple):
    make: Callable
    options: dict = {}  # noqa: RUF012


STUDENTS = {
    "wrong_slope": Student(lambda features, rng: SlopeTanh()),
    "not_implemented": Student(lambda features, rng: TodoTanh()),
    "pass": Student(lambda features, rng: PassTanh()),
    "own_cache": Student(lambda features, rng: CacheTanh()),
    "wrong_dW": Student(TwiceLinear, {"forms": ("batch",)}),
    "batch_only": Student(BatchLinear),
    "dropout": Student(lambda features, rng: MyDropout()),
    "naive_softmax": Student(lambda features, rng: NaiveSoftmax()),
    "cell_twice": Student(TwoSteps),
}
TEST_FILE = """
from students import STUDENTS
from tinygrad_mnist.testing.strategies import module_checklist

def test_nothing():
    pass
""" + "".join(
    f"test_{name} = module_checklist(STUDENTS[{name!r}].make, **STUDENTS[{name!r}].options)\n"
    for name in STUDENTS
)


class Answer(NamedTuple):
    cpu: float
    wall: float
    lines: int
    message: str


def answer(*selection):
    """Return what pytest answers about the selected tests of a new folder's file, or about all."""
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "--hypothesis-seed=0", "test_students.py"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_students.py").write_text(TEST_FILE)
        cpu, wall = children_cpu(), time.perf_counter()
        run = subprocess.run(
            [*command, *selection],
            cwd=folder,
            # the summary, from which the message is taken, is cut at the terminal's width
            env=os.environ | {"PYTHONPATH": path, "COLUMNS": "300"},
            capture_output=True,
            text=True,
        )
        cpu, wall = children_cpu() - cpu, time.perf_counter() - wall
    lines = run.stdout.splitlines()
    return Answer(cpu, wall, len(lines), message(lines))


def children_cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def message(lines):
    """Return the first line of the only error, or the counts of passed and failed."""
    failed = [line for line in lines if line.startswith("FAILED ")]
    if len(failed) != 1:
        return lines[-1].partition(" in ")[0]
    kind, colon, text = failed[0].partition(" - ")[2].partition(": ")
    return kind.rpartition(".")[2] + colon + text


def main():
    print("| test | CPU s | wall s | lines | message |", "|---|---|---|---|---|", sep="\n")
    print_row("(start)", answer("-k", "nothing"))
    print_row("all", answer())
    for name in STUDENTS:
        print_row(name, answer("-k", f"test_{name}"))


def print_row(name, found):
    text = found.message.replace("|", "\\|")
    print(f"| {name} | {found.cpu:.1f} | {found.wall:.1f} | {found.lines} | {text} |", flush=True)


if __name__ == "__main__":
    main()
