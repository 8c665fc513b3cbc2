"""SGD: along the gradient, with momentum."""

from collections.abc import Iterable

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.optim.optimizer import Optimizer
from tinygrad_mnist.parameter import Parameter


class SGD(Optimizer):
    """v = momentum * v + g; w = w - lr * v, for each parameter w, with g = grad + weight_decay * w.

    With nesterov, w = w - lr * (g + momentum * v). v starts at zeros. These are the formulas of
    torch.optim.SGD. Without momentum no v is kept.

    Args:
        params: Parameters, as an iterable; one that appears twice steps once.
        lr: Step size, finite and >= 0.
        momentum: In [0, 1].
        weight_decay: Finite and >= 0.
        nesterov: Look ahead; needs momentum > 0.
    """

    momentum = check.Real("[0, 1]")
    weight_decay = check.Real("[0, inf)")
    nesterov = check.Flag()
    slots = ("velocities",)

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params)
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.nesterov = nesterov
        if nesterov and not momentum:
            raise check.value_error(self, "momentum > 0 with nesterov", momentum)

    def slots_in_use(self) -> tuple[str, ...]:
        """Return ("velocities",), or nothing without momentum."""
        return self.slots if self.momentum else ()

    def update(self, p: Parameter, *slots: FloatArray) -> None:
        """Step along v, or along the gradient where there is no v."""
        if slots:
            (v,) = slots
            v *= self.momentum
            if self.weight_decay:
                _blas.add_scaled(v, p.data, self.weight_decay)
            p.add_grad_to(v, 1.0)
        if not slots or self.nesterov:  # lr * g, of lr * (g + momentum * v)
            if self.weight_decay:
                p.data *= 1 - self.lr * self.weight_decay
            p.add_grad_to(p.data, -self.lr)
        if slots:
            _blas.add_scaled(p.data, v, -self.lr * (self.momentum if self.nesterov else 1))
