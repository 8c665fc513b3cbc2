"""Thinc: layers, which return their backprop, and losses.

The layers are checked in float32, the dtype that they make their parameters in.
"""

import numpy as np
import thinc.api as t
from arrays import A, B, labels, normal, onehot, reseed
from thinc import layers
from thinc.types import Ragged

from tinygrad_mnist.testing import check_vjp

DISTRIBUTION = "thinc"
STACK = normal(6, 4)
LENGTHS = np.array([1, 3, 2], dtype="i")
ENDS = np.cumsum(LENGTHS)[:-1]


def check(kind, make, *arrays):
    reseed()
    return check_vjp(*make, *arrays) if kind == "loss" else layer(kind, make(), *arrays)


def layer(kind, model, *inputs):
    """Check a layer and all parameters inside; its input is put and its output taken by kind."""
    put, like, taken = KINDS[kind]
    model.initialize(X=put([x.astype(np.float32) for x in inputs]))  # its own parameters are
    held = [(node, name) for node in model.walk() for name in node.param_names]
    backprop = output = None

    def forward(*arrays):
        nonlocal backprop, output
        for (node, name), array in zip(held, arrays[len(inputs) :], strict=True):
            node.set_param(name, array)
            node.set_grad(name, np.zeros_like(array))
        output, backprop = model(put(arrays[: len(inputs)]), is_train=True)
        return taken(output)

    def vjp(dy, *arrays):
        dx = backprop(like(output, dy))
        dxs = dx if isinstance(dx, tuple) else [taken(dx)]
        return [*dxs[: len(inputs)], *(node.get_grad(name) for node, name in held)]

    parameters = [node.get_param(name) for node, name in held]
    names = [f"x{i}" for i in range(len(inputs))] + [f"{node.name}.{name}" for node, name in held]
    arrays = [*inputs, *parameters]
    return check_vjp(forward, vjp, *arrays, names=names, reset=reseed, dtype="float32")


KINDS = {
    "array": (lambda inputs: inputs[0], lambda y, dy: dy, lambda y: y),
    "arrays": (tuple, lambda y, dy: dy, lambda y: y),
    "ids": (lambda inputs: labels(5, 1), lambda y, dy: dy, lambda y: y),
    "ragged": (
        lambda inputs: Ragged(inputs[0], LENGTHS),
        lambda y, dy: Ragged(dy, y.lengths) if isinstance(y, Ragged) else dy,
        lambda y: y.dataXd if isinstance(y, Ragged) else y,
    ),
    "list": (
        lambda inputs: np.split(inputs[0], ENDS),
        lambda y, dy: np.split(dy, ENDS),
        np.concatenate,
    ),
}


def loss(made, truths, guesses=lambda x: x):
    """Return a loss's value and gradient."""

    def forward(x):
        return made.get_loss(guesses(x), truths)

    return forward, lambda dy, x: [dy * made.get_grad(guesses(x), truths)]


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


DENSE = (
    "ClippedLinear Dish Gelu HardSigmoid HardSwish HardSwishMobilenet HardTanh Linear Maxout Mish"
)
DENSE += " Relu ReluK Sigmoid Softmax Softmax_v2 Swish"
CASES = [
    *((name, "array", lambda name=name: getattr(t, name)(5, 4), A) for name in DENSE.split()),
    ("Dish, as many outputs as inputs", "array", lambda: t.Dish(4, 4), A),
    (
        "Maxout, normalize, dropout",
        "array",
        lambda: t.Maxout(5, 4, 3, normalize=True, dropout=0.3),
        A,
    ),
    ("Mish, normalize", "array", lambda: t.Mish(5, 4, normalize=True), A),
    ("Softmax_v2, temperature", "array", lambda: t.Softmax_v2(5, 4, temperature=2.0), A),
    ("MultiSoftmax", "array", lambda: t.MultiSoftmax((2, 3), 4), A),
    ("LayerNorm", "array", lambda: t.LayerNorm(4), A),
    ("Dropout", "array", lambda: t.Dropout(0.3), A),
    ("Logistic", "array", t.Logistic, A),
    ("sigmoid_activation", "array", t.sigmoid_activation, A),
    ("softmax_activation", "array", t.softmax_activation, A),
    ("expand_window", "array", lambda: t.expand_window(1), STACK),
    ("expand_window, 2", "array", lambda: t.expand_window(2), STACK),
    ("expand_window, ragged", "ragged", lambda: t.expand_window(1), STACK),
    ("noop", "array", t.noop, A),
    ("add", "array", lambda: t.add(t.Linear(5, 4), t.Swish(5, 4)), A),
    ("chain", "array", lambda: t.chain(t.Swish(5, 4), t.Linear(3, 5)), A),
    ("clone", "array", lambda: t.clone(t.Swish(4, 4), 3), A),
    ("concatenate", "array", lambda: t.concatenate(t.Linear(5, 4), t.Swish(3, 4)), A),
    ("residual", "array", lambda: t.residual(t.Swish(4, 4)), A),
    ("siamese", "arrays", lambda: t.siamese(t.Swish(5, 4), t.CauchySimilarity(5)), A, B),
    ("CauchySimilarity", "arrays", lambda: t.CauchySimilarity(4), A, B),
    ("Embed", "ids", lambda: t.Embed(3, 4)),
    ("HashEmbed", "ids", lambda: t.HashEmbed(3, 7, column=0)),
    ("uniqued", "ids", lambda: t.uniqued(t.Embed(3, 4, column=0), column=0)),
    ("reduce_first", "ragged", layers.reduce_first, STACK),
    ("reduce_last", "ragged", layers.reduce_last, STACK),
    ("reduce_max", "ragged", layers.reduce_max, STACK),
    ("reduce_mean", "ragged", layers.reduce_mean, STACK),
    ("reduce_sum", "ragged", layers.reduce_sum, STACK),
    ("ParametricAttention", "ragged", lambda: layers.ParametricAttention(4), STACK),
    ("ParametricAttention_v2", "ragged", lambda: layers.ParametricAttention_v2(nO=4), STACK),
    ("with_array", "list", lambda: layers.with_array(t.Swish(5, 4)), STACK),
    ("LSTM", "list", lambda: layers.with_padded(t.LSTM(6, 4)), STACK),
    (
        "LSTM, two directions",
        "list",
        lambda: layers.with_padded(t.LSTM(6, 4, bi=True, depth=2)),
        STACK,
    ),
    ("CosineDistance", "loss", loss(t.CosineDistance(), B), A),
    ("L2Distance", "loss", loss(t.L2Distance(), B), A),
    ("L2Distance, not normalized", "loss", loss(t.L2Distance(normalize=False), B), A),
    (
        "CategoricalCrossentropy, after a softmax",
        "loss",
        loss(t.CategoricalCrossentropy(), onehot(3), softmax),
        A,
    ),
]
