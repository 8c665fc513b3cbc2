"""Each rule of the contract, by the text of its refusal."""

import re

import pytest
from faults import LAYERS, LOSSES
from test_faults import example

from tinygrad_mnist.testing import (
    ModuleContractError,
    check_gradients,
    check_loss_gradients,
    contracts,
)

TEXTS = {
    "x edited in place": "InPlace: expected forward to leave x alone, got it modified",
    "Dropout: edits dy in place": (
        "BrokenDropout: expected backward to leave dy alone, got it modified"
    ),
    "weights moved by forward": "Moves: expected forward to leave weight alone, got it moved",
    "noise from a closure": (
        "ClosureNoise: expected the same y from the same x and the same draws, got another; a "
        "random layer keeps its np.random.Generator as an attribute (self.rng) and draws from "
        "nothing else"
    ),
    "y in float32": "BrokenReLU: expected y in float64, as the module, got float32",
    "dx in float32": (
        "BrokenReLU: expected the gradient of x in float64, as the module, got float32"
    ),
    "dx None": "BrokenReLU: expected dx of shape (3, 2), got None",
    "dx flat": "BrokenReLU: expected dx of shape (3, 2), got (1, 6, 1)",
    "order of memory": (
        "Order: expected a Fortran-ordered x and dy to change nothing, got another value of y"
    ),
    "gradient overwritten": (
        "Sets: expected a second backward to add the same again, got another value of the gradient "
        "of gain"
    ),
    "backward squares dy": (
        "BrokenReLU: expected backward(-3 dy) to be -3 backward(dy), got another value of the "
        "gradient of x"
    ),
    "rows mixed": (
        "BatchMean: expected sample 0 alone to give what its row gives (rows_independent=False is "
        "for layers that mix rows), got another value of y"
    ),
    "the first input remembered for good": (
        "Stale: expected rows in another order to give the same, got another value of the gradient "
        "of gain"
    ),
    "noise in evaluation": "BrokenReLU: expected the same y twice in evaluation mode, got another",
    "Dropout: draws in evaluation": (
        "BrokenDropout: expected no draws in evaluation mode, got some"
    ),
}

LOSS_TEXTS = {
    "pred edited": "EditsPred: expected pred and target to be left alone, got one modified",
    "broadcast (N, 1) - (N,)": ("Broadcasts: expected dL/dpred of shape (3, 1), got (3, 3)"),
}


def refusal(rule, text):
    return pytest.raises(ModuleContractError, match="^" + re.escape(f"{text} [rule: {rule}]") + "$")


@pytest.mark.parametrize("name", TEXTS)
def test_a_broken_rule_is_named_in_words(name):
    for seed in range(100):
        x, rng = example(seed)
        layer = LAYERS[name].make(x.shape[1], rng)
        if x.shape == (3, 2):
            with refusal(LAYERS[name].rule, TEXTS[name]):
                check_gradients(layer, x)
            return
    raise AssertionError("no example of this shape")


@pytest.mark.parametrize("name", LOSS_TEXTS)
def test_a_broken_rule_of_a_loss_is_named_in_words(name):
    x, rng = example(0, rows=3)
    x = x[:, :1]
    with refusal(LOSSES[name].rule, LOSS_TEXTS[name]):
        check_loss_gradients(LOSSES[name].make(), x, rng.standard_normal(x.shape))


def test_a_layer_that_takes_no_single_sample_is_told_what_it_was_asked():
    class RowsOnly(LAYERS["rows mixed"].make(2, None).__class__):
        def forward(self, x):
            rows, _ = x.shape
            return super().forward(x) * rows

    x, _ = example(3, rows=3)
    with pytest.raises(ModuleContractError, match="got ValueError: not enough values to unpack"):
        check_gradients(RowsOnly(), x)


def test_every_rule_that_a_fault_breaks_is_in_the_table():
    rules = {fault.rule for fault in [*LAYERS.values(), *LOSSES.values()] if fault.rule}
    listed = set(re.findall(r"^([a-z-]+)  ", contracts.__doc__, re.M))
    assert rules <= listed
    assert listed == {
        *("keeps-input", "keeps-dy", "keeps-parameters", "reproducible", "dtype", "shape"),
        *("layout", "adds", "linear", "rows-independent", "eval-deterministic"),
    }


def test_contracts_can_be_left_out():
    x, rng = example(3, rows=3)
    layer = LAYERS["rows mixed"].make(x.shape[1], rng)
    with pytest.raises(ModuleContractError):
        check_gradients(layer, x)
    assert check_gradients(layer, x, contracts=False)
