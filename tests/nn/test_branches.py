"""Residual and Parallel: sums and joins by hand, their names, and what they refuse."""

import numpy as np
import pytest
from cases import Embedding, MeanPool, Scale, Twice
from helpers import refusal

from tinygrad_mnist import (
    Conv2d,
    Dropout,
    Linear,
    Module,
    Parallel,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def linear(in_features, out_features, seed=0, **settings):
    return Linear(in_features, out_features, rng=seed, dtype=np.float64, **settings)


def grads(*modules):
    """Return the gradients of all parameters, and forget them."""
    found = [p.grad.copy() for module in modules for p in module.parameters()]
    for module in modules:
        module.zero_grad()
    return found


def assert_equal(found, wanted):
    assert len(found) == len(wanted) > 0
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(f, w)


class Same(Module):
    """Returns the very arrays that it gets."""

    def forward(self, x):
        return x

    def backward(self, dy):
        return dy


class Total(Same):
    """Returns one number."""

    def forward(self, x):
        return np.asarray(x).sum()


# Residual


def test_a_residual_adds_x_to_its_body_and_dy_to_the_gradient_of_the_body():
    a, b = linear(3, 4, 1), linear(4, 3, 2)
    model, x, dy = Residual(a, Tanh(), b), normal(5, 3), normal(5, 3, seed=1)
    body = Sequential(a, Tanh(), b)
    y, dx = model(x), model.backward(dy)
    found = grads(model)
    np.testing.assert_array_equal(y, body(x) + x)
    np.testing.assert_array_equal(dx, body.backward(dy) + dy)
    assert_equal(found, grads(body))


def test_a_shortcut_stands_in_for_x():
    a, b = linear(3, 2, 1), linear(3, 2, 2, bias=False)
    model, x, dy = Residual(a, ReLU(), shortcut=b), normal(5, 3), normal(5, 2, seed=1)
    body = Sequential(a, ReLU())
    y, dx = model(x), model.backward(dy)
    found = grads(model)
    np.testing.assert_array_equal(y, body(x) + b(x))
    np.testing.assert_array_equal(dx, body.backward(dy) + b.backward(dy))
    assert_equal(found, grads(body, b))


def test_a_residual_of_nothing_is_twice_x():
    x = normal(2, 3)
    for model in (Residual(), Residual(shortcut=Sequential())):
        np.testing.assert_array_equal(model(x), 2 * x)
        np.testing.assert_array_equal(model.backward(x), 2 * x)
    assert Residual(ReLU())(np.array(3.0)) == np.array(6.0)
    assert type(Residual(ReLU())(np.array(3.0))) is np.ndarray


def test_the_parts_of_a_residual_have_their_places_as_names():
    model = Residual(Linear(3, 4), ReLU(), Linear(4, 2), shortcut=Linear(3, 2, bias=False))
    names = ["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias", "shortcut.weight"]
    assert [name for name, _ in model.named_parameters()] == names
    assert [name for name, _ in Residual(Linear(1, 1)).named_parameters()] == names[:2]
    assert len(model.body) == 3
    assert Residual(ReLU()).shortcut is None


@pytest.mark.parametrize(
    ("make", "other", "got"),
    [
        (lambda: Residual(Linear(3, 4)), "x", "(2, 4) and (2, 3)"),
        (lambda: Residual(Linear(3, 1)), "x", "(2, 1) and (2, 3)"),
        (lambda: Residual(shortcut=Linear(3, 1)), "shortcut(x)", "(2, 3) and (2, 1)"),
    ],
)
def test_a_residual_never_broadcasts(make, other, got):
    model, x = make(), np.ones((2, 3))
    with refusal(ValueError, f"Residual: expected body(x) and {other} of one shape, got {got}"):
        model(x)
    with pytest.raises(RuntimeError, match="Residual: expected a forward before backward"):
        model.backward(x)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (lambda bad: Residual(bad), "Residual, layer body.0: "),
        (lambda bad: Residual(ReLU(), Sequential(bad)), "Residual, layer body.1.0: "),
        (lambda bad: Residual(shortcut=bad), "Residual, layer shortcut: "),
        (lambda bad: Residual(shortcut=Sequential(bad)), "Residual, layer shortcut.0: "),
        (lambda bad: Sequential(ReLU(), Residual(bad)), "Sequential, layer 1.body.0: "),
        (lambda bad: Parallel(bad), "Parallel, layer 0: "),
        (lambda bad: Parallel(ReLU(), Sequential(ReLU(), bad)), "Parallel, layer 1.1: "),
        (lambda bad: Residual(Parallel(ReLU(), bad, join="add")), "Residual, layer body.0.1: "),
    ],
)
def test_a_refusal_inside_names_the_layer_by_its_path_forward_and_backward(model, path):
    bad = Linear(3, 3, rng=0)
    model = model(bad)
    with refusal(ValueError, f"{path}Linear: expected x of shape (..., 3), got (2, 4)"):
        model(np.ones((2, 4)))
    y = model(np.ones((2, 3)))
    bad(np.ones((5, 3)))
    with refusal(ValueError, f"{path}Linear: expected dy of shape (5, 3), got (2, 3)"):
        model.backward(np.ones_like(y))
    with pytest.raises(ValueError, match="expected x of shape"):
        bad(np.ones(1))
    text = "Linear: expected a forward before backward, got none, or one that failed"
    with refusal(RuntimeError, path + text):
        model.backward(np.ones_like(y))


# Parallel


def test_concat_joins_along_the_last_axis_and_gives_each_branch_its_own_part_of_dy():
    a, b, c = linear(3, 2, 1), linear(3, 1, 2), Tanh()
    model, x, dy = Parallel(a, b, c), normal(4, 5, 3), normal(4, 5, 6, seed=1)
    y, dx = model(x), model.backward(dy)
    found = grads(model)
    np.testing.assert_array_equal(y, np.concatenate([a(x), b(x), c(x)], axis=-1))
    parts = [a.backward(dy[..., :2]), b.backward(dy[..., 2:3]), c.backward(dy[..., 3:])]
    np.testing.assert_allclose(dx, sum(parts), rtol=1e-14)
    assert_equal(found, grads(a, b))


def test_add_gives_each_branch_all_of_dy():
    a, b = linear(3, 2, 1), linear(3, 2, 2)
    model, x, dy = Parallel(a, b, join="add"), normal(5, 3), normal(5, 2, seed=1)
    y, dx = model(x), model.backward(dy)
    found = grads(model)
    np.testing.assert_array_equal(y, a(x) + b(x))
    np.testing.assert_array_equal(dx, a.backward(dy) + b.backward(dy))
    assert_equal(found, grads(a, b))


def test_one_branch_is_that_branch():
    a, x, dy = linear(3, 2, 1), normal(5, 3), normal(5, 2, seed=1)
    for join in ("concat", "add"):
        model = Parallel(a, join=join)
        np.testing.assert_array_equal(model(x), a(x))
        np.testing.assert_array_equal(model.backward(dy), a.backward(dy))


def test_backward_follows_the_join_of_its_forward():
    model, x = Parallel(linear(3, 2, 1), linear(3, 2, 2)), normal(5, 3)
    for join, other, width in (("concat", "add", 4), ("add", "concat", 2)):
        model.join = join
        dy = normal(*model(x).shape)
        assert dy.shape == (5, width)
        dx = model.backward(dy)
        model.join = other
        np.testing.assert_array_equal(model.backward(dy), dx)


def test_the_branches_are_named_by_position():
    model = Parallel(Linear(3, 2), Sequential(ReLU(), Linear(3, 1, bias=False)))
    names = ["0.weight", "0.bias", "1.1.weight"]
    assert [name for name, _ in model.named_parameters()] == names
    assert repr(Parallel(ReLU())) == "Parallel(join='concat'\n  (0): ReLU()\n)"


def test_a_join_is_checked_whenever_it_is_set():
    model = Parallel(ReLU())
    with refusal(ValueError, 'Parallel: expected join "concat" or "add", got \'sum\''):
        model.join = "sum"
    with refusal(ValueError, 'Parallel: expected join "concat" or "add", got None'):
        Parallel(ReLU(), join=None)
    assert model.join == "concat"


@pytest.mark.parametrize(
    ("branches", "shape", "got"),
    [
        (lambda: [MeanPool(), ReLU()], (2, 4, 1), "(1, 2, 1) and (2, 4, 1)"),
        (lambda: [Conv2d(1, 1, (1, 2)), ReLU()], (2, 4, 1), "(2, 3, 1) and (2, 4, 1)"),
        (lambda: [Tanh(), ReLU()], (), "() and ()"),
        (lambda: [ReLU()], (), "()"),
        (lambda: [ReLU(), Total()], (3,), "(3,) and ()"),
    ],
)
def test_only_the_last_axes_of_what_is_joined_may_differ(branches, shape, got):
    contract = "y of one shape but for the last axis from every branch"
    with refusal(ValueError, f"Parallel: expected {contract}, got {got}"):
        Parallel(*branches())(np.ones(shape))


def test_what_is_added_is_never_broadcast():
    model = Parallel(Linear(3, 2), Linear(3, 1), Linear(3, 2), join="add")
    text = "Parallel: expected y of one shape from every branch, got (4, 2) and (4, 1) and (4, 2)"
    with refusal(ValueError, text):
        model(np.ones((4, 3)))
    with pytest.raises(RuntimeError, match="Parallel: expected a forward before backward"):
        model.backward(np.ones((4, 2)))
    assert Parallel(Tanh(), ReLU(), join="add")(np.array(0.0)).shape == ()


def test_branches_may_look_integers_up():
    a, b = Embedding(5, 2, rng=0), Embedding(5, 3, rng=1)
    model, words = Sequential(Parallel(a, b), Linear(5, 1, rng=2)), np.array([[0, 4], [1, 1]])
    y = model(words)
    joined = np.concatenate([a.table.data[words], b.table.data[words]], axis=-1)
    np.testing.assert_array_equal(y, model[1](joined))
    assert model.backward(np.ones_like(y)) is None


# both


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_bytes_wrap_around_in_no_branch_beside_one_that_may_look_them_up(dtype):
    data, x = linear(3, 3, input_grad=False), np.array([[200, 100, 1]]).astype(dtype)
    twice = 2 * x.astype(float)
    np.testing.assert_array_equal(Parallel(data, Twice())(x)[..., 3:], twice)
    np.testing.assert_array_equal(Parallel(Parallel(data, Twice()), Twice())(x)[..., 3:6], twice)
    np.testing.assert_allclose(Residual(data, shortcut=Twice())(x), data(x) + twice, rtol=1e-14)
    np.testing.assert_array_equal(Sequential(Parallel(data, Twice()))(x)[..., 3:], twice)


def test_a_branch_that_takes_data_leaves_no_dx():
    data, other = Linear(3, 3, rng=0, input_grad=False), Linear(3, 3, rng=1)
    for make in (lambda: Residual(data), lambda: Parallel(data, other), lambda: Parallel(data)):
        model = make()
        assert not model.input_grad
        y = model(np.ones((2, 3)))
        assert model.backward(np.ones_like(y)) is None
        assert all(p.grad.any() for p in model.parameters())
        model.zero_grad()
    assert not Residual(other, shortcut=data).input_grad
    assert Residual(other).input_grad
    assert Parallel(other, ReLU()).input_grad
    text = "Sequential: expected input_grad=False in no layer but the first, got it in layer 1"
    with refusal(ValueError, text):
        Sequential(ReLU(), Parallel(data, other))


def test_one_sample_has_the_most_axes_that_a_part_says():
    assert Residual(Linear(2, 2)).sample_axes == Parallel(ReLU(), Linear(2, 2)).sample_axes == 1
    assert Parallel(ReLU(), MeanPool()).sample_axes == 3
    assert Residual(MeanPool()).sample_axes == Residual(shortcut=MeanPool()).sample_axes == 3


@pytest.mark.parametrize("of_input", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("of_layer", [np.float32, np.float64])
def test_the_parameters_decide_the_dtype_also_beside_a_branch_without_any(of_input, of_layer):
    x = np.ones((2, 3), of_input)
    for model in (
        Residual(Linear(3, 3)),
        Residual(ReLU(), shortcut=Linear(3, 3)),
        Parallel(Linear(3, 3), Tanh()),
        Parallel(Tanh(), Linear(3, 3), join="add"),
    ):
        y = model.astype(of_layer)(x)
        assert y.dtype == of_layer
        assert model.backward(np.ones(y.shape)).dtype == of_layer
    floats = np.float32 if of_input == np.float32 else np.float64
    assert Parallel(Tanh(), ReLU())(x).dtype == Residual(ReLU())(x).dtype == floats


@pytest.mark.parametrize(
    "make",
    [
        lambda: Residual(Same()),
        lambda: Residual(Same(), shortcut=Same()),
        lambda: Parallel(Same()),
        lambda: Parallel(Same(), join="add"),
        lambda: Parallel(Same(), Same(), join="add"),
    ],
)
def test_y_and_dx_are_new_arrays_whatever_the_branches_return(make):
    model, x, dy = make(), normal(2, 3), normal(2, 3, seed=1)
    kept = x.copy(), dy.copy()
    y, dx = model(x), model.backward(dy)
    assert not np.shares_memory(y, x)
    assert not np.shares_memory(dx, dy)
    assert_equal([x, dy], kept)


@pytest.mark.parametrize("make", [Residual, lambda: Parallel(ReLU())])
def test_the_shape_that_dy_must_have_is_that_of_y_whatever_the_caller_makes_of_it(make):
    model = make()
    y = model(np.ones((4, 1)))
    y.resize(4, refcheck=False)
    text = f"{type(model).__name__}: expected dy of shape (4, 1), got (4,)"
    with refusal(ValueError, text):
        model.backward(np.ones(4))


def test_the_mode_reaches_every_branch():
    model = Residual(Dropout(0.5, rng=0), shortcut=Parallel(Dropout(0.5, rng=1)))
    x = np.ones((50, 3))
    assert (model(x) != 2 * x).any()
    np.testing.assert_array_equal(model.eval()(x), 2 * x)


@pytest.mark.parametrize(
    ("kind", "layers", "shortcut", "name", "got"),
    [
        (Residual, [ReLU(), ReLU], {}, "body.1", "the class ReLU"),
        (Residual, [[ReLU()]], {}, "body.0", "a list"),
        (Residual, [], {"shortcut": ReLU}, "shortcut", "the class ReLU"),
        (Parallel, [ReLU(), None], {}, "1", "None"),
        (Parallel, [[ReLU()]], {}, "0", "a list"),
    ],
)
def test_what_is_no_module_is_refused_with_the_remedy(kind, layers, shortcut, name, got):
    text = f"{kind.__name__}: expected layer {name} to be a Module, got {got}"
    with refusal(TypeError, text) as caught:
        kind(*layers, **shortcut)
    assert caught.value.__notes__ == [
        'Pass Module objects: `ReLU()`, not `ReLU` or "relu"; `Sequential(*layers)`, not '
        "`Sequential(layers)`."
    ]


def test_the_same_module_twice_is_refused():
    scale, relu = Scale(2), ReLU()
    text = ": expected each Module once, got the same "
    with refusal(ValueError, f"Residual{text}ReLU in layers body.0 and body.1"):
        Residual(relu, relu)
    with refusal(ValueError, f"Residual{text}Scale in layers body.0 and shortcut"):
        Residual(Sequential(scale), shortcut=scale)
    with refusal(ValueError, f"Parallel{text}Scale in layers 0 and 2"):
        Parallel(Residual(scale), ReLU(), scale)
    with refusal(ValueError, f"Sequential{text}Scale in layers 0 and 1"):
        Sequential(Residual(scale), Parallel(scale))


def test_a_parallel_of_nothing_is_refused():
    with refusal(ValueError, "Parallel: expected at least one branch, got none"):
        Parallel()


def test_a_branch_that_answers_with_no_real_numbers_is_refused():
    class Roots(Same):
        def forward(self, x):
            return np.sqrt(x.astype(complex))

    text = "expected y to be an array of real numbers, got an array of dtype complex128"
    with refusal(TypeError, f"Parallel, layer 0: Roots: {text}"):
        Parallel(Roots())(np.ones(2))
    with refusal(TypeError, f"Residual, layer body: Sequential: {text}"):
        Residual(Roots())(np.ones(2))
