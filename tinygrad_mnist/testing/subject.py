"""What is checked: a module, a loss, or both together, as a function of named arrays."""

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing._streams import Streams
from tinygrad_mnist.testing.report import ModuleContractError


class Subject:
    """y of a module, or the value of a loss of y, as a function of x and every parameter.

    It holds copies of its own in float64, and sets every random stream back before each forward,
    so that equal arrays give equal outputs. `arrays` are changed in place to ask for others.

    Args:
        module: The module; an empty Sequential for a loss alone.
        x: Its input, float64 and contiguous.
        loss: If given, the output is loss(y, target), shape (), instead of y.
        target: What the loss compares y with.
        name: Of x, in `arrays` and so in reports.
    """

    def __init__(
        self,
        module: Module,
        x: FloatArray,
        *,
        loss: Loss | None = None,
        target: NDArray[Any] | None = None,
        name: str = "x",
    ) -> None:
        self.module, self.loss = copy.deepcopy((module, loss))
        self.module.astype(np.float64)
        self.x, self.target = x.copy(), target
        parameters = {name: parameter.data for name, parameter in self.module.named_parameters()}
        self.name = f"{name} (the input)" if name in parameters else name
        self.arrays = {self.name: self.x, **parameters}
        self.y_shape: tuple[int, ...] = ()
        self.streams = Streams((self.module, self.loss), self._forward)

    def outputs(self) -> FloatArray:
        """Return a copy of the outputs at the arrays' present values."""
        self.streams.rewind()
        # a copy: an identity hands out its input, which is about to change
        return np.array(self._forward(), dtype=np.float64)

    def gradients(self, cotangent: FloatArray) -> dict[str, FloatArray]:
        """Return copies of the gradients of sum(cotangent * outputs), by the arrays' names."""
        self.outputs()
        self.module.zero_grad()
        dy = cotangent.copy() if self.loss is None else cotangent * self.loss.backward()
        dx = self.module.backward(dy)
        grads = {name: p.grad.copy() for name, p in self.module.named_parameters()}
        if dx is None and not self.module.input_grad:
            return grads
        if dx is None or np.shape(dx) != self.x.shape:
            raise wrong_shape(type(self.module).__name__, self.x, dx)
        return {self.name: np.array(dx), **grads}

    def copy(self) -> "Subject":
        """Return an independent subject with the same values and draws."""
        self.streams.rewind()
        parts = {"loss": self.loss, "target": self.target, "name": self.name}
        return Subject(self.module, self.x, **parts)  # type: ignore[arg-type]

    def _forward(self) -> Any:
        y = self.module(self.x)
        self.y_shape = np.shape(y)
        return y if self.loss is None else self.loss(y, self.target)


def wrong_shape(owner: str, x: FloatArray, dx: Any) -> ModuleContractError:
    """Return the refusal of a dx that has not the shape of x."""
    got = "None" if dx is None else np.shape(dx)
    return ModuleContractError("shape", f"{owner}: expected dx of shape {x.shape}, got {got}")
