"""Each rule of the contract, by the text of its refusal."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from faults import CHECKLIST_LAYERS, CHECKLIST_LOSSES, LAYERS, LOSSES
from layers import ELEMENTWISE, BatchMean, Elementwise, Gain, GlobalNoise, Linear, normal, of_shape

from tinygrad_mnist import SGD, Buffer, MSELoss, Parameter, nn
from tinygrad_mnist.testing import (
    ModuleContractError,
    check_gradients,
    check_loss_gradients,
    check_model_gradients,
    grade,
    grade_loss,
    grade_optimizer,
)
from tinygrad_mnist.testing.contracts.loss import (
    LATER_LOSS_RULES,
    LOSS_CHECKLIST_RULES,
    LOSS_RULES,
    LossRun,
)
from tinygrad_mnist.testing.contracts.module import MODULE_RULES
from tinygrad_mnist.testing.contracts.module_later import CHECKLIST_RULES, LATER_RULES
from tinygrad_mnist.testing.contracts.module_run import ModuleRun
from tinygrad_mnist.testing.contracts.rules import ask

AFTER_TRAINING = (
    "a module that has trained to give in evaluation mode what a new one gives (backward uses what "
    "the last forward kept; an array that training changes is a Buffer)"
)
MIXES = (
    "(sample_axes says how many last axes are one sample; rows_independent=False is for layers "
    "that mix rows)"
)
MESSAGES = {
    "forward not written": (
        "BrokenReLU: expected forward to be implemented, got NotImplementedError: your code here"
    ),
    "backward not written": (
        "BrokenReLU: expected backward to be implemented, got NotImplementedError: your code here"
    ),
    "forward without a return": "BrokenReLU: expected forward to return an array, got None",
    "a Parameter in a namespace": (
        "BrokenGain: expected every Parameter to be found, got one in self.parts "
        "(SimpleNamespace); keep it as an attribute, or in a list, tuple or dict"
    ),
    "a layer in a set": (
        "BrokenDropout: expected every Module to be found, got one in self.parts (set); keep it "
        "as an attribute, or in a list, tuple or dict"
    ),
    "softmax that overflows": (
        "BrokenSoftmax: expected y to be finite for finite inputs, got NaN or infinity"
    ),
    "first forward unlike the others": (
        "BrokenGain: expected the very first forward and backward to give what others give, got "
        "another value of y"
    ),
    "first backward unlike the others": (
        "BrokenGain: expected the very first forward and backward to give what others give, got "
        "another value of dx"
    ),
    "gradients cleared by forward": (
        "BrokenGain: expected forward to leave the gradients alone, got another value of the "
        "gradient of gain"
    ),
    "wrong for a dy of ones": (
        "BrokenGain: expected backward of a dy of ones to be backward(dy) + backward(1 - dy), got "
        "another value of dx"
    ),
    "third backward doubled": (
        "BrokenGain: expected a third backward to add the same again, got another value of dx"
    ),
    "dx of dy clipped at 5": (
        "BrokenGain: expected backward(1024 a + b) to be 1024 backward(a) + backward(b), got "
        "another value of dx"
    ),
    "dx of dy clipped at 2 rms": (
        "BrokenGain: expected backward(a + b) to be backward(a) + backward(b), got another value "
        "of dx"
    ),
    "NaN where dy is 0": (
        "BrokenGain: expected backward of a dy of zeros to be 0, got another value of dx"
    ),
    "wrong for more than 8 rows": (
        "BrokenGain: expected rows repeated to x of shape (33, 2) to give what they give once, got "
        "another value of dx"
    ),
    "wrong for four axes": (
        "BrokenGain: expected rows repeated to x of shape (1, 11, 3, 2) to give what they give "
        'once (forms=("sample", "batch") is for layers that take no more axes), got another '
        "value of dx"
    ),
    "y of float32 in float64": ("BrokenGain: expected y of a float32 copy in float32, got float64"),
    "dx wrong in float32 alone": (
        "BrokenGain: expected a float32 copy to give what the float64 one gives, got another value "
        "of dx"
    ),
    "y in an array used again": (
        "BrokenGain: expected y to keep its values, got it overwritten by another forward"
    ),
    "dx in an array used again": (
        "BrokenGain: expected dx to keep its values, got it overwritten by another backward"
    ),
    "x kept without a copy": (
        "BrokenElementwise: expected forward to keep a copy of x (np.array(x)), got another "
        "gradient after x was changed"
    ),
    "y kept without a copy": (
        "BrokenReLU: expected forward to keep a copy of y (y.copy()), got another gradient after y "
        "was changed"
    ),
    "dy kept without a copy": (
        "BrokenLinear: expected backward to keep a copy of dy (np.array(dy)), got another gradient "
        "after dy was changed"
    ),
    "dx kept without a copy": (
        "BrokenElementwise: expected backward to keep a copy of dx (dx.copy()), got another "
        "gradient after dx was changed"
    ),
    "x edited in place": "BrokenElementwise: expected forward to leave x alone, got it modified",
    "Dropout: edits dy in place": (
        "BrokenDropout: expected backward to leave dy alone, got it modified"
    ),
    "weights changed by forward": (
        "BrokenLinear: expected forward to leave weight alone, got it changed"
    ),
    "noise from a closure": (
        "ClosureNoise: expected the same y from the same x and the same draws, got another; a "
        "random layer keeps its np.random.Generator as an attribute (self.rng) and draws from "
        "nothing else; an array that forward changes is a Buffer"
    ),
    "y in float32": "BrokenReLU: expected y in float64, as the module, got float32",
    "dx in float32": ("BrokenReLU: expected dx in float64, as the module, got float32"),
    "dx None": "BrokenReLU: expected dx of shape (3, 2), got None",
    "dx flat": "BrokenReLU: expected dx of shape (3, 2), got (1, 6, 1)",
    "order of memory": (
        "BrokenElementwise: expected a Fortran-ordered x and dy to change nothing, got another "
        "value of y"
    ),
    "broadcast arrays": (
        "BrokenElementwise: expected a broadcast x and dy to change nothing, got another value of y"
    ),
    "middle row forgotten": (
        "BrokenElementwise: expected sample 1 in a batch of one (x of shape (1, 2)) to give what "
        f"its row gives {MIXES}, got another value of y"
    ),
    "gradient set, not added": (
        "BrokenGain: expected a second backward to add the same again, got another value of "
        "the gradient of gain"
    ),
    "ReLU: dy squared": (
        "BrokenReLU: expected backward(-3 dy) to be -3 backward(dy), got another value of dx"
    ),
    "rows mixed": (
        "BrokenBatchMean: expected sample 0 in a batch of one (x of shape (1, 2)) to give what its "
        f"row gives {MIXES}, got another value of y"
    ),
    "first x remembered for good": (
        "BrokenGain: expected rows in another order to give the same, got another value of "
        "the gradient of gain"
    ),
    "noise in evaluation": "BrokenReLU: expected the same y twice in evaluation mode, got another",
    "Dropout: draws in evaluation": (
        "BrokenDropout: expected no draws in evaluation mode, got some"
    ),
    "BatchNorm whose backward changes the mean": (
        "BrokenBatchNorm: expected backward to leave running_mean alone, got it changed"
    ),
    "BatchNorm whose mean changes in evaluation": (
        "BrokenBatchNorm: expected no Buffer to change in evaluation mode, got another running_mean"
    ),
    "Dropout: the mask of training in evaluation": (
        f"BrokenDropout: expected {AFTER_TRAINING}, got another value of dx"
    ),
    "Dropout: no mask of its own in evaluation": (
        f"BrokenDropout: expected {AFTER_TRAINING}, got another value of dx"
    ),
    "a mean kept in no Buffer": f"BrokenGain: expected {AFTER_TRAINING}, got another value of y",
    "evaluation for good": (
        "BrokenGain: expected training to give the same after an evaluation, got another value of y"
    ),
    "product: b edited": "BrokenProduct: expected forward to leave x[1] alone, got it modified",
    "product: one gradient": (
        "BrokenProduct: expected a tuple of 2 gradients, got an array of shape (3, 2) and dtype "
        "float64"
    ),
    "product: db None": "BrokenProduct: expected dx[1] of shape (3, 2), got None",
    "product: db in float32": (
        "BrokenProduct: expected dx[1] in float64, as the module, got float32"
    ),
}

LOSS_MESSAGES = {
    "loss not written": (
        "BrokenAbsoluteError: expected __call__ to be implemented, got NotImplementedError: your "
        "code here"
    ),
    "backward of a loss without a return": (
        "BrokenAbsoluteError: expected backward to return an array, got None"
    ),
    "NaN where pred is the target": (
        "BrokenAbsoluteError: expected dL/dpred to be finite where pred is the target, got NaN or "
        "infinity"
    ),
    "first value unlike the others": (
        "FirstTwice: expected the same value and dL/dpred twice, got another"
    ),
    "order of memory": (
        "BrokenMSELoss: expected a Fortran-ordered pred and target to change nothing, got another "
        "value of the loss"
    ),
    "pred multiplied by ones in place": (
        "BrokenMSELoss: expected pred and target to be left alone, got output array is read-only"
    ),
    "dL/dpred of float32 in float64": (
        "BrokenMSELoss: expected dL/dpred in float32, as pred, got float64"
    ),
    "wrong in float32 alone": (
        "BrokenMSELoss: expected float32 to give what float64 gives, got another value of dL/dpred"
    ),
    "pred and target kept without a copy": (
        "KeepsBoth: expected the loss to keep a copy of pred, got another gradient after it was "
        "changed"
    ),
    "dL/dpred in an array used again": (
        "BrokenMSELoss: expected dL/dpred to keep its values, got it overwritten by a later call"
    ),
    "pred edited": "BrokenMSELoss: expected pred and target to be left alone, got one modified",
    "broadcast (N, 1) - (N,)": ("Broadcasts: expected dL/dpred of shape (3, 1), got (3, 3)"),
}


GRADIENTS_ARE_RIGHT = "All gradients agree with central differences."


def refusal(rule, text):
    """Return what expects an error of these words, with or without the note on the gradients."""
    message = re.escape(f"{text} [rule: {rule}]")
    return pytest.raises(ModuleContractError, match=rf"^{message}(\n{GRADIENTS_ARE_RIGHT})?$")


@pytest.mark.parametrize("name", MESSAGES)
def test_a_broken_rule_is_named_in_words(name):
    with refusal(LAYERS[name].rule, MESSAGES[name]):
        LAYERS[name].check(normal(3, 2), np.random.default_rng(0))


COLUMNS = normal(3, 1), normal(3, 1, seed=1)
LOSS_ARRAYS = {"order of memory": (normal(3, 2), normal(3, 2, seed=1))}


@pytest.mark.parametrize("name", LOSS_MESSAGES)
def test_a_broken_rule_of_a_loss_is_named_in_words(name):
    with refusal(LOSSES[name].rule, LOSS_MESSAGES[name]):
        check_loss_gradients(LOSSES[name].make(), *LOSS_ARRAYS.get(name, COLUMNS))


@pytest.mark.parametrize(
    ("outputs", "got"),
    [(3, "ValueError: "), (2, "another value of the gradient of weight")],
)
def test_a_layer_that_takes_batches_alone_is_told_of_forms(outputs, got):
    class RowsOnly(Linear):
        def backward(self, dy):
            self.weight.accumulate(np.zeros(self.weight.data.shape) + self._x.T @ dy)
            self.bias.accumulate(dy.reshape(-1, outputs).sum(axis=0))
            return dy @ self.weight.data.T

    x, layer = normal(3, 2), RowsOnly(2, outputs, rng=0)
    message = (
        "RowsOnly: expected sample 0 alone (x of shape (2,)) to give what a batch of one gives "
        f'(forms=("batch",) is for layers that need a batch axis), got {got}'
    )
    with pytest.raises(ModuleContractError, match="^" + re.escape(message)):
        check_gradients(layer, x)
    assert check_gradients(layer, x, forms=("batch",))


@pytest.mark.parametrize(
    ("headers", "grade"),
    [
        (
            ["before the gradients", "after them", "in a checklist or a grade alone"],
            grade(lambda features, rng: Gain(features), reference=np.copy),
        ),
        (["rule of a loss"], grade_loss(MSELoss, reference=lambda y, t: 0)),
    ],
    ids=["layers", "losses"],
)
def test_the_page_lists_the_rules_in_their_words(headers, grade):
    text = (Path(__file__).parents[2] / "docs" / "pages" / "testing.md").read_text()
    listed = {}
    for header in headers:
        table = text.split(f"| {header} | what it says |")[1].split("\n\n")[0]
        listed |= re.findall(r"^\| `(.+?)` \| (.+) \|$", table, re.M)
    words = {verdict.rule: verdict.says for verdict in grade.verdicts}
    assert listed == {rule: says for rule, says in words.items() if rule != "gradients"}


def test_every_rule_is_broken_by_a_fault():
    def broken(faults):
        return {fault.rule for fault in faults.values()} - {""}

    assert broken(LAYERS) == {*MODULE_RULES, *LATER_RULES}
    assert broken(LOSSES) == {*LOSS_RULES, *LATER_LOSS_RULES}
    assert broken(CHECKLIST_LAYERS) | {"empty"} == {*CHECKLIST_RULES}
    assert broken(CHECKLIST_LOSSES) | {"forward-first"} == {*LOSS_CHECKLIST_RULES}


def test_a_new_layer_has_no_memory_to_answer_from():
    x = normal(3, 2)
    for right in (Gain(2), Elementwise(np.copy, np.ones_like), nn.Linear(2, 3), nn.Sequential()):
        ask(ModuleRun(right, [x], np.ones(())), CHECKLIST_RULES)
    layer = CHECKLIST_LAYERS["an x of zeros at the start"].make(2, None)
    text = (
        "RememberedZero: expected backward before forward to be refused, got another value of the "
        "gradient of gain"
    )
    with refusal("forward-first", text):
        ask(ModuleRun(layer, [x], np.ones(())), CHECKLIST_RULES)
    layer = CHECKLIST_LAYERS["None without a forward"].make(2, None)
    text = "BrokenElementwise: expected backward before forward to be refused, got another value of"
    with refusal("forward-first", f"{text} dx"):
        ask(ModuleRun(layer, [x], np.ones(())), CHECKLIST_RULES)


def test_a_new_loss_has_no_memory_to_answer_from():
    x, t = normal(3, 2), normal(3, 2, seed=1)
    ask(LossRun(MSELoss(), x, t), LOSS_CHECKLIST_RULES)
    loss = MSELoss()
    loss._slope, loss.n = np.zeros((3, 2)), 1.0
    loss.__class__ = type("Remembering", (MSELoss,), {"__getstate__": object.__getstate__})
    with refusal(
        "forward-first",
        "Remembering: expected backward before the first call to be refused, got numbers",
    ):
        ask(LossRun(loss, x, t), LOSS_CHECKLIST_RULES)


def test_a_dy_or_a_target_that_is_stretched_in_silence_is_named_by_a_checklist():
    layer = CHECKLIST_LAYERS["dy of whatever broadcasts"].make(2, None)
    text = (
        "BrokenGain: expected dy of shape (1, 2) to be refused, as y has shape (3, 2), got another "
        "value of the gradient of shift"
    )
    with refusal("dy-shape", text):
        ask(ModuleRun(layer, [normal(3, 2)], normal(3, 2, seed=1)), CHECKLIST_RULES)
    loss = CHECKLIST_LOSSES["a target (N,) for pred (N, 1)"].make()
    text = (
        "BrokenAbsoluteError: expected a target of shape (3,) for pred of shape (3, 1) to be "
        "refused, got dL/dpred of shape (3, 3)"
    )
    with refusal("target-shape", text):
        ask(LossRun(loss, normal(3, 1), normal(3, 1, seed=1)), LOSS_CHECKLIST_RULES)


def test_there_is_a_form_and_each_is_known():
    for forms, got in (((), "forms among sample, batch, axes, got none"), (("rows",), "rows")):
        with pytest.raises(ValueError, match=f"^check_gradients: expected .*{got}"):
            check_gradients(Gain(2), normal(3, 2), forms=forms)


def test_contracts_can_be_left_out():
    x, layer = normal(3, 2), BatchMean()
    with pytest.raises(ModuleContractError):
        check_gradients(layer, x)
    assert check_gradients(layer, x, contracts=False)
    t, loss = normal(3, 2, seed=1), LOSSES["pred edited"].make()
    with pytest.raises(ModuleContractError):
        check_loss_gradients(loss, x, t)
    check_loss_gradients(loss, x, t, contracts=False)
    with pytest.raises(ModuleContractError):
        check_model_gradients(layer, MSELoss(), x, t)
    assert check_model_gradients(layer, MSELoss(), x, t, contracts=False)


# What no rule may ask of right code


def test_what_is_not_finite_is_allowed_on_request_and_of_inputs_that_are_not():
    layer = Elementwise(np.exp, np.exp)
    huge = np.full((2, 3), 1e3)
    with np.errstate(over="ignore"):
        with refusal("finite", FINITE):
            ask(ModuleRun(layer, [huge], np.ones((2, 3))), MODULE_RULES)
        ask(ModuleRun(layer, [huge], np.ones((2, 3)), allow_nonfinite=True), MODULE_RULES)
        ask(ModuleRun(layer, [np.inf + huge], np.ones((2, 3))), MODULE_RULES)


FINITE = "Elementwise: expected y to be finite for finite inputs, got NaN or infinity"


def test_a_loss_may_be_infinite_on_request_and_where_no_pred_can_be():
    class OddsLoss:  # of probabilities, which are never 0 or 1
        def __call__(self, pred, target):
            self._pred, self._target = np.array(pred), np.array(of_shape(target, pred.shape))
            return -float(np.mean(target * np.log(pred) + (1 - target) * np.log(1 - pred)))

        def backward(self):
            y, t = self._pred, self._target
            return ((1 - t) / (1 - y) - t / y) / y.size

    pred = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3))
    target = (normal(4, 3) > 0) * 1.0
    assert check_loss_gradients(OddsLoss(), pred, target)
    loss = LOSSES["NaN where pred is the target"].make()
    run = LossRun(loss, normal(3, 2), normal(3, 2, seed=1), allow_nonfinite=True)
    ask(run, LOSS_RULES)


def test_a_part_is_looked_for_as_random_streams_are_and_its_place_is_named():
    class Slots(Gain):
        __slots__ = ("hidden",)

    class Bound(Gain):
        def __init__(self, features):
            super().__init__(features)
            self.pick, self.parts = self.forward, {"all": (self.gain, [self.shift])}

    x, slots, inner = normal(3, 2), Slots(2), Gain(2)
    assert check_gradients(Bound(2), x)
    slots.hidden = {Parameter(0.0)}
    inner.parts = partial(max, key=Buffer(0.0))
    for layer, place in (
        (slots, "Parameter to be found, got one in self.hidden (set)"),
        (nn.Sequential(inner), "Buffer to be found, got one in Gain.parts (partial)"),
    ):
        with pytest.raises(ModuleContractError, match=re.escape(place)):
            check_gradients(layer, x)


def test_float32_is_not_compared_on_a_kink_nor_where_terms_cancel():
    class Knee(Gain):
        def forward(self, x):
            self._passed = np.array(x) > 1
            return super().forward(np.maximum(x, 1))

        def backward(self, dy):
            return super().backward(dy) * self._passed

    x = np.array([[1 + 1e-12, 2.0], [0.5, 1 - 1e-12]])  # 1 in float32
    assert check_gradients(Knee(2), x)
    constant = np.full((3, 4), 1e3) + 1e-9 * normal(3, 4)
    assert check_gradients(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2, rng=0)), constant)


def test_float32_is_asked_of_what_has_floats_and_draws_nothing():
    class Noisy(GlobalNoise):
        def __init__(self):
            self.gain = Parameter(1.0)

        def forward(self, x):
            self._x = np.array(x, np.float64)
            return self.gain.data * super().forward(self._x)

        def backward(self, dy):
            self.gain.accumulate(np.sum(dy * self._noise * self._x))
            return self.gain.data * super().backward(dy)

    x = normal(3, 2)
    assert check_gradients(
        Elementwise(lambda x: np.float64(2) * x, lambda x: np.full(x.shape, 2.0)), x
    )
    assert check_gradients(Noisy(), x)
    with pytest.raises(ModuleContractError, match="float32"):
        check_gradients(Noisy().eval(), x)


def test_a_dy_that_broadcasts_may_count_as_what_it_broadcasts_to():
    class Shift(Gain):  # by NumPy alone, and right
        def backward(self, dy):
            dy = np.broadcast_to(dy, self._x.shape)
            return super().backward(dy)

    assert check_gradients(Shift(2), normal(3, 2))
    assert check_gradients(Elementwise(np.sin, np.cos), normal(3, 2))


def test_a_layer_that_assigns_its_gradient_keeps_its_own_copies():
    run = ModuleRun(LAYERS["gradient set, not added"].make(2, None), [normal(3, 2)], normal(3, 2))
    with pytest.raises(ModuleContractError, match="accumulates"):
        ask(run, MODULE_RULES)
    ask(run, {"own-copies": LATER_RULES["own-copies"]})


def test_a_rule_that_is_broken_after_the_gradients_says_that_those_are_right():
    notes = {}
    for name in ("x kept without a copy", "rows mixed"):
        with pytest.raises(ModuleContractError) as caught:
            LAYERS[name].check(normal(3, 2), np.random.default_rng(0))
        notes[name] = getattr(caught.value, "__notes__", [])
    assert notes == {"x kept without a copy": [GRADIENTS_ARE_RIGHT], "rows mixed": []}


def test_a_loss_is_compared_with_a_reference():
    pred, target = normal(3, 2), normal(3, 2, seed=1)
    assert check_loss_gradients(
        MSELoss(), pred, target, reference=lambda y, t: np.mean((y - t) ** 2)
    )
    with pytest.raises(ModuleContractError, match=r"as of the reference, .* \[rule: values\]"):
        check_loss_gradients(MSELoss(), pred, target, reference=lambda y, t: np.sum((y - t) ** 2))


def test_a_loss_that_is_wrong_for_many_rows_is_caught_by_a_grade():
    make = CHECKLIST_LOSSES["wrong for more than 16 rows"].make
    assert grade_loss(make).rules("failed") == ["gradients"]


class LargestError:
    """The largest of |pred - target|."""

    def __call__(self, pred, target):
        self._error = np.array(pred - of_shape(target, pred.shape))
        return float(np.max(np.abs(self._error)))

    def backward(self):
        size = np.abs(self._error)
        largest = size == size.max()
        return np.sign(self._error) * largest / int(largest.sum())


def test_a_loss_of_the_worst_row_alone_is_right():
    for seed in range(20):
        pred, target = normal(4, 3, seed=seed), normal(4, 3, seed=seed + 100)
        assert check_loss_gradients(LargestError(), pred, target)


@pytest.mark.parametrize("rule", ["in-place", "keeps-gradients"])
def test_an_optimizer_is_watched_in_each_of_its_steps(rule):
    class LateMistake(SGD):
        steps = 0

        def step(self):
            super().step()
            self.steps += 1
            for p in self.params if self.steps == 3 else ():
                if rule == "in-place":
                    p._data = p.data.copy()
                else:
                    p.zero_grad()

    assert rule in grade_optimizer(lambda params: LateMistake(params, lr=0.1)).rules("failed")


def test_errors_of_the_users_own_pass_as_they_are():
    class Breaks(Gain):
        def backward(self, dy):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        check_gradients(Breaks(2), normal(3, 2))


def test_a_small_slope_that_float32_takes_for_0_is_no_mistake():
    weights = [
        [-0.3272027, -0.7526335, 1.1260755],
        [1.1103227, 0.7811746, 0.8275258],
        [1.1591031, -0.4032385, 1.1810422],
    ]
    x = [[0.1257302, -0.1321049, 0.6404227], [0.1049001, -0.5356694, 0.3615951]]
    x += [[1.3040000, 0.9470809, -0.7037352], [-1.2654215, -0.6232745, 0.0413260]]
    layer = nn.Linear(3, 3, bias=False, init=lambda shape, rng: np.array(weights))
    model = nn.Sequential(layer, Elementwise(*ELEMENTWISE["steep tanh"]))
    ask(ModuleRun(model, [np.array(x)], np.ones((4, 3))), {"float32": LATER_RULES["float32"]})
