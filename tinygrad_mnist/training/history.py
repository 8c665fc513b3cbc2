"""History: what training measured, epoch by epoch."""

import csv
import io
import json
import numbers
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tinygrad_mnist import _checks as check
from tinygrad_mnist.training._files import write


@dataclass
class History:
    """One record an epoch, in order: a dict of numbers by name.

    `fit` writes "epoch" (from 1), "lr", "loss" and each metric, and with validation data the
    same again as "val_loss" and so on.
    """

    records: list[dict[str, float]] = field(default_factory=list)

    def column(self, name: str) -> list[float]:
        """Return the number of this name from every epoch; a record without it is a ValueError."""
        for record in self.records:
            if name not in record:
                raise check.value_error(self, f"one of {', '.join(record)}, in every record", name)
        return [record[name] for record in self.records]

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write a list of objects, every number in full; NaN and infinity as Python writes them.

        Like a checkpoint, the file is at any moment the old one or the new one, whole.

        Raises:
            ValueError: A record holds something else than numbers, or path is a folder or a device.
            OSError: The file cannot be written; an old one is still there.
        """
        records = checked_records(self.records)
        content = json.dumps(records, indent=1, default=float) + "\n"  # float: NumPy's numbers
        write("History.to_json", path, lambda file: file.write(content.encode()))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a table with a header, one row an epoch; what a record lacks is left empty.

        Errors, and a crash, are as for `to_json`.
        """
        names = {name: None for record in checked_records(self.records) for name in record}
        table = io.StringIO()
        writer = csv.DictWriter(table, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records)
        write("History.to_csv", path, lambda file: file.write(table.getvalue().encode()))

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Self:
        """Read what to_json wrote: the same numbers, to the last bit.

        Raises:
            ValueError: The file is something else.
            FileNotFoundError: There is none.
        """
        text = Path(path).read_bytes()
        contract = f"{path} to hold what to_json wrote"
        with check.refusing("History.from_json", contract):
            return cls(checked_records(json.loads(text)))


def checked_records(records: Any) -> list[dict[str, float]]:
    """Return records if they are a list of dicts from names to numbers, or raise ValueError."""
    if not isinstance(records, list):
        raise ValueError(f"a {type(records).__name__} instead of a list of records")
    for i, record in enumerate(records, 1):
        if not isinstance(record, dict) or not all(map(_is_number, record.values())):
            raise ValueError(f"something else than numbers by name as record {i}")
    return records


def _is_number(value: object) -> bool:
    if isinstance(value, int):  # float() of a larger one raises
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, numbers.Real)
