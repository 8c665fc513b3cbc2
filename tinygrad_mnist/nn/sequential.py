"""Sequential: layers in a chain."""

from collections.abc import Iterator
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist._checks import FloatArray, cotangent, described, expected, floats, kept
from tinygrad_mnist.module import Module, Parameter


class Sequential(Module):
    """y = f_n(... f_1(x)): forward runs the layers in order, backward in reverse.

    Iterate over it, take its `len`, index it for a layer and slice it for a Sequential of the
    same layers. An empty one is the identity. Parameters are named by position: "0.weight".

    Args:
        layers: Modules, each one once, also counted through nested Modules: a module remembers
            one forward. Only the first may have `input_grad=False`.

    Raises:
        TypeError: A layer is no Module.
        ValueError: A Module appears twice, or a later layer has `input_grad=False`.
    """

    def __init__(self, *layers: Module) -> None:
        seen: dict[int, int] = {}
        for i, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(expected(self, f"layer {i} to be a Module", described(layer)))
            if i > 0 and not layer.input_grad:
                contract = "input_grad=False in no layer but the first"
                raise ValueError(expected(self, contract, f"it in layer {i}"))
            for module in layer.modules():
                if seen.setdefault(id(module), i) != i:
                    twice = f"{type(module).__name__} in layers {seen[id(module)]} and {i}"
                    raise ValueError(expected(self, "each Module once", f"the same {twice}"))
        self.layers = layers
        self._shape: tuple[int, ...] | None = None  # of the last forward's y
        self._dtype = np.dtype(np.float32)

    @property
    def input_grad(self) -> bool:  # type: ignore[override]
        """Whether backward returns dx, as the first layer says."""
        return not self.layers or self.layers[0].input_grad

    def forward(self, x: ArrayLike) -> FloatArray:
        self._shape = None  # a layer that fails leaves later ones with an older forward
        y = floats(self, "x", x)
        for layer in self.layers:
            y = layer.forward(y)
        y = floats(self, "y", y)
        self._shape, self._dtype = y.shape, y.dtype
        return y if self.layers else y.copy()  # the caller's x stays the caller's

    def backward(self, dy: ArrayLike) -> FloatArray | None:
        shape = kept(self, self._shape)
        dx: Any = cotangent(self, dy, shape, self._dtype)
        for layer in reversed(self.layers):
            dx = layer.backward(dx)
        return dx if self.layers else dx.copy()  # type: ignore[no-any-return]

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.layers)

    def __iter__(self) -> Iterator[Module]:
        """Iterate over the layers, first to last."""
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...
    def __getitem__(self, index: int | slice) -> "Module | Sequential":
        """Return one layer, or for a slice a Sequential that shares the layers."""
        if isinstance(index, slice):
            return Sequential(*self.layers[index])
        return self.layers[index]

    def _members(self) -> Iterator[tuple[str, Module | Parameter]]:
        for name, member in super()._members():
            yield name.removeprefix("layers."), member
