"""Losses: a number to make small, and its gradient."""

import math
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray


class Loss(Protocol):
    """What serves as a loss: `loss(pred, target) -> float`, then `loss.backward()`."""

    def __call__(self, pred: Any, target: Any, /) -> float:
        """Return the value."""

    def backward(self) -> Any:
        """Return dL/dpred of the last call."""


class MSELoss:
    """L = sum((y - t)**2) / n, for pred y and target t of one shape; dL/dy = 2 * (y - t) / n.

    Args:
        reduction: "mean": n is the number of elements. "sum": n is 1. "batchmean": n is the number
            of samples, that is of elements over all axes but the last (1 for a 1-D pred).
    """

    reduction = check.Choice("mean", "sum", "batchmean")

    def __init__(self, reduction: Literal["mean", "sum", "batchmean"] = "mean") -> None:
        self.reduction = reduction
        self._error: FloatArray | None = None  # y - t of the last call
        self._n = 1

    def __call__(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return L, computed in the dtype of pred, to which target is converted.

        Nothing is broadcast, and empty arrays are refused.
        """
        self._error = None
        y, t = check.floats(self, "pred", pred), check.floats(self, "target", target)
        if t.dtype != y.dtype:
            t = t.astype(y.dtype)
        if t.shape != y.shape:
            raise check.value_error(self, f"target of shape {y.shape}", t.shape)
        if not y.size:
            contract = "pred with at least one element"
            raise ValueError(check.expected(self, contract, f"shape {y.shape}"))
        if self.reduction == "sum":
            self._n = 1
        else:
            self._n = y.size if self.reduction == "mean" else math.prod(y.shape[:-1])
        self._error = error = np.asarray(y - t)
        return _blas.dot(error, error) / self._n

    def backward(self) -> FloatArray:
        """Return dL/dpred of the last call, of the shape of pred.

        Raises:
            RuntimeError: There was no call, or the last one failed.
        """
        return check.kept(self, self._error) * (2 / self._n)

    def __repr__(self) -> str:
        """Return the reduction."""
        return f"MSELoss(reduction={self.reduction!r})"
