"""What makes training fast, pinned without a clock."""

import tracemalloc

import numpy as np
import pytest

from tinygrad_mnist import SGD, Dropout, Linear, MSELoss, ReLU, Sequential

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


def test_many_backwards_take_no_more_memory_than_the_weights():
    layer = Linear(100, 90, rng=0, input_grad=False)
    x, dy = np.ones((10, 100), np.float32), np.ones((10, 90), np.float32)
    for _ in range(50):
        layer(x)
        layer.backward(dy)
        factors = sum(a.size + b.size for a, b in layer.weight._products)
        assert factors <= layer.weight.data.size
    np.testing.assert_array_equal(layer.weight.grad, np.full((100, 90), 500))
