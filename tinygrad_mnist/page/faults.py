"""FAULTS: famous mistakes, each of them one wrong part of a training; and what the kit says."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from tinygrad_mnist.init import glorot_uniform
from tinygrad_mnist.losses import CrossEntropyLoss, MSELoss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Linear, ReLU, Sequential
from tinygrad_mnist.optim import SGD
from tinygrad_mnist.page import mistakes
from tinygrad_mnist.page.setups import Layers, Setup, setup_of
from tinygrad_mnist.testing import (
    GradientCheckError,
    GradientReport,
    ModuleContractError,
    check_gradients,
    check_loss_gradients,
    check_model_gradients,
)


@dataclass(frozen=True)
class Fault:
    """A mistake: which part of a Setup is wrong.

    Args:
        part: The name of an attribute of Setup.
        wrong: What stands there.
        why: Of a mistake that the gradient check cannot see: why, and what would see it.
        needs: What the other parts have to be, with the mistake and without it.
    """

    part: str
    wrong: Any
    why: str = ""
    needs: Mapping[str, Any] = field(default_factory=dict)


def tied(width: int, _: int, **drawn: Any) -> Module:
    """Return two layers that have their weights in common, each with what its own forward keeps."""
    first, second = Linear(width, width, **drawn), Linear(width, width, rng=0)
    second.weight, second.bias = first.weight, first.bias
    return Sequential(first, second)


_DROPOUT = {"dropout": 0.5}
_SQUARES = {"loss": partial(MSELoss, "batchmean")}
_MOMENTUM = {"optimizer": partial(SGD, momentum=0.9), "lr": 0.005}
_SQUARE = {"layers": Layers((100, 100))}  # a hidden layer whose W is square
_TIED = _SQUARE | {"hidden_layer": tied, "init": glorot_uniform}

FAULTS = {  # the notebook's own five first
    "ReLU takes its slope from its output": Fault(
        "activation", mistakes.OutputSlopeReLU, needs={"activation": ReLU}
    ),
    "Dropout scales forward, not backward": Fault(
        "dropout_layer", mistakes.NoFactorDropout, needs=_DROPOUT
    ),
    "many small steps after one forward": Fault(
        "step",
        mistakes.many_steps,
        "From the second step on, they are out of date. A test of the loop would see it: as many "
        "forwards as steps.",
    ),
    "the loss is a square, its gradient that of half a square": Fault(
        "wrap_loss", mistakes.HalfGradient, needs=_SQUARES
    ),
    "training accuracy under the label of the test's": Fault(
        "evaluate",
        mistakes.on_training_images,
        "An evaluation has none. Look at which images it gets.",
    ),
    "Dropout edits dy and forgets the mask": Fault(
        "dropout_layer", mistakes.ForgetfulDropout, needs=_DROPOUT
    ),
    "Dropout stays on in the test": Fault(
        "evaluate",
        mistakes.while_dropping,
        "An evaluation has none. Evaluate twice: the same images give two accuracies.",
        needs=_DROPOUT,
    ),
    "a tied layer has one cache": Fault("hidden_layer", mistakes.TiedOneCache, needs=_TIED),
    "Linear sets its gradient, does not add": Fault("output_layer", mistakes.OverwritingLinear),
    "dx misses a transpose": Fault("hidden_layer", mistakes.MissingTranspose, needs=_SQUARE),
    "the gradient of the bias is a mean": Fault("output_layer", mistakes.MeanBias),
    "softmax before CrossEntropyLoss": Fault(
        "output_layer",
        mistakes.softmax_inside,
        "They are those of a softmax of a softmax. `fit` refuses this model: it expects logits for "
        "CrossEntropyLoss.",
        needs={"loss": CrossEntropyLoss},
    ),
    "all weights start equal": Fault(
        "init",
        mistakes.equal_weights,
        "They are the same for all units of a layer. Look at the weights: the units stay equal.",
        needs={"dropout": 0},  # which would make the units differ
    ),
    "the loss is a mean, its gradient that of the sum": Fault("wrap_loss", mistakes.SummedGradient),
    "the gradient is t - y": Fault("wrap_loss", mistakes.TargetMinusPred),
    "(N, 10) against (N, 1, 10)": Fault(
        "loss",
        mistakes.Broadcasting,
        "They are those of a wrong value. A `reference=` in `check_loss_gradients` would see it, "
        "and MSELoss refuses the two shapes.",
        needs=_SQUARES,
    ),
    "gradients are never zeroed": Fault(
        "step",
        mistakes.never_zeroed,
        "Each is added to those of all batches before. A test of the loop would see it: after two "
        "steps, the gradient has to be that of the second batch.",
    ),
    "gradients are zeroed after backward": Fault(
        "step",
        mistakes.zeroed_late,
        "They are forgotten before the step. A test of the loop would see it: no weight moves.",
    ),
    "momentum with the wrong sign": Fault(
        "optimizer",
        partial(mistakes.BackwardMomentum, momentum=0.9),
        "The optimizer makes a wrong step of them. `grade_optimizer` would see it: it compares the "
        "steps with those of SGD.",
        needs=_MOMENTUM,
    ),
    "inputs are shuffled without their targets": Fault(
        "data",
        mistakes.shuffled_apart,
        "They are right for the data that the model gets. Look at images beside their targets.",
    ),
    "labels are off by one": Fault(
        "data",
        mistakes.off_by_one,
        "They are right for the data that the model gets. Look at images beside their targets.",
    ),
    "training pixels from 0 to 255": Fault(
        "data",
        mistakes.raw_pixels,
        "They are right for the data that the model gets. Look at the largest number in them.",
    ),
}


def setups(choices: dict[str, Any], name: str = "none") -> list[Setup]:
    """Return the training that was chosen; with a fault, that training right and broken."""
    setup = setup_of(choices)
    if name == "none":
        return [setup]
    fault = FAULTS[name]
    right = replace(setup, **fault.needs)
    return [right, replace(right, **{fault.part: fault.wrong})]


def source_of(name: str) -> str:
    """Return the code that is wrong, or "" where nothing is."""
    if name == "none":
        return ""
    wrong = FAULTS[name].wrong
    return inspect.getsource(getattr(wrong, "func", wrong))  # the class of a partial


def verdict(setup: Setup, name: str = "none") -> str:
    """Return what the kit says of the layers, of the loss, and of both together.

    It starts with "right:", "wrong:" or "cannot see:".
    """
    try:
        reports = list(_reports(setup.small()))
    except ModuleContractError as error:
        return f"wrong: {error}"
    except GradientCheckError as error:
        worst = max(error.report.mismatches, key=lambda m: abs(m.analytic - m.numeric))
        return "\n".join([f"wrong: {error.report.subject}: {worst}", *error.report.hints])
    if name != "none":
        return f"cannot see: the gradients are right. {FAULTS[name].why}"
    checked = sum(array.checked for report in reports for array in report.arrays)
    *layers, loss, both = (report.subject for report in reports)
    return (
        f"right: {', '.join(dict.fromkeys(layers))}, {loss}, and {both}: none of {checked} "
        "gradients disagree with central differences"
    )


def _reports(setup: Setup) -> Iterator[GradientReport]:
    """Check each layer, the loss, and both together."""
    rng, t, side = np.random.default_rng(2), np.eye(10)[:4], setup.layers.side
    model, loss, _ = setup.build()
    x = images = rng.standard_normal((len(t), side, side, 1))
    for layer in model:
        yield check_gradients(layer, rng.standard_normal(x.shape))
        x = layer(x)
    yield check_loss_gradients(loss, rng.standard_normal(t.shape), t)
    yield check_model_gradients(model, loss, images, t)
