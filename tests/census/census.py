"""Check the public layers, losses and functions of other libraries, and print what is not right.

    python -m pip install -r tests/census/requirements.txt
    python tests/census/census.py                  # all libraries
    python tests/census/census.py torch autograd   # these
    python tests/census/census.py --markdown       # the table of counts in docs/pages/census.md

A library is a file in `libraries`: the distribution's name, `check`, which runs one row, and
CASES, its rows.
"""

import argparse
import importlib
import sys
import time
import traceback
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from arrays import reseed

from tinygrad_mnist.testing import (
    GradientCheckError,
    InconclusiveGradientCheck,
    ModuleContractError,
)

HERE = Path(__file__).parent
OUTCOMES = ("right", "wrong", "raises", "contract", "cannot tell")


class Found(NamedTuple):
    """What a check said of one row."""

    case: str
    outcome: str
    message: str


class Surveyed(NamedTuple):
    """What the checks said of one library."""

    library: str
    seconds: float
    found: list[Found]

    def counts(self):
        """Return how many rows there are, and how many of each outcome."""
        counted = Counter(found.outcome for found in self.found)
        return [len(self.found), *(counted[outcome] for outcome in OUTCOMES)]


def checked(check, name, *row):
    """Return what the check of one row says."""
    reseed()
    try:
        check(*row)
    except GradientCheckError as error:
        return Found(name, "wrong", str(error))
    except ModuleContractError as error:
        outcome = "raises" if error.rule == "implemented" else "contract"
        return Found(name, outcome, str(error))
    except InconclusiveGradientCheck as error:
        return Found(name, "cannot tell", str(error))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{Path(where.filename).name}, line {where.lineno}"
        return Found(name, "raises", f"{type(error).__name__}: {error} ({at})")
    return Found(name, "right", "")


def surveyed(name):
    """Return what the checks say of all rows of a library."""
    reseed()  # for layers that are made with their row
    library = importlib.import_module(f"libraries.{name}")
    start = time.perf_counter()
    found = [checked(library.check, *row) for row in library.CASES]
    distribution = library.DISTRIBUTION
    return Surveyed(f"{distribution} {version(distribution)}", time.perf_counter() - start, found)


def as_text(survey):
    """Return a line with the counts, and what was not right."""
    rows, *counts = survey.counts()
    parts = ", ".join(f"{n} {o}" for n, o in zip(counts, OUTCOMES, strict=True) if n)
    lines = [f"{survey.library}: {rows} checked in {survey.seconds:.0f} s: {parts}"]
    for found in survey.found:
        if found.outcome != "right":
            lines += [f"  {found.case}: {found.outcome}", *indented(found.message)]
    return "\n".join(lines)


def indented(message):
    """Return the lines of a message under its case."""
    return [f"      {line}" for line in message.splitlines()]


def as_markdown(surveys):
    """Return the table of counts."""
    lines = [
        f"| library | checked | {' | '.join(OUTCOMES)} |",
        "|---|---" + "|---" * len(OUTCOMES) + "|",
    ]
    rows = [(s.library, *s.counts()) for s in surveys]
    total = ["all", *map(sum, list(zip(*rows, strict=True))[1:])]
    lines += [f"| {' | '.join(map(str, row))} |" for row in (*rows, total)]
    return "\n".join(lines)


def main():
    """Check the libraries named on the command line, all by default."""
    known = sorted(path.stem for path in (HERE / "libraries").glob("*.py"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("library", nargs="*", help=f"among {', '.join(known)}; all by default")
    parser.add_argument("--markdown", action="store_true", help="end with the table of counts")
    options = parser.parse_args()
    if unknown := set(options.library) - set(known):
        parser.error(f"unknown libraries: {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore")
    surveys = []
    for name in options.library or known:
        surveys.append(surveyed(name))
        print(as_text(surveys[-1]), flush=True)
    if options.markdown:
        print(f"\n{as_markdown(surveys)}")


if __name__ == "__main__":
    sys.exit(main())
