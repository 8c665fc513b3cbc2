"""Parameter, and what Module does for every layer."""

import re

import numpy as np
import pytest
from cases import Scale
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import SGD, Linear, Module, Parameter, ReLU, Sequential


def refusal(error, text):
    return pytest.raises(error, match="^" + re.escape(text) + "$")


class Holder(Module):
    """Holds whatever it is given; computes nothing."""

    def __init__(self, **members):
        vars(self).update(members)

    def forward(self, x):
        return x

    def backward(self, dy):
        return dy


def test_a_parameter_copies_its_data_and_keeps_its_identity():
    values = np.ones((2, 3), np.float32)
    p = Parameter(values)
    data = p.data
    p.data -= 1
    p.data = np.full((2, 3), 7)
    assert p.data is data
    np.testing.assert_array_equal(data, np.full((2, 3), 7))
    np.testing.assert_array_equal(values, np.ones((2, 3)))


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (0.5, np.float32),
        ([1, 2], np.float32),
        (np.arange(3), np.float32),
        (np.zeros(2, np.float16), np.float32),
        (np.zeros(2, ">f8"), np.float64),
        (np.zeros(2, np.longdouble), np.float64),
        (np.float64(1), np.float64),
    ],
)
def test_a_parameter_is_float32_unless_given_float64(data, dtype):
    p = Parameter(data)
    assert p.data.dtype == p.grad.dtype == dtype
    assert p.data.dtype.isnative


def test_a_gradient_has_the_dtype_of_the_parameter_whatever_was_handed_over():
    p = Parameter([1.0, 2.0])
    p.accumulate(np.ones(2))
    assert p.grad.dtype == np.float32
    p.grad = np.ones(2)
    assert p.grad.dtype == np.float32


def test_a_parameter_made_of_a_fortran_ordered_array_can_be_stepped():
    p = Parameter(np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]))
    p.accumulate([[1, 0], [2, 0]])
    p.add_grad_to(p.data, -0.5)
    np.testing.assert_array_equal(p.data, [[0.5, 2], [2, 4]])


def test_gradients_of_both_kinds_add_up_in_any_order():
    rng = np.random.default_rng(0)
    p = Parameter(np.zeros((4, 3)))
    wanted = np.zeros((4, 3))
    for rows in (1, 5, 2, 0, 40):
        a, b, g = rng.random((rows, 4)), rng.random((rows, 3)), rng.random((4, 3))
        p.accumulate_product(a, b)
        p.accumulate(g)
        for row_a, row_b in zip(a, b, strict=True):
            wanted += np.outer(row_a, row_b)
        wanted += g
        if rows == 2:
            np.testing.assert_allclose(p.grad, wanted, rtol=1e-14)
    np.testing.assert_allclose(p.grad, wanted, rtol=1e-14)


@given(seed=st.integers(0, 2**32 - 1), calls=st.lists(st.sampled_from("appppr"), max_size=12))
def test_a_scaled_gradient_can_be_added_at_any_moment(seed, calls):
    rng = np.random.default_rng(seed)
    p, wanted = Parameter(np.zeros((3, 2))), np.zeros((3, 2))
    for call in calls:
        a, b = rng.random((2, 3)), rng.random((2, 2))
        if call == "a":
            p.accumulate(np.outer(a[0], b[0]))
            wanted += np.outer(a[0], b[0])
        elif call == "p":
            p.accumulate_product(a, b)
            wanted += np.outer(a[0], b[0]) + np.outer(a[1], b[1])
        else:
            np.testing.assert_allclose(p.grad, wanted, rtol=1e-13)
    out = np.ones((3, 2))
    p.add_grad_to(out, -0.5)
    np.testing.assert_allclose(out, 1 - 0.5 * wanted, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(p.grad, wanted, rtol=1e-13)


def test_the_gradient_reads_and_writes_as_an_array():
    p = Parameter([1.0, 2.0])
    p.grad += 3
    p.grad[0] = 1
    np.testing.assert_array_equal(p.grad, [1, 3])
    mine = np.array([5.0, 6.0])
    p.grad = mine
    mine[:] = 0
    np.testing.assert_array_equal(p.grad, [5, 6])
    before = p.grad
    p.zero_grad()
    np.testing.assert_array_equal(p.grad, [0, 0])
    np.testing.assert_array_equal(before, [5, 6])


def test_a_handed_over_gradient_is_copied():
    p, g = Parameter([1.0, 2.0]), np.ones(2, np.float32)
    p.accumulate(g)
    g[:] = 9
    np.testing.assert_array_equal(p.grad, [1, 1])


def test_parameter_refusals():
    p = Parameter(np.zeros((3, 2)))
    with refusal(ValueError, "Parameter: expected data of shape (3, 2), got (2,)"):
        p.data = np.zeros(2)
    with refusal(ValueError, "Parameter: expected grad of shape (3, 2), got (3, 1)"):
        p.grad = np.zeros((3, 1))
    with refusal(ValueError, "Parameter: expected grad of shape (3, 2), got (1, 2)"):
        p.accumulate(np.zeros((1, 2)))
    text = (
        "Parameter: expected a (..., I) and b (..., O) with (I, O) = (3, 2), got (4, 3) and (5, 2)"
    )
    with refusal(ValueError, text):
        p.accumulate_product(np.zeros((4, 3)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"got \(3,\) and \(1, 2\)"):
        p.accumulate_product(np.zeros(3), np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"got \(\) and \(2,\)"):
        p.accumulate_product(np.zeros(()), np.zeros(2))
    with pytest.raises(ValueError, match=r"got \(\) and \(3,\)"):
        Parameter(np.zeros(3)).accumulate_product(np.ones(()), np.ones(3))
    text = "Parameter: expected grad to be an array of real numbers, got an array of dtype complex"
    with pytest.raises(TypeError, match="^" + re.escape(text)):
        p.accumulate(np.zeros((3, 2), complex))
    a, b = np.ones((4, 3)), np.ones((4, 2))
    for name, factors in (("a", (a * 1j, b)), ("b", (a, b * 1j))):
        text = f"Parameter: expected {name} to be an array of real numbers, "
        with refusal(TypeError, text + "got an array of dtype complex128"):
            p.accumulate_product(*factors)
    frozen = Parameter(np.zeros((3, 2)))
    frozen.data.flags.writeable = False
    with pytest.raises(ValueError, match="expected out to be writeable"):
        frozen.add_grad_to(frozen.data, 1.0)
    text = (
        "Parameter: expected out to be writeable, C-ordered, (3, 2) float64, "
        "got an array of shape (3, 2) and dtype float32"
    )
    with refusal(ValueError, text):
        p.add_grad_to(np.zeros((3, 2), np.float32), 1.0)
    for out in (np.zeros((2, 3)).T, np.zeros((3, 4))[:, ::2], np.broadcast_to(0.0, (3, 2))):
        with pytest.raises(ValueError, match="expected out to be writeable, C-ordered"):
            p.add_grad_to(out, 1.0)
    text = "Parameter: expected data to be an array of real numbers, got a masked array"
    with refusal(TypeError, text):
        Parameter(np.ma.masked_array([1.0]))
    assert not p.grad.any()


def test_parameter_repr():
    assert repr(Parameter(np.zeros((3, 2)))) == "Parameter(shape=(3, 2), dtype=float64)"


def test_members_are_found_everywhere_in_order_of_assignment_and_once():
    shared = Parameter(1.0)
    model = Holder(
        z=Parameter(0.0),
        blocks=[Linear(1, 1), (ReLU(), {"a": Scale(1)})],
        deep={"x": {"y": shared}, 3: [shared]},
        note="text",
        tied=shared,
        last=Holder(p=Parameter(2.0), again=shared),
    )
    assert [name for name, _ in model.named_parameters()] == [
        "z",
        "blocks.0.weight",
        "blocks.0.bias",
        "blocks.1.1.a.gain",
        "deep.x.y",
        "last.p",
    ]
    assert len(list(model.parameters())) == 6
    assert [type(m).__name__ for m in model.children()] == ["Linear", "ReLU", "Scale", "Holder"]
    assert [type(m).__name__ for m in model.modules()] == [
        "Holder",
        "Linear",
        "ReLU",
        "Scale",
        "Holder",
    ]


def test_modules_are_depth_first_and_cycles_end():
    inner = Holder()
    outer = Holder(a=Sequential(ReLU(), inner), b=inner, p=Parameter(1.0))
    inner.parent = outer
    assert [type(m).__name__ for m in outer.modules()] == ["Holder", "Sequential", "ReLU", "Holder"]
    assert [name for name, _ in outer.named_parameters()] == ["p"]
    assert "(parent): ..." in repr(outer)


def test_a_module_need_not_be_hashable():
    class Equal(Holder):
        def __eq__(self, other):
            return True

    model = Holder(a=Equal(p=Parameter(1.0)), b=Equal(p=Parameter(2.0)))
    assert [name for name, _ in model.named_parameters()] == ["a.p", "b.p"]


def test_train_and_eval_reach_every_module_and_return_self():
    model = Holder(a=[Sequential(ReLU(), Sequential(ReLU()))])
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    assert model.train() is model
    assert all(m.training for m in model.modules())
    with refusal(TypeError, "Holder: expected mode to be a bool, got 1"):
        model.train(1)


@pytest.mark.parametrize(("written", "missing"), [("forward", "backward"), ("backward", "forward")])
def test_forward_and_backward_must_be_written(written, missing):
    half = type("Half", (Module,), {written: lambda self, x: x})
    with pytest.raises(TypeError, match=f"abstract method '?{missing}"):
        half()


def test_load_state_dict_lists_every_fault_and_changes_nothing():
    model = Sequential(Linear(2, 3, rng=0), ReLU(), Linear(3, 1, rng=1))
    before = model.state_dict()
    state = model.state_dict()
    state = {name: values + 1 for name, values in state.items()}
    del state["0.bias"]
    state["2.weight"] = np.zeros((1, 3))
    state["3.weight"] = np.zeros(1)
    text = (
        "Sequential: expected a state dict of its parameters, got no 0.bias, "
        "unexpected 3.weight, 2.weight of shape (1, 3) instead of (3, 1)"
    )
    with refusal(ValueError, text):
        model.load_state_dict(state)
    text = "Sequential: expected 2.bias to be an array of real numbers, got an array of dtype <U1"
    with refusal(TypeError, text):
        model.load_state_dict({**before, "0.weight": np.zeros((2, 3)), "2.bias": np.array(["a"])})
    with refusal(TypeError, "Sequential: expected a state dict, got a list"):
        model.load_state_dict([])
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


def test_load_state_dict_changes_nothing_if_a_number_does_not_fit_float32():
    model = Holder(a=Parameter([1.0]), b=Parameter([2.0]))
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        model.load_state_dict({"a": [5.0], "b": np.array([1e300])})
    assert (model.a.data, model.b.data) == (1, 2)


def test_load_state_dict_from_arrays_that_alias_the_parameters():
    model = Holder(a=Parameter([1.0, 2.0]), b=Parameter([3.0, 4.0]))
    model.load_state_dict({"a": model.b.data, "b": model.a.data})
    np.testing.assert_array_equal(model.a.data, [3, 4])
    np.testing.assert_array_equal(model.b.data, [1, 2])


def test_astype_keeps_values_gradients_and_a_pending_backward():
    rng = np.random.default_rng(0)
    model = Sequential(Linear(3, 4, rng=0), ReLU(), Linear(4, 2, rng=1))
    x, dy = rng.random((5, 3), np.float32), rng.random((5, 2), np.float32)
    model(x)
    model.backward(dy)
    grads = [p.grad.copy() for p in model.parameters()]
    model.astype("float64")
    for p, g in zip(model.parameters(), grads, strict=True):
        np.testing.assert_array_equal(p.grad, g)
    model.zero_grad()
    assert model.backward(dy).dtype == np.float64
    for p, g in zip(model.parameters(), grads, strict=True):
        np.testing.assert_allclose(p.grad, g, rtol=1e-5)
    for bad in (np.int32, "f2", None, ">f8", "no such"):
        with pytest.raises(TypeError, match=r"^Sequential: expected dtype float32 or float64, got"):
            model.astype(bad)
    with refusal(TypeError, "Sequential: expected dtype float32 or float64, got int32"):
        model.astype(np.int32)
    with refusal(TypeError, "Parameter: expected dtype float32 or float64, got complex64"):
        model[0].weight.astype(np.complex64)


def test_astype_to_the_same_dtype_changes_no_array():
    p = Parameter([1.0, 2.0])
    data, grad = p.data, p.grad
    p.astype(np.float32)
    assert p.data is data
    assert p.grad is grad


def test_a_step_after_astype_uses_velocities_of_the_new_dtype():
    model = Linear(2, 1, rng=0)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    for dtype in (np.float32, np.float64, np.float32):
        model.astype(dtype)
        model(np.ones((1, 2)))
        model.backward(np.ones((1, 1)))
        optimizer.step()
        assert model.weight.data.dtype == dtype


def test_repr_shows_structure_and_hyperparameters():
    model = Sequential(Linear(2, 3, bias=False, rng=0), Sequential(ReLU()), Scale(3)).eval()
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(in_features=2, out_features=3, input_grad=True, bias=False)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "  )\n"
        "  (2): Scale()\n"
        ")"
    )
    assert repr(Holder(rate=0.5, inner=ReLU())) == "Holder(rate=0.5\n  (inner): ReLU()\n)"


def test_assigning_an_earlier_grad_drops_what_was_added_since():
    p = Parameter(np.zeros((2, 2)))
    p.accumulate_product(np.ones((1, 2)), np.ones((1, 2)))
    snapshot = p.grad
    p.accumulate_product(np.ones((1, 2)), np.ones((1, 2)))
    p.grad = snapshot
    np.testing.assert_array_equal(p.grad, np.ones((2, 2)))


def test_two_parameters_of_one_name_are_refused_as_state():
    model = Holder(d={1: Parameter(1.0), "1": Parameter(2.0)})
    with refusal(ValueError, "Holder: expected a name for each Parameter, got two of d.1"):
        model.state_dict()


def test_read_only_parameters_are_refused_before_anything_changes():
    model = Holder(a=Parameter([1.0]), b=Parameter([2.0]))
    model.b.data.flags.writeable = False
    model.a.grad = model.b.grad = np.ones(1)
    for options in ({}, {"momentum": 0.9}, {"weight_decay": 0.1}):
        text = "SGD: expected parameters with writeable data, got a read-only one"
        with refusal(ValueError, text):
            SGD(model.parameters(), 0.1, **options).step()
    with pytest.raises(ValueError, match="read-only b"):
        model.load_state_dict({"a": [5.0], "b": [6.0]})
    assert (model.a.data, model.b.data) == (1, 2)


def test_products_of_no_features_are_empty():
    p = Parameter(np.zeros((0, 3)))
    p.accumulate_product(np.ones((2, 4, 0)), np.ones((2, 4, 3)))
    assert p.grad.shape == (0, 3)
