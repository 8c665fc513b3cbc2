"""A line on the terminal, or in a notebook, while a kernel is compiled: seconds, once."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from tqdm import tqdm

from tinygrad_mnist._display import Output, in_notebook

_SECOND = 1.0
_called: set[tuple[Any, np.dtype[Any]]] = set()


@contextmanager
def compiling(kernel: Any, dtype: np.dtype[Any]) -> Iterator[None]:
    """Say what the first call of a kernel for this dtype waits for, if it takes a second.

    Compiled before, it is read from disk, which takes less.
    """
    if (kernel, dtype) in _called or sys.stderr is None:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_say, args=(dtype, done), daemon=True)
    thread.start()
    try:
        yield
        _called.add((kernel, dtype))
    finally:
        done.set()
        thread.join()


def _say(dtype: np.dtype[Any], done: threading.Event) -> None:
    """Show the seconds until it is done, below the bars that are open, and leave nothing."""
    if done.wait(_SECOND):
        return
    what = f"compiling for {dtype}: once, then kept on disk"
    with _line() as put:
        for seconds in count(1):
            put(f"{what} ... {seconds} s")
            if done.wait(_SECOND):
                return


@contextmanager
def _line() -> Iterator[Callable[[str], None]]:
    """Yield what replaces a line, of which nothing stays."""
    if in_notebook():
        with Output() as output:
            yield output.put
    else:
        with tqdm(bar_format="{desc}", leave=False, disable=None) as bar:
            yield bar.set_description_str
