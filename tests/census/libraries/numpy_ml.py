"""numpy-ml: layers, modules, activations, losses.

It needs `collections.Hashable`, which Python 3.10 took away.
"""

import collections
import collections.abc

import numpy as np
from arrays import A, B, bits, labels, normal, onehot, probabilities, reseed

from tinygrad_mnist.testing import check_vjp

collections.Hashable = collections.abc.Hashable
from numpy_ml.neural_nets import activations, layers, losses, modules, wrappers  # noqa: E402

DISTRIBUTION = "numpy-ml"
IMAGE, SIGNAL, SEQUENCE = normal(2, 5, 5, 3), normal(2, 6, 3), normal(2, 4, 3)
TANH = activations.Tanh()


def check(make, *arrays):
    made = make()
    if isinstance(made, tuple):
        return check_vjp(*made, *arrays)
    if isinstance(made, activations.ActivationBase):
        return check_vjp(made.fn, lambda dy, x: [dy * made.grad(x)], *arrays)
    return layer(made, *arrays)


def layer(made, *inputs):
    made.forward(*inputs)  # makes the parameters
    held = [
        (part, name) for part in parts(made) for name in part.gradients if name in part.parameters
    ]

    def reset():
        reseed()
        for part in parts(made):
            part.flush_gradients()  # a layer keeps every input that it saw

    def forward(*arrays):
        for (part, name), array in zip(held, arrays[len(inputs) :], strict=True):
            part.parameters[name] = array
        return made.forward(*arrays[: len(inputs)])

    def vjp(dy, *arrays):
        dxs = made.backward(dy)
        dxs = dxs if isinstance(dxs, tuple | list) else [dxs]
        return [*dxs, *(part.gradients[name] for part, name in held)]

    names = [f"x{i}" for i in range(len(inputs))] + [f"{i}.{held[i][1]}" for i in range(len(held))]
    parameters = [part.parameters[name] for part, name in held]
    return check_vjp(forward, vjp, *inputs, *parameters, names=names, reset=reset)


def parts(made):
    """Return the layers of a layer, module or wrapper, itself among them."""
    values = [*vars(made).values(), *getattr(made, "projections", {}).values()]
    inner = [value for value in values if hasattr(value, "flush_gradients")]
    itself = [made] if isinstance(made, layers.LayerBase) and not hasattr(made, "cell") else []
    return itself + [part for value in inner for part in parts(value)]


class OfList:
    """A layer whose forward takes a list, as one of several arguments."""

    def __init__(self, layer):
        self.layer = layer
        self.backward = layer.backward

    def forward(self, *inputs):
        return self.layer.forward(inputs)

    flush_gradients = None


class TwoOutputs:
    """A module of two outputs, as one stack of them; its backward has them the other way round."""

    def __init__(self, module):
        self.module = module

    def forward(self, *inputs):
        return np.stack(self.module.forward(*inputs))

    def backward(self, dy):
        return self.module.backward(dy[1], dy[0])

    flush_gradients = None


class OfIntegers:
    """An embedding of given integers, whose forward takes nothing."""

    def __init__(self, layer, ids):
        self.layer, self.ids = layer, ids

    def forward(self):
        return self.layer.forward(self.ids)

    def backward(self, dy):
        self.layer.backward(dy)
        return []

    flush_gradients = None


def cross_entropy():
    """Return the loss of a softmax, with the gradient of what the softmax takes."""
    softmax, loss, t = layers.Softmax(), losses.CrossEntropy(), onehot(3)
    return (
        lambda x: loss.loss(t, softmax.forward(x, retain_derived=False)),
        lambda dy, x: [dy * loss.grad(t, softmax.forward(x, retain_derived=False))],
    )


def squared_error():
    """Return the loss of tanh(z): its `grad` is that with respect to z."""
    loss = losses.SquaredError()
    return lambda z: loss.loss(B, TANH.fn(z)), lambda dy, z: [
        dy * loss.grad(B, TANH.fn(z), z, TANH)
    ]


def vae():
    """Return the loss of a variational autoencoder, of its output and its mean and log variance."""
    loss, y = losses.VAELoss(), bits(3, 4)

    def vjp(dy, output, mean, log_variance):
        d_output, d_log_variance, d_mean = loss.grad(y, output, mean, log_variance)
        return [dy * d_output, dy * d_mean, dy * d_log_variance]

    return lambda *arrays: loss.loss(y, *arrays), vjp


def critic():
    """Return the critic's loss of a Wasserstein GAN, with its gradient penalty."""
    loss = losses.WGAN_GPLoss()

    def forward(fake, real, slope):
        return loss.loss(fake, "C", real, slope)

    return forward, lambda dy, *arrays: [dy * d for d in loss.grad(arrays[0], "C", *arrays[1:])]


def generator():
    """Return the generator's loss of a Wasserstein GAN."""
    loss = losses.WGAN_GPLoss()
    return lambda fake: loss.loss(fake, "G"), lambda dy, fake: [dy * loss.grad(fake, "G")]


def wavenet():
    return TwoOutputs(modules.WavenetResidualModule(3, 2, 1, 2))


ONE, TWICE = labels(3, 2, classes=6), np.array([[1, 4, 1], [0, 2, 5]])

CASES = [
    ("Sigmoid", activations.Sigmoid, A),
    ("ReLU", activations.ReLU, A),
    ("LeakyReLU", activations.LeakyReLU, A),
    ("Tanh", activations.Tanh, A),
    ("Affine", lambda: activations.Affine(2.0, 1.0), A),
    ("Identity", activations.Identity, A),
    ("ELU", lambda: activations.ELU(1.5), A),
    ("Exponential", activations.Exponential, A),
    ("SELU", activations.SELU, A),
    ("HardSigmoid", activations.HardSigmoid, 2 * A),
    ("SoftPlus", activations.SoftPlus, A),
    ("SquaredError", squared_error, A),
    ("CrossEntropy", cross_entropy, A),
    ("VAELoss", vae, probabilities(3, 4), A, B),
    ("WGAN_GPLoss, critic", critic, normal(5), normal(5, seed=1), normal(5, 3)),
    ("WGAN_GPLoss, generator", generator, normal(5)),
    ("DotProductAttention", layers.DotProductAttention, A, B, normal(3, 5)),
    (
        "DotProductAttention, stacks",
        layers.DotProductAttention,
        SIGNAL,
        SIGNAL + 1,
        normal(2, 6, 5),
    ),
    ("Add", lambda: OfList(layers.Add(TANH)), A, B),
    ("Multiply", lambda: OfList(layers.Multiply(TANH)), A, B),
    ("Multiply, three", lambda: OfList(layers.Multiply()), A, B, A + B),
    ("Flatten", layers.Flatten, IMAGE),
    ("BatchNorm2D", layers.BatchNorm2D, IMAGE),
    ("BatchNorm1D", layers.BatchNorm1D, A),
    ("LayerNorm2D", layers.LayerNorm2D, IMAGE),
    ("LayerNorm1D", layers.LayerNorm1D, A),
    ("Embedding", lambda: OfIntegers(layers.Embedding(4, 6), ONE)),
    ("Embedding, sum", lambda: OfIntegers(layers.Embedding(4, 6, pool="sum"), ONE[:, :1])),
    ("Embedding, sum, an id twice", lambda: OfIntegers(layers.Embedding(4, 6, pool="sum"), TWICE)),
    (
        "Embedding, mean, an id twice",
        lambda: OfIntegers(layers.Embedding(4, 6, pool="mean"), TWICE),
    ),
    ("FullyConnected", lambda: layers.FullyConnected(5, TANH), A),
    ("Softmax", layers.Softmax, A),
    ("Softmax, dim 0", lambda: layers.Softmax(dim=0), A),
    ("SparseEvolution", lambda: layers.SparseEvolution(5), A),
    ("Conv1D", lambda: layers.Conv1D(2, 3, act_fn=TANH), SIGNAL),
    ("Conv1D, causal, dilation", lambda: layers.Conv1D(2, 2, "causal", dilation=1), SIGNAL),
    ("Conv1D, same", lambda: layers.Conv1D(2, 3, "same"), SIGNAL),
    ("Conv1D, stride", lambda: layers.Conv1D(2, 2, stride=2), SIGNAL),
    ("Conv2D", lambda: layers.Conv2D(2, (3, 3), act_fn=TANH), IMAGE),
    ("Conv2D, padding, stride", lambda: layers.Conv2D(2, (3, 2), 1, 2), IMAGE),
    ("Conv2D, dilation", lambda: layers.Conv2D(2, (2, 2), dilation=1), IMAGE),
    ("Pool2D, max", lambda: layers.Pool2D((2, 2)), IMAGE),
    ("Pool2D, max, stride", lambda: layers.Pool2D((2, 3), 2), IMAGE),
    ("Pool2D, max, padding", lambda: layers.Pool2D((2, 2), 2, 1), IMAGE + 3),
    ("Pool2D, average", lambda: layers.Pool2D((2, 2), mode="average"), IMAGE),
    ("Pool2D, average, padding", lambda: layers.Pool2D((2, 2), 2, 1, mode="average"), IMAGE),
    ("Deconv2D", lambda: layers.Deconv2D(2, (3, 3), act_fn=TANH), IMAGE),
    ("Deconv2D, padding", lambda: layers.Deconv2D(2, (3, 3), 1), IMAGE),
    ("Deconv2D, stride", lambda: layers.Deconv2D(2, (3, 3), stride=2), IMAGE),
    ("RNN", lambda: layers.RNN(5), SEQUENCE),
    ("LSTM", lambda: layers.LSTM(5), SEQUENCE),
    ("RNNCell, one step", lambda: layers.RNNCell(5), A),
    ("Dropout", lambda: wrappers.Dropout(layers.FullyConnected(5, TANH), 0.5), A),
    (
        "SkipConnectionIdentityModule",
        lambda: modules.SkipConnectionIdentityModule(2, (3, 3), (3, 3), act_fn=TANH),
        IMAGE,
    ),
    (
        "SkipConnectionConvModule",
        lambda: modules.SkipConnectionConvModule(2, 2, (3, 3), (3, 3), (1, 1), 1, 1, act_fn=TANH),
        IMAGE,
    ),
    ("WavenetResidualModule", wavenet, SIGNAL, SIGNAL + 1),
    ("WavenetResidualModule, the first", wavenet, SIGNAL),
    ("BidirectionalLSTM", lambda: modules.BidirectionalLSTM(5), SEQUENCE),
    ("MultiHeadedAttentionModule", lambda: modules.MultiHeadedAttentionModule(2), A, B, A + B),
]
