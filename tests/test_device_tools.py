"""What is asked of a problem before and after a run, where nothing may be read: the numbers are those of the CPU."""

from nn.spectra import METRICS, PowerIteration, singular_values
from npopt import L1, backend, gradcheck
from npopt.analysis import stable
from problems import Lasso, Logistic

import numpy as np
import pytest
import scipy.sparse


def logistic(kind, **more):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((30, 4)) * (rng.random((30, 4)) < 0.7)
    return Logistic(kind(X), np.where(rng.random(30) < 0.5, -1, 1), 0.1, **more)


def same(device, ask, rtol=1e-9):
    """What `ask` answers on the device and on the CPU, a list of numbers each, must agree."""
    found = []
    for where in (device, "cpu"):
        backend.use(where)
        found.append(ask())
    np.testing.assert_allclose(found[0], found[1], rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix], ids=["dense", "sparse"])
def test_constants_minima_and_variances(kind, device):
    def ask():
        problem = logistic(kind)
        x = backend.asarray(np.linspace(-1, 1, 4))
        return [
            problem.minimum()[1],
            problem.smoothness(),
            problem.strong_convexity(),
            problem.gradient_variance(x),
            *problem.metrics(x).values(),
            *problem.predict(x, problem.host_X),
        ]

    same(device, ask)


@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix], ids=["dense", "sparse"])
def test_gradients_are_checked(kind, device):
    assert gradcheck(logistic(kind, intercept=True), backend.asarray(np.linspace(-1, 1, 5))).ok


def test_certificates(device):
    def ask():
        rng = np.random.default_rng(0)
        lasso, x = Lasso(rng.standard_normal((20, 4)), rng.standard_normal(20), 0.1), backend.asarray(np.full(4, 0.1))
        penalised = logistic(np.asarray, regulariser=L1(0.05))
        return [lasso.duality_gap(x), *lasso.metrics(x).values(), penalised.minimum()[1], penalised.penalty(x)]

    same(device, ask)


def test_spectra(device):
    def ask():
        rng = np.random.default_rng(2)
        w = backend.asarray(rng.standard_normal((3, 2, 2)))
        s = singular_values(w)
        return [*s, PowerIteration(w.shape, rng)(w, 30), *[f(s) for f in METRICS.values()]]

    def ask_lanczos():
        return stable(logistic(np.asarray), backend.asarray(np.linspace(-1, 1, 4)), steps=4).values

    same(device, ask)
    same(device, ask_lanczos, rtol=1e-5)  # differences of gradients: 1e-16 / radius, and a factor
