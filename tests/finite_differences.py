"""Gradients by central differences in float64, to hold every backward against."""

import copy

import numpy as np

STEP = np.finfo(np.float64).eps ** (1 / 3)


def differences(f, array):
    """Return the gradient of f() with respect to an array that f reads, entry by entry."""
    gradient = np.zeros_like(array)
    for i in np.ndindex(array.shape):
        kept = array[i]
        array[i] = high = kept + STEP * max(1, abs(kept))
        above = f()
        array[i] = low = kept - STEP * max(1, abs(kept))
        gradient[i] = (above - f()) / (high - low)
        array[i] = kept
    return gradient


def check_module(module, x, rng):
    """Assert that dx and every parameter's gradient are those of sum(c * module(x))."""
    module = copy.deepcopy(module).astype(np.float64)
    x = np.array(x, dtype=np.float64)
    fresh = copy.deepcopy(module)  # and with it its generators, for the same masks
    cotangent = rng.uniform(0.5, 1.5, module(x).shape) * rng.choice([-1, 1], module(x).shape)

    def value():
        # a copy each time: every forward starts from the same generator state
        return np.sum(cotangent * copy.deepcopy(fresh)(x))

    checked = copy.deepcopy(fresh)
    checked(x)
    dx = checked.backward(cotangent)
    if dx is not None:
        np.testing.assert_allclose(dx, differences(value, x), rtol=1e-6, atol=1e-8)
    grads = dict(checked.named_parameters())
    for name, parameter in fresh.named_parameters():
        numeric = differences(value, parameter.data)
        np.testing.assert_allclose(
            grads[name].grad, numeric, rtol=1e-6, atol=1e-8, err_msg=f"gradient of {name}"
        )
