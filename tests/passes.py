"""A compiled pass against the eager loop that it stands for."""

import copy

import numpy as np
from hypothesis import strategies as st

from tinygrad_mnist import (
    SGD,
    CrossEntropyLoss,
    Dropout,
    Linear,
    MSELoss,
    ReLU,
    Sequential,
    num_threads,
)
from tinygrad_mnist.compiled import compile_sgd
from tinygrad_mnist.testing.strategies import seeds

OPTIMIZERS = [
    {},
    {"weight_decay": 0.01},
    {"momentum": 0.9},
    {"momentum": 0.5, "weight_decay": 0.01, "nesterov": True},
]
LOSSES = [
    MSELoss,
    lambda: MSELoss("sum"),
    lambda: MSELoss("batchmean"),
    CrossEntropyLoss,
    lambda: CrossEntropyLoss("sum", label_smoothing=0.1, class_weight=[1, 0.5, 2]),
    lambda: CrossEntropyLoss(class_weight=[3, 0.5, 2]),
]


@st.composite
def chains(draw, widths):
    """A nested chain, training or not, and the number of its features, of these widths."""
    dtype = draw(st.sampled_from([np.float64, np.float32]))
    rng = np.random.default_rng(draw(seeds()))
    width = features = draw(widths)
    layers = []
    for kind in draw(st.lists(st.sampled_from("lrds"), max_size=5)):
        if kind == "l":
            out = draw(st.integers(1, 9))
            layers.append(Linear(width, out, draw(st.booleans()), rng=rng, dtype=dtype))
            width = out
        elif kind == "r":
            layers.append(ReLU())
        elif kind == "d":
            own = draw(st.booleans())  # else it shares the generator with others
            p = draw(st.sampled_from([0.5, 0.2, 0.0]))
            layers.append(Dropout(p, rng=draw(seeds()) if own else rng))
        else:
            layers = [Sequential(*layers)]
    layers.append(Linear(width, 3, draw(st.booleans()), rng=rng, dtype=dtype))
    return Sequential(*layers).train(draw(st.sampled_from([True, True, False]))), features


def eager_pass(model, loss, optimizer, x, t, order=None, batch_size=1):
    total, hits = 0.0, 0
    order = np.arange(len(x)) if order is None else order
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        y = model(x[batch])
        total += loss(y, t[batch]) * len(batch)
        hits += np.sum(y.argmax(axis=1) == (t if t.ndim == 1 else t.argmax(axis=1))[batch])
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    n, several = max(1, len(order)), t.ndim == 1 or t.shape[1] > 1
    return total / n, hits / n if several else np.nan


def trained(model, make_loss, options, lr, *data, parts=None, **arguments):
    """Return what a pass leaves: loss, accuracy, parameters, velocities, states of generators.

    It is compiled, in so many parts, or eager.
    """
    optimizer = SGD(model.parameters(), lr, **options)
    with np.errstate(over="ignore", invalid="ignore"):
        if parts is None:
            result = eager_pass(model, make_loss(), optimizer, *data, **arguments)
        else:
            with num_threads(parts):
                result = compile_sgd(model, make_loss(), optimizer)(*data, **arguments)
    arrays = [p.data.copy() for p in model.parameters()]
    velocities = optimizer.state_dict()["velocities"]
    states = [m.rng.bit_generator.state for m in model.modules() if isinstance(m, Dropout)]
    return [*result, *arrays, *velocities], states


def assert_equal_passes(eager, *arguments, parts=1, **options):
    """The compiled pass of a copy of the model does what the eager one does."""
    dtype = next(iter(eager.parameters())).data.dtype
    fast = copy.deepcopy(eager)
    wanted, states = trained(eager, *arguments, **options)
    found, found_states = trained(fast, *arguments, parts=parts, **options)
    tolerance = 1e-11 if dtype == np.float64 else 1e-4
    for a, b in zip(found, wanted, strict=True):
        scale = np.max(abs(b), initial=1, where=np.isfinite(b))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)
    assert found_states == states
