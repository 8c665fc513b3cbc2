"""Hypothesis strategies for arrays and models, and whole property tests in one call.

Arrays are drawn by one seed each, not one float per element: engine-drawn floats are mostly
zeros, ties and tiny numbers, the worst inputs for a gradient check, while seeded ones are generic
at any size and shrink just as well. Needs Hypothesis (extra `test`).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._extras import needing
from tinygrad_mnist.losses import Loss
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Dropout, Linear, ReLU, Sequential
from tinygrad_mnist.testing.arrays import MORE_LAYOUTS
from tinygrad_mnist.testing.contracts.optimizer import Formula
from tinygrad_mnist.testing.contracts.optimizer import Make as MakeOptimizer
from tinygrad_mnist.testing.contracts.values import Reference
from tinygrad_mnist.testing.examples import (
    Example,
    LossExample,
    MakeModule,
    ModuleExample,
    ModuleSettings,
    OptimizerExample,
    Targets,
    arrays_of,
    compared,
    require_loss,
)
from tinygrad_mnist.testing.given import GivenError
from tinygrad_mnist.testing.grading import graded
from tinygrad_mnist.testing.places import KIT_ERRORS, own_traceback
from tinygrad_mnist.testing.report import InconclusiveGradientCheck
from tinygrad_mnist.testing.subject import FORMS, Form, check_forms, global_state_kept

with needing("tinygrad_mnist.testing.strategies", "test"):
    import hypothesis
    from hypothesis import given
    from hypothesis import strategies as st

_SIDES = st.sampled_from([2, 3, 5, 4, 1])  # failures shrink to 2: a side of 1 hides wrong shapes
_PIXELS = st.sampled_from([5, 6, 8, 7])  # as small as kernels may be
_LONG = st.sampled_from([0] * 7 + [9, 17, 33])  # beyond what a layer may have been written for
_ONE_IN_EIGHT = st.sampled_from([False] * 7 + [True])


def seeds() -> st.SearchStrategy[int]:
    """Return a strategy of seeds for np.random.default_rng, shrinking to 0."""
    return st.integers(0, 2**32 - 1)


@st.composite
def batches(
    draw: st.DrawFn, *, features: int | None = None, rows: int | None = None, sample_axes: int = 1
) -> FloatArray:
    """Return a strategy of float64 arrays of normal numbers: (rows, features), or batches of more.

    A length that is None is drawn from 1 to 5, and with sample_axes=3, for arrays (rows, H, W,
    features), H and W from 5 to 8. At times one of these is 9, 17 or 33.
    """
    sides = [rows, *[None] * (sample_axes - 1), features]
    drawn_from = [_SIDES, *[_PIXELS] * (sample_axes - 1), _SIDES]
    free = [i for i, side in enumerate(sides) if side is None]
    shape = [draw(drawn_from[i]) if side is None else side for i, side in enumerate(sides)]
    if free and (long := draw(_LONG)):
        shape[draw(st.sampled_from(free))] = long
    return np.random.default_rng(draw(seeds())).standard_normal(shape)


def away_from(
    points: Sequence[float] | float,
    arrays: st.SearchStrategy[FloatArray] | None = None,
    *,
    gap: float = 0.01,
) -> st.SearchStrategy[FloatArray]:
    """Return a strategy of arrays without an entry closer to one of the points than gap.

    Args:
        points: Where a function has a kink, such as 0 for ReLU; more than 4 gaps apart.
        arrays: What to draw from; None is `batches()`.
        gap: Smallest distance left; a closer entry is moved to twice that.
    """

    def moved(array: FloatArray) -> FloatArray:
        array = array.copy()
        for point in np.atleast_1d(np.asarray(points, dtype=np.float64)):
            near = abs(array - point) < gap
            array[near] = point + np.where(array[near] < point, -2, 2) * gap
        return array

    return (batches() if arrays is None else arrays).map(moved)


@st.composite
def spiked(draw: st.DrawFn, arrays: st.SearchStrategy[FloatArray] | None = None) -> FloatArray:
    """Return a strategy of arrays, or `batches()`, with a few zeros, ties, huge or tiny numbers.

    In one of eight, a whole sample is 0.
    """
    array = draw(batches() if arrays is None else arrays).copy()
    flat = array.reshape(-1)
    for _ in range(draw(st.integers(0, 3)) if flat.size else 0):
        i, j = (draw(st.integers(0, flat.size - 1)) for _ in range(2))
        flat[i] = draw(st.sampled_from([0.0, 1.0, -1.0, 1e3, -1e3, 1e-3, 1e-12, flat[j]]))
    if array.ndim and array.size and draw(_ONE_IN_EIGHT):
        array[draw(st.integers(0, len(array) - 1))] = 0
    return array


def layouts() -> st.SearchStrategy[Callable[[FloatArray], FloatArray]]:
    """Return a strategy of functions that lay the same values out in memory in another way."""
    return st.sampled_from([np.ascontiguousarray, *MORE_LAYOUTS.values()])


@st.composite
def mlps(
    draw: st.DrawFn, *, in_features: int | None = None, out_features: int | None = None
) -> Sequential:
    """Return a strategy of random Sequential models in float64; the first layer is a Linear.

    Lengths that are None are drawn from 1 to 5; `model[0].in_features` tells that of an input.
    """
    rng = np.random.default_rng(draw(seeds()))
    width = draw(_SIDES) if in_features is None else in_features
    layers: list[Module] = []
    for _ in range(draw(st.integers(0, 2))):
        hidden = draw(_SIDES)
        layers.append(Linear(width, hidden, draw(st.booleans()), rng=rng, dtype=np.float64))
        layers += draw(st.sampled_from([[], [ReLU()], [ReLU(), Dropout(0.25, rng=rng)]]))
        width = hidden
    last = draw(_SIDES) if out_features is None else out_features
    layers.append(Linear(width, last, draw(st.booleans()), rng=rng, dtype=np.float64))
    return Sequential(*layers)


def module_checklist(
    make_module: MakeModule,
    *,
    inputs: st.SearchStrategy[Any] | None = None,
    rows_independent: bool = True,
    reference: Reference | None = None,
    forms: Sequence[Form] = FORMS,
    allow_nonfinite: bool = False,
    settings: hypothesis.settings | None = None,
) -> Callable[[], None]:
    """Return a property test of a layer: assign it to a name that pytest collects.

        test_scale = module_checklist(lambda features, rng: Scale(features))

    It draws inputs, generic ones and such with special values, as a batch, one sample, or with more
    leading axes, and checks the whole contract and every gradient in training and evaluation mode.
    The smallest inputs come first, and a failure is shrunk to a small one. A note on its error says
    what became of the other rules there. A Parameter that moves y in no example is a failure, too.

    Args:
        make_module: Makes the layer, given the length of its input's last axis and a generator.
        inputs: What to feed it, batches or tuples of batches; None is `spiked()`, of as many axes
            as the layer's `sample_axes` asks for, and of two rows at least if rows mix. Give
            `inputs` to a layer that needs images larger than 5 by 5.
        rows_independent: As in `check_gradients`: False for layers that mix rows.
        reference: As in `check_gradients`: a function that y must equal.
        forms: As in `check_gradients`: `("batch",)` for layers that need a batch axis.
        allow_nonfinite: As in `check_gradients`.
        settings: Of Hypothesis, such as `hypothesis.settings(max_examples=1000)`; None is those of
            the current profile. There is no deadline, no database, and no phase "explain", which
            takes long.

    Raises:
        AssertionError: From the test: GradientCheckError or ModuleContractError. Other errors are
            the layer's own.
    """
    check_forms("module_checklist", forms)
    shared = ModuleSettings(make_module, rows_independent, forms, reference, allow_nonfinite)

    def fitting() -> st.SearchStrategy[Any]:
        arrays = spiked(batches(sample_axes=shared.sample_axes))
        return arrays.filter(lambda x: rows_independent or len(x) > 1)

    def example(batch: Any, form: Form, training: bool, seed: int) -> ModuleExample:
        arrays = arrays_of("module_checklist", batch)
        return ModuleExample(shared, arrays, form, training, seed)

    drawn = {
        "batch": st.deferred(fitting) if inputs is None else inputs,
        "form": st.sampled_from(shared.ordered_forms),
        "training": st.sampled_from([True, False]),
        "seed": seeds(),
    }
    return _checklist(example, drawn, settings, shared.effects.ask)


def loss_checklist(
    make_loss: Callable[[], Loss],
    *,
    targets: Targets = "like pred",
    reference: Reference | None = None,
    allow_nonfinite: bool = False,
    preds: st.SearchStrategy[ArrayLike] | None = None,
    settings: hypothesis.settings | None = None,
) -> Callable[[], None]:
    """Return a property test of a loss: its contract and its gradients.

        test_cross_entropy = loss_checklist(CrossEntropyLoss, targets="labels")

    Args:
        make_loss: Makes the loss, of no arguments: its class will do.
        targets: As in `grade_loss`.
        reference: As in `grade_loss`.
        allow_nonfinite: As in `grade_loss`.
        preds: What to feed it, such as arrays of probabilities; None is `spiked()`.
        settings: As in `module_checklist`.

    Raises:
        AssertionError: From the test, as in `module_checklist`.
        InconclusiveGradientCheck: From the test, if no example could tell.
    """
    require_loss("loss_checklist", make_loss, targets)
    usual = spiked().filter(lambda pred: targets != "labels" or pred.shape[-1] > 1)
    of_pred = partial(LossExample, make_loss, targets, reference, allow_nonfinite)

    def example(pred: ArrayLike, seed: int) -> LossExample:
        return of_pred(check.owned("loss_checklist", "preds", pred, np.dtype(np.float64)), seed)

    return _checklist(
        example, {"pred": usual if preds is None else preds, "seed": seeds()}, settings
    )


def optimizer_checklist(
    make_optimizer: MakeOptimizer,
    *,
    reference: MakeOptimizer | None = None,
    formula: Formula | None = None,
    settings: hypothesis.settings | None = None,
) -> Callable[[], None]:
    """Return a property test of an optimizer: where ten steps lead, and what they leave alone.

        test_my_adam = optimizer_checklist(MyAdam, reference=Adam)

    Args:
        make_optimizer: Makes the optimizer, given a list of Parameters.
        reference: As in `grade_optimizer`.
        formula: As in `grade_optimizer`.
        settings: As in `module_checklist`.
    """
    reference = compared("optimizer_checklist", make_optimizer, reference, formula)
    return _checklist(
        lambda seed: OptimizerExample(make_optimizer, reference, seed), {"seed": seeds()}, settings
    )


def _checklist(
    make_example: Callable[..., Example],
    drawn: dict[str, st.SearchStrategy[Any]],
    settings: hypothesis.settings | None,
    after: Callable[[], None] = lambda: None,
) -> Callable[[], None]:
    """Return a test that asks examples all questions, and whose error says how other rules did.

    It shrinks the first failure: looking for further failures would double the time.
    """
    last: list[Example] = []
    told: set[str] = set()  # the rules about which some example said something
    settings = settings or hypothesis.settings()
    phases = [phase for phase in settings.phases if phase is not hypothesis.Phase.explain]
    quick = hypothesis.settings(settings, deadline=None, phases=phases, report_multiple_bugs=False)

    # no database: there, the failures of one checklist would be the first examples of all others
    @hypothesis.settings(quick, database=None)
    @given(**drawn)
    def test(**values: Any) -> None:
        last[:] = [make_example(**values)]
        for rule, question in last[0].questions():
            with suppress(InconclusiveGradientCheck):
                question()
                told.add(rule)

    def checklist() -> None:
        __tracebackhide__ = True  # for pytest
        try:
            # arrays in a note show their corners
            with global_state_kept(), np.printoptions(threshold=25, edgeitems=2):
                test()
        except GivenError as error:
            raise error.with_traceback(own_traceback(error)) from None
        except Exception as error:
            if last:
                error.add_note(graded(*last).summary)
            # the way through the kit tells nothing, and its message has what it was caused by
            cause = None if isinstance(error, KIT_ERRORS) else error.__cause__
            raise error.with_traceback(own_traceback(error)) from cause
        after()
        if "gradients" in last[0].says.keys() - told:
            contract = "some example in which a wrong gradient would show"
            raise InconclusiveGradientCheck(check.expected(last[0].owner, contract, "none"))

    return checklist
