"""The compiled pass against the eager loop that it stands for."""

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
from cases import OwnLinear, Twice
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_mnist
from tinygrad_mnist import (
    SGD,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Linear,
    Module,
    MSELoss,
    Parameter,
    ReLU,
    Sequential,
    Unflatten,
)
from tinygrad_mnist.testing.strategies import seeds

pytest.importorskip("numba")
from passes import LOSSES, OPTIMIZERS, assert_equal_passes, chains, eager_pass

from tinygrad_mnist.compiled import ROWS, compile_sgd, rows, samples
from tinygrad_mnist.compiled.kernel import BLOCKS, LINEAR, RELU
from tinygrad_mnist.compiled.plan import Rule

NAMES = "Sequential, Linear, ReLU, Dropout, Flatten, Unflatten, Conv2d and MaxPool2d"


def streams(model):
    return [m.rng.bit_generator.state for m in model.modules() if isinstance(m, Dropout)]


def assert_same(found, wanted, dtype):
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.max(abs(b), initial=1))


def targets_for(loss, n, rng):
    """Return targets of three outputs: numbers, labels, or rows of probabilities."""
    rows = rng.standard_normal((n, 3)).astype(np.float32)
    if isinstance(loss, MSELoss):
        return rows
    if loss.reduction == "sum":
        return np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    return rng.integers(0, 3, n)


@given(
    drawn=chains(st.integers(1, 9)),
    seed=seeds(),
    options=st.sampled_from(OPTIMIZERS),
    make_loss=st.sampled_from(LOSSES),
    n=st.sampled_from([7, 0, 1]),
    shuffled=st.booleans(),
)
def test_two_passes_leave_what_two_eager_passes_leave(drawn, seed, options, make_loss, n, shuffled):
    (eager, features), rng = drawn, np.random.default_rng(seed)
    dtype = next(eager.parameters()).data.dtype
    fast = copy.deepcopy(eager)
    x = rng.standard_normal((n, features)) * (rng.random((n, features)) < 0.5)
    t = targets_for(make_loss(), n, rng)
    order = rng.integers(0, n, 2 * n) if shuffled and n else None
    optimizers = [SGD(model.parameters(), 1e-4, **options) for model in (eager, fast)]
    train = compile_sgd(fast, make_loss(), optimizers[1])
    for _ in range(2):
        wanted = eager_pass(eager, make_loss(), optimizers[0], x, t, order)
        assert_same(train(x, t, order=order), wanted, dtype)
    assert_same([p.data for p in fast.parameters()], [p.data for p in eager.parameters()], dtype)
    velocities = [optimizer.state_dict()["velocities"] for optimizer in optimizers]
    assert_same(velocities[1], velocities[0], dtype)
    assert streams(fast) == streams(eager)
    assert all(p.data.dtype == dtype and not p.grad.any() for p in fast.parameters())


def test_labels_that_do_not_fit_are_refused():
    model = model_of_two()
    before = model.state_dict()
    train = compile_sgd(model, CrossEntropyLoss(), SGD(model.parameters(), 0.1))
    with pytest.raises(ValueError, match=r"^train: expected labels in \[0, 2\), got 2"):
        train(np.ones((3, 4)), [0, 1, 2])
    with pytest.raises(TypeError, match="^train: expected labels to be integers, got dtype float"):
        train(np.ones((3, 4)), [0.0, 1.0, 0.0])
    with pytest.raises(ValueError, match="^train: expected target to have rows that are one-hot"):
        train(np.ones((3, 4)), np.ones((3, 2)))
    assert all((model.state_dict()[name] == before[name]).all() for name in before)


def test_samples_of_more_axes_are_flattened_and_back():
    rng = np.random.default_rng(0)
    x, t = rng.random((9, 2, 3)), rng.integers(0, 2, 9)
    layers = Flatten(2), Linear(6, 4, rng=1), Unflatten((2, 2)), ReLU(), Flatten(2)
    eager = Sequential(*layers, Linear(4, 2, rng=2)).astype(np.float64)
    fast = copy.deepcopy(eager)
    wanted = eager_pass(eager, CrossEntropyLoss(), SGD(eager.parameters(), 0.1), x, t)
    train = compile_sgd(fast, CrossEntropyLoss(), SGD(fast.parameters(), 0.1))
    assert_same(train(x, t), wanted, x.dtype)
    assert_same([p.data for p in fast.parameters()], [p.data for p in eager.parameters()], x.dtype)
    text = "compile_sgd: expected samples of 2 axes or more for layer 0, got (6,)"
    with pytest.raises(ValueError, match="^" + re.escape(text) + "$"):
        train(x.reshape(9, 6), t)
    text = "compile_sgd: expected layer 1 to take 8 features, got 6"
    with pytest.raises(ValueError, match="^" + re.escape(text) + "$"):
        train(np.ones((9, 2, 4)), t)


@pytest.mark.parametrize(
    ("layers", "layer"),
    [
        ([Linear(6, 6), ReLU(), Flatten(2), Linear(36, 2)], 0),
        ([Unflatten((3, 2)), Linear(2, 1), Flatten(3), Linear(18, 2)], 1),
        ([Flatten(2), Linear(36, 4), Unflatten((2, 2)), Linear(2, 1), Flatten(2)], 3),
    ],
)
def test_a_linear_on_samples_of_more_axes_is_refused(layers, layer):
    model, x, t = Sequential(*layers), np.ones((5, 6, 6)), np.ones((5, 2))
    assert model(x).shape == t.shape
    train = compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))
    text = f"^compile_sgd: expected rows for layer {layer}, got samples of shape .*; use the eager"
    with pytest.raises(ValueError, match=text):
        train(x, t)


def test_masks_of_a_shared_generator_in_more_samples_than_are_drawn_for_at_once():
    rng = np.random.default_rng(0)
    x, t = rng.random((1200, 6)), rng.random((1200, 2))
    shared = np.random.default_rng(5)
    first = Dropout(0.2, rng=shared), Linear(6, 5, rng=1), Dropout(0.5, rng=shared)
    model = Sequential(*first, Linear(5, 2, rng=2)).astype(np.float64)
    assert_equal_passes(model, MSELoss, {}, 0.01, x, t)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [*BLOCKS, 1, 17, 105, 200, 300])
def test_rows_of_any_number_of_columns(columns, dtype):
    rng = np.random.default_rng(columns)
    x = rng.random((20, 30)) * (rng.random((20, 30)) < 0.5)
    t = rng.random((20, columns))
    for options in ({}, {"momentum": 0.9}):
        model = Sequential(Linear(30, columns, rng=1), ReLU(), Linear(columns, columns, rng=2))
        assert_equal_passes(model.astype(dtype), MSELoss, options, 0.01, x, t)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", OPTIMIZERS)
@pytest.mark.parametrize("where", ["x", "t", "weight", "bias of a dead unit", "x of dead units"])
def test_nan_and_infinity_behave_as_in_the_eager_loop(value, options, where):
    rng = np.random.default_rng(0)
    x = rng.random((9, 5)) * (rng.random((9, 5)) < 0.5)
    t = rng.random((9, 2))
    eager = Sequential(Linear(5, 4, rng=1), ReLU(), Linear(4, 2, rng=2)).astype(np.float64)
    if where == "weight":
        eager[0].weight.data[1, 2] = value
    elif where == "bias of a dead unit":
        eager[0].bias.data[1] = -abs(value)
    elif where == "x of dead units":  # the output stays finite, the weights do not
        eager[0].weight.data[:] = -abs(eager[0].weight.data)
        x[4, 1], x[5:, 1] = value, 0
    else:
        {"x": x, "t": t}[where][4, 1] = value
    assert_equal_passes(eager, MSELoss, options, 0.1, x, t)


def test_a_unit_that_is_0_gets_its_gradient_unless_a_relu_is_below():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((9, 5)), rng.standard_normal((9, 2))
    layers = [Linear(5, 4, False, rng=1), ReLU(), Linear(4, 3, False, rng=2)]
    for first in (0, 2):  # with a ReLU further down, and without
        eager = Sequential(*layers[first:], Dropout(0.0), Linear(3, 2, rng=3)).astype(np.float64)
        eager[-3].weight.data[:, 1] = 0
        x_ = x[:1, : eager[0].in_features]
        assert_equal_passes(eager, MSELoss, {}, 0.1, x_, t[:1])
        assert eager[-3].weight.data[:, 1].any()


@pytest.mark.parametrize("options", OPTIMIZERS)
def test_a_gradient_that_overflows_behaves_as_in_the_eager_loop(options):
    """Weights become infinite, and all later inputs are 0."""
    rng = np.random.default_rng(0)
    x, t = rng.random((9, 5)), rng.random((9, 2))
    x[4:], t[3] = 0, 1e300
    eager = Sequential(Linear(5, 4, False, rng=1), ReLU(), Linear(4, 2, rng=2)).astype(np.float64)
    eager[2].weight.data *= 1e10
    assert_equal_passes(eager, MSELoss, options, 1e-30, x, t)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("options", OPTIMIZERS)
@pytest.mark.parametrize("where", ["x", "t", "weight"])
def test_a_rate_of_0_leaves_the_weights_as_the_eager_loop_does(where, options, value, dtype):
    rng = np.random.default_rng(0)
    x, t = rng.random((9, 4)) * (rng.random((9, 4)) < 0.5), rng.random((9, 2))
    eager = model_of_two().astype(dtype)
    {"x": x, "t": t, "weight": eager[0].weight.data}[where][3, 1] = value
    before = eager.state_dict()
    assert_equal_passes(eager, MSELoss, options, 0.0, x, t)
    for name, array in eager.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("view", [lambda w: w, lambda w: w[::-1], lambda w: w[1:3], lambda w: w.T])
@pytest.mark.parametrize("name", ["inputs", "targets"])
def test_data_that_a_step_would_change_are_refused(name, view):
    model = Sequential(Linear(4, 4, rng=0), ReLU(), Linear(4, 4, rng=1))
    before, rng = model.state_dict(), np.random.default_rng(0)
    weight = view(model[2].weight.data)
    arrays = {n: rng.random((len(weight), 4), np.float32) for n in ("inputs", "targets")}
    train = compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))
    text = f"train: expected {name} that share no memory with a parameter, got a view of one"
    with pytest.raises(ValueError, match=f"^{text}$"):
        train(**{**arrays, name: weight})
    assert all((model.state_dict()[n] == before[n]).all() for n in before)
    train(**{**arrays, name: weight.copy()})


def test_one_output_has_no_accuracy():
    model = Sequential(Linear(4, 1, rng=0))
    loss, accuracy = compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))(
        np.eye(4), np.ones((4, 1))
    )
    assert np.isfinite(loss)
    assert np.isnan(accuracy)


def model_of_two():
    return Sequential(Linear(4, 3, rng=0), ReLU(), Dropout(0.5, rng=1), Linear(3, 2, rng=2))


def test_inputs_may_be_read_only_mapped_strided_or_integers(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (30, 8), dtype=np.uint8)
    t = np.ones((30, 2), np.float32)
    mapped = np.memmap(tmp_path / "x", np.uint8, "w+", shape=x.shape)
    mapped[:] = x
    read_only = x[:, ::2].astype(np.float32)
    read_only.flags.writeable = False
    results = []
    for inputs in (x[:, ::2], mapped[:, ::2], read_only, x[:, ::2].astype(float).tolist()):
        model = model_of_two()
        train = compile_sgd(model, MSELoss(), SGD(model.parameters(), 1e-6))
        results.append([train(inputs, t), *(p.data for p in model.parameters())])
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(mapped, x)


def test_settings_and_modes_are_read_at_each_call():
    model = model_of_two()
    optimizer = SGD(model.parameters(), 0.1)
    train = compile_sgd(model, MSELoss(), optimizer)
    x, t = np.ones((5, 4)), np.ones((5, 2))
    optimizer.lr = 0.0
    before = model.state_dict()
    train(x, t)
    assert all((model.state_dict()[name] == before[name]).all() for name in before)
    model.eval()
    state = streams(model)
    optimizer.lr = 0.1
    first, _ = train(x, t)
    assert streams(model) == state
    assert train(x, t)[0] < first


@pytest.mark.parametrize("value", [0.5, np.inf])
def test_the_kernel_in_plain_python_does_the_same(value, monkeypatch):
    """Debuggers and coverage see it so."""
    rng = np.random.default_rng(0)
    x = rng.random((9, 14)) * (rng.random((9, 14)) < 0.5)
    x[4, 1], t = value, rng.random((9, 2))
    first = Sequential(Linear(14, 130, bias=False, rng=0), Linear(130, 4, bias=False, rng=3))
    for options in OPTIMIZERS:
        models = [copy.deepcopy(Sequential(first, model_of_two())).astype(float) for _ in range(2)]
        results = []
        for model, plain in zip(models, (False, True), strict=True):
            with monkeypatch.context() as patched:
                if plain:
                    for module in (samples, rows):
                        functions = {n: f for n, f in vars(module).items() if hasattr(f, "py_func")}
                        assert len(functions) >= 8
                        for name, function in functions.items():
                            patched.setattr(module, name, function.py_func)
                train = compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.001, **options))
                with np.errstate(invalid="ignore"):
                    results.append([*train(x, t), *(p.data for p in model.parameters())])
        for compiled_value, plain_value in zip(*results, strict=True):
            np.testing.assert_allclose(plain_value, compiled_value, rtol=1e-12, atol=1e-12)


def tied():
    model = Sequential(Linear(3, 3), Linear(3, 3))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "error", "text"),
    [
        (
            Sequential(Linear(2, 2), Twice()),
            TypeError,
            f"expected {NAMES} alone, got Twice at 1; use the eager loop",
        ),
        (
            Sequential(OwnLinear(2, 2)),
            TypeError,
            f"expected {NAMES} alone, got OwnLinear at 0; use the eager loop",
        ),
        (tied(), TypeError, "expected no shared Parameter, got one; use the eager loop"),
        (
            Sequential(Linear(2, 3), Linear(4, 1)),
            ValueError,
            "expected layer 1 to take 3 features, got 4",
        ),
    ],
)
def test_other_models_are_refused(model, error, text):
    with pytest.raises(error, match="^" + re.escape(f"compile_sgd: {text}") + "$"):
        compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))


def test_a_bias_of_another_shape_is_refused_as_a_kernel_would_read_past_its_end(monkeypatch):
    monkeypatch.setitem(ROWS, Linear, lambda layer: Rule(LINEAR, layer.weight, layer.short))
    model = Sequential(Linear(3, 2, bias=False))
    model[0].short = Parameter(np.zeros(1, np.float32))
    text = "compile_sgd: expected bias of layer 0 of shape (2,), got (1,)"
    with pytest.raises(ValueError, match="^" + re.escape(text) + "$"):
        compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))


def test_other_losses_and_optimizers_are_refused():
    class OwnLoss(MSELoss):
        pass

    class OwnSGD(SGD):
        pass

    model = model_of_two()
    sgd = SGD(model.parameters(), 0.1)
    text = "^compile_sgd: expected an MSELoss or a CrossEntropyLoss, got OwnLoss; use the"
    with pytest.raises(TypeError, match=text):
        compile_sgd(model, OwnLoss(), sgd)
    with pytest.raises(TypeError, match="^compile_sgd: expected an SGD, got OwnSGD; use the eager"):
        compile_sgd(model, MSELoss(), OwnSGD(model.parameters(), 0.1))
    with pytest.raises(ValueError, match="^compile_sgd: expected an optimizer of the model's para"):
        compile_sgd(model, MSELoss(), SGD(model_of_two().parameters(), 0.1))
    with pytest.raises(ValueError, match="^compile_sgd: expected at least one Linear, got none$"):
        compile_sgd(Sequential(ReLU()), MSELoss(), sgd)
    mixed = model_of_two()
    mixed[0].astype(np.float64)
    with pytest.raises(ValueError, match="^compile_sgd: expected parameters of one dtype, got fl"):
        compile_sgd(mixed, MSELoss(), SGD(mixed.parameters(), 0.1))


@pytest.mark.parametrize(
    ("x", "t", "order", "error", "text"),
    [
        ((5, 3), (5, 2), None, ValueError, "train: expected inputs of shape (N, 4), got (5, 3)"),
        ((4,), (5, 2), None, ValueError, "train: expected inputs of shape (N, 4), got (4,)"),
        ((5, 4), (5, 1), None, ValueError, "train: expected targets of shape (5, 2), got (5, 1)"),
        ((5, 4), (4, 2), None, ValueError, "train: expected targets of shape (5, 2), got (4, 2)"),
        ((5, 4), (5, 2), [5], ValueError, "train: expected order of indices in [0, 5), got [5]"),
        ((5, 4), (5, 2), [-1], ValueError, "train: expected order of indices in [0, 5), got [-1]"),
        (
            (5, 4),
            (5, 2),
            [[0]],
            ValueError,
            "train: expected order of indices in [0, 5), got [[0]]",
        ),
        ((5, 4), (5, 2), [0.5], TypeError, "train: expected order of indices, got dtype float64"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_and_change_nothing(x, t, order, error, text):
    model = model_of_two()
    before, state = model.state_dict(), streams(model)
    train = compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))
    with pytest.raises(error, match="^" + re.escape(text) + "$"):
        train(np.ones(x), np.ones(t), order=order)
    assert all((model.state_dict()[name] == before[name]).all() for name in before)
    assert streams(model) == state
    with pytest.raises(TypeError, match="train: expected inputs to be an array of real numbers"):
        train(np.ones((5, 4), complex), np.ones((5, 2)))


@pytest.mark.slow
def test_ctrl_c_stops_within_a_second_and_leaves_trained_weights():
    code = """
import signal
import numpy as np
from tinygrad_mnist import SGD, Linear, MSELoss, ReLU, Sequential
from tinygrad_mnist.compiled import compile_sgd, samples

model = Sequential(Linear(1000, 100, rng=0), ReLU(), Linear(100, 10, rng=1))
train = compile_sgd(model, MSELoss(), SGD(model.parameters(), 1e-4))
x, t = np.ones((1000, 1000), np.float32), np.ones((1000, 10), np.float32)
train(x[:1], t[:1])
before = model.state_dict()
order = np.zeros(10**7, int)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have switched it off
run = samples.run_samples
def run_and_say_so(*arguments):
    samples.run_samples = run
    run(*arguments)
    print("running", flush=True)
samples.run_samples = run_and_say_so
try:
    train(x, t, order=order)
except KeyboardInterrupt:
    moved = [(after != before[name]).any() for name, after in model.state_dict().items()]
    finite = [np.isfinite(after).all() for after in model.state_dict().values()]
    print(all(moved) and all(finite))
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            assert process.stdout.readline() == "True\n"
            assert time.monotonic() - started < 1
        finally:
            process.kill()


@pytest.mark.slow
def test_a_kernel_on_disk_is_used_until_a_file_that_it_imports_changes(tmp_path):
    code = """
import numpy as np
from tinygrad_mnist.compiled.kernel import Settings
from tinygrad_mnist.compiled.rows import step

one = np.float32(1)
arrays = np.ones((3, 8), np.float32)
step(*arrays[:2], 0, arrays[2], one, one, Settings(one, one, False, 0))
print(sum(step.stats.cache_hits.values()))
"""
    package = tmp_path / "tinygrad_mnist"
    shutil.copytree(Path(tinygrad_mnist.__file__).parent, package)

    def hits(settings="Settings"):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
        script = code.replace("import Settings", f"import {settings} as Settings")
        command = [sys.executable, "-c", script]
        return subprocess.run(command, stdout=PIPE, text=True, env=environment, cwd=tmp_path).stdout

    assert [hits(), hits()] == ["0\n", "1\n"]
    with (package / "compiled" / "vectors.py").open("a") as file:
        file.write("# another version\n")
    assert hits() == "0\n"
    for path in (package / "compiled").glob("*.py"):  # what is on disk cannot even be read then
        path.write_text(re.sub(r"\bSettings\b", "SettingsOfSGD", path.read_text()))
    assert hits("SettingsOfSGD") == "0\n"


def test_a_read_only_parameter_is_refused_before_anything_moves():
    model = model_of_two()
    model[3].bias.data.flags.writeable = False
    before = model.state_dict()
    train = compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))
    text = "train: expected parameters with writeable data, got a read-only one"
    with pytest.raises(ValueError, match="^" + re.escape(text) + "$"):
        train(np.ones((5, 4)), np.ones((5, 2)))
    assert all((model.state_dict()[name] == before[name]).all() for name in before)


@pytest.mark.parametrize("method", ["forward", "backward", "draw_mask"])
def test_a_layer_with_a_method_of_its_own_is_refused(method):
    model = Sequential(model_of_two())
    setattr(model[0][2], method, lambda x: x)
    with pytest.raises(TypeError, match="alone, got a custom Dropout at 0.2; use the eager loop$"):
        compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_a_model_with_a_method_of_its_own_is_refused(method):
    model = model_of_two()
    setattr(model, method, lambda x: x)
    with pytest.raises(TypeError, match="alone, got a custom Sequential at the top; use the eager"):
        compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))


@settings(max_examples=5)
@given(seeds())
def test_the_kernel_is_compiled_once_for_each_dtype_whatever_the_model(seed):
    rng = np.random.default_rng(seed)
    model = Sequential(Linear(3, int(rng.integers(1, 9)), rng=rng), ReLU())
    compile_sgd(model, MSELoss(), SGD(model.parameters(), 0.1))(
        np.ones((2, 3)), np.ones((2, model[0].out_features))
    )
    assert len(samples.run_samples.signatures) <= 2


def test_what_changed_since_is_followed_or_refused_before_anything_moves():
    model = model_of_two()
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    train = compile_sgd(model, MSELoss(), optimizer)
    x, t = np.ones((5, 4)), np.ones((5, 2))
    before = model.state_dict()
    with pytest.raises(ValueError, match=re.escape("SGD: expected momentum in [0, 1], got 1.5")):
        optimizer.momentum = 1.5
    optimizer.momentum = 0.0
    old = model[0].weight
    model[0].weight = Parameter(np.zeros((4, 3), np.float32))
    with pytest.raises(ValueError, match="expected an optimizer of the model's parameters"):
        train(x, t)
    model[0].weight = old
    assert all((model.state_dict()[name] == before[name]).all() for name in before)
    model.astype(np.float64)
    train(x, t)
    assert model[0].weight.data.dtype == np.float64


def test_nesterov_without_momentum_is_plain_sgd():
    rng = np.random.default_rng(0)
    x, t = rng.random((20, 4)), rng.random((20, 2))
    plain, fast, eager = (model_of_two().eval().astype(np.float64) for _ in range(3))
    optimizers = [
        SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
        for model in (fast, eager)
    ]
    for optimizer in optimizers:
        optimizer.momentum = 0.0
    compile_sgd(fast, MSELoss(), optimizers[0])(x, t)
    eager_pass(eager, MSELoss(), optimizers[1], x, t)
    eager_pass(plain, MSELoss(), SGD(plain.parameters(), 0.1, weight_decay=0.01), x, t)
    for model in (fast, eager):
        found, wanted = model.parameters(), plain.parameters()
        assert_same([p.data for p in found], [p.data for p in wanted], x.dtype)


def test_the_parameters_may_stand_in_any_order_in_the_optimizer():
    rng = np.random.default_rng(0)
    x, t = rng.random((20, 4)), rng.random((20, 2))
    eager, fast = (model_of_two().astype(np.float64) for _ in range(2))
    optimizers = [SGD(reversed([*m.parameters()]), 0.1, momentum=0.9) for m in (eager, fast)]
    for _ in range(2):
        eager_pass(eager, MSELoss(), optimizers[0], x, t)
        compile_sgd(fast, MSELoss(), optimizers[1])(x, t)
    assert_same([p.data for p in fast.parameters()], [p.data for p in eager.parameters()], x.dtype)
    velocities = [optimizer.state_dict()["velocities"] for optimizer in optimizers]
    assert_same(velocities[1], velocities[0], x.dtype)


class Positive(Module):
    """y = x where x > 0, else 0: a ReLU in all but its class."""

    def forward(self, x):
        self.where = x > 0
        return x * self.where

    def backward(self, dy):
        return dy * self.where


class Product(Module):
    """y = x @ W."""

    def __init__(self, W):
        self.W = Parameter(W)

    def forward(self, x):
        self.x = x
        return x @ self.W.data

    def backward(self, dy):
        self.W.accumulate(np.outer(self.x, dy))
        return dy @ self.W.data.T


def test_a_custom_layer_is_trained_by_the_rule_of_its_row(monkeypatch):
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    eager = Sequential(
        Product(rng.standard_normal((4, 6))), Positive(), Product(rng.standard_normal((6, 2)))
    )
    fast = copy.deepcopy(eager)
    optimizer = SGD(fast.parameters(), 0.01, momentum=0.9)
    text = f"^compile_sgd: expected {NAMES} alone, got Product at 0;"
    with pytest.raises(TypeError, match=text):
        compile_sgd(fast, MSELoss(), optimizer)
    monkeypatch.setitem(ROWS, Product, lambda product: Rule(LINEAR, product.W))
    text = f"{NAMES.replace(' and', ',')} and Product alone, got Positive at 1;"
    with pytest.raises(TypeError, match=text):
        compile_sgd(fast, MSELoss(), optimizer)
    monkeypatch.setitem(ROWS, Positive, ROWS[ReLU])
    wanted = eager_pass(eager, MSELoss(), SGD(eager.parameters(), 0.01, momentum=0.9), x, t)
    assert_same(compile_sgd(fast, MSELoss(), optimizer)(x, t), wanted, x.dtype)
    assert_same([p.data for p in fast.parameters()], [p.data for p in eager.parameters()], x.dtype)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (Rule(RELU), "a row of ROWS to be a function from layer 0 to a Rule, got"),
        (lambda layer: 3, "a row of ROWS to be a function from layer 0 to a Rule, got 3"),
        (
            lambda layer: Rule(LINEAR, layer.weight.data),
            "the Rule of layer 0 to have a Parameter as its weight, got",
        ),
        (
            lambda layer: Rule("tanh", layer.weight, layer.bias),
            "a rule of the kernel's for layer 0, got 'tanh'",
        ),
    ],
)
def test_a_row_that_makes_no_rule_is_refused(row, text, monkeypatch):
    monkeypatch.setitem(ROWS, OwnLinear, row)
    model = Sequential(OwnLinear(2, 2), Linear(2, 2))
    optimizer = SGD(model.parameters(), 0.1)
    with pytest.raises((TypeError, ValueError), match="^compile_sgd: expected " + re.escape(text)):
        compile_sgd(model, MSELoss(), optimizer)(np.ones((1, 2)), np.ones((1, 2)))


def test_a_layer_alone_is_a_chain_of_one():
    x, t = np.eye(3), np.ones((3, 2))
    eager, fast = Linear(3, 2, rng=0), Linear(3, 2, rng=0)
    eager_pass(eager, MSELoss(), SGD(eager.parameters(), 0.1), x, t)
    compile_sgd(fast, MSELoss(), SGD(fast.parameters(), 0.1))(x, t)
    found, wanted = fast.parameters(), eager.parameters()
    assert_same([p.data for p in found], [p.data for p in wanted], np.float32)
