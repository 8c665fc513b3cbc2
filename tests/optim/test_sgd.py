"""SGD against the formulas, written out in plain Python."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import SGD, Linear, Parameter

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


def parameters(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [Parameter(rng.standard_normal(shape).astype(dtype)) for shape in ((3, 2), (4,), ())]


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


def test_a_step_leaves_the_gradients_and_can_be_repeated():
    p = Parameter(np.zeros((2, 2)))
    p.accumulate_product(np.ones((1, 2)), np.ones((1, 2)))
    optimizer = SGD([p], lr=1)
    optimizer.step()
    optimizer.step()
    np.testing.assert_array_equal(p.data, np.full((2, 2), -2))
    np.testing.assert_array_equal(p.grad, np.ones((2, 2)))
    optimizer.zero_grad()
    assert not p.grad.any()


def test_a_parameter_that_comes_twice_steps_once():
    p = Parameter(1.0)
    p.accumulate(1)
    SGD([p, p], lr=0.5).step()
    assert p.data == 0.5


def test_lr_may_be_set_between_steps():
    p = Parameter(0.0)
    p.accumulate(1)
    optimizer = SGD([p], lr=0.5)
    optimizer.step()
    optimizer.lr = 0.25
    optimizer.step()
    assert p.data == -0.75
    with pytest.raises(ValueError, match=re.escape("SGD: expected lr in [0, inf), got nan")):
        optimizer.lr = float("nan")
    assert optimizer.lr == 0.25


def test_momentum_may_underflow_without_a_word():
    p = Parameter(np.zeros((3, 3), np.float32))
    optimizer = SGD([p], lr=0.1, momentum=0.1)
    p.accumulate(np.full((3, 3), 1e-30))
    with np.errstate(all="raise"):
        for _ in range(20):
            optimizer.step()
            optimizer.zero_grad()


@given(seed=st.integers(0, 2**32 - 1), settings=SETTINGS, steps=st.integers(0, 3))
def test_a_restored_optimizer_goes_on_as_the_saved_one(seed, settings, steps):
    def run(optimizer, params, steps, seed):
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            for p in params:
                p.grad = rng.standard_normal(p.data.shape)
            optimizer.step()

    saved_params = parameters(seed, np.float32)
    saved = SGD(saved_params, **settings)
    run(saved, saved_params, steps, seed)
    restored_params = [Parameter(p.data) for p in saved_params]
    restored = SGD(restored_params, lr=7)
    state = saved.state_dict()
    restored.load_state_dict(state)
    for v in state["velocities"]:
        v[...] = 1e9
    for optimizer, params in ((saved, saved_params), (restored, restored_params)):
        run(optimizer, params, 2, seed + 1)
    for a, b in zip(saved_params, restored_params, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    assert repr(restored) == repr(saved)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"lr": -1.0}, ValueError, "SGD: expected lr in [0, inf), got -1.0"),
        ({"nesterov": 1}, TypeError, "SGD: expected nesterov to be a bool, got 1"),
        ({"velocities": {}}, TypeError, "SGD: expected velocities to be a list, got a dict"),
        ({"velocities": [np.ones(2)]}, ValueError, "SGD: expected 0 or 2 velocities, got 1"),
        (
            {"velocities": [np.ones(2), np.ones(2)]},
            ValueError,
            "SGD: expected velocity 1 of shape (3,), got (2,)",
        ),
        (
            {"velocities": [np.ones(2), np.ones(3, complex)]},
            TypeError,
            "SGD: expected velocity 1 to be an array of real numbers, got an array of dtype "
            "complex128",
        ),
        (
            {"more": 1},
            ValueError,
            "SGD: expected a state dict with keys ['lr', 'momentum', 'nesterov', 'velocities', "
            "'weight_decay'], got ['lr', 'momentum', 'more', 'nesterov', 'velocities', "
            "'weight_decay']",
        ),
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(change, error, text):
    params = [Parameter([1.0, 2.0]), Parameter([1.0, 2.0, 3.0])]
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    optimizer.step()
    before = optimizer.state_dict()
    with pytest.raises(error, match="^" + re.escape(text) + "$"):
        optimizer.load_state_dict({**before, "lr": 0.7, **change})
    after = optimizer.state_dict()
    assert after["lr"] == 0.1
    for a, b in zip(after["velocities"], before["velocities"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_restored_velocities_have_the_dtypes_of_the_parameters():
    params = [Parameter(np.zeros(2, dtype)) for dtype in (np.float32, np.float64)]
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    optimizer.load_state_dict({**optimizer.state_dict(), "velocities": [np.ones(2), [1, 2]]})
    dtypes = [v.dtype for v in optimizer.state_dict()["velocities"]]
    assert dtypes == [np.float32, np.float64]


def test_a_state_is_a_dict():
    with pytest.raises(TypeError, match="^SGD: expected a state dict, got a list$"):
        SGD([Parameter(1.0)], lr=1).load_state_dict([])


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
        ({"lr": np.array(0.1)}, TypeError, "lr in [0, inf), got an array of shape ()"),
        ({"lr": 1, "momentum": -0.1}, ValueError, "momentum in [0, 1], got -0.1"),
        ({"lr": 1, "momentum": 1.1}, ValueError, "momentum in [0, 1], got 1.1"),
        ({"lr": 1, "weight_decay": -1}, ValueError, "weight_decay in [0, inf), got -1"),
        ({"lr": 1, "nesterov": True}, ValueError, "momentum > 0 with nesterov, got 0.0"),
        ({"lr": 1, "nesterov": "yes"}, TypeError, "nesterov to be a bool, got 'yes'"),
    ],
)
def test_settings_are_refused(kwargs, error, text):
    with pytest.raises(error, match="^" + re.escape(f"SGD: expected {text}")):
        SGD([Parameter(1.0)], **kwargs)


@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        ([], ValueError, "at least one Parameter, got none"),
        (Parameter(1.0), TypeError, "an iterable of Parameters, got a Parameter"),
        (Linear(1, 1), TypeError, "an iterable of Parameters, got a Linear"),
        ([np.ones(2)], TypeError, "params to be Parameters, got an array of shape (2,)"),
        (list(Linear(1, 1).named_parameters()), TypeError, "params to be Parameters, got a tuple"),
        ("ab", TypeError, "params to be Parameters, got 'a'"),
        ([Parameter], TypeError, "params to be Parameters, got the class Parameter"),
    ],
)
def test_what_is_no_parameter_is_refused(params, error, text):
    with pytest.raises(error, match="^" + re.escape(f"SGD: expected {text}")):
        SGD(params, lr=0.1)


def test_repr():
    assert repr(SGD([Parameter(1.0)], 0.1, 0.9, nesterov=True)) == (
        "SGD(1 parameters, lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=True)"
    )
