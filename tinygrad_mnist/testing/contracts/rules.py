"""How a rule is asked: of a run, which raises if it is broken. And how arrays are compared."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

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
        self, results: Mapping[str, NDArray[Any]], where: str = "from finite numbers"
    ) -> None:
        """Require that there is neither NaN nor infinity in what was found."""
        for what, array in results.items():
            self.require(finite(array), f"finite {what} {where}, got NaN or infinity")

    def rewind(self) -> None:
        """Set back what a run changes."""


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of the same numbers that nobody can write into."""
    return np.broadcast_to(array.copy(), array.shape)


# the same numbers in other memory
LAYOUTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "Fortran-ordered": partial(np.array, order="F"),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
}
MORE_LAYOUTS = LAYOUTS | {
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "read-only": read_only,
}
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


def is_array(value: Any) -> bool:
    """Return whether a value is an array of real numbers, or one number."""
    numeric = isinstance(value, (np.ndarray, np.generic, float, int))
    return numeric and np.asarray(value).dtype.kind in "biuf"


def equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Return whether two arrays have the same shape and the same numbers, NaN equal to NaN."""
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def close(a: NDArray[Any], b: NDArray[Any], atol: float) -> bool:
    """Return whether two arrays have the same shape, and numbers no further apart than atol."""
    if a.shape != b.shape:
        return False
    with np.errstate(invalid="ignore", over="ignore"):  # infinity - infinity
        near = np.abs(a - b) <= atol
    return bool(near.all()) or np.allclose(a, b, rtol=0, atol=atol, equal_nan=True)


def largest(array: NDArray[Any]) -> float:
    """Return the largest finite size of an entry, 0 of none."""
    sizes = np.abs(array)
    top = float(sizes.max(initial=0))
    return top if top < np.inf else float(sizes.max(initial=0, where=np.isfinite(sizes)))


def finite(*arrays: NDArray[Any]) -> bool:
    """Return whether there is neither NaN nor infinity in any of the arrays."""
    return all(np.isfinite(array).all() for array in arrays)


def spoil(*arrays: Any) -> None:
    """Overwrite arrays, where that can be done: floats with NaN, others with 0."""
    for array in arrays:
        if isinstance(array, np.ndarray) and array.flags.writeable:
            array[...] = np.nan if array.dtype.kind == "f" else 0


def still_spoiled(array: Any) -> bool:
    """Return whether nobody has written into an array since."""
    if not isinstance(array, np.ndarray) or not array.flags.writeable:
        return True
    return bool((np.isnan(array) if array.dtype.kind == "f" else array == 0).all())
