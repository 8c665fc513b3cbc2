"""What makes training fast, pinned without a clock: what is allocated on the way."""

import numpy as np
import pytest
from helpers import traced_memory

from tinygrad_mnist import SGD, Dropout, Linear, Module, MSELoss, Parameter, ReLU, Sequential
from tinygrad_mnist.optim import Optimizer

SETTINGS = [
    {},
    {"weight_decay": 0.01},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.01},
    {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
]


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_step_allocates_nothing_of_the_weights_size(settings, rows):
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

    step()  # makes the velocities
    assert model[0].weight.grad.any()  # multiplied out, as somebody looks
    with traced_memory() as memory:
        for _ in range(3):
            step()
    assert memory.peak < model[0].weight.data.nbytes / 4


@pytest.mark.parametrize("hidden", [5, 40, 500])  # to BLAS: few, some and many multiply-adds
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_training_on_a_batch_of_one_gives_the_bits_of_training_on_a_sample(settings, hidden):
    rng = np.random.default_rng(hidden)
    images, targets = rng.random((6, 784), np.float32), rng.random((6, 10), np.float32)

    def trained(samples):
        model = Sequential(
            Linear(784, hidden, rng=0), ReLU(), Dropout(0.5, rng=1), Linear(hidden, 10, rng=2)
        )
        loss, optimizer = MSELoss("sum"), SGD(model.parameters(), lr=1e-4, **settings)
        outputs = []
        for x, t in samples:
            outputs.append(loss(model(x), t))
            optimizer.zero_grad()
            outputs.append(model.backward(loss.backward()).tobytes())
            optimizer.step()
        return outputs, [array.tobytes() for array in model.state_dict().values()]

    batches = zip(images[:, None], targets[:, None], strict=True)
    assert trained(zip(images, targets, strict=True)) == trained(batches)


def test_the_factors_of_a_gradient_are_kept_without_a_copy():
    p = Parameter(np.zeros((1000, 900), np.float32))
    for rows in (40, 700):
        a, b = np.ones((rows, 1000), np.float32), np.ones((rows, 900), np.float32)
        with traced_memory() as memory:
            p.accumulate_product(a, b)
        assert memory.peak < b.nbytes / 10
        np.testing.assert_array_equal(p.grad, np.full((1000, 900), rows))
        p.zero_grad()


def test_large_factors_of_a_small_gradient_are_not_kept():
    p = Parameter(np.zeros((25, 8), np.float32))
    with traced_memory() as memory:
        for _ in range(5):
            p.accumulate_product(np.ones((50_000, 25), np.float32), np.ones((50_000, 8), "f4"))
    assert memory.peak < 1.1 * 50_000 * 33 * 4
    np.testing.assert_array_equal(p.grad, np.full((25, 8), 250_000))


@pytest.mark.parametrize(
    "other",
    [np.asfortranarray, np.float64, lambda a: a.astype(">f4"), lambda a: a.tolist()],
    ids=["fortran", "float64", "big-endian", "list"],
)
def test_other_factors_are_converted_once_not_at_each_use(other):
    a, b = np.ones((40, 500), np.float32), np.ones((40, 400), np.float32)
    for factors in ((other(a), b), (a, other(b)), (other(a), other(b))):
        p, out = Parameter(np.zeros((500, 400), np.float32)), np.zeros((500, 400), np.float32)
        p.accumulate_product(*factors)
        with traced_memory() as memory:
            p.add_grad_to(out, 0.5)
        assert memory.peak < b.nbytes / 10
        np.testing.assert_array_equal(out, np.full((500, 400), 20))


def test_many_backwards_take_no_more_memory_than_the_weights():
    layer = Linear(500, 400, rng=0, input_grad=False)
    x, dy = np.ones((10, 500), np.float32), np.ones((10, 400), np.float32)
    with traced_memory() as memory:
        for _ in range(100):
            layer(x)
            layer.backward(dy)
    assert memory.peak < 2.2 * layer.weight.data.nbytes  # the gradient, and factors of its size
    np.testing.assert_array_equal(layer.weight.grad, np.full((500, 400), 1000))


def test_new_parameters_and_slots_start_with_a_cache_line():
    """Elsewhere more vectors lie on two lines, and a step of 784 x 40 takes 1 us more."""
    seen = []

    class Noting(Optimizer):
        slots = ("means",)

        def update(self, p, *slots):
            seen.extend(a for a in (p.data, *slots) if a.size)

    params = [Parameter(np.ones(shape, np.float32)) for shape in [(3, 5), (700, 9), (), (4, 0)]]
    Noting(params).step()
    for p in params:
        p.astype(np.float64)
    Noting(params).step()
    assert [a.ctypes.data % 64 for a in seen] == [0] * 12


def test_changing_data_or_grad_in_place_copies_nothing():
    p = Parameter(np.ones(100_000))
    p.grad = np.ones(100_000)
    with traced_memory() as memory:
        p.data -= 1
        p.grad += 1
    assert memory.peak < p.data.nbytes / 4


def test_a_chain_passes_on_what_its_layers_return():
    class Same(Module):
        def forward(self, x):
            return array

        def backward(self, dy):
            return array

    array = np.ones(3, np.float32)
    model = Sequential(Same(), Same())
    assert model(array) is array
    assert model.backward(array) is array
