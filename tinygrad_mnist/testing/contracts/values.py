"""The rule `values`: what a reference gives, for layers and losses that compute the wrong thing."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.testing.contracts.loss import LossRun
from tinygrad_mnist.testing.contracts.module_run import ModuleRun
from tinygrad_mnist.testing.contracts.rules import Rules, finite, largest
from tinygrad_mnist.testing.subject import evaluating

Reference = Callable[..., Any]  # a function of the inputs of a layer, or of pred and target
_TOLERANCE = 1e-9  # of the largest number in what is compared, or in x


def layer_values(reference: Reference | None) -> Rules[ModuleRun]:
    """Return the rule for a layer, or none without a reference."""
    if reference is None:
        return {}

    def values(run: ModuleRun) -> None:
        """y is what the reference gives; of a layer that draws, in evaluation mode."""
        y = _in_evaluation(run) if run.draws else run.forward(run.inputs)
        wanted = reference(*[x.copy() for x in run.inputs])
        _require_same(run, "y", y, wanted, max(map(largest, run.inputs)))

    return {"values": values}


def loss_values(reference: Reference | None) -> Rules[LossRun]:
    """Return the rule for a loss, or none without a reference."""
    if reference is None:
        return {}

    def values(run: LossRun) -> None:
        """The loss is what the reference gives."""
        wanted = reference(run.pred.copy(), run.target.copy())
        _require_same(run, "the loss", run.wanted["the loss"], wanted)

    return {"values": values}


def _in_evaluation(run: ModuleRun) -> FloatArray:
    with evaluating(run.module):
        return run.forward(run.inputs)


def _require_same(
    run: ModuleRun | LossRun, what: str, found: FloatArray, of_reference: Any, size: float = 0.0
) -> None:
    wanted = np.asarray(of_reference, np.float64)
    if not finite(found):
        return  # which is another rule's to say
    message = f"{what} of shape {wanted.shape}, as of the reference, got {found.shape}"
    run.require(found.shape == wanted.shape, message)
    atol = _TOLERANCE * max(size, largest(wanted))
    wrong = ~np.isclose(found, wanted, rtol=0, atol=atol, equal_nan=True)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0].tolist())
        where = f"{what}{list(at) if at else ''}"
        contract = f"{where} to be {wanted[at]:.9g}, as of the reference"
        raise run.broken(f"{contract}, got {found[at]:.9g}")
