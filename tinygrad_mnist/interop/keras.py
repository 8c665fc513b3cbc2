"""Models, losses and optimizers in Keras 3, and models back (needs the `keras` extra).

Keras is imported on JAX unless the environment variable KERAS_BACKEND says otherwise. What the two
frameworks do not define alike is refused: nothing is lost on the way without a word.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._extras import import_keras
from tinygrad_mnist._tables import (
    checked_parameters,
    flattened,
    has_own_method,
    is_plain,
    is_shared,
    parameters_of,
)
from tinygrad_mnist.losses import MSELoss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Dropout, Linear, ReLU, Sequential
from tinygrad_mnist.optim import SGD

keras = import_keras("tinygrad_mnist.interop.keras")
_Loss: Any = keras.losses.Loss

_THEIRS = "Dense (linear or relu), ReLU, Dropout, Flatten of the input and InputLayer"
# a plain layer of each kind, and its settings that come along, or only matter before training
_PLAIN: dict[type, tuple[dict[str, Any], set[str]]] = {
    keras.layers.Dense: (
        {"units": 1},
        {"units", "activation", "use_bias", "kernel_initializer", "bias_initializer"},
    ),
    keras.layers.ReLU: ({}, set()),
    keras.layers.Dropout: ({"rate": 0}, {"rate"}),
    keras.layers.Flatten: ({"data_format": "channels_last"}, set()),
}


def to_keras(model: Sequential) -> Any:
    """Return a built keras.Sequential with copies of the weights; it takes x (B, I) alone.

    Linear becomes Dense; nesting is flattened, and a layer is named by its position, as in
    `named_parameters`: "2.1". Keras draws the masks of Dropout anew, and takes the mode at each
    call.

    Args:
        model: Any nesting of Sequential, Linear, ReLU and Dropout, with at least one Linear.

    Raises:
        TypeError: Another Module, a class derived from one of these, or a shared Parameter.
        ValueError: No Linear, widths that do not fit, parameters of two dtypes, or of float64
            while JAX computes in float32 alone.
    """
    if type(model) is not Sequential:
        raise TypeError(check.expected("to_keras", "a Sequential", check.described(model)))
    layers = dict(flattened(model))
    for name, layer in layers.items():
        _refuse_unless_plain(name, layer)
    linears = {name: layer for name, layer in layers.items() if isinstance(layer, Linear)}
    dtype = _checked_dtype(linears)
    features = next(iter(linears.values())).weight.data.shape[0]
    converted = keras.Sequential(
        [
            keras.Input((features,), dtype=dtype),
            *(_to_layer(layer, name=name, dtype=dtype) for name, layer in layers.items()),
        ]
    )
    for name, linear in linears.items():
        # JAX takes over the memory of an array that happens to be aligned
        converted.get_layer(name).set_weights([p.data.copy() for p in parameters_of(linear)])
    return converted


def from_keras(model: Any) -> Sequential:
    """Return a Sequential with copies of the weights of a keras.Sequential.

    Dense becomes Linear, and a ReLU after it if that is its activation; nesting is flattened.
    Flatten has no layer here: give the result flat inputs. Names become positions.

    Args:
        model: A built keras.Sequential of Dense, ReLU, Dropout, Flatten before the first Dense,
            InputLayer, or Sequentials of these, all in float32 or all in float64.

    Raises:
        TypeError: Another model, layer or dtype, or a layer with a setting that would be lost; it
            names the layer.
        ValueError: The model is not built.
    """
    if type(model) is not keras.Sequential:
        raise TypeError(check.expected("from_keras", "a keras.Sequential", check.described(model)))
    if not getattr(model, "inputs", None):
        raise ValueError(
            check.expected("from_keras", "a built model", f"{model.name!r}, not built")
        )
    layers = list(_chain(model, "float32", "float64"))
    _check_order(layers)
    return Sequential(*(module for layer in layers for module in _from_layer(layer)))


def to_keras_loss(loss: MSELoss, *, dtype: DTypeLike = np.float32) -> Any:
    """Return the Keras loss of the same value and gradient: MeanSquaredError for "mean".

    "sum" and "batchmean" are a `SquaredError`. A saved model that was compiled with it loads
    where this module has been imported. On JAX, Keras takes every mean in float32. Its
    MeanSquaredError broadcasts shapes that MSELoss refuses: compare them yourself.

    Args:
        loss: An MSELoss.
        dtype: float32 or float64: what it is computed in; Keras does not take that from pred.

    Raises:
        TypeError: Another loss or dtype.
        ValueError: float64 while JAX computes in float32 alone.
    """
    if type(loss) is not MSELoss:
        raise TypeError(check.expected("to_keras_loss", "an MSELoss", check.described(loss)))
    reduction: Any = loss.reduction
    loss = MSELoss(reduction)  # refuses one that was set to what it cannot mean
    name = check.float_dtype("to_keras_loss", dtype).name
    _refuse_float64_without_x64("to_keras_loss", name)
    if loss.reduction == "mean":
        return keras.losses.MeanSquaredError(dtype=name)
    keras_reduction = {"sum": "sum", "batchmean": "sum_over_batch_size"}[loss.reduction]
    return SquaredError(reduction=keras_reduction, dtype=name)


def to_keras_optimizer(sgd: SGD) -> Any:
    """Return the keras.optimizers.SGD that makes the same steps from here on.

    It trains all trainable weights of the model that it is compiled with. With momentum, leave
    its learning rate alone: Keras keeps lr * v where this framework keeps v, so that a new rate
    applies to new gradients only. Keras holds the rate in float32.

    Args:
        sgd: An SGD with weight decay or momentum, not both; before its first step with momentum.

    Raises:
        TypeError: Another optimizer.
        ValueError: Settings that the two define differently, or velocities.
    """
    if type(sgd) is not SGD:
        raise TypeError(check.expected("to_keras_optimizer", "an SGD", check.described(sgd)))
    velocities = sgd.state_dict()["velocities"]
    # refuses settings that were set to what they cannot mean
    sgd = SGD(sgd.params, sgd.lr, sgd.momentum, sgd.weight_decay, sgd.nesterov)
    if sgd.momentum and sgd.weight_decay:
        contract = "weight_decay or momentum, not both (Keras's decay passes the momentum by)"
        found = f"weight_decay={sgd.weight_decay} and momentum={sgd.momentum}"
        raise ValueError(check.expected("to_keras_optimizer", contract, found))
    if sgd.momentum and velocities:
        contract = "an SGD before its first step (Keras's momentum is lr * v and starts at 0)"
        raise ValueError(check.expected("to_keras_optimizer", contract, "one with velocities"))
    return keras.optimizers.SGD(
        sgd.lr, sgd.momentum, sgd.nesterov, weight_decay=sgd.weight_decay or None
    )


@keras.saving.register_keras_serializable("tinygrad_mnist")
class SquaredError(_Loss):  # type: ignore[misc]
    """sum((y - t)**2) over the last axis, then what the reduction of a keras.losses.Loss says."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return an array (...) for y_true and y_pred (..., O); nothing is broadcast."""
        if y_true.shape != y_pred.shape:
            raise ValueError(check.expected(self, f"y_true of shape {y_pred.shape}", y_true.shape))
        return keras.ops.sum(keras.ops.square(y_pred - y_true), axis=-1)


def _refuse_unless_plain(name: str, layer: Module) -> None:
    if not is_plain(layer):
        kind = type(layer).__name__
        found = f"a {kind} of one's own" if has_own_method(layer) else kind
        contract = "Sequential, Linear, ReLU and Dropout alone"
        raise TypeError(check.expected("to_keras", contract, f"{found} at {name or 'the top'}"))


def _checked_dtype(linears: dict[str, Linear]) -> str:
    """Return the one dtype of all parameters, none of them shared, or refuse them."""
    params = checked_parameters("to_keras", linears)
    if is_shared(params):
        raise TypeError(check.expected("to_keras", "no shared Parameter", "one"))
    dtype = params[0].data.dtype.name
    _refuse_float64_without_x64("to_keras", dtype)
    return dtype


def _refuse_float64_without_x64(owner: str, dtype: str) -> None:
    if dtype == "float64" and not _has_float64():
        contract = 'JAX with float64 (jax.config.update("jax_enable_x64", True))'
        raise ValueError(check.expected(owner, contract, "float32 alone"))


def _has_float64() -> bool:
    if keras.config.backend() != "jax":
        return True
    import jax

    return bool(jax.dtypes.canonicalize_dtype(np.float64) == np.float64)


def _to_layer(layer: Module, **options: Any) -> Any:
    if isinstance(layer, Linear):
        units, use_bias = layer.weight.data.shape[1], layer.bias is not None
        return keras.layers.Dense(units, use_bias=use_bias, **options)
    if isinstance(layer, Dropout):
        p = Dropout(layer.p).p  # refuses one that was set to what it cannot mean
        return keras.layers.Dropout(p, **options)
    return keras.layers.ReLU(**options)


def _chain(model: Any, *dtypes: str) -> Iterator[Any]:
    """Yield the layers of a nested keras.Sequential, or refuse what no Module stands for."""
    dtype = model.inputs[0].dtype
    if dtype not in dtypes:
        contract = f"inputs of dtype {' or '.join(dtypes)}"
        raise TypeError(check.expected("from_keras", contract, f"{dtype} in {model.name!r}"))
    if not model.trainable:
        raise TypeError(_refusal("trainable=False", model))
    for layer in model.layers:
        if type(layer) is keras.Sequential:
            yield from _chain(layer, dtype)
        elif type(layer) in _PLAIN:
            _refuse_what_would_be_lost(layer, dtype)
            yield layer
        else:
            raise TypeError(_refusal(type(layer).__name__, layer))


def _refuse_what_would_be_lost(layer: Any, dtype: str) -> None:
    if isinstance(layer, keras.layers.Dense):
        _from_activation(layer)  # before Keras tries to write down what it may not be able to
    required, kept = _PLAIN[type(layer)]
    plain = _settings(type(layer)(**required, dtype=dtype, name=layer.name))
    for name, value in _settings(layer).items():
        if name not in kept and value != plain.get(name):
            raise TypeError(_refusal(f"{name}={check.described(value)}", layer))
    if isinstance(layer, keras.layers.Dense):
        _refuse_settings_of_variables(layer)


def _refuse_settings_of_variables(dense: Any) -> None:
    for variable in dense.weights:
        for name, plain in (("trainable", True), ("regularizer", None), ("constraint", None)):
            value = getattr(variable, name)
            if value is not plain:
                found = f"{name}={check.described(value)} of its {variable.name}"
                raise TypeError(_refusal(found, dense))


def _settings(layer: Any) -> dict[str, Any]:
    return {**layer.get_config(), "dtype": layer.dtype_policy.name}


def _check_order(layers: list[Any]) -> None:
    dense: list[Any] = []
    for layer in layers:
        if isinstance(layer, keras.layers.Flatten) and dense:
            raise TypeError(_refusal("Flatten after Dense", layer))
        if any(layer is before for before in dense):
            raise TypeError(_refusal("the same weights again", layer))
        if isinstance(layer, keras.layers.Dense):
            dense.append(layer)


def _from_layer(layer: Any) -> list[Module]:
    if isinstance(layer, keras.layers.Dense):
        return [_from_dense(layer), *_from_activation(layer)]
    if isinstance(layer, keras.layers.Dropout):
        if layer.rate == 1:
            raise TypeError(_refusal("rate=1", layer))
        return [Dropout(layer.rate)]
    return [ReLU()] if isinstance(layer, keras.layers.ReLU) else []


def _from_dense(layer: Any) -> Linear:
    weight, *bias = (keras.ops.convert_to_numpy(variable.value) for variable in layer.weights)
    features, units = weight.shape
    linear = Linear(features, units, bool(bias), init=lambda *_: weight, dtype=weight.dtype)
    if linear.bias is not None:
        linear.bias.data = bias[0]
    return linear


def _from_activation(dense: Any) -> list[Module]:
    if dense.activation is keras.activations.linear:
        return []
    if dense.activation is keras.activations.relu:
        return [ReLU()]
    name = getattr(dense.activation, "__name__", type(dense.activation).__name__)
    raise TypeError(_refusal(f"activation={name}", dense))


def _refusal(found: str, layer: Any) -> str:
    return check.expected("from_keras", f"{_THEIRS} alone", f"{found} in layer {layer.name!r}")
