"""What the Dropouts of a chain keep: drawn for many samples at once, as a loop would draw it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class _Dropout(NamedTuple):
    begin: int  # in the row of all masks of a sample
    width: int
    p: float
    rng: Any

    @property
    def columns(self) -> slice:
        return slice(self.begin, self.begin + self.width)


class Masks:
    """The masks of a chain's Dropouts: for each sample a row, of width numbers.

    A number is kept where what is drawn for it is p or more.
    """

    def __init__(self) -> None:
        self.width = 0
        self._dropouts: list[_Dropout] = []  # those that drop

    def add(self, width: int, p: float, rng: Any) -> int:
        """Add a Dropout behind the others; return where its masks begin in a row."""
        begin = self.width
        self.width += width
        if p:
            self._dropouts.append(_Dropout(begin, width, p, rng))
        return begin

    def drawn(self, samples: int, batch_size: int) -> NDArray[np.bool_]:
        """Draw for samples in batches, the last perhaps smaller; return masks (samples, width)."""
        masks = np.ones((samples, self.width), np.bool_)
        whole = samples - samples % batch_size
        for part, size in (masks[:whole], batch_size), (masks[whole:], samples - whole):
            if len(part):
                self._draw(part, size)
        return masks

    def _draw(self, masks: NDArray[np.bool_], batch_size: int) -> None:
        """Fill in the masks of whole batches.

        Dropouts with one generator take turns at every batch, so it draws for all of them at once.
        """
        sharing: dict[int, list[_Dropout]] = {}
        for dropout in self._dropouts:
            sharing.setdefault(id(dropout.rng.bit_generator), []).append(dropout)
        for dropouts in sharing.values():
            sizes = [batch_size * dropout.width for dropout in dropouts]
            shape = len(masks) // batch_size, sum(sizes)
            numbers = dropouts[0].rng.random(shape, dtype=np.float32)
            parts = np.split(numbers, np.cumsum(sizes)[:-1], axis=1)
            for dropout, part in zip(dropouts, parts, strict=True):
                kept = part.reshape(len(masks), dropout.width) >= dropout.p
                masks[:, dropout.columns] = kept

    def numbers(self, samples: int) -> list[Any]:
        """Draw for one batch; return the numbers, for `of_numbers`."""
        return [d.rng.random((samples, d.width), dtype=np.float32) for d in self._dropouts]

    def of_numbers(self, batches: Sequence[list[Any]], samples: int) -> NDArray[np.bool_]:
        """Return the masks of batches, of so many samples in all, of what was drawn for each."""
        masks = np.ones((samples, self.width), np.bool_)
        for dropout, numbers in zip(self._dropouts, zip(*batches, strict=True), strict=True):
            np.greater_equal(np.concatenate(numbers), dropout.p, out=masks[:, dropout.columns])
        return masks
