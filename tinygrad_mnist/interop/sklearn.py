"""Networks as estimators, for pipelines and searches of scikit-learn (needs the extra `sklearn`).

They are scikit-learn's kind of object: `fit` and `predict`, settings that `set_params` changes,
`clone`, `cross_val_score`. What it says of estimators holds for them, unless it is said here.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _blas, training
from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._extras import needing
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.losses import CrossEntropyLoss, MSELoss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Dropout, Linear, ReLU, Sequential
from tinygrad_mnist.optim import AdamW
from tinygrad_mnist.optim.schedules import cosine_decay

with needing("tinygrad_mnist.interop.sklearn", "sklearn"):
    from scipy.special import log_softmax, softmax
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler
    from sklearn.utils import check_random_state, column_or_1d
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data


class _WeightedCrossEntropy(CrossEntropyLoss):
    """L = -sum(q * log(softmax(y))) / B, for q = w * t: logits y and probabilities t (B, K).

    dL/dy = w * (softmax(y) - t) / B, as w = Q = sum(q) over the classes. The target is q.
    """

    def checked_target(self, y: FloatArray, target: Any) -> NDArray[Any]:
        return target  # type: ignore[no-any-return]

    def weighted(self, y: FloatArray, t: NDArray[Any]) -> tuple[FloatArray, float]:
        return t, len(t)


class _WeightedMSE(MSELoss):
    """L = sum(w * (y - t)**2) / n, for y and t (B, O), w (B, 1) and n = B * O.

    dL/dy = 2 * w * (y - t) / n. The target is t with w as one more column.
    """

    def checked_target(self, y: FloatArray, target: Any) -> NDArray[Any]:
        return target  # type: ignore[no-any-return]

    def compute(self, y: FloatArray, t: FloatArray) -> tuple[float, FloatArray, float]:
        t, w = t[:, :-1], t[:, -1:]
        error = y - t
        weighted = w * error
        return _blas.dot(weighted, error), weighted, y.size


@dataclass(eq=False, repr=False)  # it writes the __init__ that scikit-learn reads settings from
class _Net(BaseEstimator):  # type: ignore[misc]
    """What both do: scale, build, train, and make the `model_`, which takes X unscaled."""

    hidden: tuple[int, ...] = (100,)
    _: KW_ONLY
    lr: float = 0.01
    batch_size: int = 32
    epochs: int = 50
    dropout: float = 0.0
    weight_decay: float = 0.1
    early_stopping: bool = False
    validation_fraction: float = 0.1
    patience: int = 10
    random_state: Any = None

    def _validated(self, X: Any, y: Any, sample_weight: Any, first: bool, **of_y: Any) -> Any:
        """Return X, y and the weights as arrays."""
        x, y = validate_data(self, X, y, reset=first, dtype=np.float64, **of_y)
        w = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        return x, y, w

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Put back what there was if something fails, half a fit included."""
        before = self.__dict__.copy()
        parts = "_net", "_optimizer", "_rng"
        trained: dict[str, Any] = {name: before[name] for name in parts if name in before}
        try:
            self.__dict__ |= copy.deepcopy(trained)  # together, as they share what is in them
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _counted(self, w: FloatArray, whole: bool) -> FloatArray:
        """Return the weights, in a whole fit divided by their mean, which no batch alone knows."""
        if not w.any():
            raise check.refusal(ValueError, self, "a sample of weight > 0", "none")
        return w / w.mean() if whole else w

    def _build(self, x: FloatArray, w: FloatArray, outputs: int) -> None:
        """Learn the scale of x; make a network and its optimizer."""
        empty = isinstance(self.hidden, (tuple, list)) and not self.hidden  # a linear model
        hidden = () if empty else check.integers(self, "hidden", self.hidden, at_least=1)
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        self._rng = rng = np.random.default_rng(seed)
        self._x_scaler = StandardScaler().fit(x, sample_weight=w)
        layers: list[Module] = []
        for i, o in pairwise((x.shape[1], *hidden, outputs)):
            if layers:
                layers += [ReLU(), Dropout(self.dropout, rng=rng)] if self.dropout else [ReLU()]
            layers.append(Linear(i, o, rng=rng, input_grad=bool(layers)))
        self._net = Sequential(*layers)
        self._optimizer = AdamW(self._net.parameters(), self.lr, weight_decay=self.weight_decay)

    def _train(self, x: FloatArray, t: FloatArray, whole: bool, classes: Any = None) -> Self:
        """Train for all epochs or one, on x and on targets as the loss takes them; return self."""
        x, t = self._x_scaler.transform(x).astype(np.float32), t.astype(np.float32)
        validation, callbacks = None, list[training.Callback]()
        if check.flag(self, "early_stopping", self.early_stopping):
            seed, fraction = int(self._rng.integers(2**32)), self.validation_fraction
            with check.refusing(self, f"validation_fraction={fraction} to split the samples"):
                x, x_held, t, t_held = train_test_split(
                    x, t, test_size=fraction, random_state=seed, stratify=classes
                )
            validation = x_held, t_held
            callbacks.append(training.EarlyStopping(patience=self.patience, restore_best=True))
        loader = DataLoader(x, t, self.batch_size, shuffle=True, rng=self._rng)
        epochs, self._optimizer.lr = 1, self.lr  # partial_fit keeps the rate
        self._optimizer.weight_decay = self.weight_decay
        if whole:
            epochs = check.integer(self, "epochs", self.epochs, at_least=1)
            decay = cosine_decay(self.lr, steps=epochs * len(loader))
            callbacks.append(training.LearningRate(decay, "step"))
        self.history_ = training.fit(
            self._net,
            self._loss(),
            self._optimizer,
            loader,
            epochs=epochs,
            validation=validation,
            metrics=(),
            callbacks=callbacks,
            progress=False,
        )
        self._net.zero_grad()  # a pickle stays small
        self.model_ = self._unscaled()
        return self

    def _unscaled(self) -> Sequential:
        """Return the network as one of X and y as they are: its ends take over the scales."""
        model = copy.deepcopy(self._net).astype(np.float64).eval()
        first, last = model[0], model[-1]
        first.weight.data /= self._x_scaler.scale_[:, None]
        first.bias.data -= self._x_scaler.mean_ @ first.weight.data
        last.weight.data *= self._y_scale
        last.bias.data = last.bias.data * self._y_scale + self._y_mean
        return model

    def _is_first(self, whole: bool) -> bool:
        """Return whether there is no network to go on with."""
        if self.early_stopping and not whole:
            contract = "early_stopping=False in partial_fit"
            raise check.value_error(self, contract, self.early_stopping)
        return whole or not hasattr(self, "model_")

    def _outputs(self, X: Any) -> FloatArray:
        check_is_fitted(self)
        return training.predict(self.model_, validate_data(self, X, reset=False, dtype=np.float64))


@dataclass(eq=False, repr=False)
class NetClassifier(ClassifierMixin, _Net):  # type: ignore[misc]
    """A network that tells classes apart: Linear layers with ReLU between, and cross-entropy.

    Inputs are standardised inside. AdamW trains, in `fit` at a rate that falls to 0 by
    `cosine_decay`. The same int as `random_state` gives the same network, to the bit.

    Args:
        hidden: How many units each hidden layer has; () is a linear model.
        lr: The step size of AdamW; in `fit` that of the first step.
        batch_size: How many samples a step takes.
        epochs: How often `fit` goes through the samples, at most.
        dropout: The probability of zeroing a hidden unit in training.
        weight_decay: That of AdamW.
        class_weight: How much the samples of a class count, as {class: weight}; with "balanced",
            all classes count the same; with None, all samples.
        early_stopping: Whether `fit` holds some samples back, stops when their loss has not
            improved for `patience` epochs, and keeps the network of the best epoch.
        validation_fraction: How many of the samples it holds back.
        patience: See early_stopping.
        random_state: An int, a np.random.RandomState, or None for NumPy's global one, as everywhere
            in scikit-learn.

    Attributes:
        model_: The trained Sequential, in float64. It takes X unscaled; its outputs are logits.
            `save_model` and `to_onnx` take it, `to_keras` a copy of it in float32.
        history_: The History of the last `fit` or `partial_fit`.
        classes_: The labels, sorted.
        n_features_in_: How many columns X had.
        feature_names_in_: Their names, of a DataFrame.
    """

    _: KW_ONLY
    class_weight: Any = None
    _loss: ClassVar = _WeightedCrossEntropy
    _y_mean: ClassVar = 0.0
    _y_scale: ClassVar = 1.0

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train a new network on X (N, I) and labels y (N,): numbers or strings."""
        with self._all_or_nothing():
            return self._fit(X, y, sample_weight, None, whole=True)

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch. The first call sets `classes_`, and the scale of X, for good."""
        if isinstance(self.class_weight, str):
            contract = "class_weight as numbers in partial_fit"
            raise check.value_error(self, contract, self.class_weight)
        with self._all_or_nothing():
            return self._fit(X, y, sample_weight, classes, whole=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, classes: Any, whole: bool) -> Self:
        first = self._is_first(whole)
        if first and classes is None and not whole:
            raise check.value_error(self, "classes in the first partial_fit", classes)
        x, y, w = self._validated(X, column_or_1d(y, warn=True), sample_weight, first)
        check_classification_targets(y)
        if first:
            self.classes_ = np.unique(y if whole else classes)
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise check.value_error(self, "classes to be classes_", classes)
        k = len(self.classes_)
        if k < 2:
            raise check.refusal(ValueError, self, "y of 2 classes or more", f"{k} class")
        unknown = y[~np.isin(y, self.classes_)]
        if len(unknown):
            raise check.value_error(self, "y to be among classes_", unknown.tolist()[0])
        w = self._counted(w, whole)
        if first:
            self._build(x, w, k)
        labels = np.searchsorted(self.classes_, y)
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        for weight in weights.tolist():
            check.real(self, "class_weight", weight, "[0, inf)")
        w = self._counted(w * weights[labels], whole)
        return self._train(x, w[:, None] * np.eye(k)[labels], whole, labels)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row of X."""
        best = self._outputs(X).argmax(axis=1)
        return self.classes_[best]  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> FloatArray:
        """Return (N, K): the probability of each class, in the order of `classes_`."""
        return softmax(self._outputs(X), axis=1)  # type: ignore[no-any-return]

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Return the logarithms of `predict_proba`, finite also where that rounds to 0."""
        return log_softmax(self._outputs(X), axis=1)  # type: ignore[no-any-return]


class NetRegressor(RegressorMixin, _Net):  # type: ignore[misc]
    """A network that predicts numbers: Linear layers with ReLU between, and the squared error.

    Its arguments are those of NetClassifier but for class_weight, its attributes the same but for
    `classes_`. Targets are standardised inside, too; the outputs of `model_` are y.
    """

    _loss: ClassVar = _WeightedMSE

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train a new network on X (N, I) and numbers y, (N,) or (N, O)."""
        with self._all_or_nothing():
            return self._fit(X, y, sample_weight, whole=True)

    def partial_fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch. The first call sets the scales of X and y for good."""
        with self._all_or_nothing():
            return self._fit(X, y, sample_weight, whole=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, whole: bool) -> Self:
        first = self._is_first(whole)
        x, y, w = self._validated(X, y, sample_weight, first, multi_output=True, y_numeric=True)
        w, t = self._counted(w, whole), y.reshape(len(y), -1)
        if first:
            scaler = StandardScaler().fit(t, sample_weight=w)
            self._y_mean, self._y_scale, self._flat = scaler.mean_, scaler.scale_, y.ndim == 1
            self._build(x, w, t.shape[1])
        check.same_shape(self, "y", t, (len(x), len(self._y_mean)))
        return self._train(x, np.column_stack([(t - self._y_mean) / self._y_scale, w]), whole)

    def predict(self, X: Any) -> FloatArray:
        """Return y for the rows of X, of as many axes as the y of `fit`."""
        y = self._outputs(X)
        return y[:, 0] if self._flat else y

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn's own checks and tools go by."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
