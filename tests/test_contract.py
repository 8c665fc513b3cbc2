"""The contract of Module, as one checklist that every Module passes."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from cases import CASES
from hypothesis import given, reject
from hypothesis import strategies as st

from tinygrad_mnist.testing import InconclusiveGradientCheck, check_gradients
from tinygrad_mnist.testing.strategies import seeds

LEADING = [(), (1,), (5,), (2, 3), (0,), (2, 0, 3)]
FILLED = [leading for leading in LEADING if 0 not in leading]

every_module = pytest.mark.parametrize("name", CASES)
# a row's mask depends on the rows before it
deterministic = pytest.mark.parametrize("name", [n for n in CASES if not CASES[n].stochastic])
# user-Scale refuses in its own words
checked_by_us = pytest.mark.parametrize("name", [n for n in CASES if n != "user-Scale"])


def made(name, leading=(5,), seed=0, dtype=np.float32):
    case = CASES[name]
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*leading, case.in_features)).astype(dtype)
    return case.make(), x


def refuser(name):
    """Return the owner that a refusal names: Residual leaves it to the Linear inside."""
    module = CASES[name].make()
    return type(module.branches[0] if name == "user-Residual" else module).__name__


def cotangent(y, seed=1):
    return np.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype)


def gradients(module, x, dy=None):
    """Return y, dx and the parameters' gradients of a copy of module."""
    module = copy.deepcopy(module)
    y = module(x)
    dx = module.backward(cotangent(y) if dy is None else dy)
    return [y, dx, *(p.grad for p in module.parameters())]


def assert_same(found, wanted, rtol=0.0, atol=0.0):
    for f, w in zip(found, wanted, strict=True):
        if w is None:
            assert f is None
        else:
            np.testing.assert_allclose(f, w, rtol=rtol, atol=atol)


@pytest.mark.slow
@every_module
@given(seed=seeds(), leading=st.sampled_from(FILLED))
def test_the_kit_finds_nothing_wrong(name, seed, leading):
    module, x = made(name, leading, seed, np.float64)
    try:
        assert check_gradients(module, x, seed=seed)
    except InconclusiveGradientCheck:
        reject()


@every_module
@pytest.mark.parametrize("leading", LEADING)
def test_shapes_and_dtypes(name, leading):
    module, x = made(name, leading)
    y = module(x)
    dx = module.backward(np.ones_like(y))
    assert y.shape[:-1] == x.shape[:-1]
    if dx is not None:
        assert dx.shape == x.shape
    dtypes = {p.data.dtype for p in module.parameters()} or {np.dtype(np.float32)}
    assert dtypes == {y.dtype}
    for p in module.parameters():
        assert p.grad.shape == p.data.shape
        assert p.grad.dtype == p.data.dtype


@every_module
def test_an_empty_batch_gives_zero_gradients_and_no_warning(name):
    module, x = made(name, (0,))
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        module.backward(module(x))
    assert all(not p.grad.any() for p in module.parameters())


@deterministic
def test_one_sample_gives_what_its_row_in_a_batch_gives(name):
    module, x = made(name)
    y, dx, *grads = gradients(module, x)
    dy = cotangent(y)
    sums = [np.zeros_like(g) for g in grads]
    for i in range(len(x)):
        y_i, dx_i, *grads_i = gradients(module, x[i], dy[i])
        assert_same([y_i, dx_i], [y[i], None if dx is None else dx[i]], rtol=1e-5, atol=1e-6)
        sums = [total + g for total, g in zip(sums, grads_i, strict=True)]
    assert_same(grads, sums, rtol=1e-5, atol=1e-6)


@every_module
def test_nothing_passed_in_is_modified(name):
    module, x = made(name)
    y = module(x)
    dy = cotangent(y)
    kept_x, kept_dy = x.copy(), dy.copy()
    module.backward(dy)
    np.testing.assert_array_equal(x, kept_x)
    np.testing.assert_array_equal(dy, kept_dy)


@every_module
def test_what_the_caller_does_to_x_and_dy_afterwards_changes_no_gradient(name):
    module, x = made(name)
    wanted = gradients(module, x)
    y = module(x)
    dy = cotangent(y)
    x[...] = 1e6
    dx = module.backward(dy)
    dy[...] = 1e6
    assert_same([dx, *(p.grad for p in module.parameters())], wanted[1:])


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
    module, x = made(name)
    y, *_ = wanted = gradients(module, x)
    dy = cotangent(y)
    assert_same(gradients(module, layout[1](x), layout[1](dy)), wanted, rtol=1e-6, atol=1e-7)


@every_module
def test_broadcast_and_read_only_arrays_work(name):
    module, x = made(name)
    row = np.broadcast_to(x[0], x.shape)
    y, *_ = gradients(module, row.copy())
    dy = np.broadcast_to(cotangent(y)[0], y.shape)
    assert_same(gradients(module, row, dy), gradients(module, row.copy(), dy.copy()))


@every_module
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.longdouble])
def test_other_real_numbers_are_converted_never_wrapped(name, dtype):
    module, x = made(name)
    x = (np.abs(x) * 100).clip(0, 255).astype(dtype)
    assert_same(gradients(module, x), gradients(module, x.astype(np.float64)), rtol=1e-5)


@checked_by_us
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
    module, x = made(name)
    text = f"^{refuser(name)}: expected {{}} to be an array of real numbers, got "
    with pytest.raises(TypeError, match=text.format("x")):
        module(bad)
    module(x)
    with pytest.raises(TypeError, match=text.format("dy")):
        module.backward(bad)
    assert all(not p.grad.any() for p in module.parameters())


@every_module
def test_backward_before_forward_is_refused(name):
    module, x = made(name)
    text = f"^{refuser(name)}: expected a forward before backward, got none"
    with pytest.raises(RuntimeError, match=text):
        module.backward(x)


@every_module
@pytest.mark.parametrize("change", [lambda s: (*s, 1), lambda s: (1, *s), lambda s: (s[0], 1)])
def test_dy_of_another_shape_is_refused_and_adds_nothing(name, change):
    module, x = made(name)
    y = module(x)
    shape = change(y.shape)
    if shape == y.shape:
        shape = (y.shape[0], 2)
    text = rf"^{refuser(name)}: expected dy of shape \(5, \d+\), got \("
    with pytest.raises(ValueError, match=text):
        module.backward(np.ones(shape))
    assert all(not p.grad.any() for p in module.parameters())


@every_module
def test_a_forward_that_fails_leaves_nothing_for_backward(name):
    module, x = made(name)
    y = module(x)
    with pytest.raises((TypeError, ValueError)):
        module(x.astype(complex))
    with pytest.raises(RuntimeError):
        module.backward(np.ones_like(y))
    assert all(not p.grad.any() for p in module.parameters())


@every_module
def test_backward_again_adds_the_same_again(name):
    module, x = made(name)
    once = gradients(module, x)
    dy = cotangent(module(x))
    first, second = module.backward(dy), module.backward(dy)
    assert_same([first, second], [once[1], once[1]])
    assert_same([p.grad for p in module.parameters()], [2 * g for g in once[2:]], rtol=1e-6)


@every_module
def test_gradients_add_up_until_zero_grad(name):
    module, x = made(name)
    dy = cotangent(module(x))
    module.backward(dy)
    first = [p.grad.copy() for p in module.parameters()]
    module.eval()
    other = cotangent(module(2 * x), seed=7)
    alone = copy.deepcopy(module)
    alone.zero_grad()
    alone.backward(other)
    module.backward(other)
    both = [g + p.grad for g, p in zip(first, alone.parameters(), strict=True)]
    assert_same([p.grad for p in module.parameters()], both, rtol=1e-5, atol=1e-6)
    module.zero_grad()
    assert all(not p.grad.any() for p in module.parameters())


@every_module
def test_backward_follows_the_mode_of_the_last_forward(name):
    module, x = made(name)
    wanted = gradients(module, x)
    dy = cotangent(module(x))
    module.train(not module.training)
    assert_same([module.backward(dy)], wanted[1:2])


@every_module
def test_backward_uses_the_parameters_as_they_are_now(name):
    module, x = made(name)
    dy = cotangent(module(x))
    for p in module.parameters():
        p.data *= 2
    dx = module.backward(dy)
    other = made(name)[0]
    other(x)
    for p in other.parameters():
        p.data = 2 * p.data
    assert_same([dx], [other.backward(dy)])


@every_module
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent_and_carry_their_generators(name, copied):
    module, x = made(name)
    twin = copied(module)
    y = module(x)
    np.testing.assert_array_equal(twin(x), y)
    twin.backward(np.ones_like(y))
    assert all(not p.grad.any() for p in module.parameters())
    for p in twin.parameters():
        p.data += 1
    np.testing.assert_array_equal(module.eval()(x), made(name)[0].eval()(x))


@every_module
def test_a_training_step_runs_with_numpy_errors_raised(name):
    module, x = made(name)
    with np.errstate(all="raise"):
        module.backward(module(x))
        module.backward(module(x[0]))


@pytest.mark.parametrize("name", [n for n in CASES if not n.startswith("user")])
def test_numbers_too_small_for_float32_raise_nothing(name):
    module, x = made(name)
    with np.errstate(all="raise"):
        y = module(1e-42 * np.sign(x, dtype=np.float64))
        module.backward(np.full(y.shape, 1e-50))


@every_module
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_in_their_row(name, value):
    module, x = made(name)
    module.eval()
    x[1, 0] = value
    with np.errstate(invalid="ignore"):
        y = module(x)
        module.backward(y)
    assert np.isfinite(np.delete(y, 1, axis=0)).all()
    if np.isnan(value):
        assert np.isnan(y[1]).any()


@every_module
def test_astype_converts_parameters_and_results(name):
    module, x = made(name)
    for dtype in (np.float64, np.float32):
        assert module.astype(dtype) is module
        assert all(p.data.dtype == p.grad.dtype == dtype for p in module.parameters())
        if list(module.parameters()):
            assert module(x).dtype == dtype


@every_module
def test_state_dict_round_trip(name):
    module, x = made(name)
    state = module.state_dict()
    assert list(state) == [n for n, _ in module.named_parameters()]
    other = made(name)[0]
    for p in other.parameters():
        p.data += 1
    identities = [id(p.data) for p in other.parameters()]
    other.load_state_dict(state)
    assert identities == [id(p.data) for p in other.parameters()]
    np.testing.assert_array_equal(other.eval()(x), module.eval()(x))
    for values in state.values():
        values += 1
    np.testing.assert_array_equal(other(x), module(x))


@every_module
def test_numpys_global_state_is_left_alone(name):
    before = np.random.get_state()  # noqa: NPY002
    module, x = made(name)
    module.backward(module(x))
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert np.random.get_state()[2:] == before[2:]  # noqa: NPY002


@every_module
def test_dx_has_the_dtype_of_the_layer(name):
    module, x = made(name)
    y = module(x)
    dx = module.backward(np.ones(y.shape))
    assert dx is None or dx.dtype == y.dtype


@every_module
def test_repr_shows_no_array(name):
    text = repr(made(name)[0])
    assert "array" not in text
    assert type(made(name)[0]).__name__ in text
