"""What can be checked: a module, a loss, or both together, as functions of named arrays.

Each holds copies of its own in float64 and sets every random stream back before each forward, so
that equal arrays give equal outputs.
"""

import copy
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing._streams import Streams
from tinygrad_mnist.testing.differences import Subject


class Loss(Protocol):
    """What can be checked as a loss: `loss(pred, target) -> float`, then `loss.backward()`."""

    def __call__(self, pred: Any, target: Any, /) -> float: ...

    def backward(self) -> Any: ...


class ModuleSubject(Subject):
    """y of a module, as a function of x and of every parameter."""

    def __init__(self, module: Module, x: FloatArray) -> None:
        self.module, self.x = copy.deepcopy(module).astype(np.float64), x.copy()
        self.arrays = {"x": self.x, **_parameters(self.module)}
        self.streams = Streams(self.module, lambda: self.module(self.x))

    def outputs(self) -> FloatArray:
        # a copy: an identity hands out its input, which is about to change
        self.streams.rewind()
        return np.array(self.module(self.x), dtype=np.float64)

    def gradients(self, cotangent: FloatArray) -> dict[str, FloatArray]:
        self.outputs()
        self.module.zero_grad()
        return _gradients(self.module, self.module.backward(cotangent.copy()))

    def copy(self) -> "ModuleSubject":
        self.streams.rewind()
        return ModuleSubject(self.module, self.x)


class LossSubject(Subject):
    """The value of a loss, shape (1,), as a function of pred."""

    def __init__(self, loss: Loss, pred: FloatArray, target: NDArray[Any]) -> None:
        self.loss, self.pred, self.target = copy.deepcopy(loss), pred.copy(), target
        self.arrays = {"pred": self.pred}
        self.streams = Streams(self.loss, lambda: self.loss(self.pred, self.target))

    def outputs(self) -> FloatArray:
        self.streams.rewind()
        return np.array([self.loss(self.pred, self.target)], dtype=np.float64)

    def gradients(self, cotangent: FloatArray) -> dict[str, FloatArray]:
        self.outputs()
        return {"pred": cotangent * self.loss.backward()}

    def copy(self) -> "LossSubject":
        self.streams.rewind()
        return LossSubject(self.loss, self.pred, self.target)


class ModelSubject(Subject):
    """The value of loss(model(x), target), shape (1,), as a function of x and the parameters."""

    def __init__(self, model: Module, loss: Loss, x: FloatArray, target: NDArray[Any]) -> None:
        self.model, self.loss = copy.deepcopy((model, loss))
        self.model.astype(np.float64)
        self.x, self.target = x.copy(), target
        self.arrays = {"x": self.x, **_parameters(self.model)}
        parts = (self.model, self.loss)
        self.streams = Streams(parts, lambda: self.loss(self.model(self.x), self.target))

    def outputs(self) -> FloatArray:
        self.streams.rewind()
        return np.array([self.loss(self.model(self.x), self.target)], dtype=np.float64)

    def gradients(self, cotangent: FloatArray) -> dict[str, FloatArray]:
        self.outputs()
        self.model.zero_grad()
        return _gradients(self.model, self.model.backward(cotangent * self.loss.backward()))

    def copy(self) -> "ModelSubject":
        self.streams.rewind()
        return ModelSubject(self.model, self.loss, self.x, self.target)


def _parameters(module: Module) -> dict[str, FloatArray]:
    return {name: parameter.data for name, parameter in module.named_parameters()}


def _gradients(module: Module, dx: FloatArray | None) -> dict[str, FloatArray]:
    grads = {name: parameter.grad.copy() for name, parameter in module.named_parameters()}
    return grads if dx is None else {"x": np.array(dx), **grads}
