"""Keras, on JAX."""

import keras
import networks
import numpy as np

from peers import asking


def model_of(case):
    layers = keras.layers

    def linear(_, size):
        return layers.Dense(size, use_bias=case.bias)

    def conv(_, channels):
        return layers.Conv2D(channels, networks.KERNEL, use_bias=case.bias)

    make = {
        "linear": linear,
        "conv": conv,
        "relu": layers.ReLU,
        "dropout": lambda: layers.Dropout(0.5),
        "pool": layers.MaxPooling2D,
        "flatten": lambda *shape: layers.Flatten(),
    }
    x, _ = networks.data(case, np.float32)
    model = keras.Sequential([make[kind](*size) for kind, *size in case.layers])
    model.build((None, *x.shape[1:]))
    model.set_weights(list(networks.parameters(case)))
    return model


def compile_model(case, model):
    if case.cross_entropy:
        loss, rate = keras.losses.SparseCategoricalCrossentropy(from_logits=True), case.rate
    else:  # its mean is over all
        loss, rate = "mean_squared_error", case.rate * case.outputs
    if case.optimizer == "adam":
        # its eps is added before the root is corrected, and would weigh more than the others'
        optimizer = keras.optimizers.Adam(rate, epsilon=1e-9)
    else:
        optimizer = keras.optimizers.SGD(rate, case.momentum)
    model.compile(optimizer, loss)


def train(case):
    images, labels = networks.data(case, np.float32)
    model = model_of(case)
    compile_model(case, model)
    rows = case.rows

    def step(steps):
        error = 0.0
        for i in steps:
            batch = slice(i * rows, (i + 1) * rows)
            model.reset_metrics()  # else it returns the mean of all batches so far
            error += model.train_on_batch(images[batch], labels[batch])
        return error if case.cross_entropy else error * case.outputs

    return step


def ask(case):
    x, _ = networks.data(case, np.float32)
    return asking(model_of(case).predict_on_batch, x, case.rows)
