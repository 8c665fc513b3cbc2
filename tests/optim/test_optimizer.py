"""What every optimizer does, shown on the package's and on one that a user might write."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from helpers import bits, make_steps, parameters, refusal, state_bits
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import SGD, Adam, AdamW, Linear, Parameter, Sequential
from tinygrad_mnist import _checks as check
from tinygrad_mnist.optim import Optimizer
from tinygrad_mnist.training import checkpoint


class Adagrad(Optimizer):
    """s = s + g**2; w = w - lr * g / (sqrt(s) + eps). s starts at zeros."""

    eps = check.Real("(0, inf)")
    slots = ("squares",)

    def __init__(self, params, lr, eps=1e-8):
        super().__init__(params)
        self.lr, self.eps = lr, eps

    def update(self, p, squares):
        squares += p.grad**2
        p.data -= self.lr * p.grad / (np.sqrt(squares) + self.eps)


KINDS = {
    "Adagrad": partial(Adagrad, lr=0.5, eps=0.1),
    "SGD": partial(SGD, lr=0.1),
    "SGD-momentum": partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "Adam": partial(Adam, lr=0.1, betas=(0.7, 1 / 3), weight_decay=0.1),
    "AdamW": partial(AdamW, lr=0.1, betas=(0.7, 1 / 3), weight_decay=0.1),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@every_kind
def test_a_step_leaves_the_gradients_and_zero_grad_forgets_them(kind):
    p = Parameter(np.ones((2, 2)))
    p.accumulate_product(np.ones((1, 2)), np.ones((1, 2)))
    optimizer = kind([p])
    optimizer.step()
    optimizer.step()
    np.testing.assert_array_equal(p.grad, np.ones((2, 2)))
    optimizer.zero_grad()
    assert not p.grad.any()


@every_kind
@pytest.mark.parametrize("steps", [0, 1, 17])
def test_a_restored_optimizer_goes_on_as_the_saved_one(kind, steps):
    saved = kind(parameters(dtype=np.float32))
    restored = type(saved)(parameters(dtype=np.float32), lr=7)
    make_steps(saved, steps, seed=1)
    for p, twin in zip(saved.params, restored.params, strict=True):
        twin.data = p.data
    state = saved.state_dict()
    restored.load_state_dict(state)
    for name in saved.slots:
        for array in state[name]:
            array[...] = 1e9  # a copy
    for optimizer in (saved, restored):
        make_steps(optimizer, 20, seed=2)
    assert [p.data.tobytes() for p in saved.params] == [p.data.tobytes() for p in restored.params]
    assert repr(restored) == repr(saved)


@every_kind
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_with_its_parameters_goes_on_as_the_original(kind, copied):
    optimizer = kind(parameters())
    make_steps(optimizer, 2, seed=1)
    twin = copied(optimizer)
    for one in (optimizer, twin):
        make_steps(one, 2, seed=2)
    assert [p.data.tobytes() for p in optimizer.params] == [p.data.tobytes() for p in twin.params]


@every_kind
def test_a_checkpoint_holds_all_that_the_next_steps_depend_on(kind, tmp_path):
    model, other = Linear(3, 2, rng=0), Linear(3, 2, rng=1)
    optimizer = kind(model.parameters())
    restored = type(optimizer)(other.parameters(), lr=7)
    make_steps(optimizer, 17, seed=0)
    checkpoint.save(tmp_path / "run.npz", model, optimizer)
    checkpoint.load(tmp_path / "run.npz", other, restored)
    assert state_bits(restored) == state_bits(optimizer)
    for one in (optimizer, restored):
        make_steps(one, 17, seed=1)
    assert bits(other.state_dict()) == bits(model.state_dict())


@every_kind
def test_a_read_only_parameter_is_refused_before_anything_changes(kind):
    optimizer = kind([Parameter([1.0]), Parameter([2.0])])
    make_steps(optimizer, 1, seed=0)
    optimizer.params[1].data.flags.writeable = False
    before, values = state_bits(optimizer), [p.data.copy() for p in optimizer.params]
    text = "expected parameters with writeable data, got a read-only one"
    with refusal(ValueError, f"{type(optimizer).__name__}: {text}"):
        optimizer.step()
    assert [p.data for p in optimizer.params] == values
    assert state_bits(optimizer) == before


# the base


@given(seed=st.integers(0, 2**32 - 1))
def test_each_parameter_is_updated_in_place_with_a_slot_of_its_own(seed):
    params = parameters(seed)
    wanted = [(p.data.copy(), np.zeros(p.data.shape)) for p in params]
    identities = [id(p.data) for p in params]
    optimizer, rng = Adagrad(iter(params), lr=0.5, eps=0.1), np.random.default_rng(seed)
    for _ in range(3):
        for p, (w, s) in zip(params, wanted, strict=True):
            p.grad = np.asarray(rng.standard_normal(p.data.shape))
            for i in np.ndindex(w.shape):
                s[i] += p.grad[i] ** 2
                w[i] -= 0.5 * p.grad[i] / (s[i] ** 0.5 + 0.1)
        optimizer.step()
    assert identities == [id(p.data) for p in params]
    for p, (w, _) in zip(params, wanted, strict=True):
        np.testing.assert_allclose(p.data, w, rtol=1e-12)


def test_a_parameter_that_appears_twice_steps_once():
    p = Parameter(1.0)
    p.accumulate(1)
    optimizer = Adagrad([p, p], lr=0.5)
    optimizer.step()
    assert p.data == 0.5
    assert len(optimizer.state_dict()["squares"]) == 1


def test_settings_may_be_set_between_steps():
    p = Parameter(0.0)
    p.accumulate(1)
    optimizer = Adagrad([p], lr=0.5)
    optimizer.step()
    optimizer.lr, optimizer.eps = 2**0.5, 1.0
    with refusal(ValueError, "Adagrad: expected eps in (0, inf), got 0"):
        optimizer.eps = 0
    optimizer.step()
    assert p.data == pytest.approx(-0.5 - 2**0.5 / (2**0.5 + 1))


def test_the_state_is_the_settings_and_copies_of_the_slots():
    params = parameters()
    optimizer = Adagrad(params, lr=0.5, eps=0.1)
    assert optimizer.state_dict() == {"lr": 0.5, "eps": 0.1, "squares": []}
    make_steps(optimizer, 1, seed=1)
    state = optimizer.state_dict()
    before = state_bits(optimizer)
    for p, s in zip(params, state["squares"], strict=True):
        np.testing.assert_array_equal(s, p.grad**2)
        s[...] = 9
    assert state_bits(optimizer) == before


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"lr": -1.0}, ValueError, "Adagrad: expected lr in [0, inf), got -1.0"),
        ({"eps": "0"}, TypeError, "Adagrad: expected eps in (0, inf), got '0'"),
        ({"squares": {}}, TypeError, "Adagrad: expected squares to be a list, got a dict"),
        (
            {"squares": [np.ones(2)]},
            ValueError,
            "Adagrad: expected 0 or 2 arrays in squares, got 1",
        ),
        (
            {"squares": [np.ones(2), np.ones(2)]},
            ValueError,
            "Adagrad: expected squares[1] of shape (3,), got (2,)",
        ),
        (
            {"squares": [np.ones(2), np.ones(3, complex)]},
            TypeError,
            "Adagrad: expected squares[1] to be an array of real numbers, "
            "got an array of dtype complex128",
        ),
        (
            {"more": 1},
            ValueError,
            "Adagrad: expected a state dict with keys ['eps', 'lr', 'squares'], "
            "got ['eps', 'lr', 'more', 'squares']",
        ),
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(change, error, text):
    params = [Parameter([1.0, 2.0]), Parameter([1.0, 2.0, 3.0])]
    optimizer = Adagrad(params, lr=0.1)
    make_steps(optimizer, 1, seed=0)
    before = state_bits(optimizer)
    new = {"lr": 0.7, "eps": 0.5, "squares": [np.zeros(2), np.zeros(3)]}
    with refusal(error, text):
        optimizer.load_state_dict({**new, **change})
    assert state_bits(optimizer) == before


@pytest.mark.parametrize(("state", "got"), [([], "a list"), (None, "None")])
def test_a_state_is_a_dict(state, got):
    with refusal(TypeError, f"Adagrad: expected a state dict, got {got}"):
        Adagrad([Parameter(1.0)], lr=1).load_state_dict(state)


def test_slots_follow_the_dtype_of_the_parameters():
    model = Linear(2, 1, rng=0)
    optimizer = Adagrad(model.parameters(), lr=0.1)
    for step, dtype in enumerate((np.float32, np.float64, np.float32), 1):
        model.astype(dtype)
        for p in model.parameters():
            p.grad = np.full(p.data.shape, 2)
        optimizer.step()
        assert {p.data.dtype for p in model.parameters()} == {np.dtype(dtype)}
        for squares in optimizer.state_dict()["squares"]:
            assert squares.dtype == dtype
            assert (squares == 4 * step).all()  # kept, not begun again


def test_restored_slots_have_the_dtypes_of_the_parameters():
    params = [Parameter(np.zeros(2, dtype)) for dtype in (np.float32, np.float64)]
    optimizer = Adagrad(params, lr=0.1)
    optimizer.load_state_dict({**optimizer.state_dict(), "squares": [np.ones(2), [1, 2]]})
    assert [s.dtype for s in optimizer.state_dict()["squares"]] == [np.float32, np.float64]


@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        ([], ValueError, "at least one Parameter, got none"),
        (Parameter(1.0), TypeError, "an iterable of Parameters, got a Parameter"),
        (Linear(1, 1), TypeError, "an iterable of Parameters, got a Linear"),
        (
            [np.ones(2)],
            TypeError,
            "params to be Parameters, got an array of shape (2,) and dtype float64",
        ),
        (list(Linear(1, 1).named_parameters()), TypeError, "params to be Parameters, got a tuple"),
        ("ab", TypeError, "params to be Parameters, got 'a'"),
        ([Parameter], TypeError, "params to be Parameters, got the class Parameter"),
    ],
)
def test_what_is_no_parameter_is_refused(params, error, text):
    with refusal(error, f"Adagrad: expected {text}"):
        Adagrad(params, lr=0.1)


@pytest.mark.parametrize("model", [Linear(1, 1), Sequential(Linear(1, 1))])
def test_a_model_in_place_of_its_parameters_is_refused_with_what_to_give(model):
    with pytest.raises(TypeError, match="Parameters, got a Linear") as caught:
        Adagrad(model, lr=0.1)
    assert caught.value.__notes__ == ["Give `model.parameters()`."]


def test_repr_shows_the_settings():
    assert repr(Adagrad([Parameter(1.0)], 0.1)) == "Adagrad(1 parameters, lr=0.1, eps=1e-08)"


def test_update_must_be_written():
    half = type("Half", (Optimizer,), {})
    with pytest.raises(TypeError, match="abstract method '?update"):
        half([Parameter(1.0)])
