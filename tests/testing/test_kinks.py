"""What the checker says at kinks: between the slopes is right, outside is wrong."""

from contextlib import suppress

import numpy as np
import pytest
from layers import ELEMENTWISE, Elementwise, Largest, Linear, floats, normal

from tinygrad_mnist import Module, ReLU, Sequential, nn
from tinygrad_mnist.testing import (
    GradientCheckError,
    InconclusiveGradientCheck,
    check_gradients,
    check_vjp,
)

ZEROS, ONES = np.zeros((3, 4)), np.ones((3, 4))


def relu_with(slope_at_0):
    return Elementwise(
        lambda x: np.maximum(x, 0), lambda x: np.where(x == 0, slope_at_0, (x > 0) * 1.0)
    )


class Sharing(Largest):
    """The largest of a row, whose ties are paid a part each: `paid` of so many ties."""

    def __init__(self, paid):
        self.paid = paid

    def forward(self, x):
        y = super().forward(x)
        ties = np.asarray(x) == y
        self._where = ties * self.paid(ties.sum(axis=-1, keepdims=True))
        return y


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (ReLU(), ZEROS),
        (relu_with(1), ZEROS),
        (relu_with(0.5), ZEROS),
        (nn.LeakyReLU(), ZEROS),
        (Elementwise(*ELEMENTWISE["absolute"]), ZEROS),
        (Elementwise(*ELEMENTWISE["hard tanh"]), ONES),
        (Largest(), ONES),
        (Sharing(lambda ties: 1 / ties), ONES),
        (nn.MaxPool2d(2), np.ones((4, 4, 2))),
        (nn.MaxPool2d(3, stride=1), np.zeros((2, 5, 5, 1))),
        (ReLU(), 1e-13 * normal(3, 4)),
    ],
    ids=repr,
)
def test_a_check_wholly_on_kinks_is_right_if_every_answer_lies_between(layer, x):
    report = check_gradients(layer, x)
    (array,) = report.arrays
    assert (array.checked, array.on_kink, array.undecided) == (x.size, x.size, 0)
    assert array.telling > 0


@pytest.mark.parametrize("slope", [7, 1.5, 1.05, -1, -0.05])
def test_a_slope_outside_is_wrong(slope):
    one_zero = normal(3, 4)
    one_zero[1, 2] = 0
    for x in (one_zero, ZEROS):
        with pytest.raises(GradientCheckError, match=r"at a kink, expected") as caught:
            check_gradients(relu_with(slope), x)
        at = {mismatch.index for mismatch in caught.value.report.mismatches}
        assert at == set(zip(*map(np.ndarray.tolist, np.nonzero(x == 0)), strict=True))


@pytest.mark.parametrize("shape", [(3, 2), (3, 4), (20, 10)])
def test_a_max_that_pays_every_tie_in_full_is_wrong(shape):
    with pytest.raises(GradientCheckError):
        check_gradients(Sharing(lambda ties: 1), np.ones(shape))
    x = normal(*shape)
    x[0, :2] = 9
    with pytest.raises(GradientCheckError):
        check_gradients(Sharing(lambda ties: 1), x)


def test_a_box_on_the_axes_has_a_right_smallest_and_largest_corner():
    """Four corners tie for each bound of the box: kornia's case."""
    corners = np.stack(np.meshgrid([0.0, 1], [0.0, 2], [0.0, 3]), axis=-1).reshape(1, 8, 3)

    def forward(box):
        return np.concatenate([box.min(axis=1), box.max(axis=1)], axis=-1)

    def vjp(dy, box, equal=True):
        gradient = np.zeros_like(box)
        for bound, part in ((box.min(axis=1), dy[:, :3]), (box.max(axis=1), dy[:, 3:])):
            ties = box == bound[:, None]
            gradient += ties * part[:, None] / (ties.sum(axis=1, keepdims=True) if equal else 1)
        return (gradient,)

    report = check_vjp(forward, vjp, corners)
    assert report.arrays[0].on_kink == 24
    with pytest.raises(GradientCheckError):
        check_vjp(forward, lambda dy, box: vjp(dy, box, equal=False), corners)


class Ordered(Module):
    """y[..., k] = the mean of a row by weights[k], once the row is sorted; ties keep their order.

    With `paid`, each entry is paid for so many ties as if it were each of them.
    """

    def __init__(self, weights, paid=1):
        self.weights, self.paid = np.array(weights), paid

    def forward(self, x):
        self._order = np.argsort(x, axis=-1, kind="stable")
        return np.take_along_axis(floats(x), self._order, axis=-1) @ self.weights.T

    def backward(self, dy):
        dx = np.zeros(self._order.shape)
        np.put_along_axis(dx, self._order, dy @ self.weights, axis=-1)
        return self.paid * dx


ORDERED = {
    "sort": np.eye(8),
    "three largest": np.eye(8)[5:],
    "median": [[0, 0, 0, 0.5, 0.5, 0, 0, 0]],
    "quantile": [[0, 0, 0.3, 0.7, 0, 0, 0, 0]],
}


@pytest.mark.parametrize("name", ORDERED)
def test_each_of_many_ties_may_stand_at_any_place_in_the_order(name):
    for seed in range(8):
        assert check_gradients(Ordered(ORDERED[name]), np.ones((8, 8)), seed=seed)
    with pytest.raises(GradientCheckError):
        check_gradients(Ordered(ORDERED[name], paid=2), np.ones((8, 8)))


@pytest.mark.parametrize(
    ("forward", "slope", "first"),
    [
        (lambda x: np.sqrt(abs(x) + 1e-8), lambda y, x: np.sign(x) / y / 2, 1e-12),
        (lambda x: np.sqrt(np.maximum(x, 1e-12)), lambda y, x: (x > 1e-12) / y / 2, 1.1e-12),
    ],
    ids=["sqrt(|x| + 1e-8)", "sqrt(max(x, 1e-12))"],
)
def test_a_place_too_steep_for_any_step_is_neither_right_nor_wrong(forward, slope, first):
    x = 1 + abs(normal(3, 5))
    x[0, 0] = first
    for seed in range(5):
        report = check_vjp(forward, lambda dy, x: dy * slope(forward(x), x), x, seed=seed)
        assert (report.arrays[0].checked, report.arrays[0].undecided) == (15, 1)


@pytest.mark.parametrize("least", [1e-6, 1e-9, 1e-12])
def test_a_row_of_0_divided_by_its_length_is_not_called_wrong(least):
    def length(x):
        return np.sqrt(np.sum(x**2, axis=-1, keepdims=True))

    def unit(x):
        return x / np.maximum(length(x), least)

    def vjp(dy, x):
        along = unit(x) * np.sum(dy * unit(x), axis=-1, keepdims=True)
        return (dy - np.where(length(x) > least, along, 0)) / np.maximum(length(x), least)

    x = normal(3, 5)
    x[0] = 0
    for seed in range(5):
        with suppress(InconclusiveGradientCheck):
            check_vjp(unit, vjp, x, seed=seed)


@pytest.mark.parametrize("scale", [1e-3, 1e-5, 1e-7])
def test_steep_but_smooth_functions_of_small_numbers_are_right(scale):
    x = scale * (0.2 + abs(normal(3, 4)))
    assert check_vjp(np.reciprocal, lambda dy, x: -dy / x**2, x)
    assert check_vjp(np.log, lambda dy, x: dy / x, x)
    x = x.astype(np.float32)
    assert check_vjp(np.reciprocal, lambda dy, x: -dy / x**2, x, dtype=np.float32)
    if scale > 1e-7:
        with pytest.raises(GradientCheckError):
            check_vjp(np.log, lambda dy, x: 1.05 * dy / x, x)


def test_what_is_wrong_beside_an_opposite_pair_of_slopes_is_seen():
    steep = Elementwise(np.abs, lambda x: 3 * np.sign(x))  # 0 at 0, as the difference there is
    with pytest.raises(GradientCheckError):
        check_gradients(steep, ZEROS)


def test_a_flat_point_is_no_kink():
    report = check_gradients(Elementwise(np.square, lambda x: 2 * x), np.array([[0.0, 1, 2]]))
    assert report.arrays[0].on_kink == 0


class Straight(Module):
    """y = x - 2 relu(x) + 3 relu(-x), each of them a layer whose slope at 0 is 0: 1 at 0."""

    def __init__(self, relu):
        self.above, self.below = relu(), relu()

    def forward(self, x):
        return np.asarray(x) - 2 * self.above(np.asarray(x)) + 3 * self.below(-np.asarray(x))

    def backward(self, dy):
        return dy - self.above.backward(2 * dy) - self.below.backward(3 * dy)


def test_a_module_with_parts_is_wrong_at_a_kink_only_if_a_part_is():
    x = normal(3, 4)
    x[0] = 0
    report = check_gradients(Straight(ReLU), x)
    assert (report.arrays[0].on_kink, report.arrays[0].undecided) == (4, 4)
    with pytest.raises(InconclusiveGradientCheck, match="12 of 12 probes lie on a kink"):
        check_gradients(Straight(ReLU), ZEROS)
    with pytest.raises(GradientCheckError, match="Look at layer above"):
        check_gradients(Straight(lambda: relu_with(7)), x)


@pytest.mark.parametrize("seed", range(20))
def test_networks_on_their_kinks_are_never_wrong(seed):
    rng = np.random.default_rng(seed)
    hidden = Sequential(
        Linear(2, 5, rng), ReLU(), Linear(5, 4, rng), nn.LeakyReLU(), Linear(4, 2, rng)
    )
    x = np.round(rng.standard_normal((3, 2)))
    for network in (hidden, nn.Residual(hidden), Sequential(nn.Residual(hidden), Largest())):
        assert check_gradients(network, x, seed=seed)


def test_a_function_of_kinks_that_other_points_tell_apart_is_not_called_wrong():
    """max(x, y) - max(z, x) + relu(x) / 2: x gets 1 if each max pays the first of its ties.

    Its slopes at 0 are 0 and 1/2.
    """

    def forward(x, y, z):
        return np.maximum(x, y) - np.maximum(z, x) + np.maximum(x, 0) / 2

    def vjp(dy, x, y, z):
        dx = dy * (x >= y) - dy * (x > z) + dy * (x > 0) / 2
        return dx, dy * (x < y), -dy * (z >= x)

    report = check_vjp(forward, vjp, *np.zeros((3, 4)))
    assert [array.undecided for array in report.arrays] == [4, 0, 0]


def product_but_0(dy, x):
    return np.where(x == 0, 0, dy[..., None] * x.prod(-1, keepdims=True) / np.where(x == 0, 1, x))


@pytest.mark.parametrize(
    ("forward", "vjp", "x"),
    [
        (np.sin, lambda dy, x: np.where(x == 0, 0, np.cos(x) * dy), np.zeros((2, 3))),
        (np.exp, lambda dy, x: np.where(x == np.round(x), 7, np.exp(x)) * dy, np.arange(4.0)),
        (lambda x: x.prod(-1), product_but_0, np.array([[0, 1.0, 2, 3]])),
        (*ELEMENTWISE["relu(x) - relu(-x)"], ZEROS),
    ],
    ids=["sin at 0", "exp at whole numbers", "the product over x", "relu(x) - relu(-x)"],
)
def test_no_smooth_function_is_excused(forward, vjp, x):
    if forward is ELEMENTWISE["relu(x) - relu(-x)"][0]:
        slope = vjp
        vjp = lambda dy, x: dy * slope(x)  # noqa: E731
    with pytest.raises(GradientCheckError, match="smooth there"):
        check_vjp(forward, vjp, x)


@pytest.mark.parametrize("power", range(-18, 19, 3))
def test_a_function_is_judged_at_any_scale(power):
    s = 10.0**power
    x = s * normal(3, 4)
    for times, right in ((1, True), (1.03, False)):
        report = check_vjp(
            lambda x: np.sin(x / s),
            lambda dy, x, times=times: times * dy * np.cos(x / s) / s,
            x,
            raise_on_failure=False,
        )
        assert bool(report) == right
