"""Schedules against rates worked out by hand."""

import math

import pytest
from tinygrad_mnist.callbacks import Run
from tinygrad_mnist.history import History
from tinygrad_mnist.schedules import CosineDecay, Schedule, StepDecay, WarmUp

from tinygrad_mnist import SGD, Parameter


def rates(schedule, epochs):
    return [schedule(epoch) for epoch in range(1, epochs + 1)]


def test_step_decay_drops_every_so_many_epochs():
    assert rates(StepDecay(8.0, every=2, factor=0.5), 6) == [8, 8, 4, 4, 2, 2]
    assert StepDecay(1.0, every=1)(3) == pytest.approx(0.01)


def test_cosine_decay_is_half_a_cosine_then_zero():
    found = rates(CosineDecay(2.0, epochs=4), 6)
    half = math.sqrt(0.5)
    assert found == pytest.approx([2, 1 + half, 1, 1 - half, 0, 0])


def test_warm_up_rises_in_even_steps_to_the_other_schedule():
    found = rates(WarmUp(3, StepDecay(8.0, every=2, factor=0.5)), 8)
    assert found == [2, 4, 6, 8, 8, 4, 4, 2]


def test_a_schedule_sets_the_rate_of_any_optimizer():
    class Other:
        lr = 0.0

    for optimizer in (SGD([Parameter([1.0])], lr=1.0), Other()):
        StepDecay(8.0, every=1, factor=0.5).before_epoch(
            Run(None, optimizer, History(), epochs=3, epoch=2)
        )
        assert optimizer.lr == 4


def test_a_schedule_of_ones_own_needs_one_method():
    class Inverse(Schedule):
        def __call__(self, epoch):
            return 1 / epoch

    assert rates(WarmUp(1, Inverse()), 3) == [0.5, 1.0, 0.5]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: StepDecay(-1.0, every=1),
            ValueError,
            r"StepDecay: expected lr in \[0, inf\), got -1.0",
        ),
        (
            lambda: StepDecay(1.0, every=0),
            ValueError,
            "StepDecay: expected every to be an integer >= 1, got 0",
        ),
        (
            lambda: StepDecay(1.0, every=1, factor=2),
            ValueError,
            r"StepDecay: expected factor in \[0, 1\], got 2",
        ),
        (
            lambda: CosineDecay("1", epochs=1),
            TypeError,
            r"CosineDecay: expected lr in \[0, inf\), got '1'",
        ),
        (
            lambda: CosineDecay(1.0, epochs=0),
            ValueError,
            "CosineDecay: expected epochs to be an integer >= 1, got 0",
        ),
        (
            lambda: WarmUp(0, CosineDecay(1.0, epochs=1)),
            ValueError,
            "WarmUp: expected epochs to be an integer >= 1, got 0",
        ),
        (
            lambda: WarmUp(1, 0.1),
            TypeError,
            "WarmUp: expected then to be a Schedule, got 0.1",
        ),
    ],
)
def test_refusals(make, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        make()
