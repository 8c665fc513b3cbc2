"""Random streams: find every one that an object draws from, and set them back."""

import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_mnist._generators import Stream, streams_in

_GLOBAL: tuple[Stream, ...] = (
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
)


class Streams:
    """The random streams that a call may draw from, as they were before it.

    They are all generators reachable from root (attributes and the items of lists, tuples, sets
    and dicts, at any depth), and of the two global streams those that the call did draw from.
    A generator that only a closure holds is not found.
    """

    def __init__(self, root: object, call: Callable[[], object]) -> None:
        self._streams = [(*stream, stream[0]()) for stream in (*streams_in(root), *_GLOBAL)]
        try:
            call()
        except BaseException:
            self.rewind()
            raise
        untouched = [s for s in self._streams[-len(_GLOBAL) :] if not _moved(s)]
        self._streams = [s for s in self._streams if s not in untouched]
        self.rewind()

    def rewind(self) -> None:
        """Set every stream back to where it was."""
        for _, set_state, state in self._streams:
            set_state(state)

    def moved(self) -> bool:
        """Return whether anybody has drawn from one of them since."""
        return any(map(_moved, self._streams))


def _moved(stream: tuple[Callable[[], Any], Callable[[Any], None], Any]) -> bool:
    get_state, _, state = stream
    return pickle.dumps(get_state()) != pickle.dumps(state)
