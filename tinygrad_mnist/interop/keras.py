"""Models, losses and optimizers in Keras 3, and models back (needs the `keras` extra).

Keras is imported on JAX unless the environment variable KERAS_BACKEND says otherwise. What the two
frameworks do not define alike is refused: nothing is lost silently.

Layers are translated by `PAIRS`, one row a layer, both directions in the row. A row for a
custom layer makes both functions take it::

    PAIRS.append(Pair(Scale, KerasScale, scale_to_keras, scale_from_keras))
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._extras import import_keras
from tinygrad_mnist._tables import listed, rows_of, shared_dtype
from tinygrad_mnist.losses import MSELoss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Dropout, Linear, ReLU, Sequential
from tinygrad_mnist.optim import SGD
from tinygrad_mnist.parameter import Buffer, Parameter

keras = import_keras("tinygrad_mnist.interop.keras")


class Pair(NamedTuple):
    """A layer here and one in Keras that compute the same, and how to make each from the other.

    The two functions make the layers; their numbers are then copied: the Parameters of ours and,
    after them, its Buffers are the `weights` of theirs, in order. Rows are found by exact class.
    """

    ours: type[Module] | None  # None, as to_keras: theirs needs no layer here
    theirs: Any
    to_keras: Callable[..., Any] | None  # called with ours and the keywords name and dtype
    from_keras: Callable[[Any], Iterable[Module]]  # a ValueError says what would be lost
    plain: Mapping[str, Any] = {}  # arguments of the plain layer that theirs is compared with
    carried: Collection[str] = ()  # settings that may differ from it: translated, or initializers
    only: str = ""  # which of theirs are meant, as in "linear or relu"


def _to_dense(linear: Linear, **options: Any) -> Any:
    units = linear.weight.data.shape[1]
    return keras.layers.Dense(units, use_bias=linear.bias is not None, **options)


def _from_dense(dense: Any) -> list[Module]:
    features, units = dense.kernel.shape
    linear = Linear(features, units, dense.use_bias)
    if dense.activation is keras.activations.linear:
        return [linear]
    if dense.activation is keras.activations.relu:
        return [linear, ReLU()]
    name = getattr(dense.activation, "__name__", type(dense.activation).__name__)
    raise ValueError(f"activation={name}")


# a row for each layer: the later one counts where two are of one class
PAIRS = [
    Pair(
        Linear,
        keras.layers.Dense,
        _to_dense,
        _from_dense,
        plain={"units": 1},
        carried={"units", "activation", "use_bias", "kernel_initializer", "bias_initializer"},
        only="linear or relu",
    ),
    Pair(ReLU, keras.layers.ReLU, lambda _, **kw: keras.layers.ReLU(**kw), lambda _: [ReLU()]),
    Pair(
        Dropout,
        keras.layers.Dropout,
        lambda dropout, **options: keras.layers.Dropout(dropout.p, **options),
        lambda dropout: [Dropout(dropout.rate)],
        plain={"rate": 0},
        carried={"rate"},
    ),
    Pair(
        None,
        keras.layers.Flatten,
        None,
        lambda _: [],
        plain={"data_format": "channels_last"},
        only="of the input",
    ),
]


def to_keras(model: Module) -> Any:
    """Return a built keras.Sequential with copies of the weights; it takes x (B, I) alone.

    Linear becomes Dense; nesting is flattened, and a layer is named by its position, as in
    `named_parameters`: "2.1". Keras draws the masks of Dropout itself, and takes the mode at each
    call.

    model is any nesting of Sequential, Linear, ReLU, Dropout and what else has a row in PAIRS, with
    at least one Linear, the first of which has as many features as x.

    Raises:
        TypeError: A class derived from one of these, or a shared Parameter.
        ValueError: Parameters of two dtypes, or of float64 while JAX computes in float32 alone.
    """
    table = {pair.ours: pair.to_keras for pair in PAIRS if pair.ours and pair.to_keras}
    chain = rows_of("to_keras", model, table)
    first = next((layer for _, layer, _ in chain if isinstance(layer, Linear)), None)
    if first is None:
        raise ValueError(check.expected("to_keras", "at least one Linear", "none"))
    dtype = shared_dtype("to_keras", (p for _, layer, _ in chain for p in layer.parameters())).name
    _refuse_float64_without_x64("to_keras", dtype)
    translated = [make(layer, name=path or None, dtype=dtype) for path, layer, make in chain]
    features = first.weight.data.shape[0]
    converted = keras.Sequential([keras.Input((features,), dtype=dtype), *translated])
    for (_, layer, _), theirs in zip(chain, translated, strict=True):
        with check.refusing("to_keras", f"weights that fit layer {theirs.name!r}"):
            # copies, as JAX takes over the memory of an array that happens to be aligned
            theirs.set_weights([array.data.copy() for array in _arrays(layer)])
    return converted


def from_keras(model: Any) -> Sequential:
    """Return a Sequential with copies of the weights of a keras.Sequential.

    Dense becomes Linear, and a ReLU after it if that is its activation; nesting is flattened.
    Flatten has no layer here: give the result flat inputs. Names become positions. A setting that
    would be lost is a TypeError that names the layer.

    model is a built keras.Sequential of Dense, ReLU, Dropout, what else has a row in PAIRS, and
    Sequentials of these, all in float32 or all in float64; Flatten may come first.
    """
    if type(model) is not keras.Sequential:
        raise check.type_error("from_keras", "a keras.Sequential", model)
    if not getattr(model, "inputs", None):
        unbuilt = f"{model.name!r}, not built"
        raise ValueError(check.expected("from_keras", "a built model", unbuilt))
    modules: list[Module] = []
    before: list[Any] = []
    for layer in _leaves(model, "float32", "float64"):
        made = _translated(layer, model.inputs[0].dtype)
        arrays = _arrays(made)
        if type(layer) is keras.layers.Flatten and modules:
            raise _refusal(f"Flatten after {type(before[-1]).__name__}", layer)
        if arrays and layer in before:
            raise _refusal("the same weights again", layer)
        with check.refusing("from_keras", f"weights that fit layer {layer.name!r}"):
            for array, variable in zip(arrays, layer.weights, strict=True):
                array.data = keras.ops.convert_to_numpy(variable.value)
        modules += made
        before.append(layer)
    return Sequential(*modules)


def to_keras_loss(loss: MSELoss, *, dtype: DTypeLike = np.float32) -> Any:
    """Return the Keras loss of the same value and gradient: MeanSquaredError for "mean".

    "sum" and "batchmean" are a `SquaredError`. A saved model that was compiled with it loads
    where this module has been imported. On JAX, Keras takes every mean in float32. Its
    MeanSquaredError broadcasts shapes that MSELoss refuses: compare them yourself.

    Args:
        loss: An MSELoss.
        dtype: float32 or float64: what it is computed in; Keras does not take that from pred.
            float64 is refused while JAX computes in float32 alone.
    """
    if type(loss) is not MSELoss:
        raise check.type_error("to_keras_loss", "an MSELoss", loss)
    name = check.float_dtype("to_keras_loss", dtype).name
    _refuse_float64_without_x64("to_keras_loss", name)
    kind = keras.losses.MeanSquaredError if loss.reduction == "mean" else SquaredError
    reduction = "sum" if loss.reduction == "sum" else "sum_over_batch_size"
    return kind(reduction=reduction, dtype=name)


def to_keras_optimizer(sgd: SGD) -> Any:
    """Return the keras.optimizers.SGD that makes the same steps from here on.

    It trains all trainable weights of the model that it is compiled with. With momentum, leave
    its learning rate alone: Keras keeps lr * v where this framework keeps v, so that a new rate
    applies to new gradients only. Keras holds the rate in float32.

    sgd has weight decay or momentum, not both, and has not made a step with momentum.
    """
    if type(sgd) is not SGD:
        raise check.type_error("to_keras_optimizer", "an SGD", sgd)
    if sgd.momentum and sgd.weight_decay:
        contract = "weight_decay or momentum, not both (Keras's decay passes the momentum by)"
        found = f"weight_decay={sgd.weight_decay} and momentum={sgd.momentum}"
        raise ValueError(check.expected("to_keras_optimizer", contract, found))
    if sgd.momentum and sgd.state_dict()["velocities"]:
        contract = "an SGD before its first step (Keras's momentum is lr * v and starts at 0)"
        raise ValueError(check.expected("to_keras_optimizer", contract, "one with velocities"))
    decay = sgd.weight_decay or None  # None is no decay there
    return keras.optimizers.SGD(sgd.lr, sgd.momentum, sgd.nesterov, weight_decay=decay)


@keras.saving.register_keras_serializable("tinygrad_mnist")
class SquaredError(keras.losses.Loss):  # type: ignore[misc, name-defined]
    """sum((y - t)**2) over the last axis, then what the reduction of a keras.losses.Loss says."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return an array (...) for y_true and y_pred (..., O); nothing is broadcast."""
        if y_true.shape != y_pred.shape:
            raise ValueError(check.expected(self, f"y_true of shape {y_pred.shape}", y_true.shape))
        return keras.ops.sum(keras.ops.square(y_pred - y_true), axis=-1)


def _arrays(module: Module) -> list[Buffer]:
    """Return what Keras calls the weights of a layer: first those that are trained."""
    return [*module.parameters(), *(buffer for _, buffer in module.named_buffers())]


def _refuse_float64_without_x64(owner: str, dtype: str) -> None:
    if dtype == "float64" and keras.config.backend() == "jax":
        import jax

        if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
            contract = 'JAX with float64 (jax.config.update("jax_enable_x64", True))'
            raise ValueError(check.expected(owner, contract, "float32 alone"))


def _leaves(model: Any, *dtypes: str) -> Iterator[Any]:
    """Yield the layers of a nested keras.Sequential; refuse one that converts its input."""
    dtype = model.inputs[0].dtype
    if dtype not in dtypes:
        contract = f"inputs of dtype {' or '.join(dtypes)}"
        raise TypeError(check.expected("from_keras", contract, f"{dtype} in {model.name!r}"))
    if not model.trainable:
        raise _refusal("trainable=False", model)
    for layer in model.layers:
        if type(layer) is keras.Sequential:
            yield from _leaves(layer, dtype)
        else:
            yield layer


def _translated(layer: Any, dtype: str) -> Sequential:
    """Return our layers for one of Keras, without its weights; refuse what would be lost."""
    pair = {pair.theirs: pair for pair in PAIRS}.get(type(layer))
    if pair is None:
        raise _refusal(type(layer).__name__, layer)
    try:  # first: Keras fails to write down some of the activations that are refused here
        made = Sequential(*pair.from_keras(layer)).astype(dtype)
    except ValueError as error:
        raise _refusal(str(error), layer) from error
    plain = _settings(pair.theirs(**pair.plain, dtype=dtype, name=layer.name))
    for name, value in _settings(layer).items():
        if name not in pair.carried and value != plain.get(name):
            raise _refusal(f"{name}={check.described(value)}", layer)
    for array, variable in zip(_arrays(made), layer.weights, strict=False):
        trained = isinstance(array, Parameter)
        for name, usual in (("trainable", trained), ("regularizer", None), ("constraint", None)):
            value = getattr(variable, name)
            if value is not usual:
                raise _refusal(f"{name}={check.described(value)} of its {variable.name}", layer)
    return made


def _settings(layer: Any) -> dict[str, Any]:
    return {**layer.get_config(), "dtype": layer.dtype_policy.name}


def _refusal(found: str, layer: Any) -> TypeError:
    names = [p.theirs.__name__ + (f" ({p.only})" if p.only else "") for p in PAIRS]
    contract = f"{listed(['Sequential', *names])} alone"
    return TypeError(check.expected("from_keras", contract, f"{found} in layer {layer.name!r}"))
