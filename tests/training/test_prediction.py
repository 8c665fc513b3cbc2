"""predict: what forward returns in evaluation mode, and nothing left behind."""

import pickle

import numpy as np
import pytest
from helpers import refusal

from tinygrad_mnist import BatchNorm, Conv2d, Dropout, Flatten, Linear, Module, ReLU, Sequential
from tinygrad_mnist.training import predict


def model_of_images():
    return Sequential(
        Conv2d(1, 3, 3, rng=0),
        BatchNorm(3),
        ReLU(),
        Flatten(),
        Dropout(rng=1),
        Linear(48, 2, rng=2),
    )


@pytest.mark.parametrize("batch_size", [1, 4, 7, 512])
def test_it_is_forward_in_evaluation_mode_in_batches(batch_size):
    model, x = model_of_images(), np.random.default_rng(0).random((7, 6, 6, 1))
    y = predict(model, x, batch_size)
    np.testing.assert_allclose(y, model.eval()(x), rtol=1e-5)
    assert y.dtype == np.float32


def test_the_model_stays_as_it_was():
    model = model_of_images()
    model[4].eval()
    x = np.random.default_rng(0).random((5, 6, 6, 1))
    y = model(x)
    before = pickle.dumps(model), [vars(module).keys() for module in model.modules()]
    again = model.backward(np.ones_like(y))
    model.zero_grad()
    predict(model, 2 * x)
    assert (pickle.dumps(model), [vars(module).keys() for module in model.modules()]) == before
    assert np.array_equal(model.backward(np.ones_like(y)), again)  # of the forward before
    with pytest.raises(ValueError, match="Conv2d"):
        predict(model, x[..., [0, 0]])
    assert [module.training for module in model.modules()] == [True] * 5 + [False, True]


def test_no_samples_give_none():
    assert predict(model_of_images(), np.zeros((0, 6, 6, 1))).shape == (0, 2)


def test_of_a_memmap_only_a_batch_is_read_at_once(tmp_path):
    class Seen(Module):
        sizes = ()

        def forward(self, x):
            Seen.sizes += (len(x),)
            return x.mean(axis=-1, keepdims=True)

        def backward(self, dy):
            return dy

    x = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(10, 4))
    x[:] = np.arange(10)[:, None]
    assert predict(Seen(), x, 4).tolist() == [[i] for i in range(10)]
    assert Seen.sizes == (4, 4, 2)


class Mean(Module):
    def forward(self, x):
        return x.mean(axis=0)

    def backward(self, dy):
        return dy


class Pair(Mean):
    def forward(self, x):
        return x, x


def test_what_is_no_batch_is_refused():
    with refusal(ValueError, "predict: expected samples x of 4 axes or more, got (6, 6, 1)"):
        predict(model_of_images(), np.zeros((6, 6, 1)))
    with refusal(ValueError, "predict: expected y of 5 rows, one a sample, got (3,)"):
        predict(Mean(), np.zeros((5, 3)))
    with refusal(TypeError, "predict: expected y of 2 rows, one a sample, got a tuple"):
        predict(Pair(), np.zeros((2, 3)))
    with refusal(ValueError, "predict: expected batch_size to be an integer >= 1, got 0"):
        predict(Mean(), np.zeros((5, 3)), 0)
    with refusal(TypeError, "predict: expected a Module, got the class ReLU"):
        predict(ReLU, np.zeros((5, 3)))
