"""Schedules against rates worked out by hand."""

import itertools
import math

import pytest
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist.optim.schedules import cosine_decay, one_cycle, step_decay, warm_up


def rates(schedule, count):
    return [schedule(t) for t in range(count)]


def test_step_decay_drops_every_so_often():
    assert rates(step_decay(8.0, every=2, factor=0.5), 6) == [8, 8, 4, 4, 2, 2]
    assert rates(step_decay(1.0, every=1), 3) == pytest.approx([1, 0.1, 0.01])


def test_cosine_decay_is_half_a_cosine_then_zero():
    half = math.sqrt(0.5)
    wanted = [2, 1 + half, 1, 1 - half, 0, 0]
    assert rates(cosine_decay(2.0, steps=4), 6) == pytest.approx(wanted, abs=1e-15)
    assert cosine_decay(2.0, steps=4)(4) == 0


def test_warm_up_rises_in_even_steps_to_the_schedule_that_follows():
    found = rates(warm_up(3, step_decay(8.0, every=2, factor=0.5)), 8)
    assert found == [2, 4, 6, 8, 8, 4, 4, 2]


def test_any_function_of_time_may_follow_a_warm_up():
    assert rates(warm_up(1, lambda t: 1 / (t + 1)), 4) == [0.5, 1, 1 / 2, 1 / 3]


def one_cycle_of_torch(t, lr, steps, rise):
    """The rate of torch.optim.lr_scheduler.OneCycleLR after t of its steps, with its defaults."""

    def between(start, end, fraction):
        return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))

    peak, last = rise * steps - 1, steps - 1
    if t <= peak:
        return between(lr / 25, lr, t / peak)
    return between(lr, lr / 25 / 1e4, (t - peak) / (last - peak))


@given(
    lr=st.sampled_from([0.1, 3.0]),
    steps=st.integers(2, 60),
    rise=st.sampled_from([0.3, 0.5, 0.07, 0.95]),
)
def test_one_cycle_is_that_of_torch(lr, steps, rise):
    if rise * steps <= 1:  # torch has no rise then, and divides by less than 0
        return
    found = rates(one_cycle(lr, steps=steps, rise=rise), steps)
    wanted = [one_cycle_of_torch(t, lr, steps, rise) for t in range(steps)]
    assert found == pytest.approx(wanted, rel=1e-9)


def test_one_cycle_by_hand():
    found = rates(one_cycle(25.0, steps=9, rise=5 / 9), 9)
    half = math.sqrt(0.5)
    rise = [1, 13 - 12 * half, 13, 13 + 12 * half, 25]
    fall = [12.5 + 12.5 * half, 12.5, 12.5 - 12.5 * half, 0]
    assert found == pytest.approx(rise + fall, abs=2e-4)
    assert found[-1] == pytest.approx(25 / 250_000)


def test_one_cycle_stays_at_its_end_and_may_begin_at_its_peak():
    rate = one_cycle(0.5, steps=10)
    assert rate(9) == rate(10) == rate(1000) == pytest.approx(0.5 / 250_000)
    assert one_cycle(0.5, steps=10, rise=0.01)(0) == 0.5
    assert rates(one_cycle(0.5, steps=2, rise=0.5), 2) == pytest.approx([0.5, 0.5 / 250_000])


@pytest.mark.parametrize("rise", [0.3, 0.3004, 0.7])
def test_one_cycle_has_no_jump_at_its_peak_or_elsewhere(rise):
    found = rates(one_cycle(1.0, steps=10_000, rise=rise), 10_000)
    assert max(found) == pytest.approx(1, abs=1e-6)
    assert found.index(max(found)) == pytest.approx(rise * 10_000 - 1, abs=1)
    jumps = [abs(b - a) for a, b in itertools.pairwise(found)]
    assert max(jumps) < math.pi / 2 / (10_000 * min(rise, 1 - rise)) * 1.01


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: step_decay(-1.0, every=1), ValueError, "lr in [0, inf), got -1.0"),
        (lambda: step_decay(1.0, every=0), ValueError, "every to be an integer >= 1, got 0"),
        (lambda: step_decay(1.0, every=1, factor=2), ValueError, "factor in [0, 1], got 2"),
        (lambda: cosine_decay("1", steps=1), TypeError, "lr in [0, inf), got '1'"),
        (lambda: cosine_decay(1.0, steps=0), ValueError, "steps to be an integer >= 1, got 0"),
        (lambda: warm_up(0, abs), ValueError, "steps to be an integer >= 1, got 0"),
        (lambda: warm_up(1, 0.1), TypeError, "then to be a schedule, a function of time, got 0.1"),
        (lambda: one_cycle(math.inf, steps=9), ValueError, "lr in [0, inf), got inf"),
        (lambda: one_cycle(1.0, steps=1), ValueError, "steps to be an integer >= 2, got 1"),
        (lambda: one_cycle(1.0, steps=9.0), TypeError, "steps to be an integer >= 2, got 9.0"),
        (lambda: one_cycle(1.0, steps=9, rise=1), ValueError, "rise in (0, 1), got 1"),
    ],
)
def test_refusals(make, error, text):
    owner = make.__code__.co_names[0]
    with refusal(error, f"{owner}: expected {text}"):
        make()
