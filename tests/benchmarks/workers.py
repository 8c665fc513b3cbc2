"""How it is timed: each contender in a process of its own, and only one works at a time.

A pool of threads keeps spinning for a while after its work, and would take a core from whoever runs
next. So nobody shares a process, and a worker answers only when its threads have gone to sleep.

A timing consists of short pieces. On a machine with other work to do, some of them fall between two
slices of time that the others get, and a minimum over pieces is that of an idle machine.
"""

import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np

BURST, PIECE = 0.05, 0.002  # about how many seconds a timing takes, and each of its pieces
CHECKED_STEPS = 10


class Worker:
    """A process of its own, with an environment of its own: worker(function, *arguments)."""

    def __init__(self, variables):
        self._process = ProcessPoolExecutor(1, get_context("spawn"))
        with environment(variables):
            self(os.getpid)  # starts it

    def submit(self, function, *arguments):
        return self._process.submit(function, *arguments)

    def __call__(self, function, *arguments):
        return self.submit(function, *arguments).result()

    def stop(self):
        self._process.shutdown()


@contextlib.contextmanager
def environment(variables):
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def busy_neighbours(n):
    forever = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
    neighbours = [subprocess.Popen([sys.executable, "-c", forever]) for _ in range(n)]
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.terminate()


# In a worker


class Running:
    """A contender's step in a case, and how far it is in the images."""

    def __init__(self, contender, case):
        self._step, self._all = contender.step(case), case.steps
        self._whole, self._next = contender.whole, 0
        self.size = self._all if self._whole else 1  # of a piece, in steps
        self.pieces = 1

    def steps(self, n):
        """Go n steps on, from the first image again when there are too few left."""
        if self._next + n > self._all:
            self._next = 0
        self._next += n
        return self._step(range(self._next - n, self._next))

    def piece(self):
        self.steps(self.size)

    def seconds(self):
        """Return what a step of the next piece takes."""
        start = time.perf_counter()
        self.piece()
        return (time.perf_counter() - start) / self.size

    def choose(self, seconds):
        """Choose the size of a piece and the number of pieces, given the seconds of a step."""
        if not self._whole:
            self.size = min(self._all, max(1, round(PIECE / seconds)))
        self.pieces = max(1, round(BURST / (self.size * seconds)))


running = None  # what the last `prepare` has made


def import_from(folder):
    """Look for modules in a folder first."""
    sys.path.insert(0, folder)


def prepare(contender, case):
    """Make the contender's step, and return its loss, or last answer, without dropout."""
    global running
    running = Running(contender, without_dropout(case))
    checked = min(CHECKED_STEPS, case.steps)
    running.steps(checked)
    answer = running.steps(checked)  # of a network that has been trained
    if case != without_dropout(case):
        running = Running(contender, case)
    wait_for_threads()
    if answer is None:  # BLAS alone learns nothing
        return None
    return float(answer) if case.trains else float(np.sum(answer[-1]))


def choose_pieces():
    """Choose how much a timing is, after some steps that warm up or compile."""
    running.piece()
    for _ in range(2):
        running.choose(running.seconds())
    wait_for_threads()


def timing():
    """Return the seconds a step takes in each piece, and the CPU seconds of all threads in all."""
    for _ in range(running.pieces // 10):
        running.piece()  # wakes the threads and fills the caches
    before = time.process_time()
    wall = [running.seconds() for _ in range(running.pieces)]
    # of all pieces: Linux counts what other threads use in ticks of some milliseconds
    cpu = (time.process_time() - before) / (running.pieces * running.size)
    wait_for_threads()
    return wall, cpu


def without_dropout(case):
    return replace(case, layers=tuple(layer for layer in case.layers if layer != ("dropout",)))


def wait_for_threads():
    """Return when the threads of this process do nothing."""
    before = -1.0
    while time.process_time() - before > 1e-3:
        before = time.process_time()
        time.sleep(0.01)
