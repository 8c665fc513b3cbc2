"""The parameters, buffers and modes of a model, kept to be set back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from tinygrad_mnist.module import Module
from tinygrad_mnist.parameter import Buffer


def arrays_of(model: Module) -> dict[str, NDArray[Any]]:
    """Return copies of the parameters and buffers by name."""
    return {name: buffer.data.copy() for name, buffer in _named(model)}


def set_back(model: Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Set parameters and buffers to what `arrays_of` returned, but those that are read-only."""
    for name, buffer in _named(model):
        if buffer.data.flags.writeable:
            buffer.data = arrays[name]


def _named(model: Module) -> Iterator[tuple[str, Buffer]]:
    yield from (*model.named_parameters(), *model.named_buffers())


@contextmanager
def modes_kept(model: Module) -> Iterator[None]:
    """Set every module back to the mode that it was in."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
