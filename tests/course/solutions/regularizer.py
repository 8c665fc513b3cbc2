import numpy as np

from tinygrad_mnist import Module


class Dropout(Module):
    _scale = None

    def __init__(self, p, rng):
        self.p, self.rng = p, rng

    def forward(self, x):
        self._scale = np.ones(np.shape(x), x.dtype)
        if self.training:
            self._scale[self.rng.random(np.shape(x)) < self.p] = 0
            self._scale /= 1 - self.p
        return x * self._scale

    def backward(self, dy):
        return dy * self._scale
