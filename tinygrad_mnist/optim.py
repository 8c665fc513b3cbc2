"""Optimizers: how parameters move along their gradients."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from tinygrad_mnist import _blas
from tinygrad_mnist._checks import (
    FloatArray,
    described,
    expected,
    flag,
    owned,
    real,
    same_shape,
    writeable,
)
from tinygrad_mnist.module import Parameter


class Optimizer(Protocol):
    """What serves as an optimizer in training, schedules and checkpoints."""

    lr: float

    def step(self) -> None:
        """Move every parameter along its gradient."""

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that the next steps depend on."""

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Continue from what state_dict returned, or refuse and change nothing."""


class SGD:
    """v = momentum * v + g; w = w - lr * v, for each parameter w, with g = grad + weight_decay * w.

    With nesterov, w = w - lr * (g + momentum * v). v starts at zeros. These are the formulas of
    torch.optim.SGD.

    Args:
        params: Parameters, as an iterable; one that comes twice steps once.
        lr: Step size, finite and >= 0.
        momentum: In [0, 1].
        weight_decay: Finite and >= 0.
        nesterov: Look ahead; needs momentum > 0.

    Raises:
        ValueError: No parameters, or a number outside its interval.
        TypeError: An argument of the wrong type.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        if isinstance(params, Parameter) or not isinstance(params, Iterable):
            raise TypeError(expected(self, "an iterable of Parameters", described(params)))
        self.params = list({id(p): p for p in params}.values())
        for param in self.params:
            if not isinstance(param, Parameter):
                raise TypeError(expected(self, "params to be Parameters", described(param)))
        if not self.params:
            raise ValueError(expected(self, "at least one Parameter", "none"))
        self._set(lr, momentum, weight_decay, nesterov)
        self._velocities: list[FloatArray] = []  # none before the first step with momentum

    @property
    def lr(self) -> float:
        """The step size; may be set between steps."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = real(self, "lr", value, "[0, inf)")

    def step(self) -> None:
        """Move every parameter one step, in place; the gradients stay as they are.

        Raises:
            ValueError: A parameter's data is read-only; none has moved then.
        """
        writeable(self, (p.data for p in self.params))
        if self.momentum and not self._velocities:
            self._velocities = [np.zeros_like(p.data) for p in self.params]
        for i, p in enumerate(self.params):
            if self.momentum:
                # a model may have changed its dtype since the last step
                v = self._velocities[i] = self._velocities[i].astype(p.data.dtype, copy=False)
                self._step_with_momentum(p, v)
            else:
                self._step_along_gradient(p)

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""
        for p in self.params:
            p.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the settings and copies of v: all that the next steps depend on.

        Keys: "lr", "momentum", "weight_decay", "nesterov", and "velocities", a list of arrays in
        the order of the parameters (empty before the first step with momentum).
        """
        return {**self._settings(), "velocities": [v.copy() for v in self._velocities]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what state_dict returned, for parameters of the same shapes.

        Raises:
            ValueError: Another set of keys, a number outside its interval, or other shapes;
                nothing has changed then.
            TypeError: A value of the wrong type.
        """
        if not isinstance(state, Mapping):
            raise TypeError(expected(self, "a state dict", described(state)))
        keys = {*self._settings(), "velocities"}
        if state.keys() != keys:
            contract = f"a state dict with keys {sorted(keys)}"
            raise ValueError(expected(self, contract, sorted(map(str, state))))
        velocities, n = state["velocities"], len(self.params)
        if not isinstance(velocities, (list, tuple)):
            raise TypeError(expected(self, "velocities to be a list", described(velocities)))
        if len(velocities) not in (0, n):
            raise ValueError(expected(self, f"0 or {n} velocities", len(velocities)))
        new = []
        for i, (v, p) in enumerate(zip(velocities, self.params, strict=False)):
            new.append(owned(self, f"velocity {i}", v, p.data.dtype))
            same_shape(self, f"velocity {i}", new[i], p.data.shape)
        self._set(**{key: value for key, value in state.items() if key != "velocities"})
        self._velocities = new

    def __repr__(self) -> str:
        """Return the settings."""
        settings = ", ".join(f"{name}={value}" for name, value in self._settings().items())
        return f"SGD({len(self.params)} parameters, {settings})"

    def _settings(self) -> dict[str, float]:
        names = ("lr", "momentum", "weight_decay", "nesterov")
        return {name: getattr(self, name) for name in names}

    def _set(self, lr: float, momentum: float, weight_decay: float, nesterov: bool) -> None:
        settings = (
            real(self, "lr", lr, "[0, inf)"),
            real(self, "momentum", momentum, "[0, 1]"),
            real(self, "weight_decay", weight_decay, "[0, inf)"),
            flag(self, "nesterov", nesterov),
        )
        if nesterov and not momentum:
            raise ValueError(expected(self, "momentum > 0 with nesterov", described(momentum)))
        self._lr, self.momentum, self.weight_decay, self.nesterov = settings

    def _step_along_gradient(self, p: Parameter) -> None:
        if self.weight_decay:
            _blas.multiply(p.data, 1 - self.lr * self.weight_decay)
        p.add_grad_to(p.data, -self.lr)

    def _step_with_momentum(self, p: Parameter, v: FloatArray) -> None:
        _blas.multiply(v, self.momentum)
        if self.weight_decay:
            _blas.add_scaled(v, p.data, self.weight_decay)
        p.add_grad_to(v, 1.0)
        if self.nesterov:
            # lr * (g + momentum * v): the part along g is a step of its own
            self._step_along_gradient(p)
            _blas.add_scaled(p.data, v, -self.lr * self.momentum)
        else:
            _blas.add_scaled(p.data, v, -self.lr)
