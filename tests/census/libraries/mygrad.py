"""MyGrad: functions of Tensors, `y.backward(dy)`."""

import mygrad as mg
import numpy as np
from arrays import A, B, P, U, bits, labels, normal, positive, probabilities
from mygrad.nnet import activations, layers, losses

from tinygrad_mnist.testing import check_vjp

DISTRIBUTION = "mygrad"
OUTSIDE = 1.2 + P
SIGNS = 2 * bits(3) - 1

GRU = [normal(*shape, seed=i) for i in range(3) for shape in ((4, 5), (5, 5), (5,))]


def check(function, *arrays):
    def forward(*arrays):
        return function(*map(mg.tensor, arrays)).data.copy()

    def vjp(dy, *arrays):
        inputs = [mg.tensor(a) for a in arrays]
        function(*inputs).backward(dy)
        return [np.zeros(x.shape) if x.grad is None else x.grad for x in inputs]

    return check_vjp(forward, vjp, *arrays)


def with_item(a, b):
    """Return a copy of a in which b was set."""
    c = +a
    c[1:, ::2] = b
    return c


def in_place(a, b):
    """Return a copy of a to which b was added in place."""
    c = a * a
    c += b
    return c


CASES = [
    # arithmetic
    ("add", mg.add, A, B),
    ("add, broadcast", mg.add, A, normal(4)),
    ("add_sequence", mg.add_sequence, A, B, P),
    ("subtract", mg.subtract, A, B),
    ("multiply", mg.multiply, A, normal(3, 1)),
    ("multiply_sequence", mg.multiply_sequence, A, B, P),
    ("divide", mg.divide, A, P),
    ("true_divide, broadcast", lambda a, b: a / b, A, positive(4)),
    ("power", mg.power, P, B),
    ("power, integer", lambda a: a**3, A),
    ("negative", mg.negative, A),
    ("positive", mg.positive, A),
    ("reciprocal", mg.reciprocal, P),
    ("square", mg.square, A),
    ("add, in place", in_place, A, B),
    ("setitem", with_item, A, normal(2, 2)),
    # elementwise
    ("exp", mg.exp, A),
    ("exp2", mg.exp2, A),
    ("expm1", mg.expm1, A),
    ("log", mg.log, P),
    ("log2", mg.log2, P),
    ("log10", mg.log10, P),
    ("log1p", mg.log1p, P),
    ("logaddexp", mg.logaddexp, A, B),
    ("logaddexp2", mg.logaddexp2, A, B),
    ("sinh", mg.sinh, A),
    ("cosh", mg.cosh, A),
    ("tanh", mg.tanh, A),
    ("arcsinh", mg.arcsinh, A),
    ("arccosh", mg.arccosh, OUTSIDE),
    ("arctanh", mg.arctanh, U),
    ("arccoth", mg.arccoth, OUTSIDE),
    ("arccsch", mg.arccsch, P),
    ("coth", mg.coth, P),
    ("csch", mg.csch, P),
    ("sech", mg.sech, A),
    ("sin", mg.sin, A),
    ("cos", mg.cos, A),
    ("tan", mg.tan, U),
    ("cot", mg.cot, P),
    ("csc", mg.csc, P),
    ("sec", mg.sec, U),
    ("sinc", mg.sinc, A),
    ("sinc at 0", mg.sinc, np.array([0.0, 0.5, -1.5])),
    ("arcsin", mg.arcsin, U),
    ("arccos", mg.arccos, U),
    ("arctan", mg.arctan, A),
    ("arctan2", mg.arctan2, A, B),
    ("arccsc", mg.arccsc, OUTSIDE),
    ("arccsc, negative", mg.arccsc, -OUTSIDE),
    ("arcsec", mg.arcsec, OUTSIDE),
    ("arcsec, negative", mg.arcsec, -OUTSIDE),
    ("arccot", mg.arccot, A),
    ("absolute", mg.absolute, A),
    ("sqrt", mg.sqrt, P),
    ("cbrt", mg.cbrt, P),
    ("cbrt, negative", mg.cbrt, -P),
    ("maximum", mg.maximum, A, B),
    ("minimum", mg.minimum, A, B),
    ("clip", lambda a: mg.clip(a, -0.5, 0.5), A),
    ("where", lambda a, b: mg.where(bits(3, 4) > 0, a, b), A, B),
    # products
    ("matmul", mg.matmul, A, normal(4, 2)),
    ("matmul of stacks", mg.matmul, normal(2, 3, 4), normal(4, 2)),
    ("matmul, a vector", mg.matmul, A, normal(4)),
    ("multi_matmul", lambda a, b, c: mg.multi_matmul([a, b, c]), A, normal(4, 2), normal(2, 5)),
    ("einsum", lambda a, b: mg.einsum("bij,jk->bik", a, b), normal(2, 3, 4), normal(4, 2)),
    ("einsum, a trace", lambda a: mg.einsum("ijj->i", a), normal(2, 3, 3)),
    ("linalg.norm", mg.linalg.norm, A),
    ("linalg.norm, ord 1", lambda a: mg.linalg.norm(a, 1, axis=1), A),
    ("linalg.norm, ord 3", lambda a: mg.linalg.norm(a, 3, axis=1), A),
    ("linalg.norm, ord inf", lambda a: mg.linalg.norm(a, np.inf, axis=1), A),
    # reductions
    ("sum", mg.sum, A),
    ("sum, axes", lambda a: mg.sum(a, axis=(0, 2)), normal(2, 3, 4)),
    ("mean", mg.mean, A),
    ("mean, axis", lambda a: mg.mean(a, axis=0, keepdims=True), A),
    ("var", mg.var, A),
    ("var, ddof", lambda a: mg.var(a, axis=1, ddof=1), A),
    ("std", mg.std, A),
    ("std, ddof", lambda a: mg.std(a, axis=0, ddof=1), A),
    ("max", mg.max, A),
    ("max, axis", lambda a: mg.max(a, axis=1), A),
    ("min", mg.min, A),
    ("min, axis", lambda a: mg.min(a, axis=0, keepdims=True), A),
    ("prod", mg.prod, A),
    ("prod, axis", lambda a: mg.prod(a, axis=1), A),
    ("prod with a zero", mg.prod, np.array([1.5, 0.0, -2.0])),
    ("prod with two zeros", lambda a: mg.prod(a, axis=1), A * (A > 0)),
    ("cumprod", mg.cumprod, A),
    ("cumprod, axis", lambda a: mg.cumprod(a, axis=1), A),
    ("cumprod with zeros", lambda a: mg.cumprod(a, axis=1), A * (A > 0)),
    ("cumsum", mg.cumsum, A),
    ("cumsum, axis", lambda a: mg.cumsum(a, axis=0), A),
    # shapes
    ("reshape", lambda a: mg.reshape(a, (2, 6)), A),
    ("ravel", mg.ravel, A),
    ("squeeze", mg.squeeze, normal(3, 1, 4)),
    ("expand_dims", lambda a: mg.expand_dims(a, 1), A),
    ("broadcast_to", lambda a: mg.broadcast_to(a, (2, 3, 4)), normal(3, 1)),
    ("atleast_1d", mg.atleast_1d, np.array(0.7)),
    ("atleast_2d", mg.atleast_2d, normal(4)),
    ("atleast_3d", mg.atleast_3d, A),
    ("concatenate", lambda a, b: mg.concatenate([a, b], axis=1), A, B),
    ("stack", lambda a, b: mg.stack([a, b], axis=1), A, B),
    ("repeat", lambda a: mg.repeat(a, 2, axis=1), A),
    ("repeat, by counts", lambda a: mg.repeat(a, [1, 0, 2, 3], axis=1), A),
    ("transpose", mg.transpose, A),
    ("transpose, axes", lambda a: mg.transpose(a, (2, 0, 1)), normal(2, 3, 4)),
    ("moveaxis", lambda a: mg.moveaxis(a, 0, 2), normal(2, 3, 4)),
    ("swapaxes", lambda a: mg.swapaxes(a, 0, 2), normal(2, 3, 4)),
    ("roll", lambda a: mg.roll(a, 2, axis=1), A),
    ("roll, two axes", lambda a: mg.roll(a, (1, 2), axis=(0, 1)), A),
    ("getitem, slices", lambda a: a[1:, ::-2], A),
    ("getitem, an index twice", lambda a: a[[0, 2, 2], [1, 3, 3]], A),
    ("getitem, a mask", lambda a: a[bits(3, 4) > 0], A),
    # nnet
    ("nnet.elu", lambda a: activations.elu(a, 1.5), A),
    ("nnet.glu", activations.glu, A),
    ("nnet.hard_tanh", activations.hard_tanh, A),
    ("nnet.leaky_relu", lambda a: activations.leaky_relu(a, 0.1), A),
    ("nnet.logsoftmax", activations.logsoftmax, A),
    ("nnet.relu", activations.relu, A),
    ("nnet.selu", activations.selu, A),
    ("nnet.sigmoid", activations.sigmoid, A),
    ("nnet.softmax", activations.softmax, A),
    ("nnet.softmax, first axis", lambda a: activations.softmax(a, axis=0), A),
    ("nnet.soft_sign", activations.soft_sign, A),
    (
        "nnet.batchnorm",
        lambda x, g, b: layers.batchnorm(x, gamma=g, beta=b, eps=1e-5),
        A,
        normal(4),
        B[0],
    ),
    ("nnet.batchnorm of images", lambda x: layers.batchnorm(x, eps=1e-5), normal(2, 3, 4, 4)),
    (
        "nnet.conv_nd",
        lambda x, k: layers.conv_nd(x, k, stride=1),
        normal(2, 3, 5, 5),
        normal(2, 3, 3, 3),
    ),
    (
        "nnet.conv_nd, stride, padding, dilation",
        lambda x, k: layers.conv_nd(x, k, stride=2, padding=2, dilation=2),
        normal(2, 3, 5, 5),
        normal(2, 3, 3, 3),
    ),
    ("nnet.max_pool", lambda x: layers.max_pool(x, (2, 2), 1), normal(2, 3, 4, 4)),
    ("nnet.gru", layers.gru, normal(3, 2, 4), *GRU),
    (
        "nnet.focal_loss",
        lambda p: losses.focal_loss(p, labels(3), alpha=0.7, gamma=2.0),
        probabilities(3, 4),
    ),
    ("nnet.softmax_focal_loss", lambda a: losses.softmax_focal_loss(a, labels(3), gamma=1.5), A),
    ("nnet.margin_ranking_loss", lambda a, b: losses.margin_ranking_loss(a, b, SIGNS, 0.5), A, B),
    ("nnet.multiclass_hinge", lambda a: losses.multiclass_hinge(a, labels(3)), A),
    ("nnet.negative_log_likelihood", lambda a: losses.negative_log_likelihood(a, labels(3)), A),
    (
        "nnet.negative_log_likelihood, weights",
        lambda a: losses.negative_log_likelihood(a, labels(3), weights=P[0]),
        A,
    ),
    ("nnet.softmax_crossentropy", lambda a: losses.softmax_crossentropy(a, labels(3)), A),
]
