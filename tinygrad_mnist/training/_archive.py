"""The file format of checkpoints: a tree of numbers and arrays in one file, written atomically.

It is an uncompressed `.npz` file without pickles: the arrays, and one member "tree" of JSON that
says where each belongs.
"""

import io
import json
import os
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check

_FORMAT, _VERSION = "tinygrad_mnist checkpoint", 1

_Arrays = dict[str, NDArray[Any]]


class CheckpointError(ValueError):
    """A file that cannot be loaded, or not into these objects; none of them has changed."""


def write_tree(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write numbers, strings, arrays, and lists, tuples and dicts of them; refuse all else."""
    arrays: _Arrays = {}
    content = {"format": _FORMAT, "version": _VERSION, **content}
    tree = json.dumps(_packed(content, "", arrays)).encode()
    arrays["tree"] = np.frombuffer(tree, np.uint8)
    write(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def read_tree(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what write_tree wrote, after reading all of it."""
    path = Path(path)
    contract = f"{path} to be a whole checkpoint"
    with path.open("rb") as file, check.refusing("checkpoint.load", contract, CheckpointError):
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(info.file_size for info in members) > path.stat().st_size:
                raise ValueError("members larger than the file")
            arrays = {info.filename.removesuffix(".npy"): _array(archive, info) for info in members}
        if "tree" not in arrays:
            raise ValueError("an archive of something else")
        tree = json.loads(arrays["tree"].tobytes())
        found = tree["dict"].get("format"), tree["dict"].get("version")
        if found != (_FORMAT, _VERSION):
            raise ValueError(f"format {found[0]!r}, version {found[1]!r}: not {_VERSION}")
        return _unpacked(tree, arrays)  # type: ignore[no-any-return]


def write(path: str | os.PathLike[str], fill: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one."""
    path = Path(path).resolve()  # where a link leads, not the link
    new = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # two processes, two files
    try:
        with new.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name, too, must reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _packed(value: Any, name: str, arrays: _Arrays) -> Any:
    """Return value as JSON can write it; each array goes into arrays, its name in its place.

    Lists stay lists. A dict becomes {"dict": {...}}, so that what stands for an array or a tuple
    cannot be mistaken for one.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        inside = {key: _packed(item, _below(name, key), arrays) for key, item in value.items()}
        return {"dict": inside}
    if isinstance(value, (list, tuple)):
        items = [_packed(item, _below(name, str(i)), arrays) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    contract = f"numbers, texts, arrays, and lists, tuples and dicts of them at {name}"
    raise TypeError(check.expected("checkpoint.save", contract, check.described(value)))


def _below(name: str, part: str) -> str:
    quoted = urllib.parse.quote(part, safe="", errors="surrogatepass")  # zip wants valid names
    return f"{name}/{quoted}" if name else quoted


def _unpacked(value: Any, arrays: _Arrays) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = value.items()
    if kind == "array":
        return arrays[inside]
    if kind == "tuple":
        return tuple(_unpacked(item, arrays) for item in inside)
    return {key: _unpacked(item, arrays) for key, item in inside.items()}


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} compressed")
    member = io.BytesIO(archive.read(info))  # its checksum is compared here
    array: NDArray[Any] = npy.read_array(member, allow_pickle=False)
    if array.dtype.kind not in "biuf" or member.read(1):
        raise ValueError(f"{info.filename} of dtype {array.dtype}, or longer than its array")
    return array
