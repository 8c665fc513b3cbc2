"""JAX: one `jit` per step, or one for all steps under `lax.scan`. The optimizers are by hand."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import networks
import numpy as np

from peers import asking


def forward(case, parameters, x, key):
    parameters = iter(parameters)
    for kind, *_ in case.layers:
        if kind == "linear":
            x = x @ next(parameters)
        elif kind == "conv":
            axes = ("NHWC", "HWIO", "NHWC")
            W = next(parameters)
            x = jax.lax.conv_general_dilated(x, W, (1, 1), "VALID", dimension_numbers=axes)
        elif kind == "relu":
            x = jax.nn.relu(x)
        elif kind == "dropout" and key is not None:
            x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0)
        elif kind == "pool":
            window = (1, 2, 2, 1)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        elif kind == "flatten":
            x = x.reshape(len(x), -1)
        if case.bias and kind in ("linear", "conv"):
            x = x + next(parameters)
    return x


def loss_of(case, y, t):
    if case.cross_entropy:
        picked = jnp.take_along_axis(y, t[:, None], -1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(y, -1) - picked)
    return jnp.sum((y - t) ** 2) / case.rows


def updated(case, parameters, gradients, slots, i):
    """Return new parameters and slots, after the step number i = 1, 2, ..."""
    if case.optimizer == "sgd":
        return [w - case.rate * g for w, g in zip(parameters, gradients, strict=True)], slots
    if case.optimizer == "momentum":
        slots = [case.momentum * v + g for v, g in zip(slots, gradients, strict=True)]
        return [w - case.rate * v for w, v in zip(parameters, slots, strict=True)], slots
    m, v = slots
    m = [0.9 * m + 0.1 * g for m, g in zip(m, gradients, strict=True)]
    v = [0.999 * v + 0.001 * g**2 for v, g in zip(v, gradients, strict=True)]
    scaled = [
        (m / (1 - 0.9**i)) / (jnp.sqrt(v / (1 - 0.999**i)) + 1e-8)
        for m, v in zip(m, v, strict=True)
    ]
    return [w - case.rate * s for w, s in zip(parameters, scaled, strict=True)], (m, v)


def first_state(case):
    parameters = [jnp.array(first, jnp.float32) for first in networks.parameters(case)]

    def zeros():
        return [jnp.zeros_like(first) for first in parameters]

    slots = {"sgd": lambda: (), "momentum": zeros, "adam": lambda: (zeros(), zeros())}
    return parameters, slots[case.optimizer](), jnp.float32(0), jax.random.key(1)


def step_of(case):
    """Return update((state, error), (x, t)) -> ((state, error), None), the form of `lax.scan`."""
    dropout = ("dropout",) in case.layers

    def loss(parameters, x, t, key):
        return loss_of(case, forward(case, parameters, x, key), t)

    def update(carry, batch):
        (parameters, slots, i, key), error = carry
        i, (key, now) = i + 1, jax.random.split(key) if dropout else (key, None)
        added, gradients = jax.value_and_grad(loss)(parameters, *batch, now)
        parameters, slots = updated(case, parameters, gradients, slots, i)
        return ((parameters, slots, i, key), error + added), None

    return update


def train(case):
    images, labels = networks.data(case, np.float32)
    state, update = first_state(case), jax.jit(step_of(case), donate_argnums=0)
    rows = case.rows

    def step(steps):
        nonlocal state
        carry = state, jnp.float32(0)
        for i in steps:
            batch = slice(i * rows, (i + 1) * rows)
            carry, _ = update(carry, (images[batch], labels[batch]))
        state, error = jax.block_until_ready(carry)
        return float(error)

    return step


def scan(case):
    state = first_state(case)
    epoch = jax.jit(partial(jax.lax.scan, step_of(case)), donate_argnums=0)

    @cache
    def batches(steps):
        rows = () if case.batch is None else (case.batch,)
        images = slice(steps.start * case.rows, steps.stop * case.rows)
        return tuple(
            jax.device_put(a[images].reshape(len(steps), *rows, *a.shape[1:]))
            for a in networks.data(case, np.float32)
        )

    def step(steps):
        nonlocal state
        (state, error), _ = jax.block_until_ready(epoch((state, jnp.float32(0)), batches(steps)))
        return float(error)

    return step


def ask(case):
    parameters, (x, _) = first_state(case)[0], networks.data(case, np.float32)
    answer = jax.jit(lambda parameters, x: forward(case, parameters, x, None))
    return asking(lambda x: answer(parameters, x).block_until_ready(), x, case.rows)
