"""neograd: functions of Tensors and layers, `y.backward(dy)` in a graph of its own."""

import neograd as ng
import numpy as np
from arrays import A, B, P, normal, onehot, positive, probabilities, reseed
from neograd import nn
from neograd.nn.loss import BCE, CE, MSE, SoftmaxCE

from tinygrad_mnist.testing import check_vjp

DISTRIBUTION = "neograd"
IMAGE, COLOURED = normal(2, 5, 5), normal(2, 3, 5, 5)


def check(function, *arrays):
    parameters = function.parameters() if isinstance(function, nn.layers.Layer) else []

    def run(arrays):
        inputs = [ng.tensor(a, requires_grad=True) for a in arrays[: len(arrays) - len(parameters)]]
        for parameter, array in zip(reversed(parameters), reversed(arrays), strict=False):
            parameter.data = array
            parameter.zero_grad()
        return [*inputs, *parameters], function(*inputs)

    def forward(*arrays):
        with ng.new_graph():
            return run(arrays)[1].data.astype(np.float64)

    def vjp(dy, *arrays):
        reseed()
        with ng.new_graph():
            inputs, y = run(arrays)
            y.backward(dy)
            return [np.zeros(x.shape) + x.grad for x in inputs]  # a float where none arrived

    return check_vjp(forward, vjp, *arrays, *(p.data for p in parameters), reset=reseed)


def target(loss, t):
    return lambda y: loss(y, ng.tensor(t))


CASES = [
    ("add", ng.add, A, B),
    ("add, broadcast", ng.add, A, normal(4)),
    ("add, broadcast column", ng.add, normal(3, 1), B),
    ("sub", ng.sub, A, B),
    ("mul", ng.mul, A, B),
    ("mul, broadcast", ng.mul, A, normal(1, 4)),
    ("div", ng.div, A, P),
    ("div, broadcast", ng.div, A, positive(4)),
    ("pow", ng.pow, P, B),
    ("pow, integer", lambda a: a**2, A),
    ("dot", ng.dot, A, normal(4, 2)),
    ("exp", ng.exp, A),
    ("log", ng.log, P),
    ("sum", ng.sum, A),
    ("sum, first axis", lambda a: ng.sum(a, axis=0), A),
    ("sum, last axis", lambda a: ng.sum(a, axis=1), A),
    ("transpose", ng.transpose, A),
    ("flatten", ng.flatten, A),
    ("reshape", lambda a: ng.reshape(a, (2, 6)), A),
    ("getitem", lambda a: a[1] * 1.0, A),
    ("ReLU", nn.ReLU(), A),
    ("Sigmoid", nn.Sigmoid(), A),
    ("Tanh", nn.Tanh(), A),
    ("Softmax, rows", nn.Softmax(axis=1), A),
    ("Softmax, columns", nn.Softmax(axis=0), A),
    ("LeakyReLU", nn.LeakyReLU(), A),
    ("Linear", nn.Linear(4, 5), A),
    ("Dropout", nn.Dropout(0.7), A),
    ("Conv2D", nn.Conv2D((3, 3)), IMAGE),
    ("Conv2D, padding and stride", nn.Conv2D((3, 2), padding=1, stride=2), IMAGE),
    ("Conv3D", nn.Conv3D(3, 2, (3, 3)), COLOURED),
    ("Conv3D, padding and stride", nn.Conv3D(3, 2, (3, 2), padding=1, stride=2), COLOURED),
    ("MaxPool2D", nn.MaxPool2D((2, 2)), IMAGE),
    ("MaxPool2D, windows side by side", nn.MaxPool2D((2, 2), stride=2), IMAGE[:, :4, :4]),
    ("MaxPool2D, some in no window", nn.MaxPool2D((2, 2), stride=2), IMAGE),
    ("MaxPool2D, padding and stride", nn.MaxPool2D((2, 2), padding=1, stride=2), IMAGE + 3),
    ("MaxPool3D", nn.MaxPool3D((2, 2)), COLOURED),
    ("MaxPool3D, padding and stride", nn.MaxPool3D((2, 3), padding=1, stride=2), COLOURED + 3),
    ("MSE", target(MSE(), B), A),
    ("BCE", target(BCE(), probabilities(3, 4)), A),
    ("CE", target(CE(), onehot(3)), probabilities(3, 4, seed=1)),
    ("SoftmaxCE", target(SoftmaxCE(axis=1), onehot(3)), A),
    ("SoftmaxCE, columns", target(SoftmaxCE(axis=0), onehot(4, classes=3).T), A),
]
