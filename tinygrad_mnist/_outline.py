"""A model as indented lines, each layer below the one that it is in: for tables of its layers."""

import inspect
from collections.abc import Iterator
from typing import Any

from tinygrad_mnist._display import Table


def outline(model: Any) -> Table:
    """Return what a notebook shows of a model: its layers, and how many parameters each has."""
    own = parameters_of(model)
    rows = [(line, counted(module, own[id(module)])) for line, module in lines_of(model)]
    total = sum(p.data.size for p in model.parameters())
    return Table(["layer", "parameters"], rows, f"{type(model).__name__}: {total:,} parameters")


def lines_of(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield ("  1.0 Linear(784, 100)", module) for every Module inside; for a lone one, itself."""
    (_, alone), *inside = model.named_modules()
    if not inside:
        yield as_written(alone), alone
    depths = {"": -1}
    for path, module in inside:
        above = max((p for p in depths if path.startswith(p and f"{p}.")), key=len)
        depths[path] = depths[above] + 1
        yield f"{'  ' * depths[path]}{path} {as_written(module)}", module


def as_written(module: Any) -> str:
    """Return a module as one would write it, without what is usual: "Conv2d(1, 8, 5, stride=2)"."""
    arguments = inspect.signature(type(module)).parameters
    shown = []
    for name, value in module._hyperparameters().items():
        if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]:
            value = value[0]  # as one number stands for rows and columns
        argument = arguments.get(name)
        positional = argument is not None and argument.kind is argument.POSITIONAL_OR_KEYWORD
        if positional and not isinstance(value, bool):
            shown.append(repr(value))
        elif argument is None or value != argument.default:
            shown.append(f"{name}={value!r}")
    return f"{type(module).__name__}({', '.join(shown)})"


def parameters_of(model: Any) -> dict[int, list[Any]]:
    """Return the Parameters that each module has besides those of the modules in it, by its id.

    One that is shared counts where it is first.
    """
    found: dict[int, list[Any]] = {}
    seen: set[int] = set()
    for module in model.modules():
        seen_within = seen.union(*({id(p) for p in c.parameters()} for c in module.children()))
        found[id(module)] = [p for p in module.parameters() if id(p) not in seen_within]
        seen |= {id(p) for p in found[id(module)]}
    return found


def counted(module: Any, own: list[Any]) -> str:
    """Return how many numbers these Parameters of a module hold; "" if just modules in it do."""
    return f"{sum(p.data.size for p in own):,}" if own or not any(module.children()) else ""
