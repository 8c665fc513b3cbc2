"""ReLU against plain loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_mnist import ReLU

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
