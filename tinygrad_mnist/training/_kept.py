"""What a model is set back to: its parameters and buffers, and its modes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from tinygrad_mnist.module import Module


def set_back(model: Module, state: Mapping[str, NDArray[Any]]) -> None:
    """Set parameters and buffers to what `state_dict` returned, but those that are read-only."""
    for name, buffer in (*model.named_parameters(), *model.named_buffers()):
        if buffer.data.flags.writeable:
            buffer.data = state[name]


@contextmanager
def modes_kept(model: Module) -> Iterator[None]:
    """Set every module back to the mode that it was in."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
