"""What makes training fast, pinned without a clock."""

import tracemalloc

import numpy as np
import pytest

from tinygrad_mnist import SGD, Dropout, Linear, Module, MSELoss, Parameter, ReLU, Sequential

SETTINGS = [
    {},
    {"weight_decay": 0.01},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.01},
    {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
]


def trainer(settings, rows):
    rng = np.random.default_rng(0)
    model = Sequential(
        Linear(1000, 900, rng=rng, input_grad=False),
        ReLU(),
        Dropout(0.5, rng=rng),
        Linear(900, 10, rng=rng),
    )
    loss, optimizer = MSELoss(), SGD(model.parameters(), lr=0.01, **settings)
    x, t = rng.random((rows, 1000), np.float32), rng.random((rows, 10), np.float32)

    def step():
        loss(model(x), t)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()

    return model, step


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_step_allocates_nothing_of_the_weights_size(settings, rows):
    model, step = trainer(settings, rows)
    step()  # makes the velocities
    tracemalloc.start()
    for _ in range(3):
        step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < model[0].weight.data.nbytes / 4


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_step_multiplies_out_no_gradient(settings):
    model, step = trainer(settings, 20)
    step()
    assert model[0].weight._grad is None
    assert model[0].weight.grad.any()
    step()
    assert model[0].weight._grad is None


def test_the_factors_of_a_gradient_are_kept_without_a_copy():
    p = Parameter(np.zeros((3, 2), np.float32))
    a, b = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    p.accumulate_product(a, b)
    ((kept_a, kept_b),) = p._products
    assert kept_a is a
    assert kept_b is b


def test_changing_data_or_grad_in_place_copies_nothing():
    p = Parameter(np.ones(100_000))
    p.grad = np.ones(100_000)
    tracemalloc.start()
    p.data -= 1
    p.grad += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < p.data.nbytes / 4


def test_a_chain_hands_on_what_its_layers_return():
    class Same(Module):
        def forward(self, x):
            return array

        def backward(self, dy):
            return array

    array = np.ones(3, np.float32)
    model = Sequential(Same(), Same())
    assert model(array) is array
    assert model.backward(array) is array


@pytest.mark.parametrize(
    "other",
    [np.asfortranarray, np.float64, lambda a: a.astype(">f4"), lambda a: a.tolist()],
    ids=["fortran", "float64", "big-endian", "list"],
)
def test_other_factors_are_converted_once_not_at_each_use(other):
    a, b = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    for factors in ((other(a), b), (a, other(b)), (other(a), other(b))):
        p = Parameter(np.zeros((3, 2), np.float32))
        p.accumulate_product(*factors)
        for kept in p._products[0]:
            assert kept.dtype == np.float32
            assert kept.flags.c_contiguous


def test_many_backwards_take_no_more_memory_than_the_weights():
    layer = Linear(100, 90, rng=0, input_grad=False)
    x, dy = np.ones((10, 100), np.float32), np.ones((10, 90), np.float32)
    for _ in range(50):
        layer(x)
        layer.backward(dy)
        factors = sum(a.size + b.size for a, b in layer.weight._products)
        assert factors <= layer.weight.data.size
    np.testing.assert_array_equal(layer.weight.grad, np.full((100, 90), 500))
