"""DataLoader: the inputs and targets, in samples or batches, in an order of its own."""

import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist._checks import described, expected, flag, generator, integer, real_array

_RESIDENT = 64 << 20  # bytes of a mapped file that may stay in memory
_FAULT_AROUND = 64 << 10  # bytes that one access may bring in, neighbouring pages included


class DataLoader:
    """Yields (inputs, targets) pairs that cover every sample once an epoch.

    Every `iter()` is an epoch of its own, independent of the others. Arrays are not copied:
    unshuffled pairs are read-only views of them. Those of np.memmap, which may be far larger than
    memory, are read as they are needed, and soon let go of.

    Args:
        inputs: An array (N, ...).
        targets: An array (N, ...).
        batch_size: B to yield batches (B, ...); None to yield bare samples (...).
        shuffle: Whether each epoch has a new random order.
        drop_last: Whether to leave out a last batch shorter than B.
        rng: Source of the orders: a seed, a generator, or None for fresh entropy.

    Raises:
        ValueError: inputs and targets differ in length, or batch_size is below 1.
        TypeError: An argument of the wrong type: a generator, say, has no length.
    """

    def __init__(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        batch_size: int | None = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self.inputs = self._read_only("inputs", inputs)
        self.targets = self._read_only("targets", targets)
        if len(self.inputs) != len(self.targets):
            contract = f"as many targets as inputs ({len(self.inputs)})"
            raise ValueError(expected(self, contract, len(self.targets)))
        if batch_size is not None:
            batch_size = integer(self, "batch_size", batch_size, at_least=1)
        self.batch_size = batch_size
        self.shuffle = flag(self, "shuffle", shuffle)
        self.drop_last = flag(self, "drop_last", drop_last)
        self.rng = generator(self, rng)

    def __len__(self) -> int:
        """Return the number of pairs that an epoch yields."""
        n, size = len(self.inputs), self.batch_size or 1
        return n // size if self.drop_last else -(-n // size)  # rounded up: the last may be short

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Start an epoch: the order is drawn here, not at the first pair."""
        order = self.rng.permutation(len(self.inputs)) if self.shuffle else None
        pairs = ((self.inputs[i], self.targets[i]) for i in self._indices(order))
        mapped = [m for data in (self.inputs, self.targets) if (m := _mapping(data))]
        return self._releasing(mapped, pairs) if mapped else pairs

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle or a deep copy: NumPy's forget that an array is read-only."""
        vars(self).update(state)
        for array in (self.inputs, self.targets):
            array.setflags(write=False)

    def _releasing(self, mapped: list[mmap.mmap], pairs: Iterator[Any]) -> Iterator[Any]:
        """Yield the pairs, and let go of the files' pages that were read for them."""
        rows = self.batch_size or 1
        row = sum(data[:1].nbytes for data in (self.inputs, self.targets))
        if self.shuffle:
            row += 2 * _FAULT_AROUND
        every = max(1, _RESIDENT // (rows * row))
        for i, pair in enumerate(pairs):
            yield pair
            if i % every == 0:
                for mapping in mapped:
                    mapping.madvise(mmap.MADV_DONTNEED)  # a page is read again if need be

    def _indices(self, order: NDArray[np.int64] | None) -> Iterator[Any]:
        """Yield what selects each pair: a slice where it may, so that nothing is copied."""
        n, size = len(self.inputs), self.batch_size
        if size is None:
            return iter(range(n) if order is None else order)
        slices = (slice(i * size, (i + 1) * size) for i in range(len(self)))
        return slices if order is None else (order[batch] for batch in slices)

    def _read_only(self, name: str, data: ArrayLike) -> NDArray[Any]:
        view = real_array(self, name, data).view()
        if view.ndim == 0:
            raise TypeError(expected(self, f"{name} with a first axis", described(data)))
        view.setflags(write=False)
        return view


def _mapping(data: NDArray[Any]) -> mmap.mmap | None:
    """Return the mapping of an np.memmap whose pages can be dropped without losing anything.

    Those of a copy-on-write mapping, or of one without a file, hold what is nowhere else.
    """
    base: Any = data
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    if not isinstance(base, np.memmap) or base.mode == "c" or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None
