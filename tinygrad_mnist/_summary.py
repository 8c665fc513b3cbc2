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
    twin = copy.deepcopy(model).eval()  # which computes, so that the model keeps nothing
    own, ys = parameters_of(twin), _shapes_of_y(twin, shape)
    costs = {key: _multiply_adds(own[key], shapes) for key, shapes in ys.items()}
    rows = []
    for line, module in lines_of(twin):
        count, cost = counted(module, own[id(module)]), f"{costs[id(module)]:,}"
        rows.append((line, _last(ys[id(module)]), count, cost if count else ""))
    total = sum(p.data.size for p in twin.parameters())
    rows.append(("total", _last(ys[id(twin)]), f"{total:,}", f"{sum(costs.values()):,}"))
    size = sum(array.nbytes for array in twin.state_dict().values())
    title = f"{type(model).__name__} of samples {shape}: {size:,} bytes of parameters and buffers"
    return Table(["layer", "output", "parameters", "multiply-adds"], rows, title)


def _shapes_of_y(model: Module, shape: Shape) -> dict[int, list[Shape]]:
    """Return what each module returns when the model is called: a shape for each call, by id."""
    found: dict[int, list[Shape]] = {id(module): [] for module in model.modules()}
    for module in model.modules():
        module.forward = _recorded(module.forward, found[id(module)])  # type: ignore[method-assign]
    with np.errstate(all="ignore"):
        model(np.zeros((1, *shape), int))  # as integers may be looked up, too
    return found


def _recorded(forward: Callable[..., Any], shapes: list[Shape]) -> Callable[..., Any]:
    def recorded(*inputs: Any) -> Any:
        y = forward(*inputs)
        shapes.append(np.shape(y)[1:])  # of one sample
        return y

    return recorded


def _multiply_adds(parameters: list[Parameter], shapes: list[Shape]) -> int:
    places = sum(math.prod(shape[:-1]) for shape in shapes)
    return places * sum(p.data.size for p in parameters if p.data.ndim >= 2)


def _last(shapes: list[Shape]) -> str:
    return str(shapes[-1]) if shapes else ""
