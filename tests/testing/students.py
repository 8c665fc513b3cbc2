"""Layers, losses and optimizers as students write them, some of them right."""

import numpy as np
from layers import CrossEntropy

from tinygrad_mnist import SGD, Adam, Linear, Module, MSELoss, Parameter, Sequential, nn

# Layers


class Tanh(Module):
    def forward(self, x):
        self._y = np.tanh(x)
        return self._y.copy()

    def backward(self, dy):
        return dy * (1 - self._y**2)


class WrongSlope(Tanh):
    def backward(self, dy):
        return dy * (1 - self._y)


class Skeleton(Module):
    def forward(self, x):
        raise NotImplementedError("your code here")

    def backward(self, dy):
        raise NotImplementedError("your code here")


class Pass(Module):
    def forward(self, x):
        pass

    def backward(self, dy):
        pass


class OwnCache(Tanh):
    def forward(self, x):
        super().forward(x)
        return self._y


class Batch(Module):
    """Right for x (B, I) alone."""

    def __init__(self, features, rng):
        self.W = Parameter(rng.standard_normal((features, 3)))

    def forward(self, x):
        self._x = np.array(x)
        return x @ self.W.data

    def backward(self, dy):
        self.W.grad += self._x.T @ dy
        return dy @ self.W.data.T


class DoublesWeights(Batch):
    """The factor 2 of a squared error, which dy has already, once more in dW."""

    def backward(self, dy):
        self.W.grad += self._x.T @ dy
        return super().backward(dy)


class GlobalDropout(Module):
    """Masks of the global generator, and none for backward in evaluation mode."""

    def forward(self, x):
        if not self.training:
            return x.copy()
        self.m = 2 * np.random.randint(2, size=x.shape)  # noqa: NPY002
        return x * self.m

    def backward(self, dy):
        return dy * self.m


class TwoSteps(Module):
    """A recurrent net that calls one cell twice: the cell remembers the second call alone."""

    def __init__(self, features, rng):
        self.cell = Sequential(Linear(features, features, rng=rng), nn.Tanh())

    def forward(self, x):
        return self.cell(self.cell(x))

    def backward(self, dy):
        return self.cell.backward(self.cell.backward(dy))


class NaiveSoftmax(Module):
    def forward(self, x):
        e = np.exp(x)
        self._y = e / e.sum(axis=-1, keepdims=True)
        return self._y.copy()

    def backward(self, dy):
        return self._y * (dy - (dy * self._y).sum(axis=-1, keepdims=True))


class Identity(Module):
    def forward(self, x):
        return np.array(x)

    def backward(self, dy):
        return np.array(dy)


class Misspelt(Tanh):
    def backward(self, dy):
        return dy * self.y


# Losses


class Sum(MSELoss):
    def backward(self):
        return super().backward() * 2


class Probabilities:
    """Binary cross-entropy of probabilities, which is right between 0 and 1."""

    slope = None

    def __call__(self, pred, target):
        if np.shape(pred) != np.shape(target):
            raise ValueError("other shapes")
        p, t = np.asarray(pred), np.asarray(target, np.asarray(pred).dtype)
        self.slope = (p - t) / (p * (1 - p) * p.size)
        return float(-np.mean(t * np.log(p) + (1 - t) * np.log(1 - p)))

    def backward(self):
        return self.slope.copy()


class Poisson(Probabilities):
    """exp(pred) - target * pred, which overflows for pred = 1000."""

    def __call__(self, pred, target):
        if np.shape(pred) != np.shape(target):
            raise ValueError("other shapes")
        p, t = np.asarray(pred), np.asarray(target, np.asarray(pred).dtype)
        self.slope = (np.exp(p) - t) / p.size
        return float(np.mean(np.exp(p) - t * p))


class Nothing(MSELoss):
    """Always 0."""

    def __call__(self, pred, target):
        return 0 * super().__call__(pred, target)

    def backward(self):
        return 0 * super().backward()


class FirstDoubled(MSELoss):
    """Its first backward is wrong."""

    calls = 0

    def backward(self):
        self.calls += 1
        return super().backward() * (2 if self.calls == 1 else 1)


class Skips(CrossEntropy):
    """A cross entropy without its last label."""

    def __call__(self, pred, labels):
        return super().__call__(pred, np.minimum(labels, pred.shape[-1] - 2))


class NaiveCrossEntropy(CrossEntropy):
    def __call__(self, pred, labels):
        super().__call__(pred, labels)
        p = np.exp(pred) / np.exp(pred).sum(axis=-1, keepdims=True)
        return float(np.mean(-np.log(p[np.arange(len(pred)), labels])))


# Optimizers


def sgd(value, gradient, velocity):
    velocity = gradient if velocity is None else 0.9 * velocity + gradient
    return value - 0.1 * velocity, velocity


def adam(value, gradient, state):
    m, v, t = state or (0, 0, 0)
    m, v, t = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2, t + 1
    return value - 1e-3 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), (m, v, t)


class Momentum:
    """w = w - lr * v for v = 0.9 * v + gradient, as a student writes it."""

    def __init__(self, params, lr=0.1):
        self.params, self.lr = params, lr
        self.v = [np.zeros_like(p.data) for p in params]

    def step(self):
        for i, p in enumerate(self.params):
            self.v[i] = 0.9 * self.v[i] + p.grad
            p.data -= self.lr * self.v[i]

    def state_dict(self):
        return {"v": [v.copy() for v in self.v]}

    def load_state_dict(self, state):
        self.v = [v.copy() for v in state["v"]]


class Uncorrected(Adam):
    """Adam without its correction of the bias."""

    def update(self, p, m, v):
        m *= 0.9
        m += 0.1 * p.grad
        v *= 0.999
        v += 0.001 * p.grad**2
        p.data -= self.lr * m / (np.sqrt(v) + self.eps)


class Decayed(Adam):
    """Weight decay before the division by the root, where AdamW has it after."""

    def __init__(self, params):
        super().__init__(params, weight_decay=0.01)


class Overwritten(Momentum):
    def step(self):
        self.v = [0.1 * p.grad for p in self.params]
        super().step()


class OneVelocity(Momentum):
    """A velocity for each shape, not for each Parameter."""

    def step(self):
        velocities = {p.data.shape: v for p, v in zip(self.params, self.v, strict=True)}
        for p in self.params:
            v = velocities[p.data.shape]
            v *= 0.9
            v += p.grad
            p.data -= self.lr * v


class SpendsGradients(Momentum):
    def step(self):
        super().step()
        for p in self.params:
            p.zero_grad()


class Replaces(Momentum):
    def step(self):
        super().step()
        for p in self.params:
            p._data = p._data.copy()


class Fixed(Momentum):
    """The lr is read once."""

    def __init__(self, params):
        super().__init__(params)
        self.first = self.lr

    def step(self):
        self.lr, kept = self.first, self.lr
        super().step()
        self.lr = kept


class SquaresRate(Momentum):
    """Right at the first lr alone, 0.1."""

    def step(self):
        self.lr, kept = 10 * self.lr**2, self.lr
        super().step()
        self.lr = kept


class Forgets(Momentum):
    def load_state_dict(self, state):
        pass


class SharesState(Momentum):
    """The state is the arrays themselves, which later steps move."""

    def step(self):
        for v, p in zip(self.v, self.params, strict=True):
            v *= 0.9
            v += p.grad
            p.data -= self.lr * v

    def state_dict(self):
        return {"v": self.v}


class Rounds(Momentum):
    """A velocity in half precision wherever Parameters are not float64."""

    def step(self):
        super().step()
        if self.params[0].data.dtype != np.float64:
            self.v = [v.astype(np.float16).astype(v.dtype) for v in self.v]


class Still(Momentum):
    def step(self):
        pass


class Unwritten(Momentum):
    def step(self):
        raise NotImplementedError


def plain_sgd(params):
    return SGD(params, 0.1, momentum=0.9)
