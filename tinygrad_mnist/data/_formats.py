"""The two file formats of MNIST, read with distrust: a header is a claim, not a size to allocate.

`.npz` in Keras's layout is a zip of four NumPy arrays (numpy.lib.format). IDX is four files, each
a big-endian header and raw bytes (http://yann.lecun.com/exdb/mnist, "FILE FORMATS").
"""

import gzip
import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check

Bytes = NDArray[np.uint8]
Integers = NDArray[np.integer[Any]]

OWNER = "mnist.load_data"

# the names in Keras's layout; how those of the IDX files begin, and how many axes each array has
_PARTS = {
    "x_train": ("train-images", 3),
    "y_train": ("train-labels", 1),
    "x_test": ("t10k-images", 3),
    "y_test": ("t10k-labels", 1),
}
_SHAPES = {3: "(N, 28, 28)", 1: "(N,)"}
_IN_NPZ = {3: f"uint8 {_SHAPES[3]}", 1: f"integers {_SHAPES[1]}"}  # NumPy's own are int64
# EMNIST ByClass, the largest relative, has 814,255 images in all; more would be an attack
_MOST_IMAGES = 1_000_000
_CHUNK = 1 << 20


def read_npz(file: IO[bytes], name: str) -> dict[str, Integers]:
    """Return x_train, y_train, x_test and y_test of an open .npz file; ValueError if damaged."""
    arrays = {}
    for key, (_, ndim) in _PARTS.items():
        contract = f"{name} to be a .npz file in Keras's layout, {key} of {_IN_NPZ[ndim]}"
        with check.refusing(OWNER, contract), zipfile.ZipFile(file) as archive:
            info = archive.getinfo(f"{key}.npy")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"compression method {info.compress_type}")  # unpacks unbounded
            with archive.open(info) as member:
                arrays[key] = _read_npy(member, ndim)
    return arrays


def read_idx_folder(folder: Path) -> dict[str, Integers]:
    """Return the same from a folder of four IDX files; ValueError if one is damaged."""
    return {key: _read_idx(folder, stem, ndim) for key, (stem, ndim) in _PARTS.items()}


def _find(folder: Path, stem: str, ndim: int) -> Path:
    names = [f"{stem}{separator}idx{ndim}-ubyte" for separator in "-."]
    for path in (folder / (name + end) for end in ("", ".gz") for name in names):
        if path.is_file():
            return path
    contract = f"{names[0]} or {names[1]}, plain or .gz, in {folder}"
    raise FileNotFoundError(check.expected(OWNER, contract, "neither"))


def _read_idx(folder: Path, stem: str, ndim: int) -> Integers:
    path = _find(folder, stem, ndim)
    opened: Any = gzip.open if path.suffix == ".gz" else open
    contract = f"{path} to be an IDX file of uint8 {_SHAPES[ndim]}"
    with opened(path, "rb") as file, check.refusing(OWNER, contract):
        header = file.read(4 + 4 * ndim)
        if header[:4] != bytes([0, 0, 8, ndim]):
            raise ValueError(f"magic number 0x{header[:4].hex()}")
        if len(header) < 4 + 4 * ndim:
            raise ValueError(f"a header cut off after {len(header)} bytes")
        return _read_body(file, struct.unpack(f">{ndim}I", header[4:]), "C", np.dtype(np.uint8))


def _read_npy(file: Any, ndim: int) -> Integers:
    version = npy.read_magic(file)
    if version != (1, 0):  # later ones are for headers of more than 64 KiB
        raise ValueError(f"format version {version}")
    # NumPy evaluates the header as Python code; in 128 bytes that cannot be deep
    shape, fortran_order, dtype = npy.read_array_header_1_0(file, max_header_size=128)
    allowed = dtype == np.uint8 if ndim == 3 else dtype.kind in "iu"
    if not allowed or len(shape) != ndim:
        raise ValueError(f"dtype {dtype} and shape {shape}")
    return _read_body(file, shape, "F" if fortran_order else "C", dtype)


def _read_body(file: Any, shape: tuple[int, ...], order: Any, dtype: np.dtype[Any]) -> Integers:
    """Read the bytes of the claimed shape as far as there are any, and at most one more."""
    if not 1 <= shape[0] <= _MOST_IMAGES or shape[1:] not in ((), (28, 28)):
        raise ValueError(f"a header that claims shape {shape}")
    size, body = math.prod(shape) * dtype.itemsize, bytearray()
    while len(body) <= size and (chunk := file.read(min(_CHUNK, size + 1 - len(body)))):
        body += chunk
    if len(body) != size:
        more_or = "more" if len(body) > size else len(body)
        raise ValueError(f"{more_or} bytes where shape {shape} has {size}")
    return np.frombuffer(body, dtype).reshape(shape, order=order)
