"""What a model reads in a drawing, and that reading changes nothing."""

import copy
import json

import numpy as np
import pytest
from helpers import bits, refusal, refusal_starting

from tinygrad_mnist import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Softmax,
    Tanh,
)
from tinygrad_mnist.data import mnist
from tinygrad_mnist.page.reading import image_of, opened, reading
from tinygrad_mnist.training import checkpoint

IMAGE = np.random.default_rng(0).uniform(0, 1, (28, 28)).astype(np.float32)


def flat(**settings):
    layers = [Linear(784, 12, rng=1, input_grad=False), Tanh(), Dropout(0.5), Linear(12, 10, rng=2)]
    return Sequential(*layers)


def convolved():
    first = Conv2d(1, 3, 5, rng=1, input_grad=False)
    return Sequential(
        first, ReLU(), MaxPool2d(), Flatten(), Sequential(Linear(432, 10, rng=2), Softmax())
    )


def test_28_pixels_a_side_are_taken_as_they_are():
    pixels = list(range(256)) * 4
    wanted = np.array(pixels[:784]).reshape(28, 28) / 255
    np.testing.assert_allclose(image_of(pixels[:784]), wanted, rtol=1e-6)


@pytest.mark.parametrize("n", [29, 280])
def test_a_larger_drawing_gets_the_form_of_mnist(n):
    drawing = np.zeros((n, n), int)
    drawing[5:20, 7] = 200
    np.testing.assert_array_equal(
        image_of(drawing.ravel().tolist()), mnist.size_normalized(drawing)
    )
    assert not image_of([0] * (n * n)).any()


def test_pixels_that_make_no_square_image_are_refused():
    contract = "page: expected pixels to be a list of n * n, for n from 28 to 280, got"
    for pixels, got in (
        ([0] * 785, "785"),
        ([0] * 27**2, "729"),
        ([0] * 281**2, "78961"),
        ([], "a list"),
        ("0" * 784, "'00000"),
        (10**9, "1000000000"),
        ({}, "a dict"),
    ):
        with refusal_starting(ValueError, f"{contract} {got}"):
            image_of(pixels)
    for wrong in (-1, 256, 1.0, True, "1", None, [0], 10**30, float("nan")):
        with refusal(ValueError, "page: expected pixels to be integers from 0 to 255, got a list"):
            image_of([0] * 783 + [wrong])


def test_layers_have_their_paths_and_are_told_as_one_would_write_them():
    found = reading(convolved(), IMAGE)["layers"]
    assert [(layer["path"], layer["name"]) for layer in found] == [
        ("0", "Conv2d(1, 3, 5)"),
        ("1", "ReLU()"),
        ("2", "MaxPool2d(2, stride=2)"),
        ("3", "Flatten(3)"),
        ("4.0", "Linear(432, 10)"),
        ("4.1", "Softmax()"),
    ]


@pytest.mark.parametrize("model", [flat(), convolved(), Linear(784, 10, rng=0)])
def test_the_layers_are_those_that_the_model_runs(model):
    found = json.loads(json.dumps(reading(model, IMAGE), allow_nan=False))
    x = IMAGE.reshape(1, 784) if model.sample_axes == 1 else IMAGE[None, ..., None]
    chain = dict(Sequential(model.eval()).leaves())
    for layer, told in zip(chain.values(), found["layers"], strict=True):
        x = layer(x)
        assert told["shape"] == list(x.shape[1:])
        assert np.max(np.abs(told["values"])) == 100
        np.testing.assert_allclose(
            np.array(told["values"]) / 100, x.ravel() / abs(x).max(), atol=0.00501
        )
    scores = x if isinstance(layer, Softmax) else Softmax()(x)
    np.testing.assert_allclose(found["scores"], scores.ravel(), rtol=1e-6)
    assert found["prediction"] == np.argmax(scores)
    np.testing.assert_array_equal(found["image"], np.rint(255 * IMAGE).ravel())


def test_of_two_full_scores_the_larger_output_is_read_and_spoken_for():
    model = Linear(784, 10, rng=0)
    model.bias.data[3:5] = 50, 90
    found = reading(model, IMAGE, lambda y: np.clip(y, 0, 1))
    assert (found["prediction"], found["scores"][3:5]) == (4, [1, 1])
    x_times_slope = IMAGE.ravel() * model.weight.data[:, 4]
    wanted = 100 * x_times_slope / abs(x_times_slope).max()
    np.testing.assert_allclose(found["speaks"], wanted, atol=0.51)


@pytest.mark.parametrize("make", [flat, convolved])
def test_what_speaks_for_the_digit_is_x_times_its_slope(make):
    model = make().astype(np.float64).eval()
    digit = reading(model, IMAGE)["prediction"]
    shape = (-1, 784) if make is flat else (-1, 28, 28, 1)
    rows = IMAGE.ravel() + 1e-5 * np.concatenate([np.eye(784), -np.eye(784)])
    above, below = np.split(model(rows.reshape(shape))[:, digit], 2)
    wanted = IMAGE.ravel() * (above - below)
    found = np.array(reading(model, IMAGE)["speaks"])
    np.testing.assert_allclose(found, 100 * wanted / abs(wanted).max(), atol=0.51)


@pytest.mark.parametrize("make", [flat, convolved])
def test_reading_changes_nothing(make):
    """Not the modes, the parameters and their gradients; not what backward is to go on with."""
    model, shape = make(), (1, 784) if make is flat else (1, 28, 28, 1)
    y = model(np.ones(shape, np.float32))
    other, dy = copy.deepcopy(model), np.ones_like(y)
    model.backward(dy)
    before = [bits({n: p.grad for n, p in model.named_parameters()}), bits(model.state_dict())]
    reading(model, IMAGE)
    assert all(module.training for module in model.modules())
    assert not model.input_grad
    assert before[0] == bits({n: p.grad for n, p in model.named_parameters()})
    assert before[1] == bits(model.state_dict()) == bits(other.state_dict())
    model.backward(dy)  # adds the same again
    for (name, p), grad in zip(model.named_parameters(), before[0].values(), strict=True):
        np.testing.assert_allclose(
            p.grad, 2 * np.frombuffer(grad[2], grad[0]).reshape(grad[1]), rtol=1e-5, err_msg=name
        )


def test_a_blank_page_has_no_digit():
    found = reading(flat(), 0 * IMAGE)
    assert (found["prediction"], found["scores"]) == (None, [0] * 10)
    assert not np.any(found["speaks"])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_model_that_diverged_reads_nothing(value):
    model = Sequential(Linear(784, 10, rng=0), Linear(10, 10, rng=0))
    for p in model.parameters():
        p.data[...] = value
    found = json.loads(json.dumps(reading(model, IMAGE), allow_nan=False))
    assert found["prediction"] is None


def test_a_model_that_reads_no_digits_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    contract = (
        f"page: expected {path} to make ten scores of images (28, 28, 1), or of rows of 784 pixels"
    )
    for model, got in (
        (Linear(784, 26), "26 scores"),
        (Linear(28, 10), "Linear: expected x of shape (..., 28), got (1, 784)"),
        (Sequential(Conv2d(3, 8, 5), Flatten(), Linear(8, 10)), "Conv2d: expected x of shape"),
        (ReLU(), "784 scores"),
        (Sequential(), ""),
    ):
        checkpoint.save_model(path, model)
        with refusal_starting(ValueError, f"{contract}, got {got}"):
            opened(path)
    checkpoint.save_model(path, Sequential(Residual(Linear(784, 784)), Linear(784, 10)))
    assert [layer["path"] for layer in reading(opened(path), IMAGE)["layers"]] == ["0", "1"]
    path.write_text("hello")
    with refusal_starting(checkpoint.CheckpointError, f"load_model: expected {path} to be a whole"):
        opened(path)
