"""Every planted fault is caught, and no right module ever is."""

import numpy as np
import pytest
from faults import LAYERS, LOSSES
from layers import (
    ELEMENTWISE,
    AbsoluteError,
    BatchMean,
    CrossEntropy,
    Elementwise,
    Gain,
    GlobalNoise,
    Largest,
    example,
    normal,
)

from tinygrad_mnist import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    Dropout,
    HuberLoss,
    Linear,
    MSELoss,
    ReLU,
    Sequential,
    nn,
)
from tinygrad_mnist.testing import (
    GradientCheckError,
    InconclusiveGradientCheck,
    ModuleContractError,
    check_gradients,
    check_loss_gradients,
    check_model_gradients,
)

pytestmark = pytest.mark.slow
EXAMPLES = 100


def first_error(check):
    """Return the first error among the examples, of which some may be too little to judge."""
    for seed in range(EXAMPLES):
        if len(example(seed)[0]) == 1:
            continue  # it tells no mean from a sum, until a rule asks for many rows
        try:
            check(seed)
        except InconclusiveGradientCheck:
            continue
        except (GradientCheckError, ModuleContractError) as error:
            return error
    return None


def test_there_are_fifty_faults_and_more():
    assert len(LAYERS) + len(LOSSES) >= 50


@pytest.mark.parametrize("name", LAYERS)
def test_a_faulty_layer_is_caught(name):
    def check(seed):
        LAYERS[name].check(*example(seed), seed=seed)

    error = first_error(check)
    if LAYERS[name].rule:
        assert isinstance(error, ModuleContractError)
        assert error.rule == LAYERS[name].rule
    else:
        assert isinstance(error, GradientCheckError)
        named = {mismatch.name for mismatch in error.report.mismatches}
        assert named <= LAYERS[name].arrays
        assert named


@pytest.mark.parametrize(
    ("name", "array", "index"),
    [
        ("dW one entry", "weight", (0, 1)),
        ("db one entry", "bias", (2,)),
        ("dx one entry", "x", (0, 0)),
    ],
)
def test_the_report_names_the_entry_that_is_wrong(name, array, index):
    rng = np.random.default_rng(0)
    report = LAYERS[name].check(normal(3, 2), rng, contracts=False, raise_on_failure=False)
    (mismatch,) = report.mismatches
    assert (mismatch.name, mismatch.index, mismatch.analytic) == (array, index, 0)


@pytest.mark.parametrize("name", LOSSES)
def test_a_faulty_loss_is_caught(name):
    def check(seed):
        pred, target = LOSSES[name].inputs(*example(seed))
        check_loss_gradients(LOSSES[name].make(), pred, target, seed=seed)

    error = first_error(check)
    if LOSSES[name].rule:
        assert isinstance(error, ModuleContractError)
        assert error.rule == LOSSES[name].rule
    else:
        assert isinstance(error, GradientCheckError)
        assert {m.name for m in error.report.mismatches} == {"pred"}


RIGHT = {
    "Linear": lambda features, rng: Linear(features, 3, rng=rng),
    "Linear-data": lambda features, rng: Linear(features, 3, rng=rng, input_grad=False),
    "ReLU": lambda features, rng: ReLU(),
    "Dropout": lambda features, rng: Dropout(0.25, rng=rng),
    "Dropout-global": lambda features, rng: GlobalNoise(),
    "Dropout-eval": lambda features, rng: Dropout(0.9, rng=rng).eval(),
    "empty": lambda features, rng: Sequential(),
    "MLP": lambda features, rng: Sequential(
        Linear(features, 4, rng=rng), ReLU(), Dropout(0.5, rng=rng), Linear(4, 2, rng=rng)
    ),
    # a dead input row meets zero biases: every hidden unit sits exactly on its kink
    "MLP on its kinks": lambda features, rng: Sequential(
        Linear(features, 4, rng=rng), ReLU(), Linear(4, 4, rng=rng), ReLU(), Linear(4, 2, rng=rng)
    ),
    "gain": lambda features, rng: Gain(features),
    "largest": lambda features, rng: Largest(),
    "saturated": lambda features, rng: Sequential(
        Elementwise(lambda x: 50 * x, lambda x: np.full_like(x, 50)),
        Elementwise(*ELEMENTWISE["sigmoid"]),
        Linear(features, 2, rng=rng),
    ),
    "images": lambda features, rng: Sequential(
        nn.Unflatten((features, 1, 1)),
        nn.Conv2d(1, 3, (2, 1), padding="same", rng=rng),
        nn.MaxPool2d(1),
        nn.AvgPool2d((features, 1)),
        nn.Flatten(),
    ),
    "largest of a row of pixels": lambda features, rng: Sequential(
        nn.Unflatten((1, features, 1)), nn.MaxPool2d((1, min(2, features)), stride=1), nn.Flatten(2)
    ),
    "LeakyReLU": lambda features, rng: nn.LeakyReLU(0.1),
    "SiLU": lambda features, rng: nn.SiLU(),
    "GELU": lambda features, rng: nn.GELU(),
    "Softmax": lambda features, rng: nn.Softmax(),
    "LayerNorm": lambda features, rng: nn.LayerNorm(features),
    "BatchNorm-eval": lambda features, rng: nn.BatchNorm(features).eval(),
    "Residual": lambda features, rng: nn.Residual(nn.Tanh(), Linear(features, features, rng=rng)),
    "Parallel": lambda features, rng: nn.Parallel(nn.Sigmoid(), Linear(features, 2, rng=rng)),
    **{
        name: lambda features, rng, pair=pair: Elementwise(*pair)
        for name, pair in ELEMENTWISE.items()
        if name != "relu(x) - relu(-x)"  # smooth at 0, where it answers 0
    },
}

INPUTS = {
    "generic": lambda x, rng: x,
    "zeros": lambda x, rng: 0 * x,
    "a zero row": lambda x, rng: x * (np.arange(len(x)) > 0)[:, None],
    "ties": lambda x, rng: np.round(x),
    "huge": lambda x, rng: 1e3 * x,
    "tiny": lambda x, rng: 1e-9 * x,
    "one row": lambda x, rng: x[:1],
    "no rows": lambda x, rng: x[:0],
    "one sample": lambda x, rng: x[0],
    "one feature": lambda x, rng: x[:, :1],
    "single precision": lambda x, rng: x.astype(np.float32),
}


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_module_never_fails(name, inputs):
    judged = 0
    for seed in range(6):
        x, rng = example(seed)
        x = INPUTS[inputs](x, rng)
        try:
            check_gradients(RIGHT[name](x.shape[-1], rng), x, seed=seed)
            judged += 1
        except InconclusiveGradientCheck:
            continue
    if inputs == "generic" and name != "steep tanh":  # flat but for |x| < 0.1
        assert judged >= 4  # or the other cases would say nothing


def test_a_steep_slope_is_no_kink():
    for seed in range(20):
        x, _ = example(seed)
        report = check_gradients(Elementwise(*ELEMENTWISE["steep tanh"]), 0.003 * x)
        assert sum(array.on_kink for array in report.arrays) == 0


def test_rows_may_mix_if_the_caller_says_so():
    x, _ = example(1, rows=4)
    assert check_gradients(BatchMean(), x, rows_independent=False)


@pytest.mark.parametrize("loss", [MSELoss("mean"), MSELoss("sum"), MSELoss("batchmean")])
@pytest.mark.parametrize("same", [False, True])
def test_a_right_loss_never_fails(loss, same):
    for seed in range(20):
        x, rng = example(seed)
        target = np.zeros_like(x)
        target[...] = x if same else rng.standard_normal(x.shape)
        target[0, 0] = 0
        check_loss_gradients(loss, x, target)
        check_model_gradients(
            RIGHT["MLP on its kinks"](x.shape[1], rng), loss, x, target[:, :1] + [0, 1]
        )


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scale", [1e-6, 1, 30])
def test_a_right_loss_of_classes_and_numbers_never_fails(reduction, scale):
    settings = {"label_smoothing": 0.1, "class_weight": [1, 2, 0.5, 0]}
    judged = 0
    for seed in range(20):
        x, rng = example(seed)
        scores, labels = scale * rng.standard_normal((len(x), 4)), rng.integers(0, 3, len(x))
        for loss, pred, target in [
            (CrossEntropyLoss(reduction), scores, labels),
            (CrossEntropyLoss(reduction, **settings), scores, labels),
            (CrossEntropyLoss(reduction, **settings), scores, np.eye(4)[labels]),
            (BCEWithLogitsLoss(reduction), scale * x, rng.choice([0, 1, 0.25], x.shape)),
            (HuberLoss(0.3, reduction), scale * x, np.zeros_like(x)),
        ]:
            try:
                check_loss_gradients(loss, pred, target, seed=seed)
                judged += 1
            except InconclusiveGradientCheck:
                continue
    assert judged >= 90


def test_losses_of_a_user_never_fail():
    for seed in range(20):
        x, rng = example(seed)
        check_loss_gradients(AbsoluteError(), x, rng.standard_normal(x.shape))
        if x.shape[1] > 1:
            check_loss_gradients(CrossEntropy(), x, rng.integers(0, x.shape[1], len(x)))
