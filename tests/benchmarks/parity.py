"""Every layer, loss and optimizer beside PyTorch's, in float64: the largest differences.

    python tests/benchmarks/parity.py --draws 30

Each draw has its own shapes and settings. "gradients" compares y (of a loss, its value) and every
gradient; "training" compares all parameters after 100 steps. A layer trains behind one that has
weights, towards random targets. Differences are relative to PyTorch's largest entry, or to 1.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

import tinygrad_mnist as ours
from tinygrad_mnist import nn
from tinygrad_mnist.optim import clip_grad_norm

STEPS = 100
torch.set_default_dtype(torch.float64)
F = torch.nn.functional
FIRST, LAST = (0, 3, 1, 2), (0, 2, 3, 1)  # NHWC to NCHW, and back
AXES = {2: (1, 0), 4: (3, 2, 0, 1)}  # of a Linear's W and of a Conv2d's, ours to PyTorch's


class Twins(NamedTuple):
    """The same model here and in PyTorch, an input, and the parameters in pairs."""

    ours: ours.Module
    theirs: Callable[[torch.Tensor], torch.Tensor]
    x: np.ndarray
    pairs: list[tuple[ours.Parameter, torch.Tensor]]
    buffers: Sequence[tuple[ours.Buffer, torch.Tensor]] = ()


def largest_difference(found, wanted):
    """Return the largest difference, relative to the largest entry wanted, or to 1."""
    wanted = wanted.detach().numpy() if isinstance(wanted, torch.Tensor) else np.asarray(wanted)
    assert np.shape(found) == wanted.shape
    return np.abs(found - wanted).max(initial=0) / max(1, np.abs(wanted).max(initial=0))


def paired(module, twin):
    """Give our module's parameters to its twin, and return them in pairs."""
    pairs = []
    for p, (name, tensor) in zip(module.parameters(), twin.named_parameters(), strict=True):
        p.data += 0.1 * np.random.default_rng(len(name)).standard_normal(p.data.shape)
        tensor.data = torch.tensor(p.data.transpose(AXES.get(p.data.ndim, (0,))).copy())
        pairs.append((p, tensor))
    return pairs


def turned(p, tensor):
    """Return PyTorch's tensor with the axes of our Parameter."""
    array = tensor.detach().numpy()
    return array.transpose(np.argsort(AXES.get(p.data.ndim, (0,))))


def channels_first(layer):
    """Return a layer of PyTorch's as one of images (N, H, W, C)."""
    return lambda x: layer(x.permute(FIRST)).permute(LAST)


# --- layers: each maker draws shapes and settings, and returns twins


def between(rng, low, high):
    return int(rng.integers(low, high + 1))


def rows(rng):
    return rng.standard_normal((between(rng, 2, 9), between(rng, 1, 7)))


def images(rng):
    sides = between(rng, 2, 5), between(rng, 6, 11), between(rng, 6, 11), between(rng, 1, 4)
    return rng.standard_normal(sides)


def without_parameters(layer, function, draw=rows):
    def make(rng):
        setting = rng.uniform(0.01, 0.5)
        return Twins(layer(setting), lambda x: function(x, setting), draw(rng), [])

    return make


def linear(rng):
    x, out, bias = rows(rng), between(rng, 1, 6), bool(rng.integers(2))
    layer = ours.Linear(x.shape[-1], out, bias, rng=rng, dtype=np.float64)
    twin = torch.nn.Linear(x.shape[-1], out, bias)
    return Twins(layer, twin, x, paired(layer, twin))


def conv(rng):
    x, out, bias = images(rng), between(rng, 1, 5), bool(rng.integers(2))
    kernel = between(rng, 1, 4), between(rng, 1, 4)
    if rng.integers(3) == 0:
        options: dict[str, Any] = {"padding": "same"}
    else:
        pair = (between(rng, 1, 3), between(rng, 1, 3))
        options = {"stride": pair, "padding": (between(rng, 0, 2), between(rng, 0, 2))}
    channels = x.shape[-1]
    layer = nn.Conv2d(channels, out, kernel, bias=bias, rng=rng, dtype=np.float64, **options)
    twin = torch.nn.Conv2d(channels, out, kernel, bias=bias, **options)
    return Twins(layer, channels_first(twin), x, paired(layer, twin))


def pool(layer, twin):
    def make(rng):
        kernel = between(rng, 1, 3), between(rng, 1, 3)
        stride = None if rng.integers(2) else (between(rng, 1, 3), between(rng, 1, 3))
        theirs = channels_first(lambda x: twin(x, kernel, stride))
        return Twins(layer(kernel, stride=stride), theirs, images(rng), [])

    return make


def flatten(rng):
    return Twins(nn.Flatten(), lambda x: x.flatten(1), images(rng), [])


def unflatten(rng):
    x = images(rng)
    shape = x.shape[1:]
    return Twins(nn.Unflatten(shape), lambda y: y.reshape(-1, *shape), x.reshape(len(x), -1), [])


def batch_norm(training):
    def make(rng):
        x, eps, momentum = rows(rng), rng.uniform(1e-6, 1e-2), rng.uniform(0.01, 1)
        layer = nn.BatchNorm(x.shape[-1], eps=eps, momentum=momentum, dtype=np.float64)
        twin = torch.nn.BatchNorm1d(x.shape[-1], eps=eps, momentum=momentum)
        layer.running_mean.data += 0.3
        layer.running_var.data *= 1.7
        twin.running_mean += 0.3
        twin.running_var *= 1.7
        running = [(layer.running_mean, twin.running_mean), (layer.running_var, twin.running_var)]
        return Twins(layer.train(training), twin.train(training), x, paired(layer, twin), running)

    return make


def layer_norm(rng):
    x, eps = rows(rng), rng.uniform(1e-6, 1e-2)
    layer = nn.LayerNorm(x.shape[-1], eps=eps, dtype=np.float64)
    twin = torch.nn.LayerNorm(x.shape[-1], eps=eps)
    return Twins(layer, twin, x, paired(layer, twin))


def residual(rng):
    x, twins = rows(rng), []
    width, shortcut = x.shape[-1], bool(rng.integers(2))
    out = between(rng, 1, 6) if shortcut else width
    body = ours.Linear(width, out, rng=rng, dtype=np.float64)
    skip = ours.Linear(width, out, rng=rng, dtype=np.float64) if shortcut else None
    twins = [torch.nn.Linear(width, out) for _ in range(2)]
    pairs = paired(body, twins[0]) + (paired(skip, twins[1]) if skip else [])
    theirs = lambda x: twins[0](x).tanh() + (twins[1](x) if shortcut else x)  # noqa: E731
    return Twins(nn.Residual(body, nn.Tanh(), shortcut=skip), theirs, x, pairs)


def parallel(join):
    def make(rng):
        x, width = rows(rng), between(rng, 1, 6)
        widths = [width, width if join == "add" else between(rng, 1, 6)]
        branches = [ours.Linear(x.shape[-1], n, rng=rng, dtype=np.float64) for n in widths]
        twins = [torch.nn.Linear(x.shape[-1], n) for n in widths]
        pairs = [pair for two in zip(branches, twins, strict=True) for pair in paired(*two)]
        joined = sum if join == "add" else lambda ys: torch.cat(ys, -1)
        theirs = lambda x: joined([twin(x) for twin in twins])  # noqa: E731
        return Twins(nn.Parallel(*branches, join=join), theirs, x, pairs)

    return make


LAYERS = {
    "Linear": linear,
    "ReLU": without_parameters(lambda _: ours.ReLU(), lambda x, _: F.relu(x)),
    "LeakyReLU": without_parameters(nn.LeakyReLU, F.leaky_relu),
    "Tanh": without_parameters(lambda _: nn.Tanh(), lambda x, _: x.tanh()),
    "Sigmoid": without_parameters(lambda _: nn.Sigmoid(), lambda x, _: x.sigmoid()),
    "GELU": without_parameters(lambda _: nn.GELU(), lambda x, _: F.gelu(x)),
    "SiLU": without_parameters(lambda _: nn.SiLU(), lambda x, _: F.silu(x)),
    "Softmax": without_parameters(lambda _: nn.Softmax(), lambda x, _: x.softmax(-1)),
    "Conv2d": conv,
    "MaxPool2d": pool(nn.MaxPool2d, F.max_pool2d),
    "AvgPool2d": pool(nn.AvgPool2d, F.avg_pool2d),
    "Flatten": flatten,
    "Unflatten": unflatten,
    "BatchNorm": batch_norm(training=True),
    "BatchNorm, evaluation": batch_norm(training=False),
    "LayerNorm": layer_norm,
    "Residual": residual,
    "Parallel, concat": parallel("concat"),
    "Parallel, add": parallel("add"),
}


def gradients(twins, rng):
    """Return the largest difference of y, dx, each dL/dp and each running statistic."""
    x = torch.tensor(twins.x, requires_grad=True)
    y, wanted = twins.ours(twins.x), twins.theirs(x)
    dy = rng.standard_normal(y.shape)
    wanted.backward(torch.tensor(dy))
    found = [largest_difference(y, wanted), largest_difference(twins.ours.backward(dy), x.grad)]
    found += [largest_difference(p.grad, turned(p, tensor.grad)) for p, tensor in twins.pairs]
    return max(found + [largest_difference(b.data, tensor) for b, tensor in twins.buffers])


def in_front(twins, rng):
    """Return twins that begin with a layer of weights."""
    width = twins.x.shape[-1]
    first = ours.Linear(width, width, rng=rng, dtype=np.float64)
    twin = torch.nn.Linear(width, width)
    pairs = paired(first, twin)
    model, theirs = ours.Sequential(first, twins.ours), lambda x: twins.theirs(twin(x))
    return twins._replace(ours=model, theirs=theirs, pairs=pairs + twins.pairs)


def train_layer(twins, rng):
    """Return the largest difference after training towards random targets."""
    twins = in_front(twins, rng)
    # both forwards, as each of them moves running statistics
    y, _ = twins.ours(twins.x), twins.theirs(torch.tensor(twins.x))
    target = rng.standard_normal(y.shape)
    optimizer = ours.SGD([p for p, _ in twins.pairs], lr=0.05, momentum=0.5)
    theirs = torch.optim.SGD([tensor for _, tensor in twins.pairs], lr=0.05, momentum=0.5)
    return trained(twins, ours.MSELoss(), F.mse_loss, target, optimizer, theirs)


def trained(twins, loss, their_loss, target, optimizer, their_optimizer, max_norm=None):
    """Train both for 100 steps and return the largest difference of their parameters."""
    x = torch.tensor(twins.x)
    for _ in range(STEPS):
        loss(twins.ours(twins.x), target)
        optimizer.zero_grad()
        twins.ours.backward(loss.backward())
        their_optimizer.zero_grad()
        their_loss(twins.theirs(x), torch.tensor(target)).backward()
        if max_norm:
            clip_grad_norm(optimizer.params, max_norm)
            torch.nn.utils.clip_grad_norm_([tensor for _, tensor in twins.pairs], max_norm)
        optimizer.step()
        their_optimizer.step()
    found = [largest_difference(p.data, turned(p, tensor)) for p, tensor in twins.pairs]
    return max(found + [largest_difference(b.data, tensor) for b, tensor in twins.buffers])


# --- losses: each maker draws settings, a pred and a target


def reduced(rng):
    return ["mean", "sum"][rng.integers(2)]


def mse(rng):
    pred, reduction = rows(rng), reduced(rng)
    theirs = lambda y, t: F.mse_loss(y, t, reduction=reduction)  # noqa: E731
    return ours.MSELoss(reduction), theirs, pred, rng.standard_normal(pred.shape)


def cross_entropy(kind):
    def make(rng):
        pred = 3 * rng.standard_normal((between(rng, 1, 9), between(rng, 2, 7)))
        classes, reduction = pred.shape[1], reduced(rng)
        smoothing = float(rng.choice([0, 0.1, 0.7]))
        weight = rng.uniform(0.1, 2, classes) if rng.integers(2) else None
        their_weight = None if weight is None else torch.tensor(weight)
        labels = rng.integers(classes, size=len(pred))
        target = labels if kind == "labels" else rng.dirichlet(np.ones(classes), len(pred))
        loss = ours.CrossEntropyLoss(reduction, label_smoothing=smoothing, class_weight=weight)
        theirs = torch.nn.CrossEntropyLoss(
            their_weight, reduction=reduction, label_smoothing=smoothing
        )
        return loss, theirs, pred, target

    return make


def bce(rng):
    pred, reduction = 5 * rows(rng), reduced(rng)
    theirs = torch.nn.BCEWithLogitsLoss(reduction=reduction)
    return ours.BCEWithLogitsLoss(reduction), theirs, pred, rng.uniform(0, 1, pred.shape)


def huber(rng):
    pred, delta, reduction = 2 * rows(rng), rng.uniform(0.1, 3), reduced(rng)
    theirs = torch.nn.HuberLoss(reduction, delta)
    return ours.HuberLoss(delta, reduction), theirs, pred, rng.standard_normal(pred.shape)


LOSSES = {
    "MSELoss": mse,
    "CrossEntropyLoss, labels": cross_entropy("labels"),
    "CrossEntropyLoss, probabilities": cross_entropy("probabilities"),
    "BCEWithLogitsLoss": bce,
    "HuberLoss": huber,
}


def loss_gradients(case):
    loss, theirs, pred, target = case
    y = torch.tensor(pred, requires_grad=True)
    value, wanted = loss(pred, target), theirs(y, torch.tensor(target))
    wanted.backward()
    return max(largest_difference(value, wanted), largest_difference(loss.backward(), y.grad))


def train_loss(case, rng):
    loss, theirs, pred, target = case
    twins = plain_model(pred, rng)
    optimizer = ours.SGD([p for p, _ in twins.pairs], lr=0.01)
    their_optimizer = torch.optim.SGD([tensor for _, tensor in twins.pairs], lr=0.01)
    return trained(twins, loss, theirs, target, optimizer, their_optimizer)


def plain_model(x, rng):
    """Return twins that end with as many outputs as x has columns."""
    width = x.shape[-1]
    layers = [ours.Linear(*io, rng=rng, dtype=np.float64) for io in ((width, 5), (5, width))]
    first, last = torch.nn.Linear(width, 5), torch.nn.Linear(5, width)
    pairs = paired(layers[0], first) + paired(layers[1], last)
    model = ours.Sequential(layers[0], nn.Tanh(), layers[1])
    return Twins(model, lambda x: last(first(x).tanh()), x, pairs)


# --- optimizers: each draws settings


def sgd(rng):
    options = {"lr": rng.uniform(0.001, 0.1), "weight_decay": rng.uniform(0, 0.1)}
    options |= {"momentum": rng.uniform(0.1, 0.95), "nesterov": bool(rng.integers(2))}
    return ours.SGD, torch.optim.SGD, options


def adam(kind, twin):
    def make(rng):
        # far from these, some trainings are chaotic: PyTorch's own ends 1e-9 away after a change in
        # the last digit of the first weights
        betas = rng.uniform(0.8, 0.99), rng.uniform(0.95, 0.9999)
        options = {"lr": 10 ** rng.uniform(-4, -1), "eps": 10 ** rng.uniform(-10, -3)}
        decay = rng.choice([0, rng.uniform(0, 0.3)])
        return kind, twin, options | {"betas": betas, "weight_decay": decay}

    return make


OPTIMIZERS = {
    "SGD": sgd,
    "Adam": adam(ours.Adam, torch.optim.Adam),
    "AdamW": adam(ours.AdamW, torch.optim.AdamW),
    "clip_grad_norm, then SGD": sgd,
}


def train_optimizer(name, rng):
    kind, twin, options = OPTIMIZERS[name](rng)
    pred = rng.standard_normal((between(rng, 2, 9), between(rng, 2, 7)))
    twins, labels = plain_model(pred, rng), rng.integers(pred.shape[1], size=len(pred))
    optimizer = kind([p for p, _ in twins.pairs], **options)
    their_optimizer = twin([tensor for _, tensor in twins.pairs], **options)
    norm = rng.uniform(0.01, 1) if name.startswith("clip") else None
    loss = ours.CrossEntropyLoss(), F.cross_entropy
    return trained(twins, *loss, labels, optimizer, their_optimizer, norm)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=30, help="of shapes and settings, for each")
    args = parser.parse_args()
    print(f"{'':34}{'gradients':>12}{'training':>12}")
    for name in [*LAYERS, *LOSSES, *OPTIMIZERS]:
        found = []
        for seed in range(args.draws):
            rng, again = (np.random.default_rng([seed, len(name)]) for _ in range(2))
            if name in LAYERS:
                make = LAYERS[name]
                found.append((gradients(make(rng), rng), train_layer(make(again), again)))
            elif name in LOSSES:
                make = LOSSES[name]
                found.append((loss_gradients(make(rng)), train_loss(make(again), again)))
            else:
                found.append((np.nan, train_optimizer(name, rng)))
        largest = "".join(f"{max(column):12.1e}" for column in zip(*found, strict=True))
        print(f"{name:34}{largest.replace('nan', '   ')}", flush=True)


if __name__ == "__main__":
    main()
