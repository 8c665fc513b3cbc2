"""What a gradient check found, in a table that says where to look."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from textwrap import indent

from tinygrad_mnist._display import Table

_FINE = 1e-6  # a tolerance up to which a gradient of 0 is believed to be 0
_SHOWN = 3  # mismatches printed of each array


class ModuleContractError(AssertionError):
    """A layer, loss, optimizer or function breaks a rule of its contract; `rule` names it."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(rule, message)
        self.rule, self.message = rule, message

    def __str__(self) -> str:
        """Return the message and the rule's name."""
        return f"{self.message} [rule: {self.rule}]"


class InconclusiveGradientCheck(Exception):
    """The check could not tell: too much lay on kinks, or every gradient was 0 or too small."""


@dataclass(frozen=True)
class Mismatch:
    """One entry of an array whose gradient is wrong.

    `index` is None for a direction over the whole array that could not be narrowed to an entry.
    `note` says where it shows, if not at the given arrays: at a kink, at generic parameters.
    """

    name: str
    index: tuple[int, ...] | None
    analytic: float
    numeric: float
    tolerance: float
    note: str = ""

    @property
    def ratio(self) -> float:
        """Return analytic / numeric, infinite where numeric is 0."""
        if not self.numeric:
            return math.copysign(math.inf, self.analytic)
        return self.analytic / self.numeric + 0.0  # which makes 0 of -0

    def __str__(self) -> str:
        """Return the entry and both values."""
        where = " along a direction" if self.index is None else str(list(self.index))
        return (
            f"{self.name}{where}: analytic {self.analytic + 0.0:.9g}, numeric {self.numeric:.9g}, "
            f"ratio {self.ratio:.6g}{self.note and f' ({self.note})'}"
        )


@dataclass
class ArrayReport:
    """What was found in one array: counts of probes, and the worst error over its tolerance.

    `on_kink` counts those on a kink, `undecided` those of them about which nothing can be said,
    `telling` those whose gradient is large enough for a mistake to show. The largest gradient and
    the largest tolerance say why there are none. `outside` are the mismatches at kinks, `smooth`
    those where the function has a derivative while all around them is right: parts whose kinks
    cancel excuse them. `open` are the entries that are undecided, None for a direction.
    """

    name: str
    shape: tuple[int, ...]
    checked: int = 0
    on_kink: int = 0
    undecided: int = 0
    telling: int = 0
    worst: float = 0.0
    largest: float = 0.0
    tolerance: float = 0.0
    mismatches: list[Mismatch] = field(default_factory=list)
    outside: list[Mismatch] = field(default_factory=list)
    smooth: list[Mismatch] = field(default_factory=list)
    open: list[tuple[int, ...] | None] = field(default_factory=list)

    @property
    def hides(self) -> float:
        """Return the tolerance if it hides all that was found, or may hide a gradient, else 0."""
        hidden = not self.telling and (self.largest > 0 or self.tolerance > _FINE)
        return self.tolerance if hidden else 0.0

    @property
    def wrong(self) -> int:
        """Return the number of wrong probes."""
        return len(self.mismatches)


@dataclass(repr=False)
class GradientReport:
    """The outcome of one check: true if nothing is wrong, and a table that shows itself.

    Attributes:
        subject: What was checked, as its type's name.
        arrays: An ArrayReport for the input and for each parameter, in order.
        seed: What reproduces the check.
        hints: What the mismatches have in common.
    """

    subject: str
    arrays: list[ArrayReport]
    seed: int
    hints: list[str] = field(default_factory=list)

    @property
    def mismatches(self) -> list[Mismatch]:
        """Return every wrong entry found, array by array."""
        return [m for array in self.arrays for m in array.mismatches]

    def __bool__(self) -> bool:
        """Return whether every gradient that was judged is right."""
        return not self.mismatches

    def __str__(self) -> str:
        """Return the table, the worst offenders and the hints."""
        table = indent(str(self._table()), "  ")
        return "\n".join([self._title(), table, *self._told()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        told = "<br>".join(map(escape, self._told()))
        return f"<p>{escape(self._title())}</p>{self._table()._repr_html_()}<p>{told}</p>"

    def _title(self) -> str:
        wrong = sum(bool(array.mismatches) for array in self.arrays)
        found = f"{wrong} of {len(self.arrays)}" if wrong else "none of its"
        disagree = f"{self.subject}: {found} gradients disagree with central differences"
        return f"{disagree} (seed {self.seed})"

    def _table(self) -> Table:
        header = ["gradient of", "shape", "checked", "wrong", "on a kink", "worst error/tolerance"]
        rows = [
            (a.name, str(a.shape), str(a.checked), str(a.wrong), str(a.on_kink), f"{a.worst:.2g}")
            for a in self.arrays
        ]
        return Table(header, rows)

    def _told(self) -> Iterator[str]:
        for array in self.arrays:
            worst = sorted(array.mismatches, key=lambda m: -abs(m.analytic - m.numeric))
            yield from (f"  wrong: {mismatch}" for mismatch in worst[:_SHOWN])
        yield from self.hints


class GradientCheckError(AssertionError):
    """A gradient disagrees with central differences; `report` has the details."""

    def __init__(self, report: GradientReport) -> None:
        super().__init__(report)
        self.report = report
