"""Estimators: scikit-learn's own checks, what a weight does, and what comes out of a fit."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra `sklearn`")
from sklearn.base import clone
from sklearn.datasets import load_iris, make_regression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tinygrad_mnist import Dropout, Linear, ReLU
from tinygrad_mnist.interop.sklearn import (
    NetClassifier,
    NetRegressor,
    _WeightedCrossEntropy,
    _WeightedMSE,
)
from tinygrad_mnist.losses import CrossEntropyLoss, MSELoss
from tinygrad_mnist.training.checkpoint import load_model, save_model

X, LABELS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[LABELS]
XR, YR = make_regression(60, 5, n_targets=2, random_state=0)


def expected_failures(estimator):
    # scikit-learn's words for its own estimators that train on batches in random order
    reason = "sample_weight is not equivalent to removing/repeating samples."
    return {"check_sample_weight_equivalence_on_dense_data": reason}


@parametrize_with_checks(
    [NetClassifier(), NetRegressor()], expected_failed_checks=expected_failures
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def same_bits(one, other):
    pairs = zip(one.model_.parameters(), other.model_.parameters(), strict=True)
    return all(np.array_equal(p.data, q.data) for p, q in pairs)


def test_a_weighted_sample_is_as_many_samples_to_the_losses():
    rng, times = np.random.default_rng(0), np.array([3, 0, 1, 2])
    y, t = rng.normal(size=(2, 4, 3))
    labels, rows = np.array([0, 2, 1, 1]), np.arange(4).repeat(times)
    weighted, plain = _WeightedMSE("sum"), MSELoss("sum")
    value = plain(y[rows], t[rows])
    assert weighted(y, np.column_stack([t, times])) == pytest.approx(value)
    np.testing.assert_allclose(weighted.backward(), times[:, None] * 2 * (y - t))
    weighted, plain = _WeightedCrossEntropy("sum"), CrossEntropyLoss("sum")
    value = plain(y[rows], labels[rows])
    assert weighted(y, times[:, None] * np.eye(3)[labels]) == pytest.approx(value)
    slope = np.zeros_like(y)
    np.add.at(slope, rows, plain.backward())
    np.testing.assert_allclose(weighted.backward(), slope)
    assert _WeightedMSE()(y, np.column_stack([t, times])) == pytest.approx(
        (times * ((y - t) ** 2).mean(axis=1)).mean()
    )
    assert _WeightedCrossEntropy()(y, times[:, None] * np.eye(3)[labels]) == pytest.approx(
        value / 4
    )


@pytest.mark.parametrize(
    ("net", "x", "y"),
    [(NetClassifier, X, NAMES), (NetRegressor, XR, YR), (NetRegressor, XR, YR[:, 0])],
)
def test_a_weighted_sample_is_as_many_samples_to_fit_where_a_step_is_of_all(net, x, y):
    times = np.random.default_rng(1).integers(4, size=len(x))
    rows = np.arange(len(x)).repeat(times)
    settings = {"epochs": 8, "batch_size": 1000, "random_state": 0}
    weighted = net(**settings).fit(x, y, sample_weight=5 * times)
    repeated = net(**settings).fit(x[rows], y[rows])
    first, second = weighted.model_(x), repeated.model_(x)
    np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3 * second.std())
    assert weighted.history_.best("loss")["loss"] == pytest.approx(
        repeated.history_.best("loss")["loss"], rel=1e-4
    )
    unweighted = net(**settings).fit(x, y).model_(x)
    assert abs(unweighted - second).max() > 0.02 * second.std()


def test_class_weights_are_sample_weights():
    rare = np.r_[0:50, 50:60, 100:105]
    x, y = X[rare], NAMES[rare]
    weights = {name: 65 / (3 * (y == name).sum()) for name in set(y)}
    balanced = NetClassifier(epochs=2, class_weight="balanced", random_state=0).fit(x, y)
    named = NetClassifier(epochs=2, class_weight=weights, random_state=0).fit(x, y)
    assert same_bits(balanced, named)
    plain = NetClassifier(epochs=2, random_state=0).fit(x, y)
    assert (balanced.predict(X) == NAMES).mean() > (plain.predict(X) == NAMES).mean()
    assert plain.predict_proba(X)[:, 2].mean() < balanced.predict_proba(X)[:, 2].mean()


def test_fit_finds_classes_of_strings_and_is_silent(capfd):
    net = NetClassifier(random_state=0).fit(X, NAMES)
    assert net.score(X, NAMES) > 0.95
    assert net.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    np.testing.assert_allclose(np.exp(net.predict_log_proba(X)), net.predict_proba(X))
    assert not any(p.grad.any() for p in net.model_.parameters())
    assert capfd.readouterr() == ("", "")


def test_outputs_of_the_model_are_those_of_inputs_as_they_are(tmp_path):
    net = NetRegressor((8, 4), dropout=0.1, epochs=20, random_state=0).fit(XR, YR)
    assert [type(layer) for layer in net.model_] == [Linear, ReLU, Dropout] * 2 + [Linear]
    np.testing.assert_array_equal(net.model_(XR), net.predict(XR))
    save_model(tmp_path / "net.npz", net.model_)
    np.testing.assert_array_equal(load_model(tmp_path / "net.npz")[0](XR), net.predict(XR))


def test_the_units_of_inputs_and_targets_do_not_matter():
    net = NetRegressor(epochs=20, random_state=0).fit(XR, YR)
    other = clone(net).fit(1e6 + XR * [1e-3, 1, 10, 1e3, 1e-3], 7 + 50 * YR)
    y = other.predict(1e6 + XR * [1e-3, 1, 10, 1e3, 1e-3])
    assert net.score(XR, YR) > 0.9
    np.testing.assert_allclose((y - 7) / 50, net.predict(XR), atol=1e-3 * YR.std())
    assert NetRegressor(epochs=1).fit(XR, 0 * YR).predict(XR).shape == YR.shape


def test_the_same_random_state_gives_the_same_bits():
    def fitted(state):
        return NetClassifier(epochs=2, dropout=0.2, random_state=state).fit(X, LABELS)

    assert same_bits(fitted(3), fitted(3))
    assert not same_bits(fitted(3), fitted(4))
    state = np.random.RandomState(3)
    assert not same_bits(fitted(state), fitted(state))


def test_partial_fit_goes_on_after_a_pickle_to_the_bit():
    order = np.random.default_rng(0).permutation(len(X))
    net = NetClassifier(dropout=0.2, random_state=0)
    for rows in np.split(order, 5):
        net.partial_fit(X[rows], NAMES[rows], classes=NAMES)
    twin = pickle.loads(pickle.dumps(net))
    for rows in np.split(order, 5):
        net.partial_fit(X[rows], NAMES[rows])
        twin.partial_fit(X[rows], NAMES[rows])
    assert same_bits(net, twin)
    assert net.score(X, NAMES) > 0.75


def test_partial_fit_goes_on_where_fit_ended_at_the_full_rate():
    net = NetRegressor(epochs=3, random_state=0).fit(XR, YR)
    rates = [record["lr"] for record in net.history_.records]
    assert net.lr > rates[0] > rates[1] > rates[2]
    score = net.score(XR, YR)
    for _ in range(5):
        net.partial_fit(XR, YR)
    assert net.score(XR, YR) > score + 0.05
    assert net.history_.records[-1]["lr"] == net.lr


@pytest.mark.parametrize("again", ["fit", "partial_fit"])
def test_what_fails_leaves_the_estimator_as_it_was(again):
    net = NetClassifier((5,), epochs=1, random_state=0).fit(X, NAMES)
    before = pickle.dumps(net)
    if again == "fit":  # of other classes and scales
        with pytest.raises(ValueError, match="lr"):
            net.set_params(lr=-1.0).fit(9 * X[:, 1:], LABELS)
        net.set_params(lr=0.01)
    else:
        with pytest.raises(FloatingPointError), np.errstate(all="ignore"):
            net.partial_fit(1e60 * X, NAMES)
    other = pickle.loads(before)
    assert (net.predict(X) == other.predict(X)).all()
    assert same_bits(net.partial_fit(X, NAMES), other.partial_fit(X, NAMES))


def test_partial_fit_takes_weights_as_they_are_where_a_batch_is_of_one_class():
    def trained(**settings):
        net = NetClassifier((5,), lr=0.1, random_state=0, **settings)
        net.partial_fit(X, LABELS, range(3))
        for label in (0, 1):
            net.partial_fit(X[label == LABELS][:1], [label])
        return net

    assert same_bits(trained(), trained(class_weight=dict.fromkeys(range(3), 1)))
    assert not same_bits(trained(), trained(class_weight={0: 1, 1: 50, 2: 1}))
    one, other = (clone(trained()).partial_fit(X, LABELS, range(3)) for _ in range(2))
    one.partial_fit(X[:1], [0], sample_weight=[9.0])
    assert not same_bits(one, other.partial_fit(X[:1], [0]))


def test_partial_fit_takes_a_new_weight_decay():
    one = NetRegressor((5,), random_state=0).partial_fit(XR, YR)
    other = pickle.loads(pickle.dumps(one)).set_params(weight_decay=9.0)
    assert not same_bits(one.partial_fit(XR, YR), other.partial_fit(XR, YR))


def test_early_stopping_stops_and_keeps_the_best_epoch(monkeypatch):
    def first_ten_held(x, t, **options):
        return x[10:], x[:10], t[10:], t[:10]

    x = np.random.default_rng(0).normal(size=(80, 1))
    y = x[::-1, 0].copy()  # nothing can be learned of it
    monkeypatch.setattr("tinygrad_mnist.interop.sklearn.train_test_split", first_ten_held)
    net = NetRegressor(early_stopping=True, patience=2, random_state=0).fit(x, y)
    best = net.history_.best("val_loss")
    assert len(net.history_.records) == best["epoch"] + 2 < net.epochs
    errors = (net.predict(x[:10]) - y[:10]) / y.std()
    assert (errors**2).mean() == pytest.approx(best["val_loss"], rel=1e-4)


def test_what_is_held_back_has_all_classes():
    net = NetClassifier(early_stopping=True, validation_fraction=0.2, epochs=1).fit(X, NAMES)
    assert "val_loss" in net.history_.records[0]
    with pytest.raises(ValueError, match="least populated class"):
        net.fit(X, np.r_[NAMES[:-1], ["another"]])


def test_searches_and_pipelines_take_them():
    pipeline = make_pipeline(MinMaxScaler(), NetClassifier(epochs=4, random_state=0))
    grid = {"netclassifier__hidden": [(), (8, 8)], "netclassifier__lr": [1e-9, 0.03]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, NAMES)
    assert search.best_params_["netclassifier__lr"] == 0.03
    scores = cross_val_score(NetRegressor((8,), epochs=2), XR, YR, cv=2)
    assert scores.shape == (2,)


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        (
            lambda: NetClassifier(5).fit(X, LABELS),
            TypeError,
            "NetClassifier: expected hidden to be a tuple of integers, got 5",
        ),
        (
            lambda: NetClassifier((5, 0)).fit(X, LABELS),
            ValueError,
            "NetClassifier: expected hidden[1] to be an integer >= 1, got 0",
        ),
        (
            lambda: NetRegressor(epochs=0).fit(XR, YR),
            ValueError,
            "NetRegressor: expected epochs to be an integer >= 1, got 0",
        ),
        (
            lambda: NetRegressor(lr=-1).fit(XR, YR),
            ValueError,
            "AdamW: expected lr in [0, inf), got -1",
        ),
        (
            lambda: NetRegressor(early_stopping=1).fit(XR, YR),
            TypeError,
            "NetRegressor: expected early_stopping to be a bool, got 1",
        ),
        (
            lambda: NetClassifier(early_stopping=True, validation_fraction=0.001).fit(X, LABELS),
            ValueError,
            "NetClassifier: expected validation_fraction=0.001 to split the samples, got The test",
        ),
        (
            lambda: NetClassifier().fit(X, 0 * LABELS),
            ValueError,
            "NetClassifier: expected y of 2 classes or more, got 1 class",
        ),
        (
            lambda: NetClassifier().partial_fit(X, LABELS),
            ValueError,
            "NetClassifier: expected classes in the first partial_fit, got None",
        ),
        (
            lambda: NetClassifier().partial_fit(X, NAMES, ["setosa", "virginica"]),
            ValueError,
            "NetClassifier: expected y to be among classes_, got 'versicolor'",
        ),
        (
            lambda: NetClassifier(class_weight="balanced").partial_fit(X, LABELS, LABELS),
            ValueError,
            "NetClassifier: expected class_weight as numbers in partial_fit, got 'balanced'",
        ),
        (
            lambda: NetRegressor(early_stopping=True).partial_fit(XR, YR),
            ValueError,
            "NetRegressor: expected early_stopping=False in partial_fit, got True",
        ),
        (
            lambda: NetClassifier(class_weight=dict.fromkeys(range(3), 0)).fit(X, LABELS),
            ValueError,
            "NetClassifier: expected a sample of weight > 0, got none",
        ),
        (
            lambda: NetClassifier(class_weight={0: -1, 1: -1, 2: -1}).fit(X, LABELS),
            ValueError,
            "NetClassifier: expected class_weight in [0, inf), got -1.0",
        ),
        (
            lambda: NetClassifier(epochs=1).fit(X, LABELS).partial_fit(X, LABELS, [0, 1, 2, 3]),
            ValueError,
            "NetClassifier: expected classes to be classes_, got ",
        ),
        (
            lambda: NetRegressor(epochs=1).fit(XR, YR).partial_fit(XR, YR[:, 0]),
            ValueError,
            "NetRegressor: expected y of shape (60, 2), got (60, 1)",
        ),
    ],
)
def test_what_is_refused(train, error, message):
    with pytest.raises(error) as told:
        train()
    assert str(told.value).startswith(message)
