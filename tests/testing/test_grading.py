"""A grade says of each rule whether it passed, failed, or was not reached, and why."""

import html.parser
import json
import random
import re
import sys
import time
import warnings
from functools import partial

import numpy as np
import pytest
from faults import CHECKLIST_LAYERS
from layers import Embedding, Gain, Product
from students import (
    Batch,
    FirstDoubled,
    Fixed,
    Forgets,
    Identity,
    Momentum,
    NaiveCrossEntropy,
    NaiveSoftmax,
    Nothing,
    Overwritten,
    OwnCache,
    Pass,
    Poisson,
    Probabilities,
    Skeleton,
    Sum,
    Tanh,
    WrongSlope,
    adam,
    plain_sgd,
)

from tinygrad_mnist import (
    Adam,
    BCEWithLogitsLoss,
    Buffer,
    CrossEntropyLoss,
    Dropout,
    HuberLoss,
    Linear,
    Module,
    MSELoss,
    Parameter,
    ReLU,
    Sequential,
    nn,
)
from tinygrad_mnist.testing import GivenError, check_gradients, grade, grade_loss, grade_optimizer


def of(layer, **settings):
    return grade(lambda features, rng: layer(), **settings)


def why(result, rule):
    return next(verdict.why for verdict in result.verdicts if verdict.rule == rule)


MIXES = {"rows_independent": False, "forms": ("batch", "axes")}
TWO = [(np.eye(2), np.ones((2, 2))), (np.ones((3, 2)), np.arange(6.0).reshape(3, 2))]
RIGHT = {
    "tanh": (lambda features, rng: Tanh(), {"reference": np.tanh}),
    "linear": (lambda features, rng: Linear(features, 3, rng=rng), {}),
    "dropout": (lambda features, rng: Dropout(0.5, rng=rng), {"reference": np.array}),
    "relu": (lambda features, rng: ReLU(), {"reference": lambda x: np.maximum(x, 0)}),
    "softmax": (lambda features, rng: nn.Softmax(), {}),
    "batch norm": (lambda features, rng: nn.BatchNorm(features), MIXES),
    "layer norm": (lambda features, rng: nn.LayerNorm(features), {}),
    "kernel of five": (lambda channels, rng: nn.Conv2d(channels, 2, 5, rng=rng), {}),
    "residual": (lambda features, rng: nn.Residual(Linear(features, features, rng=rng)), {}),
    "batch only": (Batch, {"forms": ("batch",)}),
    "integers": (
        lambda features, rng: Embedding(9, 3, rng),
        {"inputs": [np.arange(6).reshape(2, 3), np.arange(9).reshape(3, 3)]},
    ),
    "two inputs": (lambda features, rng: Product(features), {"inputs": TWO}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_layer_has_every_point(name):
    make, settings = RIGHT[name]
    result = grade(make, **settings)
    assert result
    assert result.score == 1
    assert result.rules("passed") == [verdict.rule for verdict in result.verdicts]
    assert ("values" in result.rules("passed")) == ("reference" in settings)


@pytest.mark.parametrize(
    ("layer", "failed"),
    [
        (WrongSlope, "gradients"),
        (OwnCache, "own-copies"),
        (NaiveSoftmax, "finite"),
        (Pass, "implemented"),
        (Skeleton, "implemented"),
    ],
)
def test_a_wrong_layer_fails_by_one_rule_alone_and_soon(layer, failed):
    start = time.process_time()
    result = of(layer)
    assert time.process_time() - start < 2
    assert not result
    assert result.rules("failed") == [failed]


def test_a_layer_of_batches_alone_fails_by_one_rule_unless_that_is_asked_for():
    result = grade(Batch)
    assert result.rules("failed") == ["forms"]  # though one sample of three features runs
    assert "Batch: expected one sample to be taken as well (x of shape (2,)), got Value" in why(
        result, "forms"
    )
    assert result.rules("not reached") == []


def test_every_broken_rule_is_told_with_the_smallest_example():
    class Many(Tanh):
        def forward(self, x):
            x *= 1.0
            return super().forward(x) + np.float64(self.training)

        def backward(self, dy):
            return abs(super().backward(dy)) + 1

    result = of(Many, reference=np.tanh)
    assert {"keeps-input", "values", "linear", "gradients"} <= set(result.rules("failed"))
    assert {"shape", "dtype", "finite"} <= set(result.rules("passed"))
    assert why(result, "linear").startswith("x of shape (2, 2) (a batch), in training mode:\nMany:")
    assert why(result, "unused-parameter") == "gradients failed"


def test_nothing_else_is_reached_where_forward_does_not_run():
    result = of(Skeleton)
    assert result.score == 0
    first, *others = result.verdicts
    assert "forward to be implemented, got NotImplementedError: your code here\n" in first.why
    assert {(verdict.outcome, verdict.why) for verdict in others} == {
        ("not reached", "implemented failed")
    }


def test_a_layer_that_cannot_be_made_is_told_as_well():
    class Misspelt(Tanh):
        def __init__(self):
            self.W = Paramter(2)  # noqa: F821

    result = grade(lambda features, rng: Misspelt())
    assert result.subject == "<lambda>"
    assert result.rules("failed") == ["implemented"]
    assert "NameError: name 'Paramter' is not defined" in why(result, "implemented")


def test_a_layer_without_the_base_is_told_so():
    class Duck:
        def forward(self, x):
            return x

    result = of(Duck)
    text = "Duck: expected a Module, class Duck(Module), got an object of another kind"
    assert why(result, "implemented").splitlines()[1] == text


def test_an_error_has_its_line_also_where_a_rule_tells_of_it():
    class Transposed(Batch):
        def backward(self, dy):
            self.W.grad += self._x @ dy
            return dy @ self.W.data.T

    line = "test_grading.py, line {}, in backward: self.W.grad += self._x @ dy"
    line = line.format(Transposed.backward.__code__.co_firstlineno + 1)
    result = grade(Transposed, forms=("batch",))
    assert why(result, "implemented").splitlines()[2] == line
    assert line in why(grade(Transposed), "forms")
    assert "test_grading.py" not in why(grade(lambda f, rng: Linear(4, 3)), "implemented")


def test_an_error_of_the_students_with_a_rule_of_its_own_breaks_the_rule_that_was_asked():
    class Ruled(Tanh):
        def backward(self, dy):
            error = ValueError("the reason")
            error.rule = "mine"
            raise error

    assert "ValueError: the reason" in why(of(Ruled), "implemented")


def test_code_that_wants_to_end_the_program_is_graded():
    class Leaves(Tanh):
        def backward(self, dy):
            sys.exit("done")

    def make(features, rng):
        raise SystemExit

    assert "SystemExit: done\ntest_grading.py, line " in why(of(Leaves), "implemented")
    assert grade(make).score == 0


def test_an_error_of_one_mode_leaves_what_the_other_says():
    class Careless(Module):
        def forward(self, x):
            if not self.training:
                return np.array(x)
            self.mask = 2.0
            return self.mask * x

        def backward(self, dy):
            return dy * self.mask

    result = of(Careless)
    assert result.rules("failed") == ["implemented", "eval-deterministic"]
    assert why(result, "implemented") == (
        "x of shape (2, 2) (a batch), in evaluation mode:\n"
        "AttributeError: 'Careless' object has no attribute 'mask'\n"
        f"test_grading.py, line {Careless.backward.__code__.co_firstlineno + 1}, in backward: "
        "return dy * self.mask\n"
        "Nothing else could be asked in 6 of 18 examples."
    )
    assert "gradients" in result.rules("passed")


def test_gradients_and_values_are_worth_five_rules_and_halve_a_score_without_them():
    total = len(of(Tanh).verdicts) + 8
    result = of(WrongSlope)  # of which the rule "unused-parameter" is not reached, either
    assert result.score == pytest.approx((total - 6) / total / 2)
    result = of(Identity, reference=np.tanh)
    assert result.score == pytest.approx(total / (total + 5) / 2)

    class Both(Identity):
        def backward(self, dy):
            return 2 * np.array(dy)

    result = of(Both, reference=np.tanh)
    assert result.score == pytest.approx((total - 6) / (total + 5) / 4)


def test_a_loss_of_which_no_gradient_could_be_judged_is_no_pass():
    result = grade_loss(Nothing)
    assert result.rules("not reached") == ["gradients"]
    total = len(result.verdicts) + 4
    assert result.score == pytest.approx((total - 5) / total / 2)


def test_an_optimizer_that_steps_elsewhere_has_half_the_score():
    result = grade_optimizer(Overwritten, reference=plain_sgd)
    total = len(result.verdicts) + 4
    assert result.score == pytest.approx((total - 5) / total / 2)


def test_code_that_runs_in_some_examples_alone_has_half_the_score_and_their_count():
    result = grade(lambda features, rng: Linear(4, 3, rng=rng))
    assert result.rules("failed") == ["implemented"]
    assert 0.4 < result.score < 0.5
    last = why(result, "implemented").splitlines()[-1]
    assert last == "Nothing else could be asked in 12 of 18 examples."


def test_a_parameter_that_moves_nothing_is_found():
    class Dead(Gain):
        def __init__(self):
            super().__init__(2)
            self.alpha = Parameter(np.ones(3))

    inputs = [np.random.default_rng(0).standard_normal((3, 2))]
    result = of(Dead, inputs=inputs)
    assert why(result, "unused-parameter").startswith(
        "Dead: expected some example in which alpha changes y, got"
    )


def test_weights_in_a_plain_array_cost_five_points_though_their_wrong_gradient_is_not_seen():
    result = grade(CHECKLIST_LAYERS["weights in a plain array"].make)
    assert result.rules("failed") == ["plain-arrays"]
    assert result.score == pytest.approx(1 - 5 / (len(result.verdicts) + 8))
    assert why(result, "plain-arrays").splitlines()[1] == (
        "PlainWeights: expected no y that depends on self.parts, a plain array, got one; keep it "
        "as a Parameter, or as a Buffer if it is not trained"
    )


def test_a_plain_array_that_must_have_its_values_is_found_and_one_inside_a_part_named():
    class Picks(Tanh):
        def __init__(self):
            self.p = np.array([0.25, 0.75])

        def forward(self, x):
            np.random.default_rng(0).choice(2, p=self.p)  # raises for another sum
            return super().forward(x)

    result = of(lambda: Sequential(Picks()))
    assert result.rules("failed") == ["plain-arrays"]
    assert "y that depends on Picks.p, a plain array" in why(result, "plain-arrays")


def test_arrays_that_y_does_not_depend_on_may_be_plain():
    class Keeps(Tanh):
        def __init__(self, features, rng):
            self.inner = Linear(features, 3, rng=rng, dtype=np.float64)
            self.W, self.labels = self.inner.weight.data, np.arange(3)
            self._y, self.history = np.zeros((2, 2)), [np.zeros(4)]
            self.running = Buffer(np.zeros(3))

        def forward(self, x):
            return super().forward(self.inner(x) + self.labels - self.running.data)

        def backward(self, dy):
            return self.inner.backward(super().backward(dy))

    assert "plain-arrays" in grade(Keeps).rules("passed")


def test_numbers_that_are_not_finite_may_be_allowed():
    assert of(NaiveSoftmax, allow_nonfinite=True)


def test_a_gradient_of_0_has_no_sign():
    class Nothing(Tanh):
        def backward(self, dy):
            return -0.0 * abs(dy)

    told = why(of(Nothing), "gradients")
    assert "analytic 0, " in told
    assert "analytic = 0 x numeric" in told
    assert "-0 " not in told


def test_a_wide_layer_is_graded_too():
    class Narrow(Tanh):
        def backward(self, dy):
            return super().backward(dy) * (2 if dy.shape[-1] > 16 else 1)

    assert "x of shape (33, 17)" in why(of(Narrow), "gradients")


def test_a_gradient_that_is_no_number_where_a_row_is_0_is_found():
    class Normed(Tanh):
        def forward(self, x):
            x = np.array(x)
            self.norm = np.sqrt(np.sum(x**2, axis=-1, keepdims=True))
            self._y = x / np.maximum(self.norm, 1e-12)
            return self._y.copy()

        def backward(self, dy):
            return (dy - self._y * np.sum(dy * self._y, axis=-1, keepdims=True)) / self.norm

    assert "dx to be finite for finite inputs, got NaN or infinity" in why(of(Normed), "finite")


def test_what_the_code_does_to_everybody_is_undone():
    class Rude(Tanh):
        def forward(self, x):
            np.random.rand()  # noqa: NPY002
            random.seed(0)
            np.seterr(all="raise")
            warnings.simplefilter("always")
            return super().forward(x)

    def seen():
        stream = np.random.get_state()  # noqa: NPY002
        return stream[1:3], random.getstate(), np.geterr(), warnings.filters[:]

    before = repr(seen())
    of(Rude)
    assert repr(seen()) == before


# What the teacher gives


def test_inputs_may_be_nested_lists_and_are_refused_without_samples():
    assert of(Tanh, inputs=[[[1.0, 2.0], [3.0, 4.0]]])
    contract = "^grade: expected inputs of arrays with an axis of samples, got "
    for batch in (3.0, ()):
        with pytest.raises(ValueError, match=contract):
            of(Tanh, inputs=[batch])


def test_a_reference_may_take_the_parameters_in_their_order():
    def make(features, rng, wrong=lambda x, W, b: x @ W + b):
        class Affine(Linear):
            def forward(self, x):
                super().forward(x)
                return wrong(np.asarray(x), self.weight.data, self.bias.data)

        return Affine(features, 3, rng=rng)

    def affine(x, W, b):
        return x @ W + b

    assert grade(make, reference=affine, forms=("batch",)).score == 1
    for wrong in (lambda x, W, b: x @ W - b, lambda x, W, b: 2 * x @ W + b):
        result = grade(partial(make, wrong=wrong), reference=affine, forms=("batch",))
        assert "as of the reference, got" in why(result, "values")
    x = np.ones((2, 4))
    layer = Linear(4, 3, rng=0)
    assert check_gradients(layer, x, reference=affine)
    assert not layer.bias.data.any()


@pytest.mark.parametrize(
    ("reference", "got"),
    [
        (lambda x, W: x @ W, "weight (2, 3), bias (3,)"),
        (lambda x, W, b: x @ W.T + b, "weight (2, 3), bias (3,): matmul: "),
    ],
)
def test_other_parameters_than_the_reference_takes_are_a_wrong_layer(reference, got):
    result = grade(lambda features, rng: Linear(features, 3, rng=rng), reference=reference)
    assert result.rules("failed") == ["values"]
    text = "Linear: expected the Parameters that the reference takes, in their order and shapes"
    assert f"{text}, got {got}" in why(result, "values")


def division(*_):
    return 1 / 0


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (
            lambda: of(Tanh, reference=division),
            "reference: expected a function of the inputs, got ZeroDivisionError: division by zero",
        ),
        (
            lambda: grade_loss(MSELoss, reference=lambda pred: 0),
            "reference: expected a function of (pred, target), got ",
        ),
        (
            lambda: grade_optimizer(Momentum, formula=lambda value, gradient: value),
            "formula: expected a function of (value, gradient, state) that returns the next value "
            "and state, got TypeError: ",
        ),
        (lambda: grade(ReLU), "make: expected a function of (features, rng), got the class ReLU"),
        (lambda: grade(None), "make: expected a function of (features, rng), got None"),
        (
            lambda: grade(lambda features: Tanh()),
            "make: expected a function of (features, rng), got a function",
        ),
        (
            lambda: grade_loss(MSELoss()),
            "make: expected a function of no arguments, got an MSELoss",
        ),
        (
            lambda: grade_optimizer(lambda: None),
            "make: expected a function of a list of Parameters, got a function",
        ),
    ],
)
def test_a_mistake_of_the_teachers_is_an_error_and_no_verdict(ask, text):
    with pytest.raises(GivenError) as caught:
        ask()
    assert str(caught.value).startswith(text)


def test_nothing_to_grade_on_and_unknown_targets_are_refused():
    contract = "^grade: expected inputs with a batch, of two rows or more where rows mix, got none$"
    for settings in ({"inputs": []}, {"inputs": [np.ones((1, 2))], "rows_independent": False}):
        with pytest.raises(ValueError, match=contract):
            of(Tanh, **settings)
    contract = '^grade_loss: expected targets "like pred" or "labels", or a function of .*, got \'n'
    with pytest.raises(ValueError, match=contract):
        grade_loss(MSELoss, targets="numbers")


def test_a_form_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match='^grade: expected forms "sample", "batch" or "axes", got'):
        of(Tanh, forms=("rows",))


# What a grade shows


def test_a_grade_prints_every_rule_and_why_it_failed():
    lines = str(of(WrongSlope)).splitlines()
    counts = r"WrongSlope: score 0\.\d\d, (\d+) of (\d+) rules passed"
    passed, total = map(int, re.fullmatch(counts, lines[0]).groups())
    assert passed == total - 2
    assert "  passed       keeps-dy            Backward does not modify dy." in lines
    at = next(i for i, line in enumerate(lines) if line.startswith("  failed       gradients"))
    assert lines[at + 1] == "      x of shape (2, 2) (a batch), in training mode:"
    assert lines[at + 3].startswith("      wrong: x[0, 0]: analytic ")
    assert lines[-1] == "  not reached  unused-parameter (gradients failed)"


def test_a_rule_of_the_teachers_is_asked_and_counted_as_the_others_are():
    def is_odd():
        """y(-x) is -y(x).

        More that the table leaves out.
        """
        assert Tanh()(np.ones(1)) < 0, "it is not"

    result = of(Tanh)
    graded = result.also(is_odd, points=3).also(lambda: None)
    assert graded.verdicts[:-2] == result.verdicts
    odd, last = graded.verdicts[-2:]
    assert odd[:3] == ("is-odd", "failed", "y(-x) is -y(x).")
    assert odd.why.startswith("AssertionError: it is not\n")
    assert last.outcome == "passed"
    points = sum(verdict.points for verdict in result.verdicts)
    assert graded.score == (points + 1) / (points + 4)


def test_a_rule_of_the_teachers_is_not_asked_of_a_skeleton():
    def asked():
        raise AssertionError

    rule = of(Module).also(asked, points=3).verdicts[-1]
    assert rule == ("asked", "not reached", "", "implemented failed", 3)


def test_a_grade_is_plain_values_in_a_file(tmp_path):
    result = of(WrongSlope)
    result.to_json(tmp_path / "grade.json")
    read = json.loads((tmp_path / "grade.json").read_text())
    assert read == result.to_dict()
    assert (read["subject"], read["score"]) == ("WrongSlope", result.score)
    assert {rule["rule"]: rule["outcome"] for rule in read["rules"]}["gradients"] == "failed"


def test_a_grade_is_a_table_in_a_notebook_with_all_that_is_foreign_escaped():
    class Script(Tanh):
        def forward(self, x):
            raise ValueError("<script>alert(1)</script> & more")

    class Parser(html.parser.HTMLParser):
        tags: set = set()  # noqa: RUF012
        text = ""

        def handle_starttag(self, tag, attrs):
            self.tags.add(tag)

        def handle_data(self, data):
            self.text += data

    result, parser = of(Script), Parser()
    parser.feed(result._repr_html_())
    assert parser.tags == {"table", "caption", "tr", "td", "pre"}
    assert "Script: score 0.00, 0 of " in parser.text
    assert "ValueError: <script>alert(1)</script> & more" in parser.text
    assert result.to_html() == result._repr_html_()


def test_an_error_that_no_file_can_hold_is_shown_as_its_escape():
    class Surrogate(Tanh):
        def forward(self, x):
            raise ValueError("half a \ud83d")

    result = of(Surrogate)
    for shown in (str(result), result.to_html()):
        assert rb"ValueError: half a \ud83d" in shown.encode()


# Losses and optimizers


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (MSELoss, {"reference": lambda y, t: np.mean((y - t) ** 2)}),
        (HuberLoss, {}),
        (CrossEntropyLoss, {"targets": "labels"}),
        (BCEWithLogitsLoss, {"targets": lambda pred, rng: rng.random(pred.shape)}),
    ],
)
def test_a_right_loss_has_every_point(make, settings):
    assert grade_loss(make, **settings).score == 1


def test_a_loss_of_probabilities_is_graded_on_those_it_is_given():
    rng = np.random.default_rng(0)
    preds = [rng.uniform(0.05, 0.95, shape).tolist() for shape in ((2, 2), (3, 4), (5, 1))]
    yes_or_no = {"targets": lambda pred, rng: rng.integers(0, 2, pred.shape)}
    assert grade_loss(Probabilities, preds=preds, **yes_or_no).score == 1
    assert "finite" in grade_loss(Probabilities, **yes_or_no).rules("failed")
    with pytest.raises(ValueError, match="^grade_loss: expected preds of one array or more, got n"):
        grade_loss(Probabilities, preds=[])


def test_a_loss_that_overflows_may_be_allowed_to():
    counts = {"targets": lambda pred, rng: rng.poisson(2, pred.shape)}
    assert grade_loss(Poisson, **counts).rules("failed") == ["finite"]
    assert grade_loss(Poisson, allow_nonfinite=True, **counts).score == 1


def test_a_wrong_loss_fails_by_what_is_wrong():
    assert "gradients" in grade_loss(Sum).rules("failed")
    assert "reproducible" in grade_loss(FirstDoubled).rules("failed")
    assert "finite" in grade_loss(NaiveCrossEntropy, targets="labels").rules("failed")
    result = grade_loss(lambda: MSELoss("sum"), reference=lambda y, t: np.mean((y - t) ** 2))
    assert result.rules("failed") == ["values"]
    result = grade_loss(lambda: CrossEntropyLoss(1), targets="labels")
    assert result.rules("failed") == ["implemented"]


def test_a_right_optimizer_has_every_point():
    assert grade_optimizer(Adam, formula=adam).score == 1
    assert grade_optimizer(Momentum, reference=plain_sgd).score == 1
    assert "values" not in grade_optimizer(Momentum).rules("passed")


def test_an_optimizer_of_another_lr_fails_by_its_values_alone_and_is_told_so():
    result = grade_optimizer(lambda params: Momentum(params, 0.01), reference=plain_sgd)
    assert result.rules("failed") == ["values"]
    assert "as the reference does (its lr is 0.1, here it is 0.01), got" in why(result, "values")


def test_a_wrong_optimizer_fails_by_lr_only_if_it_does_not_read_it():
    class Ascends(Momentum):
        def step(self):
            self.lr *= -1
            super().step()
            self.lr *= -1

    class Both(Fixed):
        def step(self):
            super().step()
            super().step()

    assert grade_optimizer(Ascends, reference=plain_sgd).rules("failed") == ["values"]
    result = grade_optimizer(Both, reference=plain_sgd)
    assert result.rules("failed") == ["values", "lr"]
    assert why(result, "lr") == "seed 0:\nBoth: expected another step at half the lr, got the same"


def test_an_optimizer_whose_steps_are_not_numbers_fails_by_its_values():
    class Diverges:
        def __init__(self, params):
            self.params = params

        def step(self):
            for p in self.params:
                p.data = p.data * np.nan

    result = grade_optimizer(Diverges, reference=plain_sgd)
    assert result.rules("failed") == ["values"]
    assert why(result, "values").endswith("as the reference does, got nan")


def test_a_wrong_optimizer_fails_by_what_is_wrong():
    assert grade_optimizer(Forgets, reference=plain_sgd).rules("failed") == ["resumes"]
    result = grade_optimizer(lambda params: Momentum(params, "0.1"))
    assert result.rules("failed") == ["implemented"]
    assert result.rules("not reached")
