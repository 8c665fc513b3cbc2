"""Normalization: mean 0 and variance 1, of each feature in a batch, or within each sample."""

import math
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.parameter import Buffer, Held, Parameter

Statistics = tuple[FloatArray, FloatArray, tuple[int, ...] | None]


class Norm(Module):
    """y = n * weight + bias, with n = (x - mean) / std and std = sqrt(var + eps).

    x, n and y are (..., I), weight and bias (I,). Write `statistics`, which says what mean and var
    are.

    Backward: dweight = sum(dy * n) and dbias = sum(dy), over all samples. With dn = dy * weight,
    dx = (dn - mean(dn) - n * mean(dn * n)) / std, means over the axes of mean and var; where those
    are constants, dx = dn / std.
    """

    eps = check.Real("(0, inf)")
    weight: check.Setting[Parameter] = Held(shape=("features",))
    bias: check.Setting[Parameter] = Held(shape=("features",))
    _n: FloatArray | None = None  # of the last forward
    _std: Any = None
    _axes: tuple[int, ...] | None = None  # of mean and var; None where they are constants

    def __init__(self, features: int, *, eps: float = 1e-5, dtype: DTypeLike = np.float32) -> None:
        self.features = check.integer(self, "features", features, at_least=1)
        self.eps = eps
        dtype = check.float_dtype(self, dtype)
        self.weight = Parameter(np.ones(self.features, dtype))
        self.bias = Parameter(np.zeros(self.features, dtype))

    @abstractmethod
    def statistics(self, x: FloatArray) -> Statistics:
        """Return x - mean, var, and the axes of x that both are taken over.

        The axes are None where mean and var are constants.
        """

    def forward(self, x: ArrayLike) -> FloatArray:
        self._n = None
        W, b = self.weight.data, self.bias.data
        x = check.floats(self, "x", x)
        if x.shape[-1:] != W.shape:
            raise check.value_error(self, f"x of shape (..., {self.features})", x.shape)
        centred, var, axes = self.statistics(x.astype(W.dtype, copy=False))
        std = np.sqrt(var + self.eps)
        n: FloatArray = centred / std
        y: FloatArray = n * W + b
        self._n, self._std, self._axes = n, std, axes
        return y

    def backward(self, dy: ArrayLike) -> FloatArray:
        n, std, axes = check.kept(self, self._n), self._std, self._axes
        dy = check.cotangent(self, dy, n)
        self.weight.accumulate(sum_of_samples(dy * n))
        self.bias.accumulate(sum_of_samples(dy))
        dx: FloatArray = dy * self.weight.data
        if axes is not None:
            dx = dx - mean_over(dx, axes) - n * mean_over(dx * n, axes)
        dx /= std
        return dx


class LayerNorm(Norm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and var of each sample.

    They are taken over the last axis of x (..., I), var divided by I; weight and bias are (I,).
    Backward is that of `nn.norm.Norm`. (Ba et al. 2016, arXiv:1607.06450.)

    Args:
        features: I, at least 1.
        eps: Above 0, so that a constant sample divides by no 0.
        dtype: Of weight and bias, and so of everything computed: float32 or float64.
    """

    def statistics(self, x: FloatArray) -> Statistics:
        _, centred, var = moments(x, (-1,))
        return centred, var, (-1,)


class BatchNorm(Norm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and var of each feature.

    While training, they are those of the batch, over all axes of x (..., I) but the last, with N
    values of each feature, and var is divided by N. The running ones follow:
    running_mean = (1 - momentum) * running_mean + momentum * mean, and running_var likewise, by
    var * N / (N - 1). In evaluation mode, mean and var are the running ones, which are constants.
    weight, bias and the running ones are (I,). Backward is that of `nn.norm.Norm`. (Ioffe and
    Szegedy 2015, arXiv:1502.03167; PyTorch's formulas.)

    So in training, samples depend on one another, and N = 1 is refused. An empty batch leaves the
    running ones as they are.

    Args:
        features: I, at least 1.
        eps: Above 0, so that a constant feature divides by no 0.
        momentum: How far the running ones follow a batch, in [0, 1].
        dtype: Of weight and bias, and so of everything computed: float32 or float64.
    """

    momentum = check.Real("[0, 1]")
    running_mean: check.Setting[Buffer] = Held(Buffer, shape=("features",))
    running_var: check.Setting[Buffer] = Held(Buffer, shape=("features",))

    def __init__(
        self,
        features: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(features, eps=eps, dtype=dtype)
        self.momentum = momentum
        self.running_mean = Buffer(self.bias.data)
        self.running_var = Buffer(self.weight.data)

    def statistics(self, x: FloatArray) -> Statistics:
        N = math.prod(x.shape[:-1])
        if not (self.training and N):
            return x - self.running_mean.data, self.running_var.data, None
        if N == 1:
            contract = "x with more than one value of a feature, in training"
            raise check.value_error(self, contract, x.shape)
        axes = tuple(range(x.ndim - 1))
        mean, centred, var = moments(x, axes)
        self._follow(self.running_mean, mean)
        self._follow(self.running_var, var * (N / (N - 1)))
        return centred, var, axes

    def _follow(self, running: Buffer, batch: FloatArray) -> None:
        running.data = (1 - self.momentum) * running.data + self.momentum * batch.reshape(-1)


def moments(x: FloatArray, axes: tuple[int, ...]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the mean of x over these axes, x - mean, and the variance.

    The mean of many large numbers is rounded: what it leaves in x - mean is subtracted, too.
    """
    mean = mean_over(x, axes)
    centred = x - mean
    rest = mean_over(centred, axes)
    centred -= rest
    return mean + rest, centred, mean_over(centred * centred, axes)


def mean_over(x: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    """Return the mean of x over these axes, which stay, with one entry each."""
    for axis in axes:  # of images, 10 times as fast as all at once: NumPy adds whole rows
        x = x.mean(axis=axis, keepdims=True)
    return x


def sum_of_samples(dy: FloatArray) -> FloatArray:
    """Return the sum of dy over all axes but the last."""
    while dy.ndim > 1:  # one axis at a time, as above
        dy = dy.sum(axis=0)
    return dy
