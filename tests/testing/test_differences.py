"""What differences see beside large numbers and at neutral parameters."""

import re
from contextlib import suppress

import numpy as np
import pytest
from layers import Elementwise, GlobalNoise, Linear, normal

from tinygrad_mnist import Module, MSELoss, Parameter, Sequential, nn
from tinygrad_mnist.testing import (
    GradientCheckError,
    InconclusiveGradientCheck,
    check_gradients,
    check_model_gradients,
    check_vjp,
)


class Scale(Module):
    """y = gain * x, with the slope of x as told."""

    def __init__(self, slope):
        self.gain, self.slope = Parameter(np.ones(4)), slope

    def forward(self, x):
        self._x = np.array(x)
        return self.gain.data * self._x

    def backward(self, dy):
        self.gain.accumulate(np.sum(np.reshape(dy * self._x, (-1, 4)), axis=0))
        return self.slope(self.gain.data) * dy


class Turned(Linear):
    """dx by W where W.T belongs, W the identity at first."""

    def __init__(self, features):
        super().__init__(features, features, 0)
        self.weight.data[...] = np.eye(features)

    def backward(self, dy):
        super().backward(dy)
        return dy @ self.weight.data


class ForgetsGain(nn.LayerNorm):
    """dx of a gain of 1."""

    def backward(self, dy):
        super().backward(dy)
        kept = self.weight.data.copy()
        self.weight.data[...] = 1
        dx = super().backward(dy)
        self.weight.data[...] = kept
        self.weight.grad[...] /= 2
        self.bias.grad[...] /= 2
        return dx


class Gated(Module):
    """y = x + alpha * f(x), alpha = 0 at first; f's gradients are left out."""

    def __init__(self):
        self.alpha, self.f = Parameter(np.zeros(1)), Linear(4, 4, 0)

    def forward(self, x):
        self._f = self.f(np.array(x))
        return x + self.alpha.data * self._f

    def backward(self, dy):
        self.alpha.accumulate(np.sum(dy * self._f, keepdims=True).reshape(1))
        return dy + self.alpha.data * (dy @ self.f.weight.data.T)


NEUTRAL = {
    "a gain left out of dx": lambda: Scale(np.ones_like),
    "the size of a gain": lambda: Scale(np.abs),
    "a gain cubed": lambda: Scale(lambda gain: gain**3),
    "the gain of a LayerNorm left out": lambda: ForgetsGain(4, dtype=np.float64),
    "W for W.T": lambda: Turned(4),
    "nothing behind a gate": Gated,
    "a gain left out, before global draws": lambda: Sequential(Scale(np.ones_like), GlobalNoise()),
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_mistake_that_neutral_parameters_hide_is_found(name):
    x = normal(3, 4)
    for check in (
        lambda: check_gradients(NEUTRAL[name](), x, contracts=False),
        lambda: check_model_gradients(
            NEUTRAL[name](), MSELoss("sum"), x, normal(3, 4, seed=1), contracts=False
        ),
    ):
        with pytest.raises(GradientCheckError, match=r"\(at generic parameters\)"):
            check()


def test_an_array_of_ones_is_a_parameter_of_a_function_that_names_none():
    def forward(x, gain):
        return x * gain

    for gain, found in ((lambda gain: gain, "right"), (np.ones_like, "wrong")):

        def vjp(dy, x, g, gain=gain):
            return dy * gain(g), np.sum(dy * x, axis=0)

        report = check_vjp(forward, vjp, normal(3, 4), np.ones(4), raise_on_failure=False)
        assert bool(report) == (found == "right")


def test_right_layers_stay_right_at_generic_parameters():
    assert check_gradients(Scale(lambda gain: gain), normal(3, 4))


def test_what_is_behind_a_closed_gate_is_checked_with_the_gate_open():
    class Right(Gated):
        def backward(self, dy):
            dx = super().backward(dy)
            self.f.backward(self.alpha.data * dy)
            return dx

    report = check_gradients(Right(), normal(3, 4))
    assert report.hints == []
    assert all(array.telling for array in report.arrays)


class Narrow(Module):
    """y = x / s for s near 1, with dx = dy / (s where told)."""

    def __init__(self, where):
        self.s, self.where = Parameter(np.ones(1)), where

    def forward(self, x):
        if abs(self.s.data - 1) > 0.006:
            raise ValueError("s far from 1")
        self._x = np.array(x)
        return self._x / self.s.data

    def backward(self, dy):
        self.s.accumulate(np.sum(-dy * self._x / self.s.data**2).reshape(1))
        return dy / self.where(self.s.data)


def test_parameters_move_less_where_the_function_is_not_defined():
    assert check_gradients(Narrow(lambda s: s), normal(3, 4), contracts=False)
    with pytest.raises(GradientCheckError, match="at generic parameters"):
        check_gradients(Narrow(np.ones_like), normal(3, 4), contracts=False)


class Root(Scale):
    """y = sqrt(gain) * x, with the slope of x as told."""

    def forward(self, x):
        self._x = np.array(x)
        return np.sqrt(self.gain.data) * self._x

    def backward(self, dy):
        return super().backward(dy / (2 * np.sqrt(self.gain.data))) * 2 * np.sqrt(self.gain.data)


def test_parameters_keep_their_signs_where_the_function_needs_them():
    assert check_gradients(Root(np.sqrt), normal(3, 4))
    with pytest.raises(GradientCheckError, match="at generic parameters"):
        check_gradients(Root(np.ones_like), normal(3, 4), contracts=False)


def test_rounding_inside_that_the_outputs_do_not_show_is_no_mistake():
    def closer(p):
        return np.maximum(0, np.sum((p - 1) ** 2 - (p + 1) ** 2, axis=-1) + 1e5)

    def closer_vjp(dy, p):
        return -4 * (dy * (closer(p) > 0))[:, None] * np.ones_like(p)

    def shifted(x):
        return np.tanh(x + 1e6 - 1e6)

    for seed in range(20):
        for forward, vjp, x in (
            (closer, closer_vjp, 1e3 * normal(4, 3, seed=seed)),
            (shifted, lambda dy, x: dy * (1 - shifted(x) ** 2), normal(4, 3, seed=seed)),
        ):
            with suppress(InconclusiveGradientCheck):
                check_vjp(forward, vjp, x, seed=seed)


def affine(off=0.0, gain=1.0, slope=None):
    """y = off + gain * x, with dx = dy * slope."""
    return Elementwise(
        lambda x: off + gain * x, lambda x: np.full_like(x, gain if slope is None else slope)
    )


class Bias(Linear):
    """A Linear whose bias gets its gradient so many times."""

    def __init__(self, times):
        super().__init__(4, 3, 0)
        self.times = times

    def backward(self, dy):
        before = self.bias.grad.copy()
        dx = super().backward(dy)
        self.bias.grad[...] = before + self.times * (self.bias.grad - before)
        return dx


def huge_weights(layer):
    layer.weight.data[0] = 1e16
    return layer


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda times: affine(slope=times * 1.0), normal(3, 4)),
        (lambda times: affine(off=1e6, slope=times * 1.0), normal(3, 4)),
        (lambda times: affine(gain=1e-12, slope=times * 1e-12), normal(3, 4)),
        (lambda times: Bias(times), 1e10 * normal(3, 4)),
        (lambda times: huge_weights(Bias(times)), normal(3, 4)),
    ],
    ids=["plain", "beside 1e6", "y = 1e-12 x", "bias beside x of 1e10", "bias beside W of 1e16"],
)
def test_a_gradient_beside_large_numbers_is_seen(make, x):
    assert check_gradients(make(1), x, contracts=False)
    for times in (0, 2):
        with pytest.raises(GradientCheckError):
            check_gradients(make(times), x, contracts=False)


def test_an_error_of_8e_7_is_seen():
    with pytest.raises(GradientCheckError):
        check_gradients(affine(slope=1 + 8e-7), normal(3, 4))


def test_an_error_beside_a_gradient_of_1e6_in_the_same_array_is_seen():
    gain = np.array([1e6, 1, 2, 3, 4])
    for error in (0, 1e-4):
        slope = gain + error * np.array([0, 1, 0, 0, 0])
        layer = Elementwise(lambda x: gain * x, lambda x, slope=slope: slope * np.ones_like(x))
        if error:
            with pytest.raises(GradientCheckError, match=re.escape("x[0, 1]")):
                check_gradients(layer, normal(2, 5), contracts=False)
        else:
            assert check_gradients(layer, normal(2, 5), contracts=False)


def test_what_is_wrong_at_one_point_alone_is_not_wrong_by_large_steps():
    tiny = Elementwise(lambda x: 1e-12 * x, lambda x: 1e-12 * (x != 0))  # as relu(x) - relu(-x)
    with pytest.raises(InconclusiveGradientCheck):
        check_gradients(tiny, np.zeros((3, 4)), contracts=False)


@pytest.mark.parametrize("off", [1e8, 1e12, 1e16])
@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
@pytest.mark.parametrize("name", ["sin", "tanh", "abs", "square", "floor"])
def test_right_functions_beside_large_numbers_are_never_wrong(name, scale, off):
    f, slope = {
        "sin": (np.sin, np.cos),
        "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
        "abs": (np.abs, np.sign),
        "square": (np.square, lambda x: 2 * x),
        "floor": (np.floor, np.zeros_like),
    }[name]
    if name == "floor" and off == 1e16:
        return  # in floating point the same as 1e16 + scale * x
    shifted = Elementwise(lambda x: off + f(scale * x), lambda x: scale * slope(scale * x))
    tiny = Elementwise(lambda x: f(scale * x) / off, lambda x: scale * slope(scale * x) / off)
    for layer in (shifted, tiny):
        for seed in range(3):
            try:
                check_gradients(layer, normal(3, 4, seed=seed), contracts=False, seed=seed)
            except InconclusiveGradientCheck:
                continue


@pytest.mark.parametrize(
    ("layer", "x", "reason"),
    [
        (affine(gain=0), normal(3, 4), "every gradient is 0, which no mistake need change"),
        (
            Elementwise(lambda x: 1e16 + np.sin(x), np.cos),
            normal(3, 4),
            r"every gradient is below what rounding hides \(tolerance [\d.]+e\+0\d\); choose "
            "another x or a larger step",
        ),
        (Sequential(), np.zeros((0, 4)), "the outputs are empty"),
    ],
)
def test_what_is_out_of_reach_is_named(layer, x, reason):
    with pytest.raises(InconclusiveGradientCheck, match=f"too little to judge: {reason}"):
        check_gradients(layer, x, contracts=False)
