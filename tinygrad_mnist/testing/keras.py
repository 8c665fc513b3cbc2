"""check_keras: layers and models of Keras on JAX (needs the extra `keras`)."""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Unpack
from unittest import mock

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._extras import import_keras
from tinygrad_mnist.testing.differences.checker import Settings
from tinygrad_mnist.testing.functions import argument_names, check_function, distinct
from tinygrad_mnist.testing.report import GradientReport

__all__ = ["check_keras"]

keras = import_keras("tinygrad_mnist.testing.keras")
from tinygrad_mnist.testing.jax import floats_in, jax_function, precision  # noqa: E402


def check_keras(
    layer: Any,
    *inputs: Any,
    training: bool = False,
    dtype: DTypeLike = np.float64,
    **settings: Unpack[Settings],
) -> GradientReport:
    """Check a layer or a model of Keras, and its trainable variables, by central differences.

    What is checked is what `jax.vjp` says of a call. Seed generators and the other variables that
    are not trained are the same at each forward. The layer is left as found; one that has no
    variables yet is built.

    Args:
        layer: A keras.Layer or keras.Model, on the backend JAX.
        inputs: What it is called with: arrays, or trees of them. Integers stay what they are.
        training: The mode, for a layer that has modes.
        dtype: float64 or float32: what layer and floats are converted to, for the check alone. For
            float64 it is switched on in JAX, in this thread, and in a private table of Keras, in
            all threads. With a Keras that has no such table, what it rounds to float32 is judged
            by that precision.
        settings: Those of `check_gradients`.

    Raises:
        GradientCheckError: A gradient is wrong; its `report` says where.
        ModuleContractError: The layer breaks a rule; its `rule` says how.
        InconclusiveGradientCheck: Too little could be judged to say anything.
    """
    owner = "check_keras"
    kind = check.float_dtype(owner, dtype)
    if keras.config.backend() != "jax":
        raise ValueError(check.expected(owner, "Keras on JAX", keras.config.backend()))
    if not isinstance(layer, keras.Layer):
        raise check.type_error(owner, "a keras.Layer", layer)
    mode = {"training": training} if "training" in inspect.signature(layer.call).parameters else {}
    if not layer.built:
        layer(*keras.tree.map_structure(_symbolic, inputs), **mode)
    with precision(kind), _computing_in(kind.name, layer):
        arrays, rebuilt = floats_in(inputs, argument_names(layer.call, len(inputs)), kind)
        first = len(arrays)
        trained = layer.trainable_variables
        values = [np.array(v.value, kind) for v in trained]
        names = distinct([*arrays, *(v.path for v in trained)])
        named = dict(zip(names, [*arrays.values(), *values], strict=True))

        def call(*floats: Any) -> Any:
            with keras.StatelessScope() as scope:
                for update in zip(trained, floats[first:], strict=True):
                    scope.add_update(update)  # which, unlike a mapping, keeps the dtype
                return layer(*rebuilt(floats[:first]), **mode)

        function = jax_function(type(layer).__name__, call, named)
        return check_function(owner, function, named, settings, names[first:])


def _symbolic(array: Any) -> Any:
    """Return a stand-in, which builds a layer and moves nothing in it."""
    kind = "float32" if np.asarray(array).dtype.kind == "f" else "int32"
    return keras.KerasTensor(np.shape(array), kind)


@contextmanager
def _computing_in(dtype: str, layer: Any) -> Iterator[None]:
    """Let a layer and all inside it compute in a dtype, whatever they were made for."""
    layers = layer._flatten_layers()
    chains = [each for each in layers if isinstance(each, keras.Sequential)]
    layers += [chain._functional for chain in chains if chain._functional]
    # what a model converts its inputs to
    doors = [each for each in layers if isinstance(each, keras.layers.InputLayer)]
    doors += [tensor for each in layers for tensor in getattr(each, "_inputs", ())]
    policies = [each.dtype_policy for each in layers]
    with ExitStack() as patches:
        if dtype == "float64":
            # on JAX, Keras's operations return float32 for what is a float64 in this table
            with suppress(ImportError):
                from keras.src.backend.common.dtypes import BIT64_TO_BIT32_DTYPE as lowered

                patches.enter_context(mock.patch.dict(lowered, float64="float64"))
        for door in doors:
            if door.dtype.startswith("float"):
                patches.enter_context(mock.patch.object(door, "_dtype", dtype))
        try:
            for each in layers:
                each.dtype_policy = dtype
            yield
        finally:
            for each, policy in zip(layers, policies, strict=True):
                each.dtype_policy = policy
