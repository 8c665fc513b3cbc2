"""Metrics against plain loops and scikit-learn, and a refusal of what is no target."""

from itertools import product

import numpy as np
import pytest
from helpers import refusal, refusal_starting
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_mnist import metrics
from tinygrad_mnist.testing.strategies import seeds

NAMES = ["accuracy", "top_k_accuracy", "confusion_matrix", "precision", "recall", "f1", "support"]
NAMES += ["report"]
SIDES, CLASSES = st.integers(1, 7), st.integers(2, 7)


@pytest.fixture(scope="module")
def sklearn():
    return pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


def drawn(seed, samples, classes, ties=False):
    """Scores and labels; the scores of `ties` are often equal."""
    rng = np.random.default_rng(seed)
    shape = (samples, classes)
    pred = rng.integers(0, 3, shape).astype(float) if ties else rng.standard_normal(shape)
    return pred, rng.integers(0, classes, samples)


def ranking(scores):
    """The classes from the largest score down: NaN first, equal scores in their order."""
    nan_first = [(0, 0.0) if np.isnan(y) else (1, -y) for y in scores]
    return sorted(range(len(scores)), key=lambda j: nan_first[j])


def looped(pred, labels):
    matrix = [[0] * pred.shape[1] for _ in range(pred.shape[1])]
    for scores, label in zip(pred, labels, strict=True):
        matrix[label][ranking(scores)[0]] += 1
    return matrix


def call(name, *args):
    """Call a metric; top_k_accuracy with k = 1. Of a report, return the rows as lists."""
    extra = {"k": 1} if name == "top_k_accuracy" else {}
    result = getattr(metrics, name)(*args, **extra)
    return [list(row) for row in result.rows] if name == "report" else result


def refused(error, name, text):
    return refusal(error, f"metrics.{name}: {text}")


@given(seed=seeds(), samples=SIDES, classes=CLASSES, ties=st.booleans())
def test_each_is_a_plain_loop(seed, samples, classes, ties):
    pred, labels = drawn(seed, samples, classes, ties)
    matrix = looped(pred, labels)
    hits = [matrix[c][c] for c in range(classes)]
    predicted = [sum(matrix[i][c] for i in range(classes)) for c in range(classes)]
    accuracy = metrics.accuracy(pred, labels)
    assert type(accuracy) is float
    assert accuracy == sum(hits) / samples
    counts = metrics.confusion_matrix(pred, labels)
    np.testing.assert_array_equal(counts, np.array(matrix, np.int64), strict=True)
    precision = [h / n if n else np.nan for h, n in zip(hits, predicted, strict=True)]
    recall = [h / sum(row) if sum(row) else np.nan for h, row in zip(hits, matrix, strict=True)]
    np.testing.assert_array_equal(metrics.precision(pred, labels), precision, strict=True)
    np.testing.assert_array_equal(metrics.recall(pred, labels), recall, strict=True)
    support = [sum(row) for row in matrix]
    np.testing.assert_array_equal(metrics.support(pred, labels), support, strict=True)
    f1 = [np.nan] * classes
    for c in range(classes):
        if predicted[c] + support[c]:
            f1[c] = 2 * hits[c] / (predicted[c] + support[c])
    np.testing.assert_array_equal(metrics.f1(pred, labels), f1, strict=True)


@given(seed=seeds(), samples=SIDES, classes=CLASSES, ties=st.booleans(), nans=st.booleans())
def test_top_k_is_a_plain_loop(seed, samples, classes, ties, nans):
    pred, labels = drawn(seed, samples, classes, ties)
    if nans:
        pred[np.random.default_rng(seed).random(pred.shape) < 0.3] = np.nan
    for k in range(1, classes + 1):
        hits = sum(label in ranking(y)[:k] for y, label in zip(pred, labels, strict=True))
        value = metrics.top_k_accuracy(pred, labels, k=k)
        assert type(value) is float
        assert value == hits / samples
    assert metrics.top_k_accuracy(pred, labels, k=1) == metrics.accuracy(pred, labels)


def test_top_5_by_default():
    pred = np.arange(7.0)
    assert [metrics.top_k_accuracy(pred, label) for label in range(7)] == [0, 0, 1, 1, 1, 1, 1]


@given(seed=seeds(), samples=st.integers(1, 30), classes=CLASSES)
def test_each_agrees_with_scikit_learn(sklearn, seed, samples, classes):
    pred, labels = drawn(seed, samples, classes)
    predicted, every = pred.argmax(axis=1), list(range(classes))
    assert metrics.accuracy(pred, labels) == pytest.approx(
        sklearn.accuracy_score(labels, predicted)
    )
    np.testing.assert_array_equal(
        metrics.confusion_matrix(pred, labels),
        sklearn.confusion_matrix(labels, predicted, labels=every),
    )
    options = {"labels": every, "average": None, "zero_division": np.nan}
    for ours, theirs in [
        (metrics.precision, sklearn.precision_score),
        (metrics.recall, sklearn.recall_score),
        (metrics.f1, sklearn.f1_score),
    ]:
        np.testing.assert_allclose(
            ours(pred, labels), theirs(labels, predicted, **options), rtol=1e-15
        )
    if classes > 2:  # scikit-learn takes two classes for one column of scores
        for k in range(1, classes):
            assert metrics.top_k_accuracy(pred, labels, k=k) == pytest.approx(
                sklearn.top_k_accuracy_score(labels, pred, k=k, labels=every)
            )


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds(), samples=SIDES, classes=CLASSES)
def test_one_hot_targets_are_labels(name, seed, samples, classes):
    pred, labels = drawn(seed, samples, classes)
    wanted = call(name, pred, labels)
    for dtype in (np.float32, np.float64, bool, np.uint8):
        np.testing.assert_array_equal(
            call(name, pred, np.eye(classes, dtype=dtype)[labels]), wanted
        )


@pytest.mark.parametrize("name", NAMES)
def test_soft_targets_count_by_their_largest_entry(name):
    pred = np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    soft = np.array([[0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]])
    np.testing.assert_array_equal(call(name, pred, soft), call(name, pred, [1, 2, 0]))


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds(), classes=CLASSES)
def test_one_sample_is_a_batch_of_one(name, seed, classes):
    pred, labels = drawn(seed, 1, classes)
    wanted = call(name, pred, labels)
    for target in (labels[0], int(labels[0]), np.eye(classes)[labels[0]]):
        np.testing.assert_array_equal(call(name, pred[0], target), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_leading_axes_are_samples(name):
    pred, labels = drawn(0, 12, 3)
    wanted = call(name, pred, labels)
    pred, labels = pred.reshape(3, 4, 3), labels.reshape(3, 4)
    np.testing.assert_array_equal(call(name, pred, labels), wanted)
    np.testing.assert_array_equal(call(name, np.asfortranarray(pred), np.eye(3)[labels]), wanted)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [*"bBhHiIlLqQ", ">i4", ">u2"])
def test_labels_of_any_integer_type(name, dtype):
    pred, labels = np.eye(100), np.arange(100)[::-1]  # 99 * 100 + 0 is no uint8
    np.testing.assert_array_equal(
        call(name, pred, labels.astype(dtype)), call(name, pred, np.eye(100)[::-1])
    )


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_compared_in_their_own_dtype(name):
    pred = np.array([[2**63, 2**63 + 1]], np.uint64)  # equal as floats
    np.testing.assert_array_equal(call(name, pred, [1]), call(name, [[0, 1]], [1]))
    np.testing.assert_array_equal(
        call(name, [[False, True]], [[True, False]]), call(name, [[0, 1]], [0])
    )


@pytest.mark.parametrize("name", NAMES)
def test_equal_scores_go_to_the_first_class_and_nan_is_the_largest(name):
    inf, nan = np.inf, np.nan
    pred = [[1, 2, 2], [0, 0, 0], [inf, nan, nan], [-inf, -inf, -inf], [0.0, -0.0, -1]]
    firsts = [[0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]]
    for target in (firsts, [1, 0, 1, 0, 0], [2, 1, 0, 2, 1]):
        np.testing.assert_array_equal(call(name, pred, target), call(name, firsts, target))


@pytest.mark.parametrize("name", NAMES)
def test_no_numpy_warning_and_nothing_modified(name):
    pred, target = np.array([[np.nan, 1.0, np.inf], [1.0, 0.0, 0.0]]), np.array([1, 1])
    pred.setflags(write=False)
    target.setflags(write=False)
    with np.errstate(all="raise"):
        call(name, pred, target)


def test_nan_for_a_class_never_predicted_or_without_a_sample():
    pred = np.eye(3)[[0, 0, 1]]  # never 2
    np.testing.assert_array_equal(metrics.precision(pred, [0, 1, 2]), [0.5, 0, np.nan])
    np.testing.assert_array_equal(metrics.recall(pred, [0, 1, 1]), [1, 0.5, np.nan])
    np.testing.assert_array_equal(metrics.f1(pred, [0, 1, 1]), [2 / 3, 2 / 3, np.nan])
    np.testing.assert_array_equal(metrics.f1(pred, [0, 1, 2]), [2 / 3, 0, 0])


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_true_and_columns_predicted(name):
    wanted = {
        "accuracy": 0.5,
        "top_k_accuracy": 0.5,
        "confusion_matrix": [[1, 0], [1, 0]],
        "precision": [0.5, np.nan],
        "recall": [1, 0],
        "f1": [2 / 3, 0],
        "support": [1, 1],
        "report": [
            ["0", "0.500", "1.000", "0.667", "1"],
            ["1", "nan", "0.000", "0.000", "1"],
            ["macro mean", "nan", "0.500", "0.333", "2"],
            ["accuracy", "", "", "0.500", "2"],
        ],
    }
    np.testing.assert_array_equal(call(name, [[1, 0], [1, 0]], [0, 1]), wanted[name])


KINDS = {
    "labels": lambda labels, n: labels,
    "labels as floats": lambda labels, n: labels.astype(float),
    "a column": lambda labels, n: labels[:, None],
    "a column of floats": lambda labels, n: labels[:, None].astype(float),
    "rows": lambda labels, n: np.eye(n)[labels],
    "rows of integers": lambda labels, n: np.eye(n, dtype=int)[labels],
}


@settings(max_examples=40)  # of each, a hundred pairs of kinds are called
@given(seed=seeds(), samples=SIDES, classes=CLASSES)
def test_what_is_not_refused_is_what_scikit_learn_says(sklearn, seed, samples, classes):
    predicted, true = np.random.default_rng(seed).integers(0, classes, (2, samples))
    every, options = list(range(classes)), {"average": None, "zero_division": np.nan}
    accuracy = sklearn.accuracy_score(true, predicted)
    wanted = {
        "accuracy": accuracy,
        "top_k_accuracy": accuracy,
        "confusion_matrix": sklearn.confusion_matrix(true, predicted, labels=every),
        "precision": sklearn.precision_score(true, predicted, labels=every, **options),
        "recall": sklearn.recall_score(true, predicted, labels=every, **options),
        "f1": sklearn.f1_score(true, predicted, labels=every, **options),
        "support": np.bincount(true, minlength=classes),
    }
    for pred, target, name in product(KINDS, KINDS, wanted):
        arrays = KINDS[pred](predicted, classes), KINDS[target](true, classes)
        if pred.startswith("rows") and target in ("labels", "rows", "rows of integers"):
            np.testing.assert_allclose(call(name, *arrays), wanted[name])
        # scores of one sample are floats, and its target is one-hot
        elif not (arrays[0].ndim == 1 and arrays[0].dtype == float and sum(true) == 1):
            with pytest.raises((ValueError, TypeError), match=f"^metrics.{name}: expected "):
                call(name, *arrays)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1,), (5, 1), (2, 3, 1)])
def test_one_column_is_refused(name, shape):
    contract = "expected pred of shape (..., classes) with two classes or more"
    for target in (np.zeros(shape[:-1], int), np.zeros(shape), np.ones(shape)):
        with refused(ValueError, name, f"{contract}, got {shape}"):
            call(name, np.zeros(shape), target)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_predicted_labels_are_refused(name, dtype):
    contract = "expected pred to hold scores, not predicted labels"
    for target in ([0, 1, 0], [1, 2, 0], np.eye(3)):
        with refused(ValueError, name, f"{contract}, got an array of shape (3,) and dtype {dtype}"):
            call(name, np.array([0, 1, 0], dtype), target)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "row",
    [
        [0.2, 5.0, 1.0],
        [1, 1, 0],
        [0, 0, 0],
        [-1, 1, 1],
        [np.nan, 1, 0],
        [np.inf, 0, 0],
        [0.2] * 3,
        [1e308] * 3,
    ],
    ids=str,
)
def test_rows_that_are_no_classes_are_refused(name, row):
    contract = "expected target to have rows that are one-hot, or probabilities that sum to 1"
    for target in (np.array(row, float), np.array([[0.0, 1, 0], row])):
        got = f"an array of shape {target.shape} and dtype float64"
        with np.errstate(all="raise"), refused(ValueError, name, f"{contract}, got {got}"):
            call(name, np.zeros(target.shape), target)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_may_be_rounded(dtype):
    thirds = np.full((1, 3), 1 / 3, dtype)  # their sum is 0.99976 in float16
    assert metrics.accuracy([[1.0, 0.0, 0.0]], thirds) == 1
    pred, labels = drawn(0, 50, 30)
    soft = (0.7 * np.eye(30)[labels] + 0.3 / 30).astype(dtype)
    assert metrics.accuracy(pred, soft) == metrics.accuracy(pred, labels)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(), (0,), (0, 10), (3, 0), (2, 0, 10)])
def test_no_scores_are_refused(name, shape):
    contract = "expected pred of shape (..., classes) with at least one element"
    with refused(ValueError, name, f"{contract}, got shape {shape}"):
        call(name, np.zeros(shape), np.zeros(shape))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("pred", "target", "contract"),
    [
        ((5, 3), (4,), "target of shape (5, 3), or labels of shape (5,)"),
        ((5, 3), (5, 1), "target of shape (5, 3), or labels of shape (5,)"),
        ((5, 3), (5, 4), "target of shape (5, 3), or labels of shape (5,)"),
        ((5, 3), (3,), "target of shape (5, 3), or labels of shape (5,)"),
        ((5, 3), (), "target of shape (5, 3), or labels of shape (5,)"),
        ((3,), (1,), "target of shape (3,), or labels of shape ()"),
    ],
)
def test_another_shape_is_refused(name, pred, target, contract):
    with refused(ValueError, name, f"expected {contract}, got {target}"):
        call(name, np.zeros(pred), np.zeros(target, int))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "bool"])
def test_labels_that_are_no_integers_are_refused(name, dtype):
    with refused(TypeError, name, f"expected labels to be integers, got dtype {dtype}"):
        call(name, np.zeros((2, 3)), np.zeros(2, dtype))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("label", [-1, 3, 10**12, -(2**63)])
def test_labels_outside_are_refused(name, label):
    for pred, labels in [(np.zeros((2, 3)), [0, label]), (np.zeros(3), label)]:
        with refused(ValueError, name, f"expected labels in [0, 3), got {label}"):
            call(name, pred, labels)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "wrong", [None, "3", [1, None], 1j, np.ma.masked_array([1.0]), [[1], [1, 2]]], ids=str
)
def test_what_is_no_array_of_real_numbers_is_refused(name, wrong):
    for argument, args in [("pred", (wrong, [0])), ("target", (np.zeros((1, 3)), wrong))]:
        text = f"metrics.{name}: expected {argument} to be an array of real numbers, got "
        with refusal_starting(TypeError, text):
            call(name, *args)


@pytest.mark.parametrize(
    ("k", "error", "contract", "found"),
    [
        (0, ValueError, "k to be an integer >= 1", "0"),
        (True, TypeError, "k to be an integer >= 1", "True"),
        (1.0, TypeError, "k to be an integer >= 1", "1.0"),
        (4, ValueError, "k of at most the 3 classes", "4"),
    ],
)
def test_k_outside_is_refused(k, error, contract, found):
    with refused(error, "top_k_accuracy", f"expected {contract}, got {found}"):
        metrics.top_k_accuracy(np.zeros((2, 3)), [0, 1], k=k)


def test_k_may_be_a_numpy_integer():
    assert metrics.top_k_accuracy(np.arange(300.0), 299, k=np.uint8(1)) == 1


# A report


def test_a_report_has_the_numbers_of_scikit_learns(sklearn):
    pred, labels = drawn(1, 40, 6)
    told = sklearn.classification_report(labels, pred.argmax(axis=1), digits=3)
    theirs = [line.replace("macro avg", "macro mean").split() for line in told.splitlines()]
    ours = [line.split() for line in str(metrics.report(pred, labels)).splitlines()]
    assert len(ours) == 9
    assert all(line in theirs for line in ours[1:])


def test_a_report_is_a_table_with_the_names_of_the_classes():
    pred = np.eye(3)[[0, 1, 1, 2]]
    assert str(metrics.report(pred, [0, 1, 2, 2], names=np.array(["cat", "dog", "a horse"]))) == (
        "            precision  recall     F1  support\n"
        "cat             1.000   1.000  1.000        1\n"
        "dog             0.500   1.000  0.667        1\n"
        "a horse         1.000   0.500  0.667        2\n"
        "macro mean      0.833   0.833  0.778        4\n"
        "accuracy                       0.750        4"
    )


@pytest.mark.parametrize(
    ("names", "found"),
    [(["cat"], "a list"), ("abc", "'abc'"), ((), "()"), (3, "3")],
)
def test_names_that_are_not_one_a_class_are_refused(names, found):
    with refused(ValueError, "report", f"expected names of 3 classes, got {found}"):
        metrics.report(np.eye(3), [0, 1, 2], names=names)


# Regression


@given(seed=seeds(), samples=st.integers(2, 9), outputs=st.integers(0, 3))
def test_regression_equals_a_plain_loop_and_scikit_learn(sklearn, seed, samples, outputs):
    rng = np.random.default_rng(seed)
    y, t = rng.standard_normal((2, samples, outputs) if outputs else (2, samples))
    error = metrics.mean_absolute_error(y, t)
    assert type(error) is float
    entries = [abs(a - b) for a, b in zip(y.flat, t.flat, strict=True)]
    assert error == pytest.approx(sum(entries) / len(entries), rel=1e-12)
    of_outputs = []
    for a, b in zip(y.reshape(samples, -1).T, t.reshape(samples, -1).T, strict=True):
        mean = sum(b) / samples
        squares = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
        of_outputs.append(1 - squares / sum((q - mean) ** 2 for q in b))
    r2 = metrics.r2(y, t)
    assert type(r2) is float
    assert r2 == pytest.approx(sum(of_outputs) / len(of_outputs), rel=1e-9)
    assert r2 == pytest.approx(sklearn.r2_score(t, y), rel=1e-9)


def test_r2_of_the_mean_is_0_and_of_the_target_1():
    t = np.array([1.0, 2.0, 6.0])
    assert metrics.r2(t, t) == 1
    assert metrics.r2(np.full(3, 3.0), t) == 0
    assert metrics.r2(t[::-1], t) == pytest.approx(1 - 50 / 14)


def test_r2_of_a_constant_target_is_1_or_0(sklearn):
    t = np.full((7, 2), 0.1)  # whose mean in floats is another number
    y = t.copy()
    y[3, 1] += 1e-9
    assert metrics.r2(y[:, 0], t[:, 0]) == 1
    assert metrics.r2(y[:, 1], t[:, 1]) == 0
    assert metrics.r2(y, t) == 0.5
    ones = np.ones((7, 2))
    assert metrics.r2(10 * y, ones) == sklearn.r2_score(ones, 10 * y)
    t[:, 0] = range(7)  # beside an output that is not constant
    assert metrics.r2(np.stack([t[:, 0], y[:, 1]], axis=1), t) == 0.5


def test_a_regression_is_computed_in_float64():
    y, t = np.array([200, 100], np.uint8), np.array([100, 200], np.uint8)  # 100 - 200 is 156
    assert metrics.mean_absolute_error(y, t) == 100
    assert metrics.r2(y, t) == -3
    halves = np.full(4096, 16.0, np.float16)  # whose sum is no float16
    assert metrics.mean_absolute_error(halves, np.zeros(4096)) == 16
    assert np.isnan(metrics.r2([np.nan, 1], [1, 2]))


@pytest.mark.parametrize("name", ["mean_absolute_error", "r2"])
@pytest.mark.parametrize(
    ("pred", "target", "error", "text"),
    [
        (np.zeros((4, 1)), np.zeros(4), ValueError, "target of shape (4, 1), got (4,)"),
        (np.zeros(4), np.zeros((4, 1)), ValueError, "target of shape (4,), got (4, 1)"),
        ([], [], ValueError, "pred with at least one element, got shape (0,)"),
        ([1, 2], None, TypeError, "target to be an array of real numbers, got None"),
        ("12", [1, 2], TypeError, "pred to be an array of real numbers, got '12'"),
    ],
)
def test_what_are_no_pairs_of_numbers_is_refused(name, pred, target, error, text):
    with refused(error, name, f"expected {text}"):
        getattr(metrics, name)(pred, target)


@pytest.mark.parametrize("shape", [(), (1,), (1, 3)])
def test_r2_of_one_sample_is_refused(shape):
    with refused(ValueError, "r2", f"expected pred of two samples or more, got {shape}"):
        metrics.r2(np.zeros(shape), np.zeros(shape))
