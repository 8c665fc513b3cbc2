"""DeZero: functions of Variables, and layers. It needs `np.int`, which NumPy 1.24 took away."""

import numpy as np
from arrays import A, B, P, bits, labels, normal, positive, probabilities, reseed

from tinygrad_mnist.testing import check_vjp

np.int = int  # noqa: NPY001
import dezero.functions as F  # noqa: E402
from dezero import Variable, layers  # noqa: E402

DISTRIBUTION = "dezero"
IMAGE, KERNEL = normal(2, 3, 5, 5), normal(2, 3, 3, 3)


def check(function, *arrays):
    """Check a function, or a layer that was made in float64, with its parameters."""
    parameters, names = [], None
    if isinstance(function, layers.Layer):
        function(*map(Variable, arrays))  # makes the parameters
        parameters = [p for p in function.params() if p.name not in ("avg_mean", "avg_var")]
        names = [f"x{i}" for i in range(len(arrays))] + [
            f"{i}.{p.name}" for i, p in enumerate(parameters)
        ]

    def run(values):
        inputs = list(map(Variable, values[: len(arrays)]))
        for parameter, value in zip(parameters, values[len(arrays) :], strict=True):
            parameter.data = value
            parameter.cleargrad()
        if hasattr(function, "reset_state"):
            function.reset_state()
        return [*inputs, *parameters], function(*inputs)

    last = None

    def forward(*values):
        nonlocal last
        last = run(values)
        return last[1].data

    def vjp(dy, *values):
        inputs, y = last
        y.grad = Variable(dy)
        y.backward()
        return [np.zeros(x.shape) if x.grad is None else x.grad.data for x in inputs]

    values = [*arrays, *(p.data.astype(np.float64) for p in parameters)]
    return check_vjp(forward, vjp, *values, names=names, reset=reseed)


class Steps(layers.Layer):
    """A recurrent layer over the three steps of a sequence."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def reset_state(self):
        self.layer.reset_state()

    def forward(self, x):
        self.reset_state()
        for t in range(3):
            y = self.layer(x[t])
        return y


class Of(layers.Layer):
    """An embedding of given integers and an input to add."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(np.array([1, 4, 1])) + x


def normed(x, g, b):
    return F.batch_nrom(x, g, b, np.zeros(x.shape[1]), np.ones(x.shape[1]))


SEQUENCE = normal(3, 2, 4)
CASES = [
    ("sin", F.sin, A),
    ("cos", F.cos, A),
    ("tanh", F.tanh, A),
    ("exp", F.exp, A),
    ("log", F.log, P),
    ("add", F.add, A, B),
    ("add, broadcast", F.add, A, normal(4)),
    ("sub, broadcast", F.sub, A, normal(3, 1)),
    ("mul, broadcast", F.mul, A, normal(1, 4)),
    ("div, broadcast", F.div, A, positive(4)),
    ("neg", F.neg, A),
    ("pow", lambda a: F.pow(a, 3), A),
    ("reshape", lambda a: F.reshape(a, (2, 6)), A),
    ("expand_dims", lambda a: F.expand_dims(a, 1), A),
    ("flatten", F.flatten, IMAGE),
    ("sum", F.sum, A),
    ("sum, axis", lambda a: F.sum(a, axis=1), A),
    ("sum, two axes", lambda a: F.sum(a, axis=(0, 2)), normal(2, 3, 4)),
    ("sum_to", lambda a: F.sum_to(a, (1, 4)), A),
    ("broadcast_to", lambda a: F.broadcast_to(a, (3, 4)), normal(4)),
    ("matmul", F.matmul, A, normal(4, 2)),
    ("linear", F.linear, A, normal(4, 2), normal(2)),
    ("linear, no bias", F.linear, A, normal(4, 2)),
    ("linear_simple", F.linear_simple, A, normal(4, 2), normal(2)),
    ("transpose", F.transpose, A),
    ("transpose, axes", lambda a: F.transpose(a, (2, 0, 1)), normal(2, 3, 4)),
    ("get_item, slices", lambda a: F.get_item(a, (slice(1, None), slice(None, None, 2))), A),
    ("get_item, an index twice", lambda a: F.get_item(a, np.array([0, 2, 2])), A),
    ("sigmoid_simple", F.sigmoid_simple, A),
    ("sigmoid", F.sigmoid, A),
    ("relu", F.relu, A),
    ("softmax_simple", F.softmax_simple, A),
    ("softmax", F.softmax, A),
    ("softmax, axis 0", lambda a: F.softmax(a, axis=0), A),
    ("log_softmax", F.log_softmax, A),
    ("log_softmax, axis 0", lambda a: F.log_softmax(a, axis=0), A),
    ("leaky_relu", F.leaky_relu, A),
    ("mean_squared_error_simple", F.mean_squared_error_simple, A, B),
    ("mean_squared_error", F.mean_squared_error, A, B),
    ("softmax_cross_entropy_simple", lambda a: F.softmax_cross_entropy_simple(a, labels(3)), A),
    ("softmax_cross_entropy", lambda a: F.softmax_cross_entropy(a, labels(3)), A),
    ("sigmoid_cross_entropy", lambda a: F.sigmoid_cross_entropy(a, bits(3, 4)), A),
    ("binary_cross_entropy", lambda p: F.binary_cross_entropy(p, bits(3, 4)), probabilities(3, 4)),
    ("embed_id", lambda w: F.embed_id(np.array([1, 2, 1]), w), A),
    ("dropout", lambda a: F.dropout(a, 0.3), A),
    ("batch_nrom", normed, A, normal(4), normal(4, seed=1)),
    ("batch_nrom of images", normed, IMAGE, normal(3), normal(3, seed=1)),
    ("max", F.max, A),
    ("max, axis", lambda a: F.max(a, axis=1), A),
    ("min, axis", lambda a: F.min(a, axis=0, keepdims=True), A),
    ("clip", lambda a: F.clip(a, -0.5, 0.5), A),
    ("conv2d_simple", F.conv2d_simple, IMAGE, KERNEL, normal(2)),
    ("conv2d", F.conv2d, IMAGE, KERNEL, normal(2)),
    ("conv2d, stride, pad", lambda x, k: F.conv2d(x, k, None, 2, 1), IMAGE, KERNEL),
    ("conv2d, stride, rest", lambda x, k: F.conv2d(x, k, None, 3, 0), IMAGE, KERNEL),
    ("deconv2d", F.deconv2d, IMAGE, normal(3, 2, 3, 3), normal(2)),
    ("deconv2d, stride, pad", lambda x, k: F.deconv2d(x, k, None, 2, 1), IMAGE, normal(3, 2, 3, 3)),
    ("im2col", lambda x: F.im2col(x, 3, 2, 1), IMAGE),
    ("col2im", lambda x: F.col2im(x, (1, 2, 3, 3), 2, 1, 0), normal(4, 8)),
    ("pooling_simple", lambda x: F.pooling_simple(x, 2, 2), IMAGE),
    ("pooling", lambda x: F.pooling(x, 2), IMAGE),
    ("pooling, stride, pad", lambda x: F.pooling(x, 3, 2, 1), IMAGE + 3),
    ("average_pooling", lambda x: F.average_pooling(x, 2), IMAGE),
    ("average_pooling, oblong", lambda x: F.average_pooling(x, (2, 3), 1, 1), IMAGE),
    ("layers.Linear", layers.Linear(5, dtype=np.float64, in_size=4), A),
    ("layers.Conv2d", layers.Conv2d(2, 3, dtype=np.float64, in_channels=3), IMAGE),
    ("layers.Deconv2d", layers.Deconv2d(2, 3, dtype=np.float64, in_channels=3), IMAGE),
    ("layers.RNN", Steps(layers.RNN(4, 4)), SEQUENCE),
    ("layers.RNN, other width", Steps(layers.RNN(5, 4)), SEQUENCE),
    ("layers.LSTM", Steps(layers.LSTM(5, 4)), SEQUENCE),
    ("layers.EmbedID", Of(layers.EmbedID(5, 4)), A),
    ("layers.BatchNorm", layers.BatchNorm(), A),
]
