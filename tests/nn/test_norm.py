"""BatchNorm and LayerNorm: plain loops, running statistics, large means, and what they refuse."""

import math
import statistics

import numpy as np
import pytest
from helpers import refusal

from tinygrad_mnist import BatchNorm, Buffer, LayerNorm, Linear, Parameter, Sequential

every_kind = pytest.mark.parametrize("kind", [BatchNorm, LayerNorm])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def moved(layer, seed=5):
    """Return the layer with other weights and biases than ones and zeros."""
    for parameter in layer.parameters():
        parameter.data = np.random.default_rng(seed).uniform(0.5, 2, parameter.data.shape)
    return layer


def normalized(values, eps):
    """Return a list of numbers less their mean, over their standard deviation."""
    std = math.sqrt(statistics.pvariance(values) + eps)
    return [(value - statistics.fmean(values)) / std for value in values]


def by_loops(layer, x):
    """Return y for x (rows, features), one feature or one sample at a time."""
    per_feature = isinstance(layer, BatchNorm)
    n = np.array([normalized(v.tolist(), layer.eps) for v in (x.T if per_feature else x)])
    n = n.T if per_feature else n
    return n * layer.weight.data + layer.bias.data


@every_kind
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_y_is_that_of_a_loop(kind, eps):
    layer, x = moved(kind(4, eps=eps, dtype=np.float64)), 3 + 2 * normal(6, 4)
    np.testing.assert_allclose(layer(x), by_loops(layer, x), rtol=1e-12)


@every_kind
def test_dx_is_that_of_a_loop_over_all_pairs(kind):
    layer, x, dy = moved(kind(3, dtype=np.float64)), normal(5, 3), normal(5, 3, seed=1)
    layer(x)
    wanted, step = np.empty_like(x), 1e-4
    for i in np.ndindex(x.shape):  # central differences of y in every entry of x
        e = np.zeros_like(x)
        e[i] = step
        slope = (by_loops(layer, x + e) - by_loops(layer, x - e)) / (2 * step)
        wanted[i] = (dy * slope).sum()
    np.testing.assert_allclose(layer.backward(dy), wanted, rtol=1e-5, atol=1e-7)


@every_kind
def test_the_gradients_of_weight_and_bias_are_sums_over_all_samples(kind):
    layer, x, dy = kind(3, dtype=np.float64), normal(2, 5, 3), normal(2, 5, 3, seed=1)
    n = layer(x)  # weight is 1 and bias 0
    layer.backward(dy)
    np.testing.assert_allclose(layer.weight.grad, np.einsum("abi,abi->i", dy, n), rtol=1e-12)
    np.testing.assert_allclose(layer.bias.grad, np.einsum("abi->i", dy), rtol=1e-12)


@every_kind
def test_leading_axes_and_the_order_of_memory_are_only_a_way_to_hold_samples(kind):
    images, dy = normal(4, 3, 2, 5), normal(4, 3, 2, 5, seed=1)
    flat, layer = moved(kind(5, dtype=np.float64)), moved(kind(5, dtype=np.float64))
    for order in ((0, 1, 2, 3), (3, 1, 2, 0)):  # of its axes in memory; a convolution has such
        x = np.ascontiguousarray(images.transpose(order)).transpose(order)
        y, dx = layer(x), layer.backward(dy)
        np.testing.assert_allclose(y.reshape(24, 5), flat(images.reshape(24, 5)), rtol=1e-10)
        wanted = flat.backward(dy.reshape(24, 5))
        np.testing.assert_allclose(dx.reshape(24, 5), wanted, rtol=1e-9, atol=1e-12)


@every_kind
@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_float32_keeps_its_digits_around_a_large_mean(kind, mean):
    shape = (20_000, 4) if kind is BatchNorm else (4, 20_000)
    x = (mean + normal(*shape)).astype(np.float32)
    layer, wide = kind(shape[1]), kind(shape[1], dtype=np.float64)
    np.testing.assert_allclose(layer(x), wide(x.astype(float)), rtol=1e-5, atol=1e-5)
    dy = normal(*shape, seed=1).astype(np.float32)
    np.testing.assert_allclose(layer.backward(dy), wide.backward(dy), rtol=1e-5, atol=1e-5)
    if kind is BatchNorm:
        for name, values in wide.state_dict().items():
            rtol = 2e-7 if name == "running_mean" else 1e-5
            np.testing.assert_allclose(layer.state_dict()[name], values, rtol=rtol, atol=1e-9)


@every_kind
@pytest.mark.parametrize("of_input", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_parameters_decide_the_dtype(kind, dtype, of_input):
    layer, x = kind(3, dtype=dtype), (9 * normal(4, 3)).astype(of_input)
    for training in (True, False):
        assert layer.train(training)(x).dtype == dtype
        assert layer.backward(np.ones((4, 3))).dtype == dtype


@every_kind
def test_equal_values_give_the_bias_and_finite_gradients(kind):
    layer, x = moved(kind(3)), np.full((4, 3), 0.1, np.float32)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(layer(x), np.broadcast_to(layer.bias.data, (4, 3)), atol=1e-4)
        assert np.isfinite(layer.backward(normal(4, 3))).all()


# the running statistics


def test_running_statistics_follow_the_batches_with_the_unbiased_variance():
    layer, batches = BatchNorm(2, momentum=0.25, dtype=np.float64), normal(3, 5, 2)
    np.testing.assert_array_equal(layer.running_mean.data, [0, 0])
    np.testing.assert_array_equal(layer.running_var.data, [1, 1])
    mean, var = [0.0, 0.0], [1.0, 1.0]
    for x in batches:
        layer(x)
        for i, values in enumerate(x.T.tolist()):
            mean[i] = 0.75 * mean[i] + 0.25 * statistics.fmean(values)
            var[i] = 0.75 * var[i] + 0.25 * statistics.variance(values)
        np.testing.assert_allclose(layer.running_mean.data, mean, rtol=1e-12)
        np.testing.assert_allclose(layer.running_var.data, var, rtol=1e-12)


def test_a_momentum_of_0_stays_and_one_of_1_forgets():
    x = normal(6, 2)
    stays, forgets = BatchNorm(2, momentum=0), BatchNorm(2, momentum=1, dtype=np.float64)
    stays(x)
    assert stays.running_mean.data.tolist() == [0, 0]
    assert stays.running_var.data.tolist() == [1, 1]
    forgets(x)
    np.testing.assert_allclose(forgets.running_mean.data, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(forgets.running_var.data, x.var(axis=0, ddof=1), rtol=1e-12)


def test_evaluation_takes_the_running_statistics_as_constants():
    layer, x, dy = moved(BatchNorm(3, dtype=np.float64)), normal(5, 3), normal(5, 3, seed=1)
    layer(2 + 3 * x)
    before = layer.eval().state_dict()
    std = np.sqrt(layer.running_var.data + layer.eps)
    n = (x - layer.running_mean.data) / std
    y = n * layer.weight.data + layer.bias.data
    np.testing.assert_allclose(layer(x), y, rtol=1e-12)
    np.testing.assert_allclose(layer.backward(dy), dy * layer.weight.data / std, rtol=1e-12)
    np.testing.assert_allclose(layer.weight.grad, (dy * n).sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(layer(x[0]), y[0], rtol=1e-12)
    for name, values in layer.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


def test_backward_follows_the_mode_of_its_forward_and_settings_may_change_between():
    layer, twin, x, dy = BatchNorm(3), BatchNorm(3), normal(5, 3), normal(5, 3, seed=1)
    for training in (True, False):
        for module in (layer, twin):
            module.train(training)(x)
        layer.train(not training)
        layer.eps, layer.momentum = 1.0, 0.5
        np.testing.assert_array_equal(layer.backward(dy), twin.backward(dy))
        layer.eps, layer.momentum = twin.eps, twin.momentum


@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1, 3)])
def test_one_value_of_a_feature_has_no_variance_to_train_on(shape):
    layer = BatchNorm(3)
    layer(normal(4, 3))
    before = layer.state_dict()
    text = f"BatchNorm: expected x with more than one value of a feature, in training, got {shape}"
    with refusal(ValueError, text) as caught:
        layer(np.ones(shape))
    assert "drop_last=True" in caught.value.__notes__[0]
    with refusal(ValueError, f"Sequential, layer 1: {text}"):
        Sequential(Linear(2, 3, rng=0), layer)(np.ones((*shape[:-1], 2)))
    for name, values in layer.state_dict().items():
        np.testing.assert_array_equal(values, before[name])
    assert layer.eval()(np.ones(shape)).shape == shape
    assert LayerNorm(3)(np.ones(shape)).shape == shape


# settings and refusals


@every_kind
def test_eps_is_checked_whenever_it_is_set(kind):
    layer = kind(3)
    for eps in (0, -1e-5, np.inf, np.nan):
        with refusal(ValueError, f"{kind.__name__}: expected eps in (0, inf), got {eps}"):
            layer.eps = eps
    with refusal(TypeError, f"{kind.__name__}: expected eps in (0, inf), got None"):
        kind(3, eps=None)
    assert layer.eps == 1e-5


def test_momentum_is_checked_whenever_it_is_set():
    layer = BatchNorm(3, momentum=0.5)
    for momentum in (-0.1, 1.5, np.nan):
        with refusal(ValueError, f"BatchNorm: expected momentum in [0, 1], got {momentum}"):
            layer.momentum = momentum
    with refusal(TypeError, "BatchNorm: expected momentum in [0, 1], got None"):
        BatchNorm(3, momentum=None)
    assert repr(layer) == "BatchNorm(features=3, eps=1e-05, momentum=0.5)"
    assert repr(BatchNorm(4)) == "BatchNorm(features=4, eps=1e-05, momentum=0.1)"
    assert repr(LayerNorm(2, eps=0.1)) == "LayerNorm(features=2, eps=0.1)"


@every_kind
def test_features_and_dtype_are_checked(kind):
    name = kind.__name__
    with refusal(ValueError, f"{name}: expected features to be an integer >= 1, got 0"):
        kind(0)
    with refusal(TypeError, f"{name}: expected features to be an integer >= 1, got 3.0"):
        kind(3.0)
    with refusal(TypeError, f"{name}: expected dtype float32 or float64, got float16"):
        kind(3, dtype=np.float16)


@every_kind
@pytest.mark.parametrize("shape", [(), (2,), (4, 1), (3, 4)])
def test_other_features_are_refused_and_never_broadcast(kind, shape):
    text = f"{kind.__name__}: expected x of shape (..., 3), got {shape}"
    with refusal(ValueError, text):
        kind(3)(np.ones(shape))


@every_kind
def test_a_parameter_may_be_replaced_by_one_of_its_shape_alone(kind):
    layer, other = kind(3), Parameter(np.full(3, 2.0))
    y = layer(normal(4, 3))
    layer.weight = other
    np.testing.assert_allclose(layer(normal(4, 3)), 2 * y, rtol=1e-5)
    for name in ("weight", "bias"):
        with refusal(ValueError, f"{kind.__name__}: expected {name} of shape (3,), got (1,)"):
            setattr(layer, name, Parameter(np.ones(1)))
    got = "got an array of shape (3,) and dtype float64"
    contract = "bias to be a Parameter (`bias.data = ...` sets its values)"
    with refusal(TypeError, f"{kind.__name__}: expected {contract}, {got}"):
        layer.bias = np.ones(3)


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_a_running_statistic_may_be_replaced_by_a_buffer_of_its_shape_alone(name):
    layer, x = BatchNorm(3), normal(4, 3)
    contract = f"{name} to be a Buffer (`{name}.data = ...` sets its values)"
    for value, got in ((np.ones(3), "an array of shape (3,) and dtype float64"), (None, "None")):
        with refusal(TypeError, f"BatchNorm: expected {contract}, got {got}"):
            setattr(layer, name, value)
    assert list(layer.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    for shape in ((), (1,), (4, 3)):
        with refusal(ValueError, f"BatchNorm: expected {name} of shape (3,), got {shape}"):
            setattr(layer, name, Buffer(np.ones(shape)))
    setattr(layer.eval(), name, Buffer(np.full(3, 4.0)))
    wanted = (x - 4) / np.sqrt(layer.running_var.data + layer.eps)
    if name == "running_var":
        wanted = (x - layer.running_mean.data) / np.sqrt(4 + layer.eps)
    np.testing.assert_allclose(layer(x), wanted, rtol=1e-5)
