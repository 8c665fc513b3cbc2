"""Activations: functions of one number, applied to each entry; and Softmax, of a whole row.

Elementwise does what all the former do; an activation is its f and its f'.
"""

import math
from abc import abstractmethod

import numpy as np
import scipy  # scipy.special takes .06 s to import, and does it when it is first asked for
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module


class Elementwise(Module):
    """y = f(x), entry by entry, on any shape; dx = dy * f'(x). Write `compute`."""

    _derivative: FloatArray | None = None  # f'(x) of the last forward

    @abstractmethod
    def compute(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return f(x) and f'(x), two new arrays of the shape and dtype of x."""

    def forward(self, x: ArrayLike) -> FloatArray:
        self._derivative = None
        y, self._derivative = self.compute(check.floats(self, "x", x))
        return np.asarray(y)  # NumPy makes a scalar of an array without axes

    def backward(self, dy: ArrayLike) -> FloatArray:
        dx = check.cotangent(self, dy, self._derivative) * self._derivative  # type: ignore[operator]
        return np.asarray(dx)


class ReLU(Elementwise):
    """f(x) = max(x, 0); f'(x) = (x > 0), taken from the input, so 0 at 0. NaN stays NaN."""

    def compute(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        zero = check.constant(0, x.dtype)
        return np.maximum(x, zero), (x > zero).astype(x.dtype)


class LeakyReLU(Elementwise):
    """f(x) = x * f'(x); f'(x) = max(x > 0, slope): 1 for x > 0, else slope, also at 0.

    Args:
        slope: For x <= 0, in [0, 1].
    """

    slope = check.Real("[0, 1]")

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    def compute(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        derivative = np.maximum(x > 0, self.slope, dtype=x.dtype)
        return x * derivative, derivative


class Tanh(Elementwise):
    """f(x) = tanh(x); f'(x) = 1 - tanh(x)**2."""

    def compute(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        y = np.tanh(x)
        return y, 1 - y * y


class Sigmoid(Elementwise):
    """f(x) = 1 / (1 + exp(-x)); f'(x) = f(x) * f(-x), which is f(x) * (1 - f(x))."""

    def compute(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        y = scipy.special.expit(x)
        return y, y * scipy.special.expit(-x)


class SiLU(Elementwise):
    """f(x) = x * s(x), with the sigmoid s; f'(x) = s(x) * (1 + x * (1 - s(x))).

    Also called swish. (Hendrycks and Gimpel 2016, arXiv:1606.08415.) As in PyTorch, f(-inf) is
    NaN, like any 0 * inf.
    """

    def compute(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        s = scipy.special.expit(x)
        return x * s, s * (1 + x * (1 - s))


class GELU(Elementwise):
    """f(x) = x * P(x), with P(x) = (1 + erf(x / sqrt(2))) / 2; f'(x) = P(x) + x * p(x).

    P(x) is the probability that a standard normal number is below x, p(x) = P'(x) its density,
    exp(-x**2 / 2) / sqrt(2 * pi). (Hendrycks and Gimpel 2016, arXiv:1606.08415; not their
    approximation by tanh.) As in PyTorch, f(-inf) is NaN, like any 0 * inf.
    """

    def compute(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        P = scipy.special.ndtr(x)
        with np.errstate(over="ignore"):  # x * x may be infinite, and p is 0 then
            p = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return x * P, P + x * p


class Softmax(Module):
    """y = e / sum(e) over the last axis, with e = exp(x - max(x)); dx = y * (dy - sum(dy * y))."""

    _y: FloatArray | None = None  # of the last forward

    def forward(self, x: ArrayLike) -> FloatArray:
        self._y = None
        x = check.floats(self, "x", x)
        if not (x.ndim and x.shape[-1]):
            raise check.value_error(self, "x with a last axis of one entry or more", x.shape)
        with np.errstate(over="ignore"):  # x - max(x) may be -inf, and e is 0 then
            e = np.exp(x - x.max(axis=-1, keepdims=True))
        self._y = e / e.sum(axis=-1, keepdims=True)
        return self._y.copy()

    def backward(self, dy: ArrayLike) -> FloatArray:
        y = check.kept(self, self._y)
        dy = check.cotangent(self, dy, y)
        dx: FloatArray = y * (dy - (dy * y).sum(axis=-1, keepdims=True))
        return dx
