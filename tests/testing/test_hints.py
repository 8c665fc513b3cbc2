"""A failing report names the part that is wrong, at any depth, and the one that is called twice."""

import numpy as np
import pytest
from faults import LAYERS
from layers import Elementwise, Gain, Product, normal

from tinygrad_mnist import Linear, Module, MSELoss, Sequential, nn
from tinygrad_mnist.testing import check_gradients, check_model_gradients


class WrongTanh(Module):
    def forward(self, x):
        self._y = np.tanh(x)
        return self._y.copy()

    def backward(self, dy):
        return dy * (1 - self._y)


class Block(Module):
    """y = cell(x + 1), by cell.forward or by a call."""

    def __init__(self, cell, call=False):
        self.cells, self.call = {"first": [cell]}, call

    def forward(self, x):
        (cell,) = self.cells["first"]
        return cell(x + 1) if self.call else cell.forward(x + 1)

    def backward(self, dy):
        return self.cells["first"][0].backward(dy)


class Steps(Module):
    """A recurrent net that calls one cell again and again, and forgets that it keeps one call."""

    def __init__(self, cell, steps):
        self.cell, self.steps = cell, steps

    def forward(self, x):
        for _ in range(self.steps):
            x = self.cell(x)
        return x

    def backward(self, dy):
        for _ in range(self.steps):
            dy = self.cell.backward(dy)
        return dy


def hints(module, x=None):
    report = check_gradients(
        module, normal(3, 4) if x is None else x, contracts=False, raise_on_failure=False
    )
    assert not report
    return [hint for hint in report.hints if not hint.startswith("Every mismatch")]


def look_at(path, name="WrongTanh"):
    return f"Look at layer {path}, {name}: checked alone, it fails too."


@pytest.mark.parametrize(
    ("module", "path"),
    [
        (Sequential(Linear(4, 4, rng=0), nn.Residual(WrongTanh())), "1.body.0"),
        (nn.Residual(nn.Tanh(), shortcut=WrongTanh()), "shortcut"),
        (nn.Parallel(nn.Tanh(), Sequential(nn.Sigmoid(), WrongTanh())), "1.1"),
        (Block(WrongTanh()), "cells.first.0"),
        (Sequential(Block(nn.Residual(Block(WrongTanh(), call=True)))), None),
    ],
    ids=["residual", "shortcut", "parallel", "user's", "nested"],
)
def test_a_wrong_layer_is_named_by_its_path_at_any_depth(module, path):
    assert hints(module) == [look_at(path or "0.cells.first.0.body.0.cells.first.0")]


def test_a_container_that_is_wrong_itself_is_named_and_its_parts_are_not():
    class Forgets(nn.Residual):
        def backward(self, dy):
            return self.body.backward(dy)

    module = Sequential(Linear(4, 4, rng=0), Forgets(nn.Tanh(), Linear(4, 4, rng=1)))
    assert hints(module) == [look_at("1", "Forgets")]


def test_two_wrong_parts_are_named_in_the_order_in_which_they_are_called():
    module = Sequential(nn.Residual(WrongTanh()), Linear(4, 4, rng=0), WrongTanh())
    assert hints(module) == [look_at("0.body.0"), look_at("2")]


@pytest.mark.parametrize(("steps", "often"), [(2, "twice"), (3, "3 times")])
def test_a_part_that_is_called_again_in_one_forward_is_named_and_not_what_is_inside(steps, often):
    module = Steps(Sequential(Linear(4, 4, rng=0), nn.Tanh()), steps)
    text = (
        f"cell is called {often} in one forward, but remembers only the last call: make one layer "
        "for each call."
    )
    assert hints(module) == [text]
    assert hints(Sequential(nn.Tanh(), module)) == [f"1.{text}", look_at("1", "Steps")]


def test_a_module_that_has_no_parts_gets_no_hint_of_them():
    assert hints(WrongTanh()) == []


def test_parts_are_asked_on_the_inputs_that_they_have_in_the_whole():
    # right where x > 0, as in the whole
    layer = Elementwise(np.abs, lambda x: np.where(x > 0, 1, 7))
    assert hints(Sequential(nn.Sigmoid(), layer, WrongTanh())) == [look_at("2")]
    inputs = normal(3, 4), normal(3, 4, seed=1)
    module = Sequential(Product(4), nn.Residual(WrongTanh()))
    assert hints(module, inputs) == [look_at("1.body.0")]


def test_a_part_in_other_memory_order_is_asked_all_the_same():
    class Transposed(Module):
        def __init__(self):
            self.inner = WrongTanh()

        def forward(self, x):
            return self.inner(np.asfortranarray(x))

        def backward(self, dy):
            return self.inner.backward(dy)

    assert hints(Transposed()) == [look_at("inner")]


def test_a_part_that_does_not_run_alone_is_no_suspect():
    class Scaled(Gain):
        def forward(self, x, *, by):
            return super().forward(x * by)

    class Whole(Module):
        def __init__(self):
            self.scaled = Scaled(4)

        def forward(self, x):
            return self.scaled.forward(x, by=2.0)

        def backward(self, dy):
            return self.scaled.backward(dy)  # 2 is missing

    assert hints(Whole()) == []


def test_the_hints_change_nothing_of_the_callers_module():
    module = Sequential(nn.Residual(WrongTanh()))
    hints(module)
    assert all("forward" not in vars(part) for part in module.modules())


def test_a_model_and_its_loss_get_the_same_hints():
    report = check_model_gradients(
        Sequential(nn.Residual(WrongTanh())),
        MSELoss(),
        normal(3, 4),
        normal(3, 4, seed=1),
        raise_on_failure=False,
    )
    assert report.hints == [look_at("0.body.0")]


def test_a_chain_names_a_faulty_layer_as_before():
    module = Sequential(Linear(4, 5, rng=0), Sequential(LAYERS["dx sign"].make(5, 0)))
    assert hints(module)[-1] == look_at("1.0", "BrokenLinear")


def test_a_right_part_that_is_given_float32_is_no_suspect():
    class Halves(Module):
        def __init__(self):
            self.inner = nn.Tanh()

        def forward(self, x):
            return self.inner(np.float32(x)).astype(np.float64)

        def backward(self, dy):
            return 2 * self.inner.backward(dy).astype(np.float64)

    module = Sequential(Linear(4, 4, rng=0), Halves(), WrongTanh())
    assert look_at("1.inner", "Tanh") not in hints(module)


def test_a_report_shows_itself_in_a_terminal_and_in_a_notebook():
    model = Sequential(Linear(4, 2, rng=0), WrongTanh())
    report = check_gradients(model, normal(3, 4), contracts=False, raise_on_failure=False)
    report.subject, report.hints = "<i>", ["1 < 2"]
    assert repr(report) == str(report)
    html = report._repr_html_()
    assert "<p>&lt;i&gt;: 3 of 3 gradients disagree with central differences (seed 0)</p>" in html
    assert [name in html for name in (">x</td>", ">0.weight</td>", ">0.bias</td>")] == [True] * 3
    assert html.count("wrong: ") >= 3
    assert html.endswith("<br>1 &lt; 2</p>")
