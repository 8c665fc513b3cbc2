import numpy as np

from tinygrad_mnist import Module, Parameter


class Conv(Module):
    sample_axes = 3
    _patches = _shape = None

    def __init__(self, inputs, outputs, k, rng):
        a = np.sqrt(2 / (k * k * inputs))
        self.K = Parameter(a * rng.standard_normal((k, k, inputs, outputs)))
        self.b = Parameter(np.zeros(outputs))

    def forward(self, x):
        k = len(self.K.data)
        windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))
        B, h, w = windows.shape[:3]
        W = self.K.data.reshape(-1, len(self.b.data))
        self._patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(B * h * w, len(W))
        self._shape = x.shape
        return (self._patches @ W + self.b.data).reshape(B, h, w, len(self.b.data))

    def backward(self, dy):
        K = self.K.data
        _, h, w, outputs = dy.shape
        self.K.accumulate((self._patches.T @ dy.reshape(-1, outputs)).reshape(K.shape))
        self.b.accumulate(dy.sum(axis=(0, 1, 2)))
        dx = np.zeros(self._shape, dy.dtype)
        for i in range(len(K)):
            for j in range(len(K)):
                dx[:, i : i + h, j : j + w] += dy @ K[i, j].T
        return dx
