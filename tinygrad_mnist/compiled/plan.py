"""A chain in numbers, for the kernel: one row a layer in `ROWS`.

A row is a function from a layer to the Rule that computes it in the kernel. A custom layer that
computes what one of these rules does may have a row too::

    ROWS[MyReLU] = ROWS[ReLU]
    ROWS[MyLinear] = lambda layer: Rule(LINEAR, weight=layer.W, bias=layer.b)

A row counts for exactly this class, and nobody can check it for you: compare a compiled pass with
an eager one.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist.compiled.kernel import (
    CONV2D,
    DROPOUT,
    FLATTEN,
    LINEAR,
    MAXPOOL2D,
    NOWHERE,
    RELU,
    UNFLATTEN,
    Plan,
)
from tinygrad_mnist.compiled.layout import Layout, block_of, room_of
from tinygrad_mnist.compiled.masks import Masks
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Unflatten
from tinygrad_mnist.parameter import Parameter

OF_IMAGES = CONV2D, MAXPOOL2D


class Rule(NamedTuple):
    """What the kernel is told about a layer as it is now."""

    kind: int  # LINEAR: y = x @ W + b; RELU: y = max(x, 0); DROPOUT: y = x * scale; FLATTEN, ...
    weight: Any = None  # a Parameter, W (I, O), of a CONV2D (kh, kw, I, O)
    bias: Parameter | None = None  # b (O,)
    p: float = 0.0  # probability of zeroing, 0 in evaluation mode
    rng: Any = None  # draws the masks: a value is kept where rng.random(dtype=float32) >= p
    axes: int = 0  # how many last axes a FLATTEN makes one
    shape: tuple[int, ...] = ()  # what an UNFLATTEN makes of the last axis
    window: tuple[int, int] = (1, 1)  # rows and columns that a CONV2D or a MAXPOOL2D sees
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | Literal["same"] = (0, 0)  # of a CONV2D


ROWS: dict[type[Module], Callable[[Any], Rule]] = {
    Linear: lambda layer: Rule(LINEAR, layer.weight, layer.bias),
    ReLU: lambda _: Rule(RELU),
    Dropout: lambda layer: Rule(DROPOUT, p=layer.p if layer.training else 0.0, rng=layer.rng),
    Flatten: lambda layer: Rule(FLATTEN, axes=layer.axes),
    Unflatten: lambda layer: Rule(UNFLATTEN, shape=layer.shape),
    Conv2d: lambda layer: Rule(
        CONV2D,
        layer.weight,
        layer.bias,
        window=layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
    ),
    MaxPool2d: lambda layer: Rule(MAXPOOL2D, window=layer.kernel_size, stride=layer.stride),
}


def first_shape(rules: Iterable[Rule]) -> tuple[int, ...] | None:
    """Return the shape of a sample if the layers tell: a Linear is first, and none takes images."""
    rules = [rule for rule in rules if rule.kind not in (RELU, DROPOUT)]
    if rules[0].kind != LINEAR or any(rule.kind in (FLATTEN, *OF_IMAGES) for rule in rules):
        return None
    return rules[0].weight.data.shape[:1]  # type: ignore[no-any-return]


def planned(
    owner: str, rules: dict[str, Rule], layout: Layout, shape: tuple[int, ...], masks: Masks
) -> Plan:
    """Return the chain in numbers for samples of a shape, and add its masks; refuse what is unfit.

    The rules go by the paths of their layers.
    """
    widths, gates, gate = [math.prod(shape)], [], False
    kept, offsets = [], []  # the rules of layers that are computed, and where their masks begin
    for path, rule in rules.items():
        width, offset = widths[-1], NOWHERE
        if rule.kind in (FLATTEN, UNFLATTEN):
            shape = reshaped(owner, path, rule, shape)
            continue  # the numbers stay where they are
        if rule.kind == LINEAR:
            features, width = rule.weight.data.shape
            if len(shape) > 1:
                contract = f"rows for layer {path}"
                found = f"{_in_words(shape)}; use the eager loop"
                raise ValueError(check.expected(owner, contract, found))
            if shape != (features,):
                contract = f"layer {path} to take {_in_words(shape)}"
                raise ValueError(check.expected(owner, contract, features))
            check_bias(owner, path, rule, width)
            shape = (width,)
        elif rule.kind == DROPOUT:
            offset = masks.add(width, rule.p, rule.rng)
        elif rule.kind != RELU:
            raise check.value_error(owner, f"a rule of the kernel's for layer {path}", rule.kind)
        widths.append(width)
        kept.append(rule)
        offsets.append(offset)
        gates.append(gate)
        gate = rule.kind == RELU or (gate and rule.kind == DROPOUT)
    return Plan(
        widths=_integers(widths),
        rooms=_integers(room_of(width, layout.dtype) for width in widths),
        blocks=_integers(block_of(width, layout.dtype) for width in widths[1:]),
        kinds=_integers(rule.kind for rule in kept),
        weights=_integers(layout.begin(rule.weight) for rule in kept),
        biases=_integers(layout.begin(rule.bias) for rule in kept),
        gated=_integers(gates),
        masks=_integers(offsets),
        scales=np.array([1 / (1 - rule.p) for rule in kept], layout.dtype),
    )


def _integers(numbers: Iterable[int]) -> NDArray[np.int64]:
    return np.array([*numbers], np.int64)


def check_bias(owner: str, path: str, rule: Rule, width: int) -> None:
    """Refuse a bias of another shape, which forward would broadcast."""
    if rule.bias is not None:
        check.same_shape(owner, f"bias of layer {path}", rule.bias.data, (width,))


def reshaped(owner: str, path: str, rule: Rule, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return what a FLATTEN or an UNFLATTEN makes of a sample's shape."""
    if rule.kind == FLATTEN:
        if rule.axes > len(shape):
            contract = f"samples of {rule.axes} axes or more for layer {path}"
            raise check.value_error(owner, contract, shape)
        return *shape[: -rule.axes], math.prod(shape[-rule.axes :])
    if shape[-1:] != (math.prod(rule.shape),):
        contract = f"layer {path} to take {_in_words(shape)}"
        raise check.value_error(owner, contract, math.prod(rule.shape))
    return *shape[:-1], *rule.shape


def _in_words(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} features" if len(shape) == 1 else f"samples of shape {shape}"
