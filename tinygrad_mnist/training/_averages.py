"""The loss and the metrics of an epoch, as they would be on all its samples at once."""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tinygrad_mnist import _checks as check
from tinygrad_mnist import metrics as metric_functions
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.losses import Loss, ReducedLoss

Metric = Callable[[Any, Any], float]

_FRACTIONS: dict[str, Metric] = {  # of the samples
    "accuracy": metric_functions.accuracy,
    "top_k_accuracy": metric_functions.top_k_accuracy,
}
_NAMED = _FRACTIONS | {"mean_absolute_error": metric_functions.mean_absolute_error}
_OWN_COLUMNS = ("epoch", "lr", "loss", "seconds")
_LOOKED_AT = 1000  # targets of a DataLoader, which may be far larger than memory


class Averages:
    """Sums over batches: of metrics, weighted by the samples, and of what the loss is a mean of."""

    def __init__(self, loss: Loss, metrics: Mapping[str, Metric], loader: Any) -> None:
        self._bare = isinstance(loader, DataLoader) and loader.batch_size is None
        self._loss, self._metrics = loss, metrics
        self._summed = getattr(loss, "reduction", None) == "sum"
        self.totals, self.samples = dict.fromkeys(["loss", *metrics], 0.0), 0
        self.batches, self.n = 0, 0.0  # n: by what the total of the loss is divided

    def add(self, value: float, y: Any, t: Any) -> None:
        """Count a batch, or a bare sample: the value of its loss, its outputs and its targets."""
        samples = 1 if self._bare else len(t)
        self._count(float(value), self._divisor(samples), samples)
        self._measure(self._metrics, y, t, samples)

    def add_chunk(
        self, values: Any, divisors: Any, y: Any, t: Any, parts: Sequence[int | slice]
    ) -> None:
        """Count several batches, each with a value, what that was divided by, y[part] and t[part].

        All sums are in the order of the batches, so a chunk more or less changes no bit.
        """
        own = {name: m for name, m in self._metrics.items() if m in _FRACTIONS.values()}
        others = {name: m for name, m in self._metrics.items() if name not in own}
        before = self.samples
        for value, n, part in zip(values.tolist(), divisors.tolist(), parts, strict=True):
            samples = 1 if self._bare else len(t[part])
            self._count(value, n, samples)
            if others:
                self._measure(others, y[part], t[part], samples)
        for name, metric in own.items():  # the sum is a whole number
            self.totals[name] += round(metric(y, t) * (self.samples - before))

    def _count(self, value: float, n: float, samples: int) -> None:
        self.batches += 1
        self.samples += samples
        self.totals["loss"] += value * n
        self.n = 1.0 if self._summed else self.n + n

    def _measure(self, metrics: Mapping[str, Metric], y: Any, t: Any, samples: int) -> None:
        for name, metric in metrics.items():
            number = metric(y, t)
            if not isinstance(number, numbers.Real):
                raise check.type_error(name, "a metric to be one number", number)
            self.totals[name] += float(number) * samples

    def result(self, owner: str) -> dict[str, float]:
        """Return the averages by name; refuse if there were no samples."""
        if not self.samples:
            raise check.refusal(ValueError, owner, "a loader with at least one sample", "none")
        means = {name: total / self.samples for name, total in self.totals.items()}
        return means | {"loss": self.totals["loss"] / self.n}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far."""
        state = {name: getattr(self, name) for name in ("batches", "samples", "n")}
        return {**state, "totals": dict(self.totals)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from these sums."""
        self.batches, self.samples, self.n = state["batches"], state["samples"], state["n"]
        self.totals = dict(state["totals"])

    def _divisor(self, samples: int) -> float:
        """Return by what the loss divided its last sum: by the samples, if it does not say."""
        if self._summed:
            return 1.0
        n = self._loss.n if isinstance(self._loss, ReducedLoss) else None
        return samples if n is None else n


def refuse_unless_finite(loss: float, where: str) -> None:
    """Refuse a loss that is NaN or infinite."""
    if not math.isfinite(loss):
        raise check.refusal(FloatingPointError, "fit", "a finite loss", f"{loss} {where}")


def named(owner: str, metrics: Sequence[str | Metric] | None, loader: Any) -> dict[str, Metric]:
    """Return functions by name for metrics given as names or functions, or refuse them.

    None stands for accuracy, if the targets of the loader are classes.
    """
    if metrics is None:
        metrics = ["accuracy"] if _has_classes(owner, loader) else []
    if isinstance(metrics, str) or not isinstance(metrics, Iterable):
        raise check.type_error(owner, "metrics to be a list of names and functions", metrics)
    found: dict[str, Metric] = {}
    for metric in metrics:
        name: Any = metric if isinstance(metric, str) else getattr(metric, "__name__", None)
        function: Any = _NAMED.get(metric) if isinstance(metric, str) else metric
        contract = f"metrics of {' or '.join(_NAMED)}, or functions with names of their own"
        if name is None:
            raise check.type_error(owner, contract, metric)
        if not callable(function) or name in (*_OWN_COLUMNS, *found):
            raise check.value_error(owner, contract, metric)
        found[name] = function
    return found


def _has_classes(owner: str, loader: Any) -> bool:
    """Return whether the targets are labels, or rows for `accuracy`, as far as one can see."""
    if isinstance(loader, DataLoader):
        t = loader.targets[:_LOOKED_AT]
    elif isinstance(loader, (list, tuple)) and loader:
        t = check.real_array(owner, "targets", loader[0][1])
    else:  # to look would begin an epoch
        return False
    if t.ndim < 2:
        return t.ndim == 1 and t.dtype.kind in "iu"
    return t.size > 0 and t.shape[-1] > 1 and check.are_probabilities(t)
