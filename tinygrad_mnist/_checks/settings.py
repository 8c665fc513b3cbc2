"""Settings: attributes that are checked whenever they are set, and the checks themselves."""

import math
import numbers
import operator
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_mnist._checks.refusal import described, expected, type_error, value_error

T = TypeVar("T")

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def integer(owner: object, name: str, value: Any, *, at_least: int) -> int:
    """Return value as an int; refuse a smaller one, bools and floats."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < at_least:
        refused = type_error if number is None else value_error
        raise refused(owner, f"{name} to be an integer >= {at_least}", value)
    return number


def integers(owner: object, name: str, value: Any, *, at_least: int) -> tuple[int, ...]:
    """Return value, a tuple or list of one integer or more, as a tuple of ints."""
    if not isinstance(value, (tuple, list)) or not value:
        refused = value_error if isinstance(value, (tuple, list)) else type_error
        raise refused(owner, f"{name} to be a tuple of integers", value)
    named = ((f"{name}[{i}]", n) for i, n in enumerate(value))
    return tuple(integer(owner, item, n, at_least=at_least) for item, n in named)


def sizes(owner: object, name: str, value: Any, *, at_least: int) -> tuple[int, int]:
    """Return value as two ints, for rows and columns: one integer stands for both."""
    if not isinstance(value, (tuple, list)):
        value = [integer(owner, name, value, at_least=at_least)] * 2
    elif len(value) != 2:
        raise value_error(owner, f"{name} to be one integer or two", value)
    rows, columns = integers(owner, name, value, at_least=at_least)
    return rows, columns


def real(owner: object, name: str, value: Any, interval: str) -> float:
    """Return value as a finite float; refuse one outside an interval written as in "[0, 1)"."""
    contract = f"{name} in {interval}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise type_error(owner, contract, value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    inside = (low < number or (interval[0] == "[" and number == low)) and (
        number < high or (interval[-1] == "]" and number == high)
    )
    if not (inside and math.isfinite(number)):
        raise value_error(owner, contract, value)
    return number


def flag(owner: object, name: str, value: Any) -> bool:
    """Return value; refuse what is no bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise type_error(owner, f"{name} to be a bool", value)
    return bool(value)


def choice(owner: object, name: str, value: Any, *choices: str) -> Any:
    """Return value; refuse what is none of the choices, all of them strings."""
    if not isinstance(value, str) or value not in choices:
        *others, last = (f'"{known}"' for known in choices)
        raise value_error(owner, f"{name} {', '.join(others)} or {last}", value)
    return value


def loss(owner: object, value: Any, *, method: str = "backward") -> Any:
    """Return value; refuse what cannot be called as a loss, or lacks this method, and classes."""
    if isinstance(value, type) or not (callable(value) and hasattr(value, method)):
        raise type_error(owner, "a loss to call, with a backward", value)
    return value


def float_dtype(owner: object, dtype: DTypeLike) -> np.dtype[Any]:
    """Return dtype; refuse what is not float32 or float64 in native byte order."""
    try:
        found = np.dtype(dtype) if dtype is not None else None
    except (SyntaxError, TypeError, ValueError):
        found = None
    if found is None or found not in FLOATS:
        got = described(dtype) if found is None else found
        raise TypeError(expected(owner, "dtype float32 or float64", got))
    return found


def generator(owner: object, rng: Any) -> np.random.Generator:
    """Return rng if it is a Generator, one seeded with it if an int, a fresh one if None."""
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    try:
        return np.random.default_rng(integer(owner, "rng", rng, at_least=0))
    except TypeError:
        contract = "rng to be a seed, a numpy.random.Generator or None"
        raise type_error(owner, contract, rng) from None


class Setting(Generic[T]):
    """An attribute that is checked whenever it is set: `p = Real("[0, 1)")` in the body of a class.

    `check` gets the object, the setting's name, the value and the arguments after it. There is no
    `__get__`: reading a setting costs what reading any attribute costs.
    """

    def __init__(self, check: Callable[..., T], *args: Any, **options: Any) -> None:
        self._check, self._args, self._options = check, args, options

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __set__(self, instance: object, value: Any) -> None:  # as 2 may stand for (2, 2)
        vars(instance)[self._name] = self.checked(instance, value)

    def checked(self, owner: object, value: Any) -> T:
        """Return the value as it is kept, or refuse it."""
        return self._check(owner, self._name, value, *self._args, **self._options)

    if TYPE_CHECKING:

        def __get__(self, instance: object, owner: type) -> T: ...


Real = partial(Setting, real)  # p = Real("[0, 1)")
Integer = partial(Setting, integer)  # patience = Integer(at_least=1)
Integers = partial(Setting, integers)  # shape = Integers(at_least=1)
Sizes = partial(Setting, sizes)  # stride = Sizes(at_least=1)
Flag = partial(Setting, flag)
Choice = partial(Setting, choice)  # reduction = Choice("mean", "sum")


def has_own_method(part: object) -> bool:
    """Return whether a method was set on the object: then it may compute anything."""
    own = getattr(part, "__dict__", {})
    return any(callable(getattr(type(part), name, None)) for name in own)


@cache
def settings_of(kind: type) -> dict[str, Setting[Any]]:
    """Return the settings that a class and its bases declare, by name, the bases' first."""
    declared = (vars(base).items() for base in reversed(kind.__mro__))
    return {name: a for items in declared for name, a in items if isinstance(a, Setting)}
