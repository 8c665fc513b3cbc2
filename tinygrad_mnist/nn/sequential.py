"""Sequential: layers in a chain."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.parameter import Buffer


class Sequential(Module):
    """y = f_n(... f_1(x)): forward runs the layers in order, backward in reverse.

    Iterate over it, take its `len`, index it for a layer and slice it for a Sequential of the
    same layers. An empty one is the identity. Parameters are named by position: "0.weight". A
    layer's refusal names its position too: "Sequential, layer 2: Linear: expected ...".

    Args:
        layers: Modules, each one once, also counted through nested Modules: a module remembers
            one forward. Only the first may have `input_grad=False`, or several inputs.

    Raises:
        TypeError: A layer is no Module.
        ValueError: A Module appears twice, or a later layer has `input_grad=False`.
    """

    _y: FloatArray | None = None  # of the last forward: dy must be like it

    def __init__(self, *layers: Module) -> None:
        check_layers(self, enumerate(layers))
        for i, layer in enumerate(layers):
            if i > 0 and not layer.input_grad:
                contract = "input_grad=False in no layer but the first"
                raise ValueError(check.expected(self, contract, f"it in layer {i}"))
        self.layers = layers

    @property
    def input_grad(self) -> bool:  # type: ignore[override]
        """Whether backward returns dx, as the first layer says."""
        return not self.layers or self.layers[0].input_grad

    @property
    def sample_axes(self) -> int:  # type: ignore[override]
        """How many last axes of x are one sample, which is the most that a layer says."""
        most, added = Module.sample_axes, 0
        for layer in self.layers:
            most = max(most, layer.sample_axes - added)
            added += layer.added_axes
        return most

    @property
    def added_axes(self) -> int:  # type: ignore[override]
        """How many more axes y has than x, by all layers together."""
        return sum(layer.added_axes for layer in self.layers)

    def forward(self, x: ArrayLike, *more: ArrayLike) -> Any:
        self._y = None  # if a layer raises, those after it still hold the previous forward
        y: Any = x if type(x) is np.ndarray and x.dtype in check.FLOATS else entering(self, x)
        if more:
            more = tuple(entering(self, other) for other in more)
        try:
            for i, layer in enumerate(self.layers):  # noqa: B007
                y = layer.forward(y, *more) if more else layer.forward(y)
                more = ()  # only the first layer may have several inputs
        except (ValueError, TypeError) as error:
            check.locate(error, self, i, self.layers[i])
            raise
        if more:
            raise check.type_error(self, "one input, as it has no layer", 1 + len(more))
        y = check.floats(self, "y", y)
        if not self.layers:
            y = y.copy()  # never x itself
        self._y = y[...]  # a view: the caller may reshape y in place
        return y

    def backward(self, dy: ArrayLike) -> Any:
        dx: Any = check.cotangent(self, dy, self._y)
        try:
            for i in reversed(range(len(self.layers))):
                dx = self.layers[i].backward(dx)
        except (ValueError, TypeError, RuntimeError) as error:
            check.locate(error, self, i, self.layers[i])
            raise
        return dx if self.layers else dx.copy()

    def leaves(self) -> Iterator[tuple[str, Module]]:
        """Yield the layers of a nested chain, named by position as parameters are: "2.1".

        A Sequential that computes something of its own, as a subclass may, counts as one layer.
        """
        for i, layer in enumerate(self.layers):
            if type(layer) is Sequential and not check.has_own_method(layer):
                yield from ((f"{i}.{path}", leaf) for path, leaf in layer.leaves())
            else:
                yield str(i), layer

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        """Iterate over the layers, first to last."""
        return iter(self.layers)

    def __getitem__(self, index: int | slice) -> Any:
        """Return one layer, or for a slice a Sequential that shares the layers."""
        found = self.layers[index]
        return Sequential(*found) if isinstance(found, tuple) else found

    def _members(self) -> Iterator[tuple[str, Module | Buffer]]:
        for name, member in super()._members():
            yield name.removeprefix("layers."), member


def check_layers(container: Module, layers: Iterable[tuple[object, Module]]) -> None:
    """Refuse what is no Module, and a Module that appears twice; layers have names for messages."""
    seen: dict[int, object] = {}
    for name, layer in layers:
        if not isinstance(layer, Module):
            raise check.type_error(container, f"layer {name} to be a Module", layer)
        for module in layer.modules():
            if seen.setdefault(id(module), name) != name:
                twice = f"{type(module).__name__} in layers {seen[id(module)]} and {name}"
                raise check.refusal(ValueError, container, "each Module once", f"the same {twice}")


def entering(container: Module, x: ArrayLike) -> Any:
    """Return x as an array. A layer may look integers up, so they stay integers.

    But bytes, bools and unsigned integers become floats unless it is sure to look them up, as
    their arithmetic wraps around.
    """
    array = check.real_array(container, "x", x)
    wraps = array.dtype.kind in "bu" or array.dtype.itemsize < 4
    return check.floats(container, "x", array) if wraps and container.input_grad else array
