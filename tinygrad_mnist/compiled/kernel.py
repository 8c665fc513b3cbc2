"""What a kernel is told in numbers, and how it is compiled.

A kernel trains on a chunk of batches: it reads no object and allocates nothing. `a` and `da` are a
layer's input and its gradient, `y` and `dy` its output and its gradient. The functions are compiled
when first called, and kept on disk; `f.py_func` is f in plain Python.

Parameters are flat: W (I, O) row after row, and behind each row zeros up to a whole number of
blocks of columns. A row of y or of dy has the same room behind it. What is computed there is 0, or
NaN in a row that has met infinity.
"""

from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._extras import needing

with needing("tinygrad_mnist.compiled", "compiled"):
    from numba import njit

LINEAR, RELU, DROPOUT, FLATTEN, UNFLATTEN, CONV2D, MAXPOOL2D = range(7)
SQUARED_ERROR, CROSS_ENTROPY = range(2)
NOWHERE = -1  # the offset of a bias where there is none
BLOCKS = 8, 16, 24, 32, 40, 56, 64, 104  # numbers of columns that fill registers: see block_of
LANES = 8  # every block is a multiple

# Sums run in any order, while NaN and infinity stay what they are. Nothing is allocated, so slices
# need no counts of references (_nrt, a switch of numba's own), each an atomic operation. Without
# wrappers for code in C, which nobody calls, compiling takes a twelfth less.
_OPTIONS: Any = {
    "cache": True,
    "fastmath": {"contract", "nsz", "reassoc"},
    "nogil": True,
    "_nrt": False,
    "no_cfunc_wrapper": True,
}
_FILES = sorted(Path(__file__).parent.glob("*.py"))
_STAMP = sha256(b"".join(file.read_bytes() for file in _FILES)).hexdigest()


def _compiled(function: Any, **options: Any) -> Any:
    """Compile when it is called first; keep it on disk until a file of this folder changes.

    numba itself would look only at the file that the function is in, not at what that imports. It
    compares versions, its own, before it reads the rest, which an older file of this folder may
    have written in types that are no more.
    """
    dispatcher = njit(**_OPTIONS | options)(function)
    file = getattr(dispatcher._cache, "_cache_file", None)  # None where nothing can be written
    if file is not None:
        file._version = f"{file._version} {_STAMP}"
    return dispatcher


# Small functions become a part of those that call them: passing the arrays of a plan would take as
# long as they do. Large ones stay separate. What returns an array is inlined before anything is
# compiled, as references to what a function returns would be counted.
compiled = partial(_compiled, forceinline=True)
separate = _compiled
inlined = partial(_compiled, inline="always")


class Plan(NamedTuple):
    """A chain in numbers. Layer l maps widths[l] features to widths[l + 1]."""

    widths: NDArray[np.int64]  # one more than there are layers
    rooms: NDArray[np.int64]  # the same, with the room behind
    blocks: NDArray[np.int64]  # columns of a Linear to take at a time
    kinds: NDArray[np.int64]
    weights: NDArray[np.int64]  # offsets into the flat parameters
    biases: NDArray[np.int64]
    gated: NDArray[np.int64]  # 1 where the layers below pass no gradient on to an output of 0
    masks: NDArray[np.int64]  # offsets into a sample's masks
    scales: NDArray[Any]  # 1 / (1 - p) of a Dropout, in the parameters' dtype


class Settings(NamedTuple):
    """Those of SGD that hold for a chunk, in the parameters' dtype, and the kind of loss."""

    momentum: np.floating[Any]
    decay: np.floating[Any]
    nesterov: bool
    loss: int


class Chunk(NamedTuple):
    """Some batches: number j has the samples ends[j] to ends[j + 1]. Floats are the parameters'."""

    inputs: NDArray[Any]  # (samples, I), read-only
    targets: NDArray[Any]  # (samples, K), read-only
    masks: NDArray[np.bool_]  # (samples, widths of all Dropouts side by side)
    ends: NDArray[np.int64]
    rates: NDArray[Any]  # the learning rate of each batch
    factors: NDArray[Any]  # what the slope of its loss is multiplied by
    outputs: NDArray[Any]  # (samples, K), written: y before its batch's step
    totals: NDArray[np.float64]  # written: what the loss of each batch is a mean of
