"""The arrays of the census, generic values from seeds, so that hardly any lies on a kink."""

import numpy as np


def normal(*shape, seed=0):
    """Return values around 0."""
    return np.random.default_rng(seed).standard_normal(shape)


def positive(*shape, seed=0):
    """Return values in (0.5, 2), for a logarithm or a root."""
    return np.random.default_rng(seed).uniform(0.5, 2, shape)


def inside(*shape, seed=0):
    """Return values in (-0.9, 0.9), for an arcsine."""
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape)


def probabilities(*shape, seed=0):
    """Return rows of probabilities, each at least 0.05 / the length of its row."""
    drawn = np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])
    return 0.95 * drawn + 0.05 / shape[-1]


def labels(*shape, classes=4, seed=0):
    """Return integers from 0 to classes - 1."""
    return np.random.default_rng(seed).integers(0, classes, shape)


def onehot(rows, classes=4, seed=0):
    """Return rows of zeros with a one at a drawn class."""
    return np.eye(classes)[labels(rows, classes=classes, seed=seed)]


def bits(*shape, seed=0):
    """Return zeros and ones, floats."""
    return np.random.default_rng(seed).integers(0, 2, shape).astype(np.float64)


def definite(n, seed=0):
    """Return a symmetric positive definite matrix."""
    a = normal(n, n, seed=seed)
    return a @ a.T + n * np.eye(n)


def reseed():
    """Rewind NumPy's global stream, from which several libraries draw parameters and masks."""
    np.random.seed(0)  # noqa: NPY002


# of a few rows and columns, for functions of one or two arrays
A, B = normal(3, 4), normal(3, 4, seed=1)
P, Q = positive(3, 4), positive(3, 4, seed=1)
U = inside(3, 4)
S, D = normal(4, 4), definite(4)
