"""Keras itself, on JAX unless KERAS_BACKEND says otherwise, and whether it computes in float64."""

import numpy as np

from tinygrad_mnist import _checks as check
from tinygrad_mnist._extras import import_keras

keras = import_keras("tinygrad_mnist.interop.keras")


def refuse_float64_without_x64(owner: str, dtype: str) -> None:
    """Refuse float64 where JAX would make float32 of it."""
    if dtype == "float64" and keras.config.backend() == "jax":
        import jax

        if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
            contract = 'JAX with float64 (jax.config.update("jax_enable_x64", True))'
            raise ValueError(check.expected(owner, contract, "float32 alone"))
