"""Right layers and losses that are not in the package, to be checked, and to plant faults in."""

import numpy as np

from tinygrad_mnist import Module, Parameter


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def example(seed, rows=None):
    """Return an array, mostly of sides larger than 1, and the generator that it is from."""
    rng = np.random.default_rng(seed)
    sides = rng.choice([2, 3, 5, 4, 1], 2)
    return rng.standard_normal((sides[0] if rows is None else rows, sides[1])), rng


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class Elementwise(Module):
    """y = f(x), dx = dy * slope(x)."""

    def __init__(self, f, slope):
        self.f, self.slope = f, slope

    def forward(self, x):
        self._x = np.array(x, np.float64)
        return self.f(self._x)

    def backward(self, dy):
        return dy * self.slope(self._x)


ELEMENTWISE = {
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "square": (np.square, lambda x: 2 * x),
    "sine": (np.sin, np.cos),
    "absolute": (np.abs, np.sign),
    "softplus": (lambda x: np.logaddexp(0, x), sigmoid),
    "leaky": (lambda x: np.where(x > 0, x, 0.1 * x), lambda x: np.where(x > 0, 1, 0.1)),
    "hard tanh": (lambda x: np.clip(x, -1, 1), lambda x: (np.abs(x) < 1) * 1.0),
    "steep tanh": (lambda x: np.tanh(200 * x), lambda x: 200 * (1 - np.tanh(200 * x) ** 2)),
    "large offset": (lambda x: 1e6 + x, np.ones_like),
    "relu(x) - relu(-x)": (
        lambda x: np.maximum(x, 0) - np.maximum(-x, 0),
        lambda x: (x != 0) * 1.0,  # what a framework answers: 0 at 0
    ),
}


class Softmax(Module):
    """y = softmax(x) over the last axis."""

    def forward(self, x):
        self._y = softmax(np.asarray(x, np.float64))
        return self._y.copy()

    def backward(self, dy):
        return self._y * (dy - np.sum(dy * self._y, axis=-1, keepdims=True))


class Norm(Module):
    """y = (x - mean) / std over the last axis."""

    def forward(self, x):
        x = np.asarray(x, np.float64)
        centred = x - x.mean(axis=-1, keepdims=True)
        self._std = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-3)
        self._y = centred / self._std
        return self._y.copy()

    def backward(self, dy):
        mean = dy.mean(axis=-1, keepdims=True)
        along = np.mean(dy * self._y, axis=-1, keepdims=True)
        return (dy - mean - self._y * along) / self._std


class BatchMean(Module):
    """y = x - mean over the rows: a layer that mixes them."""

    def forward(self, x):
        x = np.asarray(x, np.float64)
        return x - x.mean(axis=0)

    def backward(self, dy):
        return dy - np.mean(dy, axis=0)


class Largest(Module):
    """y = the largest entry of each row, x (..., I) and y (..., 1)."""

    def forward(self, x):
        x = np.asarray(x, np.float64)
        self._where = np.arange(x.shape[-1]) == x.argmax(axis=-1)[..., None]
        return x.max(axis=-1, keepdims=True)

    def backward(self, dy):
        return dy * self._where


class Gain(Module):
    """y = gain * x + shift, for x (..., I)."""

    def __init__(self, features):
        self.gain = Parameter(np.linspace(0.5, 1.5, features))
        self.shift = Parameter(np.zeros(features))

    def forward(self, x):
        self._x = np.array(x, self.gain.data.dtype)
        return self.gain.data * self._x + self.shift.data

    def backward(self, dy):
        rows = np.reshape(dy, (-1, self._x.shape[-1]))
        self.gain.accumulate(np.sum(rows * self._x.reshape(rows.shape), axis=0))
        self.shift.accumulate(rows.sum(axis=0))
        return self.gain.data * dy


class Residual(Module):
    """y = x + inner(x)."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x):
        return np.asarray(x, np.float64) + self.inner(x)

    def backward(self, dy):
        return dy + self.inner.backward(dy)


class GlobalNoise(Module):
    """y = x * noise from NumPy's global stream while training."""

    def forward(self, x):
        x = np.asarray(x, np.float64)
        noise = np.random.random_sample(x.shape) if self.training else np.ones(x.shape)  # noqa: NPY002
        self._noise = noise
        return x * noise

    def backward(self, dy):
        return dy * self._noise


class CrossEntropy:
    """Mean of -log softmax(pred)[label] over the rows."""

    def __call__(self, pred, labels):
        self._p, self._labels = softmax(pred), labels
        largest = pred.max(axis=-1, keepdims=True)
        log_sum = largest[:, 0] + np.log(np.exp(pred - largest).sum(axis=-1))
        return float(np.mean(log_sum - pred[np.arange(len(pred)), labels]))

    def backward(self):
        gradient = self._p.copy()
        gradient[np.arange(len(gradient)), self._labels] -= 1
        return gradient / len(gradient)


class AbsoluteError:
    """Mean of |pred - target|."""

    def __call__(self, pred, target):
        self._error = pred - target
        return float(np.mean(np.abs(self._error)))

    def backward(self):
        return np.sign(self._error) / self._error.size
