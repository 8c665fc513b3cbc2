"""PyDyNet: functions of Tensors and modules, `y.backward()` of a scalar, so y is weighted by dy."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pydynet as pdn
import pydynet.nn.functional as F
from arrays import A, B, P, labels, normal, onehot, positive, reseed
from pydynet import nn
from pydynet.core.tensor import Graph

from tinygrad_mnist.testing import check_vjp

DISTRIBUTION = "pydynet"
SIGNAL, IMAGE, SEQUENCE = normal(2, 3, 7), normal(2, 3, 5, 5), normal(2, 5, 4)
F64 = {"dtype": np.float64}


class Module(NamedTuple):
    """How to make a module."""

    make: Callable[[], nn.Module]


def check(function, *arrays):
    parameters = {}
    if isinstance(function, Module):
        function = function.make()
        parameters = {n: p for n, p in function._parameters.items() if p.requires_grad}

    def run(values):
        Graph.node_list.clear()
        Graph.size = 0
        inputs = [pdn.Tensor(a, requires_grad=True) for a in values[: len(arrays)]]
        for parameter, value in zip(parameters.values(), values[len(arrays) :], strict=True):
            parameter.data, parameter.grad = value, np.zeros_like(value)
            Graph._add_node(parameter)
        return [*inputs, *parameters.values()], function(*inputs)

    last = None

    def forward(*values):
        nonlocal last
        last = run(values)
        return last[1].data

    def vjp(dy, *values):
        inputs, y = last
        pdn.sum(y * pdn.Tensor(dy)).backward()
        return [x.grad for x in inputs]

    values = [*arrays, *(p.data.astype(np.float64) for p in parameters.values())]
    names = [f"x{i}" for i in range(len(arrays))] + list(parameters)
    return check_vjp(forward, vjp, *values, names=names, reset=reseed)


def first(module):
    """Make a recurrent module return its outputs alone."""
    forward = module.forward
    module.forward = lambda *inputs: forward(*inputs)[0]
    return module


CASES = [
    ("add, broadcast", pdn.add, A, normal(4)),
    ("add, of itself", lambda a: a + a, A),
    ("sub, broadcast", pdn.sub, A, normal(3, 1)),
    ("sub, of itself", lambda a: a * (a - a + 1), A),
    ("mul, broadcast", pdn.mul, A, normal(1, 4)),
    ("mul, of itself", lambda a: a * a, A),
    ("div, broadcast", pdn.div, A, positive(4)),
    ("div, by itself", lambda a: a * (a / a), P),
    ("pow", pdn.pow, P, B),
    ("pow, integer", lambda a: a**3, A),
    ("pow, to itself", lambda a: a**a, P),
    ("matmul", pdn.matmul, A, normal(4, 2)),
    ("matmul of stacks", pdn.matmul, normal(2, 3, 4), normal(4, 2)),
    ("matmul of stacks, broadcast", pdn.matmul, normal(2, 3, 4), normal(1, 4, 2)),
    ("matmul, a vector", pdn.matmul, A, normal(4)),
    ("matmul, by itself", lambda a: a @ a, normal(3, 3)),
    ("abs", pdn.abs, A),
    ("sum", pdn.sum, A),
    ("sum, axes", lambda a: pdn.sum(a, (0, 2)), normal(2, 3, 4)),
    ("mean", pdn.mean, A),
    ("mean, axis", lambda a: pdn.mean(a, 0, True), A),
    ("mean, axes", lambda a: pdn.mean(a, (0, 2)), normal(2, 3, 4)),
    ("max", pdn.max, A),
    ("max, axis", lambda a: pdn.max(a, 1), A),
    ("min, axis", lambda a: pdn.min(a, 0), A),
    ("exp", pdn.exp, A),
    ("log", pdn.log, P),
    ("maximum", pdn.maximum, A, B),
    ("maximum, broadcast", pdn.maximum, A, normal(4)),
    ("minimum", pdn.minimum, A, B),
    ("sigmoid", pdn.sigmoid, 3 * A),
    ("tanh", pdn.tanh, A),
    ("sqrt", pdn.sqrt, P),
    ("square", pdn.square, A),
    ("reshape", lambda a: pdn.reshape(a, (2, 6)), A),
    ("transpose", lambda a: pdn.transpose(a, (2, 0, 1)), normal(2, 3, 4)),
    ("transpose, no axes", lambda a: a.T, A),
    ("swapaxes", lambda a: pdn.swapaxes(a, 0, 2), normal(2, 3, 4)),
    ("concat", lambda a, b: pdn.concat((a, b), 1), A, B),
    ("concat, of itself", lambda a: pdn.concat((a, a), 1), A),
    ("split", lambda a: pdn.split(a, 2, 1)[1], A),
    ("split, last of four axes", lambda a: pdn.split(a, 2, 3)[1], normal(2, 1, 3, 4)),
    ("unsqueeze", lambda a: pdn.unsqueeze(a, 1), A),
    ("squeeze", pdn.squeeze, normal(3, 1, 4)),
    ("getitem, slices", lambda a: a[1:, ::2], A),
    ("getitem, an index twice", lambda a: a[[0, 2, 2]], A),
    ("F.linear", F.linear, A, normal(4, 2), normal(2)),
    ("F.relu", F.relu, A),
    ("F.leaky_relu", lambda a: F.leaky_relu(a, 0.1), A),
    ("F.silu", F.silu, A),
    ("F.softmax", lambda a: F.softmax(a, 1), A),
    ("F.log_softmax", lambda a: F.log_softmax(a, 1, True), A),
    ("F.conv1d", lambda x, k: F.conv1d(x, k, 1, 2), SIGNAL, normal(2, 3, 3)),
    ("F.max_pool1d", lambda x: F.max_pool1d(x, 2, 2), SIGNAL),
    ("F.avg_pool1d", lambda x: F.avg_pool1d(x, 3, 1, 1), SIGNAL),
    ("F.conv2d", lambda x, k: F.conv2d(x, k, 1, 2), IMAGE, normal(2, 3, 3, 3)),
    ("F.max_pool2d", lambda x: F.max_pool2d(x, 2, 1), IMAGE),
    ("F.avg_pool2d", lambda x: F.avg_pool2d(x, 3, 2, 1), IMAGE),
    ("F.mse_loss", F.mse_loss, A, B),
    ("F.nll_loss", lambda a: F.nll_loss(a, pdn.Tensor(onehot(3))), A),
    ("F.cross_entropy_loss", lambda a: F.cross_entropy_loss(a, pdn.Tensor(onehot(3))), A),
    ("F.cross_entropy_loss, labels", lambda a: F.cross_entropy_loss(a, labels(3)), A),
    ("Linear", Module(lambda: nn.Linear(4, 5, **F64)), A),
    ("Conv1d", Module(lambda: nn.Conv1d(3, 2, 3, 2, 1, **F64)), SIGNAL),
    ("Conv2d", Module(lambda: nn.Conv2d(3, 2, 3, 2, 1, **F64)), IMAGE),
    ("BatchNorm1d", Module(lambda: nn.BatchNorm1d(4, **F64)), A),
    ("BatchNorm2d", Module(lambda: nn.BatchNorm2d(3, **F64)), IMAGE),
    ("LayerNorm", Module(lambda: nn.LayerNorm(4, **F64)), A),
    ("RMSNorm", Module(lambda: nn.RMSNorm(4, **F64)), A),
    ("Dropout", Module(lambda: nn.Dropout(0.3)), A),
    ("RNN", Module(lambda: first(nn.RNN(4, 3, **F64))), SEQUENCE),
    ("LSTM", Module(lambda: first(nn.LSTM(4, 3, **F64))), SEQUENCE),
    (
        "LSTM, two layers and directions",
        Module(lambda: first(nn.LSTM(4, 3, 2, bidirectional=True, **F64))),
        SEQUENCE,
    ),
    ("GRU", Module(lambda: first(nn.GRU(4, 3, **F64))), SEQUENCE),
]
