"""Module: the contract that every layer keeps."""

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Self

from numpy.typing import ArrayLike, DTypeLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._generators import streams_in
from tinygrad_mnist._interrupts import holding
from tinygrad_mnist._outline import outline
from tinygrad_mnist.parameter import Buffer, Parameter


class Module(ABC):
    """A differentiable map: `y = module(x)`, then `dx = module.backward(dy)`.

    Write `forward` and `backward`; keep Parameters, Buffers and other Modules as attributes, or in
    lists, tuples and dicts of them, and they are found, in order of assignment. An `__init__` need
    not call `super().__init__()`. What forward keeps for backward goes into underscore attributes
    that are None on the class (`_x = None`): copies and pickles leave it behind. Not thread-safe: a
    module remembers one forward.
    """

    training: bool = True
    input_grad: bool = True  # False: the input is data, and backward returns None
    sample_axes: int = 1  # how many last axes of x are one sample: 3 for images (H, W, C)
    added_axes: int = 0  # how many more axes y has: 2 for Unflatten((28, 28, 1)), Flatten's are -2

    @abstractmethod
    def forward(self, *inputs: Any, **_: Any) -> Any:  # **_ lets mypy take `forward(self, x)`
        """Return y, and keep what backward will need.

        Args:
            inputs: One array, mostly: x, one sample, a batch of them, or any number of leading
                axes. Never modified, and what becomes of it afterwards changes no gradient.
        """

    @abstractmethod
    def backward(self, dy: ArrayLike) -> Any:
        """Return dL/dx of the last forward and add each dL/dp to its parameter's gradient.

        It follows the mode, mask and input of that forward, with the parameters as they are now.
        Called again, it adds the same again.

        Args:
            dy: dL/dy, of the shape that forward returned. Never modified.

        Returns:
            dL/dx, of the shape of x; a tuple of them for several inputs; None if `input_grad` is
            False.

        Raises:
            RuntimeError: There was no forward, or the last one failed.
        """

    def __call__(self, x: Any, /, *more: Any) -> Any:
        """Return `forward(x, *more)`."""
        return self.forward(x, *more) if more else self.forward(x)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield ("0.weight", Parameter) pairs: dotted names, in order of assignment, each once."""
        return ((name, b) for name, b in self._arrays() if isinstance(b, Parameter))

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Yield ("1.mean", Buffer) pairs in the same way: the Buffers that are not Parameters."""
        return ((name, b) for name, b in self._arrays() if not isinstance(b, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """Yield the Parameters in the same order."""
        return (parameter for _, parameter in self.named_parameters())

    def children(self) -> Iterator["Module"]:
        """Yield the Modules directly inside this one, in order of assignment, each once."""
        inside = (member for _, member in self._members() if isinstance(member, Module))
        return iter({id(child): child for child in inside}.values())

    def modules(self) -> Iterator["Module"]:
        """Yield this module, then every Module inside it, depth first, each once."""
        return (module for _, module in self.named_modules())

    def named_modules(self) -> Iterator[tuple[str, "Module"]]:
        """Yield ("", this module), then ("1.body", Module) pairs in the same order."""
        yield "", self
        found = self._walk("", {id(self)})
        yield from ((name, member) for name, member in found if isinstance(member, Module))

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and in every module inside, and return self."""
        check.flag(self, "mode", mode)
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation mode here and in every module inside, and return self."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def astype(self, dtype: DTypeLike) -> Self:
        """Convert every Parameter and Buffer of floats to float32 or float64, and return self."""
        dtype = check.float_dtype(self, dtype)
        for _, buffer in self._arrays():
            buffer.astype(dtype)
        return self

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return a copy of the values of every Parameter and Buffer, by dotted name."""
        return {name: buffer.data.copy() for name, buffer in self._by_name().items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Set every Parameter and Buffer, or none: names and shapes as in state_dict.

        A ValueError lists every name that is missing, unexpected, read-only or of another shape.
        """
        if not isinstance(state, Mapping):
            raise check.type_error(self, "a state dict", state)
        own = {name: buffer.data for name, buffer in self._by_name().items()}
        new = {
            name: check.owned(self, name, state[name], data.dtype)
            for name, data in own.items()
            if name in state
        }
        faults = [f"no {name}" for name in own if name not in state]
        faults += [f"unexpected {name}" for name in state if name not in own]
        faults += [f"read-only {name}" for name, data in own.items() if not data.flags.writeable]
        faults += [
            f"{name} of shape {array.shape} instead of {own[name].shape}"
            for name, array in new.items()
            if array.shape != own[name].shape
        ]
        if faults:
            contract = "a state dict of its parameters"
            raise ValueError(check.expected(self, contract, ", ".join(faults)))
        with holding():  # Ctrl-C waits until all are set
            for name, data in own.items():
                data[...] = new[name]

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        """Return structure and hyperparameters (public attributes that are plain values)."""
        body = ", ".join(f"{name}={value!r}" for name, value in self._hyperparameters().items())
        inside = ((name, member) for name, member in self._members() if isinstance(member, Module))
        lines = [f"({name}): {module!r}" for name, module in inside]
        if lines:
            body += "\n  " + "\n".join(lines).replace("\n", "\n  ") + "\n"
        return f"{type(self).__name__}({body})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return outline(self)._repr_html_()

    def __getstate__(self) -> Any:
        """Return what a copy or a pickle holds: all but what forward kept."""
        state: Any = super().__getstate__()
        members, *slots = state if isinstance(state, tuple) else (state,)
        state = {name: v for name, v in (members or {}).items() if not self._is_kept(name, v)}
        return (state, *slots) if slots else state

    def _is_kept(self, name: str, value: object) -> bool:
        """Return whether forward kept this attribute: None on the class, and no state in it."""
        declared = name.startswith("_") and getattr(type(self), name, self) is None
        return declared and not any(_found_in(name, value)) and not any(streams_in(value))

    def _by_name(self) -> dict[str, Buffer]:
        found: dict[str, Buffer] = {}
        for name, buffer in self._arrays():
            if name in found:
                contract = "a name for each Parameter"
                raise ValueError(check.expected(self, contract, f"two of {name}"))
            found[name] = buffer
        return found

    def _hyperparameters(self) -> dict[str, object]:
        """Return what the repr shows: public attributes that are plain values."""
        return {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and name != "training"
            if _is_plain(value)
        }

    def _arrays(self) -> Iterator[tuple[str, Buffer]]:
        """Yield every Buffer, Parameters among them, with its dotted name."""
        found = self._walk("", {id(self)})
        return ((name, member) for name, member in found if isinstance(member, Buffer))

    def _members(self) -> Iterator[tuple[str, "Module | Buffer"]]:
        """Yield what is directly inside, by name; the one method that a container overrides."""
        for name, value in vars(self).items():
            yield from _found_in(name, value)

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, "Module | Buffer"]]:
        for name, member in self._members():
            if id(member) not in seen:
                seen.add(id(member))
                yield prefix + name, member
                if isinstance(member, Module):
                    yield from member._walk(f"{prefix}{name}.", seen)


def _is_plain(value: object) -> bool:
    """Return whether a repr shows this: a number, a string, None, or sizes such as (5, 5)."""
    if isinstance(value, tuple) and value:
        return all(isinstance(n, int) for n in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _found_in(name: str, value: Any) -> Iterator[tuple[str, Module | Buffer]]:
    """Yield the Modules and Buffers that value is or holds, with dotted names."""
    if isinstance(value, (Module, Buffer)):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _found_in(f"{name}.{key}", item)
