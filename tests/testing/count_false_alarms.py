"""Count what the checker says of right code: python tests/testing/count_false_alarms.py.

Random MLPs with dropout, layers of a user, and losses, at generic inputs, inputs with a few
special values, and inputs whose every float the engine draws (mostly zeros and ties: the worst).
An alarm on any of them is false. "Inconclusive" is no alarm: the checker says that it cannot tell.
"""

import argparse
import sys
import time
from collections import Counter

import hypothesis
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layers import ELEMENTWISE, CrossEntropy, Elementwise, Largest, Product

from tinygrad_mnist import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    MSELoss,
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
from tinygrad_mnist.testing.strategies import batches, mlps, seeds, spiked

ENGINE_DRAWN = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-10, 10)
)
INPUTS = {"generic": batches(), "spiked": spiked(), "engine-drawn": ENGINE_DRAWN}


SUBJECTS = ["mlp", "model", "after an mlp", "batch norm", "images", "product", "loss", "labels"]
SUBJECTS += ["kinked"]
KINKED = [
    nn.ReLU,
    nn.LeakyReLU,
    lambda: Elementwise(*ELEMENTWISE["absolute"]),
    lambda: Elementwise(*ELEMENTWISE["hard tanh"]),
    Largest,
]


def after_an_mlp(features):
    """Return a layer of each kind for x (..., features)."""
    own = [Elementwise(*pair) for pair in ELEMENTWISE.values()]
    activations = [nn.LeakyReLU(), nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.SiLU(), nn.Softmax()]
    branches = [nn.Residual(nn.Tanh()), nn.Parallel(nn.Tanh(), nn.GELU())]
    return [*own, *activations, nn.LayerNorm(features), *branches]


def convolutional(draw, rng):
    """Return a random net of images (7, 7, 2)."""
    kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    pool = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))(2, stride=draw(st.integers(1, 2)))
    conv = nn.Conv2d(2, 3, kernel, stride=stride, padding=draw(st.integers(0, 1)), rng=rng)
    return Sequential(conv, draw(st.sampled_from([nn.ReLU, nn.SiLU]))(), pool, nn.Flatten())


def kinked(draw, rng, features):
    """Return a random net of kinked layers, with a straight path or two branches."""

    def chain(features, out_features):
        layers = []
        for _ in range(draw(st.integers(1, 3))):
            layer = draw(st.sampled_from(KINKED))()
            hidden = draw(st.integers(1, 5))
            layers.append(nn.Linear(features, hidden, draw(st.booleans()), rng=rng))
            layers.append(layer)
            features = 1 if isinstance(layer, Largest) else hidden
        return Sequential(*layers, nn.Linear(features, out_features, rng=rng))

    net = chain(features, features)
    kinds = [net, nn.Residual(net), nn.Parallel(net, chain(features, features), join="add")]
    return Sequential(draw(st.sampled_from(kinds)), draw(st.sampled_from(KINKED))())


def check_one(data, x, rng, seed):
    """Check one random right thing; raises what the checker says of it."""
    subject = data.draw(st.sampled_from(SUBJECTS))
    target = rng.standard_normal(x.shape)
    if subject == "mlp":
        check_gradients(data.draw(mlps(in_features=x.shape[1])), x, seed=seed)
    elif subject == "model":
        model = data.draw(mlps(in_features=x.shape[1], out_features=x.shape[1]))
        check_model_gradients(model, MSELoss("batchmean"), x, target, seed=seed)
    elif subject == "after an mlp":
        first = data.draw(mlps(in_features=x.shape[1]))
        layer = data.draw(st.sampled_from(after_an_mlp(first[-1].out_features)))
        check_gradients(Sequential(first, layer), x, seed=seed)
    elif subject == "batch norm":
        rows, layer = np.concatenate([x, target]), nn.BatchNorm(x.shape[1]).train(bool(seed % 2))
        check_gradients(layer, rows, rows_independent=False, forms=("batch",), seed=seed)
    elif subject == "images":
        images = np.resize(x, (2, 7, 7, 2)) + 1e-3 * rng.standard_normal((2, 7, 7, 2))
        check_gradients(convolutional(data.draw, rng), images, max_entries=16, seed=seed)
    elif subject == "kinked":
        net = kinked(data.draw, rng, x.shape[1]).astype(np.float64)
        check_gradients(net, np.round(x), seed=seed)
    elif subject == "product":
        check_gradients(Product(x.shape[1]), (x, target), seed=seed)
    elif subject == "loss":
        losses = [MSELoss(r) for r in ("mean", "sum", "batchmean")]
        losses += [HuberLoss(0.5), BCEWithLogitsLoss("sum")]
        loss = data.draw(st.sampled_from(losses))
        target = rng.random(x.shape) if isinstance(loss, BCEWithLogitsLoss) else target
        check_loss_gradients(loss, x, target, seed=seed)
    elif x.shape[1] > 1:
        losses = [CrossEntropy(), CrossEntropyLoss(), CrossEntropyLoss("sum", label_smoothing=0.1)]
        labels = rng.integers(0, x.shape[1], len(x))
        check_loss_gradients(data.draw(st.sampled_from(losses)), x, labels, seed=seed)


def count(inputs, cases):
    """Return how many of the cases passed, were inconclusive, or raised a false alarm."""
    outcomes, alarms = Counter(), []

    @hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(data=st.data(), x=INPUTS[inputs], seed=seeds())
    def run(data, x, seed):
        try:
            check_one(data, x, np.random.default_rng(seed), seed)
            outcomes["passed"] += 1
        except InconclusiveGradientCheck:
            outcomes["inconclusive"] += 1
        except (GradientCheckError, ModuleContractError) as alarm:
            outcomes["false alarms"] += 1
            alarms.append(f"seed {seed}, x = {x.tolist()}\n{alarm}")

    run()
    return outcomes, alarms


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--cases", type=int, default=10_000, help="of each kind of input")
args = parser.parse_args()
total = 0
for inputs in INPUTS:
    start = time.perf_counter()
    outcomes, alarms = count(inputs, args.cases)
    seconds = time.perf_counter() - start
    print(
        f"{inputs:12}  {outcomes.total():6} cases  {outcomes['passed']:6} passed  "
        f"{outcomes['inconclusive']:5} inconclusive  {outcomes['false alarms']:3} false alarms  "
        f"{seconds:.0f} s",
        *alarms[:3],
        sep="\n",
    )
    total += len(alarms)
sys.exit(total > 0)
