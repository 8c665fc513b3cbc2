"""DataLoader: the inputs and targets, in samples or batches, in order or shuffled."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_mnist import _checks as check

Transform = Callable[[Any, np.random.Generator], ArrayLike]


def _size_or_none(owner: object, name: str, value: Any) -> int | None:
    return None if value is None else check.integer(owner, name, value, at_least=1)


def _transform_or_none(owner: object, name: str, value: Any) -> Transform | None:
    if value is not None and (isinstance(value, type) or not callable(value)):
        raise check.type_error(owner, f"{name} to be a function of (x, rng), or None", value)
    return value


class DataLoader:
    """Yields (inputs, targets) pairs that cover every sample once an epoch.

    Every `iter()` starts an epoch, independent of the others. Arrays are not copied:
    unshuffled pairs are read-only views of them. Those of np.memmap, which may be far larger than
    memory, are read as they are needed.

    Args:
        inputs: An array (N, ...).
        targets: An array (N, ...), of as many samples.
        batch_size: B to yield batches (B, ...); None to yield bare samples (...).
        shuffle: Whether each epoch has a new random order.
        drop_last: Whether to leave out a last batch shorter than B.
        rng: Source of the orders: a seed, a generator, or None for fresh entropy.
        transform: What is done to the inputs of each pair, a function of (x, rng) such as
            `data.transforms.random_shift(1)`. It draws from the generator of the orders, so that a
            seed means the same pairs. None yields the inputs as they are.
    """

    batch_size = check.Setting(_size_or_none)
    shuffle = check.Flag()
    drop_last = check.Flag()
    transform = check.Setting(_transform_or_none)

    def __init__(
        self,
        inputs: ArrayLike,
        targets: ArrayLike,
        batch_size: int | None = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        rng: int | np.random.Generator | None = None,
        transform: Transform | None = None,
    ) -> None:
        self.inputs = self._read_only("inputs", inputs)
        self.targets = self._read_only("targets", targets)
        if len(self.inputs) != len(self.targets):
            contract = f"as many targets as inputs ({len(self.inputs)})"
            raise ValueError(check.expected(self, contract, len(self.targets)))
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.rng, self.transform = check.generator(self, rng), transform

    def __len__(self) -> int:
        """Return the number of pairs that an epoch yields."""
        n, size = len(self.inputs), self.batch_size or 1
        return n // size if self.drop_last else -(-n // size)  # rounded up: the last may be short

    def __repr__(self) -> str:
        """Return the shapes of the arrays, and the settings that are numbers and flags."""
        names = "batch_size", "shuffle", "drop_last"
        settings = ", ".join(f"{name}={getattr(self, name)}" for name in names)
        shapes = f"inputs of {self.inputs.shape}, targets of {self.targets.shape}"
        return f"{type(self).__name__}({shapes}, {settings})"

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Start an epoch: the order is drawn here, not at the first pair."""
        n, size = len(self.inputs), self.batch_size
        order = self.rng.permutation(n) if self.shuffle else None
        picks: Iterable[Any] = range(n) if order is None else order
        if size is not None:  # slices of the arrays where they may be, so that nothing is copied
            slices = (slice(i * size, (i + 1) * size) for i in range(len(self)))
            picks = slices if order is None else (order[batch] for batch in slices)
        pairs = ((self.inputs[i], self.targets[i]) for i in picks)
        return pairs if self.transform is None else self._transformed(pairs, self.transform, size)

    def _transformed(
        self, pairs: Iterator[tuple[Any, Any]], transform: Transform, size: int | None
    ) -> Iterator[tuple[Any, Any]]:
        axes = 1 + getattr(transform, "sample_axes", 0)
        if self.inputs.ndim < axes:  # a batch of samples that are too flat looks like one sample
            contract = f"inputs of {axes} axes or more for this transform"
            raise check.value_error(self, contract, self.inputs.shape)
        for x, t in pairs:
            new = check.real_array(self, "transform's array", transform(x, self.rng))
            if size is not None and new.shape[:1] != x.shape[:1]:
                contract = f"transform to return as many samples as it was given ({len(x)})"
                raise check.value_error(self, contract, new.shape)
            yield new, t

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle or a deep copy: both drop NumPy's read-only flag, so it is set again."""
        vars(self).update(state)
        for array in (self.inputs, self.targets):
            array.setflags(write=False)

    def _read_only(self, name: str, data: ArrayLike) -> NDArray[Any]:
        view = check.real_array(self, name, data).view()
        if view.ndim == 0:
            raise check.type_error(self, f"{name} with a first axis", data)
        view.setflags(write=False)
        return view
