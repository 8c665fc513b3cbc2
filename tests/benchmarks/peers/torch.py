"""PyTorch, eager."""

import networks
import numpy as np
import torch

from peers import asking


def model_of(case):
    def linear(*size):
        return torch.nn.Linear(*size, bias=case.bias)

    def conv(*channels):
        return torch.nn.Conv2d(*channels, networks.KERNEL, bias=case.bias)

    make = {
        "linear": linear,
        "conv": conv,
        "relu": torch.nn.ReLU,
        "dropout": torch.nn.Dropout,
        "pool": lambda: torch.nn.MaxPool2d(2),
        "flatten": lambda *shape: torch.nn.Flatten(),
    }
    model = torch.nn.Sequential(*(make[kind](*size) for kind, *size in case.layers))
    with torch.no_grad():
        for parameter, first in zip(model.parameters(), channels_first(case), strict=True):
            parameter.copy_(torch.from_numpy(first))
    return model


def channels_first(case):
    """Yield the first parameters in PyTorch's order of axes."""
    shape = next((shape for kind, *shape in case.layers if kind == "flatten"), None)
    for first in networks.parameters(case):
        if first.ndim == 4:
            yield first.transpose(3, 2, 0, 1)
        elif first.ndim == 2 and shape:
            yield first.reshape(*shape, -1).transpose(3, 2, 0, 1).reshape(first.T.shape)
        else:
            yield first.T


def inputs(case, memory_format):
    x, t = map(torch.from_numpy, networks.data(case, np.float32))
    return (x.movedim(-1, 1).contiguous(memory_format=memory_format) if x.ndim == 4 else x), t


def optimizer_of(case, model, fused):
    if case.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), case.rate, fused=fused)
    rate = case.rate if case.cross_entropy else case.rate * case.outputs  # its mean is over all
    return torch.optim.SGD(model.parameters(), rate, momentum=case.momentum)


def train(case, channels_last=False, fused=None):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    images, labels = inputs(case, memory_format)
    model = model_of(case).to(memory_format=memory_format)
    loss_function = torch.nn.CrossEntropyLoss() if case.cross_entropy else torch.nn.MSELoss()
    optimizer = optimizer_of(case, model, fused)
    rows = case.rows

    def step(steps):
        error = 0.0
        for i in steps:
            batch = slice(i * rows, (i + 1) * rows)
            loss = loss_function(model(images[batch]), labels[batch])
            error += loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return error if case.cross_entropy else error * case.outputs

    return step


def ask(case):
    model, (images, _) = model_of(case).eval(), inputs(case, torch.contiguous_format)
    answer = torch.inference_mode()(lambda x: model(x).numpy())
    return asking(answer, images, case.rows)
