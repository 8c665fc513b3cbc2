"""Initial weights: functions of (shape, rng), where shape is (fan_in, fan_out).

Any function of that form can be given to `Linear(init=...)`. They draw in float64, so a seed
means the same weights, up to rounding, in either dtype.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray

Initializer = Callable[[tuple[int, int], np.random.Generator], ArrayLike]


def uniform(low: float, high: float) -> Initializer:
    """Return an initializer that draws from U(low, high), for low <= high, a finite way apart."""
    low = check.real("uniform", "low", low, "(-inf, inf)")
    high = check.real("uniform", "high", high, "(-inf, inf)")
    if not 0 <= high - low < math.inf:
        raise check.value_error("uniform", f"high >= low ({low}), a finite way apart", high)
    return lambda shape, rng: rng.uniform(low, high, shape)


def he_uniform(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Draw from U(-a, a) with a = sqrt(6 / fan_in): variance 2 / fan_in.

    A ReLU after such a layer keeps the size of the signal (He et al. 2015, arXiv:1502.01852,
    section 2.2).
    """
    bound = (6 / shape[0]) ** 0.5
    return rng.uniform(-bound, bound, shape)


def glorot_uniform(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Draw from U(-a, a) with a = sqrt(6 / (fan_in + fan_out)): variance 2 / (fan_in + fan_out).

    For layers followed by a symmetric activation or by none (Glorot and Bengio 2010, equation 16).
    """
    bound = (6 / sum(shape)) ** 0.5
    return rng.uniform(-bound, bound, shape)
