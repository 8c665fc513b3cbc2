"""Optional packages: imported where they are needed, or one sentence on what to install."""

import os
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

from tinygrad_mnist import _checks as check


def needing(owner: str, extra: str) -> AbstractContextManager[None]:
    """Turn an import that fails in a `with` block into an ImportError that names the extra."""
    contract = f"the extra `{extra}` (pip install 'tinygrad_mnist[{extra}]')"
    return check.refusing(owner, contract, ImportError)


def import_keras(owner: str) -> Any:
    """Return Keras, on JAX unless the environment variable KERAS_BACKEND says otherwise."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras reads it once, when it is imported
    with needing(owner, "keras"):  # an unknown backend is a ValueError
        return import_module("keras")
