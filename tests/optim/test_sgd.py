"""SGD against the formulas, written out in plain Python."""

import numpy as np
import pytest
from helpers import parameters, refusal
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import SGD, Parameter

SETTINGS = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([0.1, 0.0, 1.5]),
        "momentum": st.sampled_from([0.9, 0.0, 1.0]),
        "weight_decay": st.sampled_from([0.01, 0.0, 2.0]),
        "nesterov": st.booleans(),
    }
).filter(lambda s: s["momentum"] or not s["nesterov"])


def stepped_by_hand(w, v, grad, lr, momentum, weight_decay, nesterov):
    """Return the next w and v of one number."""
    g = grad + weight_decay * w
    v = momentum * v + g
    return w - lr * (g + momentum * v if nesterov else v), v


@given(seed=st.integers(0, 2**32 - 1), settings=SETTINGS, product=st.booleans())
def test_steps_follow_the_formulas(seed, settings, product):
    rng = np.random.default_rng(seed)
    params = parameters(seed)
    optimizer = SGD(iter(params), **settings)
    wanted = [(p.data.copy(), np.zeros_like(p.data)) for p in params]
    identities = [id(p.data) for p in params]
    for _ in range(4):
        optimizer.zero_grad()
        for p, (w, v) in zip(params, wanted, strict=True):
            if product and p.data.ndim == 2:
                a, b = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
                p.accumulate_product(a, b)
                grad = sum(np.outer(x, y) for x, y in zip(a, b, strict=True))
            else:
                grad = np.asarray(rng.standard_normal(p.data.shape))
                p.accumulate(grad)
            for i in np.ndindex(w.shape):
                w[i], v[i] = stepped_by_hand(w[i], v[i], grad[i], **settings)
        optimizer.step()
    assert identities == [id(p.data) for p in params]
    for p, (w, _) in zip(params, wanted, strict=True):
        np.testing.assert_allclose(p.data, w, rtol=1e-11, atol=1e-13)


def test_momentum_may_become_too_small_for_float32():
    p = Parameter(np.zeros((3, 3), np.float32))
    optimizer = SGD([p], lr=0.1, momentum=0.1)
    p.accumulate(np.full((3, 3), 1e-30))
    with np.errstate(all="raise", under="ignore"):
        for _ in range(20):
            optimizer.step()
            optimizer.zero_grad()
    assert not optimizer.state_dict()["velocities"][0].any()


def test_velocities_are_kept_only_with_momentum():
    p = Parameter([1.0])
    p.accumulate([2])
    optimizer = SGD([p], lr=0.5)
    optimizer.step()
    assert optimizer.state_dict()["velocities"] == []
    optimizer.momentum = 0.5
    optimizer.step()
    optimizer.step()
    np.testing.assert_array_equal(optimizer.state_dict()["velocities"], [[3]])
    optimizer.momentum, before = 0.0, p.data.copy()
    optimizer.step()
    np.testing.assert_array_equal(p.data, before - 0.5 * 2)


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"lr": -0.1}, ValueError, "lr in [0, inf), got -0.1"),
        ({"lr": 10**400}, ValueError, "lr in [0, inf), got an integer of more than 80 digits"),
        ({"lr": float("inf")}, ValueError, "lr in [0, inf), got inf"),
        ({"lr": float("nan")}, ValueError, "lr in [0, inf), got nan"),
        ({"lr": True}, TypeError, "lr in [0, inf), got True"),
        ({"lr": "0.1"}, TypeError, "lr in [0, inf), got '0.1'"),
        ({"lr": None}, TypeError, "lr in [0, inf), got None"),
        (
            {"lr": np.array(0.1)},
            TypeError,
            "lr in [0, inf), got an array of shape () and dtype float64",
        ),
        ({"lr": 1, "momentum": -0.1}, ValueError, "momentum in [0, 1], got -0.1"),
        ({"lr": 1, "momentum": 1.1}, ValueError, "momentum in [0, 1], got 1.1"),
        ({"lr": 1, "weight_decay": -1}, ValueError, "weight_decay in [0, inf), got -1"),
        ({"lr": 1, "nesterov": True}, ValueError, "momentum > 0 with nesterov, got 0.0"),
        ({"lr": 1, "nesterov": "yes"}, TypeError, "nesterov to be a bool, got 'yes'"),
    ],
)
def test_settings_are_refused(kwargs, error, text):
    with refusal(error, f"SGD: expected {text}"):
        SGD([Parameter(1.0)], **kwargs)


@pytest.mark.parametrize("nesterov", [True, False])
def test_three_steps_after_astype_are_those_of_float64_throughout(nesterov):
    """Momentum built up in float32 goes on in float64, as if it had always been float64."""
    rng = np.random.default_rng(0)
    start, grads = rng.integers(-8, 8, 5) / 4, rng.integers(-8, 8, (6, 5)) / 4
    found = Parameter(start.astype(np.float32))
    wanted = Parameter(start)
    optimizers = [SGD([p], 0.5, 0.5, 0.5, nesterov) for p in (found, wanted)]
    for step, grad in enumerate(grads):
        if step == 3:  # until here every number fits float32: no bit is lost
            found.astype(np.float64)
            (velocity,) = optimizers[0].state_dict()["velocities"]
            assert velocity.dtype == np.float64
        grad = grad + (step >= 3) * 1e-9  # float32 would lose it
        for p, optimizer in zip((found, wanted), optimizers, strict=True):
            p.grad = grad
            optimizer.step()
    np.testing.assert_array_equal(found.data, wanted.data)
    states = [optimizer.state_dict()["velocities"][0] for optimizer in optimizers]
    np.testing.assert_array_equal(*states)
    found.astype(np.float32)
    state = optimizers[0].state_dict()
    assert state["velocities"][0].dtype == np.float32
    optimizers[0].load_state_dict(state)


def test_repr():
    assert repr(SGD([Parameter(1.0)], 0.1, 0.9, nesterov=True)) == (
        "SGD(1 parameters, lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=True)"
    )
