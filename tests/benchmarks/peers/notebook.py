"""The notebook's loop, on bare NumPy and in its own words.

Two things differ, neither of which costs time, to make it train what the others do: the slope of
ReLU is `> 0` where the notebook has `>= 0`, and a batch is one update.
"""

import networks
import numpy as np

relu = lambda x: (x > 0) * x  # noqa: E731
relu2deriv = lambda x: x > 0  # noqa: E731


def train(case):
    images, labels = networks.data(case, np.float64)
    weights_0_1, weights_1_2 = networks.parameters(case)
    random, alpha, batch_size = np.random.RandomState(1), case.lr, case.rows
    dropout = ("dropout",) in case.layers

    def step(steps):
        nonlocal weights_0_1, weights_1_2
        error = 0.0
        for i in steps:
            batch_start, batch_end = i * batch_size, (i + 1) * batch_size
            layer_0 = images[batch_start:batch_end]
            layer_1 = relu(np.dot(layer_0, weights_0_1))
            if dropout:
                dropout_mask = random.randint(2, size=layer_1.shape)
                layer_1 *= dropout_mask * 2
            layer_2 = np.dot(layer_1, weights_1_2)
            error += np.sum((layer_2 - labels[batch_start:batch_end]) ** 2)
            layer_2_delta = layer_2 - labels[batch_start:batch_end]
            if batch_size > 1:
                layer_2_delta = layer_2_delta / batch_size
            layer_1_delta = layer_2_delta.dot(weights_1_2.T) * relu2deriv(layer_1)
            if dropout:
                layer_1_delta *= dropout_mask
            weights_1_2 -= alpha * layer_1.T.dot(layer_2_delta)
            weights_0_1 -= alpha * layer_0.T.dot(layer_1_delta)
        return error / batch_size

    return step


def ask(case):
    images, _ = networks.data(case, np.float64)
    weights_0_1, weights_1_2 = networks.parameters(case)

    def step(steps):
        rows = range(steps.start * case.rows, steps.stop * case.rows)
        for i in rows:  # image by image, whatever the batch: so does the notebook
            layer_0 = images[i : i + 1]
            layer_1 = relu(np.dot(layer_0, weights_0_1))
            layer_2 = np.dot(layer_1, weights_1_2)
        return layer_2

    return step
