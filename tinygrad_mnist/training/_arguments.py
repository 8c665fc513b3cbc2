"""The arguments of `fit`, `evaluate` and their like, checked before anything changes."""

from collections.abc import Iterable, Sequence, Sized
from typing import Any

from tinygrad_mnist import _checks as check
from tinygrad_mnist.data import DataLoader
from tinygrad_mnist.losses import BCEWithLogitsLoss, CrossEntropyLoss, Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Sequential, Sigmoid, Softmax
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.training._averages import Metric, named
from tinygrad_mnist.training.callbacks import Callback, Run
from tinygrad_mnist.training.history import History, record_of_others

_METHODS = {name: m for name, m in vars(Callback).items() if not name.startswith("_")}

Pairs = Iterable[tuple[Any, Any]]

_BATCH_SIZE = 512  # of two arrays that are given in place of a loader


def check_parts(owner: str, model: Module, loss: Loss, method: str) -> None:
    """Refuse what is no model, and a loss without this method, such as its class."""
    if not isinstance(model, Module):
        raise check.type_error(owner, "a Module", model)
    check.loss(owner, loss, method=method)


def check_trainable(owner: str, model: Module, loss: Loss, optimizer: Optimizer) -> None:
    """Refuse what does not train together."""
    check_parts(owner, model, loss, "backward")
    check_logits(owner, model, loss)
    _check_optimizer(owner, optimizer, model)


def check_logits(owner: str, model: Module, loss: Loss) -> None:
    """Refuse a last layer that the loss contains: a softmax of a softmax hardly learns."""
    inside = {CrossEntropyLoss: Softmax, BCEWithLogitsLoss: Sigmoid}.get(type(loss))
    layers = [layer for _, layer in model.leaves()] if isinstance(model, Sequential) else []
    if layers and type(layers[-1]) is inside:
        contract = f"logits for {type(loss).__name__}"
        raise check.refusal(ValueError, owner, contract, f"a last layer {layers[-1]}")


def _check_optimizer(owner: str, optimizer: Optimizer, model: Module) -> None:
    """Refuse an optimizer of other parameters; one of some of the model's leaves the others."""
    if not isinstance(optimizer, Optimizer):
        raise check.type_error(owner, "an Optimizer", optimizer)
    own = {id(p) for p in model.parameters()}
    others = sum(id(p) not in own for p in optimizer.params)
    if others:
        contract, found = "an optimizer of the model's parameters", f"{others} of another model"
        raise check.refusal(ValueError, owner, contract, found)


def pairs_of(owner: str, loader: Any, *, arrays: bool = True) -> Any:
    """Return what yields pairs, or refuse it; of two arrays, if they may be given, a DataLoader."""
    if arrays and _is_pair(loader) and all(map(_is_array, loader)):
        return DataLoader(loader[0], loader[1], _BATCH_SIZE)
    first = loader[:1] if isinstance(loader, (list, tuple)) else ()
    if not isinstance(loader, Iterable) or _is_array(loader) or not all(map(_is_pair, first)):
        raise check.type_error(owner, "a DataLoader, or an iterable of pairs", loader)
    return loader


def _is_pair(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__")


def checked_callbacks(callbacks: Iterable[Callback], run: Run) -> list[Callback]:
    """Return the callbacks, each of which has looked at the run; refuse what are none."""
    if not isinstance(callbacks, Iterable):
        raise check.type_error("fit", "callbacks to be a list of Callbacks", callbacks)
    checked = list(callbacks)
    for callback in checked:
        if not isinstance(callback, Callback):
            raise check.type_error("fit", "callbacks to be a list of Callbacks", callback)
        kind = type(callback)
        if kind is not Callback and all(getattr(kind, n) is m for n, m in _METHODS.items()):
            contract = f"a callback to define one of {', '.join(_METHODS)}"
            found = ", ".join(name for name in vars(kind) if not name.startswith("_"))
            raise TypeError(check.expected("fit", contract, found or "none"))
        callback.before_run(run)
    return checked


def checked_history(history: History | None, resume: bool) -> History:
    """Return the history to go on with, an empty one if there is none."""
    if history is None:
        return History()
    if not isinstance(history, History):
        raise check.type_error("fit", "history to be a History", history)
    if resume:
        raise check.refusal(ValueError, "fit", "history or resume", "both")
    return history


def continue_history(run: Run, loader: Pairs) -> None:
    """Let the run go on after the history that it was given; refuse one of other numbers."""
    records = run.history.records
    if (other := record_of_others(records, run.columns)) is not None:
        contract = f"history with {', '.join(run.columns)}, or an empty one"
        raise check.refusal(ValueError, "fit", contract, ", ".join(other))
    if isinstance(loader, Sized):  # else schedules per step begin again
        run.step = len(records) * len(loader)


def checked_data(
    train: Any, validation: Any, metrics: Sequence[str | Metric] | None
) -> tuple[Pairs, Pairs | None, dict[str, Metric], list[str]]:
    """Return both loaders, the metrics by name, and the columns that the records will have."""
    train = pairs_of("fit", train, arrays=False)
    functions = named("fit", metrics, train)
    measured = ["loss", *functions]
    columns = ["epoch", "lr", *measured]
    if validation is not None:
        validation = pairs_of("fit", validation)
        _check_widths(train, validation)
        columns += [f"val_{name}" for name in measured]
    return train, validation, functions, [*columns, "seconds"]


def _check_widths(train: Any, validation: Any) -> None:
    """Refuse validation arrays with another number of features than the training arrays have.

    What a transform makes of the inputs is not known before it runs.
    """
    if not type(train) is type(validation) is DataLoader:
        return
    transformed = train.transform is not None or validation.transform is not None
    for name in ["targets"] if transformed else ["inputs", "targets"]:
        array, other = getattr(train, name), getattr(validation, name)
        counted = array.dtype.kind == "f" and array.ndim > 1 and other.ndim > 1  # no words, labels
        if counted and array.shape[-1] != other.shape[-1]:
            contract = f"validation {name} of shape (..., {array.shape[-1]})"
            raise check.value_error("fit", contract, other.shape)
