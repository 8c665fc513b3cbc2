"""A chain in numbers, for the kernel: one row a layer in `ROWS`.

A row is a function from a layer to the Rule that computes it in the kernel. A custom layer that
computes what one of these rules does may have a row too::

    ROWS[MyReLU] = ROWS[ReLU]
    ROWS[MyLinear] = lambda layer: Rule(LINEAR, weight=layer.W, bias=layer.b)

A row counts for exactly this class, and nobody can check it for you: compare a compiled pass with
an eager one.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist.compiled.kernel import (
    BLOCKS,
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
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Unflatten
from tinygrad_mnist.parameter import Parameter


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


class Dropped(NamedTuple):
    """A Dropout of a chain: where its masks are, and what draws them."""

    begin: int  # in the row of all masks of a sample
    width: int
    p: float
    rng: Any


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


@cache
def block_of(columns: int, dtype: np.dtype[Any]) -> int:
    """Return how many columns of W the kernel takes at a time.

    448 bytes fill 14 of the 16 registers that AVX2 has, and leave two for what is added to them. To
    go through the rows once more takes about as long as 8 more columns.
    """
    fitting = [n for n in reversed(BLOCKS) if n * dtype.itemsize <= 448]
    return min(fitting, key=lambda n: -(-columns // n) * (n + 8))


def room_of(columns: int, dtype: np.dtype[Any]) -> int:
    """Return the number of columns, rounded up to whole blocks."""
    return columns + -columns % block_of(columns, dtype)


def places(params: Sequence[Parameter]) -> Iterator[tuple[slice, int]]:
    """Yield each parameter's part of the kernel's flat array, and the room of its rows there."""
    begin = 0
    for p in params:
        *rows, columns = p.data.shape
        room = room_of(columns, p.data.dtype)
        end = begin + math.prod(rows) * room
        yield slice(begin, end), room
        begin = end


def first_shape(rules: Iterable[Rule]) -> tuple[int, ...] | None:
    """Return the shape of a sample if the layers tell: if a Linear is first, and not on images."""
    rules = [rule for rule in rules if rule.kind not in (RELU, DROPOUT)]
    if rules[0].kind != LINEAR or any(rule.kind in (CONV2D, MAXPOOL2D) for rule in rules):
        return None
    return rules[0].weight.data.shape[:1]  # type: ignore[no-any-return]


def planned(
    owner: str,
    rules: dict[str, Rule],
    params: Sequence[Parameter],
    shape: tuple[int, ...],
    before: Sequence[Dropped] = (),
) -> tuple[Plan, list[Dropped]]:
    """Return the chain in numbers for samples of a shape, and its Dropouts; refuse what is unfit.

    The rules go by the paths of their layers; the kernel will find params in this order. Before the
    chain there are other Dropouts.
    """
    offsets = {id(p): part.start for p, (part, _) in zip(params, places(params), strict=True)}
    dtype = params[0].data.dtype
    widths, rows, dropouts, gated = [math.prod(shape)], [], list(before), False
    for path, rule in rules.items():
        width, mask = widths[-1], NOWHERE
        if rule.kind in (FLATTEN, UNFLATTEN):
            shape = reshaped(owner, path, rule, shape)
            continue  # the numbers stay where they are
        if rule.kind == LINEAR:
            features, width = rule.weight.data.shape
            if shape != (features,):
                contract = f"layer {path} to take {_in_words(shape)}"
                raise ValueError(check.expected(owner, contract, features))
            if rule.bias is not None:  # one of another shape would be broadcast by forward
                check.same_shape(owner, f"bias of layer {path}", rule.bias.data, (width,))
            shape = (width,)
        elif rule.kind == DROPOUT:
            mask = sum(dropout.width for dropout in dropouts)
            dropouts.append(Dropped(mask, width, rule.p, rule.rng))
        elif rule.kind != RELU:
            raise check.value_error(owner, f"a rule of the kernel's for layer {path}", rule.kind)
        widths.append(width)
        weight, bias = (offsets.get(id(p), NOWHERE) for p in (rule.weight, rule.bias))
        rows.append((rule.kind, weight, bias, gated, mask, 1 / (1 - rule.p)))
        gated = rule.kind == RELU or (gated and rule.kind == DROPOUT)
    rooms = [room_of(width, dtype) for width in widths]
    blocks = [block_of(width, dtype) for width in widths[1:]]
    *columns, scales = zip(*rows, strict=True)
    numbers = (np.array(n, np.int64) for n in (widths, rooms, blocks, *columns))
    return Plan._make([*numbers, np.array(scales, dtype)]), dropouts


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


def drawn_masks(
    dropouts: Sequence[Dropped], samples: int, batch_size: int = 1
) -> NDArray[np.bool_]:
    """Return what each Dropout would draw for each sample, side by side: (samples, all widths).

    Batches have batch_size samples, the last one perhaps fewer.
    """
    masks = np.ones((samples, sum(dropout.width for dropout in dropouts)), np.bool_)
    whole = samples - samples % batch_size
    for part, size in (masks[:whole], batch_size), (masks[whole:], samples - whole):
        if len(part):
            _draw(dropouts, part, size)
    return masks


def _draw(dropouts: Sequence[Dropped], masks: NDArray[np.bool_], batch_size: int) -> None:
    """Fill in the masks of whole batches.

    Layers with one generator take turns at every batch, so it draws for all of them at once.
    """
    drawing: dict[int, list[Dropped]] = {}
    for dropout in dropouts:
        if dropout.p:
            drawing.setdefault(id(dropout.rng.bit_generator), []).append(dropout)
    for layers in drawing.values():
        sizes = [batch_size * layer.width for layer in layers]
        draws = layers[0].rng.random((len(masks) // batch_size, sum(sizes)), dtype=np.float32)
        parts = np.split(draws, np.cumsum(sizes)[:-1], axis=1)
        for layer, part in zip(layers, parts, strict=True):
            kept = part.reshape(len(masks), layer.width) >= layer.p
            masks[:, layer.begin : layer.begin + layer.width] = kept
