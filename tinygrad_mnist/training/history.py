"""History: what training measured, epoch by epoch."""

import csv
import io
import json
import math
import numbers
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from tinygrad_mnist import _checks as check
from tinygrad_mnist._display import Table
from tinygrad_mnist.training._files import write

Mode = Literal["min", "max"]
Record = dict[str, float]

_FIRST, _LAST = 5, 15  # the epochs that a table of a long history shows, beside the best


@dataclass(repr=False, eq=False)
class History:
    """One record an epoch, in order: a dict of numbers by name. It shows itself as a table.

    `fit` writes "epoch" (from 1), "lr", "loss" and each metric, with validation data the same again
    as "val_loss" and so on, and "seconds", which the epoch took. Two histories are equal if all but
    the seconds are.
    """

    records: list[Record] = field(default_factory=list)

    def best(self, name: str | None = None, mode: Mode | None = None) -> Record:
        """Return the record with the best number of this name: the first one, if several are equal.

        Left out, the name is "val_loss" or, without validation, "loss". mode is "min" if less is
        better, "max" if more is; it may be left out for a loss, an error or an accuracy. NaN is
        worse than anything.
        """
        if name is None:
            validated = all("val_loss" in record for record in self.records)
            name = "val_loss" if validated else "loss"
        mode = check.choice(self, "mode", mode or mode_of(name), "min", "max")
        if not self.records:
            raise ValueError(check.expected(self, "at least one record", "none"))
        sign = 1 if mode == "min" else -1
        values = [(math.isnan(v), sign * v) for v in self.column(name)]
        return self.records[values.index(min(values))]

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

    def __eq__(self, other: object) -> bool:
        """Return whether all numbers are the same but the seconds, which never are."""
        if not isinstance(other, History):
            return NotImplemented
        return [_timeless(r) for r in self.records] == [_timeless(r) for r in other.records]

    def __repr__(self) -> str:
        """Return a table in lines."""
        return repr(self._table()) if self.records else "History of no epoch"

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows."""
        return self._table()._repr_html_() if self.records else None

    def _table(self) -> Table:
        names = list({name: None for record in self.records for name in record})
        known = any(all(name in r for r in self.records) for name in ("val_loss", "loss"))
        best = self.best() if known else None
        rows: list[list[str]] = []
        for i, record in enumerate(self.records):
            if _FIRST <= i < len(self.records) - _LAST and record is not best:
                if rows[-1][0] != "...":
                    rows.append(["..."] + [""] * len(names))
                continue
            cells = [shown(name, record[name]) if name in record else "" for name in names]
            rows.append([*cells, "best" if record is best else ""])
        return Table([*names, ""], rows)


def mode_of(name: str) -> Mode | None:
    """Return which way a number gets better, as far as its name says."""
    known: dict[str, Mode] = {"loss": "min", "error": "min", "accuracy": "max"}
    return next((mode for end, mode in known.items() if str(name).endswith(end)), None)


def shown(name: str, value: float) -> str:
    """Return a number of a record as a column shows it: 0.2510, 12.510, 1e-07, 1234.5."""
    if isinstance(value, numbers.Integral):
        return str(value)
    if name == "seconds":
        return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    if name == "lr":
        return f"{value:.5g}"
    if value == 0 or 1e-3 <= abs(value) < 1:
        return f"{value:.4f}"
    return f"{value:#.5g}" if 1 <= abs(value) < 9999.5 else f"{value:.5g}"


def record_of_others(records: list[Record], columns: Iterable[str]) -> Record | None:
    """Return the first record that has other numbers than these columns, if there is one."""
    names = {*columns, "seconds"}  # which records of the first version do not have
    return next((record for record in records if {*record, "seconds"} != names), None)


def _timeless(record: Record) -> Record:
    return {name: value for name, value in record.items() if name != "seconds"}


def checked_records(records: Any) -> list[Record]:
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
