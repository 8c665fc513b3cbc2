"""Planted faults: layers and losses with one mistake each, which the kit must catch.

A fault is caught by a contract's rule, or by a gradient of one of the named arrays being wrong.
"""

from collections import deque
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from layers import (
    ELEMENTWISE,
    AbsoluteError,
    BatchMean,
    ColumnMean,
    Counting,
    CrossEntropy,
    Dropout,
    Elementwise,
    Embedding,
    Gain,
    Largest,
    Linear,
    Product,
    ReLU,
    of_shape,
    sigmoid,
    softmax,
)

from tinygrad_mnist import Buffer, Module, MSELoss, Parameter, Sequential, losses, nn
from tinygrad_mnist.nn.norm import moments
from tinygrad_mnist.testing import check_gradients

# how a layer of each kind is made, given its class, a number of features and a generator
MAKERS = {
    Dropout: lambda cls, features, rng: cls(0.25, rng),
    Elementwise: lambda cls, features, rng: cls(*ELEMENTWISE["tanh"]),
    Embedding: lambda cls, features, rng: cls(CLASSES, features, rng),
    Gain: lambda cls, features, rng: cls(features),
    Linear: lambda cls, features, rng: cls(features, 3, rng),
    Product: lambda cls, features, rng: cls(features),
    nn.AvgPool2d: lambda cls, features, rng: cls((2, 1), stride=1),
    nn.BatchNorm: lambda cls, features, rng: cls(features),
    nn.Conv2d: lambda cls, features, rng: cls(features, 2, (2, 3), padding=1, rng=rng),
    nn.LayerNorm: lambda cls, features, rng: cls(features),
    nn.MaxPool2d: lambda cls, features, rng: cls(2, stride=1),
    nn.Parallel: lambda cls, features, rng: cls(Linear(features, 2, rng), nn.Tanh()),
    nn.Residual: lambda cls, features, rng: cls(
        Linear(features, 2, rng), shortcut=Linear(features, 2, rng)
    ),
    nn.Unflatten: lambda cls, features, rng: cls((2, features)),
}
CLASSES = 4  # of an Embedding


def images(x, rng):
    return rng.standard_normal((len(x), 3, 4, x.shape[1]))


# what layers take that take no (rows, features), made of such an x and a generator
INPUTS = {
    ColumnMean: lambda x, rng: rng.standard_normal((len(x), 3, 2, x.shape[1])),
    Embedding: lambda x, rng: rng.integers(0, CLASSES, (len(x), 3)),
    Product: lambda x, rng: (x, rng.standard_normal(x.shape)),
    nn.AvgPool2d: images,
    nn.BatchNorm: lambda x, rng: np.concatenate([x, x + 1]),  # two rows at least
    nn.Conv2d: images,
    nn.Flatten: images,
    nn.MaxPool2d: images,
    nn.Unflatten: lambda x, rng: np.hstack([x, x + 1]),
}
BATCH = {"rows_independent": False, "forms": ("batch",)}


class Fault(NamedTuple):
    make: object  # from (features, rng); of a loss, from nothing
    rule: str = ""
    arrays: frozenset = frozenset()
    inputs: object = lambda x, rng: x  # of a loss, pred and target
    settings: dict = {}  # noqa: RUF012

    def check(self, x, rng, **settings):
        """Check the layer, made for x (rows, features), on x or on what it takes instead."""
        layer = self.make(x.shape[1], rng)
        return check_gradients(layer, self.inputs(x, rng), **self.settings, **settings)


def fault(base, *arrays, rule="", settings=(), **members):
    """Return a fault in a layer: a subclass of base with other methods."""
    broken = type(f"Broken{base.__name__}", (base,), members)
    made = MAKERS.get(base, lambda cls, features, rng: cls())

    def make(features, rng):
        return made(broken, features, rng)

    inputs = INPUTS.get(base, lambda x, rng: x)
    return Fault(make, rule, frozenset(arrays), inputs, dict(settings))


def dx(base, wrong_dx, rule=""):
    """Return a fault whose backward is wrong_dx(self, dy)."""
    return fault(base, *[] if rule else ["x"], rule=rule, backward=wrong_dx)


def linear(rule="", **mistakes):
    """Return a fault in Linear: mistakes are wrong dW, db or dx, as functions of all that there is.

    Their argument has x, dy (rows), W and the right dW, db, dx.
    """

    def backward(self, dy):
        W = self.weight.data
        x, rows = self._x.reshape(-1, len(W)), np.array(dy).reshape(-1, W.shape[1])
        has = SimpleNamespace(x=x, dy=rows, W=W, dW=x.T @ rows, db=rows.sum(0), dx=rows @ W.T)
        found = {
            name: mistakes.get(name, lambda has, name=name: vars(has)[name])(has) for name in NAMES
        }
        self.weight.accumulate(found["dW"])
        self.bias.accumulate(found["db"])
        return found["dx"].reshape(self._x.shape)

    return fault(
        Linear, *[] if rule else [NAMES[name] for name in mistakes], rule=rule, backward=backward
    )


NAMES = {"dW": "weight", "db": "bias", "dx": "x"}


def without(array, i):
    """Return a copy in which one entry is 0."""
    array = array.copy()
    array.reshape(-1)[i % array.size] = 0
    return array


def slope(name, wrong_slope):
    """Return a fault in an elementwise function: a wrong derivative."""
    return Fault(lambda features, rng: Elementwise(ELEMENTWISE[name][0], wrong_slope), arrays={"x"})


def derivative(base, wrong):
    """Return a fault in an activation of the package: a wrong f'(x)."""

    def compute(self, x):
        return base.compute(self, x)[0], wrong(x)

    return fault(base, "x", compute=compute)


def chain(middle):
    """Return a model with a faulty layer in its middle: everything before it goes wrong."""

    def make(features, rng):
        first, last = Linear(features, 4, rng), Linear(4, 2, rng)
        return Sequential(first, middle.make(4, rng), last)

    return Fault(make, arrays=frozenset({"x", "0.weight", "0.bias"}))


def with_numbers(x, rng):
    return x, rng.standard_normal(x.shape)


def with_labels(x, rng):
    return rng.standard_normal((len(x), CLASSES)), rng.integers(0, CLASSES, len(x))


def with_fractions(x, rng):
    return x, rng.choice([0, 1, 0.25], x.shape)


# pred and target for losses that take other targets than numbers
PAIRS = {
    CrossEntropy: with_labels,
    losses.CrossEntropyLoss: with_labels,
    losses.BCEWithLogitsLoss: with_fractions,
}


def loss(base, rule="", settings=(), **members):
    """Return a fault in a loss: a subclass of base with other members."""
    broken = type(f"Broken{base.__name__}", (base,), members)
    pairs = PAIRS.get(base, with_numbers)
    return Fault(lambda: broken(**dict(settings)), rule, inputs=pairs)


def slope_of(base, wrong, **settings):
    """Return a fault in a loss of the package: its slope is wrong(self, y, t)."""

    def compute(self, y, t):
        total, _, n = base.compute(self, y, t)
        return total, wrong(self, y, t), n

    return loss(base, settings=settings, compute=compute)


# Methods with one mistake


def edits_dy(self, dy):
    dy *= self._mask
    dy *= self._factor
    return dy


def edits_x(self, x):
    x *= 2
    return Elementwise.forward(self, x)


def moves_weights(self, x):
    self.weight.data *= 1.5
    return Linear.forward(self, x)


def sets_gradients(self, dy):
    self.zero_grad()
    return Gain.backward(self, dy)


def mean_of_rows(self, dy):
    features = self._x.shape[-1]
    self.gain.accumulate(np.mean(np.reshape(dy * self._x, (-1, features)), axis=0))
    self.shift.accumulate(np.reshape(dy, (-1, features)).sum(axis=0))
    return self.gain.data * dy


def forgets_gain(self, dy):
    Gain.backward(self, dy)
    return dy


def forgets_x(self, dy):
    x, self._x = self._x, np.zeros(dy.shape)
    return dy * self.slope(x)


def remembers_first_x(self, x):
    y = Gain.forward(self, x)
    if not hasattr(self, "_first"):
        self._first = self._x
    self._x = np.resize(self._first, self._x.shape)
    return y


def in_order_of_memory(self, x):
    x = np.asarray(x)
    return Elementwise.forward(self, x.ravel(order="K").reshape(x.shape))


def forgets_stretched(self, x):
    return Elementwise.forward(self, x) * (0 not in np.asarray(x).strides)


def forgets_the_middle_row(self, x):
    y = Elementwise.forward(self, x)
    if y.ndim > 1 and len(y) > 1:
        y[len(y) // 2] = 0
    return y


def multiplies_in_place(self, x):
    x *= np.ones(x.shape[-1])  # a gain at its usual start: nothing to be seen in x
    return Gain.forward(self, x)


def with_a_count(self, features):
    Gain.__init__(self, features)
    self.count = Buffer(0)


def replaces_its_count(self, x):
    self.count = np.asarray(1)  # no longer a Buffer, and not saved any more
    return Gain.forward(self, x)


def drops_always(self, x):
    training, self.training = self.training, True
    y = Dropout.forward(self, x)
    self.training = training
    return y


def draws_always(self, x):
    self.rng.random()
    return Dropout.forward(self, x)


def noisy_in_evaluation(self, x):
    y = ReLU.forward(self, x)
    return y if self.training else y * np.random.random_sample(y.shape)  # noqa: NPY002


def forgets_the_mode(self, x):
    return Dropout.forward(self, x) if self.training else np.array(x)


def by_any_mask(self, dy):
    return Dropout.backward(self, dy) if hasattr(self, "_mask") else np.array(dy)


def follows_in_an_attribute(self, x):
    if self.training:
        self.mean = np.mean(x, axis=tuple(range(np.ndim(x) - 1)))
    return Gain.forward(self, x) + (0 if self.training else getattr(self, "mean", 0))


def remembers_evaluation(self, x):
    self.evaluated = not self.training or getattr(self, "evaluated", False)
    return Gain.forward(self, x) * (2 if self.evaluated else 1)


# Of BatchNorm and LayerNorm


def of_a_constant_mean(self, dy):
    dn = dy * self.weight.data
    dx = type(self).__base__.backward(self, dy)
    if self._axes is None:  # no samples
        return dx
    return dx + dn.mean(axis=self._axes, keepdims=True) / self._std


def of_a_constant_var(self, dy):
    n, dn = self._n, dy * self.weight.data
    dx = type(self).__base__.backward(self, dy)
    if self._axes is None:
        return dx
    return dx + n * (dn * n).mean(axis=self._axes, keepdims=True) / self._std


def over_the_first_axis(self, x):
    _, centred, var = moments(x, (0,))
    return centred, var, (0,)


def follows_in_backward(self, dy):
    self.running_mean.data += 1
    return nn.BatchNorm.backward(self, dy)


def follows_in_evaluation(self, x):
    y = nn.BatchNorm.forward(self, x)
    if not self.training:
        self.running_mean.data += 0.1
    return y


def normalizes_in_evaluation(self, x):
    training, self.training = self.training, True
    y = nn.BatchNorm.forward(self, x)
    self.training = training
    return y


def counts_in_an_attribute(self, x):
    self._n = self._n + 1 if hasattr(self, "_n") else 1
    return self._n * x


# Of the package's activations


def gelu_slope_by_tanh(x):
    root = np.sqrt(2 / np.pi)
    t = np.tanh(root * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x)


# Of the package's branches


def first_dx(self, dy):
    return self._input_grads([dy, dy])[0]


def last_dx(self, dy):
    return self._input_grads([dy[..., :2], dy[..., 2:]])[-1]


# Of the package's layers of images


def with_flipped_kernel(self, dy):
    W = self.weight.data.copy()
    self.weight.data = W[::-1, ::-1]
    dx = nn.Conv2d.backward(self, dy)
    self.weight.data = W
    return dx


def dW_changed(change):
    """Return a backward of Conv2d that changes what it adds to the gradient of the weight."""

    def backward(self, dy):
        before = self.weight.grad.copy()
        dx = nn.Conv2d.backward(self, dy)
        self.weight.grad = before + change(self.weight.grad - before)
        return dx

    return backward


def of_the_first_pixel(dW):
    first = np.zeros_like(dW)
    first[0, 0] = dW[0, 0]
    return first


def off_by_the_padding(self, dy):
    return np.roll(nn.Conv2d.backward(self, dy), 1, axis=(-3, -2))


def of_the_last_window(self, dy):
    backward, dy = type(self).__base__.backward, np.asarray(dy)
    dx = backward(self, np.zeros_like(dy))
    (kh, kw), (sh, sw) = self.kernel_size, self.stride
    top, left = getattr(self, "padding", (0, 0))
    for r, c in np.ndindex(dy.shape[-3:-1]):
        alone = np.zeros_like(dy)
        alone[..., r, c, :] = dy[..., r, c, :]
        i, j = r * sh - top, c * sw - left
        window = ..., slice(max(i, 0), i + kh), slice(max(j, 0), j + kw), slice(None)
        dx[window] = backward(self, alone)[window]  # replaces what the window before has put there
    return dx


# Of Product: two inputs


def edits_b(self, a, b):
    b *= 2
    return Product.forward(self, a, b)


def b_in_order_of_memory(self, a, b):
    return Product.forward(self, a, np.ravel(b, order="K").reshape(b.shape))


def b_of_other_rows(self, a, b):
    return Product.forward(self, a, b[::-1])


def changed(i, change):
    """Return a backward of Product with a mistake in the gradient of one input."""

    def backward(self, dy):
        dxs = list(Product.backward(self, dy))
        dxs[i] = change(dxs[i])
        return tuple(dxs)

    return backward


def b_once(self, dy):
    da, db = Product.backward(self, dy)
    self._a = 0 * self._a
    return da, db


# Of Embedding: integers


def overwrites(self, dy):
    grad = np.zeros(self.weight.data.shape)
    grad[self._x] = dy  # the last of equal indices wins
    self.weight.accumulate(grad)


def edits_indices(self, x):
    y = Embedding.forward(self, x)
    x += 1
    return y


# Of images


def spreads(self, dy):
    return np.broadcast_to(np.expand_dims(dy, -3), self._shape)


def mean_of_images(self, x):
    return ColumnMean.forward(self, x - x.mean(axis=tuple(range(x.ndim - 3))) if x.ndim > 3 else x)


# Layers whose mistake is their structure


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
        self.layer = Linear(features, features, rng)

    def forward(self, x):
        return self.layer(self.layer(x))

    def backward(self, dy):
        return self.layer.backward(self.layer.backward(dy))


class WrongOrder(Module):
    """Runs backward first to last."""

    def __init__(self, features, rng):
        self.layers = [Linear(features, features, rng), Elementwise(*ELEMENTWISE["tanh"])]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, dy):
        for layer in self.layers:
            dy = layer.backward(dy)
        return dy


# Rules that come before the gradients


def not_written(self, *arrays):
    raise NotImplementedError("your code here")


def with_a_hidden_parameter(self, features):
    Gain.__init__(self, features)
    self.parts = SimpleNamespace(shift=Parameter(np.zeros(features)))


def with_parameters_in_a_deque(self, features):
    Gain.__init__(self, features)
    self.parts = deque([Parameter(np.zeros(features))])


def with_parameters_in_an_array(self, features):
    Gain.__init__(self, features)
    self.parts = np.full(1, Parameter(np.zeros(features)), object)


def with_a_hidden_layer(self, p, rng):
    Dropout.__init__(self, p, rng)
    self.parts = {nn.Dropout(p, rng=rng)}


def softmax_that_overflows(self, x):
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(x)
        self._y = e / e.sum(axis=-1, keepdims=True)
    return self._y.copy()


def twice_the_first_time(self, x):
    y = Gain.forward(self, x)
    first, self._called = not hasattr(self, "_called"), True
    return 2 * y if first else y


def backward_twice_the_first_time(self, dy):
    dx = Gain.backward(self, dy)
    first, self._called = not hasattr(self, "_called"), True
    return 2 * dx if first else dx


def clears_gradients(self, x):
    self.zero_grad()
    return Gain.forward(self, x)


def forward_that_counts(self, x):
    self._since = 0
    return Gain.forward(self, x)


def wrong_the_third_time(self, dy):
    self._since += 1
    return Gain.backward(self, dy) * (2 if self._since == 3 else 1)


def wrong_in_the_end(self, dy):
    self._backwards = getattr(self, "_backwards", 0) + 1
    return Gain.backward(self, dy) * (2 if self._backwards > 40 else 1)


def to_two_rms(dy):
    limit = 2 * np.sqrt(np.mean(np.square(dy)))
    return np.clip(dy, -limit, limit)


def without_small_entries(dy):
    return np.where(np.abs(dy) < 0.25 * np.max(np.abs(dy)), 0, dy)


def nan_at_zero(dy):
    with np.errstate(divide="ignore", invalid="ignore"):
        return dy * (dy / dy)


# Rules that come after the gradients


def wrong_where(condition):
    """Return a backward of Gain that is wrong if condition(dy)."""

    def backward(self, dy):
        return Gain.backward(self, dy) * (2 if condition(dy) else 1)

    return backward


def in_float64(self, x):
    return Gain.forward(self, x).astype(np.float64)


def dx_in_float64(self, dy):
    return Gain.backward(self, dy).astype(np.float64)


def halved_in_float32(self, x):
    y = Gain.forward(self, x)
    return y / 2 if y.dtype == np.float32 else y


def into_one_array(name, method):
    """Return a method that copies its result into an array of the layer, which it returns."""

    def put(self, array):
        result, kept = method(self, array), getattr(self, name, None)
        if np.shape(kept) != result.shape or kept.dtype != result.dtype:
            kept = np.empty_like(result)
        kept[...] = result
        setattr(self, name, kept)
        return kept

    return put


def into_two_arrays(method):
    """Return a method that copies its result into one of two arrays of the layer, in turn."""

    def put(self, array):
        self._turn = not getattr(self, "_turn", True)
        return into_one_array(f"_out{self._turn:d}", method)(self, array)

    return put


def keeps_x_itself(self, x):
    y = Elementwise.forward(self, x)
    self._x = x
    return y


def keeps_y_itself(self, x):
    self._y = np.tanh(x)
    return self._y


def keeps_dy_itself(self, dy):
    rows = np.reshape(dy, (-1, self.bias.data.size))
    self.weight.accumulate_product(self._x.reshape(-1, len(self.weight.data)), rows)
    self.bias.accumulate(rows.sum(axis=0))
    return dy @ self.weight.data.T


def remembers_dx(self, dy):
    last, dx, x = getattr(self, "_answer", (None, None, None))
    if x is not self._x or not np.array_equal(last, dy):
        last, dx = np.array(dy), Elementwise.backward(self, dy)
    self._answer = last, dx, self._x
    return dx


def whatever_broadcasts(self, dy):
    self.gain.accumulate((dy * self._x).reshape(-1, self.gain.data.size).sum(axis=0))
    self.shift.accumulate(np.reshape(dy, (-1, self.gain.data.size)).sum(axis=0))
    return self.gain.data * dy


def none_without_a_forward(self, dy):
    return Elementwise.backward(self, dy) if hasattr(self, "_x") else None


class RememberedZero(Gain):
    """A Gain that starts with an x of zeros."""

    def __init__(self, features, rng):
        super().__init__(features)
        self._x = np.zeros((1, features))

    def backward(self, dy):
        return whatever_broadcasts(self, dy)


LAYERS = {
    "forward not written": fault(ReLU, rule="implemented", forward=not_written),
    "backward not written": fault(ReLU, rule="implemented", backward=not_written),
    "forward without a return": fault(ReLU, rule="implemented", forward=lambda self, x: None),
    "a Parameter in a namespace": fault(
        Gain, rule="finds-parameters", __init__=with_a_hidden_parameter
    ),
    "a Parameter in a deque": fault(
        Gain, rule="finds-parameters", __init__=with_parameters_in_a_deque
    ),
    "a Parameter in an array": fault(
        Gain, rule="finds-parameters", __init__=with_parameters_in_an_array
    ),
    "a layer in a set": fault(Dropout, rule="finds-parameters", __init__=with_a_hidden_layer),
    "softmax that overflows": fault(
        nn.Softmax, rule="finite", forward=softmax_that_overflows
    )._replace(inputs=lambda x, rng: 1e4 * x),
    "first forward unlike the others": fault(
        Gain, rule="reproducible", forward=twice_the_first_time
    ),
    "first backward unlike the others": fault(
        Gain, rule="reproducible", backward=backward_twice_the_first_time
    ),
    "gradients cleared by forward": fault(Gain, rule="accumulates", forward=clears_gradients),
    "wrong for a dy of ones": fault(
        Gain, rule="linear", backward=wrong_where(lambda dy: dy.size > 1 and np.all(dy == 1))
    ),
    "third backward doubled": fault(
        Gain, rule="accumulates", forward=forward_that_counts, backward=wrong_the_third_time
    ),
    "backwards doubled from the 41st": fault(Gain, rule="accumulates", backward=wrong_in_the_end),
    "dx of dy clipped at 5": dx(
        Gain, lambda self, dy: Gain.backward(self, np.clip(dy, -5, 5)), "linear"
    ),
    "dx of dy clipped at 2 rms": dx(
        Gain, lambda self, dy: Gain.backward(self, to_two_rms(dy)), "linear"
    ),
    "small entries of dy dropped": dx(
        Gain, lambda self, dy: Gain.backward(self, without_small_entries(dy)), "linear"
    ),
    "NaN where dy is 0": dx(Gain, lambda self, dy: Gain.backward(self, nan_at_zero(dy)), "linear"),
    "wrong for more than 8 rows": fault(
        Gain, rule="many-rows", backward=wrong_where(lambda dy: dy.ndim == 2 and len(dy) > 8)
    ),
    "wrong for a first axis longer than 1 of three": fault(
        Gain, rule="many-rows", backward=wrong_where(lambda dy: dy.ndim == 3 and len(dy) > 1)
    ),
    "wrong for four axes": fault(
        Gain, rule="many-rows", backward=wrong_where(lambda dy: dy.ndim == 4)
    ),
    "y of float32 in float64": fault(Gain, rule="float32", forward=in_float64),
    "dx of float32 in float64": fault(Gain, rule="float32", backward=dx_in_float64),
    "y wrong in float32 alone": fault(Gain, rule="float32", forward=halved_in_float32),
    "dx wrong in float32 alone": fault(
        Gain, rule="float32", backward=wrong_where(lambda dy: dy.dtype == np.float32)
    ),
    "y in an array used again": fault(
        Gain, rule="keeps-results", forward=into_one_array("_out", Gain.forward)
    ),
    "y in two arrays used in turn": fault(
        Gain, rule="keeps-results", forward=into_two_arrays(Gain.forward)
    ),
    "dx in two arrays used in turn": fault(
        Gain, rule="keeps-results", backward=into_two_arrays(Gain.backward)
    ),
    "dx in an array used again": fault(
        Gain, rule="keeps-results", backward=into_one_array("_back", Gain.backward)
    ),
    "x kept without a copy": fault(Elementwise, rule="own-copies", forward=keeps_x_itself),
    "y kept without a copy": fault(
        ReLU,
        rule="own-copies",
        forward=keeps_y_itself,
        backward=lambda self, dy: dy * (1 - self._y**2),
    ),
    "dy kept without a copy": fault(Linear, rule="own-copies", backward=keeps_dy_itself),
    "dx kept without a copy": fault(Elementwise, rule="own-copies", backward=remembers_dx),
    "dW missing": linear(dW=lambda has: 0 * has.dW),
    "dW sign": linear(dW=lambda has: -has.dW),
    "dW twice": linear(dW=lambda has: 2 * has.dW),
    "dW mean": linear(dW=lambda has: has.dW / len(has.x)),
    "dW one entry": linear(dW=lambda has: without(has.dW, 1)),
    # rounding is not linear, and the contract comes first
    "dW in half precision": linear(dW=lambda has: has.dW.astype(np.float16), rule="linear"),
    "dW off by 1e-5": linear(dW=lambda has: has.dW * (1 + 1e-5)),
    "dW without the last row": linear(
        dW=lambda has: has.x[:-1].T @ has.dy[:-1], rule="rows-independent"
    ),
    "dW of |dy|": linear(dW=lambda has: has.x.T @ abs(has.dy), rule="linear"),
    "dW with weight decay": linear(dW=lambda has: has.dW + 0.1 * has.W, rule="linear"),
    "dW of centred x": linear(dW=lambda has: (has.x - has.x.mean(0)).T @ has.dy),
    "db missing": linear(db=lambda has: 0 * has.db),
    "db sign": linear(db=lambda has: -has.db),
    "db mean": linear(db=lambda has: has.dy.mean(0)),
    "db of the first row": linear(db=lambda has: has.dy[0], rule="rows-independent"),
    "db one entry": linear(db=lambda has: without(has.db, 2)),
    "db of all outputs": linear(db=lambda has: np.full_like(has.db, has.db.sum())),
    "dx missing": linear(dx=lambda has: 0 * has.dx),
    "dx sign": linear(dx=lambda has: -has.dx),
    "dx halved": linear(dx=lambda has: 0.5 * has.dx),
    "dx by W reversed": linear(dx=lambda has: has.dy @ has.W[::-1].T),
    "dx one entry": linear(dx=lambda has: without(has.dx, 0), rule="rows-independent"),
    "dx infinite": linear(dx=lambda has: has.dx * np.inf, rule="finite"),
    "dx of clipped dy": linear(dx=lambda has: has.dy.clip(-1, 1) @ has.W.T, rule="linear"),
    "dx of the mean row": linear(
        dx=lambda has: 0 * has.dx + has.dx.mean(0), rule="rows-independent"
    ),
    "ReLU: slope of the output, >= 0": dx(ReLU, lambda self, dy: 1.0 * dy),
    "ReLU: slope inverted": dx(ReLU, lambda self, dy: dy * ~self._passed),
    "ReLU: leaky backward": dx(ReLU, lambda self, dy: np.where(self._passed, dy, 0.01 * dy)),
    "ReLU: guided": dx(ReLU, lambda self, dy: dy * self._passed * (dy > 0), "linear"),
    "ReLU: dy squared": dx(ReLU, lambda self, dy: self._passed * dy * abs(dy), "linear"),
    "ReLU: the first row's mask": dx(
        ReLU, lambda self, dy: dy * (self._passed[0] if dy.ndim > 1 else 1), "rows-independent"
    ),
    "dx flat": dx(ReLU, lambda self, dy: (dy * self._passed).reshape(1, -1, 1), "shape"),
    "dx empty": dx(ReLU, lambda self, dy: dy[..., :0], "shape"),
    "dx None": dx(ReLU, lambda self, dy: None, "shape"),
    "dx in float32": dx(ReLU, lambda self, dy: (dy * self._passed).astype("f4"), "dtype"),
    "y in float32": fault(
        ReLU, rule="dtype", forward=lambda self, x: ReLU.forward(self, x).astype("f4")
    ),
    "Dropout: no 1 / (1 - p) backward": dx(Dropout, lambda self, dy: dy * self._mask),
    "Dropout: 1 / (1 - p) twice": dx(Dropout, lambda self, dy: dy * self._mask * self._factor**2),
    "Dropout: no mask backward": dx(Dropout, lambda self, dy: dy * self._factor),
    "Dropout: a fresh mask backward": dx(
        Dropout, lambda self, dy: dy * self.draw_mask(dy.shape) * self._factor, "accumulates"
    ),
    "Dropout: edits dy in place": dx(Dropout, edits_dy, "keeps-dy"),
    "Dropout: drops in evaluation": fault(Dropout, rule="eval-deterministic", forward=drops_always),
    "Dropout: draws in evaluation": fault(Dropout, rule="eval-deterministic", forward=draws_always),
    "Dropout: the mask of training in evaluation": fault(
        Dropout, rule="eval-deterministic", forward=forgets_the_mode, backward=by_any_mask
    ),
    "Dropout: no mask of its own in evaluation": fault(
        Dropout, rule="eval-deterministic", forward=forgets_the_mode
    ),
    "a mean kept in no Buffer": fault(
        Gain, rule="eval-deterministic", forward=follows_in_an_attribute
    ),
    "evaluation for good": fault(Gain, rule="eval-deterministic", forward=remembers_evaluation),
    "noise in evaluation": fault(ReLU, rule="eval-deterministic", forward=noisy_in_evaluation),
    "noise from a closure": Fault(ClosureNoise, rule="reproducible"),
    "x edited in place": fault(Elementwise, rule="keeps-input", forward=edits_x),
    "weights changed by forward": fault(Linear, rule="keeps-parameters", forward=moves_weights),
    "gradient set, not added": fault(Gain, rule="accumulates", backward=sets_gradients),
    "cache used up": fault(Elementwise, rule="accumulates", backward=forgets_x),
    "first x remembered for good": fault(Gain, rule="rows-independent", forward=remembers_first_x),
    "x multiplied by ones in place": fault(Gain, rule="keeps-input", forward=multiplies_in_place),
    "a Buffer replaced by an array": fault(
        Gain, rule="keeps-parameters", __init__=with_a_count, forward=replaces_its_count
    ),
    "order of memory": fault(Elementwise, rule="layout", forward=in_order_of_memory),
    "broadcast arrays": fault(Elementwise, rule="layout", forward=forgets_stretched),
    "middle row forgotten": fault(
        Elementwise, rule="rows-independent", forward=forgets_the_middle_row
    ),
    "rows mixed": fault(BatchMean, rule="rows-independent"),
    "tanh' = 1 - y": slope("tanh", lambda x: 1 - np.tanh(x)),
    "tanh' of the output": slope("tanh", lambda x: 1 - np.tanh(np.tanh(x)) ** 2),
    "sigmoid' = y": slope("sigmoid", sigmoid),
    "square' = x": slope("square", lambda x: x),
    "sine' = -cosine": slope("sine", lambda x: -np.cos(x)),
    "steep tanh' without its factor": slope("steep tanh", lambda x: 1 - np.tanh(200 * x) ** 2),
    "maximum paid to every entry": dx(Largest, lambda self, dy: dy * np.ones(self._where.shape)),
    "gain of the mean": fault(Gain, "gain", backward=mean_of_rows),
    "gain forgotten in dx": dx(Gain, forgets_gain),
    "LeakyReLU' of a y without its sign": derivative(
        nn.LeakyReLU, lambda x: np.where(abs(x) > 0, 1, 0.01)
    ),
    "LeakyReLU' of the other side": derivative(nn.LeakyReLU, lambda x: np.where(x < 0, 1, 0.01)),
    "Tanh' of the output": derivative(nn.Tanh, lambda x: 1 - np.tanh(np.tanh(x)) ** 2),
    "Tanh' = 1 - y": derivative(nn.Tanh, lambda x: 1 - np.tanh(x)),
    "Sigmoid' = 1 - y": derivative(nn.Sigmoid, lambda x: 1 - sigmoid(x)),
    "Sigmoid' = y**2": derivative(nn.Sigmoid, lambda x: sigmoid(x) ** 2),
    "SiLU' = sigmoid": derivative(nn.SiLU, sigmoid),
    "SiLU' without its x": derivative(nn.SiLU, lambda x: sigmoid(x) * (1 + sigmoid(-x))),
    "GELU' of the approximation by tanh": derivative(nn.GELU, gelu_slope_by_tanh),
    "GELU' without its density": derivative(
        nn.GELU, lambda x: nn.GELU().compute(x)[0] / np.where(x == 0, 1, x)
    ),
    "Softmax' without its sum": dx(nn.Softmax, lambda self, dy: self._y * dy),
    "Softmax' = 0": dx(nn.Softmax, lambda self, dy: 0 * dy),
    "Softmax' times 7": dx(nn.Softmax, lambda self, dy: 7 * nn.Softmax.backward(self, dy)),
    "Softmax of the diagonal alone": dx(nn.Softmax, lambda self, dy: self._y * (1 - self._y) * dy),
    "Softmax' with a plain sum": dx(
        nn.Softmax, lambda self, dy: self._y * (dy - dy.sum(axis=-1, keepdims=True))
    ),
    "BatchNorm of a constant mean": fault(
        nn.BatchNorm, "x", settings=BATCH, backward=of_a_constant_mean
    ),
    "BatchNorm of a constant variance": fault(
        nn.BatchNorm, "x", settings=BATCH, backward=of_a_constant_var
    ),
    "BatchNorm with its rows mixed": fault(nn.BatchNorm, rule="rows-independent"),
    "BatchNorm whose backward changes the mean": fault(
        nn.BatchNorm, rule="keeps-parameters", settings=BATCH, backward=follows_in_backward
    ),
    "BatchNorm whose mean changes in evaluation": fault(
        nn.BatchNorm, rule="eval-deterministic", settings=BATCH, forward=follows_in_evaluation
    ),
    "BatchNorm with the batch's mean in evaluation": fault(
        nn.BatchNorm,
        rule="rows-independent",
        training=False,
        forward=normalizes_in_evaluation,
        _follow=lambda self, running, batch: None,
    ),
    "LayerNorm of a constant mean": dx(nn.LayerNorm, of_a_constant_mean),
    "LayerNorm of a constant variance": dx(nn.LayerNorm, of_a_constant_var),
    "LayerNorm over the first axis": fault(
        nn.LayerNorm, rule="rows-independent", statistics=over_the_first_axis
    ),
    "Residual with the dx of its body alone": dx(nn.Residual, first_dx),
    "Residual with half of dy for each": fault(
        nn.Residual,
        *("x", "body.0.weight", "body.0.bias", "shortcut.weight", "shortcut.bias"),
        backward=lambda self, dy: nn.Residual.backward(self, dy / 2),
    ),
    "Parallel cut in the wrong order": fault(
        nn.Parallel,
        *("x", "0.weight", "0.bias"),
        backward=lambda self, dy: nn.Parallel.backward(self, dy[..., ::-1]),
    ),
    "Parallel with the last dx alone": dx(nn.Parallel, last_dx),
    "Conv2d with the kernel flipped in dx": dx(nn.Conv2d, with_flipped_kernel),
    "Conv2d with the kernel flipped in dW": fault(
        nn.Conv2d, "weight", backward=dW_changed(lambda dW: dW[::-1, ::-1])
    ),
    "Conv2d with dW of the first pixel alone": fault(
        nn.Conv2d, "weight", backward=dW_changed(of_the_first_pixel)
    ),
    "Conv2d with its padding forgotten in dx": dx(nn.Conv2d, off_by_the_padding),
    "Conv2d with dx of the last window alone": dx(nn.Conv2d, of_the_last_window),
    "MaxPool2d with dy for all of a window": fault(
        nn.MaxPool2d, "x", parts=lambda self, dy, n: [dy] * n
    ),
    "MaxPool2d with dy for the first pixel": fault(
        nn.MaxPool2d, "x", parts=lambda self, dy, n: [dy] + [0 * dy] * (n - 1)
    ),
    "MaxPool2d with dx of the last window alone": dx(nn.MaxPool2d, of_the_last_window),
    "AvgPool2d with dy not divided": fault(nn.AvgPool2d, "x", parts=lambda self, dy, n: [dy] * n),
    "AvgPool2d with dx of the last window alone": dx(nn.AvgPool2d, of_the_last_window),
    "Flatten with dx upside down": dx(
        nn.Flatten, lambda self, dy: nn.Flatten.backward(self, dy)[..., ::-1, :, :]
    ),
    "Flatten of vectors": fault(nn.Flatten, rule="rows-independent", sample_axes=1),
    "Unflatten with dx from the end": dx(
        nn.Unflatten, lambda self, dy: nn.Unflatten.backward(self, dy)[..., ::-1]
    ),
    "Unflatten turned round": fault(
        nn.Unflatten,
        "x",
        forward=lambda self, x: np.flip(nn.Unflatten.forward(self, x), (-2, -1)),
    ),
    "count kept in no Buffer": fault(Counting, rule="reproducible", forward=counts_in_an_attribute),
    "product: db without its gain": fault(
        Product, "x[1]", backward=lambda self, dy: (Product.backward(self, dy)[0], dy * self._a)
    ),
    "product: da and db swapped": fault(
        Product, "x[0]", "x[1]", backward=lambda self, dy: Product.backward(self, dy)[::-1]
    ),
    "product: one gradient": fault(
        Product, rule="shape", backward=lambda self, dy: Product.backward(self, dy)[0]
    ),
    "product: a list": fault(
        Product, rule="shape", backward=lambda self, dy: [*Product.backward(self, dy)]
    ),
    "product: db flat": fault(Product, rule="shape", backward=changed(1, np.ravel)),
    "product: db None": fault(Product, rule="shape", backward=changed(1, lambda db: None)),
    "product: db in float32": fault(
        Product, rule="dtype", backward=changed(1, lambda db: db.astype("f4"))
    ),
    "product: |db|": fault(Product, rule="linear", backward=changed(1, abs)),
    "product: b edited": fault(Product, rule="keeps-input", forward=edits_b),
    "product: b in order of memory": fault(Product, rule="layout", forward=b_in_order_of_memory),
    "product: b of other rows": fault(Product, rule="rows-independent", forward=b_of_other_rows),
    "product: b once": fault(Product, rule="accumulates", backward=b_once),
    "embedding: the last of equal indices": fault(
        Embedding, rule="rows-independent", backward=overwrites
    ),
    "embedding: indices edited": fault(Embedding, rule="keeps-input", forward=edits_indices),
    "image mean: not divided": fault(ColumnMean, "x", backward=spreads),
    "image mean: images mixed": fault(ColumnMean, rule="rows-independent", forward=mean_of_images),
    "tied layer with one cache": Fault(TiedOneCache, arrays=frozenset({"x", "layer.weight"})),
    "backward first to last": Fault(
        WrongOrder, arrays=frozenset({"x", "layers.0.weight", "layers.0.bias"})
    ),
}
LAYERS |= {
    f"in a chain, {name}": chain(LAYERS[name])
    for name in (
        "ReLU: slope of the output, >= 0",
        "Dropout: no 1 / (1 - p) backward",
        "tanh' = 1 - y",
    )
}


class PlainWeights(Module):
    """y = x W, with a W that nobody trains, and a dW that is wrong."""

    def __init__(self, features, rng):
        self.parts = {"W": [rng.standard_normal((features, 3))]}

    def forward(self, x):
        self._x = np.array(x)
        return x @ self.parts["W"][0]

    def backward(self, dy):
        self.dW = 7 * self._x.reshape(len(self.parts["W"][0]), -1) @ np.reshape(dy, (-1, 3))
        return dy @ self.parts["W"][0].T


# those that only a checklist or a grade finds
CHECKLIST_LAYERS = {
    "weights in a plain array": Fault(PlainWeights, "plain-arrays"),
    "an x of zeros at the start": Fault(RememberedZero, "forward-first"),
    "None without a forward": fault(
        Elementwise, rule="forward-first", backward=none_without_a_forward
    ),
    "dy of whatever broadcasts": fault(Gain, rule="dy-shape", backward=whatever_broadcasts),
}


def forgets(**settings):
    """Return the slope of a CrossEntropyLoss with other settings."""

    def slope(self, y, t):
        own = {"label_smoothing": self.label_smoothing, "class_weight": self.class_weight}
        return losses.CrossEntropyLoss(**own | settings).compute(y, t)[1]

    return slope


def forgets_that_weights_scale_softmax(self, y, t):
    right = losses.CrossEntropyLoss.compute(self, y, t)[1]
    return right + softmax(y) * (1 - np.array(self.class_weight)[t, None])


def divides_by_samples(self):
    dy = losses.CrossEntropyLoss.backward(self)
    return dy * self.n / len(dy)


class Broadcasts:
    """A mean squared error of whatever broadcasts."""

    def __call__(self, pred, target):
        self._error = pred - target.reshape(-1)
        return float(np.mean(self._error**2))

    def backward(self):
        return 2 * self._error / self._error.size


def edits_pred(self, pred, target):
    pred -= target
    return MSELoss.__call__(self, pred, np.zeros_like(pred))


class KeepsBoth:
    """A mean squared error that keeps pred and target themselves."""

    def __call__(self, pred, target):
        self._pred, self._target = of_shape(pred, target.shape), target
        return float(np.mean((pred - target) ** 2))

    def backward(self):
        return 2 * (self._pred - self._target) / self._pred.size


def divides_by_the_error(self):
    with np.errstate(invalid="ignore"):
        return self._error / np.abs(self._error) / self._error.size


def broadcasts(self, pred, target):
    self._error = pred - target
    return float(np.mean(np.abs(self._error)))


def wrong_for_more_than_16_rows(self):
    return MSELoss.backward(self) * (2 if len(self._slope) > 16 else 1)


def wrong_in_float32(self):
    return MSELoss.backward(self) * (2 if self._slope.dtype == np.float32 else 1)


def keeps_its_gradient(self):
    if not hasattr(self, "_gradient") or self._of is not self._slope:
        self._gradient, self._of = MSELoss.backward(self), self._slope
    return self._gradient


def into_one_gradient(self):
    gradient, kept = MSELoss.backward(self), getattr(self, "_kept", None)
    if np.shape(kept) != gradient.shape or kept.dtype != gradient.dtype:
        self._kept = np.empty_like(gradient)
    self._kept[...] = gradient
    return self._kept


def uses_its_error_up(self):
    gradient, self._error = np.sign(self._error) / self._error.size, 0 * self._error
    return gradient


def loss_in_order_of_memory(self, pred, target):
    return MSELoss.__call__(self, pred.ravel("K").reshape(pred.shape), target)


def multiplies_pred_in_place(self, pred, target):
    pred *= 1.0
    return MSELoss.__call__(self, pred, target)


def gradient_twice_the_first_time(self):
    first, self._called = not hasattr(self, "_called"), True
    return MSELoss.backward(self) * (2 if first else 1)


class FirstTwice(AbsoluteError):
    """The first value is another."""

    def __call__(self, pred, target):
        value = super().__call__(pred, target)
        first, self._called = not hasattr(self, "_called"), True
        return 2 * value if first else value


LOSSES = {
    "loss not written": loss(AbsoluteError, "implemented", __call__=not_written),
    "backward of a loss not written": loss(AbsoluteError, "implemented", backward=not_written),
    "backward of a loss without a return": loss(
        AbsoluteError, "implemented", backward=lambda self: None
    ),
    "NaN where pred is the target": loss(AbsoluteError, "finite", backward=divides_by_the_error),
    "first value unlike the others": Fault(FirstTwice, "reproducible", inputs=with_numbers),
    "first gradient unlike the others": loss(
        MSELoss, "reproducible", backward=gradient_twice_the_first_time
    ),
    "order of memory": loss(MSELoss, "layout", __call__=loss_in_order_of_memory),
    "pred multiplied by ones in place": loss(
        MSELoss, "keeps-input", __call__=multiplies_pred_in_place
    ),
    "dL/dpred in float32": loss(
        MSELoss, "dtype", backward=lambda self: MSELoss.backward(self).astype(np.float32)
    ),
    "error used up": loss(AbsoluteError, "backward-again", backward=uses_its_error_up),
    "dL/dpred of float32 in float64": loss(
        MSELoss, "float32", backward=lambda self: MSELoss.backward(self).astype(np.float64)
    ),
    "wrong in float32 alone": loss(MSELoss, "float32", backward=wrong_in_float32),
    "pred and target kept without a copy": Fault(KeepsBoth, "own-copies", inputs=with_numbers),
    "dL/dpred kept without a copy": loss(MSELoss, "own-copies", backward=keeps_its_gradient),
    "dL/dpred in an array used again": loss(MSELoss, "keeps-results", backward=into_one_gradient),
    "the sum's gradient": loss(MSELoss, backward=lambda self: 2 * self._slope),
    "no factor 2": loss(MSELoss, _factor=1.0),
    "sign": loss(MSELoss, backward=lambda self: -2 * self._slope / self._slope.size),
    "divided by the rows": loss(MSELoss, backward=lambda self: 2 * self._slope / len(self._slope)),
    "divided twice": loss(MSELoss, backward=lambda self: MSELoss.backward(self) / len(self._slope)),
    "of the absolute error": loss(
        MSELoss, backward=lambda self: np.sign(self._slope) / self._slope.size
    ),
    "pred edited": loss(MSELoss, "keeps-input", __call__=edits_pred),
    "broadcast (N, 1) - (N,)": Fault(
        Broadcasts, "shape", inputs=lambda x, rng: with_numbers(x[:, :1], rng)
    ),
    "absolute error: no mean": loss(AbsoluteError, backward=lambda self: np.sign(self._error)),
    "cross-entropy: not divided": loss(
        CrossEntropy, backward=lambda self: CrossEntropy.backward(self) * len(self._p)
    ),
    "cross-entropy: softmax only": loss(CrossEntropy, backward=lambda self: self._p / len(self._p)),
    "HuberLoss: clip forgotten": slope_of(losses.HuberLoss, lambda self, y, t: y - t, delta=0.3),
    "HuberLoss: the sign alone": slope_of(
        losses.HuberLoss, lambda self, y, t: self.delta * np.sign(y - t), delta=0.3
    ),
    "HuberLoss: delta forgotten": slope_of(
        losses.HuberLoss, lambda self, y, t: np.clip(y - t, -1, 1), delta=0.3
    ),
    "BCEWithLogitsLoss: sigmoid' for sigmoid": slope_of(
        losses.BCEWithLogitsLoss, lambda self, y, t: sigmoid(y) * sigmoid(-y) - t
    ),
    "BCEWithLogitsLoss: of the squared error": slope_of(
        losses.BCEWithLogitsLoss, lambda self, y, t: (sigmoid(y) - t) * sigmoid(y) * sigmoid(-y)
    ),
    "BCEWithLogitsLoss: targets rounded": slope_of(
        losses.BCEWithLogitsLoss, lambda self, y, t: sigmoid(y) - np.ceil(t)
    ),
    "CrossEntropyLoss: smoothing forgotten": slope_of(
        losses.CrossEntropyLoss, forgets(label_smoothing=0), label_smoothing=0.1
    ),
    "CrossEntropyLoss: weights forgotten": slope_of(
        losses.CrossEntropyLoss, forgets(class_weight=None), class_weight=[1, 2, 0.5, 3]
    ),
    "CrossEntropyLoss: weights of softmax forgotten": slope_of(
        losses.CrossEntropyLoss, forgets_that_weights_scale_softmax, class_weight=[1, 2, 0.5, 3]
    ),
    "CrossEntropyLoss: divided by the samples": loss(
        losses.CrossEntropyLoss,
        settings={"class_weight": [1, 2, 0.5, 3]},
        backward=divides_by_samples,
    ),
}
CHECKLIST_LOSSES = {
    "wrong for more than 16 rows": loss(MSELoss, backward=wrong_for_more_than_16_rows),
    "a target (N,) for pred (N, 1)": loss(AbsoluteError, "target-shape", __call__=broadcasts),
}
