"""The contract of modules, as far as finite differences cannot see it.

Each rule is a function of a run; with several inputs, it is asked of every one, and dx is a tuple.
"""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing.rules import Run, ask, equal, largest
from tinygrad_mnist.testing.subject import FORMS, Form, Inputs, State, gradients, leading, numbered

_TOLERANCE = 1e-9  # two orders of summation in float64 differ by far less

Results = dict[str, FloatArray]  # of one forward and backward, each by what a message calls it


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    return np.broadcast_to(array.copy(), array.shape)


LAYOUTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "Fortran-ordered": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "read-only": _read_only,
}


class ModuleRun(Run):
    """A copy of a module in float64, run from the same draws and Buffers each time.

    Args:
        module: The module; left alone.
        inputs: What its forward takes.
        dy: What its backward is given.
        rows_independent: Whether the output of each sample depends on that sample alone.
        forms: What the module takes.
    """

    def __init__(
        self,
        module: Module,
        inputs: Inputs,
        dy: FloatArray,
        rows_independent: bool = True,
        forms: Sequence[Form] = FORMS,
    ) -> None:
        self.module, self.inputs, self.dy = copy.deepcopy(module).astype(np.float64), inputs, dy
        self.rows_independent, self.forms = rows_independent, forms
        self.owner, self.leading = type(module).__name__, leading(module, inputs)
        # a sum in another order rounds by a few units in the last place of its terms
        self.rounding = 64 * np.finfo(np.float64).eps * max(map(largest, inputs))
        self.usual: dict[str, float] = {}  # the largest entry of each array, at these inputs

    @cached_property
    def state(self) -> State:
        """The draws and Buffers before the first forward, which is watched for what it edits."""
        self.edits: list[tuple[str, str]] = []  # each a rule and a message
        return State(self._watched_first_pass, self.module)

    @cached_property
    def wanted(self) -> Results:
        """What the module gives at its inputs and dy, to compare with."""
        return self(self.inputs, self.dy)

    def __call__(self, inputs: Inputs, dy: FloatArray, times: int = 1) -> Results:
        results = {"y": self.forward(inputs)}
        dxs, grads = gradients(self.module, inputs, dy, times)
        results |= {name: dx for name, dx in numbered("dx", dxs) if dx is not None}
        results |= {f"the gradient of {name}": grad for name, grad in grads.items()}
        self.usual = self.usual or {what: largest(array) for what, array in results.items()}
        return results

    def forward(self, inputs: Inputs) -> FloatArray:
        """Return a copy of y, from the draws and Buffers of the first forward."""
        self.state.rewind()
        return np.array(self.module(*inputs))

    def same(self, found: Results, wanted: Results, message: str) -> None:
        """Require equality to rounding: of gradients, relative to dy or to their largest entry."""
        for what, array in wanted.items():
            factor = 1.0 if what == "y" else largest(self.dy)
            scale = max(largest(array), self.usual[what]) + (0 if what == "y" else factor)
            # numbers below the smallest normal one round to few digits
            atol = _TOLERANCE * scale + self.rounding * factor + np.finfo(np.float64).tiny
            other = found.get(what)
            alike = other is not None and other.shape == array.shape
            close = alike and np.allclose(other, array, rtol=_TOLERANCE, atol=atol, equal_nan=True)  # type: ignore[arg-type]
            self.require(close, f"{message}, got another value of {what}")

    def _watched_first_pass(self) -> None:
        inputs, dy = [x.copy() for x in self.inputs], self.dy.copy()
        steps: dict[str, Callable[[], Any]] = {
            "forward": lambda: self.module(*inputs),
            "backward": lambda: self.module.backward(dy),
        }
        for step, call in steps.items():
            before = self.module.state_dict()
            call()
            for (name, x), own in zip(numbered("x", self.inputs), inputs, strict=True):
                if not equal(own, x):
                    message = f"{step} to leave {name} alone, got it modified"
                    self.edits.append(("keeps-input", message))
            may_move = dict(self.module.named_buffers()) if step == "forward" else {}
            after = self.module.state_dict()
            for name in before.keys() - after.keys():
                message = f"{step} to keep {name} (`.data = ...` sets its values), got it replaced"
                self.edits.append(("keeps-parameters", message))
            for name, values in after.items():
                if not (name in may_move or equal(values, before.get(name, values))):
                    message = f"{step} to leave {name} alone, got it moved"
                    self.edits.append(("keeps-parameters", message))
        if not equal(dy, self.dy):
            self.edits.append(("keeps-dy", "backward to leave dy alone, got it modified"))


def check_module_contracts(run: ModuleRun) -> None:
    """Raise ModuleContractError for the first rule that the module breaks."""
    try:
        ask(run, MODULE_RULES)
    finally:
        run.state.rewind()


def keeps_input(run: ModuleRun) -> None:
    """Neither forward nor backward modifies x."""
    _edits_nothing(run)
    _takes_read_only(run, "x", [_read_only(x) for x in run.inputs], run.dy)


def keeps_dy(run: ModuleRun) -> None:
    """Backward does not modify dy."""
    _edits_nothing(run)
    _takes_read_only(run, "dy", run.inputs, _read_only(run.dy))


def keeps_parameters(run: ModuleRun) -> None:
    """Neither forward nor backward moves a Parameter, and backward moves no Buffer."""
    _edits_nothing(run)


def reproducible(run: ModuleRun) -> None:
    """Two forwards from the same draws and Buffers give the same y."""
    message = (
        "the same y from the same x and the same draws, got another; a random layer keeps its "
        "np.random.Generator as an attribute (self.rng) and draws from nothing else; an array that "
        "forward moves is a Buffer"
    )
    run.require(equal(run.forward(run.inputs), run.forward(run.inputs)), message)


def shape(run: ModuleRun) -> None:
    """dx has the shape of x (or is None with `input_grad=False`)."""
    run(run.inputs, run.dy)  # which refuses another shape


def dtype(run: ModuleRun) -> None:
    """y, dx and the gradients of a float64 module are float64."""
    for what, array in run.wanted.items():
        message = f"{what} in float64, as the module, got {array.dtype}"
        run.require(array.dtype == np.float64, message)


def layout(run: ModuleRun) -> None:
    """The memory layout of x and dy changes nothing."""
    arrays = (*run.inputs, run.dy)
    for name, laid_out in LAYOUTS.items() if all(a.ndim for a in arrays) else ():
        *inputs, dy = map(laid_out, arrays)
        run.same(run(inputs, dy), run.wanted, f"a {name} x and dy to change nothing")
    if run.leading and all(a.ndim and a.size for a in arrays):
        *inputs, dy = (np.broadcast_to(a[:1], a.shape) for a in arrays)
        plain = run([x.copy() for x in inputs], dy.copy())
        run.same(run(inputs, dy), plain, "a broadcast x and dy to change nothing")


def accumulates(run: ModuleRun) -> None:
    """A second backward returns the same dx and adds the same again."""
    doubled = {what: 2 * array for what, array in run.wanted.items()} | _per_sample(run.wanted)
    found = run(run.inputs, run.dy, times=2)
    run.same(found, doubled, "a second backward to add the same again")


def linear(run: ModuleRun) -> None:
    """backward(-3 dy) is -3 backward(dy)."""
    scaled = {what: -3 * array for what, array in run.wanted.items()} | {"y": run.wanted["y"]}
    run.same(run(run.inputs, -3 * run.dy), scaled, "backward(-3 dy) to be -3 backward(dy)")


def rows_independent(run: ModuleRun) -> None:
    """A sample alone gives what its row in the batch gives, in whatever order.

    Not asked of modules that draw: a mask depends on the rows before.
    """
    run.forward(run.inputs)
    if run.state.drawn() or not (run.rows_independent and run.leading and all(run.leading)):
        return
    advice = (
        "(sample_axes says how many last axes are one sample; rows_independent=False is for layers "
        "that mix rows)"
    )
    rows, count = _per_sample(run.wanted), math.prod(run.leading)
    for number in sorted({0, count // 2, count - 1}):
        index = np.unravel_index(number, run.leading)
        batch_of_one = tuple(slice(i, i + 1) for i in index)
        pick = itemgetter(index if "sample" in run.forms else batch_of_one)
        contract = f"sample {', '.join(map(str, index))} alone to give what its row gives {advice}"
        try:
            alone = run([pick(x).copy() for x in run.inputs], pick(run.dy).copy())
            row = {what: pick(array) for what, array in rows.items()}
        except Exception as error:
            raise run.broken(f"{contract}, got {type(error).__name__}: {error}") from error
        run.same(alone, row, contract)

    turned = partial(np.flip, axis=tuple(range(len(run.leading))))
    found = run([turned(x).copy() for x in run.inputs], turned(run.dy).copy())
    there = run.wanted | {what: turned(array) for what, array in rows.items()}
    run.same(found, there, "rows in another order to give the same")


def eval_deterministic(run: ModuleRun) -> None:
    """In evaluation mode two forwards give the same y, draw nothing, move no Buffer."""
    modes = {module: module.training for module in run.module.modules()}
    run.module.eval()
    try:
        same = equal(run.forward(run.inputs), np.array(run.module(*run.inputs)))
        drawn, moved = run.state.drawn(), ", ".join(run.state.moved_buffers())
    finally:
        for module, mode in modes.items():
            module.training = mode
    run.require(not drawn, "no draws in evaluation mode, got some")
    run.require(not moved, f"no Buffer to move in evaluation mode, got {moved} moved")
    run.require(same, "the same y twice in evaluation mode, got another")


def empty(run: ModuleRun) -> None:
    """No samples give no gradient, no error and no warning."""
    if "batch" not in run.forms or not run.leading:
        return
    module = copy.deepcopy(run.module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            module.zero_grad()
            module.backward(module(*[x[:0] for x in run.inputs]))
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            raise run.broken(f"no error or warning from an empty batch, got {got}") from error
    for name, parameter in module.named_parameters():
        message = f"no gradient of {name} from an empty batch, got some"
        run.require(not parameter.grad.any(), message)


MODULE_RULES: dict[str, Callable[[ModuleRun], None]] = {
    "keeps-input": keeps_input,
    "keeps-dy": keeps_dy,
    "keeps-parameters": keeps_parameters,
    "reproducible": reproducible,
    "shape": shape,
    "dtype": dtype,
    "layout": layout,
    "accumulates": accumulates,
    "linear": linear,
    "rows-independent": rows_independent,
    "eval-deterministic": eval_deterministic,
}


def _edits_nothing(run: ModuleRun) -> None:
    run.state  # noqa: B018  # the first pass
    for rule, message in run.edits:
        run.require(rule != run.rule, message)


def _takes_read_only(run: ModuleRun, what: str, inputs: Inputs, dy: FloatArray) -> None:
    """Require that nobody writes into an array, be it the same numbers."""
    try:
        run(inputs, dy)
    except ValueError as error:
        run.require("read-only" not in str(error), f"{what} to be left alone, got {error}")
        raise


def _per_sample(results: Results) -> Results:
    """Return what has a row for each sample, y and each dx, without the parameters' gradients."""
    return {what: a for what, a in results.items() if not what.startswith("the gradient of ")}
