"""How far training is: a bar within an epoch and a line after it, in terminals, logs, notebooks."""

import sys
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from html import escape
from time import perf_counter
from typing import Any

import numpy as np
from tqdm import tqdm

from tinygrad_mnist import _checks as check
from tinygrad_mnist._display import Output, in_notebook
from tinygrad_mnist.training._averages import Averages
from tinygrad_mnist.training.callbacks import Run
from tinygrad_mnist.training.history import Record, shown

_DELAY = 0.5  # seconds: a shorter epoch shows no bar
_EVERY = 0.2  # seconds between two looks of a bar

Draw = Callable[[str, int], None]  # of the numbers so far, and how many batches were trained on


class Progress:
    """What `fit` shows, as its `progress` says: True, "bar", "lines" or False."""

    def __init__(self, progress: Any, run: Run, loader: Any) -> None:
        wanted = _checked(progress)
        self._run, self._total = run, len(loader) if isinstance(loader, Sized) else None
        self._notebook = Output() if in_notebook() else None  # one for all epochs
        terminal = getattr(sys.stderr, "isatty", bool)()
        watched = wanted is True and (self._notebook is not None or terminal)
        self._bar = watched or (wanted == "bar" and sys.stderr is not None)
        self._lines = wanted in (True, "lines")

    @contextmanager
    def bar(self) -> Iterator[Callable[[Averages], None]]:
        """Yield what shows the averages so far in a bar, which goes away at the end of the block.

        A run calls it after each step, and most calls only look at the clock.
        """
        if not self._bar:
            yield lambda averages: None
            return
        due = perf_counter() + _DELAY
        output, total = self._notebook, self._total
        with _notebook_bar(total, output) if output else _terminal_bar(total) as draw:

            def show(averages: Averages) -> None:
                nonlocal due
                if perf_counter() >= due:
                    draw(_line(self._run, averages.result("fit")), averages.batches)
                    due = perf_counter() + _EVERY

            yield show

    def line(self) -> None:
        """Say what the last epoch brought."""
        if not self._lines:  # the best epoch is looked for in all of them
            return
        record = self._run.history.records[-1]
        text = f"{_line(self._run, record)}  {shown('seconds', record['seconds'])} s"
        # without validation, almost every epoch is the best so far
        best = "val_loss" in record and self._run.history.best() is record
        self.say(f"{text}  best" if best else text)

    def say(self, text: str) -> None:
        """Write a line, where lines are wanted."""
        if self._lines and self._notebook:
            print(text, flush=True)  # what goes to stderr has a red background there
        elif self._lines and sys.stderr is not None:
            tqdm.write(text, file=sys.stderr)  # above the bar of a loop around fit


def _checked(progress: Any) -> bool | str:
    contract = 'progress to be True, "bar", "lines" or False'
    if isinstance(progress, str):
        if progress not in ("bar", "lines"):
            raise check.value_error("fit", contract, progress)
        return progress
    if not isinstance(progress, (bool, np.bool_)):
        raise check.type_error("fit", contract, progress)
    return bool(progress)


def _line(run: Run, record: Record) -> str:
    """Return the epoch, and each number, followed by that of validation."""
    begun, last = (f"epoch {epoch}/{run.epochs}" for epoch in (run.epoch, run.epochs))
    parts = [begun.ljust(len(last))]
    numbers = {name: v for name, v in record.items() if name not in ("epoch", "lr", "seconds")}
    for name, value in numbers.items():
        part = f"{name} {shown(name, value)}"
        if (validated := f"val_{name}") in numbers:
            part += f" val {shown(name, numbers[validated])}"
        if not (name.startswith("val_") and name[4:] in numbers):
            parts.append(part)
    return "  ".join(parts)


@contextmanager
def _terminal_bar(total: int | None) -> Iterator[Draw]:
    """Yield what draws a bar behind the numbers: on a narrow terminal the bar shrinks."""
    form = "{desc} {percentage:3.0f}% |{bar}| {remaining} left"
    if total is None:
        form = "{desc}  batch {n_fmt}, {elapsed}"
    options: Any = {"delay": _DELAY, "mininterval": 0, "miniters": 1, "dynamic_ncols": True}
    with tqdm(total=total, bar_format=form, leave=False, file=sys.stderr, **options) as bar:

        def draw(text: str, batches: int) -> None:
            bar.set_description_str(text, refresh=False)
            bar.update(batches - bar.n)

        yield draw


@contextmanager
def _notebook_bar(total: int | None, output: Output) -> Iterator[Draw]:
    """Yield what draws a bar behind the numbers into an output of the cell."""
    began = perf_counter()

    def draw(text: str, batches: int) -> None:
        seconds = perf_counter() - began
        if total is None:
            output.put(f"{text}  batch {batches}, {tqdm.format_interval(seconds)}")
            return
        left = f" {tqdm.format_interval(seconds / batches * (total - batches))} left"
        bar = f'  <progress max="{total}" value="{batches}"></progress>'
        output.put(f"{text} {left}", escape(text) + bar + left)

    with output:
        yield draw
