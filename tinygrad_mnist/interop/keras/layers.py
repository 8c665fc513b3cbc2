"""The table of layers: a row a layer, both directions in the row."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

from tinygrad_mnist.interop.keras._backend import keras
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Unflatten,
)
from tinygrad_mnist.parameter import Buffer

layers = keras.layers


class Pair(NamedTuple):
    """A layer here and one in Keras that compute the same, and how to make each from the other.

    The two functions make the layers; their numbers are then copied: the Parameters of ours and,
    after them, its Buffers are the `weights` of theirs, in order. Rows are found by exact class.
    """

    ours: type[Module] | None  # None, as to_keras: theirs is only part of a layer here
    theirs: Any
    # called with ours and the keywords name and dtype; of several layers, the last has the weights
    to_keras: Callable[..., Any] | None
    from_keras: Callable[[Any], Iterable[Module]]  # a ValueError says what would be lost
    plain: Mapping[str, Any] = {}  # arguments of the plain layer that theirs is compared with
    carried: Collection[str] = ()  # settings that may differ from it, as from_keras translates them
    only: str = ""  # which of theirs are meant, as in "before a Conv2D"


class Zeros(NamedTuple):
    """What a ZeroPadding2D is here, until the Conv2d after it takes it."""

    padding: tuple[int, int]


# Keras's functions, as activations of a Dense, a Conv2D or an Activation
ACTIVATIONS: dict[Any, Callable[[], Module] | None] = {
    keras.activations.linear: None,
    keras.activations.relu: ReLU,
    keras.activations.leaky_relu: partial(LeakyReLU, 0.2),
    keras.activations.tanh: Tanh,
    keras.activations.sigmoid: Sigmoid,
    keras.activations.gelu: GELU,
    keras.activations.silu: SiLU,
    keras.activations.softmax: Softmax,
}
LAST = {"data_format": "channels_last"}  # whatever Keras's configuration says


def _activation(theirs: Any) -> list[Module]:
    if theirs.activation not in ACTIVATIONS:
        name = getattr(theirs.activation, "__name__", type(theirs.activation).__name__)
        raise ValueError(f"activation={name}")
    make = ACTIVATIONS[theirs.activation]
    return [make()] if make else []


def _to_dense(linear: Linear, **options: Any) -> Any:
    return layers.Dense(linear.out_features, use_bias=linear.bias is not None, **options)


def _from_dense(dense: Any) -> list[Module]:
    features, units = dense.kernel.shape
    return [Linear(features, units, dense.use_bias), *_activation(dense)]


def _to_conv(conv: Conv2d, *, name: str | None, dtype: str) -> list[Any]:
    zeros, padding = [], "valid"
    if conv.padding == "same":
        padding = "same"
    elif conv.padding != (0, 0):
        above = f"{name}.padding" if name else None
        zeros = [layers.ZeroPadding2D(conv.padding, name=above, dtype=dtype, **LAST)]
    theirs = layers.Conv2D(
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        padding,
        use_bias=conv.bias is not None,
        name=name,
        dtype=dtype,
        **LAST,
    )
    return [*zeros, theirs]


def _from_conv(theirs: Any) -> list[Module]:
    *kernel, I, O = theirs.kernel.shape  # noqa: E741
    padding: Any = 0 if theirs.padding == "valid" else theirs.padding
    if padding == "same" and theirs.strides != (1, 1):  # which looks at the size of the image
        raise ValueError(f"padding='same' with strides {theirs.strides}")
    conv = Conv2d(I, O, kernel, stride=theirs.strides, padding=padding, bias=theirs.use_bias)
    return [conv, *_activation(theirs)]


def _from_padding(theirs: Any) -> list[Any]:
    (top, bottom), (left, right) = theirs.padding
    if (top, left) != (bottom, right):
        raise ValueError(f"padding={theirs.padding}")
    return [Zeros((top, left))]


def _to_flatten(flatten: Flatten, **options: Any) -> Any:
    theirs = layers.Flatten(**LAST, **options)
    theirs.input_spec = keras.InputSpec(ndim=1 + flatten.axes)  # or it would flatten others, too
    return theirs


def _to_reshape(unflatten: Unflatten, **options: Any) -> Any:
    theirs = layers.Reshape(unflatten.shape, **options)
    theirs.input_spec = keras.InputSpec(ndim=2)
    return theirs


def _from_reshape(theirs: Any) -> list[Module]:
    axes, shape = len(theirs.input.shape) - 1, theirs.output.shape[1:]
    if axes == 1:
        return [Unflatten(shape)]
    return [Flatten(axes), *([Unflatten(shape)] if len(shape) > 1 else [])]


def _rest(momentum: float) -> float:
    """Return 1 - momentum in decimals, where that of .1 is .9, and that of .9 is .1 again."""
    return float(1 - Decimal(repr(momentum)))


def _from_batch_norm(theirs: Any) -> list[Module]:
    features, momentum = theirs.input.shape[-1], _rest(theirs.momentum)
    return [BatchNorm(features, eps=theirs.epsilon, momentum=momentum)]


def _to_activation(name: str) -> Callable[..., Any]:
    return lambda _, **options: layers.Activation(name, **options)


# a row for each layer: the later one counts where two are of one class
PAIRS = [
    Pair(
        Linear,
        layers.Dense,
        _to_dense,
        _from_dense,
        plain={"units": 1},
        carried={"units", "activation", "use_bias"},
    ),
    Pair(
        Conv2d,
        layers.Conv2D,
        _to_conv,
        _from_conv,
        plain={"filters": 1, "kernel_size": 1},
        carried={"filters", "kernel_size", "strides", "padding", "activation", "use_bias"},
    ),
    Pair(
        None, layers.ZeroPadding2D, None, _from_padding, carried={"padding"}, only="before a Conv2D"
    ),
    Pair(
        MaxPool2d,
        layers.MaxPooling2D,
        lambda pool, **kw: layers.MaxPooling2D(pool.kernel_size, pool.stride, **LAST, **kw),
        lambda theirs: [MaxPool2d(theirs.pool_size, stride=theirs.strides)],
        carried={"pool_size", "strides"},
    ),
    Pair(
        AvgPool2d,
        layers.AveragePooling2D,
        lambda pool, **kw: layers.AveragePooling2D(pool.kernel_size, pool.stride, **LAST, **kw),
        lambda theirs: [AvgPool2d(theirs.pool_size, stride=theirs.strides)],
        plain={"pool_size": 2},
        carried={"pool_size", "strides"},
    ),
    Pair(
        Flatten,
        layers.Flatten,
        _to_flatten,
        lambda theirs: [Flatten(len(theirs.input.shape) - 1)],
    ),
    Pair(
        Unflatten,
        layers.Reshape,
        _to_reshape,
        _from_reshape,
        plain={"target_shape": (1,)},
        carried={"target_shape"},
    ),
    Pair(ReLU, layers.ReLU, lambda _, **kw: layers.ReLU(**kw), lambda _: [ReLU()]),
    Pair(
        LeakyReLU,
        layers.LeakyReLU,
        lambda leaky, **kw: layers.LeakyReLU(leaky.slope, **kw),
        lambda theirs: [LeakyReLU(theirs.negative_slope)],
        carried={"negative_slope"},
    ),
    *(
        Pair(
            ours,
            layers.Activation,
            _to_activation(name),
            _activation,
            plain={"activation": name},
            carried={"activation"},
        )
        for ours, name in ((Tanh, "tanh"), (Sigmoid, "sigmoid"), (GELU, "gelu"), (SiLU, "silu"))
    ),
    Pair(Softmax, layers.Softmax, lambda _, **kw: layers.Softmax(**kw), lambda _: [Softmax()]),
    Pair(
        Dropout,
        layers.Dropout,
        lambda dropout, **kw: layers.Dropout(dropout.p, **kw),
        lambda theirs: [Dropout(theirs.rate)],
        plain={"rate": 0},
        carried={"rate"},
    ),
    Pair(
        BatchNorm,
        layers.BatchNormalization,
        lambda norm, **kw: layers.BatchNormalization(-1, _rest(norm.momentum), norm.eps, **kw),
        _from_batch_norm,
        carried={"momentum", "epsilon"},
    ),
    Pair(
        LayerNorm,
        layers.LayerNormalization,
        lambda norm, **kw: layers.LayerNormalization(-1, norm.eps, **kw),
        lambda theirs: [LayerNorm(theirs.input.shape[-1], eps=theirs.epsilon)],
        plain={"axis": [-1]},  # which Keras makes of -1 when the layer is built
        carried={"epsilon"},
    ),
]


# what joins the branches of a Residual or a Parallel
JOINS = {"add": layers.Add, "concat": layers.Concatenate}


def arrays_of(module: Module) -> list[Buffer]:
    """Return what Keras calls the weights of a layer: first those that are trained."""
    return [*module.parameters(), *(buffer for _, buffer in module.named_buffers())]


def features_of(layer: Module) -> int | None:
    """Return how many features x must have, if the layer says so."""
    if isinstance(layer, Linear):
        return layer.in_features
    if isinstance(layer, (BatchNorm, LayerNorm)):
        return layer.features
    return math.prod(layer.shape) if isinstance(layer, Unflatten) else None
