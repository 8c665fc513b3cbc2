"""to_keras: models in Keras, and those that cannot be."""

import re

import numpy as np
import pytest
from cases import OwnLinear, Twice
from helpers import refusal
from hypothesis import given, settings
from keras_cases import EXPORTED, MARKS, SAMPLE, inputs, models, outputs, small

from tinygrad_mnist import (
    SGD,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    MSELoss,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    Tanh,
    Unflatten,
)
from tinygrad_mnist.interop.keras import (
    from_keras,
    keras,
    to_keras,
    to_keras_loss,
    to_keras_optimizer,
)
from tinygrad_mnist.testing.strategies import seeds

jax = pytest.importorskip("jax")
pytestmark = MARKS


@settings(max_examples=4)
@given(drawn=models(), seed=seeds())
def test_any_model_computes_the_same_in_keras_and_comes_back_bit_for_bit(drawn, seed):
    model, shape = drawn
    x = inputs(seed, 4, *shape)
    converted = to_keras(model, shape)
    y = model.eval()(x)
    np.testing.assert_allclose(outputs(converted, x), y, rtol=1e-6, atol=1e-6 * abs(y).max())
    back = from_keras(converted).eval()
    np.testing.assert_array_equal(back(x), y, strict=True)
    pairs = zip(back.state_dict().values(), model.state_dict().values(), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a, b, strict=True)


def test_a_tree_comes_back_as_it_was_written():
    model = Sequential(
        Residual(Residual(Tanh()), shortcut=Sequential(ReLU(), Linear(3, 3, rng=0))),
        Parallel(Parallel(Tanh(), Sequential(ReLU(), Tanh())), Sequential()),
        Parallel(ReLU(), Tanh(), Sequential(), join="add"),
        Residual(),
    )
    assert repr(from_keras(to_keras(model))) == repr(model)
    names = [layer.name for layer in to_keras(model).layers[1:]]
    first = ["0", "0.body.0", "0.body.0.body.0", "0.shortcut.0", "0.shortcut.1"]
    second = ["1", "1.0", "1.0.0", "1.0.1.0", "1.0.1.1"]
    assert sorted(names) == [*first, *second, "2", "2.0", "2.1", "3"]


def test_one_branch_joins_nothing_and_two_that_are_added_are_a_residual():
    (one,) = from_keras(to_keras(Parallel(Tanh(), join="add"), (3,)))
    assert repr(one) == "Tanh()"
    (two,) = from_keras(to_keras(Parallel(Sequential(), Tanh(), join="add"), (3,)))
    assert repr(two) == repr(Residual(Tanh()))


def test_a_layer_alone_is_a_chain_of_one():
    x, layer = inputs(0, 4, 6), Linear(6, 3, rng=0)
    converted = to_keras(layer)
    np.testing.assert_allclose(outputs(converted, x), layer(x), rtol=1e-6, atol=1e-6)
    assert converted.layers[0].name  # chosen by Keras, as it has no position


def test_names_are_positions_as_in_named_parameters():
    converted = to_keras(small())
    weights = [
        v.path.removeprefix(f"{converted.name}/") for v in converted.weights if v.path[-1] != "e"
    ]
    assert weights == ["0.0/kernel", "0.0/bias", "2/kernel", "2/bias"]
    assert [name for name, _ in small().named_parameters()] == [
        path.replace("/kernel", ".weight").replace("/bias", ".bias") for path in weights
    ]


def test_dropout_keeps_its_rate_and_what_is_left_is_scaled_alike():
    model = Sequential(Linear(6, 6), Dropout(0.25))
    model[0].weight.data = np.eye(6)
    y = outputs(to_keras(model), np.ones((500, 6)), training=True)
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    assert 0.2 < np.mean(y == 0) < 0.3


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.9, 1 / 3, 0.0, 1.0])
def test_a_momentum_comes_back_to_the_bit(momentum):
    assert from_keras(to_keras(BatchNorm(3, momentum=momentum)))[0].momentum == momentum


def test_a_layer_keeps_the_initializers_that_keras_gives_it():
    plain, converted = keras.layers.Dense(2), to_keras(Linear(3, 2, rng=0)).layers[0]
    assert type(converted.kernel_initializer) is type(plain.kernel_initializer)


def test_the_copies_are_independent():
    # JAX may share memory with aligned arrays: of so many, some are
    model = Sequential(*(Linear(4, 4, rng=i) for i in range(15)))
    before = model.state_dict().values()
    converted = to_keras(model)
    back = from_keras(converted)
    for parameter in [*model.parameters(), *back.parameters()]:
        parameter.data += 1
    for variable, values in zip(converted.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable.value), values, strict=True)
        variable.assign(np.zeros_like(values))
    for ours in (model, back):
        for parameter, values in zip(ours.parameters(), before, strict=True):
            np.testing.assert_array_equal(parameter.data, values + 1, strict=True)


def test_float64_models_stay_float64():
    model = small().astype(np.float64).eval()
    x = np.random.default_rng(0).standard_normal((4, 6))
    with jax.enable_x64(True):
        converted = to_keras(model)
        y = outputs(converted, x)
        back = from_keras(converted)
    np.testing.assert_allclose(y, model(x), rtol=1e-14, atol=1e-14, strict=True)
    for a, b in zip(back.parameters(), model.parameters(), strict=True):
        np.testing.assert_array_equal(a.data, b.data, strict=True)


@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
def test_an_exported_model_can_be_saved_and_loaded(tmp_path, reduction):
    converted = to_keras(small())
    optimizer = to_keras_optimizer(SGD(small().parameters(), 0.01, momentum=0.9))
    converted.compile(optimizer, to_keras_loss(MSELoss(reduction)))
    converted.train_on_batch(inputs(0, 4, 6), np.ones((4, 3)))
    converted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = inputs(1, 4, 6)
    np.testing.assert_array_equal(outputs(loaded, x), outputs(converted, x))
    assert [layer.name for layer in loaded.layers] == ["0.0", "0.1", "1", "2"]
    assert loaded.evaluate(x, np.ones((4, 3)), verbose=0) == pytest.approx(
        converted.evaluate(x, np.ones((4, 3)), verbose=0)
    )
    ours = (from_keras(theirs).parameters() for theirs in (loaded, converted))
    for a, b in zip(*ours, strict=True):
        np.testing.assert_array_equal(a.data, b.data, strict=True)


# What is refused


def test_a_float64_model_is_refused_where_jax_has_float32_alone():
    text = 'JAX with float64 (jax.config.update("jax_enable_x64", True)), got float32 alone'
    with refusal(ValueError, f"to_keras: expected {text}"):
        to_keras(small().astype(np.float64))


SAMPLE_SHAPE = (
    "to_keras: expected sample_shape, where no Linear says it, as in (28, 28, 1), got None"
)


class OwnSequential(Sequential):
    pass


def tied():
    model = Sequential(Linear(3, 3), Sequential(Linear(3, 3)))
    model[1][0].weight = model[0].weight
    return model


def mixed():
    return Sequential(Linear(2, 2), Linear(2, 2, dtype=np.float64))


def patched(method):
    model = Sequential(Linear(2, 2), Dropout())
    setattr(model[1], method, lambda x: x)
    return model


def patched_inside():
    inner = Sequential(Linear(2, 2))
    inner.forward = lambda x: x
    return Sequential(inner)


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        (OwnSequential(Linear(2, 2)), TypeError, f"{EXPORTED} OwnSequential at the top"),
        (None, TypeError, f"{EXPORTED} NoneType at the top"),
        (Sequential(Linear(2, 2), Twice()), TypeError, f"{EXPORTED} Twice at 1"),
        (
            Sequential(ReLU(), Sequential(OwnLinear(2, 2))),
            TypeError,
            f"{EXPORTED} OwnLinear at 1.0",
        ),
        (Sequential(OwnSequential(Linear(2, 2))), TypeError, f"{EXPORTED} OwnSequential at 0"),
        (patched("draw_mask"), TypeError, f"{EXPORTED} a custom Dropout at 1"),
        (patched("forward"), TypeError, f"{EXPORTED} a custom Dropout at 1"),
        (patched("backward"), TypeError, f"{EXPORTED} a custom Dropout at 1"),
        (patched_inside(), TypeError, f"{EXPORTED} a custom Sequential at 0"),
        (patched_inside()[0], TypeError, f"{EXPORTED} a custom Sequential at the top"),
        (tied(), TypeError, "to_keras: expected no shared Parameter, got one"),
        (Sequential(), ValueError, SAMPLE_SHAPE),
        (Sequential(ReLU()), ValueError, SAMPLE_SHAPE),
        (
            mixed(),
            ValueError,
            "to_keras: expected parameters of one dtype, got float32 and float64",
        ),
        (
            Sequential(Linear(2, 3), Sequential(ReLU(), Linear(4, 1))),
            ValueError,
            "to_keras: expected weights that fit layer '1.1', got Layer 1.1 weight shape (3, 1) ",
        ),
    ],
)
def test_models_that_keras_cannot_hold_are_refused(model, error, text):
    with pytest.raises(error, match=f"^{re.escape(text)}"):
        to_keras(model)


@pytest.mark.parametrize(
    ("model", "shape", "text"),
    [
        (Flatten(2), SAMPLE, "x that fits layer 'flatten\\w*', got .*expected ndim=3"),
        (Sequential(MaxPool2d(5)), SAMPLE, "x that fits layer '0', got "),
        (Sequential(Unflatten((2, 2))), (3, 4), "x that fits layer '0', got .*expected ndim=2"),
        (Residual(Linear(3, 1)), None, r"branches that fit at the top, got \(1,\) and \(3,\)"),
        (Sequential(Parallel(Flatten(), Tanh())), SAMPLE, "branches that fit at 0, got "),
        (Sequential(Conv2d(2, 3, 1)), None, "sample_shape, where no Linear says it, as in"),
        (Linear(3, 1), (0,), r"sample_shape\[0\] to be an integer >= 1, got 0"),
    ],
)
def test_models_that_do_not_fit_a_sample_are_refused(model, shape, text):
    with pytest.raises(ValueError, match=f"^to_keras: expected {text}"):
        to_keras(model, shape)
