"""SmallPebble: functions of Variables. A backward starts from ones, so y is weighted by dy."""

import numpy as np
import smallpebble as sp
from arrays import A, B, P, bits, labels, normal, positive, probabilities

from tinygrad_mnist.testing import check_vjp

DISTRIBUTION = "smallpebble"
IMAGE = normal(2, 5, 5, 3)
AT = (np.array([0, 2, 2]), np.array([1, 3, 3]))


def check(function, *arrays):
    def forward(*arrays):
        return function(*map(sp.Variable, arrays)).array

    def vjp(dy, *arrays):
        inputs = [sp.Variable(a) for a in arrays]
        loss = sp.sum(sp.mul(function(*inputs), sp.Variable(dy)))
        gradients = sp.get_gradients(loss)
        return [gradients.get(x, np.zeros(x.array.shape)) for x in inputs]

    return check_vjp(forward, vjp, *arrays)


def through(layer):
    """Return a lazy layer and its learnables as one function of all of them."""

    def function(x, *parameters):
        node = layer(x)
        node.arguments = [x, *parameters]
        return node.run()

    return function


CASES = [
    ("add", sp.add, A, B),
    ("add, broadcast", sp.add, A, normal(4)),
    ("sub", sp.sub, A, B),
    ("sub, broadcast", sp.sub, normal(3, 1), B),
    ("mul", sp.mul, A, B),
    ("mul, broadcast", sp.mul, A, normal(1, 4)),
    ("div", sp.div, A, P),
    ("div, broadcast", sp.div, A, positive(3, 1)),
    ("neg", sp.neg, A),
    ("exp", sp.exp, A),
    ("log", sp.log, P),
    ("square", sp.square, A),
    ("leaky_relu", sp.leaky_relu, A),
    ("matmul", sp.matmul, A, normal(4, 2)),
    ("matmul of stacks", sp.matmul, normal(2, 3, 4), normal(4, 2)),
    ("matrix_transpose", sp.matrix_transpose, normal(2, 3, 4)),
    ("expand_dims", lambda a: sp.expand_dims(a, 1), A),
    ("reshape", lambda a: sp.reshape(a, (2, 6)), A),
    ("getitem, slice", lambda a: a[1:, ::2], A),
    ("getitem, an index twice", lambda a: sp.getitem(a, AT), A),
    ("add_at", lambda a, b: sp.add_at(a, AT, b), A, normal(3)),
    ("setat", lambda a, b: sp.setat(a, (np.array([0, 2]), np.array([1, 3])), b), A, normal(2)),
    ("maxax, last axis", lambda a: sp.maxax(a, -1), A),
    ("maxax, first axis of two", lambda a: sp.maxax(a, 0), A),
    ("maxax, first axis of three", lambda a: sp.maxax(a, 0), normal(2, 3, 4)),
    ("pad", lambda a: sp.pad(a, ((1, 2), (0, 1))), A),
    ("softmax", sp.softmax, A),
    ("softmax, first axis", lambda a: sp.softmax(a, axis=0), A),
    ("strided_sliding_view", lambda a: sp.strided_sliding_view(a, (2, 2), (1, 2)), A),
    ("sum", sp.sum, A),
    ("sum, first axis", lambda a: sp.sum(a, axis=0), A),
    ("sum, last axis", lambda a: sp.sum(a, axis=1), A),
    ("sum, two axes", lambda a: sp.sum(a, axis=(0, 2)), normal(2, 3, 4)),
    ("where", lambda a, b: sp.where(bits(3, 4) > 0, a, b), A, B),
    ("conv2d, SAME", sp.conv2d, IMAGE, normal(3, 3, 3, 2)),
    ("conv2d, VALID", lambda x, k: sp.conv2d(x, k, "VALID"), IMAGE, normal(3, 2, 3, 2)),
    ("conv2d, strides", lambda x, k: sp.conv2d(x, k, strides=(2, 3)), IMAGE, normal(3, 3, 3, 2)),
    ("maxpool2d, SAME", lambda x: sp.maxpool2d(x, 2, 2), IMAGE),
    ("maxpool2d, VALID", lambda x: sp.maxpool2d(x, 2, 3, "VALID", [2, 1]), IMAGE),
    ("cross_entropy", lambda p: sp.cross_entropy(p, labels(3)), probabilities(3, 4)),
    ("linearlayer", through(sp.linearlayer(4, 5)), A, normal(4, 5), normal(5)),
    ("convlayer", through(sp.convlayer(3, 3, 3, 2)), IMAGE, normal(3, 3, 3, 2)),
]
