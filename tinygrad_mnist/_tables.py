"""A model as a chain or a tree, each layer with its row in a table: for what runs it elsewhere."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from tinygrad_mnist import _checks as check
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Parallel, Residual, Sequential
from tinygrad_mnist.nn.branches import Branches
from tinygrad_mnist.parameter import Parameter

Row = TypeVar("Row")
Value = TypeVar("Value")


def rows_of(
    owner: str, model: Module, table: Mapping[type[Module], Row], remedy: str = ""
) -> list[tuple[str, Module, Row]]:
    """Return the layers of a nested Sequential, or of one layer alone, as (path, layer, row).

    A row is found by exact class: a subclass may compute anything, and so may an object that a
    method was set on. What has no row is a TypeError, whose message ends with the remedy.
    """
    chain = [("", model)]
    if type(model) is Sequential and not check.has_own_method(model):
        chain = list(model.leaves())
    return [
        (path, layer, _row(owner, path, layer, table, [Sequential], remedy))
        for path, layer in chain
    ]


def output_of(
    owner: str,
    model: Module,
    table: Mapping[type[Module], Row],
    x: Value,
    apply: Callable[[Row, str, Module, Value], Value],
    join: Callable[[str, str, list[Value]], Value],
) -> Value:
    """Return what a model makes of x, which may be a symbol: the name of an array, for example.

    Sequential, Residual and Parallel are followed here. Paths are the names of parameters without
    their last part: "1.body.0". Layers are looked up, and refused, as in `rows_of`.

    Args:
        owner: Who refuses.
        model: Any nesting of the three containers and of layers with a row.
        table: The rows, by class.
        x: What the model gets.
        apply: Returns the y of one layer, given (row, path, layer, x).
        join: Returns the y of two branches or more, given ("add" or "concat", path, their ys).
    """
    containers: list[type[Module]] = [Sequential, Residual, Parallel]

    def output(path: str, layer: Module, x: Value) -> Value:
        if type(layer) not in containers or check.has_own_method(layer):
            return apply(_row(owner, path, layer, table, containers), path, layer, x)
        within = f"{path}." if path else ""
        if isinstance(layer, Branches):
            ys = [output(f"{within}{name}", branch, x) for name, branch in layer.named_branches()]
            if isinstance(layer, Residual) and layer.shortcut is None:
                ys.append(x)
            how = layer.join if isinstance(layer, Parallel) else "add"
            return join(how, path, ys) if len(ys) > 1 else ys[0]
        for name, inner in enumerate(layer.children()):
            x = output(f"{within}{name}", inner, x)
        return x

    return output("", model, x)


def _row(
    owner: str,
    path: str,
    layer: Module,
    table: Mapping[type[Module], Row],
    containers: Iterable[type[Module]],  # which the message names, too
    remedy: str = "",
) -> Row:
    if check.has_own_method(layer) or type(layer) not in table:
        contract = f"{listed(kind.__name__ for kind in [*containers, *table])} alone"
        got = f"{kind_of(layer)} at {path or 'the top'}{remedy}"
        raise TypeError(check.expected(owner, contract, got))
    return table[type(layer)]


def kind_of(part: object) -> str:
    """Return the name of its class, or "a custom" one if a method was set on the object."""
    if isinstance(part, type):
        return check.described(part)
    return f"{'a custom ' if check.has_own_method(part) else ''}{type(part).__name__}"


def listed(names: Iterable[str]) -> str:
    """Return "A, B and C"."""
    *others, last = names
    return f"{', '.join(others)} and {last}"


def shared_dtype(owner: str, params: Iterable[Parameter], remedy: str = "") -> np.dtype[Any]:
    """Return the dtype of all parameters, float32 without any.

    Two dtypes are refused, and a Parameter in two places.
    """
    params = list(params)
    if len({id(p) for p in params}) < len(params):
        raise TypeError(check.expected(owner, "no shared Parameter", f"one{remedy}"))
    first, *others = sorted({p.data.dtype for p in params}, key=str) or [np.dtype(np.float32)]
    if others:
        contract = "parameters of one dtype"
        raise ValueError(check.expected(owner, contract, f"{first} and {others[0]}"))
    return first
