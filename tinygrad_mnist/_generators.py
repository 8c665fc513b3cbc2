"""Every random generator that an object draws from: how to read its state, and how to set it."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Stream = tuple[Callable[[], Any], Callable[[Any], None]]  # how to get its state, how to set it


def streams_in(root: object) -> Iterator[Stream]:
    """Yield the stream of each generator reachable from root, in order, each once.

    It looks into attributes and the items of lists, tuples, sets and dicts, at any depth. A
    generator that only a closure holds is not found.
    """
    return _found_in(root, {})


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
