"""Losses and optimizers in Keras: the same values, and the same weights after 50 steps."""

import re
from itertools import product

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_cases import KEEPING, MARKS, SAMPLE, assert_50_steps_leave_the_same, inputs, models

from tinygrad_mnist import (
    GELU,
    SGD,
    Adam,
    AdamW,
    BatchNorm,
    BCEWithLogitsLoss,
    Conv2d,
    CrossEntropyLoss,
    Flatten,
    HuberLoss,
    LayerNorm,
    Linear,
    MaxPool2d,
    MSELoss,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    SiLU,
)
from tinygrad_mnist.interop.keras import from_keras, to_keras, to_keras_loss, to_keras_optimizer
from tinygrad_mnist.optim import Groups
from tinygrad_mnist.testing.strategies import seeds

jax = pytest.importorskip("jax")
pytestmark = MARKS


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
    ("loss", "shape"),
    [
        (BCEWithLogitsLoss(), (2, 5, 4)),
        (HuberLoss(0.5), (2, 5, 4)),
        *product(map(MSELoss, ("mean", "sum", "batchmean")), [(2, 5, 4), (3,), (4, 1)]),
    ],
    ids=str,
)
def test_other_losses_have_the_same_value_and_gradient(loss, shape):
    y = 3 * inputs(1, *shape)
    t = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    converted = to_keras_loss(loss)
    assert float(converted(t, y)) == pytest.approx(loss(y, t), rel=1e-6)
    dy = jax.grad(lambda y: converted(t, y))(y)
    np.testing.assert_allclose(dy, loss.backward(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reduction", ["sum", "batchmean"])
def test_a_loss_broadcasts_nothing(reduction):
    text = "SquaredError: expected y_true of shape (4, 1), got (4,)"
    with pytest.raises(ValueError, match=re.escape(text)):
        to_keras_loss(MSELoss(reduction))(np.ones(4), np.ones((4, 1)))


class OwnLoss(MSELoss):
    pass


KINDS = "MSELoss, CrossEntropyLoss, BCEWithLogitsLoss and HuberLoss"


def test_other_losses_are_refused():
    with refusal(TypeError, f"to_keras_loss: expected {KINDS} alone, got OwnLoss"):
        to_keras_loss(OwnLoss())
    with refusal(TypeError, f"to_keras_loss: expected {KINDS} alone, got the class MSELoss"):
        to_keras_loss(MSELoss)
    with refusal(TypeError, "to_keras_loss: expected dtype float32 or float64, got float16"):
        to_keras_loss(MSELoss(), dtype=np.float16)


def test_a_sum_of_means_and_labels_of_another_shape_are_refused():
    text = 'to_keras_loss: expected reduction "mean" (Keras sums means over the last axis), got '
    with refusal(ValueError, f"{text}HuberLoss(reduction='sum', delta=0.5)"):
        to_keras_loss(HuberLoss(0.5, "sum"))
    with refusal(ValueError, f"{text}BCEWithLogitsLoss(reduction='sum')"):
        to_keras_loss(BCEWithLogitsLoss("sum"))
    text = "y_true of shape (2, 3), or labels of shape (2,), got (2, 1)"
    with refusal(ValueError, f"CrossEntropy: expected {text}"):
        to_keras_loss(CrossEntropyLoss())(np.zeros((2, 1)), np.zeros((2, 3)))


def test_float64_of_a_loss_needs_it_in_jax():
    with pytest.raises(ValueError, match="^to_keras_loss: expected JAX with float64 "):
        to_keras_loss(MSELoss("sum"), dtype="float64")


# Steps


def sgd(**options):
    return lambda params: SGD(params, 2**-9, **options)  # which a float32, as Keras has it, holds


def without_dropout():
    hidden = Sequential(Linear(6, 20, rng=0), ReLU(), Linear(20, 9, bias=False, rng=1), ReLU())
    return Sequential(hidden, Linear(9, 3, rng=2))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 1.0},
    ],
    ids=str,
)
def test_50_steps_leave_the_same_weights(options):
    loss = MSELoss("batchmean")
    assert_50_steps_leave_the_same(without_dropout(), (6,), loss, sgd(**options))


def test_50_steps_in_float64():
    model = without_dropout().astype(np.float64)
    with jax.enable_x64(True):
        make, loss = sgd(momentum=0.9, nesterov=True), MSELoss("batchmean")
        assert_50_steps_leave_the_same(model, (6,), loss, make, tolerance=1e-12)


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


# Optimizers that are refused


class OwnSGD(SGD):
    pass


def optimizer(kind=SGD, **options):
    return kind(Linear(2, 2).parameters(), 0.1, **options)


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
    text = "to_keras_optimizer: expected an Adam without weight_decay (Keras's is that of AdamW)"
    with refusal(ValueError, f"{text}, got weight_decay=0.1"):
        to_keras_optimizer(optimizer(Adam, weight_decay=0.1))
    text = "eps of at most 1e-8 (Keras adds it before it corrects the root of v), got"
    for eps in (1e-5, 2e-8):
        with refusal(ValueError, f"to_keras_optimizer: expected {text} {eps}"):
            to_keras_optimizer(optimizer(AdamW, eps=eps))
    text = "an optimizer before its first step (Keras's remembers nothing then), got one with"
    for stepped, slot in ((optimizer(momentum=0.9), "velocities"), (optimizer(Adam), "means")):
        stepped.step()
        with refusal(ValueError, f"to_keras_optimizer: expected {text} {slot}"):
            to_keras_optimizer(stepped)


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
