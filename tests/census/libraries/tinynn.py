"""tinynn: layers and losses. Its layers make arrays of float32; a loss has `loss` and `grad`."""

import numpy as np
from arrays import A, B, bits, normal, onehot, reseed
from tinynn.core import layer as layers
from tinynn.core import loss as losses

from tinygrad_mnist.testing import check_vjp

DISTRIBUTION = "tinynn"
IMAGE, SEQUENCE = normal(2, 5, 5, 3), normal(2, 3, 4)
ELSEWHERE = 5 * normal(3, 4, seed=2) + 1


def check(made, x, *target):
    if target:
        return check_vjp(
            lambda x: made.loss(x, *target), lambda dy, x: [dy * made.grad(x, *target)], x
        )
    made.forward(x)
    names = list(made.params)
    statistics = dict(made.nt_params)

    def reset():
        reseed()
        made.nt_params.update(statistics)

    def forward(x, *parameters):
        for name, array in zip(names, parameters, strict=True):
            made.params[name] = array
        return made.forward(x)

    def vjp(dy, x, *parameters):
        dx = made.backward(dy)
        return [dx, *(made.grads[name] for name in names)]

    parameters = [np.array(made.params[name]) for name in names]
    return check_vjp(
        forward, vjp, x, *parameters, names=["x", *names], reset=reset, dtype=np.float32
    )


def evaluated(layer):
    """Return a layer in evaluation mode, whose statistics are those of other data."""
    layer.forward(ELSEWHERE)
    layer.is_training = False
    return layer


CASES = [
    ("Dense", layers.Dense(5), A),
    ("Conv2D, SAME", layers.Conv2D((3, 3, 3, 2)), IMAGE),
    ("Conv2D, VALID, stride", layers.Conv2D((3, 3, 3, 2), (2, 2), "VALID"), IMAGE),
    ("Conv2D, even kernel, SAME", layers.Conv2D((2, 4, 3, 2)), IMAGE),
    ("ConvTranspose2D, SAME", layers.ConvTranspose2D((3, 3, 3, 2)), IMAGE),
    ("ConvTranspose2D, SAME, stride", layers.ConvTranspose2D((3, 3, 3, 2), (2, 2)), IMAGE),
    ("ConvTranspose2D, VALID", layers.ConvTranspose2D((3, 3, 3, 2), (1, 1), "VALID"), IMAGE),
    (
        "ConvTranspose2D, VALID, stride",
        layers.ConvTranspose2D((3, 3, 3, 2), (2, 2), "VALID"),
        IMAGE,
    ),
    ("MaxPool2D", layers.MaxPool2D((2, 2)), normal(2, 4, 4, 3)),
    ("MaxPool2D, stride", layers.MaxPool2D((2, 3), (1, 2)), IMAGE),
    ("MaxPool2D, SAME", layers.MaxPool2D((2, 2), (2, 2), "SAME"), IMAGE + 3),
    ("RNN", layers.RNN(5), SEQUENCE),
    ("LSTM", layers.LSTM(5), SEQUENCE),
    ("BatchNormalization", layers.BatchNormalization(), A),
    ("BatchNormalization, evaluation", evaluated(layers.BatchNormalization()), A),
    ("Reshape", layers.Reshape(2, 2), A),
    ("Flatten", layers.Flatten(), IMAGE),
    ("Dropout", layers.Dropout(0.7), A),
    ("Sigmoid", layers.Sigmoid(), A),
    ("Softplus", layers.Softplus(), A),
    ("Tanh", layers.Tanh(), A),
    ("ReLU", layers.ReLU(), A),
    ("LeakyReLU", layers.LeakyReLU(), A),
    ("GELU", layers.GELU(), A),
    ("ELU", layers.ELU(), A),
    ("MSE", losses.MSE(), A, B),
    ("MAE", losses.MAE(), A, B),
    ("Huber", losses.Huber(0.7), A, B),
    ("SoftmaxCrossEntropy", losses.SoftmaxCrossEntropy(), A, onehot(3)),
    ("SoftmaxCrossEntropy, T = 2", losses.SoftmaxCrossEntropy(T=2.0), A, onehot(3)),
    (
        "SoftmaxCrossEntropy, weights",
        losses.SoftmaxCrossEntropy(weights=[1.0, 2.0, 3.0, 4.0]),
        A,
        onehot(3),
    ),
    ("SigmoidCrossEntropy", losses.SigmoidCrossEntropy(), A, bits(3, 4)),
    ("SigmoidCrossEntropy, weights", losses.SigmoidCrossEntropy([0.5, 2.0]), A, bits(3, 4)),
]
