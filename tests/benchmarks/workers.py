"""How it is timed: each contender in a process of its own, one at a time, in rounds.

A pool of threads keeps spinning for a while after its work, and would take a core from whoever runs
next. So nobody shares a process, and a worker answers only when its threads have gone to sleep.
"""

import contextlib
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np

BURST = 0.05  # seconds that one timing takes, in about
CHECKED_STEPS, TOLERANCE = 5, 1e-5
MIN_ROUNDS = 2
ORDER = random.Random(1)


class Worker:
    """A process that keeps one contender's step, and is called as a function."""

    def __init__(self, contender, folder=None):
        self.contender = contender
        self._process = ProcessPoolExecutor(
            1,
            get_context("spawn"),
            *((sys.path.insert, (0, folder)) if folder else ()),
        )
        with environment(contender.environment):
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
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.terminate()


# What a worker does

_step, _n = None, 0  # of the case in progress


def prepare(contender, case):
    """Make the contender's step, and return what its network answers without dropout."""
    global _step
    plain = replace(case, layers=tuple(layer for layer in case.layers if layer != ("dropout",)))
    step = contender.step(plain)
    answer = None
    for _ in range(2):  # the second time, of a network that has been trained
        answer = step(min(CHECKED_STEPS, case.steps))
    _step = contender.step(case) if plain != case and case.trains else step
    wait_for_threads()
    return None if answer is None else float(np.mean(np.ravel(answer)[-case.outputs :]))


def choose_steps(case, whole):
    """Choose how many steps a timing has, after some that warm up or compile."""
    global _n
    _n = case.steps if whole else max(1, case.steps // 50)
    _step(_n)
    seconds, _ = per_step()
    if not whole:
        _n = min(case.steps, max(1, round(BURST / seconds)))


def timing():
    """Return the seconds and the CPU seconds of all threads that a step takes."""
    if _n > 1:
        _step(-(-_n // 10))  # wakes the threads and fills the caches; a scan is compiled for each n
    times = per_step()
    wait_for_threads()
    return times


def per_step():
    start, cpu = time.perf_counter(), time.process_time()
    _step(_n)
    return (time.perf_counter() - start) / _n, (time.process_time() - cpu) / _n


def wait_for_threads():
    """Return when the threads of this process do nothing."""
    before = -1.0
    while time.process_time() - before > 1e-3:
        before = time.process_time()
        time.sleep(0.01)
