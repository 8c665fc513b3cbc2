"""predict: what a model says of many samples."""

import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist.module import Module


def predict(model: Module, x: ArrayLike, batch_size: int = 512) -> NDArray[Any]:
    """Return y (N, ...) for the samples x (N, ...), computed batch by batch in evaluation mode.

    A copy of the model computes it: the model keeps its mode, and nothing of x. A layer that draws
    random numbers also in this mode draws the same at every call. Of an `np.memmap`, only the pages
    of a batch are read.

    Args:
        model: Any Module of one input.
        x: Samples on the first axis. One sample is `x[None]`; none give (0, ...).
        batch_size: How many samples go through the model at once, at least 1.
    """
    if not isinstance(model, Module):
        raise check.type_error("predict", "a Module", model)
    x = check.real_array("predict", "x", x)
    if x.ndim <= model.sample_axes:
        contract = f"samples x of {model.sample_axes + 1} axes or more"
        raise check.value_error("predict", contract, x.shape)
    size = check.integer("predict", "batch_size", batch_size, at_least=1)
    twin = copy.deepcopy(model).eval()
    batches = [x[start : start + size] for start in range(0, max(len(x), 1), size)]
    return np.concatenate([_predicted(twin, batch) for batch in batches])


def _predicted(model: Module, batch: NDArray[Any]) -> NDArray[Any]:
    contract = f"y of {len(batch)} rows, one a sample"
    y = model(batch)
    if isinstance(y, (tuple, list)):  # of two samples, two arrays would pass for their rows
        raise check.type_error("predict", contract, y)
    y = np.asarray(y)
    if y.shape[:1] != batch.shape[:1]:
        raise check.value_error("predict", contract, y.shape)
    return y
