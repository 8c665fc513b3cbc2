"""What people see: a table in a terminal or a notebook, and a notebook's output that changes."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Self


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
        title = [self.title] if self.title else []
        return "\n".join([*title, *self._lines()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        title = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        head, body = self._html_row(self.header, "th"), (self._html_row(r, "td") for r in self.rows)
        return f"<table>{title}<thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"

    def _lines(self) -> Iterator[str]:
        cells = [self.header, *self.rows]
        longest, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
        for name, *others in cells:
            yield "  ".join([name.ljust(longest), *map(str.rjust, others, widths)]).rstrip()

    @staticmethod
    def _html_row(row: Sequence[str], tag: str) -> str:
        first, *others = map(escape, row)
        cells = [f'<{tag} style="text-align: left; white-space: pre">{first}</{tag}>']
        cells += [f'<{tag} style="text-align: right">{cell}</{tag}>' for cell in others]
        return f"<tr>{''.join(cells)}</tr>"


class Output:
    """An output of a notebook's cell that is replaced again and again; empty after a `with` block.

    There is none before the first line. Without IPython's display, carriage returns would stay in
    the saved notebook.
    """

    def __init__(self) -> None:
        self._handle: Any = None

    def put(self, line: str, html: str | None = None) -> None:
        """Show a line, as HTML where another form of it is given."""
        self._replace(line, f"<pre>{escape(line) if html is None else html}</pre>")

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing to be seen."""
        if self._handle is not None:
            self._replace("", "")

    def _replace(self, line: str, html: str) -> None:
        from IPython.display import display

        content = {"text/plain": line, "text/html": html}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def in_notebook() -> bool:
    """Return whether this runs in the kernel of a notebook, such as Jupyter's or Colab's."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
