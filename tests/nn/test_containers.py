"""Sequential: the chain and what it refuses."""

import re

import numpy as np
import pytest

from tinygrad_mnist import Dropout, Linear, Module, ReLU, Sequential


def layers():
    return Linear(2, 3, rng=0), ReLU(), Linear(3, 4, rng=1)


def test_forward_and_backward_pass_through_the_layers_by_hand():
    a, b, c = layers()
    model = Sequential(a, b, c)
    x, dy = np.array([[1.0, -2.0]]), np.ones((1, 4))
    np.testing.assert_array_equal(model(x), c(b(a(x))))
    dx = model.backward(dy)
    grads = [p.grad.copy() for p in model.parameters()]
    model.zero_grad()
    np.testing.assert_array_equal(dx, a.backward(b.backward(c.backward(dy))))
    for p, g in zip(model.parameters(), grads, strict=True):
        np.testing.assert_array_equal(p.grad, g)


def test_it_is_a_sequence_of_its_layers():
    a, b, c = layers()
    model = Sequential(a, b, c)
    assert list(model) == [a, b, c]
    assert len(model) == 3
    assert model[0] is a
    assert model[-1] is c
    part = model[1:]
    assert isinstance(part, Sequential)
    assert list(part) == [b, c]
    assert len(Sequential()) == 0
    with pytest.raises(IndexError):
        model[3]


def test_names_are_positions_through_nesting():
    model = Sequential(Sequential(Linear(2, 3)), ReLU(), Linear(3, 1, bias=False))
    names = [name for name, _ in model.named_parameters()]
    assert names == ["0.0.weight", "0.0.bias", "2.weight"]


def test_the_empty_one_is_the_identity():
    x = np.array([1.0, 2.0])
    model = Sequential()
    np.testing.assert_array_equal(model(x), x)
    np.testing.assert_array_equal(model.backward(x), x)
    assert not np.shares_memory(model(x), x)


def test_a_shared_parameter_sums_its_gradients():
    a, b = Linear(2, 2, bias=False, rng=0), Linear(2, 2, bias=False, rng=0)
    tied = Sequential(Linear(2, 2, bias=False, rng=0), Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    assert len(list(tied.parameters())) == 1
    apart = Sequential(a, b)
    x = np.array([[1.0, 2.0]])
    for model in (tied, apart):
        model(x)
        model.backward(np.ones((1, 2)))
    np.testing.assert_allclose(tied[0].weight.grad, a.weight.grad + b.weight.grad, rtol=1e-6)


def test_a_layer_that_fails_leaves_the_later_ones_unread():
    model = Sequential(Linear(2, 3, rng=0), Sequential(Linear(3, 1, rng=1)), ReLU())
    model(np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"expected x of shape \(..., 2\), got \(1, 5\)"):
        model(np.ones((1, 5)))
    with pytest.raises(RuntimeError, match="^Sequential: expected a forward before backward"):
        model.backward(np.ones((1, 1)))
    assert all(not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: [[Linear(2, 2), ReLU()]], "layer 0 to be a Module, got a list"),
        (lambda: [Linear(2, 2), ReLU], "layer 1 to be a Module, got the class ReLU"),
        (lambda: [np.tanh], "layer 0 to be a Module, got a ufunc"),
        (lambda: [None], "layer 0 to be a Module, got None"),
    ],
)
def test_what_is_no_module_is_refused(made, text):
    with pytest.raises(TypeError, match=re.escape(f"Sequential: expected {text}") + "$"):
        Sequential(*made())


def test_the_same_module_twice_is_refused():
    relu, linear = ReLU(), Linear(2, 2)
    text = "^Sequential: expected each Module once, got the same "
    with pytest.raises(ValueError, match=text + "ReLU in layers 0 and 2$"):
        Sequential(relu, linear, relu)
    with pytest.raises(ValueError, match=text + "Linear in layers 0 and 1$"):
        Sequential(Sequential(linear), Sequential(Sequential(linear)))


def test_input_grad_false_is_refused_anywhere_but_first():
    def data_layer():
        return Linear(2, 2, input_grad=False)

    assert not Sequential(data_layer(), ReLU()).input_grad
    assert Sequential(ReLU()).input_grad
    assert Sequential().input_grad
    text = "Sequential: expected input_grad=False in no layer but the first, got it in layer 1"
    for late in (data_layer(), Sequential(data_layer(), ReLU())):
        with pytest.raises(ValueError, match="^" + re.escape(text)):
            Sequential(Dropout(), late)


class Signs(Module):
    """Passes gradients straight through; its y are integers."""

    def forward(self, x):
        return np.sign(x).astype(int)

    def backward(self, dy):
        return dy


def test_a_layer_that_answers_in_integers_does_not_round_gradients():
    model = Sequential(Linear(2, 2, bias=False, rng=0), Signs())
    assert model(np.ones((1, 2))).dtype.kind == "f"
    model.backward(np.full((1, 2), 0.5))
    np.testing.assert_array_equal(model[0].weight.grad, np.full((2, 2), 0.5))


def test_a_layer_that_answers_with_no_real_numbers_is_refused():
    class Roots(Signs):
        def forward(self, x):
            return np.sqrt(x.astype(complex))

    text = "Sequential: expected y to be an array of real numbers, got an array of dtype complex128"
    with pytest.raises(TypeError, match="^" + re.escape(text) + "$"):
        Sequential(Roots())(np.ones(2))


def test_a_first_layer_gets_an_array_whatever_the_caller_passed():
    class Flatten(Signs):
        def forward(self, x):
            return x.reshape(len(x), -1)

    assert Sequential(Flatten())([[[1, 2]], [[3, 4]]]).tolist() == [[1, 2], [3, 4]]
