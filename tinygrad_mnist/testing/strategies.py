"""Hypothesis strategies for arrays and models, and a whole property test in one call.

Arrays are drawn by one seed each, not one float per element: engine-drawn floats are mostly
zeros, ties and tiny numbers, the worst inputs for a gradient check, while seeded ones are generic
at any size and shrink just as well. Needs Hypothesis (extra `test`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_mnist import _checks as check
from tinygrad_mnist._checks import FloatArray
from tinygrad_mnist._extras import needing
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Dropout, Linear, ReLU, Sequential
from tinygrad_mnist.testing.gradients import check_gradients
from tinygrad_mnist.testing.later_rules import CHECKLIST_RULES
from tinygrad_mnist.testing.module_rules import LAYOUTS
from tinygrad_mnist.testing.module_run import ModuleRun
from tinygrad_mnist.testing.report import InconclusiveGradientCheck
from tinygrad_mnist.testing.rules import ask
from tinygrad_mnist.testing.subject import FORMS, Form

with needing("tinygrad_mnist.testing.strategies", "test"):
    import hypothesis
    from hypothesis import given, note, reject
    from hypothesis import strategies as st

_SIDES = st.sampled_from([2, 3, 5, 4, 1])  # failures shrink to 2: a side of 1 hides wrong shapes
_FORMED: dict[Form, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "sample": lambda batch: batch[0],
    "batch": lambda batch: batch,
    "axes": lambda batch: np.stack([batch, batch[::-1]]),
}


def seeds() -> st.SearchStrategy[int]:
    """Return a strategy of seeds for np.random.default_rng, shrinking to 0."""
    return st.integers(0, 2**32 - 1)


@st.composite
def batches(
    draw: st.DrawFn, *, features: int | None = None, rows: int | None = None, sample_axes: int = 1
) -> FloatArray:
    """Return a strategy of float64 arrays of normal numbers: (rows, features), or batches of more.

    A length that is None is drawn from 1 to 5, as are H and W with sample_axes=3, for arrays
    (rows, H, W, features).
    """
    sides = (rows, *[None] * (sample_axes - 1), features)
    shape = [draw(_SIDES) if side is None else side for side in sides]
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
    """Return a strategy of arrays, or `batches()`, with a few zeros, ties, huge or tiny numbers."""
    array = draw(batches() if arrays is None else arrays).copy()
    flat = array.reshape(-1)
    for _ in range(draw(st.integers(0, 3)) if flat.size else 0):
        i, j = (draw(st.integers(0, flat.size - 1)) for _ in range(2))
        flat[i] = draw(st.sampled_from([0.0, 1.0, -1.0, 1e3, -1e3, 1e-3, 1e-12, flat[j]]))
    return array


def layouts() -> st.SearchStrategy[Callable[[FloatArray], FloatArray]]:
    """Return a strategy of functions that lay the same values out in memory in another way."""
    return st.sampled_from([np.ascontiguousarray, *LAYOUTS.values()])


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
    make_module: Callable[[int, np.random.Generator], Module],
    *,
    inputs: st.SearchStrategy[Any] | None = None,
    rows_independent: bool = True,
    forms: Sequence[Form] = FORMS,
    settings: hypothesis.settings | None = None,
) -> Callable[[], None]:
    """Return a property test of a layer: assign it to a name that pytest collects.

        test_scale = module_checklist(lambda features, rng: Scale(features))

    It draws inputs, generic ones and such with special values, as a batch, one sample, or with more
    leading axes, checks the whole contract and every gradient in training and evaluation mode, also
    that no samples give no gradient, and shrinks a failure to a small input.

    Args:
        make_module: Makes the layer, given the length of its input's last axis and a generator.
        inputs: What to feed it, batches or tuples of batches; None is `spiked()`, of as many axes
            as the layer's `sample_axes` asks for, and of two rows at least if rows mix.
        rows_independent: As in `check_gradients`: False for layers that mix rows.
        forms: As in `check_gradients`: `("batch",)` for layers that need a batch axis.
        settings: Of Hypothesis, such as `hypothesis.settings(max_examples=1000, deadline=None)`;
            None is those of the current profile, without a deadline.

    Raises:
        AssertionError: From the test: GradientCheckError or ModuleContractError.
    """
    for known in forms:
        check.choice("module_checklist", "forms", known, *FORMS)

    def fitting() -> st.SearchStrategy[FloatArray]:
        arrays = batches(sample_axes=make_module(2, np.random.default_rng(0)).sample_axes)
        return spiked(arrays).filter(lambda x: rows_independent or len(x) > 1)

    inputs = st.deferred(fitting) if inputs is None else inputs

    @given(batch=inputs, seed=seeds(), training=st.booleans(), form=st.sampled_from(forms))
    def test(batch: Any, seed: int, training: bool, form: Form) -> None:
        arrays = batch if isinstance(batch, tuple) else (batch,)
        module = make_module(arrays[0].shape[-1], np.random.default_rng(seed)).train(training)
        if "batch" in forms:
            ask(ModuleRun(module, arrays, np.ones(())), CHECKLIST_RULES)
        x = tuple(map(_FORMED[form], arrays))
        note(f"x =\n{x if len(x) > 1 else x[0]!r}\n{module!r}")
        try:
            check_gradients(module, x, rows_independent=rows_independent, forms=forms, seed=seed)
        except InconclusiveGradientCheck:
            reject()

    return (settings or hypothesis.settings(deadline=None))(test)
