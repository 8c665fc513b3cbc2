"""What a forward moves besides its outputs, random streams and Buffers: find it and set it back."""

import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_mnist._generators import Stream, streams_in
from tinygrad_mnist.module import Module

_GLOBAL: tuple[Stream, ...] = (
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
)


class State:
    """The random streams and Buffers that a call may move, as they were before it.

    The streams are those that `streams_in` finds in the parts, and of the two global ones those
    that the call draws from. The Buffers are those of the parts that are Modules.
    """

    def __init__(self, call: Callable[[], object], *parts: object) -> None:
        self._modules = [part for part in parts if isinstance(part, Module)]
        self._buffers = {name: buffer.data.copy() for name, buffer in self._named_buffers()}
        self._streams = [(*stream, stream[0]()) for stream in streams_in(parts)]
        shared = [(*stream, stream[0]()) for stream in _GLOBAL]
        try:
            call()
        finally:
            self._streams += [stream for stream in shared if _moved(stream)]
            self.rewind()

    def rewind(self) -> None:
        """Set every stream and every Buffer back to where it was."""
        for _, set_state, state in self._streams:
            set_state(state)
        for name, buffer in self._named_buffers() if self._buffers else ():
            buffer.data = self._buffers.get(name, buffer.data)

    def drawn(self) -> bool:
        """Return whether anybody has drawn from one of the streams since."""
        return any(map(_moved, self._streams))

    def moved_buffers(self) -> list[str]:
        """Return the names of the Buffers that have moved since."""
        now_and_then = ((n, b.data, self._buffers.get(n, b.data)) for n, b in self._named_buffers())
        return [n for n, now, then in now_and_then if not np.array_equal(now, then, equal_nan=True)]

    def _named_buffers(self) -> list[tuple[str, Any]]:
        return [pair for module in self._modules for pair in module.named_buffers()]


def _moved(stream: tuple[Callable[[], Any], Callable[[Any], None], Any]) -> bool:
    get_state, _, state = stream
    return pickle.dumps(get_state()) != pickle.dumps(state)
