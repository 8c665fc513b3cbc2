"""The figures of the pages: each is what the page's own code leaves behind under its name.

A page that shows `../_figures/training/curves.svg` is docs/pages/training.md, and its code assigns
a matplotlib Figure to `curves`.
"""

import contextlib
import doctest
import re
from pathlib import Path

DOCS = Path(__file__).parent


def shown(page):
    """Return the names of the figures that a page shows."""
    return re.findall(rf"\(\.\./_figures/{page.stem}/(\w+)\.svg\)", page.read_text())


def draw(page):
    """Run the code of a page that shows figures, in the repository's root, and save them."""
    names, found = shown(page), {}
    if not names:
        return
    code = "".join(part.source for part in doctest.DocTestParser().get_examples(page.read_text()))
    with contextlib.chdir(DOCS.parent), contextlib.redirect_stdout(None):
        exec(compile(code, page, "exec"), found)
    folder = DOCS / "_figures" / page.stem
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        found[name].savefig(folder / f"{name}.svg")
