"""check_vjp: what it takes, finds, refuses and leaves alone."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import refusal
from layers import normal, softmax

from tinygrad_mnist.testing import (
    GradientCheckError,
    InconclusiveGradientCheck,
    ModuleContractError,
    check_vjp,
)
from tinygrad_mnist.testing.contracts.function import FUNCTION_RULES

X, W = normal(5, 4), normal(4, 3, seed=1)


def product(x, w):
    return x @ w


def product_vjp(dy, x, w):
    return dy @ w.T, x.T @ dy


def softmax_vjp(dy, x):
    y = softmax(x)
    return y * (dy - (y * dy).sum(axis=-1, keepdims=True))


def softmax_vjp_of_the_diagonal(dy, x):
    y = softmax(x)
    return y * (1 - y) * dy


def square(x):
    return x**2


def square_vjp(dy, x):
    return 2 * x * dy


def test_a_right_function_gives_a_true_report_in_the_names_of_its_arguments():
    report = check_vjp(product, product_vjp, X, W)
    assert report
    assert report.subject == "product"
    assert [(a.name, a.shape, a.checked) for a in report.arrays] == [
        ("x", (5, 4), 20),
        ("w", (4, 3), 12),
    ]


def test_a_gradient_of_one_array_comes_with_or_without_a_tuple():
    assert check_vjp(softmax, softmax_vjp, X)
    assert check_vjp(softmax, lambda dy, x: (softmax_vjp(dy, x),), X)
    assert check_vjp(softmax, lambda dy, x: [softmax_vjp(dy, x)], X)


def test_a_wrong_gradient_is_named_by_array_and_entry():
    def one_forgotten(dy, x, w):
        dx, dw = product_vjp(dy, x, w)
        dw[3, 2] = 0
        return dx, dw

    with pytest.raises(GradientCheckError) as caught:
        check_vjp(product, one_forgotten, X, W)
    assert [(m.name, m.index) for m in caught.value.report.mismatches] == [("w", (3, 2))]
    assert not check_vjp(softmax, softmax_vjp_of_the_diagonal, X, raise_on_failure=False)


def test_names_replace_those_of_the_arguments_and_equal_ones_are_numbered():
    def names(*given):
        return [a.name for a in check_vjp(product, product_vjp, X, W, names=given).arrays]

    assert names("images", "kernel") == ["images", "kernel"]
    assert names("w", "w") == ["w (0)", "w (1)"]
    report = check_vjp(lambda *arrays: product(*arrays), product_vjp, X, W)
    assert report.subject == "the function"
    assert [a.name for a in report.arrays] == ["x[0]", "x[1]"]


def test_integers_stay_what_they_are_and_have_no_gradient():
    rows = np.array([2, 0, 2])

    def picked(x, rows):
        assert rows.dtype == np.int64
        assert rows.tolist() == [2, 0, 2]
        return x[rows]

    def picked_vjp(dy, x, rows):
        dx = np.zeros_like(x)
        np.add.at(dx, rows, dy)
        return dx, None

    report = check_vjp(picked, picked_vjp, X, rows)
    assert [a.name for a in report.arrays] == ["x"]
    assert not check_vjp(picked, lambda dy, x, rows: (0 * x, rows), X, rows, raise_on_failure=False)


def test_a_function_may_have_no_gradient_for_an_array_but_not_for_all():
    report = check_vjp(product, lambda dy, x, w: (dy @ w.T, None), X, W)
    assert [a.name for a in report.arrays] == ["x"]
    with pytest.raises(ModuleContractError, match=r"expected vjp to return a gradient, got None"):
        check_vjp(product, lambda dy, x, w: (None, None), X, W)


def test_numbers_and_lists_are_arrays():
    assert check_vjp(np.multiply, lambda dy, a, b: (dy * b, dy * a), 3.0, [1.0, 2.0][0])
    assert check_vjp(np.sum, lambda dy, a: dy * np.ones_like(a), [[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize("scale", [1, 1.02])
def test_float32_functions_get_float32_and_are_judged_by_its_precision(scale):
    seen = set()

    def tanh(x):
        seen.add(x.dtype)
        return np.tanh(x)

    def tanh_vjp(dy, x):
        seen.update({x.dtype, dy.dtype})
        return dy * (1 - np.tanh(x) ** 2) * np.float32(scale)

    report = check_vjp(tanh, tanh_vjp, X, dtype=np.float32, raise_on_failure=False)
    assert bool(report) == (scale == 1)
    assert seen == {np.dtype(np.float32)}


@pytest.mark.parametrize("scale", [1, 1.02])
def test_a_function_that_is_rounded_to_float32_inside_is_judged_by_that(scale):
    def rounded(x):
        return np.tanh(x.astype(np.float32)) @ W

    def vjp(dy, x):
        return scale * (dy @ W.T) * (1 - np.tanh(x) ** 2)

    report = check_vjp(rounded, vjp, X, raise_on_failure=False)
    assert bool(report) == (scale == 1)
    assert "These outputs have the precision of float32." in report.hints


class Dropout:
    """y = x * mask / (1 - p), not a Module."""

    def __init__(self, seed):
        self.rng, self.p = np.random.default_rng(seed), 0.5

    def forward(self, x):
        self.scale = (self.rng.random(x.shape) > self.p) / (1 - self.p)
        return x * self.scale

    def backward(self, dy, x):
        return dy * self.scale


def test_a_generator_of_the_functions_owner_is_set_back_and_left_as_found():
    layer, twin = Dropout(0), np.random.default_rng(0)
    assert check_vjp(layer.forward, layer.backward, X)
    assert layer.rng.random() == twin.random()


def test_the_global_generators_are_set_back_and_left_as_found():
    def noise(x):
        noise.scale = np.random.random(x.shape) * random.random()  # noqa: NPY002
        return x * noise.scale

    states = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert check_vjp(noise, lambda dy, x: dy * noise.scale, X)
    assert states == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002


def test_reset_sets_back_what_nobody_else_can():
    counted = {"calls": 0}

    def forward(x):
        counted["calls"] += 1
        return x * counted["calls"]

    def vjp(dy, x):
        return dy * counted["calls"]

    with pytest.raises(ModuleContractError) as caught:
        check_vjp(forward, vjp, X)
    assert caught.value.rule == "reproducible"
    assert check_vjp(forward, vjp, X, reset=lambda: counted.update(calls=0))


def test_the_dy_of_a_y_without_axes_is_an_array_too():
    def vjp(dy, x):
        assert isinstance(dy, np.ndarray)
        return dy * np.cos(x)

    assert check_vjp(np.sin, vjp, 0.3)


def test_the_callers_arrays_are_never_seen_by_the_function():
    def doubled(x):
        x *= 2
        return x

    x = X.copy()
    assert check_vjp(doubled, lambda dy, x: 2 * dy, x, contracts=False)
    np.testing.assert_array_equal(x, X)


def skeleton(*arrays):
    raise NotImplementedError


def edited_by_forward(x):
    x += 1
    return x**2


def edited_by_vjp(dy, x):
    dx = 2 * x * dy
    x[0] = 0
    return dx


def dy_edited(dy, x):
    dy *= 2 * x
    return dy


BUFFER = np.empty(X.shape)


def into_a_buffer(x):
    return np.square(x, out=BUFFER)


def vjp_into_a_buffer(dy, x):
    return np.multiply(2 * x, dy, out=BUFFER)


GENERATOR = np.random.default_rng(0)  # a global one of somebody's, which nobody finds


def noisy(x):
    return x**2 + GENERATOR.random(x.shape)


def memory_order(x):
    return x.ravel("K").reshape(x.shape) ** 2


def logarithm(x):
    with np.errstate(divide="ignore"):
        return np.log(abs(x) * (abs(x) > 0.3))


# by rule: a function with one fault, and what the refusal says
FAULTS = {
    "implemented": [
        (skeleton, square_vjp, "forward to be implemented, got NotImplementedError"),
        (square, skeleton, "vjp to be implemented, got NotImplementedError"),
        (lambda x: None, square_vjp, "forward to return an array, got None"),
        (square, lambda dy, x: None, "vjp to return gradients, got None"),
    ],
    "keeps-input": [
        (edited_by_forward, square_vjp, "forward to leave x alone, got it modified"),
        (square, edited_by_vjp, "vjp to leave x alone, got it modified"),
    ],
    "keeps-dy": [(square, dy_edited, "vjp to leave dy alone, got it modified")],
    "keeps-results": [
        (into_a_buffer, square_vjp, "y to keep its values, got them overwritten"),
        (
            square,
            vjp_into_a_buffer,
            "the gradient of x to keep its values, got them overwritten",
        ),
    ],
    "reproducible": [
        (
            noisy,
            square_vjp,
            "the same from the same arrays again; what forward draws or counts has to be set back "
            "before each, got another value of y",
        )
    ],
    "shape": [
        (lambda x: (x, x), square_vjp, "forward to return one array, got a tuple"),
        (square, lambda dy, x: (dy, dy), "vjp to return a gradient for each of 1 arrays, got 2"),
        (
            square,
            lambda dy, x: dy.sum(axis=0),
            "vjp to return a gradient of shape (5, 4), got (4,)",
        ),
    ],
    "dtype": [
        (lambda x: "a", square_vjp, "forward to return an array of floats, got 'a'"),
        (
            lambda x: x + 1j,
            square_vjp,
            "forward to return an array of floats, got an array of shape (5, 4) and dtype "
            "complex128",
        ),
        (
            square,
            lambda dy, x: np.sign(dy).astype(int),
            "vjp to return an array of floats, got an array of shape (5, 4) and dtype int64",
        ),
    ],
    "finite": [
        (logarithm, lambda dy, x: dy / x, "y to be finite for finite inputs, got -inf"),
        (
            square,
            lambda dy, x: np.where(x > 1, np.nan, 2 * x) * dy,
            "the gradient of x to be finite for finite inputs, got nan",
        ),
    ],
    "layout": [
        (
            memory_order,
            square_vjp,
            "Fortran-ordered arrays and dy to change nothing, got another value of y",
        ),
        (
            square,
            lambda dy, x: 2 * x * (dy if dy.strides[0] else 0 * dy),
            "a broadcast dy to change nothing, got another value of the gradient of x",
        ),
    ],
    "linear": [
        (
            square,
            lambda dy, x: 2 * x * np.where(dy < 0, -1, 1) * abs(dy) ** 1.01,
            "vjp(-4 dy) to be -4 vjp(dy), got another value of the gradient of x",
        ),
        (
            square,
            lambda dy, x: 2 * x * np.clip(dy, -100, 100),
            "vjp(2**26 dy) to be 2**26 vjp(dy), got another value of the gradient of x",
        ),
        (
            square,
            lambda dy, x: 2 * x * np.where(abs(dy) < 0.01, 0, dy),
            "vjp(2**-20 dy) to be 2**-20 vjp(dy), got another value of the gradient of x",
        ),
        (
            square,
            lambda dy, x: 2 * x * dy + (not dy.any()),
            "vjp of a dy of zeros to be 0, got another value of the gradient of x",
        ),
        (
            square,
            lambda dy, x: 2 * x * dy * (1 if dy.all() else 2),
            "vjp(a + b) to be vjp(a) + vjp(b), got another value of the gradient of x",
        ),
        (
            square,
            lambda dy, x: 2 * x * np.where(abs(dy) < abs(dy).max() / 4, 0, dy),
            "vjp(64 a + b) to be 64 vjp(a) + vjp(b), got another value of the gradient of x",
        ),
    ],
}


@pytest.mark.parametrize(
    ("rule", "forward", "vjp", "message"),
    [(rule, *fault) for rule, faults in FAULTS.items() for fault in faults],
)
def test_a_broken_rule_is_named_in_words(rule, forward, vjp, message):
    name = forward.__name__.replace("<lambda>", "the function")
    with refusal(ModuleContractError, f"{name}: expected {message} [rule: {rule}]") as caught:
        check_vjp(forward, vjp, X)
    assert caught.value.rule == rule


def test_every_rule_has_a_fault_and_a_row_of_the_page_in_its_own_words():
    assert FAULTS.keys() == FUNCTION_RULES.keys()
    page = Path(__file__).parents[2] / "docs" / "pages" / "functions.md"
    told = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", page.read_text(), re.M))
    first_lines = {name: rule.__doc__.split("\n")[0] for name, rule in FUNCTION_RULES.items()}
    assert told == first_lines


def test_contracts_false_leaves_the_rules_out():
    with pytest.raises(ModuleContractError):
        check_vjp(square, dy_edited, X)
    assert check_vjp(square, dy_edited, X, contracts=False)


def test_a_layout_may_be_refused():
    def contiguous_alone(x):
        if not x.flags.c_contiguous:
            raise ValueError("contiguous arrays alone")
        return x**2

    assert check_vjp(contiguous_alone, square_vjp, X)


def test_the_layout_is_not_asked_of_a_function_that_draws():
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state

    def mask_by_memory(x):
        mask_by_memory.scale = np.empty_like(x)
        mask_by_memory.scale.ravel("K")[:] = rng.random(x.size)
        return x * mask_by_memory.scale

    def rewind():
        rng.bit_generator.state = state

    assert check_vjp(mask_by_memory, lambda dy, x: dy * mask_by_memory.scale, X, reset=rewind)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda dy: np.sign(dy) * abs(dy) ** np.float32(1.01),
        lambda dy: np.clip(dy, -100, 100),
        lambda dy: np.where(abs(dy) < 0.001, 0, dy),
        lambda dy: np.where(abs(dy) < abs(dy).max() / 4, 0, dy),
    ],
)
def test_a_vjp_in_float32_that_is_not_linear_is_found(wrong):
    with pytest.raises(ModuleContractError) as caught:
        check_vjp(square, lambda dy, x: square_vjp(wrong(dy), x), X, dtype=np.float32)
    assert caught.value.rule == "linear"


def test_numbers_that_are_not_finite_may_give_such_numbers():
    x = X.copy()
    x[0, 0] = np.inf
    with pytest.raises(InconclusiveGradientCheck, match="expected finite outputs"):
        check_vjp(square, square_vjp, x)


def test_nonfinite_numbers_are_allowed_where_asked_for():
    def spoiled(dy, x):
        return np.where(x > 1, np.nan, 2 * x) * dy

    with pytest.raises(ModuleContractError):
        check_vjp(square, spoiled, X)
    with pytest.raises(GradientCheckError):
        check_vjp(square, spoiled, X, allow_nonfinite=True)


def test_gradients_near_the_largest_number_are_right():
    large = np.float32(1e37)
    assert check_vjp(lambda x: large * x, lambda dy, x: large * dy, X, dtype=np.float32)


def test_what_cannot_be_checked_is_refused():
    floats = "an array of floats to differentiate for"
    with refusal(ValueError, f"check_vjp: expected {floats}, got none"):
        check_vjp(square, square_vjp, np.arange(3))
    with refusal(ValueError, "check_vjp: expected a name for each of 2 arrays, got 1"):
        check_vjp(product, product_vjp, X, W, names=["x"])
    with refusal(
        TypeError,
        "check_vjp: expected x to be an array of real numbers, got an array of dtype complex128",
    ):
        check_vjp(square, square_vjp, X + 1j)
