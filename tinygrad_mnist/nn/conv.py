"""Conv2d: one Linear for every patch of an image."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.init import Initializer, he_uniform
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn._windows import Padding, Pair, Windows, windows_over
from tinygrad_mnist.parameter import Held, Parameter


def _stride(owner: object, name: str, value: Any) -> Pair:
    stride = check.sizes(owner, name, value, at_least=1)
    if stride != (1, 1) and vars(owner).get("padding") == "same":
        raise check.value_error(owner, 'stride 1 with padding "same"', value)
    return stride


def _padding(owner: Any, name: str, value: Any) -> Padding:
    if not isinstance(value, str):
        return check.sizes(owner, name, value, at_least=0)
    if value != "same":
        raise check.value_error(owner, f'{name} "same", or a number of rows and columns', value)
    if owner.stride != (1, 1):
        raise check.value_error(owner, 'stride 1 with padding "same"', owner.stride)
    return "same"


class Conv2d(Module):
    """y = patches @ W + b, where a patch is what a window of kh x kw pixels sees of an image.

    For images x (..., H, W, I), the weight (kh, kw, I, O), b (O,) and y (..., h, w, O):

        y[..., r, c, :] = b + sum(x[..., r*sh + i, c*sw + j, :] @ weight[i, j] for all i, j)

    (the kernel is not flipped), where x has got `padding` rows and columns of zeros on each side,
    and h = (H + 2 * padding - kh) // sh + 1, w likewise.

    Backward: dW = patches.T @ dy and db = dy.sum(axis=0), over all windows of all images; dx adds
    up dy @ W.T where the patches were. (In the code a patch is a column, as the batch is last in
    memory: y is W.T @ patches + b.)

    Args:
        in_channels: I, at least 1.
        out_channels: O, at least 1.
        kernel_size: (kh, kw), or one number for both.
        stride: (sh, sw), from one window to the next, or one number for both.
        padding: For rows and columns, or one number for both; or "same", at stride 1: h is H and w
            is W, with the extra row or column of an even kernel at the end.
        bias: Whether there is a b; it starts at zeros.
        init: Draws the initial weight, given (kh * kw * I, O) and a generator; see
            `tinygrad_mnist.init`.
        rng: Source of the initial weight: a seed, a generator, or None for fresh entropy.
        dtype: Of weight and b, and so of everything computed: float32 or float64.
        input_grad: False says that x is data: backward then saves the work of dx and returns None.
    """

    sample_axes = 3
    weight: check.Setting[Parameter] = Held()
    bias: check.Setting[Parameter | None] = Held(or_none=True)
    kernel_size = check.Sizes(at_least=1)
    stride = check.Setting(_stride)
    padding = check.Setting(_padding)
    _windows: Windows | None = None  # of the last forward
    _patches: Any = None  # of its x, as patches_of returns them

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: int | Pair | Literal["same"] = 0,
        bias: bool = True,
        init: Initializer = he_uniform,
        rng: int | np.random.Generator | None = None,
        dtype: DTypeLike = np.float32,
        input_grad: bool = True,
    ) -> None:
        self.in_channels = check.integer(self, "in_channels", in_channels, at_least=1)
        self.out_channels = check.integer(self, "out_channels", out_channels, at_least=1)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        bias = check.flag(self, "bias", bias)
        self.input_grad = check.flag(self, "input_grad", input_grad)
        dtype, shape = check.float_dtype(self, dtype), self._weight_shape(self.kernel_size)
        drawn = check.drawn(self, init, (math.prod(shape[:-1]), shape[-1]), rng, dtype)
        self.weight = Parameter(drawn.reshape(shape))
        self.bias = Parameter(np.zeros(shape[-1], dtype)) if bias else None

    def forward(self, x: ArrayLike) -> FloatArray:
        self._windows = self._patches = None
        W, b = self._checked_data(self.kernel_size)
        x = check.real_array(self, "x", x)
        if x.ndim < 3 or x.shape[-1] != self.in_channels:
            raise check.value_error(self, f"x of shape (..., H, W, {self.in_channels})", x.shape)
        name = type(self).__name__
        windows = windows_over(name, x.shape, self.kernel_size, self.stride, self.padding)
        patches = patches_of(windows, windows.images(x, W.dtype))
        y = _blas.products(W.T, patches)
        if b is not None:
            y += b[:, None]
        self._windows, self._patches = windows, patches
        return windows.output(y)

    def backward(self, dy: ArrayLike) -> FloatArray | None:
        windows = check.kept(self, self._windows)
        W, _ = self._checked_data(windows.kernel)
        dy = windows.cotangent(self, dy, W.shape[1], W.dtype)
        dy = dy.reshape(len(dy), W.shape[1], windows.w * windows.N)
        dW = _blas.products(self._patches, dy.transpose(0, 2, 1)).sum(axis=0)
        self.weight.accumulate(dW.reshape(self.weight.data.shape))
        if self.bias is not None:
            self.bias.accumulate(dy.sum(axis=(0, 2)))
        return windows.dx(dimages_of(windows, W, dy)) if self.input_grad else None

    def _weight_shape(self, kernel: Pair) -> tuple[int, int, int, int]:
        return *kernel, self.in_channels, self.out_channels

    def _checked_data(self, kernel: Pair) -> tuple[FloatArray, FloatArray | None]:
        """Return W (kh * kw * I, O) and b; refuse Parameters of other shapes than they replaced."""
        W, b = self.weight.data, self.bias.data if self.bias is not None else None
        check.same_shape(self, "weight", W, self._weight_shape(kernel))
        if b is not None:
            check.same_shape(self, "bias", b, (self.out_channels,))
        return W.reshape(-1, self.out_channels), b

    def _hyperparameters(self) -> dict[str, object]:
        return {**super()._hyperparameters(), "bias": self.bias is not None}


def patches_of(windows: Windows, images: FloatArray) -> FloatArray:
    """Return the patches (h, kh * kw * I, w * N) of images (H, I, W, N), each one a column.

    Each row of an image is copied once for each column of the kernel. Then patches[r] are the kh
    rows from r * sh on, as they lie in memory: nothing is copied for the rows of the kernel.
    """
    copy = np.concatenate([images[:, :, columns] for columns in windows.columns], axis=1)
    _, n, w, N = copy.shape  # n is kw * I
    row, line, _, item = copy.strides
    shape = windows.h, windows.kernel[0] * n, w * N
    # unlike as_strided, it checks that nothing lies outside; patches share rows: only read them
    return np.ndarray(shape, copy.dtype, copy, strides=(windows.stride[0] * row, line, item))


def dimages_of(windows: Windows, W: FloatArray, dy: FloatArray) -> FloatArray:
    """Return the gradient of images: dpatches = W @ dy, added up where the patches were."""
    dimages = windows.zeros(W.dtype)
    (kh, kw), (H, I, _, N) = windows.kernel, dimages.shape  # noqa: E741
    dcolumns = np.zeros((H, kw * I, dy.shape[2]), W.dtype)
    for rows, W_i in zip(windows.rows, W.reshape(kh, kw * I, -1), strict=True):
        dcolumns[rows] += _blas.products(W_i, dy)
    parts = dcolumns.reshape(H, kw, I, windows.w, N).swapaxes(0, 1)
    for columns, part in zip(windows.columns, parts, strict=True):
        dimages[:, :, columns] += part
    return dimages
