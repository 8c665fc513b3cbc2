"""check_vjp: anybody's function and the gradients that somebody wrote for it."""

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing.contracts.function import FUNCTION_RULES, Function, FunctionRun
from tinygrad_mnist.testing.contracts.rules import ask, refusing_skeletons
from tinygrad_mnist.testing.differences.checker import Checker, Settings
from tinygrad_mnist.testing.report import GradientReport
from tinygrad_mnist.testing.subject import State, numbered


class FunctionSubject:
    """y of a function, as a function of its arrays, which are copied."""

    modules: Sequence[Module] = ()

    def __init__(
        self, function: Function, arrays: dict[str, NDArray[Any]], parameters: Sequence[str] = ()
    ) -> None:
        self.function, self.parameters = function, parameters
        self.arrays = {name: array.copy() for name, array in arrays.items()}
        y = function.outputs(self._copies())
        self.y_shape, self.y_dtype = y.shape, y.dtype

    @property
    def samples(self) -> int:
        """The length of the first axis of the first array that has one."""
        return next((len(array) for array in self.arrays.values() if array.ndim), 1)

    def rewind(self) -> None:
        """Set back what a forward moves."""
        self.function.reset()

    def outputs(self) -> FloatArray:
        """Return a copy of the outputs at the arrays' present values."""
        return np.array(self.function.outputs(self._copies()), np.float64)

    def gradients(self, cotangent: FloatArray) -> dict[str, FloatArray]:
        """Return copies of the gradients of sum(cotangent * outputs), by the arrays' names."""
        found = self.function.gradients(cotangent.copy(), self._copies())
        return {
            name: np.array(gradient, np.float64)
            for name, gradient in zip(self.arrays, found, strict=True)
            if gradient is not None
        }

    def copy(self) -> "FunctionSubject":
        """Return an independent subject with the same values."""
        return FunctionSubject(self.function, self.arrays, self.parameters)

    def _copies(self) -> list[NDArray[Any]]:
        return [array.copy() for array in self.arrays.values()]  # which it may edit


def check_vjp(
    forward: Callable[..., Any],
    vjp: Callable[..., Any],
    *arrays: ArrayLike,
    names: Sequence[str] | None = None,
    reset: Callable[[], Any] | None = None,
    dtype: DTypeLike = np.float64,
    **settings: Unpack[Settings],
) -> GradientReport:
    """Check the vector-Jacobian product of any function by central differences.

    Args:
        forward: `forward(*arrays) -> y`, one array of floats.
        vjp: `vjp(dy, *arrays)` returns the gradients of sum(dy * y): one for each array, of its
            shape, or None for an array that has none. For a single array it may come without a
            tuple. It is called after a forward of the same arrays.
        arrays: Where to check, copied. Integers and bools stay what they are and have no gradient.
        names: What the report calls the arrays; by default what forward calls them.
        reset: Called before each forward, to set back what it draws or counts. NumPy's global
            generator, Python's, and the generators that forward reaches as a bound method or a
            partial are set back without it.
        dtype: float64 or float32: what the other arrays are converted to.
        settings: Those of `check_gradients`.

    Raises:
        GradientCheckError: A gradient is wrong; its `report` says where.
        ModuleContractError: The function breaks a rule; its `rule` says how.
        InconclusiveGradientCheck: Too little could be judged to say anything.
    """
    owner = "check_vjp"
    kind = check.float_dtype(owner, dtype)
    named: dict[str, NDArray[Any]] = {}
    names = argument_names(forward, len(arrays)) if names is None else names
    if len(names) != len(arrays):
        raise check.value_error(owner, f"a name for each of {len(arrays)} arrays", len(names))
    for name, value in zip(distinct(names), arrays, strict=True):
        array = check.real_array(owner, name, value)
        named[name] = check.owned(
            owner, name, array, kind if array.dtype.kind == "f" else array.dtype
        )
    copies = [array.copy() for array in named.values()]
    with refusing_skeletons(called(forward), "forward"):
        state = State(lambda: forward(*copies), forward, vjp)

    def rewind() -> None:
        state.rewind()
        if reset is not None:
            reset()

    function = Function(called(forward), forward, vjp, rewind)
    return check_function(owner, function, named, settings)


def check_function(
    owner: str,
    function: Function,
    arrays: dict[str, NDArray[Any]],
    settings: Settings,
    parameters: Sequence[str] = (),
) -> GradientReport:
    """Check a function at named arrays: first the contract, then every gradient.

    parameters are the names of those that a model learns.
    """
    checker = Checker(owner, settings)
    if not any(array.dtype.kind == "f" for array in arrays.values()):
        raise ValueError(check.expected(owner, "an array of floats to differentiate for", "none"))
    try:
        subject = FunctionSubject(function, arrays, parameters)
        dy = checker.cotangent(subject.y_shape).astype(subject.y_dtype)
        if checker.contracts:
            run = FunctionRun(function, subject.arrays, dy, checker.allow_nonfinite)
            ask(run, FUNCTION_RULES)
        return checker.report(function.name, subject, dy)
    finally:
        function.reset()


def called(function: Any) -> str:
    """Return what messages call a function: its name, or the class that it is of."""
    if inspect.ismethod(function):  # a layer's forward, or the apply of an autograd.Function
        owner = function.__self__
        return owner.__name__ if isinstance(owner, type) else type(owner).__name__
    name = getattr(function, "__name__", type(function).__name__)
    return "the function" if name == "<lambda>" else str(name)


def argument_names(function: Callable[..., Any], count: int) -> list[str]:
    """Return the names of a function's first arguments, or "x[0]", "x[1]", ... if it has none."""
    with suppress(TypeError, ValueError):  # many of those written in C have no signature
        parameters = inspect.signature(function).parameters.values()
        named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [p.name for p in parameters if p.kind in named]
        if len(names) >= count:
            return names[:count]
    return [name for name, _ in numbered("x", range(count))]


def distinct(names: Sequence[str]) -> list[str]:
    """Return the names, those that stand for several arrays with their position."""
    times = Counter(names)
    return [f"{name} ({i})" if times[name] > 1 else name for i, name in enumerate(names)]
