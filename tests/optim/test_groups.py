"""Groups: several optimizers as one, against the same optimizers called one by one."""

import copy
import pickle

import numpy as np
import pytest
from helpers import bits, make_steps, parameters, refusal, state_bits
from hypothesis import settings

from tinygrad_mnist import SGD, Adam, AdamW, DataLoader, Linear, MSELoss, Parameter, Sequential
from tinygrad_mnist.optim import Groups, Optimizer
from tinygrad_mnist.optim.schedules import cosine_decay
from tinygrad_mnist.testing.strategies import optimizer_checklist
from tinygrad_mnist.training import LearningRate, checkpoint, fit

test_groups_of_one_kind_are_that_kind = optimizer_checklist(
    lambda params: Groups(*(SGD([p], 0.1, 0.9, 0.01) for p in params)),
    reference=lambda params: SGD(params, 0.1, 0.9, 0.01),
    settings=settings(max_examples=3),
)


def made(params=None, lr=0.2):
    """Return Groups of an SGD of the first two parameters and an Adam of the rest."""
    params = parameters() if params is None else [*params]
    return Groups(SGD(params[:2], lr, momentum=0.9), Adam(params[2:], lr / 4))


def states(groups):
    return groups.proportions, [state_bits(optimizer) for optimizer in groups.optimizers]


def test_each_optimizer_moves_its_own_parameters():
    groups, params = made(), parameters()
    alone = SGD(params[:2], 0.2, momentum=0.9), Adam(params[2:], 0.05)
    make_steps(groups, 3, seed=1)
    rng = np.random.default_rng(1)
    for _ in range(3):
        for p in params:
            p.grad = rng.standard_normal(p.data.shape)
        for optimizer in alone:
            optimizer.step()
    for p, other in zip(groups.params, params, strict=True):
        np.testing.assert_array_equal(p.data, other.data)
    groups.zero_grad()
    assert not any(p.grad.any() for p in groups.params)


def test_the_rates_keep_their_proportions_also_after_a_rate_of_0():
    groups = made()
    assert groups.lr == 0.2
    for lr in (0.4, 0, 1e-300, 0.1):
        groups.lr = lr
        first, second = (optimizer.lr for optimizer in groups.optimizers)
        assert (first, second) == (lr, pytest.approx(lr / 4))
    for lr, error in ((-1, ValueError), ("1", TypeError)):
        with refusal(error, f"Groups: expected lr in [0, inf), got {lr!r}"):
            groups.lr = lr
    assert groups.lr == 0.1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_with_its_parameters_goes_on_as_the_original(copied):
    groups = made()
    make_steps(groups, 2, seed=1)
    twin = copied(groups)
    for one in (groups, twin):
        one.lr = 0.1
        make_steps(one, 2, seed=2)
    assert [p.data.tobytes() for p in groups.params] == [p.data.tobytes() for p in twin.params]
    assert states(groups) == states(twin)


def test_a_resumed_run_with_a_schedule_has_the_bits_of_a_whole_one(tmp_path):
    def run():
        model = Sequential(Linear(3, 4, rng=0), Linear(4, 1, rng=1))
        loader = DataLoader(np.eye(9, 3), np.ones((9, 1)), 2, shuffle=True, rng=0)
        groups = Groups(AdamW(model[1].parameters(), 0.1), SGD(model[0].parameters(), 0.01))
        return model, MSELoss(), groups, loader

    saving = {"checkpoint": tmp_path / "run.npz", "resume": True}
    callbacks = [LearningRate(cosine_decay(0.3, steps=4))]
    whole, half, rest = run(), run(), run()
    history = fit(*whole, epochs=4, callbacks=callbacks)
    fit(*half, epochs=2, callbacks=callbacks, **saving)
    rest[2].proportions = (1.0, 7.0)
    assert fit(*rest, epochs=4, callbacks=callbacks, **saving) == history
    assert bits(rest[0].state_dict()) == bits(whole[0].state_dict())
    assert states(rest[2]) == states(whole[2])
    assert history.column("lr")[0] == 0.3
    assert whole[2].optimizers[1].lr == pytest.approx(whole[2].lr / 10)
    other = Groups(SGD(whole[0].parameters(), 0.1))
    contract = f"checkpoint.load: expected {tmp_path / 'run.npz'} to fit"
    text = "Groups: expected the state of SGD, got that of AdamW, SGD"
    with refusal(checkpoint.CheckpointError, f"{contract}, got {text}"):
        checkpoint.load(tmp_path / "run.npz", whole[0], other, whole[3])


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"kinds": ["SGD", "AdamW"]}, "that of SGD, AdamW"),
        ({"kinds": ["SGD"]}, "that of SGD"),
        ({"proportions": (1.0, -1.0)}, "Groups: expected a proportion in [0, inf), got -1.0"),
        ({"proportions": (1.0,)}, "zip() argument 3 is shorter than arguments 1-2"),
        ({"states": [{}, {}]}, None),
        ({"states": None}, "'NoneType' object is not iterable"),
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(change, got):
    groups = made()
    make_steps(groups, 1, seed=0)
    state = groups.state_dict()
    make_steps(groups, 1, seed=1)
    before = states(groups)
    if got is None:  # the first fits, the second does not
        change = {"states": [state["states"][0], {**state["states"][1], "steps": -1}]}
        got = "Adam: expected steps to be an integer >= 0, got -1"
    with refusal(ValueError, f"Groups: expected the state of SGD, Adam, got {got}"):
        groups.load_state_dict({**state, **change})
    assert states(groups) == before


def test_a_state_of_another_kind_is_refused():
    with refusal(TypeError, "Groups: expected a state dict, got None"):
        made().load_state_dict(None)
    contract = "a state dict with keys ['kinds', 'proportions', 'states']"
    with refusal(ValueError, f"Groups: expected {contract}, got ['lr']"):
        made().load_state_dict({"lr": 0.1})


def test_a_read_only_parameter_is_refused_before_anything_moves():
    groups = made()
    make_steps(groups, 1, seed=0)
    groups.params[2].data.flags.writeable = False
    before, values = states(groups), [p.data.copy() for p in groups.params]
    with refusal(
        ValueError, "Groups: expected parameters with writeable data, got a read-only one"
    ):
        groups.step()
    for p, value in zip(groups.params, values, strict=True):
        np.testing.assert_array_equal(p.data, value)
    assert states(groups) == before


def test_what_makes_no_groups_is_refused():
    p, q = Parameter([1.0]), Parameter([2.0])
    with refusal(TypeError, "Groups: expected Optimizers as its arguments, got a list"):
        Groups([SGD([p], 0.1), SGD([q], 0.1)])
    with refusal(ValueError, "Groups: expected at least one Parameter, got none"):
        Groups()
    contract = "Groups: expected each Parameter in one optimizer"
    with refusal(ValueError, f"{contract}, got 1 again in another"):
        Groups(SGD([p, q], 0.1), Adam([q]))
    contract = "Groups: expected a first lr > 0, for the others to follow"
    with refusal(ValueError, f"{contract}, got 0.0"):
        Groups(SGD([p], 0.0), SGD([q], 0.1))


def test_groups_are_an_optimizer_also_within_groups():
    p, q, r = (Parameter([1.0]) for _ in range(3))
    inner = Groups(SGD([q], 0.1), SGD([r], 0.2))
    outer = Groups(SGD([p], 1.0), inner)
    outer.lr = 10.0
    assert [o.lr for o in inner.optimizers] == pytest.approx([1, 2])
    assert isinstance(outer, Optimizer)


def test_repr_shows_the_optimizers():
    groups = Groups(SGD([Parameter(1.0)], 0.1), SGD([Parameter(1.0)], 0.2))
    assert repr(groups) == (
        "Groups(\n"
        "  (0): SGD(1 parameters, lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False)\n"
        "  (1): SGD(1 parameters, lr=0.2, momentum=0.0, weight_decay=0.0, nesterov=False)\n"
        ")"
    )
