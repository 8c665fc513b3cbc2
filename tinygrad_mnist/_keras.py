"""Keras, imported on a backend that is chosen first."""

import os
from importlib import import_module
from typing import Any

from tinygrad_mnist._checks import expected


def import_keras(owner: str) -> Any:
    """Return Keras, on JAX unless the environment variable KERAS_BACKEND says otherwise.

    Raises:
        ImportError: There is no Keras, or it cannot use the backend.
    """
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras reads it once, when it is imported
    try:
        return import_module("keras")
    except Exception as error:  # an unknown backend is a ValueError
        contract = "Keras and its backend (extra `keras`: pip install keras jax)"
        raise ImportError(expected(owner, contract, error)) from error
