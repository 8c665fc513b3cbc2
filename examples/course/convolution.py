"""Assignment 5, a convolution: write Conv, then run this file, which grades it.

For images x (B, H, W, I), weights K (k, k, I, O), a bias b (O,), and y (B, H-k+1, W-k+1, O):

    y[:, r, c] = b + sum of x[:, r + i, c + j] @ K[i, j] over i and j from 0 to k - 1
"""

import time

import numpy as np

from tinygrad_mnist import Conv2d, Module, Parameter
from tinygrad_mnist.testing import grade


class Conv(Module):
    sample_axes = 3  # one image is (H, W, I)

    def __init__(self, inputs, outputs, k, rng):
        # self.K = Parameter(...), small random numbers from rng; self.b = Parameter(...), zeros
        pass

    def forward(self, x):
        raise NotImplementedError("keep what backward needs, and return y")

    def backward(self, dy):
        raise NotImplementedError("add the gradients of K and b to theirs, and return dx")


def graded(Conv):
    def reference(x, K, b):
        right = Conv2d(*K.shape[2:], K.shape[:2], dtype=np.float64)
        right.weight.data, right.bias.data = K, b
        return right(x)

    def fast():
        """Forward and backward of 16 images of 28 x 28 take less than 0.3 seconds."""
        conv, seconds = Conv(1, 8, 3, np.random.default_rng(0)), []
        for _ in range(2):
            start = time.perf_counter()
            conv.backward(np.ones_like(conv(np.ones((16, 28, 28, 1)))))
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < 0.3, f"they take {min(seconds):.2f} seconds"

    def make(inputs, rng):
        return Conv(inputs, 2, 3, rng)

    rng = np.random.default_rng(0)
    images = [rng.standard_normal(shape) for shape in [(2, 4, 5, 3), (3, 3, 4, 2), (5, 6, 3, 1)]]
    return grade(make, reference=reference, forms=["batch"], inputs=images).also(fast)


if __name__ == "__main__":
    print(graded(Conv))
