"""Adam and AdamW: along the mean gradient, each entry at a rate of its own."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.optim.optimizer import Optimizer
from tinygrad_mnist.parameter import Parameter

# With denormals, the numbers below `tiny`, a root takes twice as long and a division three times.
# Where the gradient stays at 0, m and v would shrink to denormals, and remain there: 0.9 times the
# smallest four rounds to four again. So the square of a small number is added to each g**2, and an
# m far below the small number becomes 0. With an eps as small as that, a step is a little shorter.
_SMALL = {dtype: 100 * float(np.finfo(dtype).tiny) ** 0.5 for dtype in check.FLOATS}
_FLUSHED_EVERY = 16  # steps


def _pair(owner: object, name: str, value: Any, interval: str) -> tuple[float, float]:
    sequence = isinstance(value, (tuple, list))
    if not sequence or len(value) != 2:
        refused = check.value_error if sequence else check.type_error
        raise refused(owner, f"{name} to be a pair", value)
    first, second = (check.real(owner, f"{name}[{i}]", n, interval) for i, n in enumerate(value))
    return first, second


class Adam(Optimizer):
    """w = w - lr * (m / (1 - b1**t)) / (sqrt(v / (1 - b2**t)) + eps) in step t = 1, 2, ...

    m = b1 * m + (1 - b1) * g and v = b2 * v + (1 - b2) * g**2 start at zeros, for each parameter w,
    with g = grad + weight_decay * w (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1). These are
    the formulas of torch.optim.Adam.

    Args:
        params: Parameters, as an iterable; one that appears twice steps once.
        lr: Step size, finite and >= 0.
        betas: (b1, b2), both in [0, 1).
        eps: Finite and >= 0.
        weight_decay: Finite and >= 0.
    """

    betas = check.Setting(_pair, "[0, 1)")
    eps = check.Real("[0, inf)")
    weight_decay = check.Real("[0, inf)")
    steps = check.Integer(at_least=0)  # done so far: t - 1
    slots = ("means", "squares")

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params)
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.steps = 0

    def step(self) -> None:
        super().step()
        self.steps += 1

    def update(self, p: Parameter, *slots: FloatArray) -> None:
        g = p.grad
        if self.weight_decay:
            g = g.copy()
            _blas.add_scaled(g, p.data, self.weight_decay)
        self._move(p, g, *slots)

    def _move(self, p: Parameter, g: FloatArray, m: FloatArray, v: FloatArray) -> None:
        """Step along m, divided by the root of v."""
        (b1, b2), t, small = self.betas, self.steps + 1, _SMALL[g.dtype]
        m *= b1
        _blas.add_scaled(m, g, 1 - b1)
        if t % _FLUSHED_EVERY == 0:  # what is below the last digit of `small` becomes 0
            m += small
            m -= small
        s = np.asarray(g * g)
        s += small**2  # so that v is neither 0 nor a denormal
        v *= b2
        _blas.add_scaled(v, s, 1 - b2)
        # m / (sqrt(v) / root + eps) is m * root / (sqrt(v) + root * eps)
        root = (1 - b2**t) ** 0.5
        np.sqrt(v, out=s)
        s += root * self.eps
        np.divide(m, s, out=s)
        _blas.add_scaled(p.data, s, -self.lr * root / (1 - b1**t))


class AdamW(Adam):
    """w = w * (1 - lr * weight_decay), then as Adam with g = grad.

    So the decay is not divided by the root of v (Loshchilov and Hutter 2019, arXiv:1711.05101).
    These are the formulas of torch.optim.AdamW; the arguments are those of Adam.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(self, p: Parameter, *slots: FloatArray) -> None:
        p.data *= 1 - self.lr * self.weight_decay
        self._move(p, p.grad, *slots)
