"""Every layer, loss and optimizer that Keras defines alike, against the real Keras."""

from importlib.util import find_spec

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist import (
    GELU,
    SGD,
    Adam,
    AdamW,
    AvgPool2d,
    BatchNorm,
    BCEWithLogitsLoss,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    HuberLoss,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    MSELoss,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    Unflatten,
)
from tinygrad_mnist.testing.strategies import seeds

if not (find_spec("keras") and find_spec("jax")):
    pytest.skip("needs the extra `keras`", allow_module_level=True)

import jax

from tinygrad_mnist.interop.keras import (
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

# of images (4, 4, 2), and of the same shape again: JAX compiles each operation once for a shape
KEEPING = {
    "same": lambda rng: Conv2d(2, 2, (2, 3), padding="same", rng=rng),
    "padded": lambda rng: Conv2d(2, 2, (3, 1), padding=(1, 0), bias=False, rng=rng),
    "linear": lambda rng: Linear(2, 2, rng=rng),
    "overlapping": lambda rng: Sequential(
        MaxPool2d(2, stride=1), Conv2d(2, 2, 2, padding=1, rng=rng)
    ),
    "means": lambda rng: Sequential(
        AvgPool2d((1, 2), stride=(1, 1)), Conv2d(2, 2, (1, 2), padding=(0, 1), rng=rng)
    ),
    "BatchNorm": lambda _: BatchNorm(2, eps=1e-3, momentum=0.3),
    "LayerNorm": lambda _: LayerNorm(2, eps=0.1),
    "Dropout": lambda rng: Dropout(0.25, rng=rng),
    "ReLU": lambda _: ReLU(),
    "LeakyReLU": lambda _: LeakyReLU(0.2),
    "Tanh": lambda _: Tanh(),
    "Sigmoid": lambda _: Sigmoid(),
    "GELU": lambda _: GELU(),
    "SiLU": lambda _: SiLU(),
    "Softmax": lambda _: Softmax(),
}
SAMPLE = (4, 4, 2)


@st.composite
def chains(draw, rng, kinds, depth=2):
    """Layers, with Residuals and Parallels of such chains among them."""
    branching = ["Residual", "shortcut", "add", "concat"] if depth else []
    layers = []
    for kind in draw(st.lists(st.sampled_from([*branching, *kinds]), max_size=3)):
        if kind not in branching:
            layers.append(KEEPING[kind](rng))
            continue
        first, second = (draw(chains(rng, kinds, depth - 1)) for _ in range(2))
        if kind == "Residual":
            layers.append(Residual(*first))
        elif kind == "shortcut":
            layers.append(Residual(*first, shortcut=Sequential(*second, Tanh())))
        elif kind == "add":
            layers.append(Parallel(Sequential(*first), Sequential(*second), Tanh(), join="add"))
        else:
            both = Parallel(Sequential(*first), Sequential(*second))
            layers.append(Sequential(both, Linear(4, 2, rng=rng)))
    return layers


@st.composite
def models(draw, kinds=tuple(KEEPING)):
    """A model of images, or of rows that it makes images of, with nothing at 0 or 1."""
    rng = np.random.default_rng(draw(seeds()))
    layers = draw(chains(rng, kinds))
    end = [Conv2d(2, 1, 2, stride=2, rng=rng), Flatten(), Linear(4, 3, rng=rng)]
    flat = draw(st.booleans())
    model = Sequential(*([Unflatten(SAMPLE)] if flat else []), Sequential(*layers), *end)
    for parameter in model.parameters():
        if parameter.data.ndim == 1:
            parameter.data = rng.uniform(0.5, 1.5, parameter.data.shape)
    for _, buffer in model.named_buffers():
        buffer.data = rng.uniform(0.5, 1.5, buffer.data.shape)
    return model, (32,) if flat else SAMPLE


def inputs(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=4)
@given(drawn=models(), seed=seeds())
def test_any_model_computes_the_same_in_keras_and_comes_back_bit_for_bit(drawn, seed):
    model, shape = drawn
    x = inputs(seed, 4, *shape)
    converted = to_keras(model, shape)
    y = model.eval()(x)
    np.testing.assert_allclose(np.asarray(converted(x)), y, rtol=1e-6, atol=1e-6 * abs(y).max())
    back = from_keras(converted).eval()
    np.testing.assert_array_equal(back(x), y, strict=True)
    pairs = zip(back.state_dict().values(), model.state_dict().values(), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a, b, strict=True)


LOSSES = [
    CrossEntropyLoss(),
    CrossEntropyLoss(label_smoothing=0.1, class_weight=[0.5, 1, 2]),
    BCEWithLogitsLoss(),
    HuberLoss(0.5),
    MSELoss(),
    MSELoss("batchmean"),
]
ADAMS = [
    lambda params: Adam(params, 2**-12),
    lambda params: AdamW(params, 2**-12, weight_decay=0.125),
]


def assert_50_steps_leave_the_same(model, shape, loss, make, seed=0, tolerance=1e-5):
    dtype = next(model.parameters()).data.dtype
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((50, 8, *shape)).astype(dtype)
    t = rng.uniform(size=(50, 8, 3)).astype(dtype)
    if isinstance(loss, CrossEntropyLoss):
        t = rng.integers(0, 3, (50, 8))
    optimizer = make(model.parameters())
    converted = to_keras(model, shape)
    converted.compile(to_keras_optimizer(optimizer), to_keras_loss(loss, dtype=dtype))
    for i in range(50):
        value = loss(model(x[i]), t[i])
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        assert converted.train_on_batch(x[i], t[i]) == pytest.approx(value, rel=1e-5)
    found = from_keras(converted).state_dict().values()
    for a, (name, b) in zip(found, model.state_dict().items(), strict=True):
        if not name.endswith("running_var"):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, strict=True)


TRAINED = [kind for kind in KEEPING if kind != "Dropout"]  # whose masks Keras draws itself


@settings(max_examples=2)
@given(
    drawn=models(TRAINED),
    loss=st.sampled_from(LOSSES),
    momentum=st.sampled_from([0.0, 0.5]),
    seed=seeds(),
)
def test_50_steps_of_any_model_leave_the_same_weights(drawn, loss, momentum, seed):
    def make(params):
        return SGD(params, 2**-6, momentum)

    assert_50_steps_leave_the_same(*drawn, loss, make, seed)


# Adam divides a gradient by its own size. Where that is 0 but for rounding, both frameworks make
# steps of noise: in float32 where a weight is at its best, in float64 only before what undoes it.
SMOOTH = [kind for kind in TRAINED if kind not in ("BatchNorm", "LayerNorm", "Softmax")]


@settings(max_examples=2)
@given(
    drawn=models(SMOOTH),
    loss=st.sampled_from(LOSSES),
    make=st.sampled_from(ADAMS),
    seed=seeds(),
)
def test_50_steps_of_adam_leave_the_same_weights_of_any_model(drawn, loss, make, seed):
    model, shape = drawn
    with jax.enable_x64(True):
        assert_50_steps_leave_the_same(model.astype(np.float64), shape, loss, make, seed)


def image_model():
    return Sequential(
        Conv2d(2, 4, 3, padding=1, bias=False, rng=0),
        BatchNorm(4, momentum=0.3),
        GELU(),
        Residual(Conv2d(4, 4, 3, padding="same", rng=1), SiLU()),
        MaxPool2d(),
        Flatten(),
        Parallel(Linear(16, 3, rng=2), Sequential(LayerNorm(16), Linear(16, 3, rng=3)), join="add"),
    )


def test_50_steps_of_adamw_in_float32_leave_the_same_weights():
    assert_50_steps_leave_the_same(image_model(), SAMPLE, LOSSES[1], ADAMS[1])


def test_the_running_variance_of_keras_is_that_of_n():
    """The only difference in training: the factor n / (n - 1) in what BatchNorm follows."""
    norm = BatchNorm(3, momentum=0.25)
    converted = to_keras(norm)
    x, wanted = inputs(0, 5, 8, 3), np.ones(3)
    for batch in x:
        converted(batch, training=True)
        norm(batch)
        wanted = 0.75 * wanted + 0.25 * batch.var(axis=0)
    back = from_keras(converted)[0]
    np.testing.assert_allclose(back.running_var.data, wanted, rtol=1e-5)
    np.testing.assert_allclose(back.running_mean.data, norm.running_mean.data, atol=1e-6)
    assert (back.momentum, back.eps) == (0.25, 1e-5)


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.9, 1 / 3, 0.0, 1.0])
def test_a_momentum_comes_back_to_the_bit(momentum):
    assert from_keras(to_keras(BatchNorm(3, momentum=momentum)))[0].momentum == momentum


# Losses


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 1, 2, 0]])
def test_cross_entropy_has_the_same_value_and_gradient(reduction, smoothing, weights):
    rng = np.random.default_rng(0)
    loss = CrossEntropyLoss(reduction, label_smoothing=smoothing, class_weight=weights)
    converted = to_keras_loss(loss)
    again = type(converted).from_config(converted.get_config())
    y = rng.standard_normal((2, 5, 4)).astype(np.float32)
    y[0, 0] = [1e4, -1e4, 0, 3]
    for t in (rng.integers(0, 4, (2, 5)), rng.dirichlet(np.ones(4), (2, 5)).astype(np.float32)):
        value = loss(y, t)
        assert float(converted(t, y)) == float(again(t, y)) == pytest.approx(value, rel=1e-6)
        dy = jax.grad(lambda y, t=t: converted(t, y))(y)
        np.testing.assert_allclose(dy, loss.backward(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        BCEWithLogitsLoss(),
        HuberLoss(0.5),
        *(MSELoss(reduction) for reduction in ("mean", "sum", "batchmean")),
    ],
    ids=repr,
)
def test_other_losses_have_the_same_value_and_gradient(loss):
    rng = np.random.default_rng(0)
    y, t = 3 * inputs(1, 2, 5, 4), rng.uniform(size=(2, 5, 4)).astype(np.float32)
    converted = to_keras_loss(loss)
    assert float(converted(t, y)) == pytest.approx(loss(y, t), rel=1e-6)
    dy = jax.grad(lambda y: converted(t, y))(y)
    np.testing.assert_allclose(dy, loss.backward(), rtol=1e-5, atol=1e-7)


def test_what_keras_does_not_define_alike_is_refused():
    text = 'to_keras_loss: expected reduction "mean" (Keras sums means over the last axis), got '
    with refusal(ValueError, f"{text}HuberLoss(reduction='sum', delta=0.5)"):
        to_keras_loss(HuberLoss(0.5, "sum"))
    with refusal(ValueError, f"{text}BCEWithLogitsLoss(reduction='sum')"):
        to_keras_loss(BCEWithLogitsLoss("sum"))
    text = "y_true of shape (2, 3), or labels of shape (2,), got (2, 1)"
    with refusal(ValueError, f"CrossEntropy: expected {text}"):
        to_keras_loss(CrossEntropyLoss())(np.zeros((2, 1)), np.zeros((2, 3)))
    params = list(Linear(2, 2).parameters())
    text = "to_keras_optimizer: expected an Adam without weight_decay (Keras's is that of AdamW)"
    with refusal(ValueError, f"{text}, got weight_decay=0.1"):
        to_keras_optimizer(Adam(params, weight_decay=0.1))
    text = "eps of at most 1e-8 (Keras adds it before it corrects the root of v), got"
    for eps in (1e-5, 2e-8):
        with refusal(ValueError, f"to_keras_optimizer: expected {text} {eps}"):
            to_keras_optimizer(AdamW(params, eps=eps))
    adam = Adam(params)
    adam.step()
    text = "an optimizer before its first step (Keras's remembers nothing then), got one with means"
    with refusal(ValueError, f"to_keras_optimizer: expected {text}"):
        to_keras_optimizer(adam)


# Graphs


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
    wanted = np.asarray(model(x))
    for theirs in (model, keras.saving.load_model(tmp_path / "model.keras")):
        ours = from_keras(theirs).eval()
        np.testing.assert_allclose(ours(x), wanted, rtol=1e-6, atol=1e-6)
    assert ours[0].padding == (1, 0)
    kinds = "Conv2d GELU Residual ReLU AvgPool2d Flatten Parallel Unflatten Linear Softmax"
    assert [type(layer).__name__ for layer in ours] == kinds.split()
    np.testing.assert_allclose(to_keras(ours, SAMPLE)(x), wanted, rtol=1e-6, atol=1e-6)


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


def twice_the_same():
    x, model = keras.Input((3,)), keras.Sequential([keras.layers.Dense(3, name="a")])
    return keras.Model(x, model(model(x)))


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
        (twice_the_same, "the same weights again in layer 'a'"),
        (of_an_operation, r"Multiply in layer '\w+'"),
    ],
)
def test_graphs_that_are_no_tree_of_layers_are_refused(make, found):
    with pytest.raises(TypeError, match=f"^from_keras: expected Sequential, .* got {found}$"):
        from_keras(make())


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


def test_a_layer_keeps_the_initializers_that_keras_gives_it():
    plain, converted = keras.layers.Dense(2), to_keras(Linear(3, 2, rng=0)).layers[0]
    assert type(converted.kernel_initializer) is type(plain.kernel_initializer)
