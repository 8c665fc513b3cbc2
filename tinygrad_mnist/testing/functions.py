"""check_vjp: anybody's function and the gradients that somebody wrote for it."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing.gradients import Checker, Settings
from tinygrad_mnist.testing.report import GradientReport

Forward = Callable[..., Any]
Vjp = Callable[..., Sequence[Any]]


class FunctionSubject:
    """forward(*arrays), and vjp(dy, *arrays) after it, as a function of the named arrays."""

    modules: Sequence[Module] = ()

    def __init__(
        self, forward: Forward, vjp: Vjp, arrays: dict[str, NDArray[Any]], reset: Callable[[], Any]
    ) -> None:
        self.forward, self.vjp, self.rewind = forward, vjp, reset
        self.arrays = {name: array.copy() for name, array in arrays.items()}
        self.y_shape = self.outputs().shape

    @property
    def samples(self) -> int:
        """The length of the first axis of the first array."""
        return len(next(iter(self.arrays.values())))

    def outputs(self) -> FloatArray:
        """Return a copy of the outputs at the arrays' present values."""
        self.rewind()
        return np.array(self.forward(*self.arrays.values()), np.float64)

    def gradients(self, cotangent: FloatArray) -> dict[str, FloatArray]:
        """Return copies of the gradients of sum(cotangent * outputs), by the arrays' names."""
        self.outputs()
        found = self.vjp(cotangent.copy(), *self.arrays.values())
        return {
            name: np.array(gradient, np.float64)
            for name, gradient in zip(self.arrays, found, strict=True)
            if gradient is not None
        }

    def copy(self) -> "FunctionSubject":
        """Return an independent subject with the same values."""
        return FunctionSubject(self.forward, self.vjp, self.arrays, self.rewind)


def check_vjp(
    forward: Forward,
    vjp: Vjp,
    *arrays: ArrayLike,
    names: Sequence[str] | None = None,
    reset: Callable[[], Any] | None = None,
    dtype: DTypeLike = np.float64,
    **settings: Unpack[Settings],
) -> GradientReport:
    """Check the vector-Jacobian product of any function by central differences."""
    owner = "check_vjp"
    checker = Checker(owner, settings)
    names = names or [f"x{i}" for i in range(len(arrays))]
    named = {
        n: check.owned(owner, n, a, np.dtype(dtype)) for n, a in zip(names, arrays, strict=True)
    }
    subject = FunctionSubject(forward, vjp, named, reset or (lambda: None))
    name = getattr(forward, "__name__", type(forward).__name__)
    return checker.report(name, subject, checker.cotangent(subject.y_shape))
