"""Buffer and Parameter: the arrays that a model keeps, and those that it trains."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray

# Factors of more numbers, and much larger than their product, are multiplied out at once: those of
# a layer that looks at each pixel of a batch take megabytes, and would be kept until `zero_grad`.
_MOST_KEPT = 1_000_000


class Buffer:
    """An array that a model keeps and no optimizer moves, such as a running mean or a count.

    It is found, named, saved, restored and converted as a Parameter is. `data` is updated in place
    and keeps its identity.

    Args:
        data: Initial values, of any shape; copied. Integers and bools keep their dtype, an array of
            float64 or wider becomes float64, all else float32.
    """

    __array_ufunc__ = None  # `x @ layer.weight` is a TypeError that names both: .data is missing

    def __init__(self, data: ArrayLike) -> None:
        array = check.real_array(self, "data", data)
        dtype: Any = array.dtype.newbyteorder("=")
        if dtype.kind == "f":  # Python's own floats have no dtype to keep
            wide = hasattr(data, "dtype") and dtype.itemsize >= 8
            dtype = np.float64 if wide else np.float32
        self._data: NDArray[Any] = _blas.aligned(array.astype(dtype, copy=False))

    @property
    def data(self) -> NDArray[Any]:
        """The values. Assigning copies into the same array; another shape is a ValueError."""
        return self._data

    @data.setter
    def data(self, values: ArrayLike) -> None:
        if values is not self._data:  # as in `p.data -= step`, which has changed it already
            self._data[...] = self._like_data("data", values)

    def astype(self, dtype: DTypeLike) -> None:
        """Convert floats to float32 or float64; integers and bools stay what they are.

        It is the one way to a new `data` array.
        """
        dtype = check.float_dtype(self, dtype)
        if self._data.dtype.kind == "f" and self._data.dtype != dtype:
            self._data = _blas.aligned(self._data.astype(dtype))

    def __repr__(self) -> str:
        """Return the shape and dtype, never the values."""
        return f"{type(self).__name__}(shape={self._data.shape}, dtype={self._data.dtype})"

    def _like_data(self, name: str, values: ArrayLike) -> NDArray[Any]:
        copy = check.owned(self, name, values, self._data.dtype)
        check.same_shape(self, name, copy, self._data.shape)
        return copy


class Parameter(Buffer):
    """A Buffer that is trained, and the gradient summed into it since the last `zero_grad`.

    `grad` always reads as an array of the shape and dtype of data. A layer passes its gradient as
    an array (`accumulate`) or as the product `a.T @ b` (`accumulate_product`), which need not be
    multiplied out unless somebody reads `grad`: an optimizer adds it straight into `data`
    (`add_grad_to`).

    Args:
        data: Initial values, of any shape; copied. An array of float64 or wider becomes float64,
            all else, integers too, float32.
    """

    def __init__(self, data: ArrayLike) -> None:
        array = check.real_array(self, "data", data)
        super().__init__(data if array.dtype.kind == "f" else array.astype(np.float32))
        self._grad: FloatArray | None = None  # None stands for zeros
        self._products: list[tuple[FloatArray, FloatArray]] = []  # still to be added to _grad

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
        """grad += an array of the same shape; nothing is broadcast."""
        added = self._like_data("grad", grad)
        if self._grad is None:
            self._grad = added
        else:
            self._grad += added

    def accumulate_product(self, a: FloatArray, b: FloatArray) -> None:
        """grad += a.T @ b over all leading axes, for data (I, O), a (..., I) and b (..., O).

        The two factors may be kept as they are, without a copy, until `zero_grad`: pass arrays that
        nobody will change.
        """
        dtype, wanted = self._data.dtype, self._data.shape
        if not (_is_factor(a, dtype) and _is_factor(b, dtype)):
            a, b = check.owned(self, "a", a, dtype), check.owned(self, "b", b, dtype)
        shape = a.shape[-1:] + b.shape[-1:]
        if a.shape[:-1] != b.shape[:-1] or shape != wanted or len(shape) != 2:
            contract = f"a (..., I) and b (..., O) with (I, O) = {wanted}"
            raise ValueError(check.expected(self, contract, f"{a.shape} and {b.shape}"))
        self.accumulate_checked_product(a, b)

    def accumulate_checked_product(self, a: FloatArray, b: FloatArray) -> None:
        """accumulate_product for factors that a layer has checked, and that nobody else has.

        They have the dtype of data and shapes that match, are C-ordered, and kept as they are.
        """
        if self._products:
            factors = sum(a.size + b.size for a, b in [*self._products, (a, b)])
            if factors > self._data.size:
                self._multiplied_out()  # the sum takes less memory than they do
        self._products.append((a, b))
        if a.size + b.size > _MOST_KEPT and a.size + b.size > 8 * self._data.size:
            self._multiplied_out()

    def add_grad_to(self, out: FloatArray, scale: float) -> None:
        """out += scale * grad, in one BLAS call where it can.

        out is a writeable C-ordered array of the shape and dtype of data; data itself will do.
        """
        like = self._data
        fits = out is like or (
            isinstance(out, np.ndarray) and (out.shape, out.dtype) == (like.shape, like.dtype)
        )
        if not (fits and out.flags.carray):
            contract = f"out to be writeable, C-ordered, {self._data.shape} {self._data.dtype}"
            raise check.value_error(self, contract, out)
        if self._grad is not None:
            _blas.add_scaled(out, self._grad, scale)
        for a, b in self._products:
            _blas.add_product(out, a, b, scale)

    def astype(self, dtype: DTypeLike) -> None:
        """Convert data and gradient to float32 or float64."""
        grad = self._multiplied_out() if self._products else self._grad
        super().astype(dtype)
        self._grad = None if grad is None else grad.astype(self._data.dtype, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: a gradient kept as factors is multiplied out.

        The Parameter itself keeps the factors: multiplied out, its next step would round otherwise.
        """
        if not self._products:
            return vars(self)
        grad = np.zeros_like(self._data)
        self.add_grad_to(grad, 1.0)
        return {**vars(self), "_grad": grad, "_products": []}

    def _multiplied_out(self) -> FloatArray:
        if self._grad is None:
            self._grad = np.zeros_like(self._data)
        for a, b in self._products:
            _blas.add_product(self._grad, a, b, 1.0)
        self._products = []
        return self._grad


def _is_factor(values: object, dtype: np.dtype[Any]) -> bool:
    """Return whether BLAS takes this as it is."""
    return type(values) is np.ndarray and values.dtype == dtype and values.flags.c_contiguous


def Held(
    kind: type[Buffer] = Parameter, *, or_none: bool = False, shape: tuple[str, ...] = ()
) -> check.Setting[Any]:
    """Return a setting that takes a Parameter; `Held(Buffer)` takes a Buffer.

    A setting is an attribute that is checked whenever it is set. With `weight = Held()` in a class
    body, `layer.weight = array` is refused: it would silently replace the Parameter. With
    `shape=("features",)` its shape must be (layer.features,); the layer sets `features` first.
    """
    return check.Setting(_held, kind, or_none, shape)


def _held(
    owner: object, name: str, value: Any, kind: type[Buffer], or_none: bool, shape: tuple[str, ...]
) -> Any:
    if not (isinstance(value, kind) or (value is None and or_none)):
        contract = f"{name} to be a {kind.__name__} (`{name}.data = ...` sets its values)"
        raise check.type_error(owner, contract, value)
    if shape and value is not None:
        check.same_shape(owner, name, value.data, tuple(getattr(owner, n) for n in shape))
    return value
