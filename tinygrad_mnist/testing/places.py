"""Where code that is checked raised an error: its own lines, not those of the kit or a library."""

import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

from tinygrad_mnist.testing.given import GivenError
from tinygrad_mnist.testing.report import GradientCheckError, ModuleContractError

KIT_ERRORS = (GradientCheckError, ModuleContractError, GivenError)
_LIBRARIES = (
    str(Path(__file__).parents[1]),
    *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")),
)


def own_traceback(error: BaseException) -> TracebackType | None:
    """Return the entries in files of no library: of an error, or of what an error of the kit says.

    None if there are none.
    """
    told = error.__cause__ if isinstance(error, KIT_ERRORS) else error
    entries, entry, own = [], told and told.__traceback__, None
    while entry:
        entries.append(entry)
        entry = entry.tb_next
    for entry in reversed(entries):
        if not entry.tb_frame.f_code.co_filename.startswith(_LIBRARIES):
            own = TracebackType(own, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return own


def place_of(error: BaseException) -> str:
    """Return the last of these lines: "dense.py, line 7, in backward: return self.x @ dy"."""
    for frame in reversed(traceback.extract_tb(own_traceback(error))):
        where = f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
        return f"{where}: {frame.line}" if frame.line else where
    return ""
