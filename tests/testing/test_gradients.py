"""check_gradients and its kin: what they report, raise, and leave alone."""

import copy
import pickle
import random
import re

import numpy as np
import pytest
from faults import LAYERS, LOSSES
from layers import ELEMENTWISE, Elementwise, Gain, GlobalNoise, normal, of_shape

from tinygrad_mnist import Dropout, Linear, Module, MSELoss, Parameter, ReLU, Sequential
from tinygrad_mnist.testing import (
    GradientCheckError,
    GradientReport,
    InconclusiveGradientCheck,
    ModuleContractError,
    check_gradients,
    check_loss_gradients,
    check_model_gradients,
)


def broken_chain():
    return Sequential(
        Linear(4, 5, rng=0),
        Sequential(ReLU(), LAYERS["Dropout: no 1 / (1 - p) backward"].make(5, 1)),
        Linear(5, 2, rng=2),
    )


def test_a_right_module_gives_a_true_report():
    report = check_gradients(Linear(4, 3, rng=0), normal(5, 4))
    assert isinstance(report, GradientReport)
    assert report
    assert [(a.name, a.shape, a.checked) for a in report.arrays] == [
        ("x", (5, 4), 20),
        ("weight", (4, 3), 12),
        ("bias", (3,), 3),
    ]
    assert all(0 <= a.worst < 1 and a.wrong == a.on_kink == 0 for a in report.arrays)
    assert report.mismatches == []


def test_the_report_prints_as_a_table_with_what_to_do():
    with pytest.raises(GradientCheckError) as caught:
        check_gradients(broken_chain(), normal(3, 4))
    report = caught.value.report
    assert not report
    lines = str(report).splitlines()
    assert str(caught.value) == str(report)
    assert lines[0] == ("Sequential: 3 of 5 gradients disagree with central differences (seed 0)")
    assert lines[1].split() == [
        *("gradient", "of", "shape", "checked", "wrong"),
        *("on", "a", "kink", "worst", "error/tolerance"),
    ]
    assert re.fullmatch(r"  0\.weight +\(4, 5\) +20 +\d+ +0 +[\d.e+]+", lines[3])
    assert re.fullmatch(r"  2\.bias +\(2,\) +2 +0 +0 +[\d.e-]+", lines[6])
    wrong = next(line for line in lines if line.startswith("  wrong: 0.weight"))
    assert re.fullmatch(
        r"  wrong: 0\.weight\[\d, \d\]: analytic \S+, numeric \S+, ratio 0\.75", wrong
    )
    assert lines[-2] == (
        "Every mismatch has analytic = 0.75 x numeric: 1 - p of BrokenDropout(p=0.25): "
        "its 1 / (1 - p) is missing in backward."
    )
    assert lines[-1] == "Look at layer 1.1, BrokenDropout: checked alone, it fails too."


def test_mismatches_carry_index_values_and_ratio():
    report = check_gradients(
        LAYERS["dW sign"].make(2, np.random.default_rng(0)), normal(3, 2), raise_on_failure=False
    )
    assert not report
    assert {m.name for m in report.mismatches} == {"weight"}
    assert {m.index for m in report.mismatches} == set(np.ndindex(2, 3))
    for m in report.mismatches:
        assert m.ratio == pytest.approx(-1, rel=1e-5)
        assert abs(m.analytic - m.numeric) > m.tolerance
    assert report.hints == ["Every mismatch has analytic = -1 x numeric: the sign is wrong."]


@pytest.mark.parametrize(
    ("make", "rows", "hint"),
    [
        ("dW missing", 3, "0 x numeric: this gradient is never added."),
        ("dW twice", 3, "2 x numeric: a factor 2 too many, as of a square, or added twice."),
        ("dx halved", 3, "0.5 x numeric: a factor 2 is missing, as of a square."),
        ("dW mean", 5, "0.2 x numeric: 1 over the batch size 5: a sum forward, a mean backward."),
        (
            "dW twice",
            2,
            "2 x numeric: a factor 2 too many, as of a square, or added twice; or the batch size "
            "2: a mean forward, a sum backward.",
        ),
        ("Softmax' times 7", 3, "7 x numeric."),
    ],
)
def test_telling_ratios_are_explained(make, rows, hint):
    layer = LAYERS[make].make(4, np.random.default_rng(0))
    report = check_gradients(layer, normal(rows, 4), raise_on_failure=False)
    assert report.hints[0] == f"Every mismatch has analytic = {hint}"


def test_a_gradient_of_what_y_does_not_depend_on_is_explained():
    layer = LAYERS["ReLU: slope of the output, >= 0"].make(4, None)
    report = check_gradients(layer, normal(3, 4), raise_on_failure=False)
    hint = "Every mismatch has numeric = 0: the output does not depend on these entries."
    assert report.hints == [hint]
    assert {abs(m.ratio) for m in report.mismatches} == {np.inf}


@pytest.mark.parametrize("p", [1.0, 3.0, -1.0, "same"])
def test_a_p_that_is_no_probability_explains_nothing(p):
    layer = LAYERS["Softmax' times 7"].make(4, None)
    layer.p = p
    report = check_gradients(layer, normal(3, 4), raise_on_failure=False)
    assert report.hints == ["Every mismatch has analytic = 7 x numeric."]


def test_a_loss_that_forgot_its_mean_is_explained():
    report = check_loss_gradients(
        LOSSES["the sum's gradient"].make(),
        normal(5, 3),
        normal(5, 3, seed=1),
        raise_on_failure=False,
    )
    assert report.hints == [
        "Every mismatch has analytic = 15 x numeric: the number of elements 15: a mean forward, "
        "a sum backward."
    ]


def test_the_callers_objects_are_untouched():
    model = Sequential(Linear(4, 5, rng=0), ReLU(), Dropout(0.5, rng=1), Linear(5, 2, rng=2))
    x, t, loss = normal(3, 4).astype(np.float32), normal(3, 2, seed=1), MSELoss()
    dy = np.ones((3, 2), np.float32)
    model(x)
    model.backward(dy)
    before, x_before = pickle.dumps(model), x.copy()
    streams = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    check_gradients(model, x, grad_output=dy)
    check_model_gradients(model, loss, x, t)
    check_loss_gradients(loss, normal(3, 2), t)
    check_gradients(GlobalNoise(), x)
    with pytest.raises(GradientCheckError):
        check_gradients(broken_chain(), x)
    assert pickle.dumps(model) == before
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(np.random.get_state()[1], streams[0])  # noqa: NPY002
    assert random.getstate() == streams[1]
    assert model[0].weight.data.dtype == np.float32
    with pytest.raises(RuntimeError):
        loss.backward()


def test_a_forward_that_draws_and_fails_leaves_the_global_stream_where_it_was():
    class Fails(GlobalNoise):
        def forward(self, x):
            super().forward(x)
            raise ZeroDivisionError("after a draw")

    before = np.random.get_state()[2]  # noqa: NPY002
    with pytest.raises(ZeroDivisionError, match="after a draw"):
        check_gradients(Fails(), normal(3, 4))
    assert np.random.get_state()[2] == before  # noqa: NPY002


def test_a_broken_contract_leaves_the_global_stream_where_it_was():
    class NoGradient(GlobalNoise):
        def backward(self, dy):
            return None

    before = np.random.get_state()[2]  # noqa: NPY002
    with pytest.raises(ModuleContractError):
        check_gradients(NoGradient(), normal(3, 4))
    assert np.random.get_state()[2] == before  # noqa: NPY002


def test_the_mode_is_the_modules_own():
    layer = LAYERS["Dropout: no mask backward"].make(4, 1)
    with pytest.raises(GradientCheckError):
        check_gradients(layer, normal(3, 4), contracts=False)
    assert check_gradients(layer.eval(), normal(3, 4), contracts=False)


def test_the_seed_repeats_the_check():
    def text(seed):
        return str(check_gradients(broken_chain(), normal(9, 4), seed=seed, raise_on_failure=False))

    assert text(3) == text(3)
    assert text(3) != text(4)


def test_a_cotangent_of_ones_is_blind_where_a_drawn_one_is_not():
    layer = LAYERS["Softmax' = 0"].make(4, None)
    with pytest.raises(GradientCheckError):
        check_gradients(layer, normal(3, 4))
    with pytest.raises(InconclusiveGradientCheck):
        check_gradients(layer, normal(3, 4), grad_output=np.ones((3, 4)))


def test_too_little_to_judge_is_never_a_pass():
    with pytest.raises(InconclusiveGradientCheck, match="^ReLU: too little to judge: every gradie"):
        check_gradients(ReLU(), -1 - abs(normal(3, 4)))
    with pytest.raises(InconclusiveGradientCheck, match="the outputs are empty"):
        check_gradients(Linear(4, 3), np.zeros((0, 4)))
    assert not issubclass(InconclusiveGradientCheck, AssertionError)


def test_a_mistake_is_seen_in_a_function_that_is_rough_by_a_twentieth_of_it():
    class Rough(Module):
        def forward(self, x):
            waves = (np.cos(4.0**k * x) / 4.0**k for k in range(16))  # rough at every scale
            return x + 0.02 * sum(waves)

        def backward(self, dy):
            return 2 * dy

    for seed in range(5):
        with pytest.raises(GradientCheckError) as caught:
            check_gradients(Rough(), normal(8, 8, seed=seed), contracts=False)
        assert caught.value.report.arrays[0].wrong == 64


def test_kinks_are_counted_and_judged_beside_the_point():
    x = normal(4, 5)
    x[1, 2] = x[3, 0] = 0
    report = check_gradients(ReLU(), x)
    assert report.arrays[0].on_kink == 2
    assert report.arrays[0].checked == 20
    with pytest.raises(GradientCheckError) as caught:
        check_gradients(LAYERS["ReLU: slope inverted"].make(5, None), x)
    assert caught.value.report.arrays[0].wrong == 20  # beside the kink it is wrong as well


def test_a_kink_beside_the_point_is_seen_at_any_distance():
    step = np.finfo(float).eps ** (1 / 3)
    for distance in np.linspace(-1.2, 1.2, 97):
        x = np.array([[distance * step, 1.0, 2.0]])
        assert check_gradients(ReLU(), x, rows_independent=False)


@pytest.mark.slow
def test_one_wrong_entry_of_78400_is_found_and_named_50_times_of_50():
    class OneWrong(Linear):
        def backward(self, dy):
            dx = super().backward(dy)
            self.weight.grad[self.at] = 0
            return dx

    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 784))
    for seed in range(50):
        first = OneWrong(784, 100, rng=rng, input_grad=False)
        first.at = (int(rng.integers(784)), int(rng.integers(100)))
        model = Sequential(first, ReLU(), Dropout(0.5, rng=rng), Linear(100, 10, rng=rng))
        report = check_gradients(
            model, x, max_entries=8, contracts=False, seed=seed, raise_on_failure=False
        )
        (mismatch,) = report.mismatches
        assert (mismatch.name, mismatch.index, mismatch.analytic) == ("0.weight", first.at, 0)
        assert report.hints == ["Look at layer 0, OneWrong: checked alone, it fails too."]


def test_a_wrong_entry_that_no_sample_meets_is_found_by_halving_a_direction():
    class OneWrong(Linear):
        def backward(self, dy):
            dx = super().backward(dy)
            self.weight.grad[self.at] = 0.5 * abs(self.weight.grad).max()  # neither 0 nor largest
            return dx

    rng = np.random.default_rng(0)
    for seed in range(10):
        layer = OneWrong(100, 30, rng=rng)
        layer.at = (int(rng.integers(100)), int(rng.integers(30)))
        report = check_gradients(
            Sequential(layer, ReLU()),
            rng.standard_normal((8, 100)),
            max_entries=8,
            contracts=False,
            seed=seed,
            raise_on_failure=False,
        )
        assert [(m.name, m.index) for m in report.mismatches] == [("0.weight", layer.at)]


def test_a_wrong_direction_of_right_halves_is_reported_as_one():
    """Two errors of 2.4 tolerances: 2 * 2.4 / 4 along all 16 entries, 2.4 / 2.8 along 8."""

    def slope(x):
        wrong = np.ones(16)
        wrong[[5, 11]] = 1.0024
        return wrong

    report = check_gradients(
        Elementwise(lambda x: x.sum(keepdims=True), slope),
        np.zeros(16),
        atol=0.001,
        max_entries=2,
        directions=8,
        contracts=False,
        raise_on_failure=False,
    )
    (mismatch,) = report.mismatches
    assert (mismatch.name, mismatch.index) == ("x", None)
    assert "  wrong: x along a direction: analytic" in str(report)


def test_a_point_with_nothing_defined_around_it_is_inconclusive():
    def slope(x):
        return -1.5 * np.sqrt(1 - x)

    layer = Elementwise(lambda x: np.sqrt(1 - x) ** 3, slope)
    with pytest.raises(InconclusiveGradientCheck, match="20 of 20 probes lie on a kink; choose"):
        check_gradients(layer, np.ones((2, 10)), contracts=False)


def test_arrays_of_up_to_64_entries_are_checked_whole():
    counts = [array.checked for array in check_gradients(Linear(8, 8, rng=0), normal(2, 8)).arrays]
    assert counts == [16, 64, 8]
    counts = [array.checked for array in check_gradients(Linear(5, 13, rng=0), normal(2, 5)).arrays]
    assert counts == [10, 64 + 2, 13]


def test_large_arrays_are_sampled():
    report = check_gradients(
        Linear(30, 20, rng=0), normal(4, 30), max_entries=10, directions=3, seed=5
    )
    assert [a.checked for a in report.arrays] == [13, 13, 13]


def test_tolerances_and_step_are_the_callers():
    off = LAYERS["dW off by 1e-5"].make(4, np.random.default_rng(0))
    with pytest.raises(GradientCheckError):
        check_gradients(off, normal(3, 4))
    assert check_gradients(off, normal(3, 4), rtol=1e-3)
    near = 1 + abs(normal(1, 4))
    near[0, 0] = 1e-7
    assert check_gradients(ReLU(), near).arrays[0].on_kink == 0
    assert check_gradients(ReLU(), near, step=0.1).arrays[0].on_kink == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("entries", [1, 4])
def test_a_gradient_that_is_not_finite_is_wrong(value, entries):
    def slope(x):
        wrong = -2 * x
        wrong[..., :entries] = value
        return wrong

    layer = Elementwise(np.square, slope)
    with pytest.raises(GradientCheckError) as caught:
        check_gradients(layer, normal(3, 4), contracts=False)
    assert caught.value.report.arrays[0].wrong == 12


def test_outputs_that_are_not_finite_are_inconclusive():
    with pytest.raises(InconclusiveGradientCheck, match="expected finite outputs at x"):
        check_gradients(Linear(2, 2, rng=0), np.array([[1.0, np.inf]]), contracts=False)


def test_parameters_may_be_called_x_and_y():
    class Named(Module):
        def __init__(self):
            self.x, self.y = Gain(3), Gain(3)
            self.x.gain = self.y.gain

        def forward(self, x):
            return self.y(self.x(x))

        def backward(self, dy):
            return self.x.backward(self.y.backward(dy))

    class Shift(Module):
        def __init__(self):
            self.x = Parameter(np.ones(3))

        def forward(self, x):
            self._shape = x.shape
            return x + self.x.data

        def backward(self, dy):
            rows = np.reshape(of_shape(dy, self._shape), (-1, 3))
            self.x.accumulate(rows.sum(axis=0))
            return self.factor * dy

    assert check_gradients(Named(), normal(2, 3))
    Shift.factor = 1
    report = check_gradients(Shift(), normal(2, 3))
    assert [a.name for a in report.arrays] == ["x (the input)", "x"]
    Shift.factor = 5
    with pytest.raises(GradientCheckError, match=re.escape("x (the input)[0, 0]: analytic")):
        check_gradients(Shift(), normal(2, 3), contracts=False)


def test_a_missing_or_misshapen_dx_is_refused_without_contracts_too():
    for name in ("dx None", "dx flat"):
        with pytest.raises(ModuleContractError, match="expected dx of shape"):
            check_gradients(LAYERS[name].make(4, None), normal(3, 4), contracts=False)


def test_arrays_about_which_nothing_was_learned_are_named():
    class Half(Linear):
        def backward(self, dy):
            dx = super().backward(dy)
            self.weight.grad *= -1
            return dx

    report = check_gradients(Half(4, 3, rng=0), np.zeros((2, 4)))
    assert report.hints == ["This x says nothing about weight: its gradient is 0 here."]
    assert str(report).endswith(report.hints[0])


def test_input_grad_false_leaves_x_out():
    report = check_gradients(Linear(4, 3, rng=0, input_grad=False), normal(5, 4))
    assert [a.name for a in report.arrays] == ["weight", "bias"]


def test_model_and_loss_together():
    model = Sequential(Linear(4, 5, rng=0), ReLU(), Linear(5, 2, rng=1))
    x, t = normal(3, 4), normal(3, 2, seed=1)
    report = check_model_gradients(model, MSELoss("sum"), x, t)
    assert report.subject == "Sequential with MSELoss"
    assert [a.name for a in report.arrays] == [
        "x",
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]
    with pytest.raises(GradientCheckError, match=r"-1 x numeric: the sign is wrong"):
        check_model_gradients(model, LOSSES["sign"].make(), x, t)
    with pytest.raises(GradientCheckError, match="5 gradients disagree"):
        check_model_gradients(model, LOSSES["divided by the rows"].make(), x, t)
    with pytest.raises(ModuleContractError):
        check_model_gradients(model, LOSSES["pred edited"].make(), x, t)
    with pytest.raises(GradientCheckError, match=r"Look at layer 1\.1, BrokenDropout"):
        check_model_gradients(broken_chain(), MSELoss(), x, t)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match=r"^check_gradients: expected grad_output of shape"):
        check_gradients(Linear(4, 2), normal(3, 4), grad_output=np.ones(2))
    with pytest.raises(TypeError, match="^check_gradients: expected x to be an array"):
        check_gradients(Linear(4, 2), np.ones((3, 4), complex))
    with pytest.raises(TypeError, match="^check_gradients: expected a Module, got the class"):
        check_gradients(Linear, normal(3, 4))
    with pytest.raises(TypeError, match="^check_loss_gradients: expected a loss to call"):
        check_loss_gradients(np.mean, normal(3), normal(3))
    for name, bad, interval in (
        ("rtol", -1, "[0, inf)"),
        ("atol", float("nan"), "[0, inf)"),
        ("step", 0, "(0, inf)"),
    ):
        text = f"check_gradients: expected {name} in {interval}, got {bad}"
        with pytest.raises(ValueError, match=re.escape(text)):
            check_gradients(Linear(4, 2), normal(3, 4), **{name: bad})
    for name, least in (("max_entries", 1), ("directions", 0), ("seed", 0)):
        text = f"check_gradients: expected {name} to be an integer >= {least}, got -1"
        with pytest.raises(ValueError, match=re.escape(text)):
            check_gradients(Linear(4, 2), normal(3, 4), **{name: -1})


@pytest.mark.parametrize(
    ("check", "subject"),
    [
        (check_gradients, [ReLU(), normal(3)]),
        (check_loss_gradients, [MSELoss(), normal(3), normal(3)]),
        (check_model_gradients, [ReLU(), MSELoss(), normal(3), normal(3)]),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(check, subject):
    text = (
        f"{check.__name__}: expected settings among rtol, atol, step, max_entries, directions, "
        "contracts, allow_nonfinite, seed, raise_on_failure, got tolerance"
    )
    with pytest.raises(TypeError, match=f"^{text}$"):
        check(*subject, tolerance=1e-3)


def test_a_deep_copy_of_a_module_that_shares_a_parameter_stays_tied():
    class Tied(Module):
        def __init__(self):
            self.a, self.b = Gain(3), Gain(3)
            self.b.gain = self.a.gain

        def forward(self, x):
            return self.b(self.a(x))

        def backward(self, dy):
            return self.a.backward(self.b.backward(dy))

    report = check_gradients(copy.deepcopy(Tied()), normal(4, 3))
    assert [a.name for a in report.arrays] == ["x", "a.gain", "a.shift", "b.shift"]


def test_smooth_functions_of_every_scale_pass():
    for scale in (1e-3, 1, 30):
        for name in ("tanh", "sigmoid", "sine", "softplus"):
            check_gradients(Elementwise(*ELEMENTWISE[name]), scale * normal(4, 3))


class NormalizesWeights(Linear):
    def forward(self, x):
        self.weight.data /= np.linalg.norm(self.weight.data, axis=0)
        return super().forward(x)


class EditsOnce(ReLU):
    def forward(self, x):
        np.maximum(x, 0, out=x)
        return super().forward(x)


@pytest.mark.parametrize(
    ("layer", "rule"),
    [(NormalizesWeights(4, 3, rng=0), "keeps-parameters"), (EditsOnce(), "keeps-input")],
)
def test_an_edit_that_is_seen_but_once_is_caught(layer, rule):
    with pytest.raises(ModuleContractError) as caught:
        check_gradients(layer, normal(3, 4))
    assert caught.value.rule == rule


class Log(Module):
    """y = log(x), for x > 0 alone."""

    factor = 1

    def forward(self, x):
        if np.min(x, initial=1) <= 0:
            raise ValueError("log of what is not positive")
        self._x = np.array(x)
        return np.log(self._x)

    def backward(self, dy):
        return self.factor * dy / self._x


@pytest.mark.parametrize("smallest", [1, 1e-3, 1e-5])
def test_functions_that_are_not_defined_everywhere_can_be_checked(smallest):
    x = 1 + abs(normal(3, 4))
    x[0, 0] = smallest
    report = check_gradients(Log(), x)
    assert report.arrays[0].checked == 12
    wrong = Log()
    wrong.factor = 2
    with pytest.raises(GradientCheckError):
        check_gradients(wrong, x)


def test_a_gradient_that_is_nan_at_one_point_is_no_kink():
    x = normal(3, 4)
    x[1, 2] = 0
    with np.errstate(invalid="ignore"):
        sinc = Elementwise(np.sinc, lambda x: (np.cos(np.pi * x) - np.sinc(x)) / x)
        with pytest.raises(GradientCheckError, match="analytic nan"):
            check_gradients(sinc, x, contracts=False)


def test_what_lies_on_a_kink_is_judged_beside_it():
    x = normal(3, 4)
    x[1] = 0  # with zero biases, a kink of every hidden unit
    for mistake, error in ((1, None), (3, GradientCheckError)):

        class Bias(Linear):
            def backward(self, dy, mistake=mistake):
                before = self.bias.grad.copy()
                dx = super().backward(dy)
                self.bias.grad = before + mistake * (self.bias.grad - before)
                return dx

        model = Sequential(Bias(4, 5, rng=0), ReLU(), Linear(5, 2, rng=1))
        if error is None:
            assert check_gradients(model, x)
        else:
            with pytest.raises(error):
                check_gradients(model, x)


@pytest.mark.parametrize("scale", [1e5, 1e6])
def test_a_function_that_varies_faster_than_the_step_is_not_called_wrong(scale):
    for seed in range(20):
        try:
            check_gradients(Elementwise(*ELEMENTWISE["sine"]), scale * normal(3, 4, seed=seed))
        except InconclusiveGradientCheck:
            continue


def test_a_chain_with_an_order_of_its_own_is_one_layer_to_the_report():
    class Reversed(Sequential):
        def forward(self, x):
            for layer in reversed(self.layers):
                x = layer(x)
            return x

        def backward(self, dy):
            for layer in self.layers:
                dy = layer.backward(dy)
            return dy

    model = Reversed(LAYERS["dW sign"].make(5, np.random.default_rng(0)), Linear(4, 5, rng=0))
    with pytest.raises(GradientCheckError):
        check_gradients(model, normal(3, 4))


def test_errors_survive_a_pickle():
    for error in (ModuleContractError("linear", "text"), GradientCheckError("report")):
        twin = pickle.loads(pickle.dumps(error))
        assert (type(twin), str(twin)) == (type(error), str(error))
