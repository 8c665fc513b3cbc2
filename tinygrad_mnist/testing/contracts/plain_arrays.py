"""The rule `plain-arrays`: weights that are no Parameters, which no gradient is asked of."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._generators import attributes
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing.arrays import equal
from tinygrad_mnist.testing.contracts.module_run import ModuleRun
from tinygrad_mnist.testing.subject import State


def plain_arrays(run: ModuleRun) -> None:
    """y depends on no array of floats from `__init__` that is neither Parameter nor Buffer."""
    module = copy.deepcopy(run.given).astype(np.float64)
    kept = list(_kept_arrays(module))  # before forward keeps some for backward
    if not kept:
        return
    state = State(lambda: module(*run.inputs), module)

    def y() -> FloatArray:
        state.rewind()
        return np.array(module(*run.inputs))

    wanted = y()
    for place, array in kept:
        numbers = array.copy()
        array += 1 + abs(array)
        try:
            same = equal(y(), wanted)
        except Exception:  # of an array that has to be another one: y depends on it
            same = False
        array[...] = numbers
        message = f"no y that depends on {place}, a plain array, got one; keep it as a Parameter"
        run.require(same, f"{message}, or as a Buffer if it is not trained")


def _kept_arrays(module: Module) -> Iterator[tuple[str, Any]]:
    """Yield each array of floats that a module or one inside keeps, and a name of its place."""
    owned = {id(b.data) for b in [*module.parameters(), *(b for _, b in module.named_buffers())]}
    for part in module.modules():
        owner = "self" if part is module else type(part).__name__
        for name, value in attributes(part).items():
            for array in _arrays_in(value):
                if id(array) not in owned:
                    yield f"{owner}.{name}", array


def _arrays_in(value: Any) -> Iterator[Any]:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _arrays_in(item)
