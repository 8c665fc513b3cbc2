"""This framework, as in examples/."""

import itertools

import networks
import numpy as np

import tinygrad_mnist as tg
from peers import asking


def model_of(case, dtype):
    def linear(*size):
        return tg.Linear(*size, bias=case.bias, dtype=dtype)

    def conv(*channels):
        return tg.Conv2d(*channels, networks.KERNEL, bias=case.bias, dtype=dtype)

    make = {
        "linear": linear,
        "conv": conv,
        "relu": tg.ReLU,
        "dropout": lambda: tg.Dropout(0.5, rng=1),
        "pool": tg.MaxPool2d,
        "flatten": lambda *shape: tg.Flatten(),
    }
    model = tg.Sequential(*(make[kind](*size) for kind, *size in case.layers))
    model[0].input_grad = False
    for parameter, first in zip(model.parameters(), networks.parameters(case), strict=True):
        parameter.data = first
    return model


def loss_of(case):
    return tg.CrossEntropyLoss() if case.cross_entropy else tg.MSELoss("batchmean")


def optimizer_of(case, model):
    if case.optimizer == "adam":
        return tg.Adam(model.parameters(), case.rate)
    return tg.SGD(model.parameters(), case.rate, momentum=case.momentum)


def train(case, dtype=np.float32):
    model, loss = model_of(case, dtype), loss_of(case)
    optimizer = optimizer_of(case, model)
    batches = tg.DataLoader(*networks.data(case, dtype), batch_size=case.batch)
    endless = itertools.chain.from_iterable(itertools.repeat(batches))

    def step(steps):
        error = 0.0
        for x, t in itertools.islice(endless, len(steps)):
            error += loss(model(x), t)
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
        return error

    return step


def compiled(case, dtype=np.float32):
    from tinygrad_mnist.compiled import compile_sgd

    model = model_of(case, dtype)
    train = compile_sgd(model, loss_of(case), optimizer_of(case, model))
    x, t = networks.data(case, dtype)

    def step(steps):
        images = slice(steps.start * case.rows, steps.stop * case.rows)
        error, _ = train(x[images], t[images], batch_size=case.rows)
        return error * len(steps)

    return step


def ask(case, dtype=np.float32):
    x, _ = networks.data(case, dtype)
    return asking(model_of(case, dtype).eval(), x, case.rows)
