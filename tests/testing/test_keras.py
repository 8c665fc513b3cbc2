"""check_keras: layers and models of Keras, right and wrong, and what is left."""

import sys
from contextlib import nullcontext
from importlib.util import find_spec

import numpy as np
import pytest
from helpers import refusal
from layers import normal

from tinygrad_mnist.testing import GradientCheckError, ModuleContractError

if not (find_spec("keras") and find_spec("jax")):
    pytest.skip("needs the extra `keras`", allow_module_level=True)
import jax

from tinygrad_mnist.testing.keras import check_keras  # isort: skip  # it sets Keras to JAX
import keras

L = keras.layers
X, SEQUENCES = normal(5, 4), normal(2, 3, 4)


def network():
    layers = L.Dense(4, activation="tanh"), L.BatchNormalization(), L.Dropout(0.4), L.Dense(2)
    return keras.Sequential(layers, name="net")


def functional():
    x = keras.Input((4,))
    y = L.LayerNormalization()(L.Add()([L.Dense(3)(x), L.Dense(3, activation="gelu")(x)]))
    return keras.Model(x, y)


@jax.custom_vjp
def mean_for_a_sum(x, w):
    return x @ w


mean_for_a_sum.defvjp(
    lambda x, w: (x @ w, (x, w)), lambda xw, dy: (dy @ xw[1].T, xw[0].T @ dy / len(dy))
)


class Wrong(keras.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 3), name="w")

    def call(self, inputs):
        return mean_for_a_sum(inputs, self.w.value)


@pytest.mark.parametrize(
    ("make", "inputs", "training"),
    [
        (network, (X,), True),
        (network, (X,), False),
        (functional, (X,), False),
        (lambda: L.SimpleRNN(2), (SEQUENCES,), False),
        (lambda: L.Embedding(7, 2), (np.array([[1, 2], [3, 1]]),), False),
        (lambda: L.Dot(1), ([X, X + 1],), False),
    ],
)
def test_right_layers_pass(make, inputs, training):
    report = check_keras(make(), *inputs, training=training)
    assert report
    assert "float32" not in str(report)  # not even inside


def test_inputs_and_variables_are_named():
    dense = L.Dense(3, name="dense")
    assert [a.name for a in check_keras(dense, X).arrays] == [
        "inputs",
        "dense/kernel",
        "dense/bias",
    ]
    dense.trainable = False
    report = check_keras(dense, X)
    assert report.subject == "Dense"
    assert [a.name for a in report.arrays] == ["inputs"]


def test_a_wrong_gradient_is_named_by_its_variable_and_explained():
    with pytest.raises(GradientCheckError, match="1 over the batch size 5") as caught:
        check_keras(Wrong(name="wrong"), X)
    assert {m.name for m in caught.value.report.mismatches} == {"wrong/w"}


def test_a_broken_rule_is_named():
    with pytest.raises(ModuleContractError) as caught:
        check_keras(L.Discretization([0.0, 1.0]), X)
    assert caught.value.rule == "dtype"


@pytest.mark.parametrize("inputs", [(X,), (X, X, X)])  # the second fails
def test_the_layer_is_left_as_found(inputs):
    model = network()
    y = np.array(model(X))
    variables = [np.array(v.value) for v in model.variables]
    with nullcontext() if len(inputs) == 1 else pytest.raises(TypeError):
        check_keras(model, *inputs, training=True)
    for variable, before in zip(model.variables, variables, strict=True):
        assert variable.dtype == before.dtype.name
        np.testing.assert_array_equal(variable.value, before)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    np.testing.assert_array_equal(model(X), y)
    assert model(X).dtype == keras.ops.tanh(X).dtype == "float32"
    assert not jax.config.jax_enable_x64


def test_a_layer_without_variables_yet_is_built_and_nothing_more():
    layer = L.BatchNormalization()
    check_keras(layer, X, training=True)
    assert [v.path.split("/")[-1] for v in layer.variables] == [
        *("gamma", "beta", "moving_mean", "moving_variance")
    ]
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(4))


def test_a_keras_that_cannot_compute_in_float64_is_judged_in_float32(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras.src.backend.common.dtypes", None)
    report = check_keras(L.Dense(3, activation="tanh"), X)
    assert report
    assert "These outputs have the precision of float32." in report.hints
    with pytest.raises(GradientCheckError):
        check_keras(Wrong(), X)


def test_what_cannot_be_judged_is_refused():
    with refusal(TypeError, "check_keras: expected a keras.Layer, got a function"):
        check_keras(network, X)


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with refusal(ValueError, "check_keras: expected Keras on JAX, got torch"):
        check_keras(L.ReLU(), X)
