"""The twenty commonest mistakes: what each says, what helps, and that the page shows the same."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import refusal

import tinygrad_mnist
from tinygrad_mnist import (
    SGD,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    DataLoader,
    Linear,
    MSELoss,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    nn,
    training,
)
from tinygrad_mnist._checks.refusal import REMEDIES
from tinygrad_mnist.data import mnist
from tinygrad_mnist.metrics import accuracy
from tinygrad_mnist.training._arguments import check_logits

PAGE = (Path(__file__).parents[1] / "docs" / "pages" / "errors.md").read_text()

MISTAKES = """
fit(model, loss, optimizer, (x, t), epochs=3)
TypeError: fit: expected a DataLoader, or an iterable of pairs, got a tuple

fit(model, CrossEntropyLoss, optimizer, loader, epochs=3)
TypeError: fit: expected a loss to call, with a backward, got the class CrossEntropyLoss

fit(model, loss, SGD, loader, epochs=3)
TypeError: fit: expected an Optimizer, got the class SGD

fit(model, loss, optimizer, loader, epochs=3, metrics="accuracy")
TypeError: fit: expected metrics to be a list of names and functions, got 'accuracy'

SGD(model, lr=0.1)
TypeError: SGD: expected params to be Parameters, got a Linear

model = Sequential(Linear(784, 10)); fit(model, loss, optimizer, loader, epochs=3)
ValueError: fit: expected an optimizer of the model's parameters, got 2 of another model

Sequential([Linear(784, 10), ReLU()])
TypeError: Sequential: expected layer 0 to be a Module, got a list

Sequential(Linear(784, 10), "relu")
TypeError: Sequential: expected layer 1 to be a Module, got 'relu'

relu = ReLU(); Sequential(Linear(784, 50), relu, Linear(50, 10), relu)
ValueError: Sequential: expected each Module once, got the same ReLU in layers 1 and 3

Linear(784, 10)(images)
ValueError: Linear: expected x of shape (..., 784), got (4, 28, 28)

Conv2d(1, 8, kernel_size=3)(images)
ValueError: Conv2d: expected x of shape (..., H, W, 1), got (4, 28, 28)

for batch in loader: model(batch)
TypeError: Sequential: expected x to be an array of real numbers, got a tuple: ...

MSELoss()(model(x), t)
ValueError: MSELoss: expected target of shape (4, 10), got (4,)

MSELoss()(Linear(784, 1)(x), t)
ValueError: MSELoss: expected target of shape (4, 1), got (4,)

loss(model(x), t.astype(float))
TypeError: CrossEntropyLoss: expected labels to be integers, got dtype float64

loss(model(x), t + 1)
ValueError: CrossEntropyLoss: expected labels in [0, 10), got 10

loss(model(x), one_hot(t % 5, 5))
ValueError: CrossEntropyLoss: expected target of shape (4, 10), or labels of shape (4,), got (4, 5)

fit(Sequential(model, Softmax()), loss, optimizer, loader, epochs=3)
ValueError: fit: expected logits for CrossEntropyLoss, got a last layer Softmax()

model.backward(loss(model(x), t))
ValueError: Sequential: expected dy of shape (4, 10), got ()

fit(model, MSELoss(), SGD(model.parameters(), lr=1000), DataLoader(x, one_hot(t)), epochs=9)
FloatingPointError: fit: expected a finite loss, got inf in batch 2 of epoch 2
"""
ROWS = [row.splitlines() for row in MISTAKES.strip().split("\n\n")]


def names():
    """Return what a newcomer has at hand: data, a model, and what trains it."""
    rng = np.random.default_rng(0)
    x, t = rng.random((4, 784), dtype=np.float32), np.array([9, 0, 4, 1])
    model = Sequential(Linear(784, 10, rng=0))
    parts = {
        "x": x,
        "t": t,
        "images": x.reshape(-1, 28, 28),
        "model": model,
        "loss": CrossEntropyLoss(),
        "optimizer": SGD(model.parameters(), lr=0.1),
        "loader": DataLoader(x, t, batch_size=2),
        "one_hot": mnist.one_hot,
    }
    return {**vars(nn), **vars(tinygrad_mnist), **vars(training), **parts}


@pytest.mark.parametrize(("code", "told"), ROWS)
def test_a_common_mistake_says_what_is_wrong_and_what_helps(code, told):
    with (
        np.errstate(all="ignore"),
        pytest.raises((ValueError, TypeError, ArithmeticError)) as caught,
    ):
        exec(code, names())
    message, dots, _ = told.partition(" ...")
    found = f"{caught.typename}: {caught.value}"
    assert found.startswith(message) if dots else found == message
    remedy, *_ = caught.value.__notes__
    assert remedy in REMEDIES.values()
    assert f"| `{code}` | {told.replace(': ', ': `', 1)}` | {remedy} |\n" in PAGE


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("loss(t, model(x))", "Scores come first: `loss(model(x), t)`."),
        ("loss(model(x)[0], t[:1])", "A single sample has a single label: `t[0]`."),
        ("loss(model(x).argmax(axis=1), t)", "`model(x)`, not its `argmax`."),
        ("accuracy(t, model(x))", "Scores come first: `accuracy(model(x), t)`."),
        ("loss(Nothing()(x), t)", "A `forward` ends without `return`."),
        ("Sequential(Nothing())(x)", "A `forward` ends without `return`."),
        ("Sequential(Nothing(), *model)(x)", "A `forward` ends without `return`."),
        ("predict(model, x[0])", "one is `x[None]`."),
        ("summary(model, 784)", "`(784,)`"),
        ("checkpoint.save(model, 'run.npz')", "the path comes first"),
        ("checkpoint.save_model(model, 'run.npz')", "the path comes first"),
        ("Sequential(MaxPool2d(), Linear(8, 9))(images[..., None])", "a Flatten() in a model"),
        ("Conv2d(1, 8, 3)(x)", "flat ones `x.reshape(-1, 28, 28, 1)`"),
    ],
)
def test_a_mistake_has_the_remedy_that_fits_it(code, remedy):
    class Nothing(ReLU):
        def forward(self, x):
            pass

    with pytest.raises((ValueError, TypeError)) as caught:
        exec(code, {**names(), "accuracy": accuracy, "Nothing": Nothing})
    assert remedy in caught.value.__notes__[0]


def test_a_model_in_place_of_its_scores_is_called_a_model():
    text = "metrics.accuracy: expected pred to be an array of real numbers, got a Sequential"
    with refusal(TypeError, text):
        accuracy(Sequential(Linear(784, 10)), [1])


@pytest.mark.parametrize(
    ("layers", "loss", "kind"),
    [
        ((Linear(784, 1), Sequential(Sigmoid())), BCEWithLogitsLoss(), "Sigmoid"),
        ((Softmax(), Linear(784, 10)), CrossEntropyLoss(), None),
        ((Linear(784, 10), Sigmoid()), CrossEntropyLoss(), None),
        ((Linear(784, 10), Softmax()), MSELoss(), None),
        ((), BCEWithLogitsLoss(), None),
    ],
)
def test_a_loss_of_logits_refuses_the_layer_that_it_contains_and_no_other(layers, loss, kind):
    if kind is None:
        check_logits("fit", Sequential(*layers), loss)
        return
    text = f"fit: expected logits for {type(loss).__name__}, got a last layer {kind}()"
    with refusal(ValueError, text):
        check_logits("fit", Sequential(*layers), loss)


@pytest.mark.parametrize("name", re.findall(r"^\| no attribute ([^|]*) \|", PAGE, re.M))
def test_what_the_page_says_is_no_attribute_is_none(name):
    found = [1.0] if name.endswith("a float") else [Sequential(), CrossEntropyLoss()]
    names = re.findall(r"`(\w+)`", name)
    assert names
    assert not any(hasattr(value, name) for value in found for name in names)


def test_the_page_shows_them_in_this_order_and_no_others():
    shown = re.findall(r"^\| `([^`]*)` \| \w+Error: `", PAGE, re.M)
    assert shown == [code for code, _ in ROWS]
    assert len(shown) == 20
