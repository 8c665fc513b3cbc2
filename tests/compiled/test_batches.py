"""A compiled pass in batches against the eager loop that it stands for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import (
    CrossEntropyLoss,
    Dropout,
    Linear,
    MSELoss,
    ReLU,
    Sequential,
)
from tinygrad_mnist.testing.strategies import seeds

pytest.importorskip("numba")
from passes import LOSSES, OPTIMIZERS, assert_equal_passes, chains, trained

from tinygrad_mnist.compiled import batches, rows, sparse
from tinygrad_mnist.compiled.kernel import BLOCKS

every_optimizer = pytest.mark.parametrize("options", OPTIMIZERS)


def sparse_rows(rng, n, features):
    return rng.standard_normal((n, features)) * (rng.random((n, features)) < 0.5)


@given(
    chain=chains(st.sampled_from([1, 5, 64, 70])),
    options=st.sampled_from(OPTIMIZERS),
    make_loss=st.sampled_from(LOSSES),
    n=st.sampled_from([2, 7, 12]),
    batch_size=st.sampled_from([2, 3, 100]),
    parts=st.sampled_from([1, 2, 3]),
    shuffled=st.booleans(),
    seed=seeds(),
)
def test_a_pass_leaves_what_an_eager_pass_leaves(
    chain, options, make_loss, n, batch_size, parts, shuffled, seed
):
    (model, features), rng = chain, np.random.default_rng(seed)
    x, t = sparse_rows(rng, n, features), rng.standard_normal((n, 3))
    if isinstance(make_loss(), CrossEntropyLoss):
        t = rng.integers(0, 3, n)
    order = rng.integers(0, n, n + 2) if shuffled else None
    data = x, t
    assert_equal_passes(
        model, make_loss, options, 1e-3, *data, batch_size=batch_size, order=order, parts=parts
    )


def two_layers(features=5, hidden=4, outputs=2):
    return Sequential(Linear(features, hidden, rng=1), ReLU(), Linear(hidden, outputs, rng=2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [*BLOCKS, 1, 17, 105, 300])
def test_rows_of_any_number_of_columns(columns, dtype):
    rng = np.random.default_rng(columns)
    x, t = sparse_rows(rng, 20, 70), rng.random((20, columns))
    for options in ({}, {"momentum": 0.9}):
        model = two_layers(70, columns, columns).astype(dtype)
        assert_equal_passes(model, MSELoss, options, 0.01, x, t, batch_size=8)


def test_a_gradient_of_more_rows_than_are_computed_at_a_time():
    rng = np.random.default_rng(0)
    x, t = sparse_rows(rng, 6, 200), rng.random((6, 2))
    model = Sequential(Linear(200, 400, rng=1), Linear(400, 2, rng=2)).astype(np.float64)
    assert batches._GRADIENT < 200 * 400
    for parts in (1, 2):
        options = {"momentum": 0.9, "weight_decay": 0.1}
        assert_equal_passes(model, MSELoss, options, 0.01, x, t, batch_size=3, parts=parts)


@pytest.mark.parametrize("parts", [1, 3])
def test_batches_of_more_than_a_word_and_more_samples_than_a_chunk(parts):
    rng = np.random.default_rng(0)
    x, t = sparse_rows(rng, 1231, 6), rng.random((1231, 2))
    shared = np.random.default_rng(5)
    first = Dropout(0.2, rng=shared), Linear(6, 5, rng=1), Dropout(0.5, rng=shared)
    model = Sequential(*first, Linear(5, 2, rng=2)).astype(np.float64)
    assert_equal_passes(model, MSELoss, {}, 0.01, x, t, batch_size=130, parts=parts)
    one_is_left = x[:601], t[:601]
    assert_equal_passes(model, MSELoss, {}, 0.01, *one_is_left, batch_size=100, parts=parts)


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_the_same_bits_for_the_same_number_of_parts(parts):
    rng = np.random.default_rng(0)
    data, results = (sparse_rows(rng, 90, 130), rng.random((90, 3))), []
    for _ in range(3):
        model = two_layers(130, 20, 3)
        results.append(
            trained(model, MSELoss, {"momentum": 0.9}, 0.01, *data, batch_size=9, parts=parts)[0]
        )
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_unit_that_is_0_gets_its_gradient_unless_a_relu_is_below():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((6, 5)), rng.standard_normal((6, 2))
    layers = [Linear(5, 4, False, rng=1), ReLU(), Linear(4, 3, False, rng=2)]
    for first in (0, 2):  # with a ReLU further down, and without
        model = Sequential(*layers[first:], Dropout(0.0), Linear(3, 2, rng=3)).astype(np.float64)
        model[-3].weight.data[:, 1] = 0
        data = x[:, : model[0].in_features], t
        assert_equal_passes(model, MSELoss, {}, 0.1, *data, batch_size=6)
        assert model[-3].weight.data[:, 1].any()


@every_optimizer
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "t", "weight", "bias of a dead unit", "x of dead units"])
@pytest.mark.parametrize("at", [3, 9])  # the first of two parts has it, in a batch or in the last
def test_nan_and_infinity_behave_as_in_the_eager_loop(at, where, value, parts, options):
    rng = np.random.default_rng(0)
    x, t = abs(sparse_rows(rng, 12, 5)), rng.random((12, 2))
    x[at, 0] = 0  # 0 * NaN is NaN, too
    model = two_layers().astype(np.float64)
    if where == "weight":
        model[0].weight.data[1, 2] = value
    elif where == "bias of a dead unit":
        model[0].bias.data[1] = -abs(value)
    elif where == "x of dead units":  # the output stays finite, the weights do not
        model[0].weight.data[:] = -abs(model[0].weight.data)
        x[at, 1], x[at + 1 :, 1] = value, 0
    else:
        {"x": x, "t": t}[where][at, 1] = value
    assert_equal_passes(model, MSELoss, options, 0.1, x, t, batch_size=3, parts=parts)


@every_optimizer
@pytest.mark.parametrize("parts", [1, 2])
def test_a_gradient_that_overflows_behaves_as_in_the_eager_loop(parts, options):
    """Weights become infinite, and all later inputs are 0."""
    rng = np.random.default_rng(0)
    x, t = rng.random((12, 5)), rng.random((12, 2))
    x[4:], t[3] = 0, 1e300
    model = two_layers().astype(np.float64)
    model[2].weight.data *= 1e10
    assert_equal_passes(model, MSELoss, options, 1e-30, x, t, batch_size=2, parts=parts)


@every_optimizer
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "t", "weight"])
def test_a_rate_of_0_moves_no_weight(where, value, options):
    rng = np.random.default_rng(0)
    x, t = sparse_rows(rng, 12, 5), rng.random((12, 2))
    model = two_layers().astype(np.float64)
    {"x": x, "t": t, "weight": model[0].weight.data}[where][3, 1] = value
    before = model.state_dict()
    assert_equal_passes(model, MSELoss, options, 0.0, x, t, batch_size=3)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("value", [0.5, np.inf])
def test_the_kernel_in_plain_python_does_the_same(value, parts, monkeypatch):
    """Debuggers and coverage see it so."""
    rng = np.random.default_rng(0)
    x, t = sparse_rows(rng, 9, 70), rng.integers(0, 3, 9)
    x[4, 1] = value
    for module in (batches, rows, sparse):
        functions = {n: f for n, f in vars(module).items() if hasattr(f, "py_func")}
        assert len(functions) >= 6
        for name, function in functions.items():
            monkeypatch.setattr(module, name, function.py_func)
    first = Dropout(0.2, rng=3), Linear(70, 9, rng=1), ReLU(), Linear(9, 5, False, rng=2)
    for options in OPTIMIZERS:
        model = Sequential(*first, Dropout(0.5, rng=4), Linear(5, 3, rng=5)).astype(np.float64)
        assert_equal_passes(model, CrossEntropyLoss, options, 0.01, x, t, batch_size=4, parts=parts)
