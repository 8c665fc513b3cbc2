"""Every random generator that an object draws from: how to read its state, and how to set it."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import BuiltinMethodType, MethodType, ModuleType
from typing import Any

import numpy as np

Stream = tuple[Callable[[], Any], Callable[[Any], None]]  # how to get its state, how to set it
_NOT_LOOKED_INTO = (int, float, str, bytes, type(None), np.ndarray, type, ModuleType)


def streams_in(root: object) -> Iterator[Stream]:
    """Yield the stream of each generator reachable from root, in order, each once.

    A generator that only a closure, a class or a function holds is not found.
    """
    for value in reachable(root):
        if isinstance(value, np.random.BitGenerator):
            yield partial(getattr, value, "state"), partial(setattr, value, "state")
        elif isinstance(value, np.random.RandomState):
            yield partial(value.get_state, legacy=False), value.set_state
        elif isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
            yield value.getstate, value.setstate


@contextmanager
def kept(streams: Iterable[Stream]) -> Iterator[None]:
    """Set streams back, at the end of a `with` block, to where they are at its beginning."""
    states = [(put, get()) for get, put in streams]
    try:
        yield
    finally:
        for put, state in states:
            put(state)


def reachable(root: object) -> Iterator[Any]:
    """Yield root and every object inside, in order, each once, but numbers and arrays of them.

    It looks into the attributes of objects (also slots), the items of lists, tuples, deques, sets,
    dicts and arrays of objects, the objects of bound methods and the arguments of partials, at any
    depth.
    """
    seen, waiting = {}, [root]
    while waiting:
        value: Any = waiting.pop()
        if _is_plain(value) or id(value) in seen:
            continue
        seen[id(value)] = value  # the reference keeps the id from being used again
        yield value
        waiting += reversed(_inside(value))


def _is_plain(value: object) -> bool:
    objects = isinstance(value, np.ndarray) and value.dtype.hasobject
    return isinstance(value, _NOT_LOOKED_INTO) and not objects


def attributes(value: object) -> dict[str, Any]:
    """Return the attributes of an object by name, those in slots among them."""
    state: Any = object.__getstate__(value)
    parts = state if isinstance(state, tuple) else (state,)
    return {name: item for part in parts if part for name, item in part.items()}


def _inside(value: Any) -> list[Any]:
    if isinstance(value, np.random.Generator):
        return [value.bit_generator]
    if isinstance(value, (np.random.BitGenerator, np.random.RandomState, random.Random)):
        return []
    items = list(attributes(value).values())
    if isinstance(value, dict):
        items += value.values()
    elif isinstance(value, (list, tuple, deque, set, frozenset)):
        items += value
    elif isinstance(value, np.ndarray):
        items += value.reshape(-1).tolist()
    elif isinstance(value, (MethodType, BuiltinMethodType)):
        items.append(value.__self__)
    elif isinstance(value, partial):
        items += [value.func, value.args, value.keywords]
    return items


_WORD = 2**32 - 1
# what numbers in a state are at most; all of them are at least 0
_MOST = {"pos": 624, "buffer_pos": 4, "has_uint32": 1, "has_gauss": 1, "uinteger": _WORD}
_MOST |= {"state": 2**128 - 1, "inc": 2**128 - 1}
_LARGEST_NORMAL = 40.0  # no number drawn from a normal distribution is as large


def check_state(current: Any, new: Any) -> None:
    """Raise ValueError unless new is a state that a generator of current's kind can be in.

    NumPy does not validate a state. A position outside of the buffer of MT19937 or Philox makes it
    read out of bounds, and after some states every number is 0, or `integers` never returns.
    """
    if not _alike(current, new):
        raise ValueError(f"a state of another generator than {type(current).__name__}")
    if isinstance(new, tuple) and len(new) == 3:  # of random.Random, an MT19937 without names
        new = {"state": {"key": new[1][:-1], "pos": new[1][-1]}}
    if not isinstance(new, dict):
        return
    inside = new.get("state")
    numbers = new | inside if isinstance(inside, dict) else new
    for name, most in _MOST.items():
        value = numbers.get(name, 0)
        if isinstance(value, int) and not 0 <= value <= most:
            raise ValueError(f"a state with {name} = {value}")
    if numbers.get("inc", 1) % 2 == 0:
        raise ValueError("a state of PCG64 with an even inc")
    if "pos" in numbers:
        first, *others = map(int, numbers["key"])
        if not (first >> 31 or any(others)):  # the other bits of the first word are never used
            raise ValueError("a state of MT19937 that is 0")
        if not all(0 <= word <= _WORD for word in (first, *others)):
            raise ValueError("a state of MT19937 with words of more than 32 bits")


def _alike(a: Any, b: Any) -> bool:
    """Return whether two states have the same keys, types, shapes and dtypes all through."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return bool(a.shape == b.shape and a.dtype == b.dtype)
    if a is None or isinstance(a, float):  # a normal number in reserve, or none
        return b is None or (isinstance(b, float) and abs(b) < _LARGEST_NORMAL)
    return type(a) is type(b) and (not isinstance(a, str) or bool(a == b))
