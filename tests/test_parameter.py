"""Buffer and Parameter: what they hold, what they refuse, and how gradients add up."""

import copy
import pickle

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_mnist import Buffer, Conv2d, Linear, Parameter

both_kinds = pytest.mark.parametrize("kind", [Buffer, Parameter])


@both_kinds
def test_data_is_copied_in_and_keeps_its_identity(kind):
    values = np.ones((2, 3), np.float32)
    array = kind(values)
    data = array.data
    array.data -= 1
    array.data = np.full((2, 3), 7)
    assert array.data is data
    np.testing.assert_array_equal(data, np.full((2, 3), 7))
    np.testing.assert_array_equal(values, np.ones((2, 3)))


@both_kinds
@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (0.5, np.float32),
        ([1.0, 2.0], np.float32),
        (np.zeros(2, np.float16), np.float32),
        (np.zeros(2, ">f8"), np.float64),
        (np.zeros(2, np.longdouble), np.float64),
        (np.float64(1), np.float64),
    ],
)
def test_floats_are_float32_unless_given_as_float64(kind, data, dtype):
    array = kind(data)
    assert array.data.dtype == dtype
    assert array.data.dtype.isnative


@pytest.mark.parametrize("data", [3, True, [1, 2], np.arange(3), np.zeros(2, np.uint8)])
def test_integers_become_float32_in_a_parameter_and_stay_in_a_buffer(data):
    assert Parameter(data).data.dtype == Parameter(data).grad.dtype == np.float32
    assert Buffer(data).data.dtype == np.asarray(data).dtype
    np.testing.assert_array_equal(Buffer(data).data, data)


def test_integers_of_a_foreign_byte_order_become_native():
    assert Buffer(np.array([1, 2], ">i4")).data.dtype.isnative
    np.testing.assert_array_equal(Buffer(np.array([1, 2], ">i4")).data, [1, 2])


def test_a_buffer_of_integers_takes_what_it_can_hold():
    count = Buffer(np.zeros(2, np.uint8))
    for values in ([1, 255], [True, False], np.array([7, 8], np.int64)):
        count.data = values
        np.testing.assert_array_equal(count.data, values)
    for values, dtype in (([0.5, 1.0], "float64"), ([1, 256], "int64"), ([-1, 0], "int64")):
        with refusal(TypeError, f"Buffer: expected data to fit uint8, got dtype {dtype}"):
            count.data = values
    np.testing.assert_array_equal(count.data, [7, 8])


def test_a_buffer_is_no_parameter_and_has_no_gradient():
    assert not isinstance(Buffer(1.0), Parameter)
    assert not hasattr(Buffer(1.0), "grad")


@both_kinds
def test_what_is_no_array_of_real_numbers_is_refused(kind):
    text = f"{kind.__name__}: expected data to be an array of real numbers, got "
    with refusal(TypeError, text + "a masked array"):
        kind(np.ma.masked_array([1.0]))
    with refusal(TypeError, text + "an array of dtype complex128"):
        kind([1j])
    array = kind([1.0, 2.0])
    with refusal(TypeError, text + "an array of dtype complex128"):
        array.data = [1j, 2]
    with refusal(ValueError, f"{kind.__name__}: expected data of shape (2,), got (1,)"):
        array.data = [1.0]
    np.testing.assert_array_equal(array.data, [1, 2])


@both_kinds
def test_astype_converts_floats(kind):
    array = kind([0.5, 2.0])
    data = array.data
    array.astype(np.float32)
    assert array.data is data
    array.astype(np.float64)
    assert array.data.dtype == np.float64
    np.testing.assert_array_equal(array.data, [0.5, 2])
    for bad, got in ((np.complex64, "complex64"), (None, "None"), (int, "int64")):
        text = f"{kind.__name__}: expected dtype float32 or float64, got {got}"
        with refusal(TypeError, text):
            array.astype(bad)


def test_astype_leaves_a_buffer_of_integers():
    count = Buffer([1, 2])
    data = count.data
    count.astype(np.float32)
    assert count.data is data
    with refusal(TypeError, "Buffer: expected dtype float32 or float64, got int32"):
        count.astype(np.int32)


def test_astype_to_the_same_dtype_keeps_the_gradient_array():
    p = Parameter([1.0, 2.0])
    grad = p.grad
    p.astype(np.float32)
    assert p.grad is grad


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_hold_the_gradient_also_one_kept_as_factors(copied):
    p = Parameter(np.zeros((2, 2)))
    p.accumulate([[1, 0], [0, 0]])
    p.accumulate_product(np.ones((3, 2)), np.ones((3, 2)))
    twin = copied(p)
    np.testing.assert_array_equal(twin.grad, [[4, 3], [3, 3]])
    twin.grad += 1
    twin.data += 1
    np.testing.assert_array_equal(p.grad, [[4, 3], [3, 3]])
    assert not p.data.any()


def test_a_pickle_holds_no_factors():
    p = Parameter(np.zeros((2, 2)))
    p.accumulate_product(np.ones((1000, 2)), np.ones((1000, 2)))
    assert len(pickle.dumps(p)) < 2000


@both_kinds
def test_repr_shows_shape_and_dtype(kind):
    assert repr(kind(np.zeros((3, 2)))) == f"{kind.__name__}(shape=(3, 2), dtype=float64)"


def test_a_gradient_has_the_dtype_of_the_parameter_whatever_was_passed():
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
    shape = 6, 5  # factors of up to three rows are kept, more are multiplied out
    p, wanted = Parameter(np.zeros(shape)), np.zeros(shape)
    for call in calls:
        rows = rng.integers(1, 4)
        a, b = rng.random((rows, 6)), rng.random((rows, 5))
        if call == "a":
            p.accumulate(np.outer(a[0], b[0]))
            wanted += np.outer(a[0], b[0])
        elif call == "p":
            p.accumulate_product(a, b)
            wanted += sum(np.outer(*pair) for pair in zip(a, b, strict=True))
        else:
            np.testing.assert_allclose(p.grad, wanted, rtol=1e-13)
    out = np.ones(shape)
    p.add_grad_to(out, -0.5)
    np.testing.assert_allclose(out, 1 - 0.5 * wanted, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(p.grad, wanted, rtol=1e-13)


def test_factors_of_any_order_of_memory_give_the_same_product():
    rng = np.random.default_rng(0)
    for leading in ((4,), (2, 3)):
        a, b = rng.random((*leading, 3)), rng.random((*leading, 2))
        wanted = a.reshape(-1, 3).T @ b.reshape(-1, 2)
        for x, y in ((a, b), (np.asfortranarray(a), b), (a[::-1], np.asfortranarray(b[::-1]))):
            p = Parameter(np.zeros((3, 2)))
            p.accumulate_product(x, y)
            np.testing.assert_allclose(p.grad, wanted, rtol=1e-14)


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


def test_a_gradient_passed_in_is_copied():
    p, g = Parameter([1.0, 2.0]), np.ones(2, np.float32)
    p.accumulate(g)
    g[:] = 9
    np.testing.assert_array_equal(p.grad, [1, 1])


def test_assigning_an_earlier_grad_drops_what_was_added_since():
    p = Parameter(np.zeros((2, 2)))
    p.accumulate_product(np.ones((1, 2)), np.ones((1, 2)))
    snapshot = p.grad
    p.accumulate_product(np.ones((1, 2)), np.ones((1, 2)))
    p.grad = snapshot
    np.testing.assert_array_equal(p.grad, np.ones((2, 2)))


def test_products_of_no_features_are_empty():
    p = Parameter(np.zeros((0, 3)))
    p.accumulate_product(np.ones((2, 4, 0)), np.ones((2, 4, 3)))
    assert p.grad.shape == (0, 3)


def test_gradients_that_do_not_fit_are_refused():
    p = Parameter(np.zeros((3, 2)))
    with refusal(ValueError, "Parameter: expected grad of shape (3, 2), got (3, 1)"):
        p.grad = np.zeros((3, 1))
    with refusal(ValueError, "Parameter: expected grad of shape (3, 2), got (1, 2)"):
        p.accumulate(np.zeros((1, 2)))
    text = "Parameter: expected grad to be an array of real numbers, got an array of dtype "
    with refusal(TypeError, text + "complex128"):
        p.accumulate(np.zeros((3, 2), complex))
    assert not p.grad.any()


@pytest.mark.parametrize(
    ("shape", "a", "b"),
    [
        ((3, 2), (4, 3), (5, 2)),
        ((3, 2), (3,), (1, 2)),
        ((3, 2), (), (2,)),
        ((3,), (), (3,)),
        ((3, 2), (4, 2), (4, 3)),
        ((1, 3, 2), (4, 2), (4, 3)),
    ],
)
def test_factors_of_other_shapes_are_refused(shape, a, b):
    p = Parameter(np.zeros(shape))
    contract = f"a (..., I) and b (..., O) with (I, O) = {shape}"
    with refusal(ValueError, f"Parameter: expected {contract}, got {a} and {b}"):
        p.accumulate_product(np.ones(a), np.ones(b))
    assert not p.grad.any()


def test_factors_that_are_no_real_numbers_are_refused():
    p, a, b = Parameter(np.zeros((3, 2))), np.ones((4, 3)), np.ones((4, 2))
    for name, factors in (("a", (a * 1j, b)), ("b", (a, b * 1j))):
        text = f"Parameter: expected {name} to be an array of real numbers, "
        with refusal(TypeError, text + "got an array of dtype complex128"):
            p.accumulate_product(*factors)
    assert not p.grad.any()


def frozen(p):
    p.data.flags.writeable = False
    return p.data


@pytest.mark.parametrize(
    ("out", "got"),
    [
        (lambda p: np.zeros((3, 2), np.float32), "an array of shape (3, 2) and dtype float32"),
        (lambda p: np.zeros((2, 3)), "an array of shape (2, 3) and dtype float64"),
        (lambda p: np.zeros((2, 3)).T, "an array of shape (3, 2) and dtype float64"),
        (lambda p: np.zeros((3, 4))[:, ::2], "an array of shape (3, 2) and dtype float64"),
        (lambda p: np.broadcast_to(0.0, (3, 2)), "an array of shape (3, 2) and dtype float64"),
        (frozen, "an array of shape (3, 2) and dtype float64"),
        (lambda p: [[0.0, 0.0]] * 3, "a list"),
    ],
)
def test_a_gradient_is_added_only_to_an_array_like_data(out, got):
    p = Parameter(np.zeros((3, 2)))
    text = "Parameter: expected out to be writeable, C-ordered, (3, 2) float64, got "
    with refusal(ValueError, text + got):
        p.add_grad_to(out(p), 1.0)


@pytest.mark.parametrize("layer", [Linear(3, 2, rng=0), Conv2d(3, 2, 1, rng=0)], ids=type)
def test_an_array_is_refused_where_a_layer_holds_a_parameter(layer):
    weight, bias = layer.weight, layer.bias
    for name in ("weight", "bias"):
        contract = f"{name} to be a Parameter (`{name}.data = ...` sets its values)"
        for bad, got in (
            (np.zeros((3, 2)), "an array of shape (3, 2) and dtype float64"),
            (0.5, "0.5"),
            ([1.0], "a list"),
        ):
            with refusal(TypeError, f"{type(layer).__name__}: expected {contract}, got {got}"):
                setattr(layer, name, bad)
    with pytest.raises(TypeError, match=r"expected weight to be a Parameter .*, got None$"):
        layer.weight = None  # which only a bias may be
    assert layer.weight is weight
    assert layer.bias is bias


def test_another_parameter_or_none_may_take_its_place():
    layer, other = Linear(3, 2, rng=0), Linear(3, 2, rng=1)
    layer.weight, layer.bias = other.weight, None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    x = np.ones((4, 3))
    np.testing.assert_array_equal(layer(x), other(x))  # whose bias is 0
    layer.backward(np.ones((4, 2)))
    assert other.weight.grad.all()


def test_arithmetic_with_a_parameter_names_what_lacks_its_data():
    with pytest.raises(TypeError, match=r"for @: 'numpy.ndarray' and 'Parameter'"):
        np.ones((2, 3)) @ Parameter(np.ones((3, 2)))
