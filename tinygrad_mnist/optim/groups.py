"""Groups: several optimizers as one, each with its own parameters and settings."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._interrupts import holding
from tinygrad_mnist.optim.optimizer import Optimizer, check_keys
from tinygrad_mnist.parameter import Parameter


class Groups(Optimizer):
    """Several optimizers as one: each moves its own parameters, by its own rule and settings.

    `lr` is the rate of the first. Set it, as a schedule does, and the others' are set in the
    `proportions` that they had to it in the beginning. `optimizers` are those given: their other
    settings may be set at any time.

    Args:
        optimizers: At least one, the first with a rate above 0; no Parameter is in two of them.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        for optimizer in optimizers:
            if not isinstance(optimizer, Optimizer):
                raise check.type_error(self, "Optimizers as its arguments", optimizer)
        params = [p for optimizer in optimizers for p in optimizer.params]
        super().__init__(params)
        if len(self.params) < len(params):
            found = f"{len(params) - len(self.params)} again in another"
            raise ValueError(check.expected(self, "each Parameter in one optimizer", found))
        if not optimizers[0].lr:
            raise check.value_error(self, "a first lr > 0, for the others to follow", 0.0)
        self.optimizers = optimizers
        self.proportions = tuple(optimizer.lr / optimizers[0].lr for optimizer in optimizers)

    @property
    def lr(self) -> float:
        """The rate of the first; setting it sets the others' in proportion."""
        return self.optimizers[0].lr

    @lr.setter
    def lr(self, value: float) -> None:
        lr = check.real(self, "lr", value, "[0, inf)")
        for optimizer, proportion in zip(self.optimizers, self.proportions, strict=True):
            optimizer.lr = lr * proportion

    def step(self) -> None:
        check.writeable(self, self.params)  # of all, before one of them moves
        for optimizer in self.optimizers:
            optimizer.step()

    def update(self, p: Parameter, *slots: FloatArray) -> None:
        """Not called: the optimizer of each Parameter has its own."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the kind and the state of each optimizer, and the proportions."""
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        return {"kinds": self._kinds(), "proportions": self.proportions, "states": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_keys(self, state, {"kinds", "proportions", "states"})
        contract = f"the state of {', '.join(self._kinds())}"
        proportions = []
        with check.refusing(self, contract), holding(), ExitStack() as undo:
            if state["kinds"] != self._kinds():
                raise ValueError(f"that of {', '.join(state['kinds'])}")
            parts = zip(self.optimizers, state["states"], state["proportions"], strict=True)
            for optimizer, new, proportion in parts:
                undo.callback(optimizer.load_state_dict, optimizer.state_dict())
                optimizer.load_state_dict(new)
                proportions.append(check.real(self, "a proportion", proportion, "[0, inf)"))
            self.proportions = tuple(proportions)
            undo.pop_all()

    def __repr__(self) -> str:
        """Return the optimizers, a line each."""
        lines = [f"\n  ({i}): {optimizer!r}" for i, optimizer in enumerate(self.optimizers)]
        return f"{type(self).__name__}({''.join(lines)}\n)"

    def _kinds(self) -> list[str]:
        return [type(optimizer).__name__ for optimizer in self.optimizers]
