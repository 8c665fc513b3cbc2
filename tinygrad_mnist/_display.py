"""A table that shows itself: aligned in a terminal, as HTML in a notebook."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; a first column of names is on the left, the rest on the right.

    str() and repr() are both the aligned lines, so that it also shows as the last line of a cell.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def __str__(self) -> str:
        """Return the title and aligned lines."""
        return "\n".join([*([self.title] if self.title else []), *self._lines()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        title = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        head, *body = (self._html_row(row, tag) for row, tag in self._tagged())
        return f"<table>{title}<thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"

    def _lines(self) -> Iterator[str]:
        cells = [self.header, *self.rows]
        longest, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
        for name, *others in cells:
            yield "  ".join([name.ljust(longest), *map(str.rjust, others, widths)]).rstrip()

    def _tagged(self) -> Iterator[tuple[Sequence[str], str]]:
        yield self.header, "th"
        for row in self.rows:
            yield row, "td"

    @staticmethod
    def _html_row(row: Sequence[str], tag: str) -> str:
        first, *others = map(escape, row)
        cells = [f'<{tag} style="text-align: left; white-space: pre">{first}</{tag}>']
        cells += [f'<{tag} style="text-align: right">{cell}</{tag}>' for cell in others]
        return f"<tr>{''.join(cells)}</tr>"
