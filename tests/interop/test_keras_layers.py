"""Keras itself, and its table of layers: a row for a layer of one's own."""

import os
import subprocess
import sys

import numpy as np
import pytest
from cases import Twice
from helpers import refusal
from keras_cases import (
    EXPORTED,
    IMPORTED,
    MARKS,
    assert_50_steps_leave_the_same,
    inputs,
    of,
    outputs,
    sequential,
)

from tinygrad_mnist import (
    SGD,
    Buffer,
    Linear,
    Module,
    MSELoss,
    Parameter,
    ReLU,
    Sequential,
)
from tinygrad_mnist.interop.keras import PAIRS, Pair, from_keras, keras, to_keras

pytestmark = MARKS


@pytest.mark.parametrize(
    ("chosen", "backend", "found"),
    [
        ({"KERAS_BACKEND": "nonsense"}, "nonsense", "Unable to import backend : nonsense"),
        ({}, "jax", "no device for this jax"),
    ],
)
def test_jax_is_the_backend_unless_chosen_and_one_that_cannot_be_used_is_named(
    tmp_path, chosen, backend, found
):
    (tmp_path / "jax.py").write_text("raise RuntimeError('no device for this jax')")
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    code = (
        "import os\ntry:\n    import tinygrad_mnist.interop.keras\n"
        "finally:\n    print(os.environ['KERAS_BACKEND'])  # which Keras has read\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(tmp_path)} | chosen,
        capture_output=True,
        text=True,
    )
    contract = "the extra `keras` (pip install 'tinygrad_mnist[keras]')"
    last = done.stderr.splitlines()[-1]
    assert last == f"ImportError: tinygrad_mnist.interop.keras: expected {contract}, got {found}"
    assert done.stdout == f"{backend}\n"


class Affine(Module):
    """y = gain * x + shift, for x (N, I); the shift is not trained."""

    def __init__(self, features):
        self.shift = Buffer(np.zeros(features, np.float32))
        self.gain = Parameter(np.ones(features, np.float32))

    def forward(self, x):
        self.x = x
        return self.gain.data * x + self.shift.data

    def backward(self, dy):
        self.gain.accumulate((dy * self.x).sum(axis=0))
        return dy * self.gain.data


class KerasAffine(keras.layers.Layer):
    def __init__(self, power=1, **options):
        super().__init__(**options)
        self.power = power

    def build(self, shape):
        self.shift = self.add_weight(shape[-1:], "zeros", trainable=False, name="shift")
        self.gain = self.add_weight(shape[-1:], "ones", name="gain")

    def call(self, x):
        return self.gain * x**self.power + self.shift

    def get_config(self):
        return {**super().get_config(), "power": self.power}


@pytest.fixture
def row():
    """Add a row for Affine; PAIRS is as it was afterwards, whatever the test adds or removes."""
    before = PAIRS[:]
    pair = Pair(
        Affine,
        KerasAffine,
        lambda _, **options: KerasAffine(**options),
        lambda theirs: [Affine(theirs.gain.shape[0])],
    )
    PAIRS.append(pair)
    yield pair
    PAIRS[:] = before


def with_affine():
    model = Sequential(Linear(6, 9, rng=0), Sequential(Affine(9), ReLU()), Linear(9, 3, rng=1))
    model[1][0].gain.data = np.linspace(-1, 2, 9)
    model[1][0].shift.data = np.linspace(2, -1, 9)
    return model


@pytest.mark.usefixtures("row")
def test_a_custom_layer_with_a_row_goes_to_keras_and_comes_back_bit_for_bit():
    model, x = with_affine(), inputs(0, 4, 6)
    converted = to_keras(model)
    np.testing.assert_allclose(outputs(converted, x), model(x), rtol=1e-6, atol=1e-6)
    back = from_keras(converted)
    assert [type(layer) for layer in back] == [Linear, Affine, ReLU, Linear]
    np.testing.assert_array_equal(back[1].gain.data, model[1][0].gain.data, strict=True)
    np.testing.assert_array_equal(back[1].shift.data, model[1][0].shift.data, strict=True)
    np.testing.assert_array_equal(back(x), model(x), strict=True)


@pytest.mark.usefixtures("row")
def test_50_steps_of_a_custom_layer_leave_the_same_weights():
    model = with_affine()
    assert_50_steps_leave_the_same(
        model, (6,), MSELoss("batchmean"), lambda params: SGD(params, 2**-9, 0.9)
    )
    np.testing.assert_array_equal(model[1][0].shift.data, np.float32(np.linspace(2, -1, 9)))


def test_the_sentences_name_the_layers_of_all_rows(row):
    text = EXPORTED.replace(" and LayerNorm", ", LayerNorm and Affine")
    with refusal(TypeError, f"{text} Twice at 1"):
        to_keras(Sequential(Linear(2, 2), Twice()))
    text = IMPORTED.replace(", Add and", ", KerasAffine, Add and")
    with refusal(TypeError, f"{text} ELU in layer 'a'"):
        from_keras(of("ELU")())
    converted = to_keras(with_affine())
    PAIRS.remove(row)
    with refusal(TypeError, f"{EXPORTED} Affine at 1.0"):
        to_keras(with_affine())
    with refusal(TypeError, f"{IMPORTED} KerasAffine in layer '1.0'"):
        from_keras(converted)


@pytest.mark.usefixtures("row")
def test_what_a_custom_layer_would_lose_is_refused():
    squared = sequential(KerasAffine(2, name="a"))
    with pytest.raises(TypeError, match=r"alone, got power=2 in layer 'a'$"):
        from_keras(squared)
    frozen = sequential(KerasAffine(name="a"))
    frozen.layers[0].gain.trainable = False
    with pytest.raises(TypeError, match=r"alone, got trainable=False of its gain in layer 'a'$"):
        from_keras(frozen)


def test_a_row_that_makes_another_layer_is_refused(row):
    PAIRS.append(row._replace(from_keras=lambda _: [Affine(5)]))
    PAIRS.append(Pair(ReLU, keras.layers.Dense, lambda _, **o: keras.layers.Dense(5, **o), None))
    with pytest.raises(ValueError, match="^from_keras: expected weights that fit layer 'a', got"):
        from_keras(sequential(KerasAffine(name="a")))
    with pytest.raises(ValueError, match="^to_keras: expected weights that fit layer '1', got You"):
        to_keras(Sequential(Linear(2, 5), ReLU()))
