"""Every Module of the package, and some that a user might write, for the contract's checklist."""

from typing import NamedTuple

import numpy as np

from tinygrad_mnist import Dropout, Linear, Module, Parameter, ReLU, Sequential


class Scale(Module):
    """y = gain * x, for x (..., I): the smallest layer with a parameter."""

    def __init__(self, features):
        self.gain = Parameter(np.linspace(1, 2, features, dtype=np.float32))
        self._x = None

    def forward(self, x):
        self._x = None
        if np.iscomplexobj(x) or np.ma.isMaskedArray(x):
            raise TypeError("Scale: expected real numbers")
        x = np.array(x, dtype=self.gain.data.dtype)
        y = x * self.gain.data
        self._x = x
        return y

    def backward(self, dy):
        if self._x is None:
            raise RuntimeError("Scale: expected a forward before backward, got none")
        dy = np.array(dy, dtype=self.gain.data.dtype)
        if dy.shape != self._x.shape:
            raise ValueError(f"Scale: expected dy of shape {self._x.shape}, got {dy.shape}")
        self.gain.accumulate((dy * self._x).reshape(-1, dy.shape[-1]).sum(axis=0))
        return dy * self.gain.data


class Twice(Module):
    """y = 2 * x: what nothing but the eager loop has a rule for."""

    def forward(self, x):
        return 2 * x

    def backward(self, dy):
        return 2 * dy


class OwnLinear(Linear):
    """A Linear in all but its class."""


class Residual(Module):
    """y = x + inner(x): a Module that holds a Module."""

    def __init__(self, inner):
        self.branches = [inner]

    def forward(self, x):
        y = self.branches[0](x)
        return y + np.asarray(x, dtype=y.dtype)

    def backward(self, dy):
        dx = self.branches[0].backward(dy)
        return dx + np.asarray(dy, dtype=dx.dtype)


class Case(NamedTuple):
    make: object
    in_features: int
    stochastic: bool = False


CASES = {
    "Linear": Case(lambda: Linear(4, 3, rng=1), 4),
    "Linear-no-bias": Case(lambda: Linear(4, 3, bias=False, rng=1), 4),
    "Linear-one-feature": Case(lambda: Linear(1, 1, rng=1), 1),
    "Linear-float64": Case(lambda: Linear(4, 3, rng=1, dtype=np.float64), 4),
    "Linear-data": Case(lambda: Linear(4, 3, rng=1, input_grad=False), 4),
    "ReLU": Case(ReLU, 5),
    "Dropout": Case(lambda: Dropout(0.3, rng=1), 5, stochastic=True),
    "Dropout-0": Case(lambda: Dropout(0, rng=1), 5),
    "Dropout-eval": Case(lambda: Dropout(0.3, rng=1).eval(), 5),
    "Sequential-empty": Case(Sequential, 3),
    "Sequential": Case(lambda: Sequential(Linear(4, 6, rng=1), ReLU(), Linear(6, 2, rng=2)), 4),
    "Sequential-nested": Case(
        lambda: Sequential(
            Sequential(Linear(4, 6, rng=1, input_grad=False), ReLU()),
            Sequential(Dropout(0.5, rng=3), Linear(6, 2, bias=False, rng=2)),
        ),
        4,
        stochastic=True,
    ),
    "user-Scale": Case(lambda: Scale(4), 4),
    "user-in-Sequential": Case(lambda: Sequential(Linear(4, 3, rng=1), Scale(3), ReLU()), 4),
    "user-Residual": Case(lambda: Residual(Linear(3, 3, rng=1)), 3),
}
