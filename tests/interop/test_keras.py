"""Models, losses and optimizers against the real Keras."""

import functools
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from cases import OwnLinear, Twice
from helpers import refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist import (
    SGD,
    Buffer,
    Dropout,
    Linear,
    Module,
    MSELoss,
    Parameter,
    ReLU,
    Sequential,
)
from tinygrad_mnist.optim import Groups
from tinygrad_mnist.testing.strategies import seeds

if not (find_spec("keras") and find_spec("jax")):
    pytest.skip("needs the extra `keras`", allow_module_level=True)
import jax

from tinygrad_mnist.interop.keras import (
    PAIRS,
    Pair,
    from_keras,
    keras,
    to_keras,
    to_keras_loss,
    to_keras_optimizer,
)

pytestmark = [
    pytest.mark.slow,
    # Keras 3.15 reads its variables in a way that NumPy 2 is to give up
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

EXPORTED = (
    "to_keras: expected Sequential, Residual, Parallel, Linear, Conv2d, MaxPool2d, AvgPool2d, "
    "Flatten, Unflatten, ReLU, LeakyReLU, Tanh, Sigmoid, GELU, SiLU, Softmax, Dropout, BatchNorm "
    "and LayerNorm alone, got"
)
IMPORTED = (
    "from_keras: expected Sequential, Dense, Conv2D, ZeroPadding2D (before a Conv2D), "
    "MaxPooling2D, AveragePooling2D, Flatten, Reshape, ReLU, LeakyReLU, Activation, Softmax, "
    "Dropout, BatchNormalization, LayerNormalization, Add and Concatenate alone, got"
)


def rows(seed, n=4, features=6):
    return np.random.default_rng(seed).standard_normal((n, features)).astype(np.float32)


def outputs(keras_model, x, **mode):
    return np.asarray(keras_model(x, **mode))


def small():
    return Sequential(
        Sequential(Linear(6, 5, rng=0, input_grad=False), ReLU()),
        Dropout(0.25),
        Linear(5, 3, rng=1),
    )


def sequential(*layers, shape=(4,), **kwargs):
    return keras.Sequential([keras.Input(shape, **kwargs), *layers])


# Models


@settings(max_examples=6)  # Keras takes half a second to build a model
@given(seed=seeds(), bias=st.booleans(), activation=st.sampled_from(["relu", None]))
def test_a_keras_model_computes_the_same_here_and_goes_back(seed, bias, activation):
    layers = keras.layers
    start = keras.initializers.RandomNormal(seed=seed % 2**31)
    first = layers.Dense(5, activation, bias, bias_initializer=start, name="a")
    inner = keras.Sequential([layers.ReLU(), layers.Dropout(0.25), layers.Dense(2)], name="inner")
    theirs = sequential(layers.Flatten(), first, inner, shape=(2, 3))
    x = rows(seed).reshape(4, 2, 3)
    wanted = outputs(theirs, x)
    ours = from_keras(theirs)
    np.testing.assert_allclose(ours.eval()(x), wanted, rtol=1e-6, atol=1e-6)
    relu = ["ReLU"] if activation else []
    kinds = [type(layer).__name__ for layer in ours]
    assert kinds == ["Flatten", "Linear", *relu, "ReLU", "Dropout", "Linear"]
    again = to_keras(ours, (2, 3))
    assert [layer.name for layer in again.layers] == [str(i) for i in range(len(kinds))]
    weights = zip(again.weights, theirs.weights, strict=True)
    for a, b in ((a, b) for a, b in weights if "seed" not in a.path):
        np.testing.assert_array_equal(np.asarray(a.value), np.asarray(b.value), strict=True)
    np.testing.assert_allclose(outputs(again, x), wanted, rtol=1e-6, atol=1e-6)


def test_a_layer_alone_is_a_chain_of_one():
    x, layer = rows(0), Linear(6, 3, rng=0)
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


def test_dense_of_more_axes_stays_what_it_is():
    theirs = sequential(keras.layers.Dense(2), shape=(3, 4))
    x = np.random.default_rng(0).random((5, 3, 4), np.float32)
    np.testing.assert_allclose(from_keras(theirs)(x), outputs(theirs, x), rtol=1e-6, atol=1e-6)


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


def test_a_float64_model_is_refused_where_jax_has_float32_alone():
    text = 'JAX with float64 (jax.config.update("jax_enable_x64", True)), got float32 alone'
    with refusal(ValueError, f"to_keras: expected {text}"):
        to_keras(small().astype(np.float64))


@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
def test_an_exported_model_can_be_saved_and_loaded(tmp_path, reduction):
    converted = to_keras(small())
    optimizer = to_keras_optimizer(SGD(small().parameters(), 0.01, momentum=0.9))
    converted.compile(optimizer, to_keras_loss(MSELoss(reduction)))
    converted.train_on_batch(rows(0), np.ones((4, 3)))
    converted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rows(1)
    np.testing.assert_array_equal(outputs(loaded, x), outputs(converted, x))
    assert [layer.name for layer in loaded.layers] == ["0.0", "0.1", "1", "2"]
    assert loaded.evaluate(x, np.ones((4, 3)), verbose=0) == pytest.approx(
        converted.evaluate(x, np.ones((4, 3)), verbose=0)
    )
    ours = (from_keras(theirs).parameters() for theirs in (loaded, converted))
    for a, b in zip(*ours, strict=True):
        np.testing.assert_array_equal(a.data, b.data, strict=True)


# Training


OPTIMIZERS = [
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 1.0},
]


def assert_50_steps_leave_the_same(model, options, *, tolerance=1e-5):
    dtype, loss = next(model.parameters()).data.dtype, MSELoss("batchmean")
    x, t = np.split(np.random.default_rng(0).standard_normal((50, 8, 9)).astype(dtype), [6], -1)
    sgd = SGD(model.parameters(), 2**-9, **options)  # which a float32, as Keras has it, holds
    converted = to_keras(model)
    converted.compile(to_keras_optimizer(sgd), to_keras_loss(loss, dtype=dtype))
    for i in range(50):
        value = loss(model(x[i]), t[i])
        sgd.zero_grad()
        model.backward(loss.backward())
        sgd.step()
        assert converted.train_on_batch(x[i], t[i]) == pytest.approx(value, rel=1e-5)
    for a, b in zip(from_keras(converted).parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=tolerance, atol=tolerance, strict=True)


def without_dropout():
    hidden = Sequential(Linear(6, 20, rng=0), ReLU(), Linear(20, 9, bias=False, rng=1), ReLU())
    return Sequential(hidden, Linear(9, 3, rng=2))


@pytest.mark.parametrize("options", OPTIMIZERS, ids=str)
def test_50_steps_leave_the_same_weights(options):
    assert_50_steps_leave_the_same(without_dropout(), options)


def test_50_steps_in_float64():
    model = without_dropout().astype(np.float64)
    with jax.enable_x64(True):
        options = {"momentum": 0.9, "nesterov": True}
        assert_50_steps_leave_the_same(model, options, tolerance=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3), (3,), (4, 1)])
def test_losses_have_the_same_value(reduction, shape):
    rng = np.random.default_rng(0)
    y, t = rng.standard_normal((2, *shape)).astype(np.float32)
    found = float(to_keras_loss(MSELoss(reduction))(t, y))
    assert found == pytest.approx(MSELoss(reduction)(y, t), rel=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "batchmean"])
def test_a_loss_broadcasts_nothing(reduction):
    text = "SquaredError: expected y_true of shape (4, 1), got (4,)"
    with pytest.raises(ValueError, match=re.escape(text)):
        to_keras_loss(MSELoss(reduction))(np.ones(4), np.ones((4, 1)))


# A custom layer, given a row


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
    model, x = with_affine(), rows(0)
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
    assert_50_steps_leave_the_same(model, {"momentum": 0.9})
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


# What is refused on the way out


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


class OwnSGD(SGD):
    pass


class OwnLoss(MSELoss):
    pass


LOSSES = "MSELoss, CrossEntropyLoss, BCEWithLogitsLoss and HuberLoss"


def optimizer(kind=SGD, **options):
    return kind(Linear(2, 2).parameters(), 0.1, **options)


def test_other_losses_are_refused():
    with refusal(TypeError, f"to_keras_loss: expected {LOSSES} alone, got OwnLoss"):
        to_keras_loss(OwnLoss())
    with refusal(TypeError, f"to_keras_loss: expected {LOSSES} alone, got the class MSELoss"):
        to_keras_loss(MSELoss)
    with refusal(TypeError, "to_keras_loss: expected dtype float32 or float64, got float16"):
        to_keras_loss(MSELoss(), dtype=np.float16)


def test_optimizers_that_step_otherwise_in_keras_are_refused():
    with refusal(TypeError, "to_keras_optimizer: expected SGD, Adam and AdamW alone, got OwnSGD"):
        to_keras_optimizer(optimizer(OwnSGD))
    with refusal(TypeError, "to_keras_optimizer: expected SGD, Adam and AdamW alone, got Groups"):
        to_keras_optimizer(Groups(optimizer()))
    text = (
        "to_keras_optimizer: expected weight_decay or momentum, not both (Keras's decay passes "
        "the momentum by), got weight_decay=0.1 and momentum=0.9"
    )
    with refusal(ValueError, text):
        to_keras_optimizer(optimizer(momentum=0.9, weight_decay=0.1))
    sgd = optimizer(momentum=0.9)
    sgd.step()
    text = (
        "to_keras_optimizer: expected an optimizer before its first step (Keras's remembers "
        "nothing then), got one with velocities"
    )
    with refusal(ValueError, text):
        to_keras_optimizer(sgd)
    with refusal(ValueError, "SGD: expected momentum in [0, 1], got 2.0"):
        sgd.momentum = 2.0


def test_an_optimizer_without_momentum_may_have_made_steps():
    sgd = optimizer(momentum=0.9)
    sgd.step()
    sgd.lr, sgd.momentum, sgd.weight_decay = 0.25, 0, 0.1
    converted = to_keras_optimizer(sgd)
    assert (float(converted.learning_rate), converted.weight_decay) == (0.25, 0.1)


def test_integer_settings_are_taken_as_numbers():
    sgd = optimizer()
    sgd.momentum = 1  # Keras refuses an int
    assert to_keras_optimizer(sgd).momentum == 1.0


# What is refused on the way in


class OwnDense(keras.layers.Dense):
    pass


def twice(x):
    return 2 * x


def lora():
    dense = keras.layers.Dense(2, name="a")
    model = sequential(dense)
    dense.enable_lora(1)
    return model


def frozen():
    model = sequential(keras.layers.Dense(2), keras.layers.Dense(2, name="a"))
    model.layers[1].trainable = False
    return model


def twice_the_same():
    dense = keras.layers.Dense(4, name="a")
    return sequential(dense, keras.Sequential([dense]))


def of(kind, *args, **kwargs):
    return lambda: sequential(getattr(keras.layers, kind)(*args, name="a", **kwargs))


def images(kind, *args, **kwargs):
    layer = getattr(keras.layers, kind)
    return lambda: sequential(layer(*args, name="a", **kwargs), shape=(5, 5, 2))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (of("Activation", "elu"), "activation=elu"),
        (of("BatchNormalization", center=False), "center=False"),
        (of("BatchNormalization", axis=1), "axis=1"),
        (of("Softmax", axis=1), "axis=1"),
        (of("Reshape", (2, 2), trainable=False), "trainable=False"),
        (lambda: sequential(OwnDense(2, name="a")), "OwnDense"),
        (of("Dense", 2, "elu"), "activation=elu"),
        (of("Dense", 2, activation=twice), "activation=twice"),
        (of("Dense", 2, activation=keras.layers.ReLU()), "activation=ReLU"),
        (of("Dense", 2, kernel_regularizer="l2"), "kernel_regularizer=a dict"),
        (of("Dense", 2, bias_regularizer="l2"), "bias_regularizer=a dict"),
        (of("Dense", 2, activity_regularizer="l2"), "activity_regularizer=a dict"),
        (of("Dense", 2, kernel_constraint="non_neg"), "kernel_constraint=a dict"),
        (of("Dense", 2, bias_constraint="non_neg"), "bias_constraint=a dict"),
        (lora, "lora_rank=1"),
        (frozen, "trainable=False"),
        (of("Dense", 2, dtype="mixed_float16"), "dtype='mixed_float16'"),
        (of("Dense", 2, dtype="float16"), "dtype='float16'"),
        (of("Dense", 2, dtype="bfloat16"), "dtype='bfloat16'"),
        (of("ReLU", 6), "max_value=6"),
        (of("ReLU", negative_slope=0.1), "negative_slope=0.1"),
        (of("ReLU", threshold=1), "threshold=1"),
        (of("Dropout", 0.5, noise_shape=(None, 1)), "noise_shape=a tuple"),
        (of("Dropout", 0.5, seed=1), "seed=1"),
        (of("Dropout", 1), "Dropout: expected p in [0, 1), got 1"),
        (of("Flatten", data_format="channels_first"), "data_format='channels_first'"),
        (images("Conv2D", 2, 3, (2, 2), "same"), "padding='same' with strides (2, 2)"),
        (images("Conv2D", 2, 3, dilation_rate=2), "dilation_rate=(2, 2)"),
        (images("Conv2D", 2, 3, groups=2), "groups=2"),
        (images("MaxPooling2D", padding="same"), "padding='same'"),
        (images("ZeroPadding2D"), "ZeroPadding2D before no Conv2D without padding"),
        (images("ZeroPadding2D", ((1, 2), (1, 1))), "padding=((1, 2), (1, 1))"),
        (twice_the_same, "the same weights again"),
        (lambda: sequential(keras.Sequential([keras.layers.ELU(name="a")])), "ELU"),
        (
            lambda: keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(2)], trainable=False, name="a"
            ),
            "trainable=False",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_that_would_lose_something_are_refused_by_name(make, found):
    with refusal(TypeError, f"{IMPORTED} {found} in layer 'a'"):
        from_keras(make())


def test_flatten_is_told_from_one_that_permutes_whatever_the_default(monkeypatch):
    monkeypatch.setattr("keras.src.backend.config._IMAGE_DATA_FORMAT", "channels_first")
    with refusal(TypeError, f"{IMPORTED} data_format='channels_first' in layer 'a'"):
        from_keras(of("Flatten")())


class OwnModel(keras.Model):
    def call(self, x):
        return x


KINDS = "from_keras: expected a keras.Sequential or a functional model"


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (OwnModel, TypeError, f"{KINDS}, got an OwnModel"),
        (small, TypeError, f"{KINDS}, got a Sequential"),
        (
            lambda: keras.Sequential([keras.layers.Dense(2)], name="a"),
            ValueError,
            "from_keras: expected a built model, got 'a', not built",
        ),
        (
            lambda: keras.Sequential(name="a"),
            ValueError,
            "from_keras: expected a built model, got 'a', not built",
        ),
    ],
)
def test_models_that_are_no_built_sequential_are_refused(make, error, text):
    with refusal(error, text):
        from_keras(make())


@pytest.mark.parametrize("dtype", ["int32", "float16"])
def test_inputs_of_another_dtype_are_refused(dtype):
    model = sequential(keras.layers.Dense(2), dtype=dtype)
    text = f"inputs of dtype float32 or float64, got {dtype} in {model.name!r}"
    with refusal(TypeError, f"from_keras: expected {text}"):
        from_keras(model)


# The backend


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


@pytest.mark.parametrize("of", ["kernel", "bias"])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("trainable", lambda: False),
        ("regularizer", lambda: keras.regularizers.L2(1.0)),
        ("constraint", keras.constraints.NonNeg),
    ],
)
def test_a_setting_of_a_variable_would_be_lost(name, make, of):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="odd")])
    setattr(getattr(model.layers[0], of), name, make())
    with pytest.raises(TypeError, match=rf"got {name}=.* of its {of} in layer 'odd'$"):
        from_keras(model)


def test_an_activation_that_keras_cannot_write_down_is_named():
    odd = functools.partial(keras.activations.relu, negative_slope=0.1)
    dense = keras.layers.Dense(2, activation=odd, name="odd")
    with pytest.raises(TypeError, match="got activation=partial in layer 'odd'$"):
        from_keras(keras.Sequential([keras.Input((3,)), dense]))


def test_float64_of_a_loss_needs_it_in_jax():
    with pytest.raises(ValueError, match="^to_keras_loss: expected JAX with float64 "):
        to_keras_loss(MSELoss("sum"), dtype="float64")


def test_settings_that_mean_nothing_are_refused_before_they_get_to_keras():
    with refusal(ValueError, "Dropout: expected p in [0, 1), got 1.0"):
        Dropout(0.5).p = 1.0
    with pytest.raises(ValueError, match="^MSELoss: expected reduction .*, got 'none'$"):
        MSELoss().reduction = "none"
