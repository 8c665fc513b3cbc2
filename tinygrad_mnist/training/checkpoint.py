"""Checkpoints: all that a run needs to go on bit for bit, in one file that is never half-written.

`np.load(path)["model/0.weight"]` reads an array of one without this module.
"""

import contextlib
import os
from typing import Any

from tinygrad_mnist import _checks as check
from tinygrad_mnist._generators import Stream, check_state, streams_in
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.training._archive import CheckpointError, read_tree, write_tree
from tinygrad_mnist.training.history import History, checked_records

__all__ = ["CheckpointError", "load", "save"]


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
        path: The file, by convention .npz. The new one is written beside it, as "path.PID.tmp",
            flushed to disk and renamed.
        model: Its state_dict and its generators are saved.
        optimizer: Its state_dict is saved.
        loader: Its generator is saved, and its settings, to be compared when loading.
        history: Its records are saved.
        meta: Whatever else `load` shall return: numbers, strings, arrays, and lists, tuples
            and dicts (with strings as keys) of them.

    Raises:
        TypeError: meta, or an optimizer's state, holds something else.
        ValueError: A record of the history holds something else than numbers.
        OSError: The file cannot be written; an old one is still there.
    """
    streams = _streams(model, loader)
    content = {
        "model": model.state_dict(),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "generators": {owner: [get() for get, _ in found] for owner, found in streams.items()},
        "loader": None if loader is None else _settings(loader),
        "history": None if history is None else checked_records(history.records),
        "meta": meta,
    }
    write_tree(path, content)


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
            fit an object, also in the dtype of a parameter. Nothing has changed then.
        FileNotFoundError: There is no such file.
    """
    content = read_tree(path)
    contract = f"{path} to fit"
    with (
        check.refusing("checkpoint.load", contract, CheckpointError),
        contextlib.ExitStack() as undo,
    ):
        if optimizer is not None and model is not None:
            for owner, streams in _streams(model, loader).items():
                _set_streams(undo, owner, streams, content["generators"][owner])
        if loader is not None and content["loader"] != _settings(loader):
            raise ValueError(f"a loader with {content['loader']}, not {_settings(loader)}")
        records = None if history is None else checked_records(content["history"])
        if optimizer is not None:
            undo.callback(optimizer.load_state_dict, optimizer.state_dict())
            optimizer.load_state_dict(content["optimizer"])
        if not isinstance(content["meta"], dict):
            raise ValueError(f"meta to be {check.described(content['meta'])}")
        if model is not None:
            set_arrays(model, content["model"])  # last, as it is all or nothing by itself
        undo.pop_all()
    if history is not None and records is not None:
        history.records[:] = records
    return content["meta"]


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
    names = ("batch_size", "shuffle", "drop_last")
    return {"samples": len(loader.inputs), **{name: getattr(loader, name) for name in names}}
