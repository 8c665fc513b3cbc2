"""Planted faults: each is a layer or loss with one mistake that the kit must catch.

A fault is made for a number of features and a generator; what it must be caught by is the name of
a contract's rule, or the arrays whose gradients are wrong.
"""

from typing import NamedTuple

import numpy as np
from layers import (
    ELEMENTWISE,
    AbsoluteError,
    BatchMean,
    CrossEntropy,
    Elementwise,
    Gain,
    Largest,
    Norm,
    Residual,
    Softmax,
    sigmoid,
)

from tinygrad_mnist import Dropout, Linear, Module, MSELoss, ReLU, Sequential

OUT = 3  # features that a faulty Linear answers with


class Fault(NamedTuple):
    make: object
    rule: str = ""
    arrays: frozenset = frozenset()


def broken_linear(mistake):
    """Return a Linear whose (dW, db, dx) go through mistake(dW, db, dx, x, dy, W)."""

    class BrokenLinear(Linear):
        def forward(self, x):
            self._rows = np.array(x).reshape(-1, self.in_features)
            return super().forward(x)

        def backward(self, dy):
            x, W = self._rows, self.weight.data
            dy = np.array(dy)
            rows = dy.reshape(-1, self.out_features)
            right = (x.T @ rows, rows.sum(axis=0), rows @ W.T)
            dW, db, dx = mistake(*right, x, rows, W)
            self.weight.accumulate(dW)
            self.bias.accumulate(db)
            return dx.reshape(*dy.shape[:-1], self.in_features)

    return lambda features, rng: BrokenLinear(features, OUT, rng=rng)


def without_entry(array, i):
    array = array.copy()
    array.reshape(-1)[i % array.size] = 0
    return array


def with_slope(name, slope):
    return lambda features, rng: Elementwise(ELEMENTWISE[name][0], slope)


def made(cls, *args, **members):
    """Return a maker of a subclass of cls with these members."""
    broken = type(f"Broken{cls.__name__}", (cls,), members)
    return lambda features, rng: broken(*(arg(features, rng) for arg in args))


def weight(make):
    return Fault(make, arrays=frozenset({"weight"}))


def bias(make):
    return Fault(make, arrays=frozenset({"bias"}))


def dx(make):
    return Fault(make, arrays=frozenset({"x"}))


def rule(name, make):
    return Fault(make, rule=name)


def rng_of(features, rng):
    return 0.25


class BrokenDropout(Dropout):
    def __init__(self, features, rng):
        super().__init__(0.25, rng=rng)


def dropout(**members):
    return type("BrokenDropout", (BrokenDropout,), members)


def in_place(self, x):
    x *= 2
    return Elementwise.forward(self, x)


def edits_dy(self, dy):
    dy *= self._mask
    dy *= self._factor
    return dy


def moves_weights(self, x):
    self.weight.data *= 1.5
    return Linear.forward(self, x)


def overwrites(self, dy):
    self.gain.zero_grad()
    self.shift.zero_grad()
    return Gain.backward(self, dy)


def pops(self, dy):
    x, self._x = self._x, np.zeros(dy.shape)
    return dy * self.slope(x)


def first_input_only(self, x):
    if getattr(self, "_first", None) is None:
        self._first = np.array(x)
    Gain.forward(self, x)
    y = self.gain.data * self._x + self.shift.data
    self._x = np.resize(self._first, self._x.shape)
    return y


def order_of_memory(self, x):
    x = np.asarray(x)
    return Elementwise.forward(self, x.ravel(order="K").reshape(x.shape))


def always_draws(self, x):
    training, self.training = self.training, True
    y = Dropout.forward(self, x)
    self.training = training
    return y


def draws_for_nothing(self, x):
    self.rng.random()
    return Dropout.forward(self, x)


class ClosureNoise(Module):
    """Draws from a generator that no attribute leads to."""

    def __init__(self, features, rng):
        def noise(shape):
            return rng.random(shape)

        self.noise = noise

    def forward(self, x):
        self._noise = self.noise(np.shape(x))
        return x * self._noise

    def backward(self, dy):
        return dy * self._noise


class TiedOneCache(Module):
    """y = f(f(x)) with one Linear that remembers one forward."""

    def __init__(self, features, rng):
        self.layer = Linear(features, features, rng=rng)

    def forward(self, x):
        return self.layer(self.layer(x))

    def backward(self, dy):
        return self.layer.backward(self.layer.backward(dy))


class WrongOrder(Module):
    """Runs backward first to last."""

    def __init__(self, features, rng):
        self.layers = [Linear(features, features, rng=rng), Elementwise(*ELEMENTWISE["tanh"])]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, dy):
        for layer in self.layers:
            dy = layer.backward(dy)
        return dy


def chain(layer):
    """Return a maker of a model with this layer in its middle; what precedes it goes wrong."""

    def make(features, rng):
        first, last = Linear(features, 4, rng=rng), Linear(4, 2, rng=rng)
        return Sequential(first, layer(4, rng), last)

    return Fault(make, arrays=frozenset({"x", "0.weight", "0.bias"}))


LAYERS = {
    "dW missing": weight(broken_linear(lambda dW, db, dx, x, dy, W: (0 * dW, db, dx))),
    "dW sign": weight(broken_linear(lambda dW, db, dx, x, dy, W: (-dW, db, dx))),
    "dW twice": weight(broken_linear(lambda dW, db, dx, x, dy, W: (2 * dW, db, dx))),
    "dW mean": weight(broken_linear(lambda dW, db, dx, x, dy, W: (dW / len(x), db, dx))),
    "dW one entry": weight(
        broken_linear(lambda dW, db, dx, x, dy, W: (without_entry(dW, 1), db, dx))
    ),
    "dW in half precision": rule(
        "linear", broken_linear(lambda dW, db, dx, x, dy, W: (dW.astype(np.float16), db, dx))
    ),
    "dW in single precision, and a bit": weight(
        broken_linear(lambda dW, db, dx, x, dy, W: (dW * (1 + 1e-5), db, dx))
    ),
    "dW without the last row": weight(
        broken_linear(lambda dW, db, dx, x, dy, W: (x[:-1].T @ dy[:-1], db, dx))
    ),
    "dW of |dy|": rule(
        "linear", broken_linear(lambda dW, db, dx, x, dy, W: (x.T @ abs(dy), db, dx))
    ),
    "dW with weight decay": rule(
        "linear", broken_linear(lambda dW, db, dx, x, dy, W: (dW + 0.1 * W, db, dx))
    ),
    "dW of centred x": weight(
        broken_linear(lambda dW, db, dx, x, dy, W: ((x - x.mean(0)).T @ dy, db, dx))
    ),
    "db missing": bias(broken_linear(lambda dW, db, dx, x, dy, W: (dW, 0 * db, dx))),
    "db sign": bias(broken_linear(lambda dW, db, dx, x, dy, W: (dW, -db, dx))),
    "db mean": bias(broken_linear(lambda dW, db, dx, x, dy, W: (dW, dy.mean(0), dx))),
    "db of the first row": rule(
        "rows-independent", broken_linear(lambda dW, db, dx, x, dy, W: (dW, dy[0], dx))
    ),
    "db one entry": bias(
        broken_linear(lambda dW, db, dx, x, dy, W: (dW, without_entry(db, 2), dx))
    ),
    "db of all outputs": bias(
        broken_linear(lambda dW, db, dx, x, dy, W: (dW, np.full_like(db, db.sum()), dx))
    ),
    "dx missing": dx(broken_linear(lambda dW, db, dx, x, dy, W: (dW, db, 0 * dx))),
    "dx sign": dx(broken_linear(lambda dW, db, dx, x, dy, W: (dW, db, -dx))),
    "dx halved": dx(broken_linear(lambda dW, db, dx, x, dy, W: (dW, db, 0.5 * dx))),
    "dx by W reversed": dx(broken_linear(lambda dW, db, dx, x, dy, W: (dW, db, dy @ W[::-1].T))),
    "dx one entry": dx(broken_linear(lambda dW, db, dx, x, dy, W: (dW, db, without_entry(dx, 0)))),
    "dx of clipped dy": rule(
        "linear", broken_linear(lambda dW, db, dx, x, dy, W: (dW, db, dy.clip(-1, 1) @ W.T))
    ),
    "dx averaged over rows": rule(
        "rows-independent",
        broken_linear(lambda dW, db, dx, x, dy, W: (dW, db, 0 * dx + dx.mean(0))),
    ),
    "ReLU: slope of the output, >= 0": dx(made(ReLU, backward=lambda self, dy: 1.0 * dy)),
    "ReLU: slope inverted": dx(made(ReLU, backward=lambda self, dy: dy * ~self._passed)),
    "ReLU: guided": rule(
        "linear", made(ReLU, backward=lambda self, dy: dy * self._passed * (dy > 0))
    ),
    "ReLU: leaky backward": dx(
        made(ReLU, backward=lambda self, dy: np.where(self._passed, dy, 0.01 * dy))
    ),
    "ReLU: the first row's mask": rule(
        "rows-independent",
        made(ReLU, backward=lambda self, dy: dy * (self._passed[0] if dy.ndim > 1 else 1)),
    ),
    "Dropout: no 1 / (1 - p) backward": dx(dropout(backward=lambda self, dy: dy * self._mask)),
    "Dropout: 1 / (1 - p) twice": dx(
        dropout(backward=lambda self, dy: dy * self._mask * self._factor**2)
    ),
    "Dropout: no mask backward": dx(dropout(backward=lambda self, dy: dy * self._factor)),
    "Dropout: a fresh mask backward": rule(
        "adds",
        dropout(backward=lambda self, dy: dy * self.draw_mask(dy.shape) * self._factor),
    ),
    "Dropout: edits dy in place": rule("keeps-dy", dropout(backward=edits_dy)),
    "Dropout: drops in evaluation": rule("eval-deterministic", dropout(forward=always_draws)),
    "Dropout: draws in evaluation": rule("eval-deterministic", dropout(forward=draws_for_nothing)),
    "noise from a closure": rule("reproducible", ClosureNoise),
    "x edited in place": rule(
        "keeps-input",
        lambda features, rng: type("InPlace", (Elementwise,), {"forward": in_place})(
            *ELEMENTWISE["tanh"]
        ),
    ),
    "weights moved by forward": rule(
        "keeps-parameters",
        lambda features, rng: type("Moves", (Linear,), {"forward": moves_weights})(
            features, OUT, rng=rng
        ),
    ),
    "gradient overwritten": rule(
        "adds", lambda features, rng: type("Sets", (Gain,), {"backward": overwrites})(features)
    ),
    "cache used up": rule(
        "adds",
        lambda features, rng: type("Pops", (Elementwise,), {"backward": pops})(
            *ELEMENTWISE["square"]
        ),
    ),
    "the first input remembered for good": Fault(
        lambda features, rng: type("Stale", (Gain,), {"forward": first_input_only})(features),
        rule="rows-independent",
    ),
    "order of memory": rule(
        "layout",
        lambda features, rng: type("Order", (Elementwise,), {"forward": order_of_memory})(
            *ELEMENTWISE["tanh"]
        ),
    ),
    "dx of another shape": rule(
        "shape",
        made(ReLU, backward=lambda self, dy: (dy * self._passed).sum(-1, keepdims=True)[..., :0]),
    ),
    "dx flat": rule(
        "shape", made(ReLU, backward=lambda self, dy: (dy * self._passed).reshape(1, -1, 1))
    ),
    "dx None": rule("shape", made(ReLU, backward=lambda self, dy: None)),
    "y in float32": rule(
        "dtype", made(ReLU, forward=lambda self, x: ReLU.forward(self, x).astype(np.float32))
    ),
    "dx in float32": rule(
        "dtype", made(ReLU, backward=lambda self, dy: (dy * self._passed).astype(np.float32))
    ),
    "backward squares dy": rule(
        "linear", made(ReLU, backward=lambda self, dy: self._passed * dy * abs(dy))
    ),
    "rows mixed": rule("rows-independent", lambda features, rng: BatchMean()),
    "noise in evaluation": rule(
        "eval-deterministic",
        made(
            ReLU,
            forward=lambda self, x: (
                ReLU.forward(self, x)
                * (1 if self.training else np.random.random_sample(np.shape(x)))  # noqa: NPY002
            ),
        ),
    ),
    "tanh' = 1 - y": dx(with_slope("tanh", lambda x: 1 - np.tanh(x))),
    "tanh' of the output": dx(with_slope("tanh", lambda x: 1 - np.tanh(np.tanh(x)) ** 2)),
    "sigmoid' = y": dx(with_slope("sigmoid", sigmoid)),
    "square' = x": dx(with_slope("square", lambda x: x)),
    "sine' = -cosine": dx(with_slope("sine", lambda x: -np.cos(x))),
    "steep tanh' without its factor": dx(
        with_slope("steep tanh", lambda x: 1 - np.tanh(200 * x) ** 2)
    ),
    "softmax' without its sum": dx(made(Softmax, backward=lambda self, dy: self._y * dy)),
    "softmax' = 0": dx(made(Softmax, backward=lambda self, dy: 0 * dy)),
    "softmax' times 7": dx(made(Softmax, backward=lambda self, dy: 7 * Softmax.backward(self, dy))),
    "norm with a constant deviation": dx(
        made(Norm, backward=lambda self, dy: (dy - dy.mean(-1, keepdims=True)) / self._std)
    ),
    "norm with a constant mean": dx(
        made(
            Norm,
            backward=lambda self, dy: (
                (dy - self._y * np.mean(dy * self._y, axis=-1, keepdims=True)) / self._std
            ),
        )
    ),
    "maximum paid to every entry": dx(
        made(Largest, backward=lambda self, dy: dy * np.ones(self._where.shape))
    ),
    "gain of the mean": Fault(
        lambda features, rng: type(
            "MeanGain",
            (Gain,),
            {
                "backward": lambda self, dy: (
                    self.gain.accumulate(np.mean(np.reshape(dy * self._x, (-1, features)), axis=0)),
                    self.shift.accumulate(np.reshape(dy, (-1, features)).sum(axis=0)),
                    self.gain.data * dy,
                )[-1]
            },
        )(features),
        arrays=frozenset({"gain"}),
    ),
    "gain forgotten in dx": dx(
        lambda features, rng: type(
            "NoGain", (Gain,), {"backward": lambda self, dy: (Gain.backward(self, dy), dy)[-1]}
        )(features)
    ),
    "skip forgotten": dx(
        lambda features, rng: type(
            "Skips", (Residual,), {"backward": lambda self, dy: self.inner.backward(dy)}
        )(Linear(features, features, rng=rng))
    ),
    "tied layer with one cache": Fault(TiedOneCache, arrays=frozenset({"x", "layer.weight"})),
    "backward first to last": Fault(
        WrongOrder, arrays=frozenset({"x", "layers.0.weight", "layers.0.bias"})
    ),
    "in a chain: ReLU of the output": chain(made(ReLU, backward=lambda self, dy: 1.0 * dy)),
    "in a chain: Dropout without 1 / (1 - p)": chain(
        dropout(backward=lambda self, dy: dy * self._mask)
    ),
    "in a chain: tanh' = 1 - y": chain(with_slope("tanh", lambda x: 1 - np.tanh(x))),
}


def mse(gradient):
    """Return a mean squared error whose gradient is gradient(error)."""
    return type("BrokenMSE", (MSELoss,), {"backward": lambda self: gradient(self._error)})


class Broadcasts:
    """A mean squared error of whatever broadcasts."""

    def __call__(self, pred, target):
        self._error = pred - target.reshape(-1)
        return float(np.mean(self._error**2))

    def backward(self):
        return 2 * self._error / self._error.size


class EditsPred(MSELoss):
    def __call__(self, pred, target):
        pred -= target
        return super().__call__(pred, np.zeros_like(pred))


LOSSES = {
    "the sum's gradient": Fault(mse(lambda e: 2 * e)),
    "no factor 2": Fault(mse(lambda e: e / e.size)),
    "sign": Fault(mse(lambda e: -2 * e / e.size)),
    "divided by the rows": Fault(mse(lambda e: 2 * e / len(e))),
    "divided twice": Fault(mse(lambda e: 2 * e / e.size / len(e))),
    "of the absolute error": Fault(mse(lambda e: np.sign(e) / e.size)),
    "broadcast (N, 1) - (N,)": Fault(Broadcasts, rule="shape"),
    "pred edited": Fault(EditsPred, rule="keeps-input"),
    "absolute error: no mean": Fault(
        type("NoMean", (AbsoluteError,), {"backward": lambda self: np.sign(self._error)})
    ),
    "cross-entropy: not divided": Fault(
        type(
            "Undivided",
            (CrossEntropy,),
            {"backward": lambda self: CrossEntropy.backward(self) * len(self._p)},
        )
    ),
    "cross-entropy: softmax only": Fault(
        type("SoftmaxOnly", (CrossEntropy,), {"backward": lambda self: self._p / len(self._p)})
    ),
}
