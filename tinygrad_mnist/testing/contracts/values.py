"""The rule `values`: what a reference gives, for layers and losses that compute the wrong thing."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist.module import Module
from tinygrad_mnist.testing.arrays import finite, largest
from tinygrad_mnist.testing.contracts.loss import LossRun
from tinygrad_mnist.testing.contracts.module_run import ModuleRun
from tinygrad_mnist.testing.contracts.rules import Rules
from tinygrad_mnist.testing.given import answer, takes
from tinygrad_mnist.testing.subject import evaluating

# a function of the inputs of a layer, or also of its Parameters, or of pred and target
Reference = Callable[..., Any]
_TOLERANCE = 1e-9  # of the largest number in what is compared, or in x


def layer_values(reference: Reference | None) -> Rules[ModuleRun]:
    """Return the rule for a layer, or none without a reference."""
    if reference is None:
        return {}

    def values(run: ModuleRun) -> None:
        """y is what the reference gives; of a layer that draws, in evaluation mode."""
        inputs = [x.copy() for x in run.inputs]
        with evaluating(run.module) if run.draws else nullcontext():
            if _positional(reference) > len(inputs):
                with _at_generic_values(run.module):
                    y, wanted = run.forward(run.inputs), _of_parameters(run, reference, inputs)
            else:
                y, wanted = run.forward(run.inputs), _numbers("the inputs", reference, *inputs)
        _require_same(run, "y", y, wanted, max(map(largest, run.inputs)))

    return {"values": values}


def loss_values(reference: Reference | None) -> Rules[LossRun]:
    """Return the rule for a loss, or none without a reference."""
    if reference is None:
        return {}

    def values(run: LossRun) -> None:
        """The loss is what the reference gives."""
        wanted = _numbers("(pred, target)", reference, run.pred.copy(), run.target.copy())
        _require_same(run, "the loss", run.wanted["the loss"], wanted)

    return {"values": values}


def _positional(reference: Reference) -> int:
    """Return how many arguments a reference has no default for."""
    try:
        parameters = inspect.signature(reference).parameters.values()
    except ValueError:  # a function written in C
        return 0
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in by_place and p.default is p.empty for p in parameters)


@contextmanager
def _at_generic_values(module: Module) -> Iterator[None]:
    """Move every Parameter, as a bias of 0 hides what becomes of it, and afterwards back."""
    rng, kept = np.random.default_rng(0), [(p, p.data.copy()) for p in module.parameters()]
    for p, numbers in kept:
        p.data = numbers + rng.uniform(0.1, 0.5, numbers.shape)
    try:
        yield
    finally:
        for p, numbers in kept:
            p.data = numbers


def _of_parameters(run: ModuleRun, reference: Reference, inputs: list[Any]) -> FloatArray:
    """Return what a reference gives of the Parameters, too, which may be others than it takes."""
    named = dict(run.module.named_parameters())
    shapes = ", ".join(f"{name} {p.data.shape}" for name, p in named.items()) or "none"
    arguments = [*inputs, *(p.data.copy() for p in named.values())]
    message = f"the Parameters that the reference takes, in their order and shapes, got {shapes}"
    run.require(takes(reference, *arguments), message)
    try:
        return np.asarray(reference(*arguments), np.float64)
    except Exception as error:
        raise run.broken(f"{message}: {error}") from error


def _numbers(arguments: str, reference: Reference, *values: object) -> FloatArray:
    return np.asarray(answer("reference", arguments, reference, *values), np.float64)


def _require_same(
    run: ModuleRun | LossRun, what: str, found: FloatArray, wanted: FloatArray, size: float = 0.0
) -> None:
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
