"""from_keras: models of Keras here, and those that would lose something."""

import functools

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_cases import IMPORTED, MARKS, SAMPLE, inputs, of, outputs, sequential, small

from tinygrad_mnist.interop.keras import from_keras, keras, to_keras
from tinygrad_mnist.testing.strategies import seeds

pytestmark = MARKS


@settings(max_examples=6)  # Keras takes half a second to build a model
@given(seed=seeds(), bias=st.booleans(), activation=st.sampled_from(["relu", None]))
def test_a_keras_model_computes_the_same_here_and_goes_back(seed, bias, activation):
    layers = keras.layers
    start = keras.initializers.RandomNormal(seed=seed % 2**31)
    first = layers.Dense(5, activation, bias, bias_initializer=start, name="a")
    inner = keras.Sequential([layers.ReLU(), layers.Dropout(0.25), layers.Dense(2)], name="inner")
    theirs = sequential(layers.Flatten(), first, inner, shape=(2, 3))
    x = inputs(seed, 4, 2, 3)
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


def functional():
    """A model as people write them, with models and activations in it."""
    layers = keras.layers
    x = keras.Input(SAMPLE)
    y = layers.Conv2D(3, (3, 1), activation="gelu")(layers.ZeroPadding2D((1, 0))(x))
    inner = keras.Sequential(
        [layers.Conv2D(3, 3, padding="same", activation="leaky_relu"), layers.BatchNormalization()]
    )
    y = layers.Activation("relu")(layers.Add()([y, inner(y)]))
    y = layers.Flatten()(layers.AveragePooling2D(2)(y))
    end = keras.Input((12,))
    end = keras.Model(end, layers.Concatenate()([layers.Dense(2, "tanh")(end), end]))
    return keras.Model(x, layers.Dense(3, "softmax")(layers.Reshape((14,))(end(y))))


def test_a_functional_model_of_keras_comes_here_and_goes_back(tmp_path):
    model, x = functional(), inputs(0, 5, *SAMPLE)
    model.save(tmp_path / "model.keras")
    wanted = outputs(model, x)
    for theirs in (model, keras.saving.load_model(tmp_path / "model.keras")):
        ours = from_keras(theirs).eval()
        np.testing.assert_allclose(ours(x), wanted, rtol=1e-6, atol=1e-6)
    assert ours[0].padding == (1, 0)
    kinds = "Conv2d GELU Residual ReLU AvgPool2d Flatten Parallel Unflatten Linear Softmax"
    assert [type(layer).__name__ for layer in ours] == kinds.split()
    np.testing.assert_allclose(to_keras(ours, SAMPLE)(x), wanted, rtol=1e-6, atol=1e-6)


def test_dense_of_more_axes_stays_what_it_is():
    theirs = sequential(keras.layers.Dense(2), shape=(3, 4))
    x = np.random.default_rng(0).random((5, 3, 4), np.float32)
    np.testing.assert_allclose(from_keras(theirs)(x), outputs(theirs, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "kinds"), [((6,), ["Flatten"]), ((3, 2), ["Flatten", "Unflatten"])]
)
def test_a_reshape_of_more_axes_flattens_first(shape, kinds):
    theirs, x = sequential(keras.layers.Reshape(shape), shape=(2, 3)), inputs(0, 4, 2, 3)
    ours = from_keras(theirs)
    assert [type(layer).__name__ for layer in ours] == kinds
    np.testing.assert_array_equal(ours(x), outputs(theirs, x))


# Models that are refused


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


def crossing():
    x = keras.Input((3,))
    h = keras.layers.Dense(3)(x)
    left, right = keras.layers.ReLU()(h), keras.layers.LeakyReLU()(h)
    return keras.Model(x, keras.layers.Add()([left, right, x]))


def broadcast():
    x = keras.Input((3,))
    return keras.Model(x, keras.layers.Add(name="a")([x, keras.layers.Dense(1)(x)]))


def two_inputs():
    x, y = keras.Input((3,)), keras.Input((3,))
    return keras.Model([x, y], keras.layers.Add()([x, y]), name="a")


def always_training():
    x = keras.Input((3,))
    return keras.Model(x, keras.layers.Dropout(0.5, name="a")(x, training=True))


def of_two_shapes():
    flatten, x = keras.layers.Flatten(name="a"), keras.Input((3, 4))
    y = keras.layers.Reshape((3, 2, 2))(flatten(x))
    return keras.Model(x, flatten(y))


def multiplied():
    x = keras.Input((3,))
    return keras.Model(x, keras.layers.Multiply(name="a")([x, x]))


def the_same_model_twice():
    x, model = keras.Input((3,)), keras.Sequential([keras.layers.Dense(3, name="a")])
    return keras.Model(x, model(model(x)))


def of_two_dtypes():
    x, inner = keras.Input((3,)), keras.Input((3,), dtype="float64")
    return keras.Model(x, keras.Model(inner, keras.layers.ReLU()(inner), name="a")(x))


def of_an_operation():
    x = keras.Input((3,))
    y = x * 2
    return keras.Model(x, y)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (crossing, r"branches that leave one another in layer 'dense\w*'"),
        (broadcast, "inputs to broadcast in layer 'a'"),
        (two_inputs, "2 inputs, 1 outputs in layer 'a'"),
        (always_training, "a call with training=True in layer 'a'"),
        (of_two_shapes, "inputs of two shapes in layer 'a'"),
        (multiplied, "Multiply in layer 'a'"),
        (the_same_model_twice, "the same weights again in layer 'a'"),
        (of_two_dtypes, "inputs of dtype float64 in layer 'a'"),
        (of_an_operation, r"Multiply in layer '\w+'"),
    ],
)
def test_graphs_that_are_no_tree_of_layers_are_refused(make, found):
    with pytest.raises(TypeError, match=f"^from_keras: expected Sequential, .* got {found}$"):
        from_keras(make())


# Layers that are refused


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
    model = sequential(keras.layers.Dense(2, name="odd"))
    setattr(getattr(model.layers[0], of), name, make())
    with pytest.raises(TypeError, match=rf"got {name}=.* of its {of} in layer 'odd'$"):
        from_keras(model)


def test_an_activation_that_keras_cannot_write_down_is_named():
    odd = functools.partial(keras.activations.relu, negative_slope=0.1)
    dense = keras.layers.Dense(2, activation=odd, name="odd")
    with pytest.raises(TypeError, match="got activation=partial in layer 'odd'$"):
        from_keras(sequential(dense))
