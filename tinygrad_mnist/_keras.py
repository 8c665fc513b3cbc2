"""Keras, imported on a backend that is chosen first."""

import os
from importlib import import_module
from typing import Any

from tinygrad_mnist._checks import refusing


def import_keras(owner: str) -> Any:
    """Return Keras, on JAX unless the environment variable KERAS_BACKEND says otherwise.

    Raises:
        ImportError: There is no Keras, or it cannot use the backend.
    """
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras reads it once, when it is imported
    contract = "Keras and its backend (extra `keras`: pip install keras jax)"
    with refusing(owner, contract, ImportError):  # an unknown backend is a ValueError
        return import_module("keras")
