"""A BatchNorm, the package's and a user's: its Buffers are saved, resumed, set back as they must.

The user's is `cases.BatchNorm`. It has two Parameters and two running statistics, as the package's
has, and a count of batches, an integer.
"""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from cases import BatchNorm
from helpers import Killed, KilledAt, bits, refusal

from tinygrad_mnist import SGD, Buffer, DataLoader, Linear, MSELoss, ReLU, Sequential, nn
from tinygrad_mnist.training import BestCheckpoint, Callback, checkpoint, evaluate, fit

BUFFERS = ["1.running_mean", "1.running_var", "1.batches"]


def run_of(kind, seed=0):
    """Return a model with a BatchNorm and what fit needs, for epochs of four batches of five."""
    model = Sequential(Linear(4, 3, rng=seed), kind(3), ReLU(), Linear(3, 2, rng=seed + 1))
    rng = np.random.default_rng(7)
    inputs, targets = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    loader = DataLoader(inputs, targets, 5, shuffle=True, rng=seed)
    return model, MSELoss(), SGD(model.parameters(), lr=0.1, momentum=0.9), loader


@pytest.fixture(params=[BatchNorm, nn.BatchNorm], ids=["user", "package"])
def small_run(request):
    """Return the function that makes a run, of either BatchNorm."""
    return partial(run_of, request.param)


def state(model):
    return bits(model.state_dict())


def counted(layer, batches):
    """Return whether the layer has seen so many batches, if it counts them."""
    return not hasattr(layer, "batches") or layer.batches.data == batches


# the layer itself


def test_training_follows_the_batch_and_evaluation_the_running_statistics():
    layer, x = BatchNorm(2), np.array([[1.0, 10], [3, 10], [5, 40]])
    y = layer(x)
    root = np.sqrt(8 / 3 + 1e-5)
    np.testing.assert_allclose(y[:, 0], [-2 / root, 0, 2 / root], rtol=1e-6)
    np.testing.assert_allclose(layer.running_mean.data, [0.3, 2], rtol=1e-6)
    np.testing.assert_allclose(layer.running_var.data, [0.9 + 0.1 * 4, 0.9 + 0.1 * 300], rtol=1e-6)
    assert layer.batches.data == 1
    y = layer.eval()(x)
    np.testing.assert_allclose(y[:, 0], (x[:, 0] - 0.3) / np.sqrt(1.3 + 1e-5), rtol=1e-6)
    assert layer.batches.data == 1


def test_both_train_to_the_same_numbers():
    users, packages = run_of(BatchNorm), run_of(nn.BatchNorm)
    for run in (users, packages):
        fit(*run, epochs=3)
    theirs = users[0].state_dict()
    for name, values in packages[0].state_dict().items():
        np.testing.assert_allclose(values, theirs[name], rtol=1e-4, atol=1e-5)


def test_an_optimizer_moves_no_buffer(small_run):
    model, _, optimizer, _ = small_run()
    assert not any(p is b for p in optimizer.params for _, b in model.named_buffers())
    before = {name: b.data.copy() for name, b in model.named_buffers()}
    for p in model.parameters():
        p.grad = np.ones(p.data.shape)
    optimizer.step()
    assert bits({name: b.data for name, b in model.named_buffers()}) == bits(before)


# named, saved, loaded


def test_buffers_stand_in_the_state_in_order_of_assignment():
    model, *_ = run_of(BatchNorm)
    names = ["0.weight", "0.bias", "1.weight", "1.bias", *BUFFERS, "3.weight", "3.bias"]
    assert list(model.state_dict()) == names
    assert [name for name, _ in model.named_buffers()] == BUFFERS
    assert not set(BUFFERS) & {name for name, _ in model.named_parameters()}


def test_a_loaded_model_predicts_what_the_saved_one_did(small_run):
    model, *rest = small_run()
    fit(model, *rest, epochs=2)
    other = small_run(seed=3)[0]
    other.load_state_dict(model.state_dict())
    x = np.ones((3, 4))
    np.testing.assert_array_equal(other.eval()(x), model.eval()(x))
    assert counted(other[1], 8)
    assert state(other) == state(model)


def test_a_state_without_buffers_or_with_fractions_for_the_count_is_refused():
    layer = BatchNorm(3)
    whole = layer.state_dict()
    part = {name: whole[name] for name in ("weight", "bias", "running_mean", "batches")}
    with refusal(
        ValueError, "BatchNorm: expected a state dict of its parameters, got no running_var"
    ):
        layer.load_state_dict(part)
    with refusal(TypeError, "BatchNorm: expected batches to fit int64, got dtype float64"):
        layer.load_state_dict({**whole, "weight": np.zeros(3), "batches": 1.5})
    assert state(layer) == bits(whole)


# converted, copied, pickled


def test_astype_converts_the_statistics_and_leaves_the_count(small_run):
    model, *rest = small_run()
    fit(model, *rest, epochs=1)
    before = model.state_dict()
    model.astype(np.float64)
    after = model.state_dict()
    for name in after:
        assert after[name].dtype == (np.int64 if name == "1.batches" else np.float64)
        np.testing.assert_array_equal(after[name], before[name])
    x = np.random.default_rng(0).standard_normal((6, 4))
    wide = model.eval()(x)
    assert wide.dtype == np.float64
    np.testing.assert_allclose(model.astype(np.float32)(x), wide, rtol=1e-4, atol=1e-5)
    assert state(model) == bits(before)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
def test_a_copy_of_a_run_trains_on_to_the_same_bits_and_leaves_the_original(copied, small_run):
    run = small_run()
    fit(*run, epochs=1)
    before = state(run[0])
    twin = copied(run)
    fit(*twin, epochs=2)
    assert state(run[0]) == before
    fit(*run, epochs=2)
    assert state(run[0]) == state(twin[0])


# in checkpoints


def test_a_checkpoint_holds_every_bit_of_the_buffers(tmp_path, small_run):
    model, *rest = small_run()
    fit(model, *rest, epochs=2)
    checkpoint.save(tmp_path / "a.npz", model)
    other = small_run(seed=3)[0]
    checkpoint.load(tmp_path / "a.npz", other)
    assert state(other) == state(model)
    assert counted(other[1], 8)


@pytest.mark.parametrize(
    ("name", "dtype", "found"),
    [
        ("running_mean", np.float64, "1.running_mean of float32, not float64"),
        ("batches", np.int32, "1.batches of int64, not int32"),
    ],
)
def test_a_checkpoint_of_other_dtypes_is_refused_and_changes_nothing(tmp_path, name, dtype, found):
    path = tmp_path / "a.npz"
    checkpoint.save(path, run_of(BatchNorm)[0])
    other = run_of(BatchNorm, seed=3)[0]
    setattr(other[1], name, Buffer(getattr(other[1], name).data.astype(dtype)))
    before = state(other)
    text = f"checkpoint.load: expected {path} to fit, got {found}"
    with refusal(checkpoint.CheckpointError, text):
        checkpoint.load(path, other)
    assert state(other) == before


@pytest.mark.parametrize("at", [3, 4, 6, 10])
def test_a_killed_run_resumes_with_the_same_statistics(tmp_path, at, small_run):
    saving = {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 1}
    whole, killed, resumed = small_run(), small_run(), small_run(seed=3)
    history = fit(*whole, epochs=3)
    with pytest.raises(Killed):
        fit(*killed, epochs=3, callbacks=[KilledAt(at)], **saving)
    assert fit(*resumed, epochs=3, resume=True, **saving) == history
    assert state(resumed[0]) == state(whole[0])
    assert counted(resumed[0][1], 12)


def test_the_best_checkpoint_holds_the_statistics_of_its_epoch(tmp_path, small_run):
    path, states = tmp_path / "best.npz", []

    class Sees(Callback):
        def after_epoch(self, run):
            states.append(state(run.model))

    run = small_run()
    best = BestCheckpoint(path, "val_loss")
    history = fit(*run, epochs=6, validation=run[3], callbacks=[best, Sees()])
    losses = history.column("val_loss")
    model = small_run(seed=3)[0]
    assert checkpoint.load(path, model)["epoch"] == losses.index(min(losses)) + 1
    assert state(model) == states[losses.index(min(losses))]
    found = evaluate(model, MSELoss(), run[3])["loss"]  # of batches in another order
    assert found == pytest.approx(min(losses), rel=1e-6)


# set back


def test_nan_sets_the_statistics_back_with_the_parameters(small_run):
    run, good = small_run(), small_run()

    class Poisons(Callback):
        def before_step(self, run):
            if run.step == 6:
                run.model[1].weight.data[...] = np.nan

    text = "fit: expected a finite loss, got nan in batch 3 of epoch 2"
    with refusal(FloatingPointError, text):
        fit(*run, epochs=3, callbacks=[Poisons()])
    fit(*good, epochs=1)
    assert state(run[0]) == state(good[0])
    assert counted(run[0][1], 4)


def test_an_infinite_buffer_is_no_reason_to_stop(small_run):
    run = small_run()
    run[0].lowest = Buffer(np.inf)
    assert len(fit(*run, epochs=1).records) == 1
    assert run[0].lowest.data == np.inf
