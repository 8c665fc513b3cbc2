"""The contract of Module, as one checklist that every Module passes."""

import copy
import pickle
import warnings
from contextlib import suppress

import numpy as np
import pytest
from cases import CASES
from helpers import assert_same, bits, refusal_starting
from hypothesis import Phase, given, reject, settings

from tinygrad_mnist.testing import InconclusiveGradientCheck, check_gradients
from tinygrad_mnist.testing.strategies import seeds

LEADING = [(), (1,), (5,), (2, 3), (0,), (2, 0, 3)]
FILLED = [leading for leading in LEADING if 0 not in leading]


def where(condition):
    return pytest.mark.parametrize("name", [n for n in CASES if condition(CASES[n])])


every_module = where(lambda case: True)
of_floats = where(lambda case: case.words is None)
deterministic = where(lambda case: not (case.stochastic or case.mixes_rows))
of_one_sample = where(lambda case: not case.mixes_rows)


def made(name, leading=(5,), seed=0, dtype=np.float32):
    """Return a module of a case, and inputs for it."""
    case, rng = CASES[name], np.random.default_rng(seed)
    module, shape = case.make(), (*leading, *case.shape)
    for parameter in module.parameters():  # a bias of 0 or a gain of 1 would hide mistakes
        parameter.data += np.random.default_rng(seed).uniform(0.1, 0.5, parameter.data.shape)
    if case.words is None:
        return module, [rng.standard_normal(shape).astype(dtype) for _ in range(case.inputs)]
    return module, [rng.integers(case.words, size=shape) for _ in range(case.inputs)]


def too_few(name, leading):
    """Return whether the module wants more than one sample, as in training a BatchNorm does."""
    return CASES[name].mixes_rows and np.prod(leading) == 1


def refuser(name):
    return CASES[name].refuser or type(CASES[name].make()).__name__


def cotangent(y, seed=1):
    return np.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype)


def listed(dx):
    """Return the gradients of the inputs as a list."""
    return list(dx) if isinstance(dx, tuple) else [dx]


def gradients(module, inputs, dy=None):
    """Return y, each dx and the parameters' gradients of a copy of module."""
    module = copy.deepcopy(module)
    y = module(*inputs)
    dx = module.backward(cotangent(y) if dy is None else dy)
    return [y, *listed(dx), *(p.grad for p in module.parameters())]


def no_gradient(module):
    return all(not p.grad.any() for p in module.parameters())


@pytest.mark.slow
@every_module
# of each of some 60 modules, in four forms: more takes a minute, and seeds do not shrink
@settings(max_examples=3, phases=[Phase.generate])
@given(seed=seeds())
def test_the_kit_finds_nothing_wrong(name, seed):
    case, judged = CASES[name], 0
    for leading in FILLED:
        if too_few(name, leading):
            continue
        module, inputs = made(name, leading, seed, np.float64)
        x = tuple(inputs) if case.inputs > 1 else inputs[0]
        with suppress(InconclusiveGradientCheck):
            assert check_gradients(module, x, seed=seed, rows_independent=not case.mixes_rows)
            judged += 1
    if not judged:
        reject()


@every_module
@pytest.mark.parametrize("leading", LEADING)
def test_shapes_and_dtypes(name, leading):
    if too_few(name, leading):
        return
    module, inputs = made(name, leading)
    y = module(*inputs)
    dx = module.backward(np.ones_like(y))
    assert y.shape[: len(leading)] == leading
    if module.input_grad:
        assert [d.shape for d in listed(dx)] == [x.shape for x in inputs]
        assert {d.dtype for d in listed(dx)} == {y.dtype}
    else:
        assert dx is None
    dtypes = {p.data.dtype for p in module.parameters()} or {np.dtype(np.float32)}
    assert dtypes == {y.dtype}
    for p in module.parameters():
        assert p.grad.shape == p.data.shape
        assert p.grad.dtype == p.data.dtype


@every_module
def test_an_empty_batch_gives_zero_gradients_and_no_warning(name):
    module, inputs = made(name, (0,))
    before = module.state_dict()
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        module.backward(module(*inputs))
    assert no_gradient(module)
    assert bits(module.state_dict()) == bits(before)


@deterministic
def test_one_sample_gives_what_its_row_in_a_batch_gives(name):
    module, inputs = made(name)
    n = len(inputs)
    y, *both = gradients(module, inputs)
    dxs, grads = (both[:n], both[n:])
    dy = cotangent(y)
    sums = [np.zeros_like(g) for g in grads]
    for i in range(5):
        y_i, *both_i = gradients(module, [x[i] for x in inputs], dy[i])
        rows = [None if dx is None else dx[i] for dx in dxs]
        assert_same([y_i, *both_i[:n]], [y[i], *rows], rtol=1e-5, atol=1e-6)
        sums = [total + g for total, g in zip(sums, both_i[n:], strict=True)]
    assert_same(grads, sums, rtol=1e-5, atol=1e-6)


@every_module
def test_nothing_passed_in_is_modified(name):
    module, inputs = made(name)
    before = copy.deepcopy(inputs)
    dy = cotangent(module(*inputs))
    kept_dy = dy.copy()
    module.backward(dy)
    assert_same([*inputs, dy], [*before, kept_dy])


@every_module
def test_what_the_caller_does_to_x_and_dy_afterwards_changes_no_gradient(name):
    module, inputs = made(name)
    wanted = gradients(module, inputs)
    dy = cotangent(module(*inputs))
    for x in inputs:
        x[...] = 0
    dx = module.backward(dy)
    dy[...] = 1e6
    assert_same([*listed(dx), *(p.grad for p in module.parameters())], wanted[1:])


@every_module
def test_what_the_caller_does_to_y_and_dx_changes_no_gradient_and_no_later_call_changes_them(name):
    module, inputs = made(name)
    wanted = gradients(module, inputs)
    y = module(*inputs)
    dy, kept_y = cotangent(y), y.copy()
    y[...] = 1e6
    dxs = listed(module.backward(dy))
    assert_same([*dxs, *(p.grad for p in module.parameters())], wanted[1:])
    y[...] = kept_y
    module(*made(name, seed=1)[1])
    module.backward(2 * dy)
    assert_same([y, *dxs], wanted[: 1 + len(dxs)])


@every_module
@pytest.mark.parametrize(
    "layout",
    {
        "fortran": np.asfortranarray,
        "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        "reversed": lambda a: a[::-1].copy()[::-1],
        "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
        "list": lambda a: a.tolist(),
        "memoryview": memoryview,
    }.items(),
    ids=lambda item: item[0],
)
def test_memory_layout_changes_nothing(name, layout):
    module, inputs = made(name)
    y, *_ = wanted = gradients(module, inputs)
    dy = cotangent(y)
    found = gradients(module, [layout[1](x) for x in inputs], layout[1](dy))
    assert_same(found, wanted, rtol=1e-5, atol=1e-6)


@every_module
def test_broadcast_and_read_only_arrays_work(name):
    module, inputs = made(name)
    rows = [np.broadcast_to(x[0], x.shape) for x in inputs]
    copies = [x.copy() for x in rows]
    y, *_ = gradients(module, copies)
    dy = np.broadcast_to(cotangent(y)[0], y.shape)
    assert_same(gradients(module, rows, dy), gradients(module, copies, dy.copy()))


@of_floats
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.longdouble])
def test_other_real_numbers_are_converted_never_wrapped(name, dtype):
    module, inputs = made(name)
    inputs = [(np.abs(x) * 100).clip(0, 255).astype(dtype) for x in inputs]
    floats = [x.astype(np.float64) for x in inputs]
    assert_same(gradients(module, inputs), gradients(module, floats), rtol=1e-5, atol=1e-5)


@every_module
@pytest.mark.parametrize(
    "bad",
    [
        np.ones((5, 4), complex),
        np.full((5, 4), None),
        np.full((5, 4), "1"),
        np.ma.masked_array(np.ones((5, 4))),
        [[1.0], [1.0, 2.0]],
        None,
    ],
    ids=["complex", "object", "string", "masked", "ragged", "None"],
)
def test_what_is_no_array_of_real_numbers_is_refused(name, bad):
    module, inputs = made(name)
    argument = "a" if name == "user-Product" else "x"
    text = f"{refuser(name)}: expected {{}} to be an array of real numbers, got "
    with refusal_starting(TypeError, text.format(argument)):
        module(*[bad] * len(inputs))
    module(*inputs)
    with refusal_starting(TypeError, text.format("dy")):
        module.backward(bad)
    assert no_gradient(module)


@every_module
def test_backward_before_forward_is_refused(name):
    module, inputs = made(name)
    text = f"{refuser(name)}: expected a forward before backward, got none"
    with refusal_starting(RuntimeError, text):
        module.backward(inputs[0])


@every_module
@pytest.mark.parametrize("change", [lambda s: (*s, 1), lambda s: (1, *s), lambda s: (*s[:-1], 7)])
def test_dy_of_another_shape_is_refused_and_adds_nothing(name, change):
    module, inputs = made(name)
    y = module(*inputs)
    text = f"{refuser(name)}: expected dy of shape {y.shape}, got {change(y.shape)}"
    with refusal_starting(ValueError, text):
        module.backward(np.ones(change(y.shape)))
    assert no_gradient(module)


@every_module
def test_a_forward_that_fails_leaves_nothing_for_backward(name):
    module, inputs = made(name)
    y = module(*inputs)
    with pytest.raises((TypeError, ValueError)):
        module(*(x.astype(complex) for x in inputs))
    with pytest.raises(RuntimeError):
        module.backward(np.ones_like(y))
    assert no_gradient(module)


@every_module
def test_backward_again_adds_the_same_again(name):
    module, inputs = made(name)
    once = gradients(module, inputs)
    dy = cotangent(module(*inputs))
    first, second = listed(module.backward(dy)), listed(module.backward(dy))
    assert_same(first, once[1 : 1 + len(first)])
    assert_same(second, first)
    twice = [2 * g for g in once[1 + len(first) :]]
    assert_same([p.grad for p in module.parameters()], twice, rtol=1e-5, atol=1e-6)


@every_module
def test_gradients_add_up_until_zero_grad(name):
    module, inputs = made(name)
    dy = cotangent(module(*inputs))
    module.backward(dy)
    first = [p.grad.copy() for p in module.parameters()]
    alone = copy.deepcopy(module.eval())
    alone.zero_grad()
    for m in (module, alone):
        m.backward(cotangent(m(*made(name, seed=5)[1]), seed=7))
    both = [g + p.grad for g, p in zip(first, alone.parameters(), strict=True)]
    assert_same([p.grad for p in module.parameters()], both, rtol=1e-5, atol=1e-6)
    module.zero_grad()
    assert no_gradient(module)


@every_module
def test_backward_follows_the_mode_of_the_last_forward(name):
    module, inputs = made(name)
    wanted = gradients(module, inputs)
    dy = cotangent(module(*inputs))
    module.train(not module.training)
    dxs = listed(module.backward(dy))
    assert_same(dxs, wanted[1 : 1 + len(dxs)])


@every_module
def test_backward_uses_the_parameters_as_they_are_now(name):
    module, inputs = made(name)
    dy = cotangent(module(*inputs))
    for p in module.parameters():
        p.data *= 2
    dx = module.backward(dy)
    other = made(name)[0]
    other(*inputs)
    for p in other.parameters():
        p.data = 2 * p.data
    assert_same(listed(dx), listed(other.backward(dy)))


every_copy = pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))]
)


@every_module
@every_copy
def test_copies_are_independent_and_carry_their_generators(name, copied):
    module, inputs = made(name)
    twin = copied(module)
    y = module(*inputs)
    np.testing.assert_array_equal(twin(*inputs), y)
    before = bits(module.state_dict())
    twin.backward(np.ones_like(y))
    assert no_gradient(module)
    for values in [*twin.parameters(), *(buffer for _, buffer in twin.named_buffers())]:
        values.data += 1
    assert bits(module.state_dict()) == before


@every_module
@every_copy
def test_copies_have_the_gradients_and_not_what_forward_kept(name, copied):
    module, inputs = made(name, (300,))
    fresh = len(pickle.dumps(module))
    attributes = [vars(m).keys() for m in copied(module).modules()]
    dy = cotangent(module(*inputs))
    module.zero_grad()
    assert len(pickle.dumps(module)) < fresh + 200
    module.backward(dy)
    twin = copied(module)
    assert [vars(m).keys() for m in twin.modules()] == attributes
    grads = [[p.grad for p in m.parameters()] for m in (twin, module)]
    assert_same(*grads)
    text = f"{refuser(name)}: expected a forward before backward, got none"
    with refusal_starting(RuntimeError, text):
        twin.backward(dy)
    module.zero_grad()
    dxs = listed(module.backward(dy))  # the original still has its forward
    assert_same([p.grad for p in module.parameters()], grads[0])
    assert len(dxs) == len(inputs)


@of_one_sample
def test_a_training_step_runs_with_numpy_errors_raised(name):
    module, inputs = made(name)
    with np.errstate(all="raise", under="ignore"):
        module.backward(module(*inputs))
        module.backward(module(*(x[0] for x in inputs)))


@of_floats
def test_numbers_too_small_for_float32_are_0_and_raise_nothing(name):
    module, inputs = made(name)
    with np.errstate(all="raise", under="ignore"):
        y = module(*(1e-60 * np.sign(x, dtype=np.float64) for x in inputs))
        module.backward(np.full(y.shape, 1e-60))
    assert no_gradient(module.astype(np.float32))


@of_floats
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_in_their_row(name, value):
    module, inputs = made(name)
    module.eval()
    inputs[0][1].flat[0] = value
    with np.errstate(invalid="ignore"):
        y = module(*inputs)
        module.backward(y)
    assert np.isfinite(np.delete(y, 1, axis=0)).all()
    if np.isnan(value):
        assert np.isnan(y[1]).any()


@every_module
def test_astype_converts_parameters_buffers_and_results(name):
    module, inputs = made(name)
    whole = {n for n, b in module.named_buffers() if b.data.dtype.kind != "f"}
    for dtype in (np.float64, np.float32):
        assert module.astype(dtype) is module
        assert all(p.data.dtype == p.grad.dtype == dtype for p in module.parameters())
        for n, b in module.named_buffers():
            assert b.data.dtype == (np.int64 if n in whole else dtype)
        if list(module.parameters()):
            assert module(*inputs).dtype == dtype


@every_module
def test_state_dict_round_trip(name):
    module, inputs = made(name)
    module(*inputs)
    state = module.state_dict()
    arrays = dict([*module.named_parameters(), *module.named_buffers()])
    assert state.keys() == arrays.keys()
    other = made(name)[0]
    held = dict([*other.named_parameters(), *other.named_buffers()])
    for array in held.values():
        array.data += 1
    identities = [id(array.data) for array in held.values()]
    other.load_state_dict(state)
    assert identities == [id(array.data) for array in held.values()]
    assert bits(other.state_dict()) == bits(state)
    np.testing.assert_array_equal(other.eval()(*inputs), module.eval()(*inputs))
    for values in state.values():
        values += 1
    np.testing.assert_array_equal(other(*inputs), module(*inputs))


@every_module
def test_numpys_global_state_is_left_alone(name):
    before = np.random.get_state()  # noqa: NPY002
    module, inputs = made(name)
    module.backward(module(*inputs))
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert np.random.get_state()[2:] == before[2:]  # noqa: NPY002


@every_module
def test_dx_has_the_dtype_of_the_layer(name):
    module, inputs = made(name)
    y = module(*inputs)
    dxs = listed(module.backward(np.ones(y.shape)))
    assert all(dx is None or dx.dtype == y.dtype for dx in dxs)


@every_module
def test_repr_shows_no_array(name):
    text = repr(made(name)[0])
    assert "array" not in text
    assert type(made(name)[0]).__name__ in text
