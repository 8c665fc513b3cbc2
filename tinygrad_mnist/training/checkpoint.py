"""Checkpoints: all that a run needs to go on bit for bit, in one file that is never half-written.

A checkpoint is an uncompressed `.npz` file without pickles: the arrays, and one member "tree" of
JSON that says where each belongs. `np.load(path)["model/0.weight"]` reads one without this module.
"""

import contextlib
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
from tinygrad_mnist._generators import Stream, check_state, streams_in
from tinygrad_mnist._interrupts import holding
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.training._files import write
from tinygrad_mnist.training.history import History, checked_records

_FORMAT, _VERSION = "tinygrad_mnist checkpoint", 1
_DEEPEST = 100  # how many lists, tuples and dicts may be in one another
_LONGEST = 65_000  # letters in the name of a zip file's member

# how NumPy begins an array's member; its own reader evaluates this as Python code, which a forged
# file can make so deep that it is a MemoryError
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|][biuf]\d+)', 'fortran_order': (True|False), "
    rb"'shape': \(([\d, ]*)\), \} *\n",
    re.DOTALL,
)

_Arrays = dict[str, NDArray[Any]]


class CheckpointError(ValueError):
    """A file that cannot be loaded, or not into these objects; none of them has changed."""


def save(
    path: str | os.PathLike[str],
    model: Module,
    optimizer: Optimizer | None = None,
    loader: DataLoader | None = None,
    history: History | None = None,
    **meta: Any,
) -> None:
    """Write a checkpoint; at any moment there is the old file or the new one, whole.

    It holds the parameters, the optimizer's state, the state of every random generator that the
    model and the loader hold, and the history. It does not hold the model's structure.

    Args:
        path: The file, by convention .npz. The new one is written beside it under a random
            name that ends in ".tmp", flushed to disk and renamed; what a killed writer leaves of
            that, the next one removes.
        model: Its state_dict and its generators are saved.
        optimizer: Its state_dict is saved.
        loader: Its generator is saved, and its settings, to be compared when loading.
        history: Its records are saved.
        meta: Whatever else `load` shall return: numbers, strings, arrays, and lists, tuples
            and dicts (with strings as keys) of them.

    Raises:
        TypeError: meta, or an optimizer's state, holds something else.
        ValueError: A record of the history holds something else than numbers; meta is nested more
            than 100 deep, or has an integer beyond any float, or a name that is too long; or path
            is a folder or a device.
        OSError: The file cannot be written; an old one is still there.
    """
    streams = _streams(model, loader)
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "model": model.state_dict(),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "optimizer_kind": None if optimizer is None else type(optimizer).__name__,
        "generators": {owner: [get() for get, _ in found] for owner, found in streams.items()},
        "loader": None if loader is None else _settings(loader),
        "history": None if history is None else checked_records(history.records),
        "meta": meta,
    }
    arrays: _Arrays = {}
    tree = json.dumps(_packed(content, "", arrays)).encode()
    arrays["tree"] = np.frombuffer(tree, np.uint8)
    write("checkpoint.save", path, lambda file: _write_archive(file, arrays))


def load(
    path: str | os.PathLike[str],
    model: Module | None = None,
    optimizer: Optimizer | None = None,
    loader: DataLoader | None = None,
    history: History | None = None,
) -> dict[str, Any]:
    """Read a checkpoint into the objects given, all of them or none, and return its meta.

    A model alone gets its parameters: that is enough to predict. With an optimizer too, training
    goes on, and the generators of the model and of a loader are set as well. Without any object
    only meta is returned.

    Args:
        path: The file.
        model: Of the structure and dtypes of the one saved.
        optimizer: Of the same parameters.
        loader: With the same settings, over as many samples; else it is refused.
        history: Gets the records that were saved.

    Raises:
        CheckpointError: The file is damaged, something else, or of a newer format; or it does not
            fit an object, also in the dtype of an array. Nothing has changed then.
        FileNotFoundError: There is no such file.
    """
    content = read(path)
    restore(path, content, model, optimizer, loader, history)
    return content["meta"]  # type: ignore[no-any-return]


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `save` made its tree of, after reading all of the file."""
    file = io.BytesIO(Path(path).read_bytes())
    contract = f"{path} to be a whole checkpoint"
    with check.refusing("checkpoint.load", contract, CheckpointError):
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(info.file_size for info in members) > len(file.getbuffer()):
                raise ValueError("members larger than the file")
            arrays = {info.filename.removesuffix(".npy"): _array(archive, info) for info in members}
        if "tree" not in arrays:
            raise ValueError("an archive of something else")
        tree = json.loads(arrays["tree"].tobytes())
        found = tree["dict"].get("format"), tree["dict"].get("version")
        if found != (_FORMAT, _VERSION):
            raise ValueError(f"format {found[0]!r}, version {found[1]!r}: not {_VERSION}")
        content: dict[str, Any] = _unpacked(tree, arrays)
        if not isinstance(content["meta"], dict):
            raise ValueError(f"{check.described(content['meta'])} as meta")
        return content


def restore(
    path: str | os.PathLike[str],
    content: dict[str, Any],
    model: Module | None = None,
    optimizer: Optimizer | None = None,
    loader: DataLoader | None = None,
    history: History | None = None,
) -> None:
    """Set the objects given, all of them or none, to what was read from path."""
    contract = f"{path} to fit"
    with (
        holding(),
        check.refusing("checkpoint.load", contract, CheckpointError),
        contextlib.ExitStack() as undo,
    ):
        if optimizer is not None and model is not None:
            for owner, streams in _streams(model, loader).items():
                _set_streams(undo, owner, streams, content["generators"][owner])
        if loader is not None and content["loader"] != _settings(loader):
            raise ValueError(f"a loader with {content['loader']}, not {_settings(loader)}")
        records = [] if history is None else checked_records(content["history"])
        if optimizer is not None:
            _check_kind(optimizer, content)
            undo.callback(optimizer.load_state_dict, optimizer.state_dict())
            optimizer.load_state_dict(content["optimizer"])
        if model is not None:
            set_arrays(model, content["model"])  # last, as it is all or nothing by itself
        if history is not None:
            history.records[:] = records
        undo.pop_all()


def _check_kind(optimizer: Optimizer, content: dict[str, Any]) -> None:
    """Refuse the state of another kind: its keys may be the same, as those of Adam and AdamW."""
    own = type(optimizer).__name__
    kind = content.get("optimizer_kind", own)  # files of the first version do not say it
    if kind != own:
        raise ValueError(f"the state of {kind}, not of {own}")


def set_arrays(model: Module, state: Any) -> None:
    """Load a state dict, all or nothing; refuse arrays of other dtypes than the model's."""
    for name, own in (*model.named_parameters(), *model.named_buffers()):
        if name in state and state[name].dtype != own.data.dtype:
            raise ValueError(f"{name} of {state[name].dtype}, not {own.data.dtype}")
    model.load_state_dict(state)


def _streams(model: Module, loader: DataLoader | None) -> dict[str, list[Stream]]:
    """Return the streams that the model draws from, and those that only the loader does."""
    of_model = len(list(streams_in(model)))
    both = list(streams_in([model, loader]))
    return {"model": both[:of_model], "loader": both[of_model:]}


def _set_streams(
    undo: contextlib.ExitStack, owner: str, streams: list[Stream], states: list[Any]
) -> None:
    if len(streams) != len(states):
        held = f"{len(states)} random generators for the {owner}, which holds {len(streams)}"
        raise ValueError(f"{held} (those that it shares are counted once)")
    for (get, put), state in zip(streams, states, strict=True):
        check_state(get(), state)
        undo.callback(put, get())
        put(state)


def _settings(loader: DataLoader) -> dict[str, Any]:
    """Return what must be the same for the loader to yield the same."""
    settings = {name: getattr(loader, name) for name in check.settings_of(DataLoader)}
    transform = settings.pop("transform")
    if transform is not None:  # its name: the address of a function is another in the next process
        settings["transform"] = re.sub(" at 0x[0-9a-fA-F]+", "", repr(transform))
    return {"samples": len(loader.inputs), **settings}


def _packed(value: Any, name: str, arrays: _Arrays) -> Any:
    """Return value as JSON can write it; each array goes into arrays, its name in its place.

    Lists stay lists. A dict becomes {"dict": {...}}, so that what stands for an array or a tuple
    cannot be mistaken for one.
    """
    if name.count("/") > _DEEPEST:  # a list that holds itself has no end
        contract = f"meta nested at most {_DEEPEST} deep"
        raise check.value_error("checkpoint.save", contract, value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and not np.ma.isMA(value):
        if len(name) > _LONGEST:
            contract = f"arrays under names of at most {_LONGEST} letters"
            raise check.value_error("checkpoint.save", contract, name)
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        inside = {key: _packed(item, _below(name, key), arrays) for key, item in value.items()}
        return {"dict": inside}
    if isinstance(value, (list, tuple)):
        items = [_packed(item, _below(name, str(i)), arrays) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        value = value.item()
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        contract = f"integers that a float could hold at {name}"
        raise check.value_error("checkpoint.save", contract, value)
    if value is None or isinstance(value, (int, float, str)):
        return value
    contract = f"numbers, strings, arrays, and lists, tuples and dicts of them at {name}"
    raise check.type_error("checkpoint.save", contract, value)


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


def _write_archive(file: IO[bytes], arrays: _Arrays) -> None:
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
