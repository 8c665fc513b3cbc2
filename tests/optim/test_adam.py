"""Adam and AdamW against the formulas, written out in plain Python, and against Keras."""

import copy
import math
import os
from importlib.util import find_spec

import numpy as np
import pytest
from helpers import make_steps, parameters, refusal, state_bits, traced_memory
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import Adam, AdamW, Parameter

KINDS = [Adam, AdamW]
SETTINGS = st.fixed_dictionaries(
    {
        "lr": st.sampled_from([0.1, 0.0, 1.5]),
        "betas": st.sampled_from([(0.9, 0.999), (0.0, 0.0), (0.5, 0.9)]),
        "eps": st.sampled_from([1e-8, 0.1]),
        "weight_decay": st.sampled_from([0.01, 0.0, 2.0]),
    }
)


def stepped_by_hand(kind, w, m, v, t, grad, lr, betas, eps, weight_decay):
    """Return the next w, m and v of one number, in step t = 1, 2, ..."""
    b1, b2 = betas
    if kind is AdamW:
        w, g = w - lr * weight_decay * w, grad
    else:
        g = grad + weight_decay * w
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    return w - lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps), m, v


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**32 - 1), settings=SETTINGS, product=st.booleans())
def test_steps_follow_the_formulas(kind, seed, settings, product):
    rng = np.random.default_rng(seed)
    params = parameters(seed)
    optimizer = kind(iter(params), **settings)
    wanted = [[p.data.copy(), np.zeros(p.data.shape), np.zeros(p.data.shape)] for p in params]
    identities = [id(p.data) for p in params]
    for t in range(1, 5):
        optimizer.zero_grad()
        for p, (w, m, v) in zip(params, wanted, strict=True):
            if product and p.data.ndim == 2:
                a, b = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
                p.accumulate_product(a, b)
                grad = a.T @ b
            else:
                grad = np.asarray(rng.standard_normal(p.data.shape))
                p.accumulate(grad)
            for i in np.ndindex(w.shape):
                w[i], m[i], v[i] = stepped_by_hand(kind, w[i], m[i], v[i], t, grad[i], **settings)
        optimizer.step()
        assert optimizer.steps == t
    assert identities == [id(p.data) for p in params]
    state = optimizer.state_dict()
    for i, (p, (w, m, v)) in enumerate(zip(params, wanted, strict=True)):
        np.testing.assert_allclose(p.data, w, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(state["means"][i], m, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(state["squares"][i], v, rtol=1e-10, atol=1e-12)


def test_two_steps_by_hand():
    p = Parameter(np.array([1.0]))
    optimizer = Adam([p], lr=0.1, betas=(0.5, 0.75), eps=1.0)
    p.grad = [2.0]
    optimizer.step()  # m = 1, v = 1; corrected 2 and 4: 0.1 * 2 / (2 + 1)
    assert p.data[0] == pytest.approx(1 - 0.2 / 3)
    p.grad = [0.0]
    optimizer.step()  # m = 1/2, v = 3/4; corrected 2/3 and 12/7
    assert p.data[0] == pytest.approx(1 - 0.2 / 3 - 0.1 * (2 / 3) / (math.sqrt(12 / 7) + 1))


def test_a_first_step_is_lr_along_the_sign_of_the_gradient():
    p = Parameter(np.zeros(4))
    p.grad = [1e-3, -1e-3, 50, 0]
    Adam([p], lr=0.25).step()
    np.testing.assert_allclose(p.data, [-0.25, 0.25, -0.25, 0], rtol=1e-4)


def test_decay_alone_moves_adamw_by_its_fraction_and_adam_by_lr():
    moved = {}
    for kind in KINDS:
        p = Parameter(np.array([2.0, -4.0]))
        kind([p], lr=0.1, weight_decay=0.5).step()
        moved[kind] = p.data
    np.testing.assert_allclose(moved[AdamW], [2 * 0.95, -4 * 0.95])
    np.testing.assert_allclose(moved[Adam], [1.9, -3.9], rtol=1e-6)


def test_the_defaults_are_those_of_torch():
    p = Parameter([1.0])
    assert repr(Adam([p])) == (
        "Adam(1 parameters, lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0, steps=0)"
    )
    assert repr(AdamW([p])) == (
        "AdamW(1 parameters, lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, steps=0)"
    )
    assert isinstance(AdamW([p]), Adam)


def test_slots_follow_the_dtype_of_the_model():
    """Slots built up in float32 go on in float64, as if they had always been float64."""
    rng = np.random.default_rng(0)
    start, grads = rng.integers(-8, 8, 5) / 4, rng.integers(-8, 8, (6, 5)) / 4
    found, wanted = Parameter(start.astype(np.float32)), Parameter(start)
    optimizers = [Adam([p], 0.5, (0.5, 0.5), eps=1.0) for p in (found, wanted)]
    for step, grad in enumerate(grads):
        if step == 3:  # until here the slots fit float32: no bit of them is lost
            found.astype(np.float64)
            found.data = wanted.data
            for slot in optimizers[0].slots:
                (array,) = optimizers[0].state_dict()[slot]
                assert array.dtype == np.float64
        for p, optimizer in zip((found, wanted), optimizers, strict=True):
            p.grad = grad + (step >= 3) * 1e-9  # float32 would lose it
            optimizer.step()
    np.testing.assert_allclose(found.data, wanted.data, rtol=1e-15)
    for one, other in zip(*(o.state_dict()["means"] for o in optimizers), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"lr": -1}, ValueError, "lr in [0, inf), got -1"),
        ({"betas": (0.9, 1)}, ValueError, "betas[1] in [0, 1), got 1"),
        ({"betas": (-0.1, 0.9)}, ValueError, "betas[0] in [0, 1), got -0.1"),
        ({"betas": (0.9, "0.9")}, TypeError, "betas[1] in [0, 1), got '0.9'"),
        ({"betas": (0.9, math.nan)}, ValueError, "betas[1] in [0, 1), got nan"),
        ({"betas": 0.9}, TypeError, "betas to be a pair, got 0.9"),
        ({"betas": (0.9,)}, ValueError, "betas to be a pair, got a tuple"),
        ({"betas": [0.9] * 3}, ValueError, "betas to be a pair, got a list"),
        ({"betas": None}, TypeError, "betas to be a pair, got None"),
        ({"eps": -1e-8}, ValueError, "eps in [0, inf), got -1e-08"),
        ({"weight_decay": -1}, ValueError, "weight_decay in [0, inf), got -1"),
        ({"steps": -1}, ValueError, "steps to be an integer >= 0, got -1"),
        ({"steps": 1.0}, TypeError, "steps to be an integer >= 0, got 1.0"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_refused_also_later_and_in_a_state(kind, settings, error, text):
    p, text = Parameter([1.0]), f"{kind.__name__}: expected {text}"
    optimizer = kind([p])
    make_steps(optimizer, 1, seed=0)
    before = state_bits(optimizer)
    ((name, value),) = settings.items()
    if name != "steps":
        with refusal(error, text):
            kind([p], **settings)
    with refusal(error, text):
        setattr(optimizer, name, value)
    with refusal(error, text):
        optimizer.load_state_dict({**optimizer.state_dict(), **settings})
    assert state_bits(optimizer) == before


def test_a_list_of_betas_is_kept_as_a_pair():
    betas = [0.5, 0]
    optimizer = Adam([Parameter([1.0])], betas=betas)
    betas[0] = 7
    assert optimizer.betas == (0.5, 0.0)
    assert copy.deepcopy(optimizer).betas == (0.5, 0.0)


def denormals(array):
    return np.count_nonzero((array != 0) & (abs(array) < np.finfo(array.dtype).tiny))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grad", [0.0, 1e-20, 1e-25])
def test_no_slot_holds_denormals_for_long(kind, grad):
    """They would make a step half as fast; with a gradient of 0 both slots decay towards them."""
    rng = np.random.default_rng(0)
    p = Parameter(rng.uniform(-1, 1, 500).astype(np.float32))
    optimizer = kind([p], betas=(0.9, 0.99))
    p.grad = 10 ** rng.uniform(-10, 2, 500)
    optimizer.step()
    p.grad = rng.choice([-1, 1], 500) * grad
    found = {name: 0 for name in optimizer.slots}
    for _ in range(12_000):
        optimizer.step()
        for name in found:
            found[name] += denormals(optimizer.state_dict()[name][0])
    assert found == {"means": 0, "squares": 0}


def test_what_keeps_denormals_away_moves_no_parameter():
    p, unmoved = Parameter(np.zeros(3, np.float32)), Parameter(np.zeros(3))
    optimizer = Adam([p, unmoved], lr=1.0)
    for _ in range(100):
        optimizer.step()
    assert not p.data.any()
    assert not unmoved.data.any()


@pytest.mark.parametrize(
    ("dtype", "sizes", "eps", "rtol"),
    [(np.float64, (1e-100, 1e-10), 0.0, 1e-12), (np.float32, (1e-30, 1e-6), 1e-8, 6e-7)],
)
def test_tiny_gradients_step_as_the_formulas_say(dtype, sizes, eps, rtol):
    """What keeps denormals away is of no account there."""
    for size in np.geomspace(*sizes, 30):
        w, m, v = 0.0, 0.0, 0.0
        p = Parameter(np.zeros(1, dtype))
        optimizer = Adam([p], lr=0.1, eps=eps)
        for t in range(1, 40):
            p.grad = [size / t]
            optimizer.step()
            w, m, v = stepped_by_hand(Adam, w, m, v, t, size / t, 0.1, (0.9, 0.999), eps, 0.0)
            assert p.data[0] == pytest.approx(w, rel=rtol)


def test_without_an_eps_no_tiny_gradient_steps_further_than_lr():
    """Nor in the other direction; those of more than 1e-14 step as far as the formulas say."""
    sizes = np.geomspace(1e-20, 1e-10, 1001)
    grads = np.concatenate([sizes, -sizes])
    p = Parameter(np.zeros(len(grads), np.float32))
    optimizer = Adam([p], lr=0.1, eps=0.0)
    with np.errstate(all="raise", under="ignore"):
        for _ in range(20):
            p.grad = grads
            optimizer.step()
    moved = -np.sign(grads) * p.data
    assert np.all((moved > 0) & (moved < 2 * (1 + 1e-5)))
    np.testing.assert_allclose(moved[abs(grads) > 1e-14], 2, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_makes_one_array_of_the_weights_size(kind):
    p = Parameter(np.ones((1000, 900), np.float32))
    p.grad = np.ones((1000, 900))
    optimizer = kind([p])
    optimizer.step()
    with traced_memory() as memory:
        optimizer.step()
    assert memory.peak < 1.1 * p.data.nbytes


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.skipif(not (find_spec("keras") and find_spec("jax")), reason="needs `keras`")
@pytest.mark.parametrize("kind", KINDS)
def test_keras_makes_the_same_steps(kind):
    """With an eps of almost 0: Keras adds it to a root that is not corrected."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    rng = np.random.default_rng(0)
    p = Parameter(rng.standard_normal((4, 3)).astype(np.float32))
    variable = keras.Variable(p.data.copy())
    settings = {"weight_decay": 0.1} if kind is AdamW else {}
    theirs = getattr(keras.optimizers, kind.__name__)(
        0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-20, **settings
    )
    ours = kind([p], 0.01, (0.8, 0.99), 1e-20, **settings)
    theirs.build([variable])
    for _ in range(100):
        p.grad = rng.standard_normal(p.data.shape)
        ours.step()
        theirs.apply([keras.ops.convert_to_tensor(p.grad)])
    np.testing.assert_allclose(p.data, np.asarray(variable), rtol=1e-4, atol=1e-5)
