"""Losses: a number to make small, and its gradient.

ReducedLoss does what all of them do; a loss is its sum and the slope of that.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _blas
from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray


class Loss(Protocol):
    """What serves as a loss: `loss(pred, target) -> float`, then `loss.backward()`."""

    def __call__(self, pred: Any, target: Any, /) -> float:
        """Return the value."""

    def backward(self) -> Any:
        """Return dL/dpred of the last call."""


class ReducedLoss(ABC):
    """L = total / n, for pred y and a target; dL/dy = slope / n. Write `compute`.

    Declare settings in the class body, as `reduction` is here. What a call keeps is no state:
    copies and pickles leave behind whatever is None on the class.

    Args:
        reduction: "mean": n is what `compute` says. "sum": n is 1.
    """

    reduction = check.Choice("mean", "sum")
    n: Any = None  # of the last call, a float: `evaluate` weights a batch by it
    _slope: Any = None
    _factor = 1.0  # what `compute` leaves out of the slope, to save a pass over the array

    def __init__(self, reduction: Literal["mean", "sum"] = "mean") -> None:
        self.reduction = reduction

    @abstractmethod
    def compute(self, y: FloatArray, t: NDArray[Any]) -> tuple[float, FloatArray, float]:
        """Return the total, its derivative for y (a new array), and the n of a mean.

        y is not empty; t is what `checked_target` returns. Neither is to be modified.
        """

    def checked_target(self, y: FloatArray, target: ArrayLike) -> NDArray[Any]:
        """Return target in the dtype of y; refuse one of another shape. Override for labels."""
        known = type(target) is np.ndarray and target.dtype == y.dtype
        t: Any = target if known else check.real_array(self, "target", target).astype(y.dtype)
        check.same_shape(self, "target", t, y.shape)
        return t  # type: ignore[no-any-return]

    def __call__(self, pred: ArrayLike, target: ArrayLike) -> float:
        """Return L, computed in the dtype of pred; empty arrays are refused."""
        self._slope = self.n = None
        y = check.floats(self, "pred", pred)
        if not y.size:
            contract = "pred with at least one element"
            raise ValueError(check.expected(self, contract, f"shape {y.shape}"))
        total, slope, n = self.compute(y, self.checked_target(y, target))
        # an n of NumPy's would make a gradient float64, or the sums over an epoch float32
        n = 1.0 if self.reduction == "sum" else float(n)
        self._slope, self.n = slope, n
        return float(total) / n

    def backward(self) -> FloatArray:
        """Return dL/dpred of the last call, of the shape of pred.

        Raises:
            RuntimeError: There was no call, or the last one failed.
        """
        slope = check.kept(self, self._slope)
        dy = slope * check.constant(self._factor / self.n, slope.dtype)
        return np.asarray(dy)  # NumPy makes a scalar of an array without axes

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: all but what the last call kept."""
        return {k: v for k, v in vars(self).items() if getattr(type(self), k, self) is not None}

    def __repr__(self) -> str:
        """Return the settings."""
        settings = check.settings_of(type(self))
        return f"{type(self).__name__}({', '.join(f'{k}={vars(self)[k]!r}' for k in settings)})"


class MSELoss(ReducedLoss):
    """L = sum((y - t)**2) / n, for pred y and target t of one shape; dL/dy = 2 * (y - t) / n.

    Args:
        reduction: "mean": n is the number of elements. "sum": n is 1. "batchmean": n is the number
            of samples, that is of elements over all axes but the last (1 for a 1-D pred).
    """

    reduction = check.Choice("mean", "sum", "batchmean")
    _factor = 2.0

    def __init__(self, reduction: Literal["mean", "sum", "batchmean"] = "mean") -> None:
        self.reduction = reduction

    def compute(self, y: FloatArray, t: FloatArray) -> tuple[float, FloatArray, float]:
        error = y - t
        n = math.prod(y.shape[:-1]) if self.reduction == "batchmean" else y.size
        return _blas.dot(error, error), error, n


class HuberLoss(ReducedLoss):
    """L = sum(c * (e - c / 2)) / n, for e = y - t and c = clip(e, -delta, delta); dL/dy = c / n.

    For pred y and target t of one shape: half the square of a small error, and of a large one
    delta times its size, less delta**2 / 2 (Huber 1964, doi:10.1214/aoms/1177703732).

    Args:
        delta: Where the square ends, finite and > 0.
        reduction: "mean": n is the number of elements. "sum": n is 1.
    """

    delta = check.Real("(0, inf)")

    def __init__(self, delta: float = 1.0, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(reduction)
        self.delta = delta

    def compute(self, y: FloatArray, t: FloatArray) -> tuple[float, FloatArray, float]:
        e = y - t
        c = np.clip(e, -self.delta, self.delta)
        return _blas.dot(c, e - c / 2), c, y.size


def _class_weight(owner: object, name: str, value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    weights = check.owned(owner, name, value, np.dtype(np.float64))
    if weights.ndim != 1 or not (weights >= 0).all() or not np.isfinite(weights).all():
        raise check.value_error(owner, f"{name} to be finite numbers >= 0, one a class", value)
    return tuple(weights.tolist())


class CrossEntropyLoss(ReducedLoss):
    """L = -sum(q * log(softmax(y))) / n, for logits y (..., K); dL/dy = (softmax(y) * Q - q) / n.

    q = class_weight * ((1 - s) * t + s / K), with s for label_smoothing, and Q = sum(q) over the
    classes. The target is probabilities t (..., K), rows >= 0 that sum to 1; or it is integer
    labels (...) in [0, K), and t is 1 at the label, else 0. These are the numbers of
    torch.nn.CrossEntropyLoss (smoothing: Szegedy et al. 2016, arXiv:1512.00567, section 7).

    Args:
        reduction: "mean": n is the number of samples; of labels with class_weight, the sum of
            the weights of the true classes, which must not be 0. "sum": n is 1.
        label_smoothing: In [0, 1].
        class_weight: K finite numbers >= 0; None stands for ones.
    """

    label_smoothing = check.Real("[0, 1]")
    class_weight: check.Setting[Any] = check.Setting(_class_weight)

    def __init__(
        self,
        reduction: Literal["mean", "sum"] = "mean",
        *,
        label_smoothing: float = 0.0,
        class_weight: ArrayLike | None = None,
    ) -> None:
        super().__init__(reduction)
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight

    def checked_target(self, y: FloatArray, target: ArrayLike) -> NDArray[Any]:
        t = check.labels_or_rows(self, target, check.scores(self, y))
        return t if t.ndim < y.ndim else t.astype(y.dtype, copy=False)

    def compute(self, y: FloatArray, t: NDArray[Any]) -> tuple[float, FloatArray, float]:
        q, n = self.weighted(y, t)
        z = y - y.max(axis=-1, keepdims=True)
        e = np.exp(z)
        e_sum = e.sum(axis=-1, keepdims=True)
        terms = np.zeros_like(y)
        np.multiply(q, np.log(e_sum) - z, out=terms, where=q > 0)  # 0 * log(0) is 0
        slope = e / e_sum * q.sum(axis=-1, keepdims=True) - q
        return terms.sum(dtype=np.float64), slope, n

    def weighted(self, y: FloatArray, t: NDArray[Any]) -> tuple[FloatArray, float]:
        """Return q, of the shape and dtype of y (..., K), and the n of a mean."""
        K, s, w = y.shape[-1], self.label_smoothing, self.class_weight
        if w is not None and len(w) != K:
            raise ValueError(check.expected(self, f"class_weight of {K} numbers", len(w)))
        n: float = y.size // K
        labels = t if t.ndim < y.ndim else None
        q = t if labels is None else labels[..., None] == np.arange(K)
        if s:
            q = (1 - s) * q + s / K
        if w is not None:
            q = np.array(w) * q
            if labels is not None:
                n = float(np.array(w)[labels].sum())
                if not n and self.reduction == "mean":
                    contract = "target with a class of weight > 0"
                    raise ValueError(check.expected(self, contract, "none"))
        return q.astype(y.dtype, copy=False), n


class BCEWithLogitsLoss(ReducedLoss):
    """L = -sum(t * log(p) + (1 - t) * log(1 - p)) / n, p = sigmoid(y); dL/dy = (p - t) / n.

    For logits y and target t of one shape, t in [0, 1]. The sum is computed as that of
    max(y, 0) - t * y + log(1 + exp(-abs(y))), which overflows for no y.

    Args:
        reduction: "mean": n is the number of elements. "sum": n is 1.
    """

    def checked_target(self, y: FloatArray, target: ArrayLike) -> NDArray[Any]:
        t = super().checked_target(y, target)
        outside = ~((t >= 0) & (t <= 1))  # NaN, too
        if outside.any():
            raise check.refusal(ValueError, self, "target in [0, 1]", t[outside].flat[0])
        return t

    def compute(self, y: FloatArray, t: FloatArray) -> tuple[float, FloatArray, float]:
        e = np.exp(-abs(y))
        terms = np.maximum(y, 0) - t * y + np.log1p(e)
        p = np.where(y >= 0, 1, e) / (1 + e)
        return terms.sum(dtype=np.float64), p - t, y.size
