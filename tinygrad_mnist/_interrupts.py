"""Ctrl-C, held back while what belongs together is half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Hold:
    """A handler of Ctrl-C that waits for `let()` or a `with hold:` block, then calls the usual one.

    A second Ctrl-C does not wait: what is held may never end.
    """

    def __init__(self, usual: Any) -> None:
        self._usual, self._held, self._waiting = usual, True, False

    def __call__(self, number: int, frame: Any) -> None:
        """Do what Python calls a handler for."""
        if self._held and not self._waiting:
            self._waiting = True
        else:
            self._waiting = False
            self._usual(number, frame)

    def let(self) -> None:
        """Let it come now, if it waits."""
        if self._waiting:
            self(signal.SIGINT, None)

    def __enter__(self) -> None:
        """Let it come at any moment until the end of the block."""
        self._held = False
        if self._waiting:
            self._held = True  # as there is no `__exit__` after what this may raise
            self.let()

    def __exit__(self, *_: object) -> None:
        """Hold it back again."""
        self._held = True


@contextmanager
def holding() -> Iterator[Hold]:
    """Hold Ctrl-C back until the end of a `with` block, but for the moments that it chooses.

    Python looks for signals also between a block and its clean-up, where `__exit__` begins. So
    holding is the rule in here, and letting it come the exception. In other threads than the main
    one there is nothing to hold: KeyboardInterrupt is raised in the main thread alone.
    """
    usual = signal.getsignal(signal.SIGINT)
    hold = Hold(usual)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        yield hold
        return
    try:
        signal.signal(signal.SIGINT, hold)
        yield hold
    finally:
        signal.signal(signal.SIGINT, usual)
        hold.let()
