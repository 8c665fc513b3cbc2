"""A museum of famous mistakes, and what each costs: python examples/notebook/bug_museum.py.

Q1 to Q5 are the notebook's mistakes. Each exhibit is a training setup with one part wrong. First
the checker looks at its layers, at its loss, and at both together. Then the setup trains on MNIST,
and so does the same setup with that part right: same seeds, same batches of 100.
"""

import argparse
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain

import numpy as np

from tinygrad_mnist import SGD, DataLoader, Dropout, Linear, Module, MSELoss, ReLU, Sequential
from tinygrad_mnist.data import mnist
from tinygrad_mnist.init import glorot_uniform, he_uniform
from tinygrad_mnist.testing import (
    GradientCheckError,
    ModuleContractError,
    check_gradients,
    check_loss_gradients,
    check_model_gradients,
)

# Layers and initial weights


class OutputSlopeReLU(Module):
    def forward(self, x):
        self._y = (x > 0) * x
        return self._y.copy()

    def backward(self, dy):
        return dy * (self._y >= 0)  # wrong: no output is below 0, so this is dy


class NoFactorDropout(Dropout):
    def draw_mask(self, shape):
        self._drawn = super().draw_mask(shape)
        return self._drawn

    def backward(self, dy):
        return dy * self._drawn  # wrong: forward divides by 1 - p as well


class ForgetfulDropout(Dropout):
    def backward(self, dy):
        dy /= 1 - self.p  # wrong twice: dy belongs to the caller, and where is the mask?
        return dy


class TiedOneCache(Module):
    def __init__(self, width, rng):
        self.f = Linear(width, width, init=glorot_uniform, rng=rng)

    def forward(self, x):
        return self.f(self.f(x))

    def backward(self, dy):
        return self.f.backward(self.f.backward(dy))  # wrong: f has forgotten its first input


def tied(width, rng):
    first = Linear(width, width, init=glorot_uniform, rng=rng)
    second = Linear(width, width, rng=0)
    second.weight, second.bias = first.weight, first.bias  # tied, but each has its own cache
    return [ReLU(), first, second]


class OverwritingLinear(Linear):
    def backward(self, dy):
        self.zero_grad()  # wrong: what an earlier backward added is lost
        return super().backward(dy)


def equal_weights(shape, rng):
    return np.full(shape, 0.01)  # wrong: hidden units that start equal stay equal


# Losses


class HalfGradient(MSELoss):
    def backward(self):
        return super().backward() / 2  # wrong: y - t is the gradient of half the square


class SummedGradient(MSELoss):
    def backward(self):
        dy = super().backward()
        return dy * len(dy)  # wrong: the value is a mean over the rows


class TargetMinusPred(MSELoss):
    def backward(self):
        return -super().backward()  # wrong: (y - t)**2 is (t - y)**2, but its slope has a sign


class Broadcasting(MSELoss):
    def __call__(self, pred, target):
        self._error = pred - target[:, 0]  # wrong: (N, 1) - (N,) is (N, N); MSELoss refuses it
        return np.mean(self._error**2)

    def backward(self):
        return 2 * np.mean(self._error, axis=1, keepdims=True) / len(self._error)


# Steps: how the gradient of a batch moves the parameters


def step(model, optimizer, dy):
    optimizer.zero_grad()
    model.backward(dy)
    optimizer.step()


def hundred_steps(model, optimizer, dy):
    for _ in range(100):
        step(model, optimizer, dy / 100)  # wrong: after the first, dy is out of date


def never_zeroed(model, optimizer, dy):
    model.backward(dy)  # wrong: adds to the gradients of every batch before
    optimizer.step()


def zeroed_late(model, optimizer, dy):
    model.backward(dy)
    optimizer.zero_grad()  # wrong: forgets what backward has just added
    optimizer.step()


class BackwardMomentum(SGD):
    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.v = [np.zeros_like(p.data) for p in self.params]

    def step(self):
        for p, v in zip(self.params, self.v, strict=True):
            v *= -self.momentum  # wrong: the sign turns v around at every step
            v += p.grad
            p.data -= self.lr * v


# Data: what an epoch trains on


def shuffled(x, t, rng):
    order = rng.permutation(len(x))
    return x[order], t[order]


def shuffled_apart(x, t, rng):
    return rng.permutation(x), rng.permutation(t)  # wrong: two orders


def off_by_one(x, t, rng):
    return shuffled(x, np.roll(t, 1, axis=1), rng)  # wrong: a 3 is called a 4


def raw_pixels(x, t, rng):
    return shuffled(255 * x, t, rng)  # wrong: weights and rate are made for pixels in [0, 1]


# Measures: what is called test accuracy


def on_test_images(model, training, test):
    return accuracy(model.eval(), *test)


def on_training_images(model, training, test):
    return accuracy(model.eval(), *training)  # wrong: the network has learned these


def while_dropping(model, training, test):
    return accuracy(model.train(), *test)  # wrong: without eval(), half of the units are off


def accuracy(model, x, t):
    y = model(x)
    return np.mean(y.argmax(axis=1) == t.argmax(axis=1) if y.shape[1] > 1 else (y > 0.5) == t)


def odd(t):
    return t[:, 1::2].sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Setup:
    hidden: Callable = lambda width, rng: [ReLU()]  # the layers between two Linears
    last: Callable = Linear
    init: Callable = he_uniform
    loss: Callable = MSELoss
    optimizer: Callable = lambda parameters: SGD(parameters, lr=0.05)
    step: Callable = step
    task: Callable = np.asarray  # of one-hot targets: which digit; or is it odd
    data: Callable = shuffled
    measure: Callable = on_test_images

    def build(self, features, width):
        rng, outputs = np.random.default_rng(1), self.task(np.eye(10)).shape[1]
        first = Linear(features, width, init=self.init, rng=rng, input_grad=False)
        last = self.last(width, outputs, init=self.init, rng=rng)
        return Sequential(first, *self.hidden(width, rng), last), self.loss("batchmean")


def sgd(cls=SGD, **settings):
    return lambda parameters: cls(parameters, **settings)


def dropping(layer):
    return lambda width, rng: [ReLU(), layer(0.5, rng=rng)]


PLAIN, DROPOUT, ODD = Setup(), Setup(hidden=dropping(Dropout)), Setup(task=odd)
TIED = Setup(hidden=tied)
MOMENTUM = Setup(optimizer=sgd(lr=0.005, momentum=0.9))
BACKWARD = sgd(BackwardMomentum, lr=0.005, momentum=0.9)

EXHIBITS = [  # the mistake, the setup without it, the part that has it
    ("Q1 ReLU takes its slope from its output", PLAIN, "hidden", lambda *_: [OutputSlopeReLU()]),
    ("Q2 Dropout scales forward, not backward", DROPOUT, "hidden", dropping(NoFactorDropout)),
    ("Q3 a hundred small steps after one forward", PLAIN, "step", hundred_steps),
    ("Q4 the loss is a square, its gradient that of half a square", PLAIN, "loss", HalfGradient),
    ("Q5 training accuracy under the label of the test's", PLAIN, "measure", on_training_images),
    ("Dropout edits dy and forgets the mask", DROPOUT, "hidden", dropping(ForgetfulDropout)),
    ("Dropout stays on in the test", DROPOUT, "measure", while_dropping),
    ("a tied layer has one cache", TIED, "hidden", lambda *a: [ReLU(), TiedOneCache(*a)]),
    ("Linear sets its gradient, does not add", PLAIN, "last", OverwritingLinear),
    ("all weights start equal", PLAIN, "init", equal_weights),
    ("the loss is a mean, its gradient that of the sum", PLAIN, "loss", SummedGradient),
    ("the gradient is t - y", PLAIN, "loss", TargetMinusPred),
    ("(N, 1) against (N,), asked for odd digits", ODD, "loss", Broadcasting),
    ("gradients are never zeroed", PLAIN, "step", never_zeroed),
    ("gradients are zeroed after backward", PLAIN, "step", zeroed_late),
    ("momentum with the wrong sign", MOMENTUM, "optimizer", BACKWARD),
    ("inputs are shuffled without their targets", PLAIN, "data", shuffled_apart),
    ("labels are off by one", PLAIN, "data", off_by_one),
    ("pixels from 0 to 255", PLAIN, "data", raw_pixels),
]

SILENT = "cannot see this: no gradient is wrong"


def ask(setup):
    """Return what the checker says of the layers, the loss, and both together."""
    rng = np.random.default_rng(2)
    (model, loss), t = setup.build(6, 5), setup.task(np.eye(10)[:4])
    try:
        for layer in model[1:]:
            check_gradients(layer, rng.standard_normal((4, 5)))
        check_loss_gradients(loss, rng.standard_normal(t.shape), t)
        check_model_gradients(model, loss, rng.standard_normal((4, 6)), t)
    except ModuleContractError as error:
        return str(error)
    except GradientCheckError as error:
        worst = max(error.report.mismatches, key=lambda m: abs(m.analytic - m.numeric))
        return "\n".join([f"{error.report.subject}: {worst}", *error.report.hints])
    return SILENT


@cache
def train(setup):
    """Return the test accuracy, None if the loss overflows, and the seconds that it took."""
    started = time.process_time()
    model, loss = setup.build(784, 100)
    optimizer, rng = setup.optimizer(model.parameters()), np.random.default_rng(3)
    training, test = (x_train, setup.task(t_train)), (x_test, setup.task(t_test))
    with np.errstate(over="ignore", invalid="ignore"):  # some of the setups diverge
        for _ in range(args.epochs):
            for x, t in DataLoader(*setup.data(*training, rng), batch_size=100):
                if not np.isfinite(loss(model(x), t)):
                    return None, time.process_time() - started
                setup.step(model, optimizer, loss.backward())
    return setup.measure(model, training, test), time.process_time() - started


parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--epochs", type=int, default=5, help="of each training (default: 5)")
args = parser.parse_args()

(x_train, y_train), (x_test, y_test) = mnist.load_data()
x_train, t_train = mnist.preprocess(x_train, y_train)
x_test, t_test = mnist.preprocess(x_test, y_test)

print(f"What the checker says of each mistake; test accuracy after {args.epochs} epochs with it")
print("and without it, all else being equal.")

caught = quiet = 0
for name, right, part, mistake in EXHIBITS:
    wrong = replace(right, **{part: mistake})
    said, (found, seconds), (wanted, fair) = ask(wrong), train(wrong), train(right)
    caught += said != SILENT
    quiet += said != SILENT and found is not None and wanted - found < 0.02

    cost = "cannot train, the loss overflows" if found is None else f"{found:.4f}"
    if seconds > 10 * fair:
        cost += f" in {seconds / fair:.0f} times the time"
    print(f"\n{name}\n  checker   ", end="")
    wrapped = (textwrap.wrap(line, 88, break_on_hyphens=False) for line in said.splitlines())
    print(*chain(*wrapped), sep="\n            ")
    print(f"  accuracy  {cost}; without the mistake {wanted:.4f}")

print(f"\nThe checker catches {caught} of {len(EXHIBITS)} mistakes. Of these, {quiet} cost less")
print(
    "than 0.02 of accuracy: watching the network learn would not reveal them. Those that it cannot"
)
print("see leave every gradient right: they take a test of the loop, or a look at the data.")
