"""How well two convolutional networks read digits, and what it costs to train them.

    python tests/benchmarks/accuracy.py small --by compiled eager torch --seeds 1 2 3 4 5
    python tests/benchmarks/accuracy.py large --data FILE.npz

Each network is trained from each seed by each contender, on the same batches of the same moved
images. A line has the accuracy on the test images after the last epoch, and what the training took:
CPU seconds of all threads, and how many of them went into moving images. For PyTorch
on one thread, set OMP_NUM_THREADS=1.
"""

import argparse
import time
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from tinygrad_mnist import (
    SGD,
    Conv2d,
    CrossEntropyLoss,
    DataLoader,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from tinygrad_mnist.data import mnist
from tinygrad_mnist.data.transforms import random_affine, random_shift
from tinygrad_mnist.optim.schedules import one_cycle
from tinygrad_mnist.training import LearningRate, evaluate, fit


@dataclass(frozen=True)
class Recipe:
    """A network, and how it is trained: SGD with Nesterov momentum, its rate in one cycle."""

    channels: tuple[int, int]
    hidden: int  # units of a layer before the last, with Dropout(.2); 0 for none
    epochs: int
    lr: float
    weight_decay: float
    transform: Any


RECIPES = {
    "small": Recipe((8, 16), 0, 4, 0.1, 0.0, random_shift(1)),
    "large": Recipe(
        (16, 32), 128, 6, 0.05, 5e-4, random_affine(rotation=12, scale=0.1, shear=0.15, shift=2)
    ),
}
BATCH, MOMENTUM, DROPOUT, KERNEL = 64, 0.9, 0.2, 5


class Timed:
    """A transform that adds up its CPU seconds."""

    def __init__(self, transform):
        self.transform, self.seconds = transform, 0.0
        self.sample_axes = transform.sample_axes

    def __call__(self, x, rng):
        start = time.process_time()
        y = self.transform(x, rng)
        self.seconds += time.process_time() - start
        return y


def network(recipe, rng):
    first, second = recipe.channels
    layers = [Conv2d(1, first, KERNEL, rng=rng, input_grad=False), ReLU(), MaxPool2d()]
    layers += [Conv2d(first, second, KERNEL, rng=rng), ReLU(), MaxPool2d(), Flatten()]
    width = 4 * 4 * second
    if recipe.hidden:
        layers += [Linear(width, recipe.hidden, rng=rng), ReLU(), Dropout(DROPOUT, rng=rng)]
        width = recipe.hidden
    return Sequential(*layers, Linear(width, 10, rng=rng))


def train_ours(recipe, batches, rng, compiled):
    """Train; return a function from test images and labels to the accuracy."""
    model = network(recipe, rng)
    settings = {"momentum": MOMENTUM, "nesterov": True, "weight_decay": recipe.weight_decay}
    optimizer = SGD(model.parameters(), recipe.lr, **settings)
    rate = one_cycle(recipe.lr, steps=recipe.epochs * len(batches))
    fit(
        model,
        CrossEntropyLoss(),
        optimizer,
        batches,
        epochs=recipe.epochs,
        metrics=[],
        callbacks=[LearningRate(rate, "step")],
        progress=False,
        compiled=compiled,
    )
    return lambda x, t: evaluate(model, CrossEntropyLoss(), (x, t))["accuracy"]


def train_torch(recipe, batches, rng):
    """The same in PyTorch, from the same first weights."""
    import torch

    def images(x):
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))

    torch.manual_seed(1)  # of the masks of Dropout
    first, second = recipe.channels
    nn, size = torch.nn, 16 * second
    layers = [nn.Conv2d(1, first, KERNEL), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(first, second, KERNEL), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    if recipe.hidden:
        layers += [nn.Linear(size, recipe.hidden), nn.ReLU(), nn.Dropout(DROPOUT)]
        size = recipe.hidden
    model = nn.Sequential(*layers, nn.Linear(size, 10))
    twins = zip(model.parameters(), network(recipe, rng).parameters(), strict=True)
    with torch.no_grad():
        for theirs, ours in twins:  # which are He's: the rows of a Linear stand in another order
            axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[ours.data.ndim]
            theirs.copy_(torch.from_numpy(ours.data.transpose(axes).copy()))
    settings = {"momentum": MOMENTUM, "nesterov": True, "weight_decay": recipe.weight_decay}
    optimizer = torch.optim.SGD(model.parameters(), recipe.lr, **settings)
    rate, step = one_cycle(recipe.lr, steps=recipe.epochs * len(batches)), 0
    loss = nn.CrossEntropyLoss()
    for _ in range(recipe.epochs):
        for x, t in batches:
            optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.zero_grad()
            loss(model(images(x)), torch.tensor(t)).backward()
            optimizer.step()
            step += 1
    model.eval()

    def accuracy(x, t):
        with torch.no_grad():
            return float((model(images(x)).argmax(1).numpy() == t).mean())

    return accuracy


CONTENDERS = {
    "compiled": lambda *parts: train_ours(*parts, compiled=True),
    "eager": lambda *parts: train_ours(*parts, compiled=False),
    "torch": train_torch,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--by", nargs="+", choices=CONTENDERS, default=["compiled"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--data", default="bundled", help="bundled, keras, or a path")
    args = parser.parse_args()
    (images, labels), (test_images, test_labels) = mnist.load_data(args.data)
    x, x_test = (a[..., None] / np.float32(255) for a in (images, test_images))
    t, recipe = labels.astype(np.int64), RECIPES[args.recipe]
    results = {name: [] for name in args.by}
    for name in args.by:  # the first call of a kernel compiles it, or loads it
        few = DataLoader(x[:BATCH], t[:BATCH], BATCH, transform=recipe.transform)
        CONTENDERS[name](replace(recipe, epochs=2), few, np.random.default_rng(1))
    for seed in args.seeds:
        for name in args.by:
            rng, moved = np.random.default_rng(seed), Timed(recipe.transform)
            batches = DataLoader(x, t, BATCH, shuffle=True, rng=rng, transform=moved)
            wall, cpu = time.perf_counter(), time.process_time()
            accuracy = CONTENDERS[name](recipe, batches, rng)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            right = accuracy(x_test, test_labels)
            results[name].append(right)
            print(
                f"{name:8}  seed {seed}  test accuracy {right:.4f}  {wall:5.1f} s  "
                f"CPU {cpu:5.1f} s, {moved.seconds:.1f} of them for moving images",
                flush=True,
            )
    for name, accuracies in results.items():
        print(f"{name:8}  mean of {len(accuracies)} seeds {fmean(accuracies):.4f}")


if __name__ == "__main__":
    main()
