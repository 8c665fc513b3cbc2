"""What a checklist answers to a student's layer, and how soon.

    python tests/benchmarks/answers.py

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

sys.path.insert(0, str(Path(__file__).parents[1] / "testing"))
from students import (
    Batch,
    DoublesWeights,
    GlobalDropout,
    NaiveSoftmax,
    OwnCache,
    Pass,
    Skeleton,
    TwoSteps,
    WrongSlope,
)


class Student(NamedTuple):
    make: Callable
    options: dict = {}  # noqa: RUF012


STUDENTS = {
    "wrong_slope": Student(lambda features, rng: WrongSlope()),
    "not_implemented": Student(lambda features, rng: Skeleton()),
    "pass": Student(lambda features, rng: Pass()),
    "own_cache": Student(lambda features, rng: OwnCache()),
    "wrong_dW": Student(DoublesWeights, {"forms": ("batch",)}),
    "batch_only": Student(Batch),
    "dropout": Student(lambda features, rng: GlobalDropout()),
    "naive_softmax": Student(lambda features, rng: NaiveSoftmax()),
    "cell_twice": Student(TwoSteps),
}
TEST_FILE = """
from answers import STUDENTS
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
