"""Random streams: find every one that an object draws from, and set them back."""

import pickle
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Stream = tuple[Callable[[], Any], Callable[[Any], None]]  # how to get its state, how to set it

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
        self._streams = [(*stream, stream[0]()) for stream in (*_found_in(root, {}), *_GLOBAL)]
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


def _found_in(value: object, seen: dict[int, object]) -> Iterator[Stream]:
    if isinstance(value, (int, float, str, bytes, np.ndarray, type(None))) or id(value) in seen:
        return
    seen[id(value)] = value  # the reference keeps the id from being used again
    if isinstance(value, np.random.Generator):
        yield from _found_in(value.bit_generator, seen)
    elif isinstance(value, np.random.BitGenerator):
        yield (lambda: value.state), (lambda state: setattr(value, "state", state))
    elif isinstance(value, np.random.RandomState):
        yield (lambda: value.get_state(legacy=False)), value.set_state
    elif isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        yield value.getstate, value.setstate
    else:
        items: Any = vars(value).values() if hasattr(value, "__dict__") else ()
        if isinstance(value, dict):
            items = [*items, *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            items = [*items, *value]
        if not isinstance(value, (type, type(np))):
            for item in items:
                yield from _found_in(item, seen)
