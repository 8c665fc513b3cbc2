"""The training loop with everything around it: `fit`, and `evaluate`.

The loop itself is five lines, and the examples write them out. `fit` is those five lines with
modes, averages, a progress bar, callbacks, checkpoints, and a stop when the loss is NaN or
infinite.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from time import perf_counter
from typing import Any

from tinygrad_mnist import _checks as check
from tinygrad_mnist._interrupts import Hold, holding
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.training._arguments import (
    Pairs,
    check_parts,
    check_trainable,
    checked_callbacks,
    checked_data,
    checked_history,
    continue_history,
    pairs_of,
)
from tinygrad_mnist.training._averages import Averages, Metric, named, refuse_unless_finite
from tinygrad_mnist.training._kept import modes_kept, set_back
from tinygrad_mnist.training._progress import Progress
from tinygrad_mnist.training._resume import RunFile, finite, opened, position
from tinygrad_mnist.training.callbacks import Callback, Run
from tinygrad_mnist.training.history import History


def evaluate(
    model: Module,
    loss: Loss,
    loader: Pairs | tuple[Any, Any],
    *,
    metrics: Sequence[str | Metric] | None = None,
) -> dict[str, float]:
    """Return "loss" and each metric by its name, over all of loader, in evaluation mode.

    The loss is what it would be on all samples at once, also with a short last batch, or with class
    weights; a metric is its mean over the samples. Every module is then in the mode it was in.

    Args:
        model: Any Module.
        loss: A ReducedLoss, or any loss that is called the same way. One whose `reduction` is "sum"
            is summed over the batches.
        loader: A DataLoader, an iterable of pairs of batches, or two arrays (x, t); with at least
            one sample.
        metrics: "accuracy" or "top_k_accuracy" (k = 5), or functions of (pred, target) that
            return one number for a batch. Left out, it is accuracy if the targets are classes:
            integer labels (N,), or rows that are one-hot or probabilities. The first 1,000 of a
            DataLoader are looked at, or the first batch of a list; of other iterables, none.
    """
    check_parts("evaluate", model, loss, "__call__")
    loader = pairs_of("evaluate", loader)
    averages = Averages(loss, named("evaluate", metrics, loader), loader)
    with holding() as hold, modes_kept(model):
        model.eval()
        with hold:  # Ctrl-C may come, nothing moves
            for x, t in loader:
                y = model(x)
                averages.add(loss(y, t), y, t)
    return averages.result("evaluate")


def fit(
    model: Module,
    loss: Loss,
    optimizer: Optimizer,
    train_loader: Pairs,
    *,
    epochs: int,
    validation: Pairs | tuple[Any, Any] | None = None,
    metrics: Sequence[str | Metric] | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | str = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    history: History | None = None,
    compiled: bool = False,
) -> History:
    """Train for a number of epochs, and return what was measured in each.

    The numbers of an epoch are those of the passes that trained, dropout included; those named
    `val_...` are of `evaluate` after it. Every module is then in the mode it was in, also after an
    error or Ctrl-C.

    Ctrl-C waits for the end of a step; a second one does not. The KeyboardInterrupt has the History
    so far as its `history`.

    Args:
        model: Any Module.
        loss: A ReducedLoss, or any loss that is called the same way; see `evaluate`.
        optimizer: An Optimizer of parameters of the model: all of them, or those that shall move.
        train_loader: A DataLoader, or any iterable of pairs that can be iterated over again.
        epochs: How many in all, also with resume or history.
        validation: Data that is not trained on, as for `evaluate`; unshuffled, for repeatable
            numbers.
        metrics: As for `evaluate`; left out, the targets of train_loader decide.
        callbacks: Called in order around epochs and steps: LearningRate, ClipGradients,
            EarlyStopping, BestCheckpoint, CSVLog, or your own.
        progress: True shows a bar within an epoch, on a terminal or in a notebook, and writes a
            line after it: to stderr, in a notebook as the cell's output. "bar" and "lines" show one
            of them anywhere, False none. "best" marks the lowest "val_loss" so far.
        checkpoint: A file to write after each epoch; see `tinygrad_mnist.training.checkpoint`.
        checkpoint_every: Write it every so many batches, too.
        resume: Go on from that file, bit for bit, with the rate that it holds; start from the
            beginning if it is not there. Without resume, a file that is there is replaced.
        history: Go on after its last epoch, with the model as it is now, and add records to it:
            what an earlier fit returned, or an empty one to have in hand if this is interrupted.
        compiled: Make the steps in compiled kernels (extra `compiled`: numba), about 1,000 samples
            at a call. Results are the same up to rounding. Ctrl-C and metrics of your own wait for
            the end of a call, and gradients are cleared. A callback's `before_step` or `after_step`
            may change the model; what a loader, a transform or a metric changes in it is undone or
            comes late. What `compiled.compile_sgd` refuses is refused, and so is a callback with an
            `after_backward`.

    Raises:
        FloatingPointError: The loss or a parameter became NaN or infinite. Parameters, buffers and
            the optimizer are set back to the start of the epoch, or to where it was resumed.
        CheckpointError: With resume, the file is damaged, or of another model, optimizer or
            loader, or of other metrics. Nothing has changed then.
        ValueError: A number outside its interval, no such metric, an optimizer of other parameters,
            a callback that monitors what is not measured, no sample in an epoch, a history of other
            numbers, or one with resume; or the file stands within an epoch after the last.
        TypeError: An argument of the wrong type.
    """
    check_trainable("fit", model, loss, optimizer)
    train_loader, validation, functions, columns = checked_data(train_loader, validation, metrics)
    resume = check.flag("fit", "resume", resume)
    history = checked_history(history, resume)
    epochs = check.integer("fit", "epochs", epochs, at_least=1)
    run = Run(model, optimizer, history, epochs, columns=columns)
    shown = Progress(progress, run, train_loader)
    callbacks = checked_callbacks(callbacks, run)
    continue_history(run, train_loader)
    file = RunFile(run, train_loader, checkpoint, checkpoint_every)
    steps: Callable[..., Generator[None]] = _steps
    if check.flag("fit", "compiled", compiled):
        from tinygrad_mnist.training._compiled import checked_steps  # imports numba

        steps = checked_steps(run, loss, train_loader, callbacks, file)
    with _interruptible(run) as hold, modes_kept(model):
        resumed_at = file.load(list(functions)) if resume else None
        done = len(history.records)
        for epoch in range(done + 1, run.epochs + 1):
            run.epoch = epoch
            with hold:
                if not (resumed_at or _begins(run, callbacks)):
                    break
            with _set_back_unless_finite(run), shown.bar() as show:
                began = perf_counter() - (resumed_at or {}).get("seconds", 0.0)
                averages = Averages(loss, functions, train_loader)
                start, pairs = opened(train_loader, resumed_at, averages)
                with closing(steps(run, loss, pairs, averages, callbacks)) as made:
                    for _ in made:
                        with hold:  # Ctrl-C may come
                            if file.is_due(averages.batches):
                                file.save(position(start, averages, perf_counter() - began))
                            show(averages)
                measured = averages.result("fit")
                if validation is not None:
                    with hold:
                        measured |= _validated(run, loss, validation, functions)
                measured["seconds"] = perf_counter() - began
            resumed_at = None
            run.history.records.append({"epoch": run.epoch, "lr": optimizer.lr, **measured})
            with hold:
                for callback in callbacks:
                    callback.after_epoch(run)
            shown.line()
            with hold:
                file.save()
        for callback in callbacks:
            callback.after_run(run)
        if len(history.records) < run.epochs or len(history.records) == done:
            shown.say(_why_it_ended(run))
    return history


def _why_it_ended(run: Run) -> str:
    done = len(run.history.records)
    if done < run.epochs:
        return f"a callback stopped the run after epoch {done} of {run.epochs}"
    return f"nothing left to train: the history has {done} epochs, of epochs={run.epochs} in all"


def _begins(run: Run, callbacks: Sequence[Callback]) -> bool:
    """Return whether the epoch begins: no callback has stopped the run."""
    for callback in callbacks:
        if not run.stopped:
            callback.before_epoch(run)
    return not run.stopped


def _steps(
    run: Run, loss: Loss, pairs: Pairs, averages: Averages, callbacks: Sequence[Callback]
) -> Generator[None]:
    """Train on each pair, and yield after each step."""
    model, optimizer = run.model, run.optimizer
    model.train()
    frozen = {*model.parameters()} - {*optimizer.params}  # backward adds to their gradients, too
    for x, t in pairs:
        for callback in callbacks:
            callback.before_step(run)
        y = model(x)
        run.loss = loss(y, t)
        refuse_unless_finite(run.loss, f"in batch {averages.batches + 1} of epoch {run.epoch}")
        optimizer.zero_grad()
        for p in frozen:
            p.zero_grad()
        model.backward(loss.backward())
        averages.add(run.loss, y, t)  # before the step: a metric may refuse
        for callback in callbacks:
            callback.after_backward(run)
        optimizer.step()
        run.step += 1
        for callback in callbacks:
            callback.after_step(run)
        yield


def _validated(
    run: Run, loss: Loss, validation: Pairs, functions: Mapping[str, Metric]
) -> dict[str, float]:
    measured = evaluate(run.model, loss, validation, metrics=[*functions.values()])
    refuse_unless_finite(measured["loss"], f"in the validation of epoch {run.epoch}")
    return {f"val_{name}": value for name, value in measured.items()}


@contextmanager
def _set_back_unless_finite(run: Run) -> Iterator[None]:
    """Undo what was trained when the loss or a parameter is NaN or infinite."""
    arrays, settings = run.model.state_dict(), run.optimizer.state_dict()
    try:
        yield
        if not finite(run.model):
            found = f"NaN or infinity after the last batch of epoch {run.epoch}"
            raise check.refusal(FloatingPointError, "fit", "finite parameters", found)
    except FloatingPointError as error:
        set_back(run.model, arrays)
        run.optimizer.load_state_dict(settings)
        error.history = run.history  # type: ignore[attr-defined]
        error.add_note(
            "Parameters and optimizer are as before this epoch, or as resumed within it. This "
            "error's `history` has the epochs before."
        )
        raise


@contextmanager
def _interruptible(run: Run) -> Iterator[Hold]:
    """Hold Ctrl-C back; give its KeyboardInterrupt the history so far, and say how to go on."""
    try:
        with holding() as hold:
            yield hold
    except KeyboardInterrupt as error:
        error.history = run.history  # type: ignore[attr-defined]
        error.add_note(
            f"fit stopped in epoch {run.epoch} of {run.epochs}, after step {run.step}. The model "
            "keeps what it has learned.\nThis error's `history` has the epochs before; "
            f"fit(..., history=history) goes on with epoch {len(run.history.records) + 1}.\n"
            "In a notebook: import sys; history = sys.last_value.history"
        )
        raise
