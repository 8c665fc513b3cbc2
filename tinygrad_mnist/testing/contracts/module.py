"""The contract of modules, as far as finite differences cannot see it.

Each rule is a function of a run; with several inputs, it is asked of every one, and dx is a tuple.
They are asked before the gradients: what a difference says rests on them. Those of
`module_later` come afterwards.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._generators import attributes, reachable
from tinygrad_mnist.module import Module
from tinygrad_mnist.parameter import Buffer, Parameter
from tinygrad_mnist.testing.arrays import MORE_LAYOUTS, equal, finite, read_only
from tinygrad_mnist.testing.contracts.module_run import (
    ModuleRun,
    Results,
    by_name,
    per_sample,
    shapes,
)
from tinygrad_mnist.testing.subject import Inputs, gradient_sums

_MIXES = (
    "(sample_axes says how many last axes are one sample; rows_independent=False is for layers "
    "that mix rows)"
)
_NEEDS_BATCH = '(forms=("batch",) is for layers that need a batch axis)'


def implemented(run: ModuleRun) -> None:
    """Forward and backward are written, and forward returns an array."""
    run.state  # noqa: B018  # the first pass


def finds_parameters(run: ModuleRun) -> None:
    """Every Parameter, Buffer and Module inside is found."""
    modules = list(run.module.modules())
    buffers = [*run.module.parameters(), *(buffer for _, buffer in run.module.named_buffers())]
    found = set(map(id, [*modules, *buffers]))
    for part in reachable(run.module):
        if isinstance(part, (Buffer, Module)) and id(part) not in found:
            kinds = (
                kind.__name__ for kind in (Parameter, Buffer, Module) if isinstance(part, kind)
            )
            message = (
                f"every {next(kinds)} to be found, got one in {_place(part, modules)}; keep it as "
                "an attribute, or in a list, tuple or dict"
            )
            raise run.broken(message)


def keeps_input(run: ModuleRun) -> None:
    """Neither forward nor backward modifies x."""
    _edits_nothing(run)
    _writes_nowhere(run, "x", list(map(read_only, run.inputs)), run.dy)


def keeps_dy(run: ModuleRun) -> None:
    """Backward does not modify dy."""
    _edits_nothing(run)
    _writes_nowhere(run, "dy", run.inputs, read_only(run.dy))


def keeps_parameters(run: ModuleRun) -> None:
    """Neither forward nor backward changes a Parameter, and backward changes no Buffer."""
    _edits_nothing(run)


def reproducible(run: ModuleRun) -> None:
    """From the same draws and Buffers comes the same y, and what the very first pass gave."""
    message = (
        "the same y from the same x and the same draws, got another; a random layer keeps its "
        "np.random.Generator as an attribute (self.rng) and draws from nothing else; an array that "
        "forward changes is a Buffer"
    )
    again = run.forward(run.inputs)
    run.require(equal(again, run.forward(run.inputs)), message)
    wanted = run.wanted  # refuses what is no array of the right shape
    first = {what: np.array(array) for what, array in run.first.items()}
    run.same(first, wanted, "the very first forward and backward to give what others give")


def shape(run: ModuleRun) -> None:
    """dx has the shape of x (or is None with `input_grad=False`)."""
    run.wanted  # noqa: B018  # refuses another shape


def finite_numbers(run: ModuleRun) -> None:
    """Finite numbers give finite y, dx and gradients."""
    if run.allow_nonfinite or not finite(*run.inputs, *run.module.state_dict().values()):
        return
    run.require_finite(run.wanted)


def dtype(run: ModuleRun) -> None:
    """y, dx and the gradients of a float64 module are float64."""
    for what, array in run.wanted.items():
        message = f"{what} in float64, as the module, got {array.dtype}"
        run.require(array.dtype == np.float64, message)


def layout(run: ModuleRun) -> None:
    """The memory layout of x and dy changes nothing."""
    arrays = (*run.inputs, run.dy)
    for name, laid_out in MORE_LAYOUTS.items() if all(a.ndim for a in arrays) else ():
        *inputs, dy = map(laid_out, arrays)
        found = run.guarded if laid_out is read_only else run(inputs, dy)
        run.same(found, run.wanted, f"a {name} x and dy to change nothing")
    if run.leading and all(a.ndim and a.size for a in arrays):
        *inputs, dy = (np.broadcast_to(a[:1], a.shape) for a in arrays)
        plain = run([x.copy() for x in inputs], dy.copy())
        run.same(run(inputs, dy), plain, "a broadcast x and dy to change nothing")


def accumulates(run: ModuleRun) -> None:
    """A second and a third backward give the same dx and add the same; forward adds nothing."""
    doubled = {what: 2 * array for what, array in run.wanted.items()} | per_sample(run.wanted)
    found = run(run.inputs, run.dy, times=2)
    run.same(found, doubled, "a second backward to add the same again")
    run.same(run.backward(run.dy), run.gradients, "a third backward to add the same again")
    added = by_name([], gradient_sums(run.module))
    run.forward(run.inputs)
    run.same(by_name([], gradient_sums(run.module)), added, "forward to leave the gradients alone")


def linear(run: ModuleRun) -> None:
    """backward(c dy) is c backward(dy), and backward(a + b) is backward(a) + backward(b)."""
    run.forward(run.inputs)
    dy, wanted = run.dy, run.gradients

    def ask_scaled(name: str, c: float) -> None:
        # undone before they are compared, lest a tolerance for large gradients hides small ones
        found = {what: array / c for what, array in run.backward(c * dy).items()}
        run.same(found, wanted, f"backward({name} dy) to be {name} backward(dy)")

    ask_scaled("-3", -3)
    if not finite(dy, *wanted.values()):
        return
    none: Results = {what: 0 * array for what, array in wanted.items()}
    run.same(run.backward(0 * dy), none, "backward of a dy of zeros to be 0")
    some = np.arange(dy.size).reshape(dy.shape) % 7 == 0
    a, b = np.where(some, dy, 0), np.where(some, 0, dy)
    of_a, of_b = run.backward(a), run.backward(b)
    for name, c in {"": 1.0, "1024 ": 1024.0}.items():  # so that one entry is far above the others
        total: Results = {what: c * of_a[what] + of_b[what] for what in wanted}
        message = f"backward({name}a + b) to be {name}backward(a) + backward(b)"
        run.same(run.backward(c * a + b), total, message, c * run.dy_size)
    ones, size = np.ones(dy.shape), max(1.0, run.dy_size)
    rest = run.backward(ones - dy)
    total = {what: wanted[what] + rest[what] for what in wanted}
    message = "backward of a dy of ones to be backward(dy) + backward(1 - dy)"
    run.same(run.backward(ones), total, message, size)
    sizes = [run.dy_size, *run.usual_sizes.values()]
    if max(sizes) < 2.0**500 and run.dy_size > 2.0**-500:  # or they might overflow, or vanish
        ask_scaled("2**40", 2.0**40)
        ask_scaled("2**-40", 2.0**-40)


def rows_independent(run: ModuleRun) -> None:
    """A sample alone gives what its row in the batch gives, in whatever order.

    Not asked of modules that draw: a mask depends on the rows before.
    """
    if not run.rows_matter_alone:
        return
    count = math.prod(run.leading)
    for number in sorted({0, count // 2, count - 1}):
        index = tuple(map(int, np.unravel_index(number, run.leading)))
        sample = f"sample {', '.join(map(str, index))}"
        pick: Callable[[Any], Any] = itemgetter(tuple(slice(i, i + 1) for i in index))
        contract = f"{sample} in a batch of one ({shapes(run, pick)}) to give what its row gives"
        alone, rows = run.rearranged(pick, f"{contract} {_MIXES}")
        run.same(alone, rows, f"{contract} {_MIXES}")
        if "sample" in run.forms:
            pick = itemgetter(index)
            contract = f"{sample} alone ({shapes(run, pick)}) to give what a batch of one gives"
            found, row = run.rearranged(pick, f"{contract} {_NEEDS_BATCH}")
            run.same(found, alone | row, f"{contract} {_NEEDS_BATCH}")

    turned = partial(np.flip, axis=tuple(range(len(run.leading))))
    contract = "rows in another order to give the same"
    found, rows = run.rearranged(turned, contract)
    run.same(found, run.wanted | rows, contract)


MODULE_RULES: dict[str, Callable[[ModuleRun], None]] = {
    "implemented": implemented,
    "finds-parameters": finds_parameters,
    "keeps-input": keeps_input,
    "keeps-dy": keeps_dy,
    "keeps-parameters": keeps_parameters,
    "reproducible": reproducible,
    "shape": shape,
    "finite": finite_numbers,
    "dtype": dtype,
    "layout": layout,
    "accumulates": accumulates,
    "linear": linear,
    "rows-independent": rows_independent,
}


def _place(part: object, modules: list[Module]) -> str:
    """Return in which attribute of which module something is, of the innermost."""
    for module in reversed(modules):
        for name, value in attributes(module).items():
            if any(inside is part for inside in reachable(value)):
                owner = "self" if module is modules[0] else type(module).__name__
                return f"{owner}.{name} ({type(value).__name__})"
    return type(modules[0]).__name__


def _edits_nothing(run: ModuleRun) -> None:
    run.state  # noqa: B018  # the first pass
    for rule, message in run.edits:
        run.require(rule != run.rule, message)


def _writes_nowhere(run: ModuleRun, what: str, inputs: Inputs, dy: FloatArray) -> None:
    """Require that nobody writes into an array, be it the same numbers."""
    with suppress(ValueError):  # of the other array, maybe
        run.guarded  # noqa: B018
        return
    try:
        run(inputs, dy)
    except ValueError as error:
        run.require("read-only" not in str(error), f"{what} to be left alone, got {error}")
        raise
