"""Replay the notebook bug for bug: python examples/notebook/notebook_replay.py.

The notebook's three scripts, rebuilt from the public API with its mistakes left in; then the same
networks with right gradients. The mistakes:

Q1  the slope of ReLU is taken from its output, `output >= 0`, and so is always 1
Q2  dropout multiplies by 2 * mask forward, but only by mask backward
Q3  the mini-batch script makes 100 updates from one forward; each takes the hidden layer's gradient
    through the second matrix as the update before it left that
Q4  the printed error is a sum of squares, but the step follows half its gradient
Q5  columns are mislabelled: `sgd` prints test results in all four; `dropout` and `minibatch`
    print the training error as Test-Err, `dropout` the training accuracy as Test-Acc
"""

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm, trange

from tinygrad_mnist import SGD, DataLoader, Dropout, Linear, Module, MSELoss, ReLU, Sequential
from tinygrad_mnist.data import mnist
from tinygrad_mnist.metrics import accuracy

SCRIPTS = {
    "sgd": {"hidden": 40, "dropout": False, "batch": 1, "alpha": 0.005, "updates": 1},
    "dropout": {"hidden": 100, "dropout": True, "batch": 1, "alpha": 0.005, "updates": 1},
    "minibatch": {"hidden": 100, "dropout": True, "batch": 100, "alpha": 0.001, "updates": 100},
}
PUBLISHED = Path(__file__).with_name("published_rows.json")
LINE = (
    "Epoch {epoch} | Error: {error} | Correct: {correct} "
    "| Test-Err: {test_err} | Test-Acc: {test_acc}"
)


class NotebookReLU(Module):
    """y = (x > 0) * x; dx = dy * (y >= 0), which is dy (Q1)."""

    def forward(self, x):
        self._y = (x > 0) * x
        return self._y

    def backward(self, dy):
        return dy * (self._y >= 0)


class NotebookDropout(Module):
    """y = x * mask * 2, from the legacy stream; dx = dy * mask (Q2)."""

    def __init__(self, stream):
        self.stream = stream

    def forward(self, x):
        if not self.training:
            return x
        self._mask = self.stream.randint(2, size=x.shape)
        return x * (self._mask * 2)

    def backward(self, dy):
        return dy * self._mask


class LegacyMaskDropout(Dropout):
    """A right Dropout with the notebook's masks."""

    def __init__(self, stream):
        super().__init__(0.5)
        self.stream = stream

    def draw_mask(self, shape):
        return self.stream.randint(2, size=shape)


def build(script, relu, dropout):
    """Return the script's model, with the weights and masks of `np.random.seed(1)`."""
    stream = np.random.RandomState(1)

    def weights(shape, rng):
        return 0.2 * stream.random_sample(shape) - 0.1

    hidden = SCRIPTS[script]["hidden"]
    first = Linear(784, hidden, bias=False, init=weights, dtype=np.float64, input_grad=False)
    last = Linear(hidden, 10, bias=False, init=weights, dtype=np.float64)
    middle = [relu(), dropout(stream)] if SCRIPTS[script]["dropout"] else [relu()]
    return Sequential(first, *middle, last)


def train(script, model, data, epochs, lr, updates):
    """Train, and yield (epoch, train_err, train_acc, test_err, test_acc) every 10 epochs."""
    x_train, t_train, x_test, t_test = data
    loss, optimizer = MSELoss("batchmean"), SGD(model.parameters(), lr)
    batches = DataLoader(x_train, t_train, SCRIPTS[script]["batch"])
    for epoch in trange(1, epochs + 1, unit="epoch", disable=None):
        error, correct = 0.0, 0
        model.train()
        for x, t in batches:
            y = model(x)
            error += loss(y, t) * len(x)
            correct += np.sum(y.argmax(axis=1) == t.argmax(axis=1))
            dy = loss.backward()
            for _ in range(updates):
                optimizer.zero_grad()
                model.backward(dy)
                optimizer.step()
        # the dropout script prints no row for its last epoch
        if epoch % 10 == 1 or (epoch == epochs and script != "dropout"):
            y = model.eval()(x_test)
            n = len(x_train)
            yield epoch, error / n, correct / n, loss(y, t_test), accuracy(y, t_test)


def mislabelled(script, epoch, train_err, train_acc, test_err, test_acc):
    """Return the row with each number under the notebook's label (Q5)."""
    shown = {
        "sgd": (test_err, test_acc, test_err, test_acc),
        "dropout": (train_err, train_acc, train_err, train_acc),
        "minibatch": (train_err, train_acc, train_err, test_acc),
    }[script]
    labels = ("error", "correct", "test_err", "test_acc")
    return {"epoch": epoch, **{k: float(v) for k, v in zip(labels, shown, strict=True)}}


def largest_difference(row, published):
    """Return the largest relative difference from the published numbers that are not cut off."""
    return max(abs(row[k] / v - 1) for k, v in published.items() if v is not None)


parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--script", choices=SCRIPTS, default="sgd", help="default: %(default)s")
parser.add_argument("--epochs", type=int, default=11, help="of the notebook's 120 (default: 11)")
parser.add_argument("--json", action="store_true", help="print the rows as one JSON object")
args = parser.parse_args()

(x_train, y_train), (x_test, y_test) = mnist.load_data()
data = (
    *mnist.preprocess(x_train, y_train, np.float64),
    *mnist.preprocess(x_test, y_test, np.float64),
)
settings = SCRIPTS[args.script]

model = build(args.script, NotebookReLU, NotebookDropout)
lr = settings["alpha"] / 2  # the gradient of the error is 2 (y - t), the notebook's y - t (Q4)
replay = train(args.script, model, data, args.epochs, lr, settings["updates"])  # (Q3)
rows = []
published = {row["epoch"]: row for row in json.loads(PUBLISHED.read_text())[args.script]}
for measured in replay:
    row = mislabelled(args.script, *measured)
    rows.append(row)
    if not args.json:
        tqdm.write(f"replayed  {LINE.format(**row)}")
        if row["epoch"] in published:
            tqdm.write(f"published {LINE.format(**published[row['epoch']])}")
            difference = largest_difference(row, published[row["epoch"]])
            tqdm.write(f"largest relative difference: {difference:.1e}")
        else:
            tqdm.write("published: no row of this epoch")

if args.json:
    print(json.dumps({"script": args.script, "rows": rows}))
elif rows:
    model = build(args.script, ReLU, LegacyMaskDropout)
    lr = 0.1 / 2 if args.script == "minibatch" else lr
    *_, right = train(args.script, model, data, args.epochs, lr, updates=1)
    print(f"\nWith right gradients, the same weights and masks, lr {lr:g}, after epoch {right[0]}:")
    print(f"test error    {right[3]:.4f}  (the notebook's network: {measured[3]:.4f})")
    print(f"test accuracy {right[4]:.4f}  (the notebook's network: {measured[4]:.4f})")
