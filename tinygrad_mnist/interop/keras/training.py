"""Losses and optimizers in Keras: a row each."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._tables import kind_of, listed
from tinygrad_mnist.interop.keras._backend import keras, refuse_float64_without_x64
from tinygrad_mnist.losses import BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, MSELoss
from tinygrad_mnist.optim import SGD, Adam, AdamW


def to_keras_loss(loss: Any, *, dtype: DTypeLike = np.float32) -> Any:
    """Return the Keras loss of the same value and gradient.

    A CrossEntropyLoss is a `CrossEntropy`, an MSELoss of "sum" or "batchmean" a `SquaredError`: a
    saved model that was compiled with these loads where this module has been imported. The others
    are Keras's own, which broadcast shapes that are refused here: compare them yourself. On JAX,
    Keras takes every mean in float32.

    Args:
        loss: An MSELoss or CrossEntropyLoss; a BCEWithLogitsLoss or HuberLoss of "mean".
        dtype: float32 or float64: what it is computed in; Keras does not take that from pred.
            float64 is refused while JAX computes in float32 alone.
    """
    make = _row("to_keras_loss", LOSSES, loss)
    name = check.float_dtype("to_keras_loss", dtype).name
    refuse_float64_without_x64("to_keras_loss", name)
    reduction = "sum" if loss.reduction == "sum" else "sum_over_batch_size"
    return make(loss, reduction=reduction, dtype=name)


def to_keras_optimizer(optimizer: Any) -> Any:
    """Return the Keras optimizer that makes the same steps from here on.

    It trains all trainable weights of the model that it is compiled with. With momentum, leave
    the learning rate of an SGD alone: Keras keeps lr * v where this framework keeps v, so that a
    new rate applies to new gradients only. Keras holds the rate in float32, and computes what Adam
    corrects its means by in the dtype of the weights: its first steps differ by 5e-5 of a step.

    Args:
        optimizer: An SGD with weight decay or momentum, not both; an Adam without weight decay; an
            AdamW. Adams have an eps of 1e-8 at most. None has made a step that it remembers.
    """
    make = _row("to_keras_optimizer", OPTIMIZERS, optimizer)
    slots = [name for name in optimizer.slots_in_use() if optimizer.state_dict()[name]]
    if slots:
        contract = "an optimizer before its first step (Keras's remembers nothing then)"
        raise ValueError(check.expected("to_keras_optimizer", contract, f"one with {slots[0]}"))
    return make(optimizer)


@keras.saving.register_keras_serializable("tinygrad_mnist")
class SquaredError(keras.losses.Loss):  # type: ignore[misc]
    """sum((y - t)**2) over the last axis, then what the reduction of a keras.losses.Loss says."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return an array (...) for y_true and y_pred (..., O); nothing is broadcast."""
        if y_true.shape != y_pred.shape:
            raise ValueError(check.expected(self, f"y_true of shape {y_pred.shape}", y_true.shape))
        return keras.ops.sum(keras.ops.square(y_pred - y_true), axis=-1)


@keras.saving.register_keras_serializable("tinygrad_mnist")
class CrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """-sum(q * log_softmax(y)) over the classes, q as in CrossEntropyLoss; then the reduction.

    Keras's own take either labels, without smoothing, or rows of probabilities; with class weights,
    their mean is not divided by the sum of the weights.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weight: tuple[float, ...] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.label_smoothing, self.class_weight = label_smoothing, class_weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return an array (...) for logits (..., K), and labels (...) or probabilities (..., K)."""
        ops, K, s = keras.ops, y_pred.shape[-1], self.label_smoothing
        labelled = y_true.shape == y_pred.shape[:-1]
        if not labelled and y_true.shape != y_pred.shape:
            contract = f"y_true of shape {y_pred.shape}, or labels of shape {y_pred.shape[:-1]}"
            raise ValueError(check.expected(self, contract, y_true.shape))
        t = ops.one_hot(ops.cast(y_true, "int32"), K, dtype=y_pred.dtype) if labelled else y_true
        w = ops.cast(self.class_weight or [1.0] * K, y_pred.dtype)
        q = w * ((1 - s) * t + s / K)
        terms = -ops.sum(q * ops.log_softmax(y_pred), axis=-1)
        if labelled and self.class_weight and self.reduction != "sum":
            weights = ops.sum(w * t, axis=-1)  # of the true classes, whose sum is n
            terms = terms * (ops.size(weights) / ops.sum(weights))
        return terms

    def get_config(self) -> dict[str, Any]:
        """Return the settings, from which Keras makes the loss again."""
        own = {"label_smoothing": self.label_smoothing, "class_weight": self.class_weight}
        return {**super().get_config(), **own}


def _mse(loss: MSELoss, **options: Any) -> Any:
    kind = keras.losses.MeanSquaredError if loss.reduction == "mean" else SquaredError
    return kind(**options)


def _cross_entropy(loss: CrossEntropyLoss, **options: Any) -> Any:
    return CrossEntropy(loss.label_smoothing, loss.class_weight, **options)


def _bce(loss: BCEWithLogitsLoss, **options: Any) -> Any:
    _refuse_sum(loss)
    return keras.losses.BinaryCrossentropy(from_logits=True, **options)


def _huber(loss: HuberLoss, **options: Any) -> Any:
    _refuse_sum(loss)
    return keras.losses.Huber(loss.delta, **options)


def _refuse_sum(loss: Any) -> None:
    if loss.reduction != "mean":
        contract = 'reduction "mean" (Keras sums means over the last axis)'
        raise ValueError(check.expected("to_keras_loss", contract, repr(loss)))


def _sgd(sgd: SGD) -> Any:
    if sgd.momentum and sgd.weight_decay:
        contract = "weight_decay or momentum, not both (Keras's decay passes the momentum by)"
        found = f"weight_decay={sgd.weight_decay} and momentum={sgd.momentum}"
        raise ValueError(check.expected("to_keras_optimizer", contract, found))
    decay = sgd.weight_decay or None  # None is no decay there
    return keras.optimizers.SGD(sgd.lr, sgd.momentum, sgd.nesterov, weight_decay=decay)


def _adam(adam: Adam) -> Any:
    if adam.weight_decay:
        contract = "an Adam without weight_decay (Keras's is that of AdamW)"
        found = f"weight_decay={adam.weight_decay}"
        raise ValueError(check.expected("to_keras_optimizer", contract, found))
    return keras.optimizers.Adam(adam.lr, *adam.betas, _epsilon(adam))


def _adamw(adam: AdamW) -> Any:
    kind, decay = keras.optimizers.AdamW, adam.weight_decay
    return kind(adam.lr, decay, *adam.betas, _epsilon(adam))


def _epsilon(adam: Adam) -> float:
    if adam.eps > 1e-8:
        contract = "eps of at most 1e-8 (Keras adds it before it corrects the root of v)"
        raise ValueError(check.expected("to_keras_optimizer", contract, adam.eps))
    return adam.eps


LOSSES: dict[type, Callable[..., Any]] = {
    MSELoss: _mse,
    CrossEntropyLoss: _cross_entropy,
    BCEWithLogitsLoss: _bce,
    HuberLoss: _huber,
}
OPTIMIZERS: dict[type, Callable[..., Any]] = {SGD: _sgd, Adam: _adam, AdamW: _adamw}


def _row(owner: str, table: dict[type, Callable[..., Any]], value: Any) -> Callable[..., Any]:
    if type(value) not in table or check.has_own_method(value):
        contract = f"{listed(kind.__name__ for kind in table)} alone"
        raise TypeError(check.expected(owner, contract, kind_of(value)))
    return table[type(value)]
