"""The contenders: the same network trained, or asked, through each library.

`make_*(case, data)` returns `step(n)`, which trains for n steps from the first image on and returns
the weights, (I, O) each, as they are stored. `infer_*(case, data)` returns `step(n)`, which asks
for the outputs of the first n batches. data is (x, t) in the contender's dtype.

All start from the same weights and step along y - t, averaged over the batch, at `case.lr`: losses
that are a mean of squares over all N outputs, whose gradient is 2 (y - t) / N, get their rate
scaled. Each loop sums up the error, as the notebook's does; where `case.count` is set it counts
the hits too. This framework trains from its DataLoader, the others from bare slices, which is the
cheapest way to feed any of them.
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path

import numpy as np

OURS = "tinygrad_mnist"
OWN = {OURS, "numba", "numpy", "scipy", "threadpoolctl"}  # this framework and what it is built on
ROOT = Path(__file__).parents[2]
os.environ["KERAS_BACKEND"] = "jax"


@dataclass(frozen=True)
class Case:
    """What is run: a network, and how many steps of it are timed at a go."""

    title: str
    sizes: tuple[int, ...]
    steps: int
    batch: int | None = None  # None: sample by sample
    dropout: bool = False
    count: bool = False
    lr: float = 0.005
    unit: str = "us a step"

    @property
    def rows(self):
        return self.batch or 1


@dataclass(frozen=True)
class Contender:
    """One row of the table."""

    name: str
    needs: tuple[str, ...]  # distributions
    make: Callable
    infer: Callable | None = None
    dtype: type = np.float32
    serial: bool = False  # one thread, whatever the library's own choice
    epoch: bool = False  # takes part in the whole epochs
    compiles_each_n: bool = False  # step(n) is compiled again for each n
    trains: bool = True
    per_sample: bool = False  # takes part in no batches

    @property
    def missing(self):
        return [name for name in self.needs if version(name) is None]

    @property
    def is_peer(self):
        return not OWN.issuperset(self.needs)


def version(distribution):
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@cache
def load(part, dtype):
    """Return x (10000, 784) in [0, 1] and one-hot t (10000, 10) of the bundled MNIST.

    Read with NumPy alone, so that a peer's memory does not include this framework.
    """
    with np.load(ROOT / "tinygrad_mnist" / "data" / "mnist_20k.npz") as arrays:
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    x = images.reshape(len(images), -1).astype(dtype)
    x /= 255
    return x, np.eye(10, dtype=dtype)[labels]


def initial_weights(case):
    """Return the first weights, (I, O) each, in float64."""
    rng = np.random.default_rng(1)
    shapes = itertools.pairwise(case.sizes)
    return [rng.uniform(-1, 1, shape) * min(0.1, (6 / shape[0]) ** 0.5) for shape in shapes]


# The notebook's loop, on bare NumPy and in its own words. Two things differ, neither of which costs
# time, to make it train what the others do: the slope of ReLU is `> 0` where the notebook has
# `>= 0`, and a batch is one update. The wide network is the same with one layer more.

relu = lambda x: (x > 0) * x  # noqa: E731
relu2deriv = lambda x: x > 0  # noqa: E731


def make_notebook(case, data):
    if len(case.sizes) == 4:
        return _make_notebook_with_two_hidden_layers(case, data)
    images, labels = data
    weights_0_1, weights_1_2 = initial_weights(case)
    random, alpha, batch_size = np.random.RandomState(1), case.lr, case.rows

    def step(n):
        nonlocal weights_0_1, weights_1_2
        error, correct_cnt = 0.0, 0
        for i in range(n):
            batch_start, batch_end = i * batch_size, (i + 1) * batch_size
            layer_0 = images[batch_start:batch_end]
            layer_1 = relu(np.dot(layer_0, weights_0_1))
            if case.dropout:
                dropout_mask = random.randint(2, size=layer_1.shape)
                layer_1 *= dropout_mask * 2
            layer_2 = np.dot(layer_1, weights_1_2)
            error += np.sum((layer_2 - labels[batch_start:batch_end]) ** 2)
            if case.count:
                correct_cnt += _hits_one_by_one(layer_2, labels[batch_start:batch_end])
            layer_2_delta = layer_2 - labels[batch_start:batch_end]
            if batch_size > 1:
                layer_2_delta = layer_2_delta / batch_size
            layer_1_delta = layer_2_delta.dot(weights_1_2.T) * relu2deriv(layer_1)
            if case.dropout:
                layer_1_delta *= dropout_mask
            weights_1_2 -= alpha * layer_1.T.dot(layer_2_delta)
            weights_0_1 -= alpha * layer_0.T.dot(layer_1_delta)
        return weights_0_1, weights_1_2

    return step


def _make_notebook_with_two_hidden_layers(case, data):
    images, labels = data
    weights_0_1, weights_1_2, weights_2_3 = initial_weights(case)
    alpha, batch_size = case.lr, case.rows

    def step(n):
        nonlocal weights_0_1, weights_1_2, weights_2_3
        error = 0.0
        for i in range(n):
            batch_start, batch_end = i * batch_size, (i + 1) * batch_size
            layer_0 = images[batch_start:batch_end]
            layer_1 = relu(np.dot(layer_0, weights_0_1))
            layer_2 = relu(np.dot(layer_1, weights_1_2))
            layer_3 = np.dot(layer_2, weights_2_3)
            error += np.sum((layer_3 - labels[batch_start:batch_end]) ** 2)
            layer_3_delta = (layer_3 - labels[batch_start:batch_end]) / batch_size
            layer_2_delta = layer_3_delta.dot(weights_2_3.T) * relu2deriv(layer_2)
            layer_1_delta = layer_2_delta.dot(weights_1_2.T) * relu2deriv(layer_1)
            weights_2_3 -= alpha * layer_2.T.dot(layer_3_delta)
            weights_1_2 -= alpha * layer_1.T.dot(layer_2_delta)
            weights_0_1 -= alpha * layer_0.T.dot(layer_1_delta)
        return weights_0_1, weights_1_2, weights_2_3

    return step


def infer_notebook(case, data):
    images, _ = data
    weights_0_1, weights_1_2 = initial_weights(case)

    def step(n):
        for i in range(n * case.rows):  # image by image, whatever the batch: so does the notebook
            layer_0 = images[i : i + 1]
            layer_1 = relu(np.dot(layer_0, weights_0_1))
            np.dot(layer_1, weights_1_2)

    return step


def _hits_one_by_one(layer_2, labels):
    correct_cnt = 0
    for k in range(len(layer_2)):
        correct_cnt += int(np.argmax(layer_2[k : k + 1]) == np.argmax(labels[k : k + 1]))
    return correct_cnt


# This framework, as in examples/mnist_*.py


def _ours(case, dtype):
    from tinygrad_mnist import Dropout, Linear, ReLU, Sequential

    layers = []
    for k, (inputs, outputs) in enumerate(itertools.pairwise(case.sizes)):
        if k > 0:
            layers += [ReLU(), Dropout(0.5, rng=1)] if case.dropout else [ReLU()]
        layers.append(Linear(inputs, outputs, bias=False, dtype=dtype, input_grad=k > 0))
    model = Sequential(*layers)
    for parameter, weight in zip(model.parameters(), initial_weights(case), strict=True):
        parameter.data = weight
    return model


def make_ours(case, data):
    from tinygrad_mnist import SGD, DataLoader, MSELoss

    model = _ours(case, data[0].dtype)
    loss = MSELoss("batchmean")
    optimizer = SGD(model.parameters(), lr=case.lr / 2)
    batches = DataLoader(*data, batch_size=case.batch)

    def step(n):
        error, correct = 0.0, 0
        for x, t in itertools.islice(batches, n):
            y = model(x)
            error += loss(y, t)
            if case.count:
                correct += np.count_nonzero(y.argmax(axis=-1) == t.argmax(axis=-1))
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
        return [parameter.data for parameter in model.parameters()]

    return step


def make_compiled(case, data):
    from tinygrad_mnist import SGD, MSELoss
    from tinygrad_mnist.compiled import compile_sgd

    model = _ours(case, data[0].dtype)
    train = compile_sgd(model, MSELoss("batchmean"), SGD(model.parameters(), lr=case.lr / 2))

    def step(n):
        train(data[0][:n], data[1][:n])
        return [parameter.data for parameter in model.parameters()]

    return step


def infer_ours(case, data):
    return _ask_in_batches(_ours(case, data[0].dtype).eval(), data[0], case)


def _ask_in_batches(ask, x, case):
    def step(n):
        for i in range(n):
            ask(x[i * case.rows : (i + 1) * case.rows])

    return step


# PyTorch, eager


def _torch_model(case):
    import torch

    layers = []
    for k, weight in enumerate(initial_weights(case)):
        if k > 0:
            layers += [torch.nn.ReLU(), torch.nn.Dropout(0.5)][: 1 + case.dropout]
        layers.append(torch.nn.Linear(*weight.shape, bias=False))
        with torch.no_grad():
            layers[-1].weight.copy_(torch.from_numpy(weight.T))
    return torch.nn.Sequential(*layers)


def make_torch(case, data):
    import torch

    images, labels = map(torch.from_numpy, data)
    model = _torch_model(case)
    loss_function = torch.nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=case.lr * case.sizes[-1] / 2)

    def step(n):
        error, correct = 0.0, 0
        for i in range(n):
            batch = slice(i * case.rows, (i + 1) * case.rows)
            x, t = images[batch], labels[batch]
            y = model(x)
            loss = loss_function(y, t)
            error += loss.item()
            if case.count:
                correct += (y.argmax(1) == t.argmax(1)).sum().item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return [parameter.detach().numpy().T for parameter in model.parameters()]

    return step


def infer_torch(case, data):
    import torch

    step = _ask_in_batches(_torch_model(case).eval(), torch.from_numpy(data[0]), case)
    return torch.inference_mode()(step)


# JAX: one `jit` per step, or one for n steps under `lax.scan`


def _jax_forward(case, weights, x, key):
    import jax
    import jax.numpy as jnp

    for w in weights[:-1]:
        x = jax.nn.relu(x @ w)
        if case.dropout:
            x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0)
    return x @ weights[-1]


def _jax_step(case):
    """Return update(state, (x, t)) -> (state, None), the form that `lax.scan` takes."""
    import jax
    import jax.numpy as jnp

    def loss(weights, x, t, key):
        y = _jax_forward(case, weights, x, key)
        return jnp.sum((y - t) ** 2) / case.rows, y

    def update(state, batch):
        (weights, key, error, correct), (x, t) = state, batch
        key, now = jax.random.split(key) if case.dropout else (key, key)
        (added, y), grads = jax.value_and_grad(loss, has_aux=True)(weights, x, t, now)
        if case.count:
            correct += jnp.sum(y.argmax(-1) == t.argmax(-1))
        weights = [w - case.lr / 2 * g for w, g in zip(weights, grads, strict=True)]
        return (weights, key, error + added, correct), None

    return update


def _jax_state(case):
    import jax
    import jax.numpy as jnp

    weights = [jnp.array(weight, jnp.float32) for weight in initial_weights(case)]
    return weights, jax.random.key(1), jnp.float32(0), jnp.int32(0)


def make_jax(case, data):
    import jax

    images, labels = data
    state = _jax_state(case)
    update = jax.jit(_jax_step(case), donate_argnums=0)

    def step(n):
        nonlocal state
        for i in range(n):
            batch = slice(i * case.rows, (i + 1) * case.rows)
            state, _ = update(state, (images[batch], labels[batch]))
        return jax.block_until_ready(state)[0]

    return step


def make_jax_scan(case, data):
    import jax

    state = _jax_state(case)
    epoch = jax.jit(partial(jax.lax.scan, _jax_step(case)), donate_argnums=0)

    @cache
    def chunk(n):
        rows = () if case.batch is None else (case.batch,)
        shape = (n, *rows, -1)
        return [jax.device_put(a[: n * case.rows].reshape(shape)) for a in data]

    def step(n):
        nonlocal state
        state, _ = epoch(state, tuple(chunk(n)))
        return jax.block_until_ready(state)[0]

    return step


def infer_jax(case, data):
    import jax

    weights = _jax_state(case)[0]
    ask = jax.jit(lambda weights, x: _jax_forward(case, weights, x, None))
    return _ask_in_batches(lambda x: ask(weights, x).block_until_ready(), data[0], case)


# Keras, on JAX


def _keras_model(case):
    import keras

    layers = [keras.Input((case.sizes[0],))]
    for size in case.sizes[1:-1]:
        layers.append(keras.layers.Dense(size, "relu", use_bias=False))
        if case.dropout:
            layers.append(keras.layers.Dropout(0.5))
    layers.append(keras.layers.Dense(case.sizes[-1], use_bias=False))
    model = keras.Sequential(layers)
    model.set_weights(initial_weights(case))
    model.compile(keras.optimizers.SGD(case.lr * case.sizes[-1] / 2), loss="mean_squared_error")
    return model


def make_keras(case, data):
    images, labels = data
    model = _keras_model(case)

    def step(n):
        error = 0.0
        for i in range(n):
            batch = slice(i * case.rows, (i + 1) * case.rows)
            error += model.train_on_batch(images[batch], labels[batch])
        return [variable.value for variable in model.trainable_variables]

    return step


def infer_keras(case, data):
    return _ask_in_batches(_keras_model(case).predict_on_batch, data[0], case)


# scikit-learn: it has no dropout, so it trains without


def _sklearn_net(case, data):
    from sklearn.neural_network import MLPRegressor

    net = MLPRegressor(
        hidden_layer_sizes=case.sizes[1:-1],
        solver="sgd",
        alpha=0,
        learning_rate_init=case.lr,
        momentum=0,
        nesterovs_momentum=False,
    )
    net.partial_fit(*(a[: case.rows] for a in data))  # makes the arrays
    for own, weight in zip(net.coefs_, initial_weights(case), strict=True):
        own[...] = weight
    for bias in net.intercepts_:
        bias[...] = 0
    return net


def make_sklearn(case, data):
    images, labels = data
    net = _sklearn_net(case, data)

    def step(n):
        error = 0.0
        for i in range(n):
            batch = slice(i * case.rows, (i + 1) * case.rows)
            error += net.partial_fit(images[batch], labels[batch]).loss_
            for bias in net.intercepts_:  # it cannot do without: some 1 us to be the same network
                bias[...] = 0
        return net.coefs_

    return step


def infer_sklearn(case, data):
    return _ask_in_batches(_sklearn_net(case, data).predict, data[0], case)


# The floor: nothing but the BLAS calls that a step cannot do without, on arrays made before


def make_floor(case, data):
    weights, layers = _floor_arrays(case, data)
    deltas = [np.full_like(layer, 1e-3) for layer in layers[1:]]
    calls = [_product(*arrays) for arrays in zip(layers[:-1], weights, layers[1:], strict=True)]
    for k in range(len(weights) - 1, 0, -1):
        calls.append(_product_transposed(deltas[k], weights[k], deltas[k - 1]))
    calls += [_update(*arrays) for arrays in zip(weights, layers[:-1], deltas, strict=True)]
    return _call_all(calls)


def infer_floor(case, data):
    weights, layers = _floor_arrays(case, data)
    return _call_all(
        [_product(*arrays) for arrays in zip(layers[:-1], weights, layers[1:], strict=True)]
    )


def _floor_arrays(case, data):
    weights = [np.array(weight, np.float32) for weight in initial_weights(case)]
    layers = [data[0][: case.rows].copy()]
    layers += [np.zeros((case.rows, size), np.float32) for size in case.sizes[1:]]
    return weights, layers


def _call_all(calls):
    def step(n):
        for _ in range(n):
            for call in calls:
                call()

    return step


# BLAS is Fortran and reads a C-ordered W as W.T: everything below is passed transposed


def _product(x, W, y):
    """Return a function that computes y = x @ W."""
    from scipy.linalg.blas import sgemm, sgemv

    if len(x) == 1:
        return partial(sgemv, 1.0, W.T, x[0], y=y[0], overwrite_y=1)
    return partial(sgemm, 1.0, W.T, x.T, c=y.T, overwrite_c=1)


def _product_transposed(dy, W, dx):
    """Return a function that computes dx = dy @ W.T."""
    from scipy.linalg.blas import sgemm, sgemv

    if len(dy) == 1:
        return partial(sgemv, 1.0, W.T, dy[0], y=dx[0], overwrite_y=1, trans=1)
    return partial(sgemm, 1.0, W.T, dy.T, c=dx.T, overwrite_c=1, trans_a=1)


def _update(W, x, dy):
    """Return a function that computes W += scale * x.T @ dy, with a scale that keeps W finite."""
    from scipy.linalg.blas import sgemm, sger

    if len(x) == 1:
        return partial(sger, -1e-9, dy[0], x[0], a=W.T, overwrite_a=1)
    return partial(sgemm, -1e-9, dy.T, x.T, beta=1.0, c=W.T, overwrite_c=1, trans_b=1)


_notebook = partial(
    Contender, needs=("numpy",), make=make_notebook, infer=infer_notebook, dtype=np.float64
)
_ours_in = partial(Contender, needs=(OURS,), make=make_ours, infer=infer_ours, epoch=True)
_compiled = partial(
    Contender, needs=(OURS, "numba"), make=make_compiled, epoch=True, per_sample=True
)
_torch = partial(Contender, needs=("torch",), make=make_torch, infer=infer_torch)
_floor = partial(Contender, needs=("scipy",), make=make_floor, infer=infer_floor, trains=False)

CONTENDERS = [
    _ours_in(f"{OURS}, float32"),
    _ours_in(f"{OURS}, float64", dtype=np.float64),
    _compiled(f"{OURS}, compiled, float32"),
    _compiled(f"{OURS}, compiled, float64", dtype=np.float64),
    _notebook("notebook loop, float64", epoch=True),
    _notebook("notebook loop, float64, 1 thread", epoch=True, serial=True),
    _torch("PyTorch eager"),
    _torch("PyTorch eager, 1 thread", epoch=True, serial=True),
    Contender("JAX, jit per step", ("jax",), make_jax, infer_jax),
    Contender("JAX, lax.scan", ("jax",), make_jax_scan, epoch=True, compiles_each_n=True),
    Contender("Keras, on a batch", ("keras", "jax"), make_keras, infer_keras),
    Contender("scikit-learn", ("scikit-learn",), make_sklearn, infer_sklearn),
    _floor("BLAS floor"),
    _floor("BLAS floor, 1 thread", serial=True),
]
