"""A model as a flat chain of the package's own layers, for what runs them by other means."""

from collections.abc import Iterator
from itertools import pairwise

from tinygrad_mnist import _checks as check
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Dropout, Linear, ReLU, Sequential
from tinygrad_mnist.parameter import Parameter


def flattened(module: Module, name: str = "") -> Iterator[tuple[str, Module]]:
    """Yield the layers of a nested Sequential, named by position as in `named_parameters`: "2.1".

    One that computes something of its own is yielded as a layer.
    """
    if type(module) is Sequential and not has_own_method(module):
        for i, layer in enumerate(module):
            yield from flattened(layer, f"{name}.{i}" if name else str(i))
    else:
        yield name, module


def is_plain(layer: Module) -> bool:
    """Return whether it computes what a layer of its name does."""
    return type(layer) in (Linear, ReLU, Dropout) and not has_own_method(layer)


def has_own_method(module: Module) -> bool:
    """Return whether a method was set on the object: it may compute anything."""
    return not vars(module).keys().isdisjoint(("forward", "backward", "draw_mask"))


def checked_parameters(owner: str, linears: dict[str, Linear]) -> list[Parameter]:
    """Return the parameters of a chain, or refuse none, two dtypes, or shapes that do not fit."""
    if not linears:
        raise ValueError(check.expected(owner, "at least one Linear", "none"))
    for (_, before), (name, after) in pairwise(linears.items()):
        width, rows = before.weight.data.shape[1], after.weight.data.shape[0]
        if rows != width:
            raise ValueError(check.expected(owner, f"layer {name} to take {width} features", rows))
    for name, linear in linears.items():
        if linear.bias is not None:  # one of another shape would be broadcast by forward
            shape = linear.weight.data.shape[1:]
            check.same_shape(owner, f"bias of layer {name}", linear.bias.data, shape)
    params = [p for linear in linears.values() for p in parameters_of(linear)]
    dtypes = sorted({p.data.dtype.name for p in params})
    if len(dtypes) > 1:
        raise ValueError(check.expected(owner, "parameters of one dtype", " and ".join(dtypes)))
    return params


def parameters_of(linear: Linear) -> list[Parameter]:
    """Return W and, if there is one, b."""
    return [p for p in (linear.weight, linear.bias) if p is not None]


def is_shared(params: list[Parameter]) -> bool:
    """Return whether one of them comes twice."""
    return len({id(p) for p in params}) < len(params)
