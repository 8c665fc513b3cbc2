"""Module: what it does for every layer, whatever the layer computes."""

import copy
import pickle

import numpy as np
import pytest
from cases import BatchNorm, Product, Scale
from helpers import bits, refusal, refusal_starting

from tinygrad_mnist import Buffer, Dropout, Linear, Module, Parameter, ReLU, Sequential


class Holder(Module):
    """Holds whatever it is given; computes nothing."""

    def __init__(self, **members):
        vars(self).update(members)

    def forward(self, x):
        return x

    def backward(self, dy):
        return dy


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
    assert [(name, type(m).__name__) for name, m in model.named_modules()] == [
        ("", "Holder"),
        ("blocks.0", "Linear"),
        ("blocks.1.0", "ReLU"),
        ("blocks.1.1.a", "Scale"),
        ("last", "Holder"),
    ]
    assert list(model.modules()) == [module for _, module in model.named_modules()]


def test_buffers_are_found_with_the_parameters_and_named_apart():
    model = Holder(
        mean=Buffer(0.0),
        w=Parameter(1.0),
        deep={"x": [Buffer([1, 2])]},
        inner=Holder(b=Parameter(2.0), count=Buffer(3)),
    )
    assert list(model.state_dict()) == ["mean", "w", "deep.x.0", "inner.b", "inner.count"]
    assert [name for name, _ in model.named_parameters()] == ["w", "inner.b"]
    assert [name for name, _ in model.named_buffers()] == ["mean", "deep.x.0", "inner.count"]
    assert next(model.named_buffers()) == ("mean", model.mean)


def test_a_buffer_held_twice_is_found_once():
    shared = Buffer(0.0)
    model = Holder(a=shared, inner=Holder(b=shared))
    assert [name for name, _ in model.named_buffers()] == ["a"]


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


def test_a_module_is_called_with_all_its_inputs():
    layer = Product()
    np.testing.assert_array_equal(layer([1, 2], [3, 4]), [3, 8])
    da, db = layer.backward([1, 10])
    np.testing.assert_array_equal(da, [3, 40])
    np.testing.assert_array_equal(db, [1, 20])


def test_a_state_dict_keeps_its_values_when_the_model_moves_and_the_other_way_round():
    model = Holder(w=Parameter([5.0]), count=Buffer([2]))
    state = model.state_dict()
    model.w.data += 1
    model.count.data += 1
    assert (state["w"], state["count"]) == ([5.0], [2])
    state["w"][:] = 0
    assert model.w.data == [6.0]


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


def test_load_state_dict_refuses_fractions_for_a_buffer_of_integers():
    model = Holder(w=Parameter([1.0]), count=Buffer([3]))
    text = "Holder: expected count to fit int64, got dtype float64"
    with refusal(TypeError, text):
        model.load_state_dict({"w": [5.0], "count": [2.5]})
    assert (model.w.data, model.count.data) == (1, 3)
    model.load_state_dict({"w": [5.0], "count": np.array([4], np.int8)})
    assert (model.w.data, model.count.data) == (5, 4)


def test_load_state_dict_from_arrays_that_alias_the_parameters():
    model = Holder(a=Parameter([1.0, 2.0]), b=Parameter([3.0, 4.0]))
    model.load_state_dict({"a": model.b.data, "b": model.a.data})
    np.testing.assert_array_equal(model.a.data, [3, 4])
    np.testing.assert_array_equal(model.b.data, [1, 2])


def test_a_read_only_array_is_refused_before_anything_is_loaded():
    model = Holder(a=Parameter([1.0]), b=Parameter([2.0]), c=Buffer([3.0]))
    for name in ("b", "c"):
        getattr(model, name).data.flags.writeable = False
    text = "Holder: expected a state dict of its parameters, got read-only b, read-only c"
    with refusal(ValueError, text):
        model.load_state_dict({"a": [5.0], "b": [6.0], "c": [7.0]})
    assert (model.a.data, model.b.data, model.c.data) == (1, 2, 3)


def test_two_parameters_of_one_name_are_refused_as_state():
    model = Holder(d={1: Parameter(1.0), "1": Parameter(2.0)})
    with refusal(ValueError, "Holder: expected a name for each Parameter, got two of d.1"):
        model.state_dict()


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


@pytest.mark.parametrize(
    ("bad", "got"),
    [(np.int32, "int32"), ("f2", "float16"), (None, "None"), (">f8", ">f8"), ("no", "'no'")],
)
def test_astype_to_any_other_dtype_is_refused(bad, got):
    model = Holder(w=Parameter(1.0))
    with refusal(TypeError, f"Holder: expected dtype float32 or float64, got {got}"):
        model.astype(bad)
    assert model.w.data.dtype == np.float32


def test_astype_converts_buffers_of_floats_and_leaves_those_of_integers():
    model = Holder(mean=Buffer([0.1]), inner=[Holder(count=Buffer([2]), on=Buffer([True]))])
    model.astype(np.float64)
    assert [b.data.dtype for _, b in model.named_buffers()] == [np.float64, np.int64, np.bool_]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_leaves_behind_what_forward_kept(copied):
    layers = Linear(784, 20, rng=0), ReLU(), BatchNorm(20), Dropout(0.2, rng=1), Scale(20)
    model = Sequential(*layers, Sequential(Linear(20, 10, rng=2))).eval()
    size = len(pickle.dumps(model))
    y = model(np.zeros((10_000, 784), np.float32))
    assert len(pickle.dumps(model)) == size
    with refusal_starting(RuntimeError, "Sequential: expected a forward before backward, got none"):
        copied(model).backward(y)
    model.backward(y)  # the model itself can still go back


def test_a_copy_keeps_underscore_attributes_that_the_class_does_not_declare_as_none():
    layer = Scale(3)
    layer._note, layer._x = "kept", np.ones(3)
    twin = copy.deepcopy(layer)
    assert twin._note == "kept"
    assert twin._x is None
    assert layer._x.all()


class Lazy(Module):
    """Holds state in attributes that look like what forward keeps."""

    _gain = _body = _rng = _x = None

    def __init__(self):
        self._gain, self._body = Parameter([2.0]), [Linear(1, 1, rng=0)]
        self._rng = np.random.default_rng(3)

    def forward(self, x):
        self._x = np.array(x, np.float32)
        return self._gain.data * self._body[0](self._x) * self._rng.random()

    def backward(self, dy):
        return dy


class Slotted(Module):
    __slots__ = ("factor",)

    def __init__(self):
        self.factor = 3

    def forward(self, x):
        return self.factor * np.asarray(x)

    def backward(self, dy):
        return self.factor * np.asarray(dy)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_keeps_all_state_wherever_it_is(copied):
    layer, x = Lazy(), np.ones((2, 1))
    twin = copied(layer)
    assert list(twin.state_dict()) == ["_gain", "_body.0.weight", "_body.0.bias"]
    np.testing.assert_array_equal(twin(x), layer(x))
    assert copied(layer)._x is None
    assert copied(Slotted())(1) == 3


def test_a_copy_leaves_the_original_and_its_factors_alone():
    p = Parameter(np.zeros((4, 3), np.float32))
    p.accumulate([[1] * 3] * 4)
    a, b = np.ones((1, 4), np.float32), np.ones((1, 3), np.float32)
    p.accumulate_product(a, b)
    twin = copy.deepcopy(p)
    np.testing.assert_array_equal(twin.grad, np.full((4, 3), 2))
    a[...] = 10  # shows whether the factors are still what they were
    np.testing.assert_array_equal(p.grad, np.full((4, 3), 11))


def test_copies_draw_on_from_where_the_original_stands():
    layer, x = Dropout(0.5, rng=1), np.ones(100)
    layer(x)
    twin = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(twin(x), layer(x))
    layer(x)
    assert (twin(x) != layer(x)).any()


def test_two_copies_in_one_pickle_share_what_the_originals_shared():
    layer = Linear(2, 2, rng=0)
    one, other = pickle.loads(pickle.dumps((layer, [layer.weight])))
    assert one.weight is other[0]
    assert bits(one.state_dict()) == bits(layer.state_dict())


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
    assert repr(Sequential()) == "Sequential()"
    assert repr(Holder(size=(5, 3), names=("a", "b"))) == "Holder(size=(5, 3))"
    assert repr(Holder(rate=0.5, inner=ReLU())) == "Holder(rate=0.5\n  (inner): ReLU()\n)"
    assert repr(Holder(rate=0.5, _kept=None)) == "Holder(rate=0.5)"
