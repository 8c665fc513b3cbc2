"""The contract of modules and losses, as far as finite differences cannot see it.

Each rule has the name that `ModuleContractError.rule` gives:

keeps-input           neither forward nor backward modifies x (a loss: pred and target)
keeps-dy              backward does not modify dy
keeps-parameters      neither forward nor backward moves a parameter
reproducible          two forwards with the same draws give the same y
dtype                 y, dx and the gradients of a float64 module are float64
shape                 dx has the shape of x (or is None with input_grad=False)
layout                the memory layout of x and dy changes nothing
accumulates           a second backward returns the same dx and adds the same again
linear                backward(-3 dy) is -3 backward(dy)
eval-deterministic    in evaluation mode two forwards give the same y and draw nothing
rows-independent      a sample alone gives what its row in the batch gives, in whatever order
                      (asked of modules that draw nothing: a mask depends on the rows before)
empty                 no samples give no gradient, no error and no warning
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing._streams import Streams
from tinygrad_mnist.testing.report import ModuleContractError
from tinygrad_mnist.testing.subject import wrong_shape

_TOLERANCE = 1e-9  # two orders of summation in float64 differ by far less

LAYOUTS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "Fortran-ordered": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "read-only": lambda a: _read_only(a.copy()),
}


class Results(NamedTuple):
    """What one forward and backward gave."""

    y: FloatArray
    dx: FloatArray | None
    grads: dict[str, FloatArray]

    def scaled(self, factor: float) -> "Results":
        """Return the results of a backward that is linear, for factor * dy."""
        dx = None if self.dx is None else factor * self.dx
        return Results(self.y, dx, {name: factor * grad for name, grad in self.grads.items()})

    def arrays(self) -> dict[str, FloatArray]:
        """Return every array by what a message calls it."""
        dx = {} if self.dx is None else {"dx": self.dx}
        grads = {f"the gradient of {name}": grad for name, grad in self.grads.items()}
        return {"y": self.y, **dx, **grads}


def check_module_contracts(
    module: Module, x: FloatArray, dy: FloatArray, *, rows_independent: bool = True
) -> None:
    """Raise ModuleContractError for the first rule that a float64 module breaks.

    The module is left in evaluation mode, with other gradients: pass a copy.
    """
    _check_nothing_is_modified(module, x, dy)  # first: an edit may be one that is seen but once
    run = _Run(module, x)
    try:
        _check_reproducible(run, x)
        wanted = run(x, dy)
        _check_shapes_and_dtypes(run, wanted, x)
        _check_layouts(run, wanted, x, dy)
        _check_accumulation(run, wanted, x, dy)
        run.same(
            "linear",
            run(x, -3 * dy),
            wanted.scaled(-3),
            dy,
            "backward(-3 dy) to be -3 backward(dy)",
        )
        if rows_independent and x.ndim > 1 and len(x) and not run.draws(x):
            _check_rows(run, wanted, x, dy)
        _check_evaluation(run, x)
    finally:
        run.streams.rewind()


def check_loss_contracts(loss: Loss, pred: FloatArray, target: NDArray[Any]) -> None:
    """Raise ModuleContractError for the first rule that a loss breaks; pass a copy of the loss."""
    owner, streams = type(loss).__name__, Streams(loss, lambda: loss(pred.copy(), target))
    own_pred, own_target = pred.copy(), target.copy()
    try:
        value = loss(own_pred, own_target)
        message = f"one number, got shape {np.shape(value)}"
        _require("shape", np.ndim(value) == 0, owner, message)
        gradient, again = np.array(loss.backward()), np.array(loss.backward())
        kept = _equal(own_pred, pred) and _equal(own_target, target)
        message = "pred and target to be left alone, got one modified"
        _require("keeps-input", kept, owner, message)
        message = f"dL/dpred of shape {pred.shape}, got {gradient.shape}"
        _require("shape", gradient.shape == pred.shape, owner, message)
        message = f"dL/dpred in float64, as pred, got {gradient.dtype}"
        _require("dtype", gradient.dtype == np.float64, owner, message)
        message = "a second backward to return the same, got another"
        _require("accumulates", _equal(gradient, again), owner, message)
        streams.rewind()
        same = _equal(np.array(loss(pred, target)), np.array(value))
        _require("reproducible", same, owner, "the same value twice, got another")
    finally:
        streams.rewind()


def check_empty_batch(module: Module, x: FloatArray) -> None:
    """Raise ModuleContractError if no samples, x (0, ...), give an error, a warning, a gradient."""
    owner = type(module).__name__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            module.backward(module(x))
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            message = f"{owner}: expected no error or warning from an empty batch, got {got}"
            raise ModuleContractError("empty", message) from error
    for name, parameter in module.named_parameters():
        message = f"no gradient of {name} from an empty batch, got some"
        _require("empty", not parameter.grad.any(), owner, message)


class _Run:
    """Runs a module from the same draws each time and compares what comes out."""

    def __init__(self, module: Module, x: FloatArray) -> None:
        self.module, self.owner = module, type(module).__name__
        self.streams = Streams(module, lambda: module(x.copy()))
        # a sum in another order rounds by a few units in the last place of its terms
        self.rounding = 64 * np.finfo(np.float64).eps * _largest(x)

    def __call__(self, x: FloatArray, dy: FloatArray, times: int = 1) -> Results:
        y = self.forward(x)
        self.module.zero_grad()
        dx = None
        for _ in range(times):
            dx = self.module.backward(dy)
        grads = {name: p.grad.copy() for name, p in self.module.named_parameters()}
        return Results(y, None if dx is None else np.array(dx), grads)

    def forward(self, x: FloatArray) -> FloatArray:
        self.streams.rewind()
        return np.array(self.module(x))

    def draws(self, x: FloatArray) -> bool:
        self.forward(x)
        return self.streams.moved()

    def require(self, rule: str, holds: Any, message: str) -> None:
        _require(rule, holds, self.owner, message)

    def same(
        self, rule: str, found: Results, wanted: Results, dy: FloatArray, message: str
    ) -> None:
        """Require equality to rounding: of gradients, relative to dy or to their largest entry."""
        others = found.arrays()
        for what, array in wanted.arrays().items():
            factor = 1.0 if what == "y" else _largest(dy)
            scale = _largest(array) + (0 if what == "y" else factor)
            # numbers below the smallest normal one round to few digits
            atol = _TOLERANCE * scale + self.rounding * factor + np.finfo(np.float64).tiny
            other = others.get(what)
            alike = other is not None and other.shape == array.shape
            close = alike and np.allclose(other, array, rtol=_TOLERANCE, atol=atol, equal_nan=True)  # type: ignore[arg-type]
            self.require(rule, close, f"{message}, got another value of {what}")


def _check_nothing_is_modified(module: Module, x: FloatArray, dy: FloatArray) -> None:
    own_x, own_dy, owner = x.copy(), dy.copy(), type(module).__name__
    before = module.state_dict()
    steps: dict[str, Callable[[], Any]] = {
        "forward": lambda: module(own_x),
        "backward": lambda: module.backward(own_dy),
    }
    for step, call in steps.items():
        call()
        message = f"{step} to leave x alone, got it modified"
        _require("keeps-input", _equal(own_x, x), owner, message)
        for name, values in module.state_dict().items():
            message = f"{step} to leave {name} alone, got it moved"
            same = name not in before or _equal(values, before[name])
            _require("keeps-parameters", same, owner, message)
    _require("keeps-dy", _equal(own_dy, dy), owner, "backward to leave dy alone, got it modified")


def _check_reproducible(run: _Run, x: FloatArray) -> None:
    message = (
        "the same y from the same x and the same draws, got another; a random layer keeps its "
        "np.random.Generator as an attribute (self.rng) and draws from nothing else"
    )
    run.require("reproducible", _equal(run.forward(x), run.forward(x)), message)


def _check_shapes_and_dtypes(run: _Run, results: Results, x: FloatArray) -> None:
    dx = results.dx
    if run.module.input_grad and (dx is None or dx.shape != x.shape):
        raise wrong_shape(run.owner, x, dx)
    for what, array in results.arrays().items():
        is_float64 = array.dtype == np.float64
        run.require("dtype", is_float64, f"{what} in float64, as the module, got {array.dtype}")


def _check_layouts(run: _Run, wanted: Results, x: FloatArray, dy: FloatArray) -> None:
    for name, laid_out in LAYOUTS.items() if x.ndim and dy.ndim else ():
        found = run(laid_out(x), laid_out(dy))
        run.same("layout", found, wanted, dy, f"a {name} x and dy to change nothing")
    if x.ndim > 1 and len(x) == len(dy) > 0:
        rows, dys = np.broadcast_to(x[:1], x.shape), np.broadcast_to(dy[:1], dy.shape)
        found, plain = run(rows, dys), run(rows.copy(), dys.copy())
        run.same("layout", found, plain, dy, "a broadcast x and dy to change nothing")


def _check_accumulation(run: _Run, wanted: Results, x: FloatArray, dy: FloatArray) -> None:
    doubled = {name: 2 * grad for name, grad in wanted.grads.items()}
    found, message = run(x, dy, times=2), "a second backward to add the same again"
    run.same("accumulates", found, Results(wanted.y, wanted.dx, doubled), dy, message)


def _check_evaluation(run: _Run, x: FloatArray) -> None:
    run.module.eval()
    run.streams.rewind()
    same = _equal(np.array(run.module(x)), np.array(run.module(x)))
    run.require("eval-deterministic", same, "the same y twice in evaluation mode, got another")
    drawn = run.streams.moved()
    run.require("eval-deterministic", not drawn, "no draws in evaluation mode, got some")


def _check_rows(run: _Run, wanted: Results, x: FloatArray, dy: FloatArray) -> None:
    y, dx, grads = wanted
    advice = "(rows_independent=False is for layers that mix rows)"
    for i in sorted({0, len(x) // 2, len(x) - 1}):
        contract = f"sample {i} alone to give what its row gives {advice}"
        try:
            alone = run(x[i].copy(), dy[i].copy())
            row = Results(y[i], None if dx is None else dx[i], {})
        except Exception as error:
            got = f"{contract}, got {type(error).__name__}: {error}"
            raise ModuleContractError("rows-independent", f"{run.owner}: expected {got}") from error
        run.same("rows-independent", alone, row, dy, contract)
    turned = Results(y[::-1], None if dx is None else dx[::-1], grads)
    found = run(x[::-1].copy(), dy[::-1].copy())
    run.same("rows-independent", found, turned, dy, "rows in another order to give the same")


def _require(rule: str, holds: Any, owner: str, message: str) -> None:
    if not holds:
        raise ModuleContractError(rule, f"{owner}: expected {message}")


def _equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _largest(array: FloatArray) -> float:
    return float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))


def _read_only(array: FloatArray) -> FloatArray:
    array.setflags(write=False)
    return array
