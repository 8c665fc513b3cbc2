"""The one sentence of every refusal: `Owner: expected <contract>, got <value>`.

`owner` is the object that refuses, or the name of the function that does.
"""

import numbers
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def expected(owner: object, contract: str, value: object) -> str:
    """Return the message of a refusal."""
    name = owner if isinstance(owner, str) else type(owner).__name__
    return f"{name}: expected {contract}, got {value}"


def type_error(owner: object, contract: str, value: object) -> TypeError:
    """Return a refusal of a value for its type."""
    return TypeError(expected(owner, contract, described(value)))


def value_error(owner: object, contract: str, value: object) -> ValueError:
    """Return a refusal of a value."""
    return ValueError(expected(owner, contract, described(value)))


def described(value: object) -> str:
    """Return how a message shows a value: numbers and short strings as they are, else its kind."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, int) and abs(value) >= 10**80:
        return "an integer of more than 80 digits"
    if value is None or isinstance(value, (numbers.Number, np.generic, str)):
        return repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    if isinstance(value, tuple) and all(isinstance(n, int) for n in value):
        return str(value)  # a shape
    if isinstance(value, np.ndarray):
        kind = "a masked array" if np.ma.isMA(value) else "an array"
        return f"{kind} of shape {value.shape} and dtype {value.dtype}"
    return f"a {type(value).__name__}"


@contextmanager
def refusing(owner: object, contract: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """Turn whatever goes wrong in a `with` block into one refusal of this kind.

    What the machine lacks is no fault of what was read: a MemoryError passes, and so does an
    OSError of the system, which has an errno, unless the kind is an OSError itself.
    """
    try:
        yield
    except Exception as error:  # foreign code raises anything: zipfile, zlib, Keras each their own
        of_system = isinstance(error, OSError) and error.errno is not None
        if isinstance(error, MemoryError) or (of_system and not issubclass(kind, OSError)):
            raise
        found = str(error) or type(error).__name__
        raise kind(expected(owner, contract, found)) from error


def locate(error: Exception, container: object, name: object, layer: object) -> None:
    """Lead the message of a layer's refusal by the layer's path in its containers.

    "Linear: expected ..." from layer 4 becomes "Sequential, layer 4: Linear: expected ...", and in
    a Sequential around that one "Sequential, layer 0.4: Linear: expected ...". Other errors
    stay as they are.
    """
    kind, message = type(layer).__name__, str(error)
    where = f"{type(container).__name__}, layer {name}"
    if message.startswith(f"{kind}, layer "):
        error.args = (f"{where}.{message.removeprefix(f'{kind}, layer ')}",)
    elif message.startswith(f"{kind}: "):
        error.args = (f"{where}: {message}",)
    elif re.match(r"(\w+(, layer [\w.]+)?: )+expected ", message):  # of one inside the layer
        error.args = (f"{where}: {kind}: {message}",)
