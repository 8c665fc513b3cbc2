"""Assignment 4, a regularizer: write Dropout, then run this file, which grades it.

While self.training, each number of x is dropped with probability p, and the others grow:

    y = x * mask / (1 - p)        mask, of the shape of x: 0 with probability p, otherwise 1

In evaluation mode y = x. The mask is drawn from self.rng, a np.random.Generator.
"""

import numpy as np

from tinygrad_mnist import Module
from tinygrad_mnist.testing import grade


class Dropout(Module):
    def __init__(self, p, rng):
        self.p, self.rng = p, rng

    def forward(self, x):
        raise NotImplementedError("keep what backward needs, and return y")

    def backward(self, dy):
        raise NotImplementedError("return dx")


def graded(Dropout):
    def made():
        return Dropout(0.2, np.random.default_rng(0))

    def seed():
        """The same seed drops the same numbers, and the next forward drops others."""
        layer, again, x = made(), made(), np.ones(99)
        first, second = layer(x), layer(x)
        assert np.array_equal(again(x), first), "the same seed dropped others"
        assert not np.array_equal(second, first), "the next forward dropped the same"

    def zeros():
        """Of 10,000 ones, about p become 0, and all others 1 / (1 - p)."""
        y = made()(np.ones(10_000))
        dropped, kept = np.mean(y == 0), np.unique(y[y != 0]).round(3)
        assert 0.18 < dropped < 0.22, f"{dropped:.3f} of them became 0, and p is 0.2"
        assert kept.tolist() == [1.25], f"the others became {kept}"

    result = grade(lambda inputs, rng: Dropout(0.2, rng), reference=lambda x: x)
    return result.also(seed).also(zeros, points=5)


if __name__ == "__main__":
    print(graded(Dropout))
