"""The parts of a pass meet, whatever the others do."""

import os
import threading
import time

import numpy as np
import pytest
from helpers import run_python

from tinygrad_mnist import _threads, num_threads

pytest.importorskip("numba")
from numba import njit

from tinygrad_mnist.compiled import threads
from tinygrad_mnist.compiled.threads import meet, run, threads_for

ROUNDS = 200


@njit(nogil=True, cache=True)
def rounds(part, parts, counter, seen, slow, chaos, failing):
    """In each round every part writes down its number of the round, then reads those of all."""
    for i in range(len(seen[0])):
        if part == failing and i == 3:
            raise ValueError("part failed")
        chaos[part] = 0.3
        for _ in range(slow[part]):  # no compiler knows a shorter way
            chaos[part] *= 3.9 * (1 - chaos[part])
        seen[part, i] = i + 1
        meet(counter, parts)
        for p in range(parts):
            if counter[0] >= 0 and seen[p, i] != i + 1:
                seen[part, i] = -1
        meet(counter, parts)


kernels = pytest.mark.parametrize("kernel", [rounds, rounds.py_func], ids=["compiled", "plain"])


def seen_by(kernel, parts, slow=None, failing=-1):
    seen = np.zeros((parts, ROUNDS), np.int64)
    slow = np.zeros(parts, np.int64) if slow is None else slow
    run(kernel, parts, seen, slow, np.zeros(parts), failing)
    return seen


@kernels
@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_nobody_goes_on_before_all_have_arrived(kernel, parts):
    wanted = np.tile(np.arange(1, ROUNDS + 1), (parts, 1))
    np.testing.assert_array_equal(seen_by(kernel, parts), wanted)


def test_a_late_part_is_waited_for():
    wanted = np.tile(np.arange(1, ROUNDS + 1), (2, 1))
    for slow in ([0, 20_000], [20_000, 0]):
        np.testing.assert_array_equal(seen_by(rounds, 2, np.array(slow)), wanted)


@kernels
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_of_one_part_ends_them_all_and_is_raised(kernel, failing):
    for _ in range(3):
        with pytest.raises(ValueError, match="part failed"):
            seen_by(kernel, 3, failing=failing)
    assert seen_by(kernel, 3).min() > 0


def test_parts_that_have_begun_end_when_another_gets_no_thread(monkeypatch):
    start, begun, calls = threading.Thread.start, [], []

    def start_one(thread):
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    def kernel(part, parts, counter):
        calls.append(part)
        meet(counter, parts)

    monkeypatch.setattr(threads, "_idle", [])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_one)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            run(kernel, 3)
    assert calls in ([], [1])
    assert not begun[0].is_alive()
    calls.clear()
    run(kernel, 3)
    assert sorted(calls) == [0, 1, 2]  # no part of the call that failed is left


def test_an_interrupt_while_others_work_waits_for_them():
    done, begun = [], threading.Barrier(3)

    def kernel(part, parts, counter):
        begun.wait(60)
        if part == 0:
            raise KeyboardInterrupt
        meet(counter, parts)
        time.sleep(0.05)
        done.append(part)

    with pytest.raises(KeyboardInterrupt):
        run(kernel, 3)
    assert sorted(done) == [1, 2]


def test_numpy_is_as_quiet_in_every_part():
    def divide(*_):
        np.ones(1) / np.zeros(1)

    with np.errstate(divide="ignore"):
        run(divide, 2)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        run(divide, 2)


def test_threads_that_run_at_once_meet_only_their_own_parts():
    outcomes = []

    def several():
        outcomes.extend(seen_by(rounds, 3) for _ in range(5))

    callers = [threading.Thread(target=several) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(outcomes) == 20
    for seen in outcomes:
        np.testing.assert_array_equal(seen, np.tile(np.arange(1, ROUNDS + 1), (3, 1)))


def test_threads_are_kept():
    seen_by(rounds, 3)
    before = threading.active_count()
    for _ in range(5):
        seen_by(rounds, 3)
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_process_forked_in_a_pass_starts_threads_of_its_own():
    code = """
import os, threading, numpy as np
from tinygrad_mnist import _threads
from tinygrad_mnist.compiled.threads import run
get_count, set_count = _threads.SCIPY or (lambda: 2, lambda n: None)
set_count(2)
inside, forked = threading.Event(), threading.Event()
def wait(part, *_):
    if part == 0:
        inside.set()
        forked.wait()
def kernel(part, parts, counter, seen):
    seen[part] = part + 1
other = threading.Thread(target=run, args=(wait, 2))
other.start()
inside.wait()
pid = os.fork()
seen = np.zeros(3)
run(kernel, 3, seen)
if pid:
    forked.set()
    other.join()
    os.waitpid(pid, 0)
print(seen.tolist(), get_count(), flush=True)
"""
    done = run_python("-W", "ignore", "-c", code)
    assert done.stdout.splitlines() == ["[1.0, 2.0, 3.0] 2"] * 2, done.stderr


@pytest.fixture
def blas(monkeypatch):
    """Return the number of threads that SciPy's BLAS has, in a list."""
    count = [2]

    def set_count(n):
        count[0] = n

    monkeypatch.setattr(_threads, "SCIPY", (lambda: count[0], set_count))
    return count


def test_blas_multiplies_in_one_thread_meanwhile(blas):
    counts = []
    run(lambda *_: counts.append(blas[0]), 2)
    assert counts == [1, 1]
    assert blas == [2]


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_blas_has_its_threads_back_when_the_last_of_two_passes_ends(blas, first_to_end):
    inside, ends = threading.Barrier(3), [threading.Event(), threading.Event()]

    def kernel(part, parts, counter, me):
        inside.wait(60)
        ends[me].wait(60)

    callers = [threading.Thread(target=run, args=(kernel, 1, me)) for me in (0, 1)]
    for caller in callers:
        caller.start()
    inside.wait(60)
    for me in first_to_end, 1 - first_to_end:
        assert blas == [1]
        ends[me].set()
        callers[me].join()
    assert blas == [2]


def test_a_small_step_gets_one_thread_unless_num_threads_says_more(monkeypatch):
    monkeypatch.setattr(_threads, "fixed_count", None)
    monkeypatch.setattr(_threads, "SCIPY", (lambda: 3, None))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert threads_for(_threads.WORTH_THREADS - 1) == 1
    assert threads_for(_threads.WORTH_THREADS) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(2), raising=False)
    assert threads_for(_threads.WORTH_THREADS) == 2
    monkeypatch.setattr(_threads, "SCIPY", None)
    assert threads_for(_threads.WORTH_THREADS) == 2
    with num_threads(4):
        assert threads_for(1) == threads_for(_threads.WORTH_THREADS) == 4
