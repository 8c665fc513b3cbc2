"""Right layers and losses, to be checked, and to plant faults in.

They owe nothing to the layers of the package but their base: a fault may reach into them.
"""

import numpy as np

from tinygrad_mnist import Buffer, Module, Parameter


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def example(seed, rows=None):
    """Return an array, mostly of sides larger than 1, and the generator that it is from."""
    rng = np.random.default_rng(seed)
    sides = rng.choice([2, 3, 5, 4, 1], 2)
    return rng.standard_normal((sides[0] if rows is None else rows, sides[1])), rng


def floats(x):
    """Return a copy as floats, float32 where it is that already."""
    return np.array(x, np.result_type(x, np.float32) if np.asarray(x).dtype.kind == "f" else float)


def of_shape(array, shape):
    """Return an array; refuse one of another shape, which might broadcast."""
    if np.shape(array) != shape:
        raise ValueError(f"expected an array of shape {shape}, got {np.shape(array)}")
    return array


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class Linear(Module):
    """y = x @ W + b, for x (..., I), W (I, O) and b (O,)."""

    def __init__(self, in_features, out_features, rng):
        drawn = np.random.default_rng(rng).uniform(-1, 1, (in_features, out_features))
        self.weight = Parameter(drawn)
        self.bias = Parameter(np.zeros(out_features))

    def forward(self, x):
        self._x = np.array(x, self.weight.data.dtype)
        return self._x @ self.weight.data + self.bias.data

    def backward(self, dy):
        ins, outs = self.weight.data.shape
        rows = np.reshape(dy, (-1, outs))
        self.weight.accumulate(self._x.reshape(-1, ins).T @ rows)
        self.bias.accumulate(rows.sum(axis=0))
        return dy @ self.weight.data.T


class ReLU(Module):
    """y = max(x, 0)."""

    def forward(self, x):
        x = floats(x)
        self._passed = x > 0
        return x * self._passed

    def backward(self, dy):
        return dy * self._passed


class Dropout(Module):
    """y = x * mask / (1 - p) while training, else x."""

    def __init__(self, p, rng):
        self.p, self.rng = p, np.random.default_rng(rng)

    def draw_mask(self, shape):
        return self.rng.random(shape) >= self.p

    def forward(self, x):
        x = floats(x)
        self._mask = self.draw_mask(x.shape) if self.training else np.ones(x.shape)
        self._factor = 1 / (1 - self.p) if self.training else 1
        return x * self._mask * self._factor

    def backward(self, dy):
        return dy * self._mask * self._factor


class Elementwise(Module):
    """y = f(x), dx = dy * slope(x)."""

    def __init__(self, f, slope):
        self.f, self.slope = f, slope

    def forward(self, x):
        self._x = floats(x)
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


class BatchMean(Module):
    """y = x - mean over the rows: a layer that mixes them."""

    def forward(self, x):
        x = floats(x)
        return x - x.sum(axis=0) / max(len(x), 1)

    def backward(self, dy):
        return dy - np.sum(dy, axis=0) / max(len(dy), 1)


class Counting(Module):
    """y = n * x, for a Buffer n that counts the training forwards, this one too."""

    def __init__(self):
        self.n = Buffer(1)

    def forward(self, x):
        if self.training:
            self.n.data += 1
        self._n = int(self.n.data)
        return self._n * floats(x)

    def backward(self, dy):
        return self._n * dy


class Embedding(Module):
    """y = W[x], for integers x of any shape and W (classes, features)."""

    input_grad = False

    def __init__(self, classes, features, rng):
        drawn = np.random.default_rng(rng).standard_normal((classes, features))
        self.weight = Parameter(drawn)

    def forward(self, x):
        if np.asarray(x).dtype.kind not in "iu":
            raise TypeError(f"Embedding: expected integers, got {np.asarray(x).dtype}")
        self._x = np.array(x)
        return self.weight.data[self._x]

    def backward(self, dy):
        grad = np.zeros(self.weight.data.shape)
        np.add.at(grad, self._x, dy)
        self.weight.accumulate(grad)


class Product(Module):
    """y = gain * a * b, for a and b (..., I): two inputs."""

    def __init__(self, features):
        self.gain = Parameter(np.linspace(0.5, 1.5, features))

    def forward(self, a, b):
        self._a, self._b = (np.array(x, self.gain.data.dtype) for x in (a, b))
        return self.gain.data * self._a * self._b

    def backward(self, dy):
        rows = np.reshape(dy * self._a * self._b, (-1, self.gain.data.size))
        self.gain.accumulate(rows.sum(axis=0))
        return self.gain.data * dy * self._b, self.gain.data * dy * self._a


class ColumnMean(Module):
    """y = the mean over the rows of an image, (..., H, W, C) to (..., W, C)."""

    sample_axes = 3

    def forward(self, x):
        x = floats(x)
        self._shape = x.shape
        return x.mean(axis=-3)

    def backward(self, dy):
        return np.broadcast_to(np.expand_dims(dy, -3) / self._shape[-3], self._shape)


class Largest(Module):
    """y = the largest entry of each row, x (..., I) and y (..., 1)."""

    def forward(self, x):
        x = floats(x)
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


class GlobalNoise(Module):
    """y = x * noise from NumPy's global stream while training."""

    def forward(self, x):
        x = floats(x)
        noise = np.random.random_sample(x.shape) if self.training else np.ones(x.shape)  # noqa: NPY002
        self._noise = noise
        return x * noise

    def backward(self, dy):
        return dy * self._noise


class CrossEntropy:
    """Mean of -log softmax(pred)[label] over the rows."""

    def __call__(self, pred, labels):
        self._p, self._labels = softmax(pred), np.array(labels)
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
        self._error = pred - of_shape(target, pred.shape)
        return float(np.mean(np.abs(self._error)))

    def backward(self):
        return np.sign(self._error) / self._error.size
