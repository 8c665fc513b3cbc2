"""One pass over everything that matters, in a second or two: what runs before each commit."""

import numpy as np
from helpers import bits, refusal

from tinygrad_mnist import SGD, DataLoader, Dropout, Linear, MSELoss, ReLU, Sequential
from tinygrad_mnist.data import mnist
from tinygrad_mnist.metrics import accuracy
from tinygrad_mnist.testing import check_gradients
from tinygrad_mnist.training import checkpoint, fit


def test_a_net_learns_xor():
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    t = np.array([[0], [1], [1], [0]], np.float32)
    model = Sequential(Linear(2, 8, rng=0), ReLU(), Linear(8, 1, rng=1))
    loss, optimizer = MSELoss(), SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(300):
        value = loss(model(x), t)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    assert value < 1e-4
    np.testing.assert_array_equal(model(x) > 0.5, t > 0.5)


def test_gradients_are_right():
    model = Sequential(Linear(4, 6, rng=0), ReLU(), Dropout(0.3, rng=1), Linear(6, 2, rng=2))
    assert check_gradients(model, np.random.default_rng(3).standard_normal((5, 4)))


def test_digits_are_learned_saved_and_loaded(tmp_path):
    (images, labels), (test_images, test_labels) = mnist.load_data()
    loader = DataLoader(*mnist.preprocess(images[:5000], labels[:5000]), 20, shuffle=True, rng=0)
    model, other = (
        Sequential(Linear(784, 100, rng=seed, input_grad=False), ReLU(), Linear(100, 10, rng=seed))
        for seed in (1, 2)
    )
    loss, optimizer = MSELoss("batchmean"), SGD(model.parameters(), lr=0.01, momentum=0.9)
    fit(model, loss, optimizer, loader, epochs=2, progress=False)
    checkpoint.save(tmp_path / "model.npz", model)
    checkpoint.load(tmp_path / "model.npz", other)
    assert bits(other.state_dict()) == bits(model.state_dict())
    x, _ = mnist.preprocess(test_images, test_labels)
    assert accuracy(other.eval()(x), test_labels) > 0.85


def test_a_wrong_shape_is_refused_in_one_sentence():
    model = Sequential(ReLU(), Linear(9, 3))
    text = "Sequential, layer 1: Linear: expected x of shape (..., 9), got (2, 8)"
    with refusal(ValueError, text):
        model(np.ones((2, 8)))
