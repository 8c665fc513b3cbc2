"""find_learning_rate: which batches it trains on at which rates, where it ends, what it leaves."""

import signal

import numpy as np
import pytest
from helpers import bits, refusal

from tinygrad_mnist import (
    SGD,
    Adam,
    BatchNorm,
    DataLoader,
    Dropout,
    Linear,
    MSELoss,
    Parameter,
    Sequential,
)
from tinygrad_mnist.training import LearningRateCurve, find_learning_rate


def made(optimizer=SGD, batch_size=4, scale=1.0, **options):
    """Return model, loss, optimizer and loader of ten samples, with one generator for all."""
    rng, data = np.random.default_rng(0), np.random.default_rng(1)
    model = Sequential(
        Linear(3, 5, rng=rng), BatchNorm(5), Dropout(0.2, rng=rng), Linear(5, 2, rng=2)
    )
    model[1].eval()
    x, t = data.standard_normal((10, 3)), scale * data.standard_normal((10, 2))
    loader = DataLoader(x, t, batch_size, shuffle=True, rng=rng)
    return model, MSELoss(), optimizer(model.parameters(), lr=0.3, **options), loader


def state(run):
    """Return all that a step may change."""
    model, _, optimizer, loader = run
    held, modes = optimizer.state_dict(), [module.training for module in model.modules()]
    slots = [bits(dict(enumerate(held.pop(name)))) for name in optimizer.slots]
    return bits(model.state_dict()), held, slots, modes, loader.rng.bit_generator.state


def test_it_is_a_loop_whose_rate_grows_by_the_same_factor():
    curve = find_learning_rate(*made(momentum=0.5), low=1e-3, high=1e-1, steps=9)
    model, loss, optimizer, loader = made(momentum=0.5)
    model.train()
    batches = (pair for _ in range(3) for pair in loader)  # three an epoch
    mean, wanted = 0.0, []
    for i, (x, t) in enumerate(batches):
        optimizer.lr = 1e-3 * 100 ** (i / 8)
        mean = 0.9 * mean + 0.1 * loss(model(x), t)
        wanted.append(mean / (1 - 0.9 ** (i + 1)))
        model.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    np.testing.assert_allclose(curve.rates, [1e-3 * 100 ** (i / 8) for i in range(9)])
    np.testing.assert_allclose(curve.losses, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "options"), [(SGD, {"momentum": 0.9}), (SGD, {}), (Adam, {})]
)
@pytest.mark.parametrize("high", [1e-2, 1e30])
def test_it_leaves_everything_as_it_was(optimizer, options, high):
    run = made(optimizer, **options)
    model, loss, _, loader = run
    for x, t in loader:
        loss(model(x), t)
        model.zero_grad()
        model.backward(loss.backward())
        run[2].step()
    before = state(run)
    find_learning_rate(*run, high=high)
    assert state(run) == before
    assert not any(p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_also_after_an_error_or_ctrl_c(error):
    run = made()
    before = state(run)
    batches = iter(range(5))

    class Fails(MSELoss):
        def __call__(self, pred, target):
            if next(batches) == 4:
                if error is KeyboardInterrupt:
                    signal.raise_signal(signal.SIGINT)
                raise ZeroDivisionError
            return super().__call__(pred, target)

    with pytest.raises(error):
        find_learning_rate(run[0], Fails(), *run[2:])
    assert state(run) == before


def test_it_ends_where_the_loss_blows_up():
    run = made()
    curve = find_learning_rate(*run, low=1e-3, high=1e3, steps=60)
    assert 10 < len(curve.rates) == len(curve.losses) < 60
    assert max(curve.losses) <= 4 * min(curve.losses)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_it_ends_where_the_loss_is_no_number(bad):
    values = iter([*[1.0] * 7, bad])

    class NoNumber(MSELoss):
        def __call__(self, pred, target):
            super().__call__(pred, target)
            return next(values)

    model, _, *rest = made()
    assert find_learning_rate(model, NoNumber(), *rest).losses == pytest.approx([1.0] * 7)


def test_the_suggestion_is_where_three_quarters_of_the_fall_are_done():
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert LearningRateCurve(rates, [5.0, 4.0, 2.1, 1.0, 3.0]).suggestion == 1e-1
    assert LearningRateCurve(rates, [5.0, 4.0, 2.0, 1.0, 3.0]).suggestion == 1e-2
    assert LearningRateCurve(rates, [1.0, 1.0, 2.0, 2.0, 2.0]).suggestion == 1e-4


def test_it_shows_its_range_and_the_suggestion_not_all_numbers():
    shown = "LearningRateCurve(3 rates from 0.000123 to 0.1, suggestion=0.01)"
    assert repr(LearningRateCurve([0.00012345, 0.01, 0.1], [5.0, 2.0, 3.0])) == shown
    assert repr(LearningRateCurve()) == "LearningRateCurve()"


def test_a_linear_model_learns_at_the_rate_that_is_suggested():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4))
    loader = DataLoader(x, x @ rng.standard_normal((4, 1)), 10, shuffle=True, rng=0)
    model, loss = Linear(4, 1, rng=1), MSELoss()
    optimizer = SGD(model.parameters(), lr=0.0)
    optimizer.lr = find_learning_rate(model, loss, optimizer, loader, high=10).suggestion
    first, *_, last = (step(model, loss, optimizer, *pair) for _ in range(3) for pair in loader)
    assert last < 0.01 * first


def step(model, loss, optimizer, x, t):
    value = loss(model(x), t)
    model.zero_grad()
    model.backward(loss.backward())
    optimizer.step()
    return value


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"low": 0}, ValueError, "low in (0, inf), got 0"),
        ({"low": 0.1, "high": 0.1}, ValueError, "high in (0.1, inf), got 0.1"),
        ({"steps": 1}, ValueError, "steps to be an integer >= 2, got 1"),
        ({"model": 1}, TypeError, "a Module, got 1"),
        ({"loss": MSELoss}, TypeError, "a loss to call, with a backward, got the class MSELoss"),
        (
            {"optimizer": SGD([Parameter(1.0)], 0.1)},
            ValueError,
            "an optimizer of the model's parameters, got 1 of another model",
        ),
        ({"train": 1}, TypeError, "a DataLoader, or an iterable of pairs, got 1"),
        ({"train": []}, ValueError, "a loader with at least one sample, got none"),
        (
            {"train": [(np.ones((2, 3)), np.full((2, 2), np.nan))]},
            FloatingPointError,
            "a finite loss, got nan at rate 1e-06",
        ),
    ],
)
def test_refusals_leave_everything_as_it_was(change, error, text):
    run = made()
    before = state(run)
    arguments = dict(zip(("model", "loss", "optimizer", "train"), run, strict=True)) | change
    with refusal(error, f"find_learning_rate: expected {text}"):
        find_learning_rate(**arguments)
    assert state(run) == before
