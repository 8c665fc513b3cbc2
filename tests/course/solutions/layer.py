import numpy as np

from tinygrad_mnist import Module, Parameter


class Linear(Module):
    _x = None

    def __init__(self, inputs, outputs, rng):
        self.W = Parameter(rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs))
        self.b = Parameter(np.zeros(outputs))

    def forward(self, x):
        self._x = np.array(x)
        return x @ self.W.data + self.b.data

    def backward(self, dy):
        self.W.accumulate(self._x.T @ dy)
        self.b.accumulate(dy.sum(axis=0))
        return dy @ self.W.data.T
