"""summary: the shapes and the cost of a model, layer by layer."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_mnist import _checks as check
from tinygrad_mnist._display import Table
from tinygrad_mnist._outline import counted, lines_of, parameters_of
from tinygrad_mnist.module import Module
from tinygrad_mnist.parameter import Parameter

Shape = tuple[int, ...]


def summary(model: Module, sample_shape: Shape) -> Table:
    """Return a table: each layer with the shape of its output, its parameters and multiply-adds.

    Multiply-adds are those of one sample with weights, which are Parameters of two axes or more:
    every entry is multiplied once for each place of the output, such as a pixel. That is exact for
    Linear and Conv2d. A layer that forward does not call has no shape.

    Args:
        model: Any Module of one input.
        sample_shape: The shape of one sample, such as (784,) or (28, 28, 1).
    """
    if not isinstance(model, Module):
        raise check.type_error("summary", "a Module", model)
    shape = check.integers("summary", "sample_shape", sample_shape, at_least=1)
    own = parameters_of(model)
    shapes: dict[int, list[Shape]] = {id(module): [] for module in model.modules()}
    with np.errstate(all="ignore"):
        x = np.zeros((1, *shape), int)  # as integers may be looked up, too
        for _, module, y in outputs_of(model, x):
            shapes[id(module)].append(np.shape(y)[1:])
    costs = {key: _multiply_adds(own[key], found) for key, found in shapes.items()}
    rows = []
    for line, module in lines_of(model):
        count, cost = counted(module, own[id(module)]), f"{costs[id(module)]:,}"
        rows.append((line, _last(shapes[id(module)]), count, cost if count else ""))
    total = sum(p.data.size for p in model.parameters())
    rows.append(("total", _last(shapes[id(model)]), f"{total:,}", f"{sum(costs.values()):,}"))
    size = sum(array.nbytes for array in model.state_dict().values())
    title = f"{type(model).__name__} of samples {shape}: {size:,} bytes of parameters and buffers"
    return Table(["layer", "output", "parameters", "multiply-adds"], rows, title)


def outputs_of(model: Module, x: Any) -> list[tuple[str, Module, Any]]:
    """Return (path, module, y) for each call of a module in a forward, in evaluation mode.

    They are in the order in which the calls return. A copy computes, so that the model keeps
    nothing.
    """
    found: list[tuple[str, Module, Any]] = []

    def recorded(path: str, module: Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def forward_and_record(*inputs: Any) -> Any:
            y = forward(*inputs)
            found.append((path, module, y))
            return y

        return forward_and_record

    twin = copy.deepcopy(model).eval()
    copies = list(twin.modules())
    for (path, module), copied in zip(model.named_modules(), copies, strict=True):
        copied.forward = recorded(path, module, copied.forward)  # type: ignore[method-assign]
    twin(x)
    return found


def _multiply_adds(parameters: list[Parameter], shapes: list[Shape]) -> int:
    places = sum(math.prod(shape[:-1]) for shape in shapes)
    return places * sum(p.data.size for p in parameters if p.data.ndim >= 2)


def _last(shapes: list[Shape]) -> str:
    return str(shapes[-1]) if shapes else ""
