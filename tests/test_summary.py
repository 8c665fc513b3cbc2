"""summary, and what a notebook shows of a model: counted by hand."""

import pickle
import re

import numpy as np
from helpers import refusal

from tinygrad_mnist import (
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    Parameter,
    ReLU,
    Residual,
    Sequential,
    summary,
)
from tinygrad_mnist._checks import has_own_method


def test_shapes_parameters_and_multiply_adds_of_a_nested_model():
    model = Sequential(
        Conv2d(1, 4, 3, padding=1),
        Residual(BatchNorm(4), ReLU(), Conv2d(4, 4, 1, bias=False)),
        MaxPool2d(),
        Flatten(),
        Dropout(0.2),
        Linear(64, 10),
    )
    assert str(summary(model, (8, 8, 1))) == (
        "Sequential of samples (8, 8, 1): 2,888 bytes of parameters and buffers\n"
        "layer                                        output  parameters  multiply-adds\n"
        "0 Conv2d(1, 4, 3, padding=1)              (8, 8, 4)          40          2,304\n"
        "1 Residual()                              (8, 8, 4)\n"
        "  1.body Sequential()                     (8, 8, 4)\n"
        "    1.body.0 BatchNorm(4)                 (8, 8, 4)           8              0\n"
        "    1.body.1 ReLU()                       (8, 8, 4)           0              0\n"
        "    1.body.2 Conv2d(4, 4, 1, bias=False)  (8, 8, 4)          16          1,024\n"
        "2 MaxPool2d(2, stride=2)                  (4, 4, 4)           0              0\n"
        "3 Flatten(3)                                  (64,)           0              0\n"
        "4 Dropout(0.2)                                (64,)           0              0\n"
        "5 Linear(64, 10)                              (10,)         650            640\n"
        "total                                         (10,)         714          3,968"
    )


class Twice(Module):
    """A custom layer that calls one layer twice, another not at all, and looks its input up."""

    def __init__(self):
        self.table, self.layers = Parameter(np.zeros((9, 3))), [Linear(3, 3), ReLU()]

    def forward(self, x):
        return self.layers[0](self.layers[0](self.table.data[x]))

    def backward(self, dy):
        return dy


def test_a_custom_layer_shows_what_it_calls():
    rows = [row[1:] for row in summary(Sequential(Twice()), (5,)).rows]
    assert rows == [
        ("(5, 3)", "27", "135"),  # the table of 9 x 3
        ("(5, 3)", "12", "90"),  # 3 x 3 weights at 5 places, twice
        ("", "0", "0"),
        ("(5, 3)", "39", "225"),
    ]


def test_a_shared_parameter_counts_once():
    model = Sequential(Linear(2, 2), Linear(2, 2))
    model[1].weight = model[0].weight
    assert [row[2:] for row in summary(model, (2,)).rows] == [("6", "4"), ("2", "0"), ("8", "4")]


def test_the_model_stays_as_it_was():
    model = Sequential(Linear(2, 2, rng=0), BatchNorm(2), Dropout(rng=0))
    x = np.ones((3, 2))
    y = model(x)
    before = pickle.dumps(model)
    summary(model, (2,))
    assert pickle.dumps(model) == before
    assert not any(has_own_method(module) for module in model.modules())
    assert model.backward(y).shape == x.shape  # of the forward before


def test_a_layer_that_does_not_fit_is_named():
    model = Sequential(Linear(3, 4), Sequential(ReLU(), Linear(5, 4)))
    text = "Sequential, layer 1.1: Linear: expected x of shape (..., 5), got (1, 4)"
    with refusal(ValueError, text):
        summary(model, (3,))
    with refusal(TypeError, "summary: expected sample_shape to be a tuple of integers, got 784"):
        summary(model, 784)
    with refusal(TypeError, "summary: expected a Module, got the class ReLU"):
        summary(ReLU, (3,))


def test_a_notebook_shows_the_layers_of_a_model():
    html = Sequential(Linear(3, 4), Residual(Conv2d(1, 2, 3, padding="same")))._repr_html_()
    assert "<caption>Sequential: 36 parameters</caption>" in html
    shown = re.findall(r"pre\">([^<]*)</td><td[^>]*>([^<]*)</td>", html)
    assert shown == [
        ("0 Linear(3, 4)", "16"),
        ("1 Residual()", ""),
        ("  1.body Sequential()", ""),
        ("    1.body.0 Conv2d(1, 2, 3, padding=&#x27;same&#x27;)", "20"),
    ]
    assert ">Linear(3, 4)</td>" in Linear(3, 4)._repr_html_()
