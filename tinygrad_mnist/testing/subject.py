"""What is checked: a module, a loss or both together, or a function, by named arrays.

A forward is a function only if the random streams and Buffers that it changes are set back.
"""

import copy
import math
import pickle
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._generators import Stream, kept, streams_in
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing.report import ModuleContractError

Inputs = Sequence[NDArray[Any]]
Form = Literal["sample", "batch", "axes"]
FORMS: tuple[Form, ...] = ("sample", "batch", "axes")
_GLOBAL: tuple[Stream, ...] = (
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
)


class Subject(Protocol):
    """What is checked: outputs as a function of named arrays, and their gradients.

    Attributes:
        arrays: By name, and changed in place to ask for the outputs at others.
        parameters: The names of the arrays that a model learns.
        y_shape: The shape of the outputs of a module or function, before any loss.
        samples: How many samples the arrays hold.
        modules: What is inside, for hints.
    """

    arrays: dict[str, NDArray[Any]]
    parameters: Sequence[str]
    y_shape: tuple[int, ...]

    @property
    def samples(self) -> int: ...

    @property
    def modules(self) -> Sequence[Module]: ...

    def outputs(self) -> FloatArray:
        """Return a copy of the outputs at the arrays' present values."""

    def gradients(self, cotangent: FloatArray) -> dict[str, FloatArray]:
        """Return copies of the gradients of sum(cotangent * outputs), by the arrays' names."""

    def copy(self) -> "Subject":
        """Return an independent subject with the same values and draws."""

    def rewind(self) -> None:
        """Set back every stream and Buffer that a forward changes."""


class ModuleSubject:
    """y of a module, or the value of a loss of y, as a function of its inputs and every parameter.

    It works on copies in float64, and sets every random stream and Buffer back before each
    forward, so that equal arrays give equal outputs. `arrays` are changed in place to ask for
    others.

    Args:
        module: The module; an empty Sequential for a loss alone.
        inputs: What its forward takes, contiguous arrays of float64, or of integers to look up.
        loss: If given, the output is loss(y, target), shape (), instead of y.
        target: What the loss compares y with.
        name: Of the inputs, in `arrays` and so in reports.
        shared: The global streams that a forward may draw from.
    """

    def __init__(
        self,
        module: Module,
        inputs: Inputs,
        loss: Any = None,
        target: Any = None,
        name: str = "x",
        shared: Sequence[Stream] = _GLOBAL,
    ) -> None:
        self.module, self.loss = copy.deepcopy((module, loss))
        self.module.astype(np.float64)
        self.inputs, self.target, self.name = [x.copy() for x in inputs], target, name
        parameters = {name: parameter.data for name, parameter in self.module.named_parameters()}
        self.arrays: dict[str, NDArray[Any]] = {
            f"{name} (the input)" if name in parameters else name: x
            for name, x in numbered(name, self.inputs)
        }
        self.names = list(self.arrays)  # of the inputs
        self.parameters: Sequence[str] = list(parameters)
        self.arrays |= parameters
        self.y_shape: tuple[int, ...] = ()
        self.state = State(self._forward, self.module, self.loss, shared=shared)

    @property
    def samples(self) -> int:
        """How many samples the (first) input holds."""
        return math.prod(leading(self.module, self.inputs))

    @property
    def modules(self) -> Sequence[Module]:
        """The module and every one inside."""
        return list(self.module.modules())

    def rewind(self) -> None:
        """Set back every stream and Buffer that a forward changes."""
        self.state.rewind()

    def outputs(self) -> FloatArray:
        """Return a copy of the outputs at the arrays' present values."""
        self.rewind()
        # a copy: an identity returns its input, which is about to change
        return np.array(self._forward(), dtype=np.float64)

    def gradients(self, cotangent: FloatArray) -> dict[str, FloatArray]:
        """Return copies of the gradients of sum(cotangent * outputs), by the arrays' names."""
        self.outputs()
        dy = cotangent.copy() if self.loss is None else cotangent * self.loss.backward()
        dxs, grads = gradients(self.module, self.inputs, dy)
        return {n: dx for n, dx in zip(self.names, dxs, strict=True) if dx is not None} | grads

    def copy(self) -> "ModuleSubject":
        """Return an independent subject with the same values and draws."""
        self.rewind()
        arguments = self.module, self.inputs, self.loss, self.target, self.name
        return ModuleSubject(*arguments, self.state.shared)

    def _forward(self) -> Any:
        y = self.module(*self.inputs)
        self.y_shape = np.shape(y)
        return y if self.loss is None else self.loss(y, self.target)


class State:
    """The random streams and Buffers that a call may change, as they were before it.

    The streams are those that `streams_in` finds in the parts, and of the global ones those that
    the call draws from, which are kept in `shared`: copies of the parts draw from no others. The
    Buffers are those of the parts that are Modules.
    """

    def __init__(
        self, call: Callable[[], object], *parts: object, shared: Sequence[Stream] = _GLOBAL
    ) -> None:
        self._modules = [part for part in parts if isinstance(part, Module)]
        self._buffers = {name: buffer.data.copy() for name, buffer in self._named_buffers()}
        self._streams = [(*stream, stream[0]()) for stream in streams_in(parts)]
        watched = [(*stream, stream[0]()) for stream in shared]
        try:
            call()
        finally:
            drawn = [stream for stream in watched if _moved(stream)]
            self.shared = [(get_state, set_state) for get_state, set_state, _ in drawn]
            self._streams += drawn
            self.rewind()

    def rewind(self) -> None:
        """Set every stream and every Buffer back to where it was."""
        for _, set_state, state in self._streams:
            set_state(state)
        for name, buffer in self._named_buffers() if self._buffers else ():
            buffer.data = self._buffers.get(name, buffer.data)

    def has_drawn(self) -> bool:
        """Return whether anybody has drawn from one of the streams since."""
        return any(map(_moved, self._streams))

    def changed_buffers(self) -> list[str]:
        """Return the names of the Buffers that have changed since."""
        now_and_then = ((n, b.data, self._buffers.get(n, b.data)) for n, b in self._named_buffers())
        return [n for n, now, then in now_and_then if not np.array_equal(now, then, equal_nan=True)]

    def _named_buffers(self) -> list[tuple[str, Any]]:
        return [pair for module in self._modules for pair in module.named_buffers()]


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Set back what is everybody's: both global streams, the filters of warnings, np.seterr."""
    with kept(_GLOBAL), warnings.catch_warnings(), np.errstate():
        yield


@contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """Set evaluation mode, and afterwards the mode of each module back."""
    modes = {inside: inside.training for inside in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for inside, mode in modes.items():
            inside.training = mode


def gradients(
    module: Module, inputs: Inputs, dy: FloatArray, times: int = 1
) -> tuple[list[FloatArray | None], dict[str, FloatArray]]:
    """Run backward and return copies: dL/dx of each input, and each parameter's gradient by name.

    dL/dx is None for integers, and where a module with `input_grad=False` returns None.

    Raises:
        ModuleContractError: An input's gradient is missing or of another shape.
    """
    module.zero_grad()
    for _ in range(times):
        found = module.backward(dy)
    if len(inputs) == 1 or found is None:
        found = (found,) * len(inputs)
    elif not isinstance(found, tuple) or len(found) != len(inputs):
        raise _misshapen(module, f"a tuple of {len(inputs)} gradients", check.described(found))
    dxs: list[FloatArray | None] = []
    for (name, x), dx in zip(numbered("dx", inputs), found, strict=True):
        shape = None if dx is None else np.shape(dx)
        if shape != x.shape and (dx is not None or module.input_grad):
            raise _misshapen(module, f"{name} of shape {x.shape}", shape)
        dxs.append(None if dx is None or x.dtype.kind != "f" else np.array(dx))
    return dxs, gradient_sums(module)


def check_forms(owner: str, forms: Sequence[Form]) -> None:
    """Refuse none, and what is no form."""
    if not forms:
        raise ValueError(check.expected(owner, f"forms among {', '.join(FORMS)}", "none"))
    for form in forms:
        check.choice(owner, "forms", form, *FORMS)


def gradient_sums(module: Module) -> dict[str, FloatArray]:
    """Return copies of the gradients that the parameters hold now, by name."""
    return {name: p.grad.copy() for name, p in module.named_parameters()}


def numbered(name: str, values: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return each value with its name: "x" if it is the only one, else "x[0]", "x[1]", ..."""
    alone = len(values) == 1
    return [(name if alone else f"{name}[{i}]", value) for i, value in enumerate(values)]


def leading(module: Module, inputs: Inputs) -> tuple[int, ...]:
    """Return the lengths of the axes of the (first) input that lead to one sample."""
    shape = inputs[0].shape
    return shape[: max(0, len(shape) - module.sample_axes)]


def _misshapen(module: Module, wanted: str, got: object) -> ModuleContractError:
    return ModuleContractError("shape", f"{type(module).__name__}: expected {wanted}, got {got}")


def _moved(stream: tuple[Callable[[], Any], Callable[[Any], None], Any]) -> bool:
    get_state, _, state = stream
    return pickle.dumps(get_state()) != pickle.dumps(state)


def inputs_of(owner: str, module: object, x: Any) -> Inputs:
    """Return copies of the inputs: integers that a module looks up as they are, else float64."""
    if not isinstance(module, Module):
        raise check.type_error(owner, "a Module", module)
    inputs = []
    for name, value in numbered("x", x if isinstance(x, tuple) else (x,)):
        array = check.real_array(owner, name, value)
        looked_up = array.dtype.kind in "iu" and not module.input_grad
        inputs.append(
            check.owned(owner, name, array, array.dtype if looked_up else np.dtype(np.float64))
        )
    return inputs
