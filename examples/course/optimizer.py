"""Assignment 3, an optimizer: write Adam, then run this file, which grades it.

For each parameter w with gradient g, at step t = 1, 2, 3, ..., from m = v = 0:

    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    w = w - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)
"""

import tinygrad_mnist
from tinygrad_mnist.testing import grade_optimizer


class Adam:
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        self.params, self.lr, self.betas, self.eps = list(params), lr, betas, eps

    def step(self):
        raise NotImplementedError("move each p.data against p.grad, for p in self.params")


def graded(Adam):
    return grade_optimizer(Adam, reference=tinygrad_mnist.Adam)


if __name__ == "__main__":
    print(graded(Adam))
