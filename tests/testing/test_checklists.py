"""Checklists of layers, losses and optimizers: what they find, how soon, and what they say."""

import copy
import re
import time
import traceback
from contextlib import suppress

import hypothesis
import numpy as np
import pytest
from layers import Elementwise, Gain, Product, softmax
from students import (
    Batch,
    Decayed,
    Fixed,
    Forgets,
    Identity,
    Misspelt,
    Momentum,
    NaiveCrossEntropy,
    NaiveSoftmax,
    Nothing,
    OneVelocity,
    Overwritten,
    OwnCache,
    Pass,
    Poisson,
    Probabilities,
    Replaces,
    Rounds,
    SharesState,
    Skeleton,
    Skips,
    SpendsGradients,
    SquaresRate,
    Still,
    Sum,
    Tanh,
    Uncorrected,
    Unwritten,
    WrongSlope,
    adam,
    plain_sgd,
    sgd,
)

from tinygrad_mnist import (
    SGD,
    Adam,
    AdamW,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    Linear,
    MSELoss,
    Parameter,
    Sequential,
    nn,
)
from tinygrad_mnist.testing import (
    GivenError,
    GradientCheckError,
    InconclusiveGradientCheck,
    ModuleContractError,
    check_gradients,
)
from tinygrad_mnist.testing.strategies import (
    batches,
    loss_checklist,
    module_checklist,
    optimizer_checklist,
    seeds,
)

# the same examples in every run, and as many as find the rarest of the faults
SAME = hypothesis.settings(max_examples=100, derandomize=True, database=None)
FEW = hypothesis.settings(SAME, max_examples=15)  # where all are to pass, or none


def error_of(checklist):
    with pytest.raises((ModuleContractError, GradientCheckError)) as caught:
        checklist()
    return caught.value


STUDENTS = {
    "wrong slope": (WrongSlope, "WrongSlope: 1 of 1 gradients disagree with central differences"),
    "skeleton": (
        Skeleton,
        "Skeleton: expected forward to be implemented, got NotImplementedError: your code here",
    ),
    "pass": (Pass, "Pass: expected forward to return an array, got None [rule: implemented]"),
    "own cache": (OwnCache, "OwnCache: expected forward to keep a copy of y"),
    "batch only": (
        Batch,
        "Batch: expected one sample to be taken as well (x of shape (2,)), got ValueError: matmul",
    ),
    "naive softmax": (NaiveSoftmax, "NaiveSoftmax: expected y to be finite for finite inputs"),
}


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_failing_checklist_names_what_is_wrong_within_two_seconds(name):
    layer, text = STUDENTS[name]
    start = time.process_time()
    make = layer if layer is Batch else (lambda features, rng: layer())
    error = error_of(module_checklist(make, settings=SAME))
    assert time.process_time() - start < 2
    assert str(error).startswith(text)


def test_the_first_example_is_the_smallest_and_if_it_fails_the_last():
    seen = []

    class Watched(WrongSlope):
        def forward(self, x):
            seen.append(np.shape(x))
            return super().forward(x)

    error_of(module_checklist(lambda features, rng: Watched(), settings=SAME))
    assert seen[0] == (2, 2)
    assert len(seen) < 600  # the calls of some ten examples, not of a hundred


def test_settings_with_the_phase_explain_do_without_it():
    settings = hypothesis.settings(SAME, phases=tuple(hypothesis.Phase))
    error = error_of(module_checklist(lambda features, rng: WrongSlope(), settings=settings))
    assert "Explanation" not in "\n".join(error.__notes__)


def test_an_error_tells_how_the_other_rules_did():
    error = error_of(module_checklist(lambda features, rng: WrongSlope(), settings=SAME))
    assert re.fullmatch(r"(\d+) of \d+ rules passed; failed: gradients", error.__notes__[-1])
    error = error_of(module_checklist(lambda features, rng: Skeleton(), settings=SAME))
    (note,) = (note for note in error.__notes__ if "rules passed" in note)
    assert re.match(r"0 of \d+ rules passed; failed: implemented; not reached: ", note)
    assert len(note) < 120


@pytest.mark.parametrize(
    ("layer", "own"), [(WrongSlope, []), (Skeleton, ["forward"]), (Misspelt, ["backward"])]
)
def test_an_error_shows_the_layers_own_lines_and_no_way_through_the_kit(layer, own):
    with pytest.raises((AssertionError, AttributeError)) as caught:
        module_checklist(lambda features, rng: layer(), settings=SAME)()
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][1:]
    assert frames == ["checklist", *own]
    assert caught.value.__cause__ is None


def test_a_note_shows_the_corners_of_a_large_array():
    wide = batches(features=40)
    make = lambda features, rng: WrongSlope()  # noqa: E731
    error = error_of(module_checklist(make, inputs=wide, settings=SAME))
    assert "..., " in "\n".join(error.__notes__)
    assert len("\n".join(error.__notes__).splitlines()) < 12


def test_what_failed_in_one_checklist_is_not_the_first_example_of_another(tmp_path):
    settings = hypothesis.settings(
        database=hypothesis.database.DirectoryBasedExampleDatabase(tmp_path)
    )

    class InEvaluation(WrongSlope):
        def backward(self, dy):
            return dy * (1 - self._y**2) if self.training else super().backward(dy)

    for layer, mode in ((InEvaluation, False), (WrongSlope, True)):
        error = error_of(module_checklist(lambda f, rng, cls=layer: cls(), settings=settings))
        assert f"training={mode}," in "\n".join(error.__notes__)


def test_an_error_of_the_layers_own_comes_as_it_is_with_the_same_note():
    with pytest.raises(AttributeError, match="no attribute 'y'") as caught:
        module_checklist(lambda features, rng: Misspelt(), settings=SAME)()
    assert caught.value.__notes__[-1].startswith("0 of ")


@pytest.mark.parametrize("layer", [Tanh, WrongSlope])
def test_draws_of_a_layer_from_the_global_stream_are_undone(layer):
    def make(features, rng):
        np.random.rand()  # noqa: NPY002
        return layer()

    before = repr(np.random.get_state())  # noqa: NPY002
    with suppress(GradientCheckError):
        module_checklist(make, settings=FEW)()
    assert repr(np.random.get_state()) == before  # noqa: NPY002


# Values


def test_a_layer_that_computes_something_else_is_found_by_its_reference():
    def checklist(reference):
        return module_checklist(lambda features, rng: Identity(), reference=reference, settings=FEW)

    error = error_of(checklist(np.tanh))
    assert error.rule == "values"
    assert str(error).startswith("Identity: expected y[0, 0] to be 0.125071866, as of the ref")
    checklist(np.array)()
    assert error_of(checklist(lambda x: x[..., :1])).rule == "values"
    assert error_of(checklist(lambda x: x + 1e-6)).rule == "values"


def test_a_check_of_gradients_takes_a_reference_too():
    x = np.random.default_rng(0).standard_normal((3, 2))
    assert check_gradients(Tanh(), x, reference=np.tanh)
    for contracts in (True, False):
        with pytest.raises(ModuleContractError, match=r"of the reference, got .* \[rule: values\]"):
            check_gradients(Identity(), x, reference=np.tanh, contracts=contracts)
    assert check_gradients(Product(2), (x, x), reference=lambda a, b: a * b * [0.5, 1.5])


def test_a_layer_that_draws_has_its_values_in_evaluation_mode():
    module_checklist(
        lambda features, rng: nn.Dropout(0.5, rng=rng), reference=np.array, settings=FEW
    )()

    class Doubles(nn.Dropout):
        def forward(self, x):
            return super().forward(x) if self.training else 2 * np.asarray(x)

        def backward(self, dy):
            return super().backward(dy) if self.training else 2 * np.asarray(dy)

    checklist = module_checklist(
        lambda features, rng: Doubles(0.5, rng=rng), reference=np.array, settings=FEW
    )
    assert error_of(checklist).rule == "values"


@pytest.mark.parametrize(
    "checklist",
    [
        module_checklist(lambda features, rng: Tanh(), reference=lambda x: x.sum(axis=7)),
        optimizer_checklist(Adam, formula=lambda value, gradient, state: value + step),  # noqa: F821
    ],
)
def test_a_mistake_of_the_teachers_is_an_error_of_its_own(checklist):
    with pytest.raises(
        GivenError, match=r"^(reference|formula): expected a function of .*, got "
    ) as caught:
        checklist()
    assert caught.value.__suppress_context__
    last = traceback.extract_tb(caught.tb)[-1]
    assert (last.name, last.filename) == ("<lambda>", __file__)


# Sizes and shapes


@pytest.mark.parametrize("axis", [0, 1])
def test_faults_beyond_five_rows_or_features_are_found(axis):
    class Small(Tanh):
        def backward(self, dy):
            wrong = dy.ndim == 2 and dy.shape[axis] > 8
            return super().backward(dy) * (2 if wrong else 1)

    error_of(module_checklist(lambda features, rng: Small(), forms=("batch",), settings=SAME))


@pytest.mark.parametrize("is_wrong", [lambda x: x.ndim > 3, lambda x: x.ndim == 3 and len(x) > 2])
def test_faults_beyond_one_more_axis_and_beyond_two_along_it_are_found(is_wrong):
    class Few(Tanh):
        def backward(self, dy):
            return super().backward(dy) * (2 if is_wrong(dy) else 1)

    error_of(
        module_checklist(
            lambda features, rng: Few(), forms=("axes",), rows_independent=False, settings=SAME
        )
    )


def test_images_are_large_enough_for_a_kernel_of_five():
    few = hypothesis.settings(SAME, max_examples=5)
    module_checklist(
        lambda channels, rng: nn.Conv2d(channels, 2, 5, rng=rng), forms=("batch",), settings=few
    )()


# Numbers that are not finite, and examples that tell nothing


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_that_are_not_finite_may_be_allowed():
    module_checklist(lambda features, rng: NaiveSoftmax(), allow_nonfinite=True, settings=FEW)()


def test_a_parameter_that_moves_y_in_no_example_is_a_failure():
    class Dead(Gain):
        def __init__(self, features):
            super().__init__(features)
            self.alpha = Parameter(np.ones(features))

    few = hypothesis.settings(SAME, max_examples=7)
    error = error_of(module_checklist(lambda features, rng: Dead(features), settings=few))
    assert error.rule == "unused-parameter"
    assert error.message == "Dead: expected some example in which alpha changes y, got none in 7"


def test_a_layer_that_always_answers_0_is_no_pass():
    few = hypothesis.settings(SAME, max_examples=7)
    make = lambda features, rng: Elementwise(np.zeros_like, np.zeros_like)  # noqa: E731
    error = error_of(module_checklist(make, settings=few))
    assert error.message == "Elementwise: expected some example in which x changes y, got none in 7"


def test_a_bias_that_moves_y_in_evaluation_mode_alone_is_enough():
    def make(features, rng):
        return Sequential(Linear(features, 3, rng=rng), nn.BatchNorm(3))

    module_checklist(make, rows_independent=False, forms=("batch",), settings=FEW)()


# Losses

test_mse = loss_checklist(MSELoss, reference=lambda y, t: np.mean((y - t) ** 2), settings=FEW)
test_cross_entropy = loss_checklist(CrossEntropyLoss, targets="labels", settings=FEW)
test_yes_or_no = loss_checklist(
    BCEWithLogitsLoss, targets=lambda pred, rng: rng.random(pred.shape), settings=FEW
)

test_probabilities = loss_checklist(
    Probabilities,
    targets=lambda pred, rng: rng.integers(0, 2, pred.shape),
    preds=seeds().map(lambda seed: np.random.default_rng(seed).uniform(0.05, 0.95, (3, 2))),
    settings=FEW,
)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_overflows_may_be_allowed_to():
    counts = {"targets": lambda pred, rng: rng.poisson(2, pred.shape), "settings": SAME}
    loss_checklist(Poisson, allow_nonfinite=True, **counts)()
    assert error_of(loss_checklist(Poisson, **counts)).rule == "finite"


def test_a_loss_of_which_no_gradient_could_be_judged_is_no_pass():
    text = "^Nothing: expected some example in which a wrong gradient would show, got none$"
    with pytest.raises(InconclusiveGradientCheck, match=text):
        loss_checklist(Nothing, settings=FEW)()


def nll(pred, labels):
    return -np.mean(np.log(softmax(pred))[np.arange(len(pred)), labels])


@pytest.mark.parametrize(
    ("make", "targets", "reference", "text"),
    [
        (Sum, "like pred", None, "Sum: 1 of 1 gradients disagree"),
        (NaiveCrossEntropy, "labels", None, "NaiveCrossEntropy: expected the loss to be finite"),
        (Skips, "labels", nll, "Skips: expected .* as of the reference, got"),
        (MSELoss, "like pred", lambda y, t: np.sum((y - t) ** 2), "MSELoss: expected .* as of the"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_wrong_loss_is_found(make, targets, reference, text):
    checklist = loss_checklist(make, targets=targets, reference=reference, settings=SAME)
    error = error_of(checklist)
    assert re.match(text, str(error))
    assert "rules passed" in error.__notes__[-1]


# Optimizers


test_sgd = optimizer_checklist(
    lambda params: SGD(params, 0.1, momentum=0.9), formula=sgd, settings=FEW
)
test_adam = optimizer_checklist(Adam, formula=adam, settings=FEW)
test_adamw = optimizer_checklist(AdamW, settings=FEW)
test_momentum = optimizer_checklist(
    Momentum, reference=lambda params: SGD(params, 0.1, momentum=0.9), settings=FEW
)


@pytest.mark.parametrize(
    ("make", "reference", "rule"),
    [
        (Uncorrected, Adam, "values"),
        (Decayed, AdamW, "values"),
        (lambda params: Adam(params, eps=1e-7), Adam, "values"),
        (lambda params: SGD(params, 0.1, momentum=0.9, nesterov=True), plain_sgd, "values"),
        (Overwritten, plain_sgd, "values"),
        (OneVelocity, None, "own-state"),
        (SpendsGradients, None, "keeps-gradients"),
        (Replaces, None, "in-place"),
        (Fixed, plain_sgd, "lr"),
        (SquaresRate, plain_sgd, "lr"),
        (Forgets, None, "resumes"),
        (SharesState, None, "resumes"),
        (Rounds, None, "float32"),
        (Still, None, "implemented"),
        (Unwritten, None, "implemented"),
    ],
)
def test_a_wrong_optimizer_is_found_by_a_rule(make, reference, rule):
    error = error_of(optimizer_checklist(make, reference=reference, settings=FEW))
    assert error.rule == rule


def test_the_message_says_which_step_of_which_entry_goes_astray():
    error = error_of(optimizer_checklist(Overwritten, reference=plain_sgd, settings=FEW))
    pattern = r"Overwritten: expected step 1 to move params\[0\]\[0\] by \S+, as the reference does"
    assert re.match(pattern, error.message)
    assert error.__notes__[-1].endswith("rules passed; failed: values")


def test_an_optimizer_of_all_parameters_together_may_be_compared_with_its_like():
    class Clipped(SGD):
        def step(self):
            norm = np.sqrt(sum(np.sum(p.grad**2) for p in self.params))
            kept, self.lr = self.lr, self.lr / max(1, norm)
            super().step()
            self.lr = kept

    def make(params):
        return Clipped(params, 0.1)

    optimizer_checklist(make, reference=lambda params: copy.copy(make(params)), settings=FEW)()
    assert error_of(optimizer_checklist(make, settings=FEW)).rule == "own-state"


def test_a_reference_and_a_formula_are_one_too_many():
    text = "^optimizer_checklist: expected a reference or a formula, got both$"
    with pytest.raises(TypeError, match=text):
        optimizer_checklist(Adam, reference=Adam, formula=adam)
