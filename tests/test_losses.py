"""The losses against plain loops, closed forms, SciPy and central differences."""

import copy
import math
import pickle

import numpy as np
import pytest
from helpers import assert_same, refusal, refusal_starting
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from tinygrad_mnist import BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, MSELoss
from tinygrad_mnist.losses import ReducedLoss
from tinygrad_mnist.testing import check_loss_gradients
from tinygrad_mnist.testing.strategies import seeds

SHAPES = st.sampled_from([(3, 2), (2, 3, 4), (5,), (1, 1), (), (4, 1)])
CLASSES = st.sampled_from([(3, 4), (2, 3, 5), (4,), (1, 2), (2, 1, 2, 3), (300, 3)])
REDUCTIONS = ["mean", "sum"]
BOTH = st.sampled_from(REDUCTIONS)


def drawn(seed, shape):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape), rng.standard_normal(shape)


def numbers(rng, shape):
    return rng.standard_normal(shape)


def fractions(rng, shape):
    """Zeros, ones and what is between."""
    return rng.choice([0, 1, 0.25, 0.9], shape)


def labels(rng, shape):
    return rng.integers(0, shape[-1], shape[:-1])


def probabilities(rng, shape):
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


class PoissonLoss(ReducedLoss):
    """L = sum(exp(y) - t * y) / n: a loss that a user wrote."""

    def compute(self, y, t):
        rate = np.exp(y)
        return (rate - t * y).sum(), rate - t, y.size


class L1Loss(ReducedLoss):
    """L = sum(abs(y - t)) / n, whose slope a user left as integers."""

    def compute(self, y, t):
        return abs(y - t).sum(), np.where(y > t, 1, -1), y.size


def test_a_slope_of_integers_is_divided_as_floats_are():
    loss = L1Loss()
    loss(np.array([3.0, 1, 5, 2]), np.array([1.0, 2, 3, 4]))
    np.testing.assert_array_equal(loss.backward(), [0.25, -0.25, 0.25, -0.25])


WEIGHTS = {2: [0.5, 2], 3: [0.5, 2, 1], 4: [0.5, 2, 1, 0], 5: [3, 2, 1, 0, 0.25]}
# how each loss is made, and what it takes as a target
LOSSES = {
    "MSELoss": (MSELoss, numbers),
    "HuberLoss": (lambda r: HuberLoss(0.5, r), numbers),
    "BCEWithLogitsLoss": (BCEWithLogitsLoss, fractions),
    "CrossEntropyLoss": (CrossEntropyLoss, labels),
    "CrossEntropyLoss-smooth": (lambda r: CrossEntropyLoss(r, label_smoothing=0.1), labels),
    "CrossEntropyLoss-weights": (lambda r: CrossEntropyLoss(r, class_weight=[1, 2, 0.5]), labels),
    "CrossEntropyLoss-rows": (
        lambda r: CrossEntropyLoss(r, label_smoothing=0.1, class_weight=[1, 2, 0.5]),
        probabilities,
    ),
    "PoissonLoss": (PoissonLoss, numbers),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def made(name, shape=(4, 3), reduction="mean", seed=0, dtype=np.float64):
    """Return a loss, a pred and a target for it."""
    rng = np.random.default_rng(seed)
    make, targets = LOSSES[name]
    t = targets(rng, shape)
    y = (2 * rng.standard_normal(shape)).astype(dtype)
    return make(reduction), y, t.astype(dtype) if t.dtype.kind == "f" else t


# What every loss does


@every_loss
def test_any_leading_axes_give_what_one_axis_gives(name):
    flat, y, t = made(name, (6, 3))
    other = made(name)[0]
    value = flat(y, t)
    assert other(y.reshape(2, 3, 3), t.reshape(2, 3, *t.shape[1:])) == pytest.approx(value)
    assert_same([other.backward().reshape(6, 3)], [flat.backward()], 1e-15)
    one, row, label = made(name, (3,))
    batch = made(name)[0]
    assert one(row, label) == pytest.approx(batch(row[None], label[None]))
    assert_same([one.backward()], [batch.backward()[0]], 1e-15)


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_sum_is_n_times_the_mean_and_n_is_told(name, reduction):
    mean, y, t = made(name)
    summed, *_ = made(name, reduction="sum")
    assert mean.n is None
    assert summed(y, t) == pytest.approx(mean(y, t) * mean.n)
    assert_same([summed.backward()], [mean.backward() * mean.n], 1e-15)
    assert summed.n == 1
    samples = {"CrossEntropyLoss-weights": sum([1, 2, 0.5][i] for i in np.ravel(t).astype(int))}
    wanted = samples.get(name, 4) if "Cross" in name else 12
    assert mean.n == wanted


@every_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_is_that_of_pred(name, dtype):
    loss, y, t = made(name, dtype=dtype)
    value = loss(y, t)
    assert type(value) is float
    assert loss.backward().dtype == dtype
    assert loss(y, t.astype(np.float64) if t.dtype.kind == "f" else t) == pytest.approx(value, 1e-6)
    assert loss.backward().dtype == dtype
    assert loss(y.tolist(), t.tolist()) == pytest.approx(value, 1e-6)


class MaskedLoss(ReducedLoss):
    """L = sum((y - t)**2) / n over the n targets that are no NaN."""

    def compute(self, y, t):
        e = np.where(np.isnan(t), 0, y - t)
        return np.sum(e**2), 2 * e, np.sum(~np.isnan(t))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_of_numpy_that_a_loss_computes_change_no_dtype(reduction, dtype):
    """Of a gradient they would make float64, and fit would sum in their 24 bits."""
    loss = MaskedLoss(reduction)
    value = loss(np.ones((2, 2), dtype), np.array([[3, np.nan], [1, 2]], dtype))
    assert (type(value), type(loss.n)) == (float, float)
    assert loss.n == (3 if reduction == "mean" else 1)
    assert value * loss.n == pytest.approx(5)
    assert loss.backward().dtype == dtype


@every_loss
def test_arrays_passed_in_are_neither_modified_nor_remembered(name):
    loss, y, t = made(name)
    kept_y, kept_t = y.copy(), t.copy()
    loss(y, t)
    wanted = loss.backward()
    np.testing.assert_array_equal(y, kept_y)
    np.testing.assert_array_equal(t, kept_t)
    y[:], t[:] = 0, 0
    again = loss.backward()
    np.testing.assert_array_equal(again, wanted)
    again[:] = 9
    np.testing.assert_array_equal(loss.backward(), wanted)


@every_loss
def test_any_layout_gives_the_same(name):
    plain, y, t = made(name)
    other = made(name)[0]
    value = plain(y, t)
    for layout in (np.asfortranarray, lambda a: np.repeat(a, 2, 0)[::2]):
        assert other(layout(y), layout(t)) == pytest.approx(value, rel=1e-15)
        assert_same([other.backward()], [plain.backward()], 1e-15)


@every_loss
def test_a_call_that_fails_leaves_nothing_and_neither_does_none(name):
    loss, y, t = made(name)
    text = (
        f"{type(loss).__name__}: expected a forward before backward, got none, or one that failed"
    )
    with refusal(RuntimeError, text):
        loss.backward()
    loss(y, t)
    contract = "pred with at least one element"
    with refusal(ValueError, f"{type(loss).__name__}: expected {contract}, got shape (0, 3)"):
        loss(y[:0], t[:0])
    with refusal(RuntimeError, text):
        loss.backward()
    loss(y, t)
    with pytest.raises(ValueError, match="target"):
        loss(y, t[:2])
    with refusal(RuntimeError, text):
        loss.backward()
    assert loss.n is None


@every_loss
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_a_copy_keeps_the_settings_and_not_the_last_call(name, copied):
    loss, y, t = made(name)
    value = loss(y, t)
    twin = copied(loss)
    assert vars(twin) == vars(copied(made(name)[0]))
    loss.note = "of my own"
    assert copied(loss).note == "of my own"
    assert repr(twin) == repr(loss)
    assert twin.n is None
    with refusal_starting(RuntimeError, f"{type(loss).__name__}: expected a forward before"):
        twin.backward()
    assert twin(y, t) == value
    assert loss.n == twin.n


@every_loss
def test_no_finite_logit_is_too_large_for_float32(name):
    if name in ("MSELoss", "PoissonLoss"):
        return  # a square and an exponential may overflow
    loss, _, t = made(name, (4, 3), dtype=np.float32)
    for scale in (1e4, 1e30):
        y = np.array([[1, -1, 0], [-1, 1, 1], [0, 0, 0], [-1, -1, 1]], np.float32) * np.float32(
            scale
        )
        with np.errstate(all="raise", under="ignore"):
            assert 0 <= loss(y, t) < math.inf
            assert np.isfinite(loss.backward()).all()


def test_the_sum_of_many_large_terms_does_not_overflow():
    many = np.full((10, 2), [3e38, 0], np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert BCEWithLogitsLoss()(many, np.zeros((10, 2))) == pytest.approx(1.5e38)
        assert CrossEntropyLoss()(many, np.ones(10, int)) == pytest.approx(3e38)


@every_loss
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_goes_through(name):
    loss, y, t = made(name)
    y[1, 2] = np.nan
    assert math.isnan(loss(y, t))
    assert np.isnan(loss.backward()[1, 2])
    assert np.isfinite(loss.backward()[[0, 2, 3]]).all()


@every_loss
@pytest.mark.parametrize("reduction", REDUCTIONS)
@settings(max_examples=20)  # which differ in their numbers alone
@given(seed=seeds())
def test_backward_is_the_derivative_of_the_value(name, reduction, seed):
    assert check_loss_gradients(*made(name, (4, 3), reduction, seed))


def test_another_reduction_is_refused():
    for name in LOSSES.keys() - {"MSELoss"}:
        kind = type(made(name)[0]).__name__
        text = f'{kind}: expected reduction "mean" or "sum", got \'batchmean\''
        with refusal(ValueError, text):
            made(name, reduction="batchmean")


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (MSELoss("sum"), "MSELoss(reduction='sum')"),
        (HuberLoss(), "HuberLoss(reduction='mean', delta=1.0)"),
        (BCEWithLogitsLoss(), "BCEWithLogitsLoss(reduction='mean')"),
        (
            CrossEntropyLoss(class_weight=np.array([1, 2], np.float32)),
            "CrossEntropyLoss(reduction='mean', label_smoothing=0.0, class_weight=(1.0, 2.0))",
        ),
        (PoissonLoss("sum"), "PoissonLoss(reduction='sum')"),
    ],
)
def test_repr(loss, text):
    assert repr(loss) == text


def test_compute_must_be_written():
    with pytest.raises(TypeError, match="abstract method '?compute"):
        type("Half", (ReducedLoss,), {})()


# MSELoss


@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
@given(seed=st.integers(0, 2**32 - 1), shape=SHAPES)
def test_the_squared_error_is_a_plain_loop(reduction, seed, shape):
    y, t = drawn(seed, shape)
    total, count = 0.0, {"mean": 0, "sum": 1, "batchmean": 0}[reduction]
    for i in np.ndindex(shape):
        total += (y[i] - t[i]) ** 2
        if reduction == "mean" or (reduction == "batchmean" and (not i or i[-1] == 0)):
            count += 1
    loss = MSELoss(reduction)
    value = loss(y, t)
    assert type(value) is float
    assert value == pytest.approx(total / count, rel=1e-13)
    assert loss.n == count
    assert isinstance(loss.backward(), np.ndarray)


@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
@given(seed=seeds(), shape=SHAPES)
def test_the_slope_of_the_squared_error_is_its_derivative(reduction, seed, shape):
    assert check_loss_gradients(MSELoss(reduction), *drawn(seed, shape))


def test_the_bits_of_the_squared_error_are_those_of_one_product():
    """What replays a run of 1 to 15 digits depends on them."""
    y, t = (a.astype(np.float32) for a in drawn(0, (7, 10)))
    loss = MSELoss("batchmean")
    loss(y, t)
    np.testing.assert_array_equal(loss.backward(), (y - t) * (2 / 7))


def test_integers_are_converted():
    assert MSELoss()(np.array([200], np.uint8), np.array([250], np.uint8)) == 2500


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (((10, 1), (10,)), "target of shape (10, 1), got (10,)"),
        (((10,), (10, 1)), "target of shape (10,), got (10, 1)"),
        (((2, 3), (3,)), "target of shape (2, 3), got (3,)"),
        (((2, 3), ()), "target of shape (2, 3), got ()"),
    ],
)
@pytest.mark.parametrize("loss", [MSELoss(), HuberLoss(), BCEWithLogitsLoss()], ids=repr)
def test_shapes_are_never_broadcast(loss, shapes, text):
    with refusal(ValueError, f"{type(loss).__name__}: expected {text}"):
        loss(np.ones(shapes[0]), np.ones(shapes[1]))


def test_labels_as_targets_are_refused_with_the_remedy():
    text = "MSELoss: expected target of shape (4, 10), got (4,)"
    with refusal(ValueError, text) as caught:
        MSELoss()(np.zeros((4, 10)), np.arange(4))
    (note,) = caught.value.__notes__
    assert note.startswith("Integer labels want CrossEntropyLoss, or `one_hot`.")


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        ("none", "'none'"),
        (None, "None"),
        # an array compared with a string is neither true nor false
        (np.array(["mean", "sum"]), "an array of shape (2,) and dtype <U4"),
    ],
)
def test_another_reduction_of_the_squared_error_is_refused(bad, got):
    text = f'MSELoss: expected reduction "mean", "sum" or "batchmean", got {got}'
    with refusal(ValueError, text):
        MSELoss(bad)


@every_loss
def test_what_is_no_array_of_real_numbers_is_refused(name):
    loss, y, t = made(name)
    owner, text = type(loss).__name__, "to be an array of real numbers, got"
    for bad, got in [
        (t.astype(complex), "an array of dtype complex128"),
        (t.astype(str), f"an array of dtype {t.astype(str).dtype}"),
        (np.ma.array(t), "a masked array"),
    ]:
        with refusal(TypeError, f"{owner}: expected target {text} {got}"):
            loss(y, bad)
    with refusal(TypeError, f"{owner}: expected pred {text} 'y'"):
        loss("y", t)


def test_errors_too_small_for_float32_are_0_and_raise_nothing():
    loss, y = MSELoss(), np.full((2, 3), 1e-30, np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert loss(y, np.zeros((2, 3))) == 0
        loss.backward()


# HuberLoss


@given(seed=seeds(), shape=SHAPES, delta=st.sampled_from([0.1, 1.0, 3.0]), reduction=BOTH)
def test_huber_is_a_square_up_to_delta_and_then_a_line(seed, shape, delta, reduction):
    y, t = drawn(seed, shape)
    total, slope = 0.0, np.zeros(shape)
    for i in np.ndindex(shape):
        e = y[i] - t[i]
        total += e**2 / 2 if abs(e) <= delta else delta * (abs(e) - delta / 2)
        slope[i] = e if abs(e) <= delta else math.copysign(delta, e)
    n = y.size if reduction == "mean" else 1
    loss = HuberLoss(delta, reduction)
    assert loss(y, t) == pytest.approx(total / n, rel=1e-13)
    assert_same([loss.backward()], [slope / n], 1e-13)
    assert loss(y, t) == pytest.approx(special.huber(delta, y - t).sum() / n, rel=1e-13)


def test_huber_of_a_large_delta_is_half_the_squared_error():
    y, t = drawn(0, (4, 3))
    huber, square = HuberLoss(100), MSELoss()
    assert huber(y, t) == pytest.approx(square(y, t) / 2, rel=1e-14)
    assert_same([huber.backward()], [square.backward() / 2], 1e-15)


@pytest.mark.parametrize(
    ("delta", "error", "got"),
    [
        (0, ValueError, "0"),
        (-1, ValueError, "-1"),
        (math.inf, ValueError, "inf"),
        ("1", TypeError, "'1'"),
        (None, TypeError, "None"),
    ],
)
def test_another_delta_is_refused(delta, error, got):
    with refusal(error, f"HuberLoss: expected delta in (0, inf), got {got}"):
        HuberLoss(delta)


# BCEWithLogitsLoss


@given(seed=seeds(), shape=SHAPES, reduction=BOTH)
def test_binary_cross_entropy_is_a_plain_loop(seed, shape, reduction):
    rng = np.random.default_rng(seed)
    y, t = rng.uniform(-5, 5, shape), np.asarray(fractions(rng, shape))
    total, slope = 0.0, np.zeros(shape)
    for i in np.ndindex(shape):
        p = 1 / (1 + math.exp(-y[i]))
        total -= t[i] * math.log(p) + (1 - t[i]) * math.log(1 - p)
        slope[i] = p - t[i]
    n = y.size if reduction == "mean" else 1
    loss = BCEWithLogitsLoss(reduction)
    assert loss(y, t) == pytest.approx(total / n, rel=1e-12)
    assert_same([loss.backward()], [slope / n], 0, 1e-14)


def test_binary_cross_entropy_of_large_logits_is_that_of_scipy():
    y = np.concatenate([np.geomspace(1e-3, 1e300, 40), np.linspace(0, 60, 20)])
    y = np.concatenate([y, -y])
    for t in (0.0, 1.0, 0.3):
        loss = BCEWithLogitsLoss("sum")
        for logit in y:
            with np.errstate(all="raise", under="ignore"):
                value = loss([logit], [t])
            wanted = -t * special.log_expit(logit) - (1 - t) * special.log_expit(-logit)
            assert value == pytest.approx(wanted, rel=1e-14, abs=0)
            assert loss.backward() == pytest.approx(special.expit(logit) - t, abs=1e-15)


def test_binary_cross_entropy_is_that_of_two_classes_of_which_one_has_logit_0():
    rng = np.random.default_rng(0)
    y, t = rng.standard_normal(6), rng.integers(0, 2, 6)
    binary, cross = BCEWithLogitsLoss(), CrossEntropyLoss()
    assert binary(y, t) == pytest.approx(cross(np.stack([0 * y, y], -1), t), rel=1e-14)
    assert_same([binary.backward()], [cross.backward()[:, 1]], 0, 1e-15)


@pytest.mark.parametrize(("bad", "got"), [(-1.0, "-1.0"), (1.5, "1.5"), (math.nan, "nan")])
def test_targets_of_another_range_are_refused(bad, got):
    t = np.array([[0, 1], [0.5, bad]])
    with refusal(ValueError, f"BCEWithLogitsLoss: expected target in [0, 1], got {got}"):
        BCEWithLogitsLoss()(np.zeros((2, 2)), t)


# CrossEntropyLoss


def weighted_loop(y, t, s, w):
    """Return the sum over the samples, its slope, and the n of a mean, number by number."""
    K = y.shape[-1]
    w = [1.0] * K if w is None else w
    total, slope, n = 0.0, np.zeros(y.shape), 0.0
    for i in np.ndindex(y.shape[:-1]):
        rows = t.ndim == y.ndim
        true = t[i] if rows else [float(k == t[i]) for k in range(K)]
        q = [w[k] * ((1 - s) * true[k] + s / K) for k in range(K)]
        size = sum(math.exp(v) for v in y[i])
        for k in range(K):
            total -= q[k] * math.log(math.exp(y[i][k]) / size)
            slope[i][k] = math.exp(y[i][k]) / size * sum(q) - q[k]
        n += 1 if rows else w[t[i]]
    return total, slope, n


@given(
    seed=seeds(),
    shape=st.sampled_from([(3, 4), (2, 3, 5), (4,), (1, 2), (2, 1, 2, 3), (40, 3)]),
    s=st.sampled_from([0.0, 0.1, 1.0]),
    weighted=st.booleans(),
    rows=st.booleans(),
    reduction=BOTH,
)
def test_cross_entropy_is_a_plain_loop(seed, shape, s, weighted, rows, reduction):
    rng = np.random.default_rng(seed)
    y, t = rng.standard_normal(shape), (probabilities if rows else labels)(rng, shape)
    w = [0.5, 2, 1, 0.1, 3][: shape[-1]] if weighted else None
    total, slope, n = weighted_loop(y, np.asarray(t), s, w)
    n = n if reduction == "mean" else 1
    loss = CrossEntropyLoss(reduction, label_smoothing=s, class_weight=w)
    assert loss(y, t) == pytest.approx(total / n, rel=1e-12)
    assert_same([loss.backward()], [slope / n], 0, 1e-14)
    assert loss.n == pytest.approx(n, rel=1e-14)


def test_the_loss_of_a_class_is_minus_the_log_of_its_probability():
    y = np.random.default_rng(0).standard_normal((5, 4))
    t = np.array([0, 3, 1, 1, 2])
    loss = CrossEntropyLoss()
    assert loss(y, t) == pytest.approx(-special.log_softmax(y, axis=1)[range(5), t].mean())
    wanted = special.softmax(y, axis=1)
    wanted[range(5), t] -= 1
    assert_same([loss.backward()], [wanted / 5], 0, 1e-15)
    assert CrossEntropyLoss()(np.zeros((2, 10)), [3, 4]) == pytest.approx(math.log(10))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, ">i4", np.float32])
def test_labels_of_any_integers_are_one_hot_rows(dtype):
    y, t = np.random.default_rng(0).standard_normal((5, 4)), np.array([0, 3, 1, 1, 2])
    loss, rows = CrossEntropyLoss(label_smoothing=0.2), CrossEntropyLoss(label_smoothing=0.2)
    value = loss(y, t if np.dtype(dtype).kind == "f" else t.astype(dtype))
    assert rows(y, np.eye(4, dtype=dtype)[t]) == value
    np.testing.assert_array_equal(rows.backward(), loss.backward())


def test_three_classes_by_hand():
    """y = log of (1, 2, 5) gives the probabilities 1/8, 2/8 and 5/8."""
    y, w = np.log([[1.0, 2, 5], [1, 2, 5]]), [1, 2, 4]
    loss = CrossEntropyLoss(class_weight=w)
    assert loss(y, [1, 0]) == pytest.approx((2 * math.log(4) + 1 * math.log(8)) / 3)
    wanted = np.array([[2 / 8, 4 / 8 - 2, 10 / 8], [1 / 8 - 1, 2 / 8, 5 / 8]]) / 3
    assert_same([loss.backward()], [wanted], 0, 1e-15)
    smooth = CrossEntropyLoss("sum", label_smoothing=0.3)
    logs = [math.log(8), math.log(4), math.log(8 / 5)]
    assert smooth(y[0], 2) == pytest.approx(0.1 * logs[0] + 0.1 * logs[1] + 0.8 * logs[2])


def test_cross_entropy_is_stable_where_exponentials_are_not():
    loss = CrossEntropyLoss()
    with np.errstate(all="raise", under="ignore"):
        assert loss([[1e4, 0, -1e4]], [1]) == 1e4
        np.testing.assert_array_equal(loss.backward(), [[1, -1, 0]])
        assert loss([[1e4, 0, -1e4]], [0]) == 0
        assert not loss.backward().any()
        shifted = loss(np.array([[1e4, 1e4 + 1, 1e4 - 1]]), [0])
    assert shifted == pytest.approx(CrossEntropyLoss()([[0, 1, -1]], [0]), rel=1e-12)
    assert loss(np.array([[1e30, 0], [0, 1e30]], np.float32), [0, 0]) == np.float32(1e30) / 2


def test_a_class_that_a_mask_rules_out_costs_nothing_unless_it_is_the_true_one():
    y = np.array([[0.5, -np.inf, 1.5]])
    loss, without = CrossEntropyLoss(), CrossEntropyLoss()
    assert loss(y, [2]) == without(y[:, [0, 2]], [1])
    np.testing.assert_array_equal(loss.backward()[:, [0, 2]], without.backward())
    assert loss.backward()[0, 1] == 0
    assert loss(y, [1]) == math.inf


SHAPE = "target of shape (2, 3), or labels of shape (2,)"
ROWS = "target to have rows that are one-hot, or probabilities that sum to 1"


@pytest.mark.parametrize(
    ("target", "error", "text", "note"),
    [
        ([0, 3], ValueError, "labels in [0, 3), got 3", "Labels count from 0"),
        ([-1, 0], ValueError, "labels in [0, 3), got -1", "a -1 is often a missing label."),
        ([0.0, 1.0], TypeError, "labels to be integers, got dtype float64", "Convert whole"),
        ([True, False], TypeError, "labels to be integers, got dtype bool", "Convert whole"),
        ([0], ValueError, f"{SHAPE}, got (1,)", "Integer labels want the shape of pred without"),
        ([[0], [1]], ValueError, f"{SHAPE}, got (2, 1)", "`t[:, 0]`"),
        (0, ValueError, f"{SHAPE}, got ()", "Integer labels want"),
        (np.ones((3, 3)) / 3, ValueError, f"{SHAPE}, got (3, 3)", "Integer labels want"),
        *[
            (bad, ValueError, f"{ROWS}, got an array of shape (2, 3) and dtype float64", "metrics")
            for bad in (
                np.full((2, 3), 0.5),
                np.array([[1.5, -0.5, 0], [1, 0, 0]]),
                np.array([[np.nan, 0, 0], [1, 0, 0]]),
                np.zeros((2, 3)),
            )
        ],
    ],
)
def test_targets_that_are_no_classes_are_refused(target, error, text, note):
    loss = CrossEntropyLoss()
    with refusal(error, f"CrossEntropyLoss: expected {text}") as caught:
        loss(np.zeros((2, 3)), target)
    (found,) = caught.value.__notes__
    assert note in found
    with refusal_starting(RuntimeError, "CrossEntropyLoss: expected a forward before backward"):
        loss.backward()


def test_one_class_is_no_choice():
    contract = "pred of shape (..., classes) with two classes or more"
    with refusal(ValueError, f"CrossEntropyLoss: expected {contract}, got (4, 1)") as caught:
        CrossEntropyLoss()(np.zeros((4, 1)), np.zeros(4, int))
    assert "BCEWithLogitsLoss" in caught.value.__notes__[0]
    contract = "pred of shape (..., classes) with at least one element"
    with refusal(ValueError, f"CrossEntropyLoss: expected {contract}, got shape ()"):
        CrossEntropyLoss()(0.5, 0)


def test_a_batch_whose_weights_are_all_0_has_no_mean():
    loss, summed = (CrossEntropyLoss(r, class_weight=[0, 1]) for r in REDUCTIONS)
    contract = "target with a class of weight > 0"
    with refusal(ValueError, f"CrossEntropyLoss: expected {contract}, got none"):
        loss(np.zeros((3, 2)), [0, 0, 0])
    assert summed(np.zeros((3, 2)), [0, 0, 0]) == 0
    assert not summed.backward().any()
    assert loss(np.zeros((3, 2)), [0, 1, 0]) == pytest.approx(math.log(2))


def test_class_weights_are_copied_and_must_fit():
    weights = np.array([1.0, 2.0])
    loss = CrossEntropyLoss(class_weight=weights)
    weights[:] = 9
    assert loss.class_weight == (1, 2)
    with refusal(ValueError, "CrossEntropyLoss: expected class_weight of 3 numbers, got 2"):
        loss(np.zeros((4, 3)), [0, 1, 2, 0])
    loss.class_weight = None
    assert loss(np.zeros((4, 3)), [0, 1, 2, 0]) == pytest.approx(math.log(3))


FINITE = "class_weight to be finite numbers >= 0, one a class, got"


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"label_smoothing": 1.1}, ValueError, "label_smoothing in [0, 1], got 1.1"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing in [0, 1], got -0.1"),
        ({"label_smoothing": True}, TypeError, "label_smoothing in [0, 1], got True"),
        ({"class_weight": [1, -1]}, ValueError, f"{FINITE} a list"),
        ({"class_weight": [1, math.nan]}, ValueError, f"{FINITE} a list"),
        ({"class_weight": [1, math.inf]}, ValueError, f"{FINITE} a list"),
        ({"class_weight": 2}, ValueError, f"{FINITE} 2"),
        (
            {"class_weight": np.ones((2, 2))},
            ValueError,
            f"{FINITE} an array of shape (2, 2) and dtype float64",
        ),
        (
            {"class_weight": "balanced"},
            TypeError,
            "class_weight to be an array of real numbers, got 'balanced'",
        ),
    ],
)
def test_other_settings_are_refused_and_the_old_ones_stay(settings, error, text):
    loss = CrossEntropyLoss(label_smoothing=0.5, class_weight=[1, 2])
    with refusal(error, f"CrossEntropyLoss: expected {text}"):
        CrossEntropyLoss(**settings)
    for name, value in settings.items():
        with refusal(error, f"CrossEntropyLoss: expected {text}"):
            setattr(loss, name, value)
    assert (loss.label_smoothing, loss.class_weight) == (0.5, (1, 2))
