"""Learning rates that change from epoch to epoch, for any optimizer with an `lr`.

Among the callbacks of `fit` a schedule sets the rate before each epoch; in a loop of your own,
`optimizer.lr = schedule(epoch)` does. Epochs count from 1.
"""

import math
from abc import ABC, abstractmethod

from tinygrad_mnist._checks import described, expected, integer, real
from tinygrad_mnist.callbacks import Callback, Run


class Schedule(Callback, ABC):
    """A learning rate for each epoch: `schedule(epoch)`."""

    @abstractmethod
    def __call__(self, epoch: int) -> float:
        """Return the rate of this epoch, counted from 1."""

    def before_epoch(self, run: Run) -> None:
        run.optimizer.lr = self(run.epoch)


class StepDecay(Schedule):
    """lr * factor ** ((epoch - 1) // every).

    Args:
        lr: The first rate, finite and >= 0.
        every: Epochs between drops, at least 1.
        factor: What a drop multiplies by, in [0, 1].

    Raises:
        ValueError: A number outside its interval.
        TypeError: An argument of the wrong type.
    """

    def __init__(self, lr: float, *, every: int, factor: float = 0.1) -> None:
        self.lr = real(self, "lr", lr, "[0, inf)")
        self.every = integer(self, "every", every, at_least=1)
        self.factor = real(self, "factor", factor, "[0, 1]")

    def __call__(self, epoch: int) -> float:
        return float(self.lr * self.factor ** ((epoch - 1) // self.every))


class CosineDecay(Schedule):
    """lr * (1 + cos(pi * (epoch - 1) / epochs)) / 2, and 0 after the last epoch.

    Half a cosine from lr down to almost 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5,
    without restarts).

    Args:
        lr: The first rate, finite and >= 0.
        epochs: How many epochs there will be, at least 1.

    Raises:
        ValueError: A number outside its interval.
        TypeError: An argument of the wrong type.
    """

    def __init__(self, lr: float, *, epochs: int) -> None:
        self.lr = real(self, "lr", lr, "[0, inf)")
        self.epochs = integer(self, "epochs", epochs, at_least=1)

    def __call__(self, epoch: int) -> float:
        done = min((epoch - 1) / self.epochs, 1.0)
        return self.lr * (1 + math.cos(math.pi * done)) / 2


class WarmUp(Schedule):
    """The first rate of a schedule times epoch / (epochs + 1), then that schedule from its start.

    Args:
        epochs: How many epochs of less than the full rate there are, at least 1.
        then: The schedule that follows.

    Raises:
        ValueError: epochs below 1.
        TypeError: then is no Schedule.
    """

    def __init__(self, epochs: int, then: Schedule) -> None:
        self.epochs = integer(self, "epochs", epochs, at_least=1)
        if not isinstance(then, Schedule):
            raise TypeError(expected(self, "then to be a Schedule", described(then)))
        self.then = then

    def __call__(self, epoch: int) -> float:
        if epoch <= self.epochs:
            return self.then(1) * epoch / (self.epochs + 1)
        return self.then(epoch - self.epochs)
