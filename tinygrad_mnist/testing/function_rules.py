"""The contract of functions that somebody differentiated by hand, beyond finite differences.

A function is `forward(*arrays) -> y`, and `vjp(dy, *arrays)` after it, which returns one gradient
of sum(dy * y) for each array, or None.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.testing.report import ModuleContractError

Arrays = Sequence[NDArray[Any]]


class Function(NamedTuple):
    """Somebody's function, and what messages call it.

    Attributes:
        name: As in messages.
        forward: forward(*arrays) -> y.
        vjp: vjp(dy, *arrays), after a forward of the same arrays.
        reset: Called before each forward.
    """

    name: str
    forward: Callable[..., Any]
    vjp: Callable[..., Any]
    reset: Callable[[], object]

    def outputs(self, arrays: Arrays) -> FloatArray:
        """Return y, not a copy."""
        self.reset()
        return self._floats("forward to return", self.forward(*arrays))

    def gradients(self, dy: FloatArray, arrays: Arrays) -> list[FloatArray | None]:
        """Return a gradient for each array, not copies; dy is converted to the dtype of y."""
        y = self.outputs(arrays)
        found = self.vjp(dy.astype(y.dtype, copy=False), *arrays)
        found = found if isinstance(found, (tuple, list)) else (found,)
        if len(found) != len(arrays):
            raise self._broken("shape", f"vjp to return {len(arrays)} gradients", len(found))
        gradients: list[FloatArray | None] = []
        for array, value in zip(arrays, found, strict=True):
            if value is None or array.dtype.kind != "f":
                gradients.append(None)
                continue
            gradient = self._floats("vjp to return", value)
            if gradient.shape != array.shape:
                contract = f"vjp to return a gradient of shape {array.shape}"
                raise self._broken("shape", contract, gradient.shape)
            gradients.append(gradient)
        return gradients

    def _floats(self, contract: str, value: object) -> FloatArray:
        """Return one array of floats; refuse anything else."""
        if isinstance(value, (tuple, list)):
            raise self._broken("shape", f"{contract} one array", check.described(value))
        array = np.asarray(value)
        if array.dtype.kind != "f":
            raise self._broken("dtype", f"{contract} an array of floats", check.described(value))
        return array

    def _broken(self, rule: str, contract: str, got: object) -> ModuleContractError:
        return ModuleContractError(rule, check.expected(self.name, contract, got))
