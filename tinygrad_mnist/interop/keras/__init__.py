"""Models, losses and optimizers in Keras 3, and models back (needs the `keras` extra).

Keras is imported on JAX unless the environment variable KERAS_BACKEND says otherwise. What the two
frameworks do not define alike is refused: nothing is lost silently.

Layers are translated by `PAIRS`, one row a layer, both directions in the row. A row for a
custom layer makes both functions take it::

    PAIRS.append(Pair(Scale, KerasScale, scale_to_keras, scale_from_keras))
"""

from tinygrad_mnist.interop.keras._backend import keras
from tinygrad_mnist.interop.keras.exporting import to_keras
from tinygrad_mnist.interop.keras.importing import from_keras
from tinygrad_mnist.interop.keras.layers import PAIRS, Pair
from tinygrad_mnist.interop.keras.training import (
    CrossEntropy,
    SquaredError,
    to_keras_loss,
    to_keras_optimizer,
)

__all__ = [
    "PAIRS",
    "CrossEntropy",
    "Pair",
    "SquaredError",
    "from_keras",
    "keras",
    "to_keras",
    "to_keras_loss",
    "to_keras_optimizer",
]
