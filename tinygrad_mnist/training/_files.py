"""Files that are written whole: whoever reads one finds the old content or the new."""

import contextlib
import glob
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tinygrad_mnist import _checks as check

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked and nothing cleaned up
    fcntl = None  # type: ignore[assignment]

_DAY = 86_400.0  # seconds


def write(owner: str, path: str | os.PathLike[str], fill: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that at any moment there is the old one or the new one, whole.

    The new one is written beside it under a random name, flushed to disk and renamed. Any number
    of threads, processes and hosts may write the same path: the last one stays. A link is
    followed, and a file that is replaced leaves its mode.

    Args:
        owner: Who refuses a path where no file can be.
        path: Where the file is to be.
        fill: Writes the content into an open file; it may be called more than once.
    """
    path = checked_path(owner, "path", path)
    mode = None
    with contextlib.suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)
    _remove_abandoned(path)
    while not _replaced(path, mode, fill):
        pass  # somebody took the temporary file for an abandoned one: see _remove_abandoned
    if os.name == "posix":  # the new name, too, must reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def checked_path(owner: object, name: str, path: Any) -> Path:
    """Return where a link leads, or the path itself; refuse one that no file can be written to."""
    contract = f"{name} to be a file, in a folder that is there"
    if not isinstance(path, (str, os.PathLike)):
        raise check.type_error(owner, contract, path)
    real = Path(os.path.realpath(path))
    if not real.parent.is_dir():
        raise check.refusal(FileNotFoundError, owner, contract, repr(str(path)))
    if real.exists() and not real.is_file():
        raise check.refusal(ValueError, owner, contract, repr(str(path)))
    return real


def _replaced(path: Path, mode: int | None, fill: Callable[[IO[bytes]], object]) -> bool:
    """Write a temporary file and rename it; return False if it was gone by then."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o666 if mode is None else mode)  # less the umask

    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        # "x": a new file or none; a link under this name is not followed
        with open(temporary, "xb", opener=opener) as file:
            if fcntl:
                with contextlib.suppress(OSError):  # no locks on this file system
                    fcntl.flock(file, fcntl.LOCK_EX)
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
            fill(file)
            file.flush()
            os.fsync(file.fileno())
            if not fcntl:
                file.close()  # Windows renames no open file; elsewhere the lock is held until then
            try:
                os.replace(temporary, path)
            except FileNotFoundError:
                return False
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return True


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files that killed writers of this path left.

    A writer locks its file, and the system unlocks it when the writer ends, however it ends. So a
    file that can be locked has no writer. The exceptions: it may have been created a moment ago,
    or by another host on a file system that keeps locks to each host. Its writer then finds it
    gone, and writes again. On a file system without locks, a file is left for a day.
    """
    if not fcntl:
        return
    for name in glob.glob(f"{glob.escape(str(path))}.{'[0-9a-f]' * 16}.tmp"):
        with contextlib.suppress(OSError):  # it is being written, is gone by now, or not ours
            file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _has_no_writer(file):
                    os.unlink(name)
            finally:
                os.close(file)


def _has_no_writer(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return time.time() - os.fstat(file).st_mtime > _DAY
    return True
