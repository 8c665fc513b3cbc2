"""The contract of modules and losses, as far as finite differences cannot see it.

Each rule has the name that `ModuleContractError.rule` gives:

keeps-input           neither forward nor backward modifies x (a loss: pred and target)
keeps-dy              backward does not modify dy
keeps-parameters      neither forward nor backward moves a Parameter, and backward moves no Buffer
reproducible          two forwards from the same draws and Buffers give the same y
dtype                 y, dx and the gradients of a float64 module are float64
shape                 dx has the shape of x (or is None with input_grad=False)
layout                the memory layout of x and dy changes nothing
accumulates           a second backward returns the same dx and adds the same again
linear                backward(-3 dy) is -3 backward(dy)
eval-deterministic    in evaluation mode two forwards give the same y, draw nothing, move no Buffer
rows-independent      a sample alone gives what its row in the batch gives, in whatever order
                      (asked of modules that draw nothing: a mask depends on the rows before)
empty                 no samples give no gradient, no error and no warning

With several inputs, each rule is asked of every one, and dx is a tuple.
"""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing.report import ModuleContractError
from tinygrad_mnist.testing.subject import Form, Inputs, State, gradients, leading, numbered

_TOLERANCE = 1e-9  # two orders of summation in float64 differ by far less

Results = dict[str, FloatArray]  # of one forward and backward, each by what a message calls it

LAYOUTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "Fortran-ordered": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "read-only": lambda a: np.broadcast_to(a.copy(), a.shape),
}


def check_module_contracts(
    module: Module, inputs: Inputs, dy: FloatArray, rows_independent: bool, forms: Sequence[Form]
) -> None:
    """Raise ModuleContractError for the first rule that a copy of the module in float64 breaks."""
    run = _Run(copy.deepcopy(module).astype(np.float64), inputs, dy)
    try:
        _check_reproducible(run)
        wanted = run(inputs, dy)
        for what, array in wanted.items():
            message = f"{what} in float64, as the module, got {array.dtype}"
            run.require("dtype", array.dtype == np.float64, message)
        _check_layouts(run, wanted)
        doubled = {what: 2 * array for what, array in wanted.items()} | _per_sample(wanted)
        message = "a second backward to add the same again"
        run.same("accumulates", run(inputs, dy, times=2), doubled, message)
        scaled = {what: -3 * array for what, array in wanted.items()} | {"y": wanted["y"]}
        message = "backward(-3 dy) to be -3 backward(dy)"
        run.same("linear", run(inputs, -3 * dy), scaled, message)
        drawn = run.state.drawn()  # by the last run
        if rows_independent and run.leading and all(run.leading) and not drawn:
            _check_rows(run, wanted, forms)
        _check_evaluation(run)
    finally:
        run.state.rewind()


def check_loss_contracts(loss: Loss, pred: FloatArray, target: NDArray[Any]) -> None:
    """Raise ModuleContractError for the first rule that a copy of the loss breaks."""
    require, loss = partial(_require, type(loss).__name__), copy.deepcopy(loss)
    state = State(lambda: loss(pred.copy(), target), loss)
    own_pred, own_target = pred.copy(), target.copy()
    try:
        value = loss(own_pred, own_target)
        require("shape", np.ndim(value) == 0, f"one number, got shape {np.shape(value)}")
        found, again = np.array(loss.backward()), np.array(loss.backward())
        kept = _equal(own_pred, pred) and _equal(own_target, target)
        require("keeps-input", kept, "pred and target to be left alone, got one modified")
        message = f"dL/dpred of shape {pred.shape}, got {found.shape}"
        require("shape", found.shape == pred.shape, message)
        message = f"dL/dpred in float64, as pred, got {found.dtype}"
        require("dtype", found.dtype == np.float64, message)
        message = "a second backward to return the same, got another"
        require("accumulates", _equal(found, again), message)
        state.rewind()
        same = _equal(np.array(loss(pred, target)), np.array(value))
        require("reproducible", same, "the same value twice, got another")
    finally:
        state.rewind()


def check_empty_batch(module: Module, inputs: Inputs) -> None:
    """Raise ModuleContractError if no samples, x (0, ...), give an error, a warning, a gradient."""
    owner, module = type(module).__name__, copy.deepcopy(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            module.backward(module(*inputs))
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            message = f"{owner}: expected no error or warning from an empty batch, got {got}"
            raise ModuleContractError("empty", message) from error
    for name, parameter in module.named_parameters():
        message = f"no gradient of {name} from an empty batch, got some"
        _require(owner, "empty", not parameter.grad.any(), message)


class _Run:
    """Runs a module from the same draws and Buffers each time and compares what comes out."""

    def __init__(self, module: Module, inputs: Inputs, dy: FloatArray) -> None:
        self.module, self.inputs, self.dy = module, inputs, dy
        self.owner, self.leading = type(module).__name__, leading(module, inputs)
        self.require = partial(_require, self.owner)
        # a sum in another order rounds by a few units in the last place of its terms
        self.rounding = 64 * np.finfo(np.float64).eps * max(map(_largest, inputs))
        self.usual: dict[str, float] = {}  # the largest entry of each array, at these inputs
        # the very first forward, for one that changes x or a Parameter only once
        self.state = State(self._check_nothing_is_modified, module)

    def __call__(self, inputs: Inputs, dy: FloatArray, times: int = 1) -> Results:
        results = {"y": self.forward(inputs)}
        dxs, grads = gradients(self.module, inputs, dy, times)
        results |= {name: dx for name, dx in numbered("dx", dxs) if dx is not None}
        results |= {f"the gradient of {name}": grad for name, grad in grads.items()}
        self.usual = self.usual or {what: _largest(array) for what, array in results.items()}
        return results

    def forward(self, inputs: Inputs) -> FloatArray:
        self.state.rewind()
        return np.array(self.module(*inputs))

    def same(self, rule: str, found: Results, wanted: Results, message: str) -> None:
        """Require equality to rounding: of gradients, relative to dy or to their largest entry."""
        for what, array in wanted.items():
            factor = 1.0 if what == "y" else _largest(self.dy)
            scale = max(_largest(array), self.usual[what]) + (0 if what == "y" else factor)
            # numbers below the smallest normal one round to few digits
            atol = _TOLERANCE * scale + self.rounding * factor + np.finfo(np.float64).tiny
            other = found.get(what)
            alike = other is not None and other.shape == array.shape
            close = alike and np.allclose(other, array, rtol=_TOLERANCE, atol=atol, equal_nan=True)  # type: ignore[arg-type]
            self.require(rule, close, f"{message}, got another value of {what}")

    def _check_nothing_is_modified(self) -> None:
        inputs, dy = [x.copy() for x in self.inputs], self.dy.copy()
        steps: dict[str, Callable[[], Any]] = {
            "forward": lambda: self.module(*inputs),
            "backward": lambda: self.module.backward(dy),
        }
        for step, call in steps.items():
            before = self.module.state_dict()
            call()
            for (name, x), own in zip(numbered("x", self.inputs), inputs, strict=True):
                message = f"{step} to leave {name} alone, got it modified"
                self.require("keeps-input", _equal(own, x), message)
            may_move = dict(self.module.named_buffers()) if step == "forward" else {}
            after = self.module.state_dict()
            for name in before.keys() - after.keys():
                message = f"{step} to keep {name} (`.data = ...` sets its values), got it replaced"
                self.require("keeps-parameters", False, message)
            for name, values in after.items():
                message = f"{step} to leave {name} alone, got it moved"
                same = name in may_move or _equal(values, before.get(name, values))
                self.require("keeps-parameters", same, message)
        message = "backward to leave dy alone, got it modified"
        self.require("keeps-dy", _equal(dy, self.dy), message)


def _check_reproducible(run: _Run) -> None:
    message = (
        "the same y from the same x and the same draws, got another; a random layer keeps its "
        "np.random.Generator as an attribute (self.rng) and draws from nothing else; an array that "
        "forward moves is a Buffer"
    )
    run.require("reproducible", _equal(run.forward(run.inputs), run.forward(run.inputs)), message)


def _check_layouts(run: _Run, wanted: Results) -> None:
    arrays = (*run.inputs, run.dy)
    for name, laid_out in LAYOUTS.items() if all(a.ndim for a in arrays) else ():
        *inputs, dy = map(laid_out, arrays)
        try:
            found = run(inputs, dy)
        except ValueError as error:
            message = f"x and dy to be left alone, got {error}"
            run.require("keeps-input", "read-only" not in str(error), message)
            raise
        run.same("layout", found, wanted, f"a {name} x and dy to change nothing")
    if run.leading and all(a.ndim and a.size for a in arrays):
        *inputs, dy = (np.broadcast_to(a[:1], a.shape) for a in arrays)
        plain = run([x.copy() for x in inputs], dy.copy())
        run.same("layout", run(inputs, dy), plain, "a broadcast x and dy to change nothing")


def _check_rows(run: _Run, wanted: Results, forms: Sequence[Form]) -> None:
    advice = (
        "(sample_axes says how many last axes are one sample; rows_independent=False is for layers "
        "that mix rows)"
    )
    rows, count = _per_sample(wanted), math.prod(run.leading)
    for number in sorted({0, count // 2, count - 1}):
        index = np.unravel_index(number, run.leading)
        batch_of_one = tuple(slice(i, i + 1) for i in index)
        pick = itemgetter(index if "sample" in forms else batch_of_one)
        contract = f"sample {', '.join(map(str, index))} alone to give what its row gives {advice}"
        try:
            alone = run([pick(x).copy() for x in run.inputs], pick(run.dy).copy())
            row = {what: pick(array) for what, array in rows.items()}
        except Exception as error:
            got = f"{contract}, got {type(error).__name__}: {error}"
            raise ModuleContractError("rows-independent", f"{run.owner}: expected {got}") from error
        run.same("rows-independent", alone, row, contract)

    turned = partial(np.flip, axis=tuple(range(len(run.leading))))
    found = run([turned(x).copy() for x in run.inputs], turned(run.dy).copy())
    there = wanted | {what: turned(array) for what, array in rows.items()}
    message = "rows in another order to give the same"
    run.same("rows-independent", found, there, message)


def _check_evaluation(run: _Run) -> None:
    run.module.eval()
    same = _equal(run.forward(run.inputs), np.array(run.module(*run.inputs)))
    drawn, moved = run.state.drawn(), ", ".join(run.state.moved_buffers())
    run.require("eval-deterministic", not drawn, "no draws in evaluation mode, got some")
    message = f"no Buffer to move in evaluation mode, got {moved} moved"
    run.require("eval-deterministic", not moved, message)
    run.require("eval-deterministic", same, "the same y twice in evaluation mode, got another")


def _require(owner: str, rule: str, holds: object, message: str) -> None:
    if not holds:
        raise ModuleContractError(rule, f"{owner}: expected {message}")


def _per_sample(results: Results) -> Results:
    """Return what has a row for each sample, y and each dx, without the parameters' gradients."""
    return {what: a for what, a in results.items() if not what.startswith("the gradient of ")}


def _equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _largest(array: FloatArray) -> float:
    return float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))
