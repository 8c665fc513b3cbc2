"""Initial weights: their bounds, their spread, their seed."""

import numpy as np
import pytest
from helpers import refusal

from tinygrad_mnist import Linear
from tinygrad_mnist.init import glorot_uniform, he_uniform, uniform


def test_weights_have_the_bounds_and_the_spread_of_their_distribution_and_follow_the_seed():
    for init, bound in (
        (he_uniform, (6 / 300) ** 0.5),
        (glorot_uniform, (6 / 500) ** 0.5),
        (uniform(-0.1, 0.1), 0.1),
    ):
        layer = Linear(300, 200, init=init, rng=5)
        W = layer.weight.data
        assert np.abs(W).max() <= bound
        assert W.std() == pytest.approx(bound / 3**0.5, rel=0.02)
        assert abs(W.mean()) < bound / 50
        same = Linear(300, 200, init=init, rng=np.random.default_rng(5), dtype=np.float64)
        np.testing.assert_array_equal(W, same.weight.data.astype(np.float32))
    assert not layer.bias.data.any()
    assert (Linear(3, 2).weight.data != Linear(3, 2).weight.data).any()


@pytest.mark.parametrize(
    ("low", "high", "error", "text"),
    [
        (1, 0, ValueError, "high >= low (1.0), a finite way apart, got 0.0"),
        (-1e308, 1e308, ValueError, "high >= low (-1e+308), a finite way apart, got 1e+308"),
        (float("nan"), 0, ValueError, "low in (-inf, inf), got nan"),
        (0, True, TypeError, "high in (-inf, inf), got True"),
    ],
)
def test_bounds_that_are_none_are_refused(low, high, error, text):
    with refusal(error, f"uniform: expected {text}"):
        uniform(low, high)
