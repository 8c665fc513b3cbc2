"""Checkpoints: all that a run needs to go on bit for bit; and model files, ready to predict.

Both are uncompressed `.npz` files without pickles, which are never half-written: the arrays, and
one member "tree" of JSON that says where each belongs. `np.load(path)["model/0.weight"]` reads one
without this module.
"""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tinygrad_mnist import _checks as check
from tinygrad_mnist._generators import Stream, check_state, streams_in
from tinygrad_mnist._interrupts import holding
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.training._archive import CHECKPOINT, MODEL, read_archive, write_archive
from tinygrad_mnist.training._structure import built, classes, structure_of
from tinygrad_mnist.training.history import History, checked_records

__all__ = ["CheckpointError", "load", "load_model", "save", "save_model"]

_VERSION = 1  # of both


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
        TypeError: model is no Module; or meta, or an optimizer's state, holds something else.
        ValueError: A record of the history holds something else than numbers; meta is nested more
            than 100 deep, or has an integer beyond any float, or a name that is too long; or path
            is a folder or a device.
        OSError: The file cannot be written; an old one is still there.
    """
    if not isinstance(model, Module):
        raise check.type_error("checkpoint.save", "a Module", model)
    streams = _streams(model, loader)
    content = {
        "format": CHECKPOINT,
        "version": _VERSION,
        "model": model.state_dict(),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "optimizer_kind": None if optimizer is None else type(optimizer).__name__,
        "generators": {owner: [get() for get, _ in found] for owner, found in streams.items()},
        "loader": None if loader is None else _settings(loader),
        "history": None if history is None else checked_records(history.records),
        "meta": meta,
    }
    write_archive("checkpoint.save", path, content)


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


def save_model(path: str | os.PathLike[str], model: Module, **meta: Any) -> None:
    """Write a model file: structure, parameters and buffers, all that it takes to predict.

    Of each layer it holds the name of its class, and the arguments of its constructor, which are
    its attributes of the same names. It holds no code and no generator. A model that `load_model`
    would not make alike is refused, so that nothing is lost without a word: a method that was set
    on an object, a Parameter that two layers share, an attribute that no argument says.

    Args:
        path: The file, written as `save` does.
        model: Layers of the package; or your own, whose arguments are numbers, strings, arrays,
            other layers, and lists and tuples of them.
        meta: Whatever else `load_model` shall return, as for `save`: names of classes, a mean.

    Raises:
        TypeError: The model cannot be made again, or meta holds something else.
        ValueError: Two classes of layers are of one name; or as for `save`.
        OSError: The file cannot be written; an old one is still there.
    """
    if not isinstance(model, Module):
        raise check.type_error("save_model", "a Module", model)
    content = {
        "format": MODEL,
        "version": _VERSION,
        "structure": structure_of("save_model", model),
        "model": model.state_dict(),
        "meta": meta,
    }
    write_archive("save_model", path, content)


def load_model(
    path: str | os.PathLike[str], *, layers: Iterable[type[Module]] = ()
) -> tuple[Any, dict[str, Any]]:
    """Return (model, meta) of a model file, the model in evaluation mode, ready to predict.

    `model.train()` goes on with the training; generators, such as a Dropout's, are new ones. No
    code in a file is run. The constructors of `layers` are, with arguments that the file says.

    Args:
        path: The file.
        layers: Your own classes of layers, if the model has any; they are found by name.

    Raises:
        CheckpointError: The file is damaged, something else, or of a newer format; or it has a
            layer that is not among `layers`.
        FileNotFoundError: There is no such file.
    """
    known = classes("load_model", layers)
    contract = f"{path} to be a whole model file"
    with check.refusing("load_model", contract, CheckpointError):
        content = read_archive(path, MODEL, _VERSION)
        arrays = content["model"]
        shapes = Counter(array.shape for array in arrays.values())
        model = built(content["structure"], known, shapes)
        for name, own in (*model.named_parameters(), *model.named_buffers()):
            if name in arrays and own.data.dtype.kind == "f":
                own.astype(arrays[name].dtype)
        set_arrays(model, arrays)
        return model.eval(), content["meta"]


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `save` wrote, after reading all of the file."""
    contract = f"{path} to be a whole checkpoint"
    with check.refusing("checkpoint.load", contract, CheckpointError):
        return read_archive(path, CHECKPOINT, _VERSION)


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
