"""A training chosen part by part, the mistakes in it, and what the checking kit says of each."""

from dataclasses import fields, replace

import numpy as np
import pytest
from helpers import refusal

from tinygrad_mnist import SGD
from tinygrad_mnist.page.faults import FAULTS, setups, source_of, verdict
from tinygrad_mnist.page.setups import CHOICES, setup_of
from tinygrad_mnist.testing import ModuleContractError, check_loss_gradients, grade_optimizer
from tinygrad_mnist.training import fit

OTHERS = [  # choices that have no value in common with the defaults, nor with each other
    {"layers": "conv 8, 64-10", "activation": "Tanh", "loss": "MSELoss", "dropout": 0.2},
    {"layers": "784-100-100-10", "activation": "GELU", "optimizer": "Adam", "dropout": 0.5},
]
SEEN = {  # the mistakes in a layer or a loss, and a word of what the kit says of each
    "ReLU takes its slope from its output": "numeric = 0",
    "Dropout scales forward, not backward": "its 1 / (1 - p) is missing in backward",
    "the loss is a square, its gradient that of half a square": "analytic = 0.5 x numeric",
    "Dropout edits dy and forgets the mask": "[rule: keeps-dy]",
    "a tied layer has one cache": "f is called twice",
    "Linear sets its gradient, does not add": "[rule: accumulates]",
    "dx misses a transpose": "MissingTranspose: x[",
    "the gradient of the bias is a mean": "1 over the batch size 4",
    "the loss is a mean, its gradient that of the sum": "a mean forward, a sum backward",
    "the gradient is t - y": "the sign is wrong",
}


def digits(n, side=6):
    """Return images without a meaning, and one-hot targets."""
    rng = np.random.default_rng(0)
    x = rng.random((n, side, side, 1), dtype=np.float32)
    return x, np.eye(10, dtype=np.float32)[rng.integers(10, size=n)]


def trained(setup):
    """Return every parameter after an epoch of the small network, and what is measured."""
    setup, (x, t) = setup.small(), digits(60)
    model, loss, optimizer = setup.build()
    for x_batch, t_batch in setup.batches(x[:40], t[:40], np.random.default_rng(1)):
        setup.step(model, loss, optimizer, x_batch, t_batch)
    numbers = np.concatenate([p.data.ravel() for p in model.parameters()])
    return numbers, setup.evaluate(model, (x[:40], t[:40]), (x[40:], t[40:]))


# The training that is chosen


@pytest.mark.parametrize(
    ("layers", "shapes"),
    [
        ("784-30-10", [(784, 30), (30,), (30, 10), (10,)]),
        ("784-100-100-10", [(784, 100), (100,), (100, 100), (100,), (100, 10), (10,)]),
        ("conv 8, 64-10", [(5, 5, 1, 8), (8,), (1152, 64), (64,), (64, 10), (10,)]),
    ],
)
def test_the_model_has_the_layers_that_its_name_says(layers, shapes):
    model, _, _ = setup_of({"layers": layers}).build()
    assert [p.data.shape for p in model.parameters()] == shapes


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_takes_a_step_that_lowers_the_loss_of_its_batch(name):
    for value in CHOICES[name]:
        setup = replace(setup_of({name: value}), lr=0.001)
        ((x, t),) = setup.batches(*digits(5, side=28), np.random.default_rng(1))
        model, loss, optimizer = setup.build()
        model.eval()  # no masks: they would change the loss, too
        assert setup.step(model, loss, optimizer, x, t) > loss(model(x), t)


def test_the_choices_are_what_the_parts_say():
    choices = {"activation": "SiLU", "dropout": 0.2, "loss": "MSELoss", "optimizer": "momentum"}
    model, loss, optimizer = setup_of({**choices, "lr": 0.03}).build()
    assert [repr(layer) for layer in model[2:4]] == ["SiLU()", "Dropout(p=0.2)"]
    assert repr(loss) == "MSELoss(reduction='batchmean')"
    assert repr(optimizer).startswith("SGD(4 parameters, lr=0.03, momentum=0.9,")
    batches = setup_of({"batch_size": 5}).batches(*digits(10), np.random.default_rng(0))
    assert [len(x) for x, _ in batches] == [5, 5]


def test_a_step_is_that_of_a_plain_loop():
    setup = setup_of({}).small()
    (x, t), (model, loss, optimizer) = digits(7), setup.build()
    W, b, V, c = (p.data.astype(float) for p in model.parameters())
    value = setup.step(model, loss, optimizer, x, t)
    dW, db, dV, dc, total = np.zeros((36, 5)), np.zeros(5), np.zeros((5, 10)), np.zeros(10), 0
    for image, target in zip(x.reshape(7, 36), t, strict=True):
        z = image @ W + b
        h = np.maximum(z, 0)
        e = np.exp(h @ V + c)
        p = e / e.sum()
        total -= np.log(p @ target)
        dy = (p - target) / 7
        dz = (z > 0) * (V @ dy)
        dW, db, dV, dc = dW + np.outer(image, dz), db + dz, dV + np.outer(h, dy), dc + dy
    assert value == pytest.approx(total / 7, rel=1e-5)
    wanted = W - 0.1 * dW, b - 0.1 * db, V - 0.1 * dV, c - 0.1 * dc
    for parameter, array in zip(model.parameters(), wanted, strict=True):
        np.testing.assert_allclose(parameter.data, array, atol=1e-6)


def test_an_epoch_has_each_image_once_with_its_target():
    x, t = digits(30)
    batches = list(setup_of({}).batches(x, t, np.random.default_rng(0)))
    pairs = {(i.tobytes(), j.tobytes()) for batch in batches for i, j in zip(*batch, strict=True)}
    assert pairs == {(i.tobytes(), j.tobytes()) for i, j in zip(x, t, strict=True)}
    assert not np.array_equal(batches[0][0], x[:20])


def test_a_shifted_image_has_its_ink_elsewhere():
    x, t = np.zeros((20, 28, 28, 1), np.float32), digits(20)[1]
    x[:, 9, 9] = 1
    ((moved, _),) = setup_of({"augmentation": "shift 1"}).batches(x, t, np.random.default_rng(0))
    _, rows, columns, _ = moved.nonzero()
    assert {*rows} == {*columns} == {8, 9, 10}


def test_the_accuracy_is_the_fraction_of_test_images_that_are_read_right():
    setup, (x, t) = setup_of({"dropout": 0.5}).small(), digits(50)
    model, _, _ = setup.build()
    right = sum(y.argmax() == target.argmax() for y, target in zip(model.eval()(x), t, strict=True))
    assert 0 < right < 50
    assert setup.evaluate(model.train(), None, (x, t)) == right / 50
    assert model.training


# The mistakes


@pytest.mark.parametrize("name", FAULTS)
def test_a_mistake_is_one_part_and_changes_what_is_learned_or_measured(name):
    for choices in ({}, OTHERS[0]):
        right, broken = setups(choices, name)
        parts = [f.name for f in fields(right)]
        assert [p for p in parts if getattr(right, p) != getattr(broken, p)] == [FAULTS[name].part]
        (learned, measured), (wrong, called) = trained(right), trained(broken)
        same = np.array_equal(learned, wrong) and measured == called
        assert same == (name == "Linear sets its gradient, does not add")
    assert "# wrong" in source_of(name)


def test_small_steps_go_along_the_gradients_of_the_scores_of_one_forward():
    setup, (x, t) = setups({}, "many small steps after one forward")[1].small(), digits(8)
    learned, loss, optimizer = setup.build()
    setup.step(learned, loss, optimizer, x, t)
    model, loss, _ = setup.build()
    loss(model(x), t)
    dy = loss.backward() / 8
    for _ in range(8):
        model.zero_grad()
        model.backward(dy)
        for p in model.parameters():
            p.data -= 0.1 * p.grad
    for p, wanted in zip(learned.parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(p.data, wanted.data, atol=1e-6)


def test_tied_layers_have_one_weight_with_the_mistake_and_without():
    models = [setup.build()[0] for setup in setups({}, "a tied layer has one cache")]
    assert [len(list(model.parameters())) for model in models] == [6, 6]
    x, _ = digits(3, side=28)
    np.testing.assert_array_equal(*(model(x) for model in models))


@pytest.mark.parametrize("name", FAULTS)
def test_the_kit_says_the_same_of_a_mistake_whatever_else_is_chosen(name):
    if FAULTS[name].part in ("step", "optimizer", "data", "evaluate"):  # the kit is not asked
        assert FAULTS[name].why
        return
    for choices in ({}, OTHERS[len(name) % 2]):
        told = verdict(setups(choices, name)[1], name)
        if name in SEEN:
            assert told.startswith("wrong: ")
            assert SEEN[name] in told
        else:
            assert told == f"cannot see: the gradients are right. {FAULTS[name].why}"


def test_nothing_is_wrong_without_a_mistake():
    (right,) = setups({})
    assert verdict(right) == (
        "right: Flatten, Linear, ReLU, CrossEntropyLoss, and Sequential with CrossEntropyLoss: "
        "none of 540 gradients disagree with central differences"
    )
    assert source_of("none") == ""


def broken(name, choices=()):
    """Return a small training with this mistake, and its model, loss and optimizer."""
    setup = setups(dict(choices), name)[1].small()
    return setup, *setup.build()


def test_what_the_kit_cannot_see_is_seen_as_the_page_says():
    x, t = digits(20)
    setup, model, loss, optimizer = broken("gradients are zeroed after backward")
    before = [p.data.copy() for p in model.parameters()]
    setup.step(model, loss, optimizer, x, t)
    assert all(map(np.array_equal, before, (p.data for p in model.parameters())))

    setup, model, loss, optimizer = broken("all weights start equal")
    for _ in range(3):
        setup.step(model, loss, optimizer, x, t)
    assert np.ptp(model[1].weight.data, axis=1).max() < 1e-8 < np.ptp(model[1].weight.data)

    setup, model, *_ = broken("Dropout stays on in the test")
    assert len({setup.evaluate(model, (x, t), (x, t)) for _ in range(9)}) > 1

    setup, *_ = broken("momentum with the wrong sign")
    grade = grade_optimizer(
        lambda params: setup.optimizer(params, 0.1),
        reference=lambda params: SGD(params, lr=0.1, momentum=0.9),
    )
    assert grade.score < 1

    _, model, loss, optimizer = broken("softmax before CrossEntropyLoss")
    with refusal(
        ValueError, "fit: expected logits for CrossEntropyLoss, got a last layer Softmax()"
    ):
        fit(model, loss, optimizer, setup.batches(x, t, np.random.default_rng(0)), epochs=1)

    setup, _, loss, _ = broken("(N, 10) against (N, 1, 10)")
    pred = np.random.default_rng(0).standard_normal((20, 10))
    with pytest.raises(ModuleContractError, match="rule: values"):
        check_loss_gradients(loss, pred, t, reference=lambda y, t: ((y - t) ** 2).sum() / len(y))
    with pytest.raises(ValueError, match="MSELoss: expected target of shape"):
        setups({"loss": "MSELoss"})[0].loss()(pred, t[:, None])
