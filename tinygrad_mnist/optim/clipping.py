"""Gradient clipping: what comes between backward and step."""

import math
from collections.abc import Iterable

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist.optim.optimizer import parameters_in
from tinygrad_mnist.parameter import Parameter


def clip_grad_norm(params: Iterable[Parameter], max_norm: float) -> float:
    """Multiply all gradients by max_norm / (norm + 1e-6), if that is less than 1; return norm.

    The norm is the root of the sum of the squares of all entries of all gradients, before. If it is
    NaN or infinite, the gradients stay as they are: no factor would make them finite. These are the
    formulas of `torch.nn.utils.clip_grad_norm_`. Call it between `backward` and `step`.

    Args:
        params: Parameters, as an iterable; one that appears twice counts once.
        max_norm: Finite and >= 0.
    """
    max_norm = check.real("clip_grad_norm", "max_norm", max_norm, "[0, inf)")
    found = parameters_in("clip_grad_norm", params)
    norm = math.hypot(*(_blas.norm(p.grad) for p in found))
    factor = max_norm / (norm + 1e-6)
    if factor < 1 and math.isfinite(norm):
        for p in found:
            p.grad *= factor
    return norm
