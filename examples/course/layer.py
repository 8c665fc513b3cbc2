"""Assignment 1, a layer: write Linear, then run this file, which grades it.

For a batch x (B, I), weights W (I, O), a bias b (O,), and y (B, O):

    y = x @ W + b
"""

import numpy as np

from tinygrad_mnist import Module, Parameter
from tinygrad_mnist.testing import grade


class Linear(Module):
    def __init__(self, inputs, outputs, rng):
        # self.W = Parameter(...), small random numbers from rng; self.b = Parameter(...), zeros
        pass

    def forward(self, x):
        raise NotImplementedError("keep what backward needs, and return y")

    def backward(self, dy):
        raise NotImplementedError("add the gradients of W and b to theirs, and return dx")


def graded(Linear):
    def reference(x, W, b):
        return x @ W + b

    return grade(lambda inputs, rng: Linear(inputs, 3, rng), reference=reference, forms=["batch"])


if __name__ == "__main__":
    print(graded(Linear))
