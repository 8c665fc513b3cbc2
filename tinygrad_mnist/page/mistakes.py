"""The wrong parts of trainings, as people write them: each says in a comment what is wrong."""

from dataclasses import dataclass

import numpy as np

from tinygrad_mnist.losses import Loss
from tinygrad_mnist.metrics import accuracy
from tinygrad_mnist.module import Module
from tinygrad_mnist.nn import Dropout, Linear, Sequential, Softmax
from tinygrad_mnist.optim import SGD
from tinygrad_mnist.training import predict

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
    def __init__(self, width, _, **drawn):
        self.f = Linear(width, width, **drawn)

    def forward(self, x):
        return self.f(self.f(x))

    def backward(self, dy):
        return self.f.backward(self.f.backward(dy))  # wrong: f has forgotten its first input


class OverwritingLinear(Linear):
    def backward(self, dy):
        self.zero_grad()  # wrong: what an earlier backward added is lost
        return super().backward(dy)


class MissingTranspose(Linear):
    def backward(self, dy):
        super().backward(dy)  # adds dW and db, which are right
        return dy @ self.weight.data  # wrong: dx = dy @ W.T; a square W hides it


class MeanBias(Linear):
    def backward(self, dy):
        db = self.bias.grad + dy.reshape(-1, dy.shape[-1]).mean(axis=0)
        dx = super().backward(dy)
        self.bias.grad = db  # wrong: b is in every row of y, so db is the sum of their gradients
        return dx


def softmax_inside(width, classes, **drawn):
    linear = Linear(width, classes, **drawn)
    return Sequential(linear, Softmax())  # wrong: CrossEntropyLoss takes the softmax itself


def equal_weights(shape, rng):
    return np.full(shape, 0.01)  # wrong: hidden units that start equal stay equal


# Losses


@dataclass
class WrappedLoss:
    """A loss around another one, and like it until a method is replaced."""

    loss: Loss

    def __call__(self, pred, target):
        return self.loss(pred, target)

    def backward(self):
        return self.loss.backward()


class HalfGradient(WrappedLoss):
    def backward(self):
        return self.loss.backward() / 2  # wrong: y - t is the gradient of half the square


class SummedGradient(WrappedLoss):
    def backward(self):
        dy = self.loss.backward()
        return dy * len(dy)  # wrong: the value is a mean over the rows


class TargetMinusPred(WrappedLoss):
    def backward(self):
        return -self.loss.backward()  # wrong: with t - y in place of y - t, each step goes uphill


class Broadcasting:
    def __call__(self, pred, target):
        self.error = pred - target[:, None]  # wrong: (N, 10) - (N, 1, 10) is (N, N, 10)
        return np.sum(self.error**2) / len(pred) ** 2

    def backward(self):
        return 2 * np.mean(self.error, axis=0) / len(self.error)


# Steps: how a batch moves the parameters


def many_steps(model, loss, optimizer, x, t):
    value = loss(model(x), t)
    dy = loss.backward() / len(x)
    for _ in range(len(x)):
        optimizer.zero_grad()
        model.backward(dy)
        optimizer.step()  # wrong: after the first one, dy is out of date
    return value


def never_zeroed(model, loss, optimizer, x, t):
    value = loss(model(x), t)
    model.backward(loss.backward())  # wrong: adds to the gradients of every batch before
    optimizer.step()
    return value


def zeroed_late(model, loss, optimizer, x, t):
    value = loss(model(x), t)
    model.backward(loss.backward())
    optimizer.zero_grad()  # wrong: forgets what backward has just added
    optimizer.step()
    return value


class BackwardMomentum(SGD):
    def update(self, p, v):
        v *= -self.momentum  # wrong: the sign turns v around at every step
        v += p.grad
        p.data -= self.lr * v


# Data: what an epoch trains on


def shuffled_apart(x, t, rng):
    return rng.permutation(x), rng.permutation(t)  # wrong: two orders


def off_by_one(x, t, rng):
    return x, np.roll(t, 1, axis=1)  # wrong: a 3 is called a 4


def raw_pixels(x, t, rng):
    return 255 * x, t  # wrong: weights and rate are made for pixels in [0, 1]


# Evaluations: what is called test accuracy


def on_training_images(model, training, test):
    x, t = training  # wrong: the network has learned these
    return accuracy(predict(model, x), t)


def while_dropping(model, training, test):
    x, t = test
    return accuracy(model.train()(x), t)  # wrong: without eval(), half of the units are off
