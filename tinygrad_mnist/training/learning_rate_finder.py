"""find_learning_rate: a short training at rates that grow, and the rate that it suggests."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinygrad_mnist import _checks as check
from tinygrad_mnist._generators import kept, streams_in
from tinygrad_mnist._interrupts import Hold, holding
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.training._arguments import Pairs, check_trainable, pairs_of
from tinygrad_mnist.training._kept import modes_kept, set_back

_MEMORY = 0.9  # of the smoothed loss: about the last ten batches count
_BLOWN_UP = 4.0  # times the smallest smoothed loss


@dataclass(repr=False)
class LearningRateCurve:
    """The smoothed loss of each batch, by the rate of its step; `plots.learning_rate` draws it."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def suggestion(self) -> float:
        """The first rate at which the loss had fallen three quarters of the way to its smallest."""
        first, smallest = self.losses[0], min(self.losses)
        low_enough = first - 0.75 * (first - smallest)
        pairs = zip(self.rates, self.losses, strict=True)
        return next(rate for rate, loss in pairs if loss <= low_enough)

    def __repr__(self) -> str:
        """Return how many rates, from where to where, and the one that is suggested."""
        if not self.losses:
            return "LearningRateCurve()"
        span = f"{len(self.rates)} rates from {self.rates[0]:.3g} to {self.rates[-1]:.3g}"
        return f"LearningRateCurve({span}, suggestion={self.suggestion:.3g})"


def find_learning_rate(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    train: Pairs,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
) -> LearningRateCurve:
    """Return the loss of each batch of a short training whose rate grows from low to high.

    It grows by the same factor in each step. The training ends early where the smoothed loss is
    four times the smallest one, or is no number. This is the range test of Smith 2017
    (arXiv:1506.01186). Then parameters, buffers, optimizer, modes and random generators are set
    back to what they were, also after an error or Ctrl-C; gradients are cleared.

    Args:
        model: Any Module.
        loss: As for `fit`.
        optimizer: As for `fit`; its own rate does not matter.
        train: As for `fit`; begun again where an epoch has fewer batches than steps.
        low: The first rate, above 0.
        high: The last rate, above low.
        steps: How many batches, at least 2.

    Raises:
        FloatingPointError: The loss is no number at the lowest rate.
    """
    owner = "find_learning_rate"
    check_trainable(owner, model, loss, optimizer)
    train = pairs_of(owner, train, arrays=False)
    low = check.real(owner, "low", low, "(0, inf)")
    high = check.real(owner, "high", high, f"({low}, inf)")
    steps = check.integer(owner, "steps", steps, at_least=2)
    curve, mean = LearningRateCurve(), 0.0
    with _everything_kept(model, optimizer, loss, train) as hold, hold:  # Ctrl-C may come
        model.train()
        rates = np.geomspace(low, high, steps).tolist()
        for rate, (x, t) in zip(rates, _endless(train), strict=False):
            optimizer.lr = rate
            value = loss(model(x), t)
            mean = _MEMORY * mean + (1 - _MEMORY) * value
            smooth = mean / (1 - _MEMORY ** (len(curve.losses) + 1))
            if not math.isfinite(smooth) or smooth > _BLOWN_UP * min(curve.losses, default=smooth):
                break
            curve.rates.append(rate)
            curve.losses.append(smooth)
            model.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
    if not curve.losses:
        raise FloatingPointError(check.expected(owner, "a finite loss", f"{value} at rate {low}"))
    return curve


def _endless(train: Pairs) -> Iterator[tuple[Any, Any]]:
    """Yield the pairs of one epoch after the other."""
    while True:
        pair = None
        for pair in train:
            yield pair
        if pair is None:
            contract = "a loader with at least one sample"
            raise check.refusal(ValueError, "find_learning_rate", contract, "none")


@contextmanager
def _everything_kept(
    model: Module, optimizer: Optimizer, loss: Loss, train: Pairs
) -> Iterator[Hold]:
    """Set all that a step changes back to what it was, and clear the gradients."""
    arrays, settings = model.state_dict(), optimizer.state_dict()
    streams = streams_in([model, loss, train])
    with holding() as hold, modes_kept(model), kept(streams):
        try:
            yield hold
        finally:
            set_back(model, arrays)
            optimizer.load_state_dict(settings)
            model.zero_grad()
