"""to_keras: a model in Keras, layer by layer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tinygrad_mnist import _checks as check
from tinygrad_mnist._tables import output_of, shared_dtype
from tinygrad_mnist.interop.keras._backend import keras, refuse_float64_without_x64
from tinygrad_mnist.interop.keras.layers import JOINS, PAIRS, arrays_of, features_of
from tinygrad_mnist.module import Module

Table = Mapping[type[Module], Callable[..., Any]]


def to_keras(model: Module, sample_shape: tuple[int, ...] | None = None) -> Any:
    """Return the same model, built in Keras, with copies of the weights; it takes batches alone.

    It is a keras.Sequential, or a functional keras.Model where a Residual or a Parallel is in it.
    Nesting is flattened, and a layer is named by its position, as in `named_parameters`: "2.1".
    Keras draws the masks of Dropout itself, and takes the mode at each call. In training there,
    BatchNorm's running variance follows that of the batch as Keras has it: divided by N, not N - 1.

    Args:
        model: Any nesting of Sequential, Residual, Parallel and what has a row in PAIRS.
        sample_shape: The shape of one sample, as in (28, 28, 1). None: one axis, of as many
            features as the first Linear, BatchNorm, LayerNorm or Unflatten says.

    Raises:
        TypeError: Another layer, a class derived from one of these, or a shared Parameter.
        ValueError: Layers that do not fit one another, or the sample; parameters of two dtypes, or
            of float64 while JAX computes in float32 alone.
    """
    table = {pair.ours: pair.to_keras for pair in PAIRS if pair.ours and pair.to_keras}
    leaves = _leaves(model, table)  # nothing is made before all is known to have a row
    dtype = shared_dtype("to_keras", (p for layer in leaves for p in layer.parameters())).name
    refuse_float64_without_x64("to_keras", dtype)
    made: list[Any] = []
    joins: list[Any] = []

    def apply(make: Callable[..., Any], path: str, layer: Module, x: Any) -> Any:
        translated = make(layer, name=path or None, dtype=dtype)
        translated = translated if isinstance(translated, list) else [translated]
        made.extend(translated)
        return _built(translated, layer, x)

    def join(how: str, path: str, ys: list[Any]) -> Any:
        shapes = sorted({y.shape[1:] for y in ys})
        with check.refusing("to_keras", f"branches that fit at {path or 'the top'}"):
            if how == "add" and len(shapes) > 1:  # Keras would broadcast
                raise ValueError(" and ".join(map(str, shapes)))
            joins.append(JOINS[how](name=path or None, dtype=dtype))
            return joins[-1](ys)

    x = keras.Input(_sample_shape(model, sample_shape, leaves), dtype=dtype)
    y = output_of("to_keras", model, table, x, apply, join)
    return keras.Model(x, y) if joins else keras.Sequential([x, *made])


def _leaves(model: Module, table: Table) -> list[Module]:
    """Return the layers in order; refuse one that has no row."""
    leaves: list[Module] = []
    output_of(
        "to_keras",
        model,
        table,
        None,
        lambda row, path, layer, x: leaves.append(layer),
        lambda how, path, ys: None,
    )
    return leaves


def _built(translated: list[Any], layer: Module, x: Any) -> Any:
    """Build layers of Keras with the weights of the one that they translate; return their y."""
    name = translated[-1].name
    with check.refusing("to_keras", f"x that fits layer {name!r}"):
        for theirs in translated:
            with _drawing_nothing(theirs):
                x = theirs(x)
    with check.refusing("to_keras", f"weights that fit layer {name!r}"):
        # copies, as JAX takes over the memory of an array that happens to be aligned
        translated[-1].set_weights([array.data.copy() for array in arrays_of(layer)])
    return x


@contextmanager
def _drawing_nothing(layer: Any) -> Iterator[None]:
    """Build a layer of zeros: JAX compiles a second or more for random weights, not kept here."""
    drawn = {name: value for name, value in vars(layer).items() if name.endswith("_initializer")}
    for name in drawn:
        setattr(layer, name, keras.initializers.Zeros())
    yield
    for name, value in drawn.items():
        setattr(layer, name, value)


def _sample_shape(model: Module, given: Any, leaves: list[Module]) -> tuple[int, ...]:
    if given is not None:
        return check.integers("to_keras", "sample_shape", given, at_least=1)
    features = next((n for layer in leaves if (n := features_of(layer))), None)
    if model.sample_axes == 1 and features:
        return (features,)
    contract = "sample_shape, where no Linear says it, as in (28, 28, 1)"
    raise check.value_error("to_keras", contract, given)
