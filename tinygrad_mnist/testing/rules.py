"""What a rule of a contract is: a name, a function that raises if it is broken, and a run to ask.

A file of rules ends in a dict of them, in the order in which they are asked. The first line of a
function's docstring is what its rule says, in the words of the table in the docs.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.testing.report import ModuleContractError


class Run:
    """Something under a contract, run in many ways; `rule` is the one that is being asked."""

    owner: str  # what messages call it
    rule: str = ""

    def require(self, holds: object, message: str) -> None:
        """Raise ModuleContractError, `Owner: expected <message>`, unless something holds."""
        if not holds:
            raise self.broken(message)

    def broken(self, message: str) -> ModuleContractError:
        """Return the error that the present rule is broken."""
        return ModuleContractError(self.rule, f"{self.owner}: expected {message}")


AnyRun = TypeVar("AnyRun", bound=Run)
Rules = Mapping[str, Callable[[AnyRun], None]]


def ask(run: AnyRun, rules: Rules[AnyRun]) -> None:
    """Raise ModuleContractError for the first rule that is broken."""
    for name, check in rules.items():
        run.rule = name
        check(run)


def equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Return whether two arrays have the same shape and the same numbers, NaN equal to NaN."""
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def largest(array: FloatArray) -> float:
    """Return the largest finite size of an entry, 0 of none."""
    return float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))
