"""The contract of modules and losses, as far as finite differences cannot see it.

Each rule has the name that `ModuleContractError.rule` gives:

keeps-input           neither forward nor backward modifies x
keeps-dy              backward does not modify dy
keeps-parameters      neither forward nor backward moves a parameter
reproducible          two forwards with the same draws give the same y
dtype                 y, dx and the gradients of a float64 module are float64
shape                 dx has the shape of x (or is None with input_grad=False)
layout                the memory layout of x and dy changes nothing
adds                  a second backward returns the same dx and adds the same again
linear                backward(-3 dy) is -3 backward(dy)
rows-independent      a sample alone gives what its row in the batch gives, in whatever order
eval-deterministic    in evaluation mode two forwards give the same y and draw nothing
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing._streams import Streams
from tinygrad_mnist.testing.report import ModuleContractError

_TOLERANCE = 1e-9  # two orders of summation in float64 differ by far less

Results = dict[str, FloatArray]  # "y", "x" for dx, and each parameter's gradient by name

LAYOUTS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "Fortran-ordered": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "read-only": lambda a: _read_only(a.copy()),
}


class _Run:
    """Runs a module from the same draws each time and compares what comes out."""

    def __init__(self, module: Module, x: FloatArray) -> None:
        self.module, self.name = module, type(module).__name__
        self.streams = Streams(module, lambda: module(x))

    def __call__(self, x: FloatArray, dy: FloatArray, times: int = 1) -> Results:
        y = self.forward(x)
        self.module.zero_grad()
        dx = None
        for _ in range(times):
            dx = self.module.backward(dy)
        grads = {name: p.grad.copy() for name, p in self.module.named_parameters()}
        return {"y": y, **({} if dx is None else {"x": np.array(dx)}), **grads}

    def forward(self, x: FloatArray) -> FloatArray:
        self.streams.rewind()
        return np.array(self.module(x))

    def draws(self, x: FloatArray) -> bool:
        self.module(x)
        return self.streams.moved()

    def require(self, rule: str, holds: Any, message: str) -> None:
        if not holds:
            raise ModuleContractError(rule, f"{self.name}: expected {message}")

    def same(self, rule: str, found: Results, wanted: Results, message: str) -> None:
        """Require equality to rounding, relative to each array's largest entry."""
        for name, array in wanted.items():
            what = "y" if name == "y" else f"the gradient of {name}"
            alike = name in found and found[name].shape == array.shape
            scale = np.max(np.abs(array), initial=0.0) + np.max(np.abs(found["y"]), initial=0.0)
            close = alike and np.allclose(
                found[name], array, rtol=_TOLERANCE, atol=_TOLERANCE * scale, equal_nan=True
            )
            self.require(rule, close, f"{message}, got another value of {what}")


def check_module_contracts(
    module: Module, x: FloatArray, dy: FloatArray, *, rows_independent: bool = True
) -> None:
    """Raise ModuleContractError for the first rule that a float64 module breaks.

    The module is left in evaluation mode, with other gradients: pass a copy.
    """
    run = _Run(module, x)
    try:
        _check_nothing_is_modified(run, x, dy)
        _check_reproducible(run, x)
        wanted = run(x, dy)
        _check_shapes_and_dtypes(run, wanted, x)
        _check_layouts(run, wanted, x, dy)
        doubled: Results = {k: v if k in ("y", "x") else 2 * v for k, v in wanted.items()}
        run.same("adds", run(x, dy, times=2), doubled, "a second backward to add the same again")
        scaled: Results = {k: v if k == "y" else -3 * v for k, v in wanted.items()}
        run.same("linear", run(x, -3 * dy), scaled, "backward(-3 dy) to be -3 backward(dy)")
        if rows_independent and x.ndim > 1 and len(x) and not run.draws(x):
            _check_rows(run, wanted, x, dy)
        _check_evaluation(run, x)
    finally:
        run.streams.rewind()


def _check_reproducible(run: _Run, x: FloatArray) -> None:
    message = (
        "the same y from the same x and the same draws, got another; a random layer keeps its "
        "np.random.Generator as an attribute (self.rng) and draws from nothing else"
    )
    same = np.array_equal(run.forward(x), run.forward(x), equal_nan=True)
    run.require("reproducible", same, message)


def _check_nothing_is_modified(run: _Run, x: FloatArray, dy: FloatArray) -> None:
    own_x, own_dy = x.copy(), dy.copy()
    before = run.module.state_dict()
    steps: dict[str, Callable[[], Any]] = {
        "forward": lambda: run.forward(own_x),
        "backward": lambda: run.module.backward(own_dy),
    }
    for step, call in steps.items():
        call()
        run.require("keeps-input", _equal(own_x, x), f"{step} to leave x alone, got it modified")
        for name, values in run.module.state_dict().items():
            same = _equal(values, before[name])
            run.require("keeps-parameters", same, f"{step} to leave {name} alone, got it moved")
    run.require("keeps-dy", _equal(own_dy, dy), "backward to leave dy alone, got it modified")


def _check_shapes_and_dtypes(run: _Run, results: Results, x: FloatArray) -> None:
    if run.module.input_grad:
        dx = results.get("x")
        got = "None" if dx is None else dx.shape
        fits = dx is not None and dx.shape == x.shape
        run.require("shape", fits, f"dx of shape {x.shape}, got {got}")
    for name, array in results.items():
        what = "y" if name == "y" else f"the gradient of {name}"
        is_float64 = array.dtype == np.float64
        run.require("dtype", is_float64, f"{what} in float64, as the module, got {array.dtype}")


def _check_layouts(run: _Run, wanted: Results, x: FloatArray, dy: FloatArray) -> None:
    for name, laid_out in LAYOUTS.items():
        if x.ndim and dy.ndim:
            found = run(laid_out(x), laid_out(dy))
            run.same("layout", found, wanted, f"a {name} x and dy to change nothing")
    if x.ndim > 1 and len(x):
        rows, dys = np.broadcast_to(x[:1], x.shape), np.broadcast_to(dy[:1], dy.shape)
        found, plain = run(rows, dys), run(rows.copy(), dys.copy())
        run.same("layout", found, plain, "a broadcast x and dy to change nothing")


def _check_rows(run: _Run, wanted: Results, x: FloatArray, dy: FloatArray) -> None:
    contract = "sample {} alone to give what its row gives (rows_independent=False is for layers "
    contract += "that mix rows)"
    for i in sorted({0, len(x) // 2, len(x) - 1}):
        try:
            alone = run(x[i].copy(), dy[i].copy())
            row: Results = {name: wanted[name][i] for name in ("y", "x") if name in wanted}
        except Exception as error:
            got = f"{contract.format(i)}, got {type(error).__name__}: {error}"
            raise ModuleContractError("rows-independent", f"{run.name}: expected {got}") from error
        run.same("rows-independent", alone, row, contract.format(i))
    turned: Results = {k: v[::-1] if k in ("y", "x") else v for k, v in wanted.items()}
    found = run(x[::-1].copy(), dy[::-1].copy())
    run.same("rows-independent", found, turned, "rows in another order to give the same")


def _check_evaluation(run: _Run, x: FloatArray) -> None:
    run.streams.rewind()
    run.module.eval()
    first, second = (np.array(run.module(x)) for _ in range(2))
    same = np.array_equal(first, second, equal_nan=True)
    run.require("eval-deterministic", same, "the same y twice in evaluation mode, got another")
    drawn = run.streams.moved()
    run.require("eval-deterministic", not drawn, "no draws in evaluation mode, got some")


def check_loss_contracts(loss: Any, pred: FloatArray, target: NDArray[Any]) -> None:
    """Raise ModuleContractError for the first rule that a loss breaks; pass a copy of the loss."""
    name = type(loss).__name__
    streams = Streams(loss, lambda: loss(pred, target))

    def require(rule: str, holds: Any, message: str) -> None:
        if not holds:
            raise ModuleContractError(rule, f"{name}: expected {message}")

    own_pred, own_target = pred.copy(), target.copy()
    value = loss(own_pred, own_target)
    require("shape", np.ndim(value) == 0, f"one number, got shape {np.shape(value)}")
    gradient = np.array(loss.backward())
    again = np.array(loss.backward())
    kept = _equal(own_pred, pred) and _equal(own_target, target)
    require("keeps-input", kept, "pred and target to be left alone, got one modified")
    shape = f"dL/dpred of shape {pred.shape}, got {gradient.shape}"
    require("shape", gradient.shape == pred.shape, shape)
    require("dtype", gradient.dtype == np.float64, f"float64 as pred, got {gradient.dtype}")
    require("adds", _equal(gradient, again), "a second backward to return the same, got another")
    streams.rewind()
    require("reproducible", value == loss(pred, target), "the same value twice, got another")
    streams.rewind()


def _equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _read_only(array: FloatArray) -> FloatArray:
    array.setflags(write=False)
    return array
