"""Parameter and Module: the contract that every layer keeps."""

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinygrad_mnist import _blas
from tinygrad_mnist._checks import (
    FloatArray,
    described,
    expected,
    flag,
    float_dtype,
    floats,
    owned,
    same_shape,
)


class Parameter:
    """A trained array, and the gradient summed into it since the last `zero_grad`.

    `data` is updated in place and keeps its identity; `grad` always reads as an array of the same
    shape and dtype. A gradient can be handed over as an array (`accumulate`) or as the product
    `a.T @ b` (`accumulate_product`), which need not be multiplied out unless somebody reads
    `grad`: an optimizer adds it straight into `data` (`add_grad_to`).

    Args:
        data: Initial values, of any shape; copied. An array of float64 or wider becomes float64,
            all else, Python numbers among it, float32.

    Raises:
        TypeError: data is complex, masked, or not numeric.
    """

    def __init__(self, data: ArrayLike) -> None:
        array = floats(self, "data", data)
        is_float = getattr(getattr(data, "dtype", None), "kind", None) == "f"
        dtype = array.dtype if is_float else np.float32
        self._data: FloatArray = np.array(array, dtype=dtype, order="C")
        self._grad: FloatArray | None = None  # None stands for zeros
        self._products: list[tuple[FloatArray, FloatArray]] = []  # still to be added to _grad

    @property
    def data(self) -> FloatArray:
        """The values. Assigning copies into the same array; another shape is a ValueError."""
        return self._data

    @data.setter
    def data(self, values: ArrayLike) -> None:
        if values is not self._data:  # `p.data -= step` ends here, its work already done
            self._data[...] = self._like_data("data", values)

    @property
    def grad(self) -> FloatArray:
        """The gradient summed so far. Assigning copies; another shape is a ValueError."""
        return self._multiplied_out()

    @grad.setter
    def grad(self, values: ArrayLike) -> None:
        if values is not self._grad:
            self._grad = self._like_data("grad", values)
        self._products = []

    def zero_grad(self) -> None:
        """Forget the gradient. An array read from `grad` before keeps its values."""
        self._grad, self._products = None, []

    def accumulate(self, grad: ArrayLike) -> None:
        """grad += an array of the same shape.

        Raises:
            ValueError: Another shape; nothing is broadcast.
            TypeError: Not real numbers.
        """
        added = self._like_data("grad", grad)
        if self._grad is None:
            self._grad = added
        else:
            self._grad += added

    def accumulate_product(self, a: FloatArray, b: FloatArray) -> None:
        """grad += a.T @ b over all leading axes, for data (I, O), a (..., I) and b (..., O).

        The two factors may be kept as they are, without a copy, until `zero_grad`: hand over
        arrays that nobody will change.

        Raises:
            ValueError: The shapes do not fit.
            TypeError: Not real numbers.
        """
        dtype = self._data.dtype
        if not (_is_factor(a, dtype) and _is_factor(b, dtype)):
            a, b = owned(self, "a", a, dtype), owned(self, "b", b, dtype)
        shape = a.shape[-1:] + b.shape[-1:]
        if a.shape[:-1] != b.shape[:-1] or shape != self._data.shape or len(shape) != 2:
            contract = f"a (..., I) and b (..., O) with (I, O) = {self._data.shape}"
            raise ValueError(expected(self, contract, f"{a.shape} and {b.shape}"))
        if self._products:
            factors = sum(a.size + b.size for a, b in [*self._products, (a, b)])
            if factors > self._data.size:
                self._multiplied_out()  # the sum takes less memory than they do
        self._products.append((a, b))

    def add_grad_to(self, out: FloatArray, scale: float) -> None:
        """out += scale * grad, in one BLAS call where it can.

        Args:
            out: A writeable C-ordered array of the shape and dtype of data; data itself will do.
            scale: A number.

        Raises:
            ValueError: out is any other array.
        """
        fits = out is self._data or (
            isinstance(out, np.ndarray)
            and out.shape == self._data.shape
            and out.dtype == self._data.dtype
        )
        if not (fits and out.flags.carray):
            contract = f"out to be writeable, C-ordered, {self._data.shape} {self._data.dtype}"
            raise ValueError(expected(self, contract, described(out)))
        if self._grad is not None:
            _blas.add_scaled(out, self._grad, scale)
        for a, b in self._products:
            _blas.add_product(out, a, b, scale)

    def astype(self, dtype: DTypeLike) -> None:
        """Convert data and gradient to float32 or float64: the one way to a new `data` array.

        Raises:
            TypeError: Any other dtype.
        """
        dtype = float_dtype(self, dtype)
        data = self._data.astype(dtype, copy=False)
        if self._grad is not None or self._products:
            self._grad = self._multiplied_out().astype(dtype, copy=False)
        self._data = data

    def __repr__(self) -> str:
        """Return the shape and dtype, never the values."""
        return f"Parameter(shape={self._data.shape}, dtype={self._data.dtype})"

    def _multiplied_out(self) -> FloatArray:
        if self._grad is None:
            self._grad = np.zeros_like(self._data)
        for a, b in self._products:
            _blas.add_product(self._grad, a, b, 1.0)
        self._products = []
        return self._grad

    def _like_data(self, name: str, values: ArrayLike) -> FloatArray:
        copy = owned(self, name, values, self._data.dtype)
        same_shape(self, name, copy, self._data.shape)
        return copy


def _is_factor(values: object, dtype: np.dtype[Any]) -> bool:
    return type(values) is np.ndarray and values.dtype == dtype and values.flags.c_contiguous


class Module(ABC):
    """A differentiable map: `y = module(x)`, then `dx = module.backward(dy)`.

    Write `forward` and `backward`; keep Parameters and other Modules as attributes, or in lists,
    tuples and dicts of them, and they are found, in order of assignment. An `__init__` need not
    call `super().__init__()`. Not thread-safe: a module remembers one forward.
    """

    training: bool = True
    input_grad: bool = True  # False: the input is data, and backward returns None

    @abstractmethod
    def forward(self, x: ArrayLike) -> FloatArray:
        """Return y, and keep what backward will need.

        Args:
            x: One sample, a batch of them, or any number of leading axes. Never modified, and
                what becomes of it afterwards changes no gradient.

        Raises:
            ValueError: The shape does not fit.
            TypeError: x is complex, masked, or not numeric.
        """

    @abstractmethod
    def backward(self, dy: ArrayLike) -> FloatArray | None:
        """Return dL/dx of the last forward and add each dL/dp to its parameter's gradient.

        It follows the mode, mask and input of that forward, with the parameters as they are now.
        Called again, it adds the same again.

        Args:
            dy: dL/dy, of the shape that forward returned. Never modified.

        Returns:
            dL/dx, of the shape of x, or None if `input_grad` is False.

        Raises:
            RuntimeError: There was no forward, or the last one failed.
            ValueError: dy has another shape than y.
            TypeError: dy is complex, masked, or not numeric.
        """

    def __call__(self, x: ArrayLike) -> FloatArray:
        """Return `forward(x)`."""
        return self.forward(x)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield ("0.weight", Parameter) pairs: dotted names, in order of assignment, each once."""
        found = self._walk("", {id(self)})
        return ((name, member) for name, member in found if isinstance(member, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """Yield the Parameters in the same order."""
        return (parameter for _, parameter in self.named_parameters())

    def children(self) -> Iterator["Module"]:
        """Yield the Modules directly inside this one, in order of assignment, each once."""
        inside = (member for _, member in self._members() if isinstance(member, Module))
        return iter({id(child): child for child in inside}.values())

    def modules(self) -> Iterator["Module"]:
        """Yield this module, then every Module inside it, depth first, each once."""
        yield self
        found = self._walk("", {id(self)})
        yield from (member for _, member in found if isinstance(member, Module))

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and in every module inside, and return self.

        Raises:
            TypeError: mode is not a bool.
        """
        flag(self, "mode", mode)
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
        """Convert every parameter to float32 or float64, and return self.

        Raises:
            TypeError: Any other dtype.
        """
        dtype = float_dtype(self, dtype)
        for parameter in self.parameters():
            parameter.astype(dtype)
        return self

    def state_dict(self) -> dict[str, FloatArray]:
        """Return a copy of every parameter's values, by dotted name.

        Raises:
            ValueError: Two parameters have the same name.
        """
        return {name: parameter.data.copy() for name, parameter in self._by_name().items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Set every parameter, or none: the names and shapes must be exactly those of state_dict.

        Raises:
            ValueError: Names are missing or unexpected, shapes differ, or parameters are
                read-only; it lists them all.
            TypeError: state is no mapping, or a value in it is not an array of real numbers.
        """
        if not isinstance(state, Mapping):
            raise TypeError(expected(self, "a state dict", described(state)))
        own = self._by_name()
        new = {
            name: owned(self, name, state[name], parameter.data.dtype)
            for name, parameter in own.items()
            if name in state
        }
        faults = [f"no {name}" for name in own if name not in state]
        faults += [f"unexpected {name}" for name in state if name not in own]
        faults += [f"read-only {name}" for name in own if not own[name].data.flags.writeable]
        faults += [
            f"{name} of shape {new[name].shape} instead of {own[name].data.shape}"
            for name in own
            if name in new and new[name].shape != own[name].data.shape
        ]
        if faults:
            raise ValueError(expected(self, "a state dict of its parameters", ", ".join(faults)))
        for name, parameter in own.items():
            parameter.data = new[name]

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        """Return structure and hyperparameters (public attributes that are plain values)."""
        body = ", ".join(f"{name}={value!r}" for name, value in self._hyperparameters().items())
        inside = ((name, member) for name, member in self._members() if isinstance(member, Module))
        lines = [f"({name}): {module!r}" for name, module in inside]
        if lines:
            body += "\n  " + "\n".join(lines).replace("\n", "\n  ") + "\n"
        return f"{type(self).__name__}({body})"

    def _by_name(self) -> dict[str, Parameter]:
        found: dict[str, Parameter] = {}
        for name, parameter in self.named_parameters():
            if name in found:
                raise ValueError(expected(self, "a name for each Parameter", f"two of {name}"))
            found[name] = parameter
        return found

    def _hyperparameters(self) -> dict[str, object]:
        """Return what the repr shows: public attributes that are plain values."""
        return {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and name != "training"
            if value is None or isinstance(value, (bool, int, float, str))
        }

    def _members(self) -> Iterator[tuple[str, "Module | Parameter"]]:
        """Yield what is directly inside, by name; the one method that a container overrides."""
        for name, value in vars(self).items():
            yield from _found_in(name, value)

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, "Module | Parameter"]]:
        for name, member in self._members():
            if id(member) not in seen:
                seen.add(id(member))
                yield prefix + name, member
                if isinstance(member, Module):
                    yield from member._walk(f"{prefix}{name}.", seen)


def _found_in(name: str, value: Any) -> Iterator[tuple[str, Module | Parameter]]:
    """Yield the Modules and Parameters that value is or holds, with dotted names."""
    if isinstance(value, (Module, Parameter)):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _found_in(f"{name}.{key}", item)
