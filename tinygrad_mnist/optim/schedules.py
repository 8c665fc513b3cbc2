"""Learning rates as functions of time: t counts the epochs, or the steps, done so far, from 0.

In a custom loop `optimizer.lr = schedule(t)` sets one; in `fit` the callback
`training.LearningRate` does. Any function from t to a rate is a schedule; these return one. Rates
are finite and >= 0, numbers of steps (or of epochs) at least 1.
"""

import math
from collections.abc import Callable

from tinygrad_mnist import _checks as check

Schedule = Callable[[int], float]


def step_decay(lr: float, *, every: int, factor: float = 0.1) -> Schedule:
    """Return lr * factor ** (t // every), for a factor in [0, 1]."""
    lr = check.real("step_decay", "lr", lr, "[0, inf)")
    every = check.integer("step_decay", "every", every, at_least=1)
    factor = check.real("step_decay", "factor", factor, "[0, 1]")
    return lambda t: lr * factor ** (t // every)


def cosine_decay(lr: float, *, steps: int) -> Schedule:
    """Return lr * (1 + cos(pi * t / steps)) / 2, and 0 from t = steps on.

    Half a cosine, from lr down to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, without
    restarts).
    """
    lr = check.real("cosine_decay", "lr", lr, "[0, inf)")
    steps = check.integer("cosine_decay", "steps", steps, at_least=1)
    return lambda t: _half_cosine(lr, 0.0, t / steps)


def warm_up(steps: int, then: Schedule) -> Schedule:
    """Return then(0) * (t + 1) / (steps + 1) while t < steps, afterwards then(t - steps)."""
    steps = check.integer("warm_up", "steps", steps, at_least=1)
    if not callable(then):
        raise check.type_error("warm_up", "then to be a schedule, a function of time", then)
    return lambda t: then(0) * (t + 1) / (steps + 1) if t < steps else then(t - steps)


def one_cycle(lr: float, *, steps: int, rise: float = 0.3) -> Schedule:
    """Return a rate that rises from lr / 25 to lr and falls to lr / 250,000, each by half a cosine.

    The formulas and defaults of torch.optim.lr_scheduler.OneCycleLR: the peak is at
    t = rise * steps - 1, for rise in (0, 1), the end at t = steps - 1, for steps of at least 2
    (Smith and Topin 2018, arXiv:1708.07120).
    """
    lr = check.real("one_cycle", "lr", lr, "[0, inf)")
    rise = check.real("one_cycle", "rise", rise, "(0, 1)")
    end = check.integer("one_cycle", "steps", steps, at_least=2) - 1
    peak = max(rise * steps - 1, 0.0)

    def rate(t: int) -> float:
        if t < peak:
            return _half_cosine(lr / 25, lr, t / peak)
        return _half_cosine(lr, lr / 250_000, (t - peak) / (end - peak))

    return rate


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
