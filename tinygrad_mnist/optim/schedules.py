"""Learning rates as functions of time: t counts the epochs, or the steps, done so far, from 0.

In a loop of your own `optimizer.lr = schedule(t)` sets one; in `fit` the callback
`training.LearningRate` does. Any function from t to a rate is a schedule; these return one.

All raise ValueError for a number outside its interval and TypeError for other types.
"""

import math
from collections.abc import Callable

from tinygrad_mnist import _checks as check

Schedule = Callable[[int], float]


def step_decay(lr: float, *, every: int, factor: float = 0.1) -> Schedule:
    """Return lr * factor ** (t // every).

    Args:
        lr: The first rate, finite and >= 0.
        every: Time between drops, at least 1.
        factor: What a drop multiplies by, in [0, 1].
    """
    owner = "step_decay"
    lr, factor = (
        check.real(owner, "lr", lr, "[0, inf)"),
        check.real(owner, "factor", factor, "[0, 1]"),
    )
    every = check.integer(owner, "every", every, at_least=1)
    return lambda t: lr * factor ** (t // every)


def cosine_decay(lr: float, *, steps: int) -> Schedule:
    """Return lr * (1 + cos(pi * t / steps)) / 2, and 0 from t = steps on.

    Half a cosine, from lr down to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5, without
    restarts).

    Args:
        lr: The first rate, finite and >= 0.
        steps: The time it takes, at least 1.
    """
    lr = check.real("cosine_decay", "lr", lr, "[0, inf)")
    steps = check.integer("cosine_decay", "steps", steps, at_least=1)
    return lambda t: _half_cosine(lr, 0.0, t / steps)


def warm_up(steps: int, then: Schedule) -> Schedule:
    """Return then(0) * (t + 1) / (steps + 1) while t < steps, afterwards then(t - steps).

    Args:
        steps: The time it takes to rise, at least 1.
        then: The schedule that follows.
    """
    steps = check.integer("warm_up", "steps", steps, at_least=1)
    if not callable(then):
        raise check.type_error("warm_up", "then to be a schedule, a function of time", then)
    return lambda t: then(0) * (t + 1) / (steps + 1) if t < steps else then(t - steps)


def one_cycle(lr: float, *, steps: int, rise: float = 0.3) -> Schedule:
    """Return a rate that rises from lr / 25 to lr and falls to lr / 250,000, each by half a cosine.

    The formulas and defaults of torch.optim.lr_scheduler.OneCycleLR: the peak is at
    t = rise * steps - 1, the end at t = steps - 1 (Smith and Topin 2018, arXiv:1708.07120).

    Args:
        lr: The highest rate, finite and >= 0.
        steps: The time it takes, at least 2.
        rise: The fraction of it before the peak, in (0, 1).
    """
    owner = "one_cycle"
    lr, rise = check.real(owner, "lr", lr, "[0, inf)"), check.real(owner, "rise", rise, "(0, 1)")
    end = check.integer(owner, "steps", steps, at_least=2) - 1
    peak = max(rise * steps - 1, 0.0)

    def rate(t: int) -> float:
        if t < peak:
            return _half_cosine(lr / 25, lr, t / peak)
        return _half_cosine(lr, lr / 250_000, (t - peak) / (end - peak))

    return rate


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
