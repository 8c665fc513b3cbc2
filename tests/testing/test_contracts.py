"""Each rule of the contract, by the text of its refusal."""

import re
from pathlib import Path

import numpy as np
import pytest
from faults import LAYERS, LOSSES
from layers import BatchMean, normal

from tinygrad_mnist import MSELoss
from tinygrad_mnist.testing import (
    ModuleContractError,
    check_gradients,
    check_loss_gradients,
    check_model_gradients,
)
from tinygrad_mnist.testing.loss_rules import LOSS_RULES
from tinygrad_mnist.testing.module_rules import MODULE_RULES

MESSAGES = {
    "x edited in place": "BrokenElementwise: expected forward to leave x alone, got it modified",
    "Dropout: edits dy in place": (
        "BrokenDropout: expected backward to leave dy alone, got it modified"
    ),
    "weights moved by forward": (
        "BrokenLinear: expected forward to leave weight alone, got it moved"
    ),
    "noise from a closure": (
        "ClosureNoise: expected the same y from the same x and the same draws, got another; a "
        "random layer keeps its np.random.Generator as an attribute (self.rng) and draws from "
        "nothing else; an array that forward moves is a Buffer"
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
        "BrokenElementwise: expected sample 1 alone to give what its row gives (sample_axes says "
        "how many last axes are one sample; rows_independent=False is for layers that mix rows), "
        "got another value of y"
    ),
    "gradient set, not added": (
        "BrokenGain: expected a second backward to add the same again, got another value of "
        "the gradient of gain"
    ),
    "ReLU: dy squared": (
        "BrokenReLU: expected backward(-3 dy) to be -3 backward(dy), got another value of dx"
    ),
    "rows mixed": (
        "BrokenBatchMean: expected sample 0 alone to give what its row gives (sample_axes says how "
        "many last axes are one sample; rows_independent=False is for layers that mix rows), got "
        "another value of y"
    ),
    "first x remembered for good": (
        "BrokenGain: expected rows in another order to give the same, got another value of "
        "the gradient of gain"
    ),
    "noise in evaluation": "BrokenReLU: expected the same y twice in evaluation mode, got another",
    "Dropout: draws in evaluation": (
        "BrokenDropout: expected no draws in evaluation mode, got some"
    ),
    "BatchNorm whose backward moves the mean": (
        "BrokenBatchNorm: expected backward to leave running_mean alone, got it moved"
    ),
    "BatchNorm whose mean moves in evaluation": (
        "BrokenBatchNorm: expected no Buffer to move in evaluation mode, got running_mean moved"
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
    "pred edited": "BrokenMSELoss: expected pred and target to be left alone, got one modified",
    "broadcast (N, 1) - (N,)": ("Broadcasts: expected dL/dpred of shape (3, 1), got (3, 3)"),
}


def refusal(rule, text):
    return pytest.raises(ModuleContractError, match="^" + re.escape(f"{text} [rule: {rule}]") + "$")


@pytest.mark.parametrize("name", MESSAGES)
def test_a_broken_rule_is_named_in_words(name):
    with refusal(LAYERS[name].rule, MESSAGES[name]):
        LAYERS[name].check(normal(3, 2), np.random.default_rng(0))


@pytest.mark.parametrize("name", LOSS_MESSAGES)
def test_a_broken_rule_of_a_loss_is_named_in_words(name):
    with refusal(LOSSES[name].rule, LOSS_MESSAGES[name]):
        check_loss_gradients(LOSSES[name].make(), normal(3, 1), normal(3, 1, seed=1))


def test_a_layer_that_takes_no_single_sample_is_told_what_it_was_asked():
    class RowsOnly(BatchMean):
        def forward(self, x):
            rows, _ = x.shape
            return super().forward(x) * rows

    x = normal(3, 2)
    with pytest.raises(ModuleContractError, match="got ValueError: not enough values to unpack"):
        check_gradients(RowsOnly(), x)


def test_every_rule_that_a_fault_breaks_is_in_the_table():
    rules = {fault.rule for fault in [*LAYERS.values(), *LOSSES.values()] if fault.rule}
    page = Path(__file__).parents[2] / "docs" / "pages" / "testing.md"
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", page.read_text(), re.M))
    assert listed == {"empty", *MODULE_RULES, *LOSS_RULES}
    assert rules | {"empty"} == listed


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
