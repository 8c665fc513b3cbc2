"""The precision of a function's numbers: found out, whatever the dtype of its arrays."""

import numpy as np
import pytest
from count_float32 import outcome
from layers import ELEMENTWISE, Elementwise, Embedding, normal

from tinygrad_mnist import ReLU, nn
from tinygrad_mnist.testing import GradientCheckError, check_gradients, check_vjp
from tinygrad_mnist.testing.differences.precision import DOUBLE, SINGLE, precision_of
from tinygrad_mnist.testing.subject import ModuleSubject

HINT = "These outputs have the precision of float32."
ROUND = np.round(normal(3, 4))


def single(x):
    """Return tanh(x), computed in float32 and returned in float64."""
    return np.tanh(np.asarray(x, np.float32)).astype(np.float64)


def slope(x, factor=1.0):
    return factor * (1 - single(x) ** 2)


@pytest.mark.parametrize(
    ("module", "x", "precision"),
    [
        (Elementwise(single, slope), normal(3, 4), SINGLE),
        (Elementwise(*ELEMENTWISE["tanh"]), normal(3, 4), DOUBLE),
        # float32 numbers by nature, at these x
        (ReLU(), ROUND, DOUBLE),
        (ReLU(), normal(3, 4).astype(np.float32).astype(np.float64), DOUBLE),
        (nn.MaxPool2d(1), np.ones((2, 2, 1)), DOUBLE),
        (Elementwise(np.ceil, np.zeros_like), normal(3, 4), DOUBLE),
        (Embedding(5, 3, 0), np.array([0, 4, 1]), DOUBLE),
    ],
    ids=repr,
)
def test_the_precision_is_that_of_the_outputs(module, x, precision):
    assert precision_of(ModuleSubject(module, [x]), np.random.default_rng(0)) == precision


def test_a_float32_function_in_float64_arrays_is_judged_as_one_and_the_report_says_so():
    report = check_gradients(Elementwise(single, slope), normal(3, 4), contracts=False)
    assert report.hints == [HINT]
    assert report.arrays[0].on_kink == 0
    with pytest.raises(GradientCheckError, match=HINT):
        check_gradients(
            Elementwise(single, lambda x: slope(x, 1.02)), normal(3, 4), contracts=False
        )


def test_arrays_may_be_float32_themselves():
    def forward(x):
        assert x.dtype == np.float32
        return np.tanh(x)

    def vjp(dy, x, factor=1):
        return ((dy * factor * (1 - np.tanh(x) ** 2)).astype(np.float32),)

    x = normal(3, 4)
    report = check_vjp(forward, vjp, x, dtype=np.float32)
    assert report.hints == [HINT]
    assert report.arrays[0].telling == 12
    with pytest.raises(GradientCheckError):
        check_vjp(forward, lambda dy, x: vjp(dy, x, 1.02), x, dtype=np.float32)


def test_tolerances_that_are_given_win():
    def off(x):
        return slope(x, 1.02)

    settings = {"contracts": False, "raise_on_failure": False}
    assert check_gradients(Elementwise(single, off), normal(3, 4), rtol=0.05, **settings)
    usual = check_gradients(Elementwise(single, slope), normal(3, 4), **settings)
    strict = check_gradients(Elementwise(single, slope), normal(3, 4), rtol=0, atol=0, **settings)
    assert strict.arrays[0].worst > usual.arrays[0].worst


@pytest.mark.parametrize("rtol", [1e-2, 0.3])
def test_a_coarse_tolerance_is_not_called_a_gradient_of_0(rtol):
    report = check_gradients(Elementwise(*ELEMENTWISE["tanh"]), normal(3, 4), rtol=rtol)
    assert report.arrays[0].telling == 12


def test_right_float32_networks_pass_and_2_percent_are_found():
    assert [outcome(seed)[0] for seed in range(9)] == 9 * ["right"]
    assert [outcome(seed, factor=1.02)[0] for seed in range(9)] == 9 * ["wrong"]
