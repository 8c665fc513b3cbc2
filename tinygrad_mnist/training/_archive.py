"""An archive: a tree of lists, tuples and dicts with numbers, strings and arrays in it, as a file.

It is an uncompressed `.npz` file without pickles: the arrays, and one member "tree" of JSON that
says where each belongs. `np.load` reads one without this module.
"""

import io
import json
import os
import re
import sys
import urllib.parse
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist.training._files import write

_DEEPEST = 100  # how many lists, tuples and dicts may be in one another
_LONGEST = 65_000  # letters in the name of a zip file's member

# how NumPy begins an array's member; its own reader evaluates this as Python code, which a forged
# file can make so deep that it is a MemoryError
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|][biuf]\d+)', 'fortran_order': (True|False), "
    rb"'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)

# kinds of archives, and what a reader of the other one says
CHECKPOINT, MODEL = "tinygrad_mnist checkpoint", "tinygrad_mnist model"
_OTHER = {
    CHECKPOINT: "a checkpoint: make its model, and `checkpoint.load(path, model)`",
    MODEL: "a model file, which `load_model` reads",
}

_Arrays = dict[str, NDArray[Any]]


def write_archive(owner: str, path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write content so that at any moment there is the old file or the new one, whole.

    Args:
        owner: Who refuses what cannot be written, and a path where no file can be.
        path: Where the file is to be.
        content: Numbers, strings, arrays, and lists, tuples and dicts of them.
    """
    arrays: _Arrays = {}
    tree = json.dumps(_packed(owner, content, "", arrays)).encode()
    arrays["tree"] = np.frombuffer(tree, np.uint8)
    write(owner, path, lambda file: _write_members(file, arrays))


def read_archive(path: str | os.PathLike[str], format: str, version: int) -> dict[str, Any]:
    """Return what was written, after reading all of the file; raise whatever, if it is another."""
    file = io.BytesIO(Path(path).read_bytes())
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(info.file_size for info in members) > len(file.getbuffer()):
            raise ValueError("members larger than the file")
        arrays = {info.filename.removesuffix(".npy"): _array(archive, info) for info in members}
    if "tree" not in arrays:
        raise ValueError("an archive of something else")
    tree = json.loads(arrays["tree"].tobytes())
    found = tree["dict"].get("format"), tree["dict"].get("version")
    if found[0] != format and str(found[0]) in _OTHER:
        raise ValueError(_OTHER[found[0]])
    if found != (format, version):
        raise ValueError(f"format {found[0]!r}, version {found[1]!r}: not {version}")
    content: dict[str, Any] = _unpacked(tree, arrays)
    if not isinstance(content["meta"], dict):
        raise ValueError(f"{check.described(content['meta'])} as meta")
    return content


def _packed(owner: str, value: Any, name: str, arrays: _Arrays) -> Any:
    """Return value as JSON can write it; each array goes into arrays, its name in its place.

    Lists stay lists. A dict becomes {"dict": {...}}, so that what stands for an array or a tuple
    cannot be mistaken for one.
    """
    if name.count("/") > _DEEPEST:  # a list that holds itself has no end
        contract = f"meta nested at most {_DEEPEST} deep"
        raise check.value_error(owner, contract, value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and not np.ma.isMA(value):
        if len(name) > _LONGEST:
            contract = f"arrays under names of at most {_LONGEST} letters"
            raise check.value_error(owner, contract, name)
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        inside = {
            key: _packed(owner, item, _below(name, key), arrays) for key, item in value.items()
        }
        return {"dict": inside}
    if isinstance(value, (list, tuple)):
        items = [_packed(owner, item, _below(name, str(i)), arrays) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        value = value.item()
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        contract = f"integers that a float could hold at {name}"
        raise check.value_error(owner, contract, value)
    if value is None or isinstance(value, (int, float, str)):
        return value
    contract = f"numbers, strings, arrays, and lists, tuples and dicts of them at {name}"
    raise check.type_error(owner, contract, value)


def _below(name: str, part: str) -> str:
    # a key may hold "/", or what is no valid text, which the name of a zip file's member must be
    quoted = urllib.parse.quote(part, safe="", errors="surrogatepass")
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
    if kind == "dict":
        return {key: _unpacked(item, arrays) for key, item in inside.items()}
    raise ValueError(f"a {kind} in its tree")


class _Archive(zipfile.ZipFile):
    """A zip file that is closed only when it is whole.

    zipfile closes an archive when it is garbage-collected. After Ctrl-C within a member, that would
    raise a ValueError.
    """

    def __del__(self) -> None:
        """Leave it open."""


def _write_members(file: IO[bytes], arrays: _Arrays) -> None:
    """Write what `np.savez` writes."""
    archive = _Archive(file, "w")
    for name, array in arrays.items():
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            npy.write_array(member, array, allow_pickle=False)
    archive.close()


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} compressed")
    content = bytearray(archive.read(info))  # its checksum is compared here
    header = _HEADER.match(content)
    if header is None:
        raise ValueError(f"{info.filename}, which is no array of numbers")
    dtype, fortran, shape = (group.decode() for group in header.groups())
    sizes = [int(size) for size in shape.split(",") if size.strip()]
    order: Any = "F" if fortran == "True" else "C"
    array: NDArray[Any] = np.ndarray(sizes, dtype, content, header.end(), order=order)
    if header.end() + array.nbytes != len(content):
        raise ValueError(f"{info.filename}, which is longer than its array")
    return array
