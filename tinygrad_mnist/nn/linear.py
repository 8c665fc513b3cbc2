"""Linear: a matrix product and a shift."""

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.init import Initializer, he_uniform
from tinygrad_mnist.module import Module
from tinygrad_mnist.parameter import Held, Parameter


class Linear(Module):
    """y = x @ W + b, for x (..., I), W (I, O), b (O,) and y (..., O).

    Backward: dW = x.T @ dy and db = dy.sum(axis=0), over all samples; dx = dy @ W.T.

    Args:
        in_features: I, at least 1.
        out_features: O, at least 1.
        bias: Whether there is a b; it starts at zeros.
        init: Draws the initial W, given (I, O) and a generator; see `tinygrad_mnist.init`.
        rng: Source of the initial W: a seed, a generator, or None for fresh entropy.
        dtype: Of W and b, and so of everything computed: float32 or float64.
        input_grad: False says that x is data: backward then saves the work of dx and returns None.
    """

    weight: check.Setting[Parameter] = Held(shape=("in_features", "out_features"))
    bias: check.Setting[Parameter | None] = Held(or_none=True, shape=("out_features",))
    _x: FloatArray | None = None  # of the last forward

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: Initializer = he_uniform,
        rng: int | np.random.Generator | None = None,
        dtype: DTypeLike = np.float32,
        input_grad: bool = True,
    ) -> None:
        self.in_features = check.integer(self, "in_features", in_features, at_least=1)
        self.out_features = check.integer(self, "out_features", out_features, at_least=1)
        bias = check.flag(self, "bias", bias)
        self.input_grad = check.flag(self, "input_grad", input_grad)
        dtype, shape = check.float_dtype(self, dtype), (self.in_features, self.out_features)
        self.weight = Parameter(check.drawn(self, init, shape, rng, dtype))
        self.bias = Parameter(np.zeros(shape[1], dtype)) if bias else None

    def forward(self, x: ArrayLike) -> FloatArray:
        self._x = None  # a forward that fails leaves nothing for a backward
        W = self.weight.data
        x = check.owned(self, "x", x, W.dtype)
        if x.shape[-1:] != W.shape[:1]:
            raise check.value_error(self, f"x of shape (..., {W.shape[0]})", x.shape)
        y = _blas.product(x, W)
        if self.bias is not None:
            y += self.bias.data
        self._x = x
        return y

    def backward(self, dy: ArrayLike) -> FloatArray | None:
        x, W = check.kept(self, self._x), self.weight.data
        dy = check.owned(self, "dy", dy, W.dtype)
        check.same_shape(self, "dy", dy, x.shape[:-1] + W.shape[1:])
        if self.bias is not None:
            self.bias.accumulate(dy if dy.ndim == 1 else dy.reshape(-1, dy.shape[-1]).sum(axis=0))
        self.weight.accumulate_checked_product(x.astype(W.dtype, copy=False), dy)
        return _blas.product(dy, W.T) if self.input_grad else None

    def _hyperparameters(self) -> dict[str, object]:
        return {**super()._hyperparameters(), "bias": self.bias is not None}
