"""A chain in numbers, for the kernel: one row a layer in `ROWS`.

A row is a function from a layer to the Rule that computes it in the kernel. A custom layer that
computes what one of these rules does may have a row too::

    ROWS[MyReLU] = ROWS[ReLU]
    ROWS[MyLinear] = lambda layer: Rule(LINEAR, weight=layer.W, bias=layer.b)

A row counts for exactly this class, and nobody can check it for you: compare a compiled pass with
an eager one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist.compiled.kernel import BLOCKS, DROPOUT, LINEAR, NOWHERE, RELU, Plan
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Dropout, Linear, ReLU
from tinygrad_mnist.parameter import Parameter


class Rule(NamedTuple):
    """What the kernel is told about a layer as it is now."""

    kind: int  # LINEAR: y = x @ W + b; RELU: y = max(x, 0); DROPOUT: y = x * scale
    weight: Any = None  # a Parameter, W (I, O)
    bias: Parameter | None = None  # b (O,)
    p: float = 0.0  # probability of zeroing, 0 in evaluation mode
    rng: Any = None  # draws the masks: a value is kept where rng.random(dtype=float32) >= p


ROWS: dict[type[Module], Callable[[Any], Rule]] = {
    Linear: lambda layer: Rule(LINEAR, layer.weight, layer.bias),
    ReLU: lambda _: Rule(RELU),
    Dropout: lambda layer: Rule(DROPOUT, p=layer.p if layer.training else 0.0, rng=layer.rng),
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


def planned(owner: str, rules: dict[str, Rule], params: Sequence[Parameter]) -> Plan:
    """Return the chain in numbers, or refuse widths that do not fit.

    The rules go by the paths of their layers; the kernel will find params in this order.
    """
    offsets = {id(p): part.start for p, (part, _) in zip(params, places(params), strict=True)}
    first = next(rule.weight for rule in rules.values() if rule.kind == LINEAR)
    widths, rows, masked, gated = [first.data.shape[0]], [], 0, False
    for path, rule in rules.items():
        width, mask = widths[-1], NOWHERE
        if rule.kind == LINEAR:
            features, width = rule.weight.data.shape
            if features != widths[-1]:
                contract = f"layer {path} to take {widths[-1]} features"
                raise ValueError(check.expected(owner, contract, features))
            if rule.bias is not None:  # one of another shape would be broadcast by forward
                check.same_shape(owner, f"bias of layer {path}", rule.bias.data, (width,))
        elif rule.kind == DROPOUT:
            mask, masked = masked, masked + width
        elif rule.kind != RELU:
            raise check.value_error(owner, f"a rule of the kernel's for layer {path}", rule.kind)
        widths.append(width)
        weight, bias = (offsets.get(id(p), NOWHERE) for p in (rule.weight, rule.bias))
        rows.append((rule.kind, weight, bias, gated, mask))
        gated = rule.kind == RELU or (gated and rule.kind == DROPOUT)
    dtype = first.data.dtype
    rooms = [room_of(width, dtype) for width in widths]
    blocks = [block_of(width, dtype) for width in widths[1:]]
    numbers = widths, rooms, blocks, *zip(*rows, strict=True)
    return Plan(*(np.array(n, np.int64) for n in numbers))


def drawn_masks(plan: Plan, rules: list[Rule], samples: int) -> NDArray[np.bool_]:
    """Return what each Dropout would draw for each sample, side by side: (samples, all widths).

    Layers with one generator take turns at every sample, so it draws for all of them at once.
    """
    width = plan.widths[1:]
    if not any(rule.kind == DROPOUT for rule in rules):
        return np.ones((samples, 0), np.bool_)
    masks = np.ones((samples, int(width[plan.masks != NOWHERE].sum())), np.bool_)
    drawing: dict[int, list[int]] = {}
    for i, rule in enumerate(rules):
        if rule.p:
            drawing.setdefault(id(rule.rng.bit_generator), []).append(i)
    for layers in drawing.values():
        draws = rules[layers[0]].rng.random((samples, int(width[layers].sum())), dtype=np.float32)
        parts = np.split(draws, np.cumsum(width[layers])[:-1], axis=1)
        for i, part in zip(layers, parts, strict=True):
            masks[:, plan.masks[i] : plan.masks[i] + width[i]] = part >= rules[i].p
    return masks
