"""Assignment 6, a residual net: write Residual and net, then run this file, which grades them.

For a body, which is any Module whose output has the shape of x:

    y = body(x) + x
"""

import time

import numpy as np

from tinygrad_mnist import (
    Adam,
    CrossEntropyLoss,
    DataLoader,
    Flatten,
    Linear,
    Module,
    ReLU,
    Sequential,
)
from tinygrad_mnist.data import mnist
from tinygrad_mnist.metrics import accuracy
from tinygrad_mnist.testing import grade


class Residual(Module):
    def __init__(self, body):
        self.body = body

    def forward(self, x):
        raise NotImplementedError("return y")

    def backward(self, dy):
        raise NotImplementedError("return dx")


def net(rng):
    """Return a model of images (B, 28, 28, 1), with scores (B, 10) and at least 20 Residuals."""
    raise NotImplementedError("return Sequential(Flatten(), Linear(784, ...), ...)")


def graded(Residual, net):
    def trained():
        """After three epochs of 2,000 images, the net reads 75 % of 2,000 others, in a minute."""
        start, model = time.perf_counter(), net(np.random.default_rng(0))
        blocks = sum(isinstance(module, Residual) for module in model.modules())
        assert blocks >= 20, f"there are {blocks} Residuals"
        (x, t), (x_test, t_test) = mnist.load_data()
        x, x_test = x[..., None] / np.float32(255), x_test[:2000, ..., None] / np.float32(255)
        loss, optimizer = CrossEntropyLoss(), Adam(model.parameters())
        for images, labels in 3 * list(DataLoader(x[:2000], t[:2000], 50)):
            loss(model(images), labels)
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
            assert time.perf_counter() - start < 60, "a minute is over"
        read = accuracy(model.eval()(x_test), t_test[:2000])
        assert read > 0.75, f"it reads {read:.0%}"

    def make(features, rng):
        return Residual(Sequential(Linear(features, features, rng=rng), ReLU()))

    return grade(make, reference=lambda x, W, b: x + np.maximum(x @ W + b, 0)).also(trained, 10)


if __name__ == "__main__":
    print(graded(Residual, net))
