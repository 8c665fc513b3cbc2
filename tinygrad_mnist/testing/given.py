"""What a caller gives besides the code to grade: a reference, a formula, what makes a layer.

A mistake in these is the caller's own, and no broken rule.
"""

import inspect
from collections.abc import Callable
from typing import Any

from tinygrad_mnist import _checks as check


class GivenError(TypeError):
    """A reference, a formula or `make` cannot be called with what it is given."""


def takes(function: Callable[..., Any], *arguments: object) -> bool:
    """Return whether a function has a place for all arguments; where nobody can say, it has."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # a function written in C
        pass
    return True


def require_takes(name: str, arguments: str, function: Any, *values: object) -> None:
    """Raise GivenError unless what is given under a name is a function of some arguments."""
    if not callable(function) or not takes(function, *values):
        got = check.described(function)
        raise GivenError(check.expected(name, f"a function of {arguments}", got))


def answer(name: str, arguments: str, function: Callable[..., Any], *values: object) -> Any:
    """Return what a function returns; what it raises becomes a GivenError."""
    try:
        return function(*values)
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise GivenError(check.expected(name, f"a function of {arguments}", got)) from error
