"""How well NetClassifier and NetRegressor predict beside scikit-learn's own networks, untuned.

    python tests/benchmarks/sklearn_nets.py --seeds 1 2 3

All have their defaults. MLPClassifier and MLPRegressor are fitted to the data as they are, and
behind a StandardScaler, of the targets too. Each seed makes five folds. A line has the mean score
(accuracy or R2), its standard error over folds and seeds, and the CPU seconds of a fit on one
thread. friedman1, 2 and 3 are functions that scikit-learn draws from: 1,000 samples with noise.
"""

import argparse
import time
import warnings

import numpy as np
from sklearn import datasets
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tinygrad_mnist import num_threads
from tinygrad_mnist.interop.sklearn import NetClassifier, NetRegressor

CLASSES = {
    "digits": datasets.load_digits(return_X_y=True),
    "breast_cancer": datasets.load_breast_cancer(return_X_y=True),
    "wine": datasets.load_wine(return_X_y=True),
    "iris": datasets.load_iris(return_X_y=True),
}
NUMBERS = {
    "diabetes": datasets.load_diabetes(return_X_y=True),
    "friedman1": datasets.make_friedman1(1000, noise=1.0, random_state=0),
    "friedman2": datasets.make_friedman2(1000, noise=50.0, random_state=0),
    "friedman3": datasets.make_friedman3(1000, noise=0.1, random_state=0),
}
CLASSIFIERS = {
    "NetClassifier": lambda seed: NetClassifier(random_state=seed),
    "MLPClassifier": lambda seed: MLPClassifier(random_state=seed),
    "scaled": lambda seed: make_pipeline(StandardScaler(), MLPClassifier(random_state=seed)),
}
REGRESSORS = {
    "NetRegressor": lambda seed: NetRegressor(random_state=seed),
    "MLPRegressor": lambda seed: MLPRegressor(random_state=seed),
    "scaled": lambda seed: TransformedTargetRegressor(
        make_pipeline(StandardScaler(), MLPRegressor(random_state=seed)),
        transformer=StandardScaler(),
    ),
}


def measured(make, folds, x, y, seeds):
    """Return the score of each fold and seed, and the CPU seconds of each fit."""
    scores, seconds = [], []
    for seed in seeds:
        for train, test in folds(5, shuffle=True, random_state=seed).split(x, y):
            start = time.process_time()
            model = make(seed).fit(x[train], y[train])
            seconds.append(time.process_time() - start)
            scores.append(model.score(x[test], y[test]))
    return np.array(scores), np.array(seconds)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    seeds = parser.parse_args().seeds
    warnings.simplefilter("ignore", ConvergenceWarning)
    kinds = [(CLASSES, CLASSIFIERS, StratifiedKFold), (NUMBERS, REGRESSORS, KFold)]
    with num_threads(1):
        for data, contenders, folds in kinds:
            for name, (x, y) in data.items():
                for contender, make in contenders.items():
                    scores, seconds = measured(make, folds, x, y, seeds)
                    error = scores.std() / len(scores) ** 0.5
                    print(
                        f"{name:14} {contender:14} {scores.mean():7.4f} +- {error:.4f}"
                        f"  {seconds.mean():.3f} s",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
