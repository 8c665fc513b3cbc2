"""Optimizer: what every optimizer does; a member of the family adds its rule for one parameter."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.parameter import Parameter


class Optimizer(ABC):
    """Checks its parameters, loops over them, saves and restores. Write `update`.

    Declare settings in the class body, as `lr` is here; name in `slots` what is remembered of each
    parameter between steps: arrays like it, zeros at first. Nothing else is saved and restored.

    Args:
        params: Parameters, as an iterable; one that appears twice steps once.

    Raises:
        ValueError: No parameters.
    """

    lr = check.Real("[0, inf)")  # may be set between steps, as every setting may
    slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: Iterable[Parameter]) -> None:
        self.params = parameters_in(self, params)
        self._slots: dict[str, list[FloatArray]] = {name: [] for name in self.slots}

    @abstractmethod
    def update(self, p: Parameter, *slots: FloatArray) -> None:
        """Move one parameter along its gradient, and its arrays in the slots, all in place."""

    def step(self) -> None:
        """Move every parameter one step, in place; the gradients stay as they are.

        Read-only data of one of them is a ValueError; none has moved then.
        """
        check.writeable(self, self.params)
        slots = self.slots_in_use()
        if not slots:  # no lists and tuples to make: a step of one sample takes 4 % less
            for p in self.params:
                self.update(p)
            return
        for p, *arrays in zip(self.params, *map(self._filled, slots), strict=True):
            self.update(p, *arrays)

    def slots_in_use(self) -> tuple[str, ...]:
        """Return the slots that the next step needs."""
        return self.slots

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""
        for p in self.params:
            p.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the settings and copies of the slots: all that the next steps depend on.

        A slot is a list of arrays in the order and the dtypes of the parameters, empty before the
        first step that uses it.
        """
        copies = {
            name: [a.astype(p.data.dtype) for a, p in zip(arrays, self.params, strict=False)]
            for name, arrays in self._slots.items()
        }
        return {**self._settings(), **copies}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what state_dict returned, for parameters of the same shapes."""
        check_keys(self, state, {*self._settings(), *self.slots})
        declared = check.settings_of(type(self)).items()
        settings = {name: setting.checked(self, state[name]) for name, setting in declared}
        slots = {name: self._checked(name, state[name]) for name in self.slots}
        vars(self).update(settings, _slots=slots)  # at once: no Ctrl-C comes in between

    def __repr__(self) -> str:
        """Return the settings."""
        settings = ", ".join(f"{name}={value}" for name, value in self._settings().items())
        return f"{type(self).__name__}({len(self.params)} parameters, {settings})"

    def _settings(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in check.settings_of(type(self))}

    def _filled(self, name: str) -> list[FloatArray]:
        """Return a slot's arrays, in the dtypes that the parameters have now."""
        arrays = self._slots[name] or [_blas.aligned(np.zeros_like(p.data)) for p in self.params]
        pairs = zip(arrays, self.params, strict=True)
        self._slots[name] = [a.astype(p.data.dtype, copy=False) for a, p in pairs]
        return self._slots[name]

    def _checked(self, name: str, arrays: Any) -> list[FloatArray]:
        """Return copies of a slot's arrays, or refuse what does not fit the parameters."""
        n = len(self.params)
        if not isinstance(arrays, (list, tuple)):
            raise check.type_error(self, f"{name} to be a list", arrays)
        if len(arrays) not in (0, n):
            raise ValueError(check.expected(self, f"0 or {n} arrays in {name}", len(arrays)))
        new = []
        for i, (array, p) in enumerate(zip(arrays, self.params, strict=False)):
            new.append(check.owned(self, f"{name}[{i}]", array, p.data.dtype))
            check.same_shape(self, f"{name}[{i}]", new[i], p.data.shape)
        return new


def check_keys(optimizer: Optimizer, state: Mapping[str, Any], keys: set[str]) -> None:
    """Refuse a state without these keys, or with others."""
    if not isinstance(state, Mapping):
        raise check.type_error(optimizer, "a state dict", state)
    if state.keys() != keys:
        contract = f"a state dict with keys {sorted(keys)}"
        raise ValueError(check.expected(optimizer, contract, sorted(map(str, state))))


def parameters_in(owner: object, params: Iterable[Parameter]) -> list[Parameter]:
    """Return the Parameters, each once; refuse what is none, and no Parameters."""
    if isinstance(params, Parameter) or not isinstance(params, Iterable):
        raise check.type_error(owner, "an iterable of Parameters", params)
    found = list({id(p): p for p in params}.values())
    for param in found:
        if not isinstance(param, Parameter):
            raise check.type_error(owner, "params to be Parameters", param)
    if not found:
        raise check.refusal(ValueError, owner, "at least one Parameter", "none")
    return found
