"""A pass in several threads: how its parts meet in compiled code, and how Python starts them.

Every part runs the same kernel, with a number of its own, and between two phases of the work they
meet. A part that comes early looks at a counter over and over, as this takes microseconds. After a
while it lets other threads have the processor, which may be what the last part waits for.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _threads
from tinygrad_mnist._extras import needing

with needing("tinygrad_mnist.compiled", "compiled"):
    from llvmlite import binding
    from numba.core import types
    from numba.extending import intrinsic, overload, register_jitable

_FAILED = -(2**62)  # a count that stays below 0
_PATIENCE = 1000  # looks, about a microsecond


def meet(counter: NDArray[np.int64], parts: int) -> None:
    """Return when all parts have called this as often as the caller, or one of them has failed.

    counter[0] is the number of all calls.
    """
    with _lock:
        counter[0] += 1
        goal = _goal(int(counter[0]), parts)
    while 0 <= counter[0] < goal:
        time.sleep(0)


_lock = threading.Lock()


@register_jitable
def _goal(calls, parts):
    """Return the number of calls when everybody is there: the next multiple of parts."""
    return calls + -calls % parts


@overload(meet)
def _compiled(counter, parts):
    return _meet if counter.dtype == types.int64 else None


def _meet(counter, parts):
    calls: Any = _one_more(counter)  # type: ignore[call-arg]
    goal, looks = _goal(calls, parts), 0
    while 0 <= calls < goal:
        looks += 1
        if looks > _PATIENCE:
            _let_others()
        calls = _calls(counter)


@intrinsic
def _one_more(typing_context, counter):
    """Add 1 to counter[0], also if other threads do at the same time, and return the sum."""

    def emit(context, builder, signature, arguments):
        place = context.make_array(counter)(context, builder, arguments[0]).data
        one = place.type.pointee(1)
        return builder.add(builder.atomic_rmw("add", place, one, "seq_cst"), one)

    return types.int64(counter), emit


@intrinsic
def _calls(typing_context, counter):
    """Return counter[0]; what other threads wrote before they added to it can be read from now."""

    def emit(context, builder, signature, arguments):
        place = context.make_array(counter)(context, builder, arguments[0]).data
        return builder.load_atomic(place, "acquire", align=8)

    return types.int64(counter), emit


# The system's function to let other threads have the processor, on Linux and macOS or on Windows.
_found = [name for name in ("sched_yield", "SwitchToThread") if binding.address_of_symbol(name)]
_let_others: Any = register_jitable(lambda: None)
if _found:
    _let_others = types.ExternalFunction(_found[0], types.intc())


def threads_for(work: int) -> int:
    """Return how many threads a step gets whose largest product has so many multiply-adds."""
    count = _threads.count_for(work)
    if count is not None:
        return count
    here = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return min(len(here), _threads.SCIPY[0]()) if _threads.SCIPY else len(here)


def run(kernel: Callable[..., Any], parts: int, *arguments: Any) -> None:
    """Call kernel(part, parts, counter, *arguments) for each part, all at once.

    Part 0 runs in the calling thread, each other one in a thread that is kept for the next time.
    Every call has threads and a counter of its own. If a part fails, or cannot begin, nobody waits
    for it, and when all have ended its error is raised.
    """
    counter = np.zeros(1, np.int64)

    def call(part: int) -> None:
        with _failing(counter):
            kernel(part, parts, counter, *arguments)

    with _one_thread_in_blas(), _helpers(parts - 1) as helpers, _failing(counter):
        others = [
            helper.submit(copy_context().run, call, part)  # with the caller's np.errstate
            for part, helper in enumerate(helpers, 1)
        ]
        kernel(0, parts, counter, *arguments)
        for other in others:
            other.result()


@contextmanager
def _failing(counter: NDArray[np.int64]) -> Iterator[None]:
    """Let nobody wait for who has failed."""
    try:
        yield
    except BaseException:
        with _lock:
            counter[0] = _FAILED
        raise


_users: dict[object, int] = {}  # how many threads SciPy's BLAS had before the first of them


@contextmanager
def _one_thread_in_blas() -> Iterator[None]:
    """Multiply matrices in the calling thread alone: the parts are the threads.

    The last who needs it gives the threads back, as the pool belongs to the whole process.
    """
    if _threads.SCIPY is None:
        yield
        return
    get_count, set_count = _threads.SCIPY
    user = object()
    try:
        with _lock:
            _users[user] = next(iter(_users.values()), get_count())
            set_count(1)
        yield
    finally:
        with _lock:
            before = _users.pop(user, None)
            if before is not None and not _users:
                set_count(before)


_idle: list[ThreadPoolExecutor] = []  # of one thread each


@contextmanager
def _helpers(n: int) -> Iterator[list[ThreadPoolExecutor]]:
    """Lend n threads that nobody else has. After an error they end their work, and are not kept."""
    helpers = [_idle.pop() if _idle else ThreadPoolExecutor(1) for _ in range(n)]
    try:
        yield helpers
    except BaseException:
        for helper in helpers:
            helper.shutdown(cancel_futures=True)
        raise
    _idle.extend(helpers)


def _forget() -> None:
    """Begin without threads: a child process has none but the one that forked."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()
    if _users and _threads.SCIPY is not None:
        _threads.SCIPY[1](next(iter(_users.values())))
    _users.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
