"""Every random generator that an object draws from: how to read its state, and how to set it."""

import random
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np

Stream = tuple[Callable[[], Any], Callable[[Any], None]]  # how to get its state, how to set it


def streams_in(root: object) -> Iterator[Stream]:
    """Yield the stream of each generator reachable from root, in order, each once.

    It looks into the attributes of objects (also slots) and the items of lists, tuples, sets and
    dicts, at any depth. A generator that only a closure, a class or a function holds is not found.
    """
    return _found_in(root, {})


def check_state(current: Any, new: Any) -> None:
    """Raise ValueError unless new is a state of the same kind as current.

    NumPy does not validate a state: a position outside of the buffer of MT19937 or Philox makes it
    read out of bounds.
    """
    if not _alike(current, new):
        raise ValueError(f"a state of another generator than {type(current).__name__}")
    if isinstance(new, dict):
        positions = {"pos": 624, "buffer_pos": 4, "has_uint32": 1, "has_gauss": 1}
        inside = new["state"] if isinstance(new["state"], dict) else {}
        for name, value in (new | inside).items():
            if name in positions and not 0 <= value <= positions[name]:
                raise ValueError(f"a state with {name} = {value}")


def _alike(a: Any, b: Any) -> bool:
    """Return whether two states have the same keys, types, shapes and dtypes all through."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return bool(a.shape == b.shape and a.dtype == b.dtype)
    if a is None or isinstance(a, float):
        return b is None or isinstance(b, float)  # random.Random may hold a number in reserve
    return type(a) is type(b) and (not isinstance(a, str) or bool(a == b))


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
        items: Any = [*getattr(value, "__dict__", {}).values(), *_slots(value)]
        if isinstance(value, dict):
            items = [*items, *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            items = [*items, *value]
        if not isinstance(value, (type, type(np))):
            for item in items:
                yield from _found_in(item, seen)


def _slots(value: object) -> list[Any]:
    declared = [vars(base).get("__slots__", ()) for base in type(value).__mro__]
    names = [[slots] if isinstance(slots, str) else slots for slots in declared]
    return [getattr(value, name) for name in chain(*names) if hasattr(value, name)]
