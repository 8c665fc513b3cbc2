"""A model as a chain, each layer with its row in a table: for what runs a model by other means."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from tinygrad_mnist import _checks as check
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Sequential
from tinygrad_mnist.parameter import Parameter

Row = TypeVar("Row")


def rows_of(
    owner: str, model: Module, table: Mapping[type[Module], Row], remedy: str = ""
) -> list[tuple[str, Module, Row]]:
    """Return the layers of a nested Sequential, or of one layer alone, as (path, layer, row).

    A row is found by exact class: a subclass may compute anything, and so may an object that a
    method was set on. What has no row is a TypeError, whose message ends with the remedy.
    """
    found, chain = [], iter([("", model)])
    if type(model) is Sequential and not check.has_own_method(model):
        chain = model.leaves()
    for path, layer in chain:
        if check.has_own_method(layer) or type(layer) not in table:
            contract = f"{listed(['Sequential', *(kind.__name__ for kind in table)])} alone"
            got = f"{kind_of(layer)} at {path or 'the top'}{remedy}"
            raise TypeError(check.expected(owner, contract, got))
        found.append((path, layer, table[type(layer)]))
    return found


def kind_of(part: object) -> str:
    """Return the name of its class, or "a custom" one if a method was set on the object."""
    return f"{'a custom ' if check.has_own_method(part) else ''}{type(part).__name__}"


def listed(names: Iterable[str]) -> str:
    """Return "A, B and C"."""
    *others, last = names
    return f"{', '.join(others)} and {last}"


def shared_dtype(owner: str, params: Iterable[Parameter], remedy: str = "") -> np.dtype[Any]:
    """Return the dtype of all parameters, or refuse two dtypes and a Parameter in two places."""
    params = list(params)
    if len({id(p) for p in params}) < len(params):
        raise TypeError(check.expected(owner, "no shared Parameter", f"one{remedy}"))
    first, *others = sorted({p.data.dtype for p in params}, key=str)
    if others:
        contract = "parameters of one dtype"
        raise ValueError(check.expected(owner, contract, f"{first} and {others[0]}"))
    return first
