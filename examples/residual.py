"""Train a model that is not a chain: python examples/residual.py.

Two kernels look at the same image side by side (Parallel). Then each Residual adds what its layers
compute to what came in; where they change the number of channels, so does its shortcut.
"""

from functools import partial

import numpy as np

from tinygrad_mnist import Adam, CrossEntropyLoss, DataLoader, Sequential
from tinygrad_mnist.data import mnist
from tinygrad_mnist.nn import (
    BatchNorm,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Parallel,
    ReLU,
    Residual,
)
from tinygrad_mnist.training import fit

(images, labels), (test_images, test_labels) = mnist.load_data()
x_train = images[..., None] / np.float32(255)  # (N, 28, 28, 1), from 0 for paper to 1 for ink
x_test = test_images[..., None] / np.float32(255)

rng = np.random.default_rng(0)
conv = partial(Conv2d, padding="same", rng=rng)
model = Sequential(
    Parallel(conv(1, 4, 3, input_grad=False), conv(1, 4, 5, input_grad=False)),
    MaxPool2d(),
    Residual(BatchNorm(8), ReLU(), conv(8, 8, 3)),
    MaxPool2d(),
    Residual(BatchNorm(8), ReLU(), conv(8, 16, 3), shortcut=conv(8, 16, 1)),
    Flatten(),
    Linear(7 * 7 * 16, 10, rng=rng),
)
print(model)

history = fit(
    model,
    CrossEntropyLoss(),
    Adam(model.parameters(), lr=0.003),
    DataLoader(x_train, labels, 64, shuffle=True, rng=rng),
    epochs=3,
    validation=(x_test, test_labels),
)
print(f"test accuracy {history.records[-1]['val_accuracy']:.4f}")
