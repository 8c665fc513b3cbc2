"""Transforms: from labels to targets."""

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray


def one_hot(labels: ArrayLike, num_classes: int = 10, dtype: DTypeLike = np.float32) -> FloatArray:
    """Return an array of shape `(*labels.shape, num_classes)`: 1 at each label, 0 elsewhere.

    labels are integers in [0, num_classes), of any shape; dtype is float32 or float64.
    """
    num_classes = check.integer("one_hot", "num_classes", num_classes, at_least=1)
    dtype = check.float_dtype("one_hot", dtype)
    classes = check.real_array("one_hot", "labels", labels)
    if not classes.size:
        classes = classes.astype(np.int64)  # np.asarray([]) is float64; no labels are fine
    indices = check.class_indices("one_hot", classes, num_classes)
    hot = np.zeros((*classes.shape, num_classes), dtype)
    np.put_along_axis(hot, indices[..., None], 1, axis=-1)
    return hot
