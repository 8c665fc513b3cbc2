"""A chain in numbers, for the kernel: one row a layer in `ROWS`.

A row is a function from a layer to the Rule that computes it in the kernel. A custom layer that
computes what one of these rules does may have a row too::

    ROWS[MyReLU] = ROWS[ReLU]
    ROWS[MyLinear] = lambda layer: Rule(LINEAR, weight=layer.W, bias=layer.b)

A row counts for exactly this class, and nobody can check it for you: compare a compiled pass with
an eager one.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist.compiled.kernel import DROPOUT, LINEAR, NOWHERE, RELU, Plan
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


def planned(owner: str, rules: dict[str, Rule], params: Iterable[Parameter]) -> Plan:
    """Return the chain in numbers, or refuse widths that do not fit.

    The rules go by the paths of their layers; the kernel will find params in this order.
    """
    offsets, end = {}, 0
    for p in params:
        offsets[id(p)], end = end, end + p.data.size
    first = next(rule.weight for rule in rules.values() if rule.kind == LINEAR)
    widths, rows, masked = [first.data.shape[0]], [], 0
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
        rows.append((rule.kind, weight, bias, mask))
    return Plan(np.array(widths, np.int64), *np.array(rows, np.int64).T.copy())


def drawn_masks(plan: Plan, rules: list[Rule], samples: int) -> NDArray[np.bool_]:
    """Return what each Dropout would draw for each sample, side by side: (samples, all widths).

    Layers with one generator take turns at every sample, so it draws for all of them at once.
    """
    width = plan.widths[1:]
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
