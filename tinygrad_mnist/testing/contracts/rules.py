"""How a rule is asked: of a run, which raises if it is broken."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from numpy.typing import NDArray

from tinygrad_mnist.testing.arrays import finite
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

    def require_finite(
        self, results: Mapping[str, NDArray[Any]], where: str = "for finite inputs"
    ) -> None:
        """Require that there is neither NaN nor infinity in what was found."""
        for what, array in results.items():
            self.require(finite(array), f"{what} to be finite {where}, got NaN or infinity")

    def rewind(self) -> None:
        """Set back what a run changes."""


AnyRun = TypeVar("AnyRun", bound=Run)
Rules = Mapping[str, Callable[[AnyRun], None]]


def ask(run: AnyRun, rules: Rules[AnyRun]) -> None:
    """Raise ModuleContractError for the first rule that is broken."""
    try:
        for name, check in rules.items():
            run.rule = name
            check(run)
    finally:
        run.rewind()


@contextmanager
def refusing_skeletons(owner: str, method: str) -> Iterator[None]:
    """Name the rule `implemented` where a skeleton raises NotImplementedError."""
    try:
        yield
    except NotImplementedError as error:
        got = f"NotImplementedError: {error}".removesuffix(": ")
        skeleton = Run()
        skeleton.owner, skeleton.rule = owner, "implemented"
        raise skeleton.broken(f"{method} to be implemented, got {got}") from error
