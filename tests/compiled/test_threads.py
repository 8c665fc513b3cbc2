"""The parts of a pass meet, whatever the others do."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from tinygrad_mnist import _threads, num_threads

pytest.importorskip("numba")
from numba import njit

from tinygrad_mnist.compiled import threads
from tinygrad_mnist.compiled.threads import meet, run, threads_for

ROUNDS = 200


@njit(nogil=True, cache=True)
def rounds(part, parts, counter, seen, slow, failing):
    """In each round every part writes down its number of the round, then reads those of all."""
    for i in range(len(seen[0])):
        if part == failing and i == 3:
            raise ValueError("part failed")
        for _ in range(slow[part]):
            seen[part, i] += 1
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
    run(kernel, parts, seen, slow, failing)
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
    class Refusing:
        def submit(self, *_):
            raise RuntimeError("can't start new thread")

    seen_by(rounds, 2)
    monkeypatch.setattr(threads, "_idle", [Refusing(), threads._idle[0]])
    with pytest.raises(RuntimeError, match="can't start new thread"):
        seen_by(rounds, 3)


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
        outcomes.extend(seen_by(rounds, 3) for _ in range(20))

    callers = [threading.Thread(target=several) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(outcomes) == 80
    for seen in outcomes:
        np.testing.assert_array_equal(seen, np.tile(np.arange(1, ROUNDS + 1), (3, 1)))


def test_threads_are_kept():
    seen_by(rounds, 3)
    before = threading.active_count()
    for _ in range(5):
        seen_by(rounds, 3)
    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_process_starts_threads_of_its_own():
    code = """
import os, numpy as np
from tinygrad_mnist.compiled import threads
from tinygrad_mnist.compiled.threads import run
def kernel(part, parts, counter, seen):
    seen[part] = part + 1
seen = np.zeros(3)
run(kernel, 3, seen)
pid = os.fork()
seen[:] = 0
run(kernel, 3, seen)
print(seen.tolist(), flush=True)
if pid:
    os.waitpid(pid, 0)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["[1.0, 2.0, 3.0]"] * 2, done.stderr


def test_blas_multiplies_in_one_thread_meanwhile():
    if _threads.SCIPY is None:
        pytest.skip("not an OpenBLAS")
    get_count, _ = _threads.SCIPY
    before, counts = get_count(), []
    run(lambda *_: counts.append(get_count()), 2)
    assert counts == [1, 1]
    assert get_count() == before


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
