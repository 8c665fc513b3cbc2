"""Activations: ReLU against plain loops, and one that is only its f and its slope."""

import numpy as np
import pytest
from helpers import refusal, refusal_starting
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_mnist import ReLU
from tinygrad_mnist.nn import Elementwise
from tinygrad_mnist.testing import check_gradients

# kinks, ties and extremes are the point here: floats, not seeds
ARRAYS = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3), elements=st.floats(-9, 9))


@given(x=ARRAYS)
def test_values_are_those_of_a_loop(x):
    layer = ReLU()
    y, dx = layer(x), layer.backward(np.full_like(x, 3))
    for i in np.ndindex(x.shape):
        assert y[i] == (x[i] if x[i] > 0 else 0)
        assert dx[i] == (3 if x[i] > 0 else 0)


def test_the_slope_is_that_of_the_input_and_0_at_0():
    layer = ReLU()
    x = np.array([-1.0, -0.0, 0.0, 1e-300, np.nan, np.inf])
    np.testing.assert_array_equal(layer(x)[3:], [1e-300, np.nan, np.inf])
    np.testing.assert_array_equal(layer.backward(np.ones(6)), [0, 0, 0, 1, 0, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_relu_has_the_dtype_of_its_input(dtype):
    layer = ReLU()
    assert layer(np.ones(3, dtype)).dtype == dtype
    assert layer.backward(np.ones(3)).dtype == dtype


def test_an_array_without_axes_gives_an_array():
    layer = ReLU()
    for array in (layer(np.array(2.0)), layer.backward(np.array(3.0))):
        assert type(array) is np.ndarray
        assert array.shape == ()


class Softplus(Elementwise):
    """f(x) = log(1 + exp(x)); f'(x) = 1 / (1 + exp(-x))."""

    def compute(self, x):
        return np.logaddexp(0, x), 1 / (1 + np.exp(-x))


def test_an_activation_is_written_as_f_and_its_slope():
    layer, x = Softplus(), np.linspace(-3, 3, 7)
    assert check_gradients(layer, x)
    np.testing.assert_allclose(layer(x), np.log(1 + np.exp(x)), rtol=1e-12)
    np.testing.assert_allclose(layer.backward(2 * x), 2 * x / (1 + np.exp(-x)), rtol=1e-12)


def test_the_base_refuses_in_the_name_of_the_activation():
    layer = Softplus()
    with refusal_starting(RuntimeError, "Softplus: expected a forward before backward, got none"):
        layer.backward(np.ones(3))
    layer(np.ones(3))
    with refusal(ValueError, "Softplus: expected dy of shape (3,), got (2,)"):
        layer.backward(np.ones(2))


def test_a_compute_that_fails_leaves_nothing_for_backward():
    class Fails(Softplus):
        def compute(self, x):
            if not x.all():
                raise ValueError("no zeros")
            return super().compute(x)

    layer = Fails()
    layer(np.ones(3))
    with pytest.raises(ValueError, match="no zeros"):
        layer(np.zeros(3))
    with pytest.raises(RuntimeError):
        layer.backward(np.ones(3))


def test_compute_must_be_written():
    with pytest.raises(TypeError, match="abstract method '?compute"):
        type("Half", (Elementwise,), {})()
