"""The contract of functions that somebody differentiated by hand, beyond finite differences.

A function is `forward(*arrays) -> y`, and `vjp(dy, *arrays)` after it, which returns one gradient
of sum(dy * y) for each array, or None. Each rule is a function of a run.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.testing.arrays import LAYOUTS, close, equal, finite, largest
from tinygrad_mnist.testing.contracts.rules import Run, refusing_skeletons
from tinygrad_mnist.testing.report import ModuleContractError

_ROUNDING = 1e-4  # above what float32 rounds to, as it may be inside; below what a mistake changes
_NOISE = 128  # eps, which a long computation may round by, relative to the largest number
_TINY = 2.0**-100  # where numbers become too small for float32

Arrays = Sequence[NDArray[Any]]
Results = Mapping[str, FloatArray]  # of one forward and vjp, each by what a message calls it


class Function(NamedTuple):
    """Somebody's function, and what messages call it.

    Attributes:
        name: As in messages.
        forward: `forward(*arrays) -> y`.
        vjp: `vjp(dy, *arrays)`, after a forward of the same arrays.
        reset: Called before each forward.
    """

    name: str
    forward: Callable[..., Any]
    vjp: Callable[..., Any]
    reset: Callable[[], object]

    def outputs(self, arrays: Arrays) -> FloatArray:
        """Return y, not a copy."""
        self.reset()
        with refusing_skeletons(self.name, "forward"):
            y = self.forward(*arrays)
        if y is None:
            raise self._broken("implemented", "forward to return an array", y)
        return self._floats("forward to return", y)

    def gradients(self, dy: FloatArray, arrays: Arrays) -> list[FloatArray | None]:
        """Return a gradient for each array, not copies; dy is converted to the dtype of y."""
        y = self.outputs(arrays)
        # asarray, for a number times an array of no axes is not an array
        with refusing_skeletons(self.name, "vjp"):
            found = self.vjp(np.asarray(dy, y.dtype), *arrays)
        if found is None:
            raise self._broken("implemented", "vjp to return gradients", found)
        found = found if isinstance(found, (tuple, list)) else (found,)
        if len(found) != len(arrays):
            contract = f"vjp to return a gradient for each of {len(arrays)} arrays"
            raise self._broken("shape", contract, len(found))
        pairs = zip(arrays, found, strict=True)
        gradients = [self._gradient(value, array) for array, value in pairs]
        if all(gradient is None for gradient in gradients):
            raise self._broken("shape", "vjp to return a gradient", "None for each array of floats")
        return gradients

    def _gradient(self, value: object, array: NDArray[Any]) -> FloatArray | None:
        """Return the gradient of an array; refuse another shape."""
        if value is None or array.dtype.kind != "f":
            return None
        gradient = self._floats("vjp to return", value)
        if gradient.shape != array.shape:
            contract = f"vjp to return a gradient of shape {array.shape}"
            raise self._broken("shape", contract, gradient.shape)
        return gradient

    def _floats(self, contract: str, value: object) -> FloatArray:
        """Return one array of floats; refuse anything else."""
        if isinstance(value, (tuple, list)):
            raise self._broken("shape", f"{contract} one array", check.described(value))
        array = np.asarray(value)
        if array.dtype.kind != "f":
            got = check.described(array if array.dtype.kind in "biuc" else value)
            raise self._broken("dtype", f"{contract} an array of floats", got)
        return array

    def _broken(self, rule: str, contract: str, got: object) -> ModuleContractError:
        return ModuleContractError(rule, check.expected(self.name, contract, got))


class FunctionRun(Run):
    """A function at some arrays and a dy, run in many ways."""

    def __init__(
        self,
        function: Function,
        arrays: dict[str, NDArray[Any]],
        dy: FloatArray,
        allow_nonfinite: bool = False,
    ) -> None:
        self.function, self.owner = function, function.name
        self.allow_nonfinite = allow_nonfinite
        self.names, self.arrays, self.dy = list(arrays), list(arrays.values()), dy

    @cached_property
    def wanted(self) -> Results:
        """What the function gives at its arrays and dy, to compare with."""
        return self([array.copy() for array in self.arrays], self.dy.copy())

    @cached_property
    def draws(self) -> bool:
        """Whether a second forward gives another y, unless what it draws is set back."""
        first = np.array(self.function.outputs(self.arrays))
        return not equal(first, np.asarray(self.function.forward(*self.arrays)))

    def __call__(self, arrays: Arrays, dy: FloatArray) -> Results:
        """Return copies of y and of the gradients."""
        return {"y": np.array(self.function.outputs(arrays)), **self.gradients(dy, arrays)}

    def gradients(self, dy: FloatArray, arrays: Arrays | None = None) -> Results:
        """Return copies of the gradients, as messages call them."""
        found = self.function.gradients(dy, self.arrays if arrays is None else arrays)
        pairs = zip(self.names, found, strict=True)
        return {f"the gradient of {name}": np.array(g) for name, g in pairs if g is not None}

    def same(
        self, found: Results, wanted: Results, message: str, rtol: float | None = None
    ) -> None:
        """Require what is wanted, up to rounding: relative to the largest number around.

        With rtol, relative to the largest number of the same array.
        """
        around = max(map(largest, [*wanted.values(), self.dy, *self.arrays]))
        for what, array in found.items():
            allowed = _ROUNDING * around if rtol is None else rtol * largest(wanted[what]) + _TINY
            alike = close(array, wanted[what], allowed)
            self.require(alike, f"{message}, got another value of {what}")


def implemented(run: FunctionRun) -> None:
    """Forward and vjp are written."""
    run.wanted  # noqa: B018  # refuses a skeleton


def keeps_input(run: FunctionRun) -> None:
    """Neither forward nor vjp modifies an array."""
    arrays = [array.copy() for array in run.arrays]
    steps: dict[str, Callable[[Arrays], object]] = {
        "forward": run.function.outputs,
        "vjp": partial(run.function.gradients, run.dy.copy()),
    }
    for step, call in steps.items():
        call(arrays)
        for name, array, own in zip(run.names, run.arrays, arrays, strict=True):
            run.require(equal(own, array), f"{step} to leave {name} alone, got it modified")


def keeps_dy(run: FunctionRun) -> None:
    """vjp does not modify dy."""
    dy = run.dy.copy()
    run.gradients(dy)
    run.require(equal(dy, run.dy), "vjp to leave dy alone, got it modified")


def keeps_results(run: FunctionRun) -> None:
    """y and the gradients keep their values through later calls."""
    y = run.function.outputs([array.copy() for array in run.arrays])
    kept = {"y": (y, y.copy())}
    found = run.function.gradients(run.dy.copy(), [array.copy() for array in run.arrays])
    for name, gradient in zip(run.names, found, strict=True):
        if gradient is not None:
            kept[f"the gradient of {name}"] = gradient, gradient.copy()
    others = [a * a.dtype.type(0.99) if a.dtype.kind == "f" else a.copy() for a in run.arrays]
    with suppress(Exception), np.errstate(all="ignore"):  # they may be outside of its domain
        run.function.gradients(-2 * run.dy, others)
    for what, (now, then) in kept.items():
        run.require(equal(now, then), f"{what} to keep its values, got them overwritten")


def reproducible(run: FunctionRun) -> None:
    """The same arrays and dy give the same y and the same gradients again."""
    message = (
        "the same from the same arrays again; what forward draws or counts has to be set back "
        "before each"
    )
    run.same(run(run.arrays, run.dy), run.wanted, message)


def shape(run: FunctionRun) -> None:
    """Forward returns one array, and vjp a gradient of its shape, or None, for each array."""
    run.wanted  # noqa: B018  # refuses anything else


def dtype(run: FunctionRun) -> None:
    """y and the gradients are floats."""
    run.wanted  # noqa: B018  # refuses anything else


def finite_numbers(run: FunctionRun) -> None:
    """Finite arrays and dy give finite y and gradients."""
    if finite(*run.arrays) and not run.allow_nonfinite:
        for what, array in run.wanted.items():
            number = array[~np.isfinite(array)][:1]
            contract = f"{what} to be finite for finite inputs"
            run.require(not number.size, f"{contract}, got {number.sum()}")


def layout(run: FunctionRun) -> None:
    """The memory layout of the arrays and of dy changes nothing; one may be refused.

    Not asked of functions that draw: a mask may follow the memory.
    """
    if run.draws:
        return
    for name, laid_out in LAYOUTS.items():
        dy, *arrays = map(laid_out, (run.dy, *run.arrays))
        _changes_nothing(run, f"{name} arrays and dy", dy, arrays, run.wanted)
    if run.dy.size:
        constant = np.full_like(run.dy, run.dy.flat[0])
        broadcast = as_strided(constant, strides=(0,) * constant.ndim)
        plain = run(run.arrays, constant)
        _changes_nothing(run, "a broadcast dy", broadcast, run.arrays, plain)


def linear(run: FunctionRun) -> None:
    """vjp(c dy) is c vjp(dy), and vjp(a + b) is vjp(a) + vjp(b)."""
    dy, wanted = run.dy, run.gradients(run.dy)
    if not finite(*wanted.values()):
        return
    # A power of 2 scales products and sums exactly. But a vjp may add dy to other numbers, as that
    # of a matrix exponential does: a dy 2**n as large costs n bits. So n is half of them.
    bits = min(np.finfo(array.dtype).nmant for array in (dy, *wanted.values()))
    half = bits // 2
    rtol = _NOISE * 2.0 ** (half - bits)
    some = np.arange(dy.size).reshape(dy.shape) % 7 == 0
    a, b = np.where(some, dy, 0), np.where(some, 0, dy)
    of_a, of_b = run.gradients(a), run.gradients(b)
    with np.errstate(over="ignore", invalid="ignore"):  # as large gradients may
        for name, c in {"-4": -4.0, f"2**{half}": 2.0**half, "2**-20": 2.0**-20}.items():
            found = {what: array / c for what, array in run.gradients(c * dy).items()}
            if finite(*found.values()):
                run.same(found, wanted, f"vjp({name} dy) to be {name} vjp(dy)", rtol)
        for name, c in {"": 1.0, "64 ": 64.0}.items():  # so that one part is far above the other
            of_both = run.gradients(c * a + b)
            total = {what: c * of_a[what] + of_b[what] for what in wanted}
            if finite(*of_both.values()):
                run.same(of_both, total, f"vjp({name}a + b) to be {name}vjp(a) + vjp(b)")
    none = {what: np.zeros_like(array) for what, array in wanted.items()}
    run.same(run.gradients(0 * dy), none, "vjp of a dy of zeros to be 0", rtol)


FUNCTION_RULES: dict[str, Callable[[FunctionRun], None]] = {
    "implemented": implemented,
    "keeps-input": keeps_input,
    "keeps-dy": keeps_dy,
    "keeps-results": keeps_results,
    "reproducible": reproducible,
    "shape": shape,
    "dtype": dtype,
    "finite": finite_numbers,
    "layout": layout,
    "linear": linear,
}


def _changes_nothing(
    run: FunctionRun, what: str, dy: FloatArray, arrays: Arrays, wanted: Results
) -> None:
    try:
        found = run(arrays, dy)
    except Exception:  # whoever refuses a layout gives no wrong numbers
        return
    run.same(found, wanted, f"{what} to change nothing")
