"""The arrays of a model in the order in which PyTorch has them.

A Linear's weight is transposed there, and images have their channels first: a Conv2d's weight is
(O, I, kh, kw), and a Flatten gives pixels in the order (C, H, W), which the layer after it must
know. Rows are found by exact class: of no other layer is it known what it is in PyTorch.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._tables import output_of
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

Array = NDArray[Any]
Order = Callable[[Array], Array]  # from an array here to the one in PyTorch


class Samples(NamedTuple):
    """What the input of a layer is in PyTorch.

    "plain": the same as here, or images whose channels the caller has moved. "images": their
    channels are first. "flat": images after a Flatten. The number of channels is None until a layer
    says it, and 0 if branches disagree.
    """

    kind: Literal["plain", "images", "flat"] = "plain"
    channels: int | None = None


Row = Callable[[Any, Samples], tuple[Samples, dict[str, Order]]]


def torch_orders(owner: str, model: Module) -> dict[str, Order]:
    """Return how to order the entries of each Parameter and Buffer, by its name.

    A layer that PyTorch does not have is refused, and so is a model that does not say which entries
    of a flat image belong to one channel.
    """
    orders, channels = _orders(owner, model, Samples())
    if channels != 1:  # what was taken for plain is images
        orders, _ = _orders(owner, model, Samples("images", channels))
    if orders.keys() != model.state_dict().keys():
        raise TypeError(check.expected(owner, "no shared Parameter", "one"))
    return orders


def _orders(owner: str, model: Module, given: Samples) -> tuple[dict[str, Order], int]:
    """Return the orders, and how many channels what is given has, if it turns out to be images.

    That is 0 if nobody tells, and 1 if they are none, as the order is the same then.
    """
    found: dict[str, Order] = {}
    same = [given]  # what has as many channels as what is given, by identity
    told: list[int] = []

    def applied(row: Row, path: str, layer: Module, x: Samples) -> Samples:
        with _refusing(owner, path):
            y, orders = row(layer, x)
        if any(x is known for known in same):
            if isinstance(layer, BatchNorm):
                same.append(y)
            elif y.kind == "images" and x.kind == "plain":
                told.append(layer.in_channels if isinstance(layer, Conv2d) else y.channels or 0)
        within = f"{path}." if path else ""
        found.update({f"{within}{name}": orders.get(name, _same) for name in layer.state_dict()})
        return y

    def joined(how: str, path: str, ys: list[Samples]) -> Samples:
        with _refusing(owner, path):
            joint = _joined(how, ys)
        if how == "add" and any(y is known for y in ys for known in same):
            same.append(joint)
        return joint

    output_of(owner, model, ROWS, given, applied, joined)
    return found, max(told, default=1)


def undone(order: Order, name: str, theirs: Array, shape: tuple[int, ...]) -> Array:
    """Return the array of this shape of which an order makes theirs."""
    places = order(np.arange(math.prod(shape)).reshape(shape))
    if theirs.shape != places.shape:
        raise ValueError(f"{name} of shape {theirs.shape} instead of {places.shape}")
    ours = np.empty(places.size, theirs.dtype)
    ours[places] = theirs
    return ours.reshape(shape)


def _same(array: Array) -> Array:
    return array


def _refusing(owner: str, path: str) -> AbstractContextManager[None]:
    return check.refusing(owner, f"layers that PyTorch has alike, at {path or 'the top'}")


def _like(x: Samples, features: int) -> Order:
    """Return how to order the first axis of an array as the features of x are ordered."""
    C = x.channels if x.kind == "flat" and x.channels else 1
    if features % C:
        raise ValueError(f"{features} features of flat images with {C} channels")
    return lambda a: a.reshape(-1, C, *a.shape[1:]).swapaxes(0, 1).reshape(a.shape)


def _linear(linear: Linear, x: Samples) -> tuple[Samples, dict[str, Order]]:
    if x.kind == "images":
        raise ValueError("a Linear on images, whose channels are not last there")
    order = _like(x, linear.in_features)
    return Samples(), {"weight": lambda W: order(W).T}


def _conv2d(conv: Conv2d, x: Samples) -> tuple[Samples, dict[str, Order]]:
    _pool(conv, x)
    y = Samples("images", conv.out_channels)
    return y, {"weight": lambda W: W.transpose(3, 2, 0, 1)}


def _pool(layer: Module, x: Samples) -> tuple[Samples, dict[str, Order]]:
    if x.kind == "flat":
        raise ValueError(f"a {type(layer).__name__} of flat images")
    return Samples("images", x.channels or 0), {}


def _flatten(flatten: Flatten, x: Samples) -> tuple[Samples, dict[str, Order]]:
    if x.channels is None:
        return x, {}
    if x.channels == 0:
        raise ValueError("a Flatten of images after no layer that tells their channels")
    if x.kind == "images" and flatten.axes != 3:
        raise ValueError(f"a Flatten of {flatten.axes} axes of images")
    return Samples("flat", x.channels), {}


def _unflatten(unflatten: Unflatten, x: Samples) -> tuple[Samples, dict[str, Order]]:
    *rest, channels = unflatten.shape
    if x.kind != "plain" or (math.prod(rest) > 1 and channels > 1):
        raise ValueError(f"an Unflatten, whose {channels} channels would be first there")
    return Samples(), {}


def _batch_norm(norm: BatchNorm, x: Samples) -> tuple[Samples, dict[str, Order]]:
    y = x if x.kind == "flat" else x._replace(channels=norm.features)
    return y, dict.fromkeys(norm.state_dict(), _like(x, norm.features))


def _layer_norm(norm: LayerNorm, x: Samples) -> tuple[Samples, dict[str, Order]]:
    if x.kind == "images":
        raise ValueError("a LayerNorm on images, whose channels are not last there")
    return x, dict.fromkeys(norm.state_dict(), _like(x, norm.features))


def _as_before(_: Module, x: Samples) -> tuple[Samples, dict[str, Order]]:
    return x, {}


def _joined(how: str, ys: list[Samples]) -> Samples:
    if any(y.kind == "flat" for y in ys) and (how == "concat" or len(set(ys)) > 1):
        raise ValueError("branches with flat images, whose channels are first there")
    told = [y.channels for y in ys if y.channels is not None]
    if how == "add":  # all are of one shape
        channels = max(told, default=None)
    elif told:
        channels = sum(told) if all(y.channels for y in ys) else 0
    else:
        channels = None
    return Samples(max(ys, key=lambda y: y.kind == "images").kind, channels)


ROWS: dict[type[Module], Row] = {
    Linear: _linear,
    Conv2d: _conv2d,
    MaxPool2d: _pool,
    AvgPool2d: _pool,
    Flatten: _flatten,
    Unflatten: _unflatten,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
}
ROWS |= dict.fromkeys((Dropout, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh), _as_before)
