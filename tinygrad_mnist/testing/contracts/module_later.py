"""The rest of the contract of modules: what may still be wrong where every gradient is right.

LATER_RULES are asked after the gradients, CHECKLIST_RULES of modules that nobody has called yet,
of which only a checklist can be sure.
"""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing.arrays import equal, largest
from tinygrad_mnist.testing.contracts.float32 import cast, require_alike
from tinygrad_mnist.testing.contracts.module import accumulates
from tinygrad_mnist.testing.contracts.module_run import (
    MISUSED,
    ModuleRun,
    Results,
    by_name,
    listed,
    shapes,
)
from tinygrad_mnist.testing.contracts.plain_arrays import plain_arrays
from tinygrad_mnist.testing.contracts.rules import refusing_skeletons
from tinygrad_mnist.testing.report import ModuleContractError
from tinygrad_mnist.testing.subject import evaluating, gradient_sums, gradients

_MANY = 33  # rows, more than any layer computes by one unrolled loop
_TIMES = 20  # backwards: a counter may go wrong late


def eval_deterministic(run: ModuleRun) -> None:
    """In evaluation mode all is as of a new module, without draws and without changing a Buffer."""
    with evaluating(run.module):
        same = equal(run.forward(run.inputs), np.array(run.module(*run.inputs)))
        drawn, changed = run.state.has_drawn(), ", ".join(run.state.changed_buffers())
        run.require(not drawn, "no draws in evaluation mode, got some")
        run.require(not changed, f"no Buffer to change in evaluation mode, got another {changed}")
        run.require(same, "the same y twice in evaluation mode, got another")
        found = _given_once(run, run.module)
    wanted = _given_once(run, copy.deepcopy(run.given).astype(np.float64).eval())
    message = (
        "a module that has trained to give in evaluation mode what a new one gives (backward uses "
        "what the last forward kept; an array that training changes is a Buffer)"
    )
    run.same(found, wanted, message)
    run.same(wanted, found, message)  # if one of them has no backward
    message = "training to give the same after an evaluation"
    run.same(run(run.inputs, run.dy), run.wanted, message)


def many_rows(run: ModuleRun) -> None:
    """Many rows, and more leading axes, give what few rows give.

    Not asked of modules that draw, as `rows-independent`, nor without it.
    """
    times = math.ceil(_MANY / math.prod(run.leading)) if run.rows_matter_alone else 1
    repeated: list[Callable[[Any], Any]] = [lambda a: np.concatenate([a] * times)]
    if "axes" in run.forms:
        repeated += [lambda a: np.stack([a] * times), lambda a: np.stack([a] * times)[None]]
    summed = {what: times * array for what, array in run.gradients.items()}
    for repeat in repeated if times > 1 else ():
        contract = f"rows repeated to {shapes(run, repeat)} to give what they give once"
        if repeat is not repeated[0]:
            contract += ' (forms=("sample", "batch") is for layers that take no more axes)'
        found, rows = run.rearranged(repeat, contract)
        run.same(found, summed | rows, contract, times * run.dy_size)


def float32(run: ModuleRun) -> None:
    """A copy in float32 gives float32: y, dx and gradients as the float64 module gives them.

    Up to rounding. Asked of modules that have a Parameter or Buffer of floats, which decides the
    dtype, and that draw nothing: a draw may depend on the dtype.
    """
    own = run.module.state_dict()
    if run.draws or not any(array.dtype.kind == "f" for array in own.values()):
        return
    run.rewind()
    size = max(1.0, *map(largest, run.inputs))

    def compute(dtype: Any, arrays: Sequence[NDArray[Any]]) -> Results:
        module = copy.deepcopy(run.module).astype(dtype)
        module.load_state_dict(dict(zip(own, arrays, strict=False)))
        *inputs, dy = (cast(array, dtype) for array in arrays[len(own) :])
        y = np.array(module(*inputs))
        return {"y": y} | by_name(*gradients(module, inputs, dy))

    def rounding(what: str) -> float:
        return size if what == "y" else size * run.dy_size

    message = "a float32 copy to give what the float64 one gives"
    arrays = [*own.values(), *run.inputs, run.dy]
    for what, array in require_alike(run, compute, arrays, run.wanted, rounding, message).items():
        message = f"{what} of a float32 copy in float32, got {array.dtype}"
        run.require(array.dtype == np.float32, message)


def keeps_results(run: ModuleRun) -> None:
    """y and dx keep their values through later calls."""
    _, overwritten = run.misused
    for what, call in {"y": "forward", "dx": "backward"}.items():
        message = f"{what} to keep its values, got it overwritten by another {call}"
        run.require(what not in overwritten, message)


def own_copies(run: ModuleRun) -> None:
    """What the caller does to x, y, dy and dx afterwards changes no gradient."""
    wanted, _ = run.misuse()
    found, _ = run.misused
    if run.all_alike(found, wanted):
        return
    for what, remedy in MISUSED.items():
        found, _ = run.misuse(what)
        step = "forward" if what in "xy" else "backward"
        message = f"{step} to {remedy}, got another gradient after {what} was changed"
        run.require(run.all_alike(found, wanted), message)


def dy_shape(run: ModuleRun) -> None:
    """A dy of another shape raises an error, or counts as if broadcast to the shape of y."""
    if not run.dy.ndim or len(run.dy) < 2:
        return
    # where rows mix, one sample is no batch, and its dy asks too much
    for dy in (run.dy[:1], run.dy[0]) if run.rows_independent else (run.dy[:1],):
        run.forward(run.inputs)
        try:
            found = _stretched(run, dy)
        except Exception:  # refused, in whatever words
            continue
        run.forward(run.inputs)
        wanted = run.backward(np.broadcast_to(dy, run.dy.shape).copy())
        message = f"dy of shape {dy.shape} to be refused, as y has shape {run.dy.shape}"
        run.same(found, wanted, message)


def still_accumulates(run: ModuleRun) -> None:
    """Many backwards later, it adds the same again."""
    run.forward(run.inputs)
    for _ in range(_TIMES):
        run.module.backward(run.dy)
    accumulates(run)


LATER_RULES: dict[str, Callable[[ModuleRun], None]] = {
    "eval-deterministic": eval_deterministic,
    "many-rows": many_rows,
    "float32": float32,
    "keeps-results": keeps_results,
    "own-copies": own_copies,
    "accumulates": still_accumulates,
}


def forward_first(run: ModuleRun) -> None:
    """Backward before any forward raises an error, unless it needs none, as of y = 2 * x."""
    early, late = (copy.deepcopy(run.given).astype(np.float64) for _ in range(2))
    with refusing_skeletons(run.owner, "forward"):
        y = np.asarray(late(*run.inputs))
    dy = np.linspace(0.5, 1.5, y.size).reshape(y.shape)
    try:
        found = by_name(*gradients(early, run.inputs, dy))
    except ModuleContractError:  # no error, yet no gradient
        found = {}
    except Exception:  # refused, in whatever words
        return
    wanted = by_name(*gradients(late, run.inputs, dy))
    for what, array in wanted.items():
        message = f"backward before forward to be refused, got another value of {what}"
        run.require(what in found and run.alike(what, found[what], array), message)


def empty(run: ModuleRun) -> None:
    """No samples give no gradient, no error and no warning."""
    if "batch" not in run.forms or not run.leading:
        return
    module = copy.deepcopy(run.given).astype(np.float64)
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


CHECKLIST_RULES: dict[str, Callable[[ModuleRun], None]] = {
    "plain-arrays": plain_arrays,
    "dy-shape": dy_shape,
    "forward-first": forward_first,
    "empty": empty,
}


def _given_once(run: ModuleRun, module: Module) -> Results:
    """Return what one forward of a module gives, and backward unless it refuses."""
    y = np.array(module(*run.inputs))
    try:
        return {"y": y} | by_name(*gradients(module, run.inputs, run.dy))
    except Exception:  # in evaluation mode backward may be an error
        return {"y": y}


def _stretched(run: ModuleRun, dy: FloatArray) -> Results:
    """Return what a dy of any shape gives, dx broadcast to the shape of x."""
    run.module.zero_grad()
    dxs = listed(run.module.backward(dy), len(run.inputs))
    dxs = [
        None if dx is None or x.dtype.kind != "f" else np.broadcast_to(dx, x.shape)
        for x, dx in zip(run.inputs, dxs, strict=True)
    ]
    return by_name(dxs, gradient_sums(run.module))
