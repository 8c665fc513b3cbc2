"""check_gradients and its kin: backward against central differences, for anybody's layers."""

from collections.abc import Sequence
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Sequential
from tinygrad_mnist.testing.contracts.loss import LATER_LOSS_RULES, LOSS_RULES, LossRun
from tinygrad_mnist.testing.contracts.module import MODULE_RULES
from tinygrad_mnist.testing.contracts.module_later import LATER_RULES
from tinygrad_mnist.testing.contracts.module_run import ModuleRun
from tinygrad_mnist.testing.contracts.rules import AnyRun, Rules, ask, refusing_skeletons
from tinygrad_mnist.testing.contracts.values import Reference, layer_values, loss_values
from tinygrad_mnist.testing.differences.checker import Checker, Settings
from tinygrad_mnist.testing.report import GradientReport, ModuleContractError
from tinygrad_mnist.testing.subject import FORMS, Form, ModuleSubject, inputs_of

_FLOAT64 = np.dtype(np.float64)


def check_gradients(
    module: Module,
    x: ArrayLike | tuple[ArrayLike, ...],
    *,
    grad_output: ArrayLike | None = None,
    rows_independent: bool = True,
    forms: Sequence[Form] = FORMS,
    reference: Reference | None = None,
    **settings: Unpack[Settings],
) -> GradientReport:
    """Check a module's backward: the contract, and every gradient by central differences.

    The report that it returns is true if all is right, and prints as a table. The check works in
    float64 on a deep copy, in the module's present mode, and sets every Buffer and every reachable
    random generator back before each forward, so that running means and the draws of a stochastic
    layer stay the same. The caller's module is untouched.

    Args:
        module: The Module to check.
        x: An input for it, (..., in), or (..., H, W, C) where `sample_axes` is 3; a tuple of arrays
            if forward takes several. Integers stay integers for a module with `input_grad=False`,
            such as an embedding.
        grad_output: dL/dy for `backward`; None draws one, its signs mixed and no entry near 0.
        rows_independent: Whether each sample's output depends on that sample alone; False for
            layers that mix rows, such as a BatchNorm in training.
        forms: What the module takes: one "sample", a "batch", samples with more leading "axes".
            Without "sample", rows are compared as batches of one.
        reference: A function of x, or of all inputs, that y must equal to nine digits: the rule
            `values`. One that takes more arguments gets the values of the Parameters, too, in
            order: `lambda x, W, b: x @ W + b`. A module that draws while training is compared in
            evaluation mode.
        rtol: Error allowed, relative to the larger of both values; by default 1e-7, or 2e-3 where
            the outputs turn out to have the precision of float32.
        atol: Error allowed, relative to the largest gradient in the array; by default 1e-12, or
            1e-3. What rounding of the outputs can do to a difference is allowed on top of both.
        step: Of the differences, > 0, relative to `max(1, |value|)`, and to the usual size of an
            array whose numbers are tiny or huge; by default `eps**(1/3)`, about
            6e-6, or 5e-3.
        max_entries: Arrays up to this size, by default 64, are checked entry by entry; of larger
            ones as many entries, the first, the last, the largest and the smallest gradient first.
        directions: Random +-1 directions over the whole of each larger array, by default 2; a wrong
            one is traced to an entry.
        contracts: Whether to check the contract: the rules of `testing.contracts`. True by default.
        allow_nonfinite: Whether finite numbers may give NaN or infinity, which is a broken contract
            by default; if they may, they make the check inconclusive.
        seed: Of all that the check draws, by default 0.
        raise_on_failure: False returns a report of wrong gradients instead of raising.

    Raises:
        GradientCheckError: A gradient is wrong; its `report` says where.
        ModuleContractError: The module breaks the contract; its `rule` says how.
        InconclusiveGradientCheck: Too little could be judged to say anything.
    """
    owner = "check_gradients"
    checker = Checker(owner, settings, forms)
    inputs = inputs_of(owner, module, x)
    with refusing_skeletons(type(module).__name__, "forward"):
        subject = ModuleSubject(module, inputs)
    dy = checker.cotangent(subject.y_shape)
    if grad_output is not None:
        dy = check.owned(owner, "grad_output", grad_output, _FLOAT64)
        check.same_shape(owner, "grad_output", dy, subject.y_shape)
    run = ModuleRun(module, inputs, dy, rows_independent, forms, checker.allow_nonfinite)
    if checker.contracts:
        ask(run, MODULE_RULES)
    ask(run, layer_values(reference))
    report = checker.report(type(module).__name__, subject, dy)
    if checker.contracts and report:
        _ask_later(run, LATER_RULES)
    return report


def check_loss_gradients(
    loss: Loss,
    pred: ArrayLike,
    target: ArrayLike,
    *,
    reference: Reference | None = None,
    **settings: Unpack[Settings],
) -> GradientReport:
    """Check that `loss.backward()` is the derivative of `loss(pred, target)` for pred.

    target is passed as it is (copied), so that integer labels stay integers. `reference` is a
    function of pred and target that the loss must equal. The settings, the result and the errors
    are those of `check_gradients`.
    """
    owner = "check_loss_gradients"
    checker = Checker(owner, settings)
    pred, labels = check.owned(owner, "pred", pred, _FLOAT64), np.array(target)
    check.loss(owner, loss)
    with refusing_skeletons(type(loss).__name__, "__call__"):
        subject = ModuleSubject(Sequential(), [pred], loss=loss, target=labels, name="pred")
    run = LossRun(loss, pred, labels, checker.allow_nonfinite)
    if checker.contracts:
        ask(run, LOSS_RULES)
    ask(run, loss_values(reference))
    report = checker.report(type(loss).__name__, subject, np.ones(()))
    if checker.contracts and report:
        _ask_later(run, LATER_LOSS_RULES)
    return report


def check_model_gradients(
    model: Module,
    loss: Loss,
    x: ArrayLike | tuple[ArrayLike, ...],
    target: ArrayLike,
    *,
    rows_independent: bool = True,
    forms: Sequence[Form] = FORMS,
    **settings: Unpack[Settings],
) -> GradientReport:
    """Check a model and its loss together: the gradients that a training step uses.

    They are those of `loss(model(x), target)` for x and for every parameter. The arguments, the
    result and the errors are those of `check_gradients` and `check_loss_gradients`.
    """
    owner = "check_model_gradients"
    checker = Checker(owner, settings, forms)
    inputs, labels = inputs_of(owner, model, x), np.array(target)
    subject = ModuleSubject(model, inputs, loss=check.loss(owner, loss), target=labels)
    name = f"{type(model).__name__} with {type(loss).__name__}"
    if not checker.contracts:
        return checker.report(name, subject, np.ones(()))
    dy, nonfinite = checker.cotangent(subject.y_shape), checker.allow_nonfinite
    model_run = ModuleRun(model, inputs, dy, rows_independent, forms, nonfinite)
    ask(model_run, MODULE_RULES)
    loss_run = LossRun(loss, model_run.wanted["y"], labels, nonfinite)
    ask(loss_run, LOSS_RULES)
    report = checker.report(name, subject, np.ones(()))
    if report:
        _ask_later(model_run, LATER_RULES)
        _ask_later(loss_run, LATER_LOSS_RULES)
    return report


def _ask_later(run: AnyRun, rules: Rules[AnyRun]) -> None:
    """Ask rules after the gradients, and note on an error that those are right."""
    try:
        ask(run, rules)
    except ModuleContractError as error:
        error.add_note("All gradients agree with central differences.")
        raise
