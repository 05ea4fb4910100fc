"""Losses of linear models: the formulas, by definition and by Fenchel's inequality; minima against slow loops; gaps."""

import os
import subprocess
import sys
from collections import namedtuple

from npopt import FISTA, L1, L1L2, L2, SAGA, SGD, Box, Events, RandomReshuffling, Stop, minimize
from problems import LeastSquares, LinearModel, Logistic
from problems.linear import Huber, Logit, Softmax, Squared, SquaredHinge, passes
from problems.linear.losses import Real

import numba
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

ALL = [Squared(), Huber(0.6), SquaredHinge(), Logit(), Softmax(4)]


def labels(loss, rng, n):
    """y in the form of the loss."""
    if isinstance(loss, Softmax):
        return rng.integers(0, loss.C, n).astype(float)
    return rng.standard_normal(n) if loss in (Squared(), Huber(0.6)) else np.where(rng.random(n) < 0.5, -1.0, 1.0)


def written(loss, z, y):
    """l(z; y) as it is defined, for one row."""
    if isinstance(loss, Softmax):
        return np.log(np.sum(np.exp(z))) - z[int(y)]
    z, r = z[0], abs(z[0] - y)
    return {
        "Squared": lambda: r * r / 2,
        "Logit": lambda: np.log(1 + np.exp(-y * z)),
        "Huber": lambda: r * r / 2 if r <= 0.6 else 0.6 * (r - 0.3),
        "SquaredHinge": lambda: max(0, 1 - y * z) ** 2 / 2,
    }[type(loss).__name__]()


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_values_are_the_definition_and_slopes_their_derivatives(loss, rng):
    """Array code, the scalar formula, and the same compiled; second derivatives by differences of the slopes."""
    n, h = 200, 1e-6
    z, y = 3 * rng.standard_normal((n, loss.outputs)), labels(loss, rng, n)
    value, s = loss.arrays(z, y, np)
    np.testing.assert_allclose(value, [written(loss, z[i], y[i]) for i in range(n)], rtol=1e-13, atol=1e-15)
    D = loss.second(z, y)
    assert s.shape == z.shape and D.shape == (n, loss.outputs, loss.outputs)
    compiled = numba.njit(lambda loss, y, s: passes.slope(loss, y, s))
    for i in range(n):
        for run in (passes.slope, compiled):
            own = z[i].copy()
            assert run(loss, y[i], own) == pytest.approx(value[i], rel=1e-13, abs=1e-15)
            np.testing.assert_allclose(own, s[i], rtol=1e-13, atol=1e-15)
    d = rng.standard_normal(z.shape)
    (up, above), (down, below) = (loss.arrays(z + t * d, y, np) for t in (h, -h))
    np.testing.assert_allclose((up - down) / (2 * h), (s * d).sum(1), atol=1e-7)
    smooth = np.abs(above - below).max(1) < 0.1  # all: no row has its kink within h
    assert smooth.all()
    np.testing.assert_allclose((above - below) / (2 * h), np.einsum("nkj,nj->nk", D, d), atol=1e-7)


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_conjugates_by_fenchels_inequality_and_by_a_maximum(loss, rng):
    n = 60
    z, y = 2 * rng.standard_normal((n, loss.outputs)), labels(loss, rng, n)
    value, s = loss.arrays(z, y, np)
    np.testing.assert_allclose(loss.conjugate(s, y), (s * z).sum(1) - value, atol=1e-12)  # equality at u = l'(z)
    for factor in (0.0, 0.3, 0.99):
        u = factor * s  # the domain holds 0, and so what lies between
        found = loss.conjugate(u, y)
        for scale in (0.1, 1, 10):
            v = z + scale * rng.standard_normal(z.shape)
            assert (loss.arrays(v, y, np)[0] + found >= (u * v).sum(1) - 1e-12).all()
        for i in range(4):  # and it is no larger than the supremum
            best = scipy.optimize.minimize(
                lambda v: written(loss, v, y[i]) - u[i] @ v,  # noqa: B023
                z[i],
                method="BFGS",
                options={"gtol": 1e-9},
            )
            assert found[i] == pytest.approx(-best.fun, abs=1e-7)
    outside = {"Squared": None, "Huber": 0.61 + 0 * s, "Softmax": s + 0.1}.get(type(loss).__name__, 0.1 * y[:, None])
    if outside is not None:
        assert np.isinf(loss.conjugate(outside, y)).all()


@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_curvature_bounds_the_slopes_and_is_attained(loss, rng):
    """A ratio for random pairs, and the majorant as a bound from one point."""
    n, ratio = 20_000, 0.0
    y = labels(loss, rng, n)
    for scale in (0.01, 0.3, 3, 30):
        a = scale * rng.standard_normal((n, loss.outputs))
        b = a + scale * rng.standard_normal(a.shape) * rng.choice([1e-3, 1], (n, 1))
        (value, s), (other, t) = loss.arrays(a, y, np), loss.arrays(b, y, np)
        change, apart = np.linalg.norm(s - t, axis=1), np.linalg.norm(a - b, axis=1)
        assert (change <= loss.curvature * apart + 1e-13).all()
        ratio = max(ratio, (change / apart)[apart > 1e-4].max())
        c = loss.majorant(a, y)
        assert (c <= loss.curvature).all()
        assert (other <= value + (s * (b - a)).sum(1) + c / 2 * apart**2 + 1e-12 * (1 + other)).all()
    assert 0.5 * loss.curvature < ratio
    assert loss.quadratic == (loss == Squared())


def test_losses_are_values():
    assert repr(Huber(2)) == "Huber(delta=2.0)" and Huber(2) == Huber(2.0) != Huber(1.0)
    assert Squared() != Logit() and not Squared() == () and len({Squared(), Squared(), Logit(), SquaredHinge()}) == 3
    for wrong in (0, -1, np.inf, "a"):
        with pytest.raises(ValueError, match="Huber: delta must"):
            Huber(wrong)


OWN = """
from collections import namedtuple
from problems.linear.losses import Real
import numpy as np

class Quartic(Real, namedtuple("Quartic", "scale")):
    __slots__ = ()
    curvature = 1e9
    def one(self, y, z):
        return self.scale * (z - y) ** 4, FACTOR * self.scale * (z - y) ** 3
    def arrays(self, z, y, xp):
        r = z - y[:, None]
        return self.scale * r[:, 0] ** 4, FACTOR * self.scale * r**3
"""

USE = """
from own import Quartic
from problems import LinearModel
import numpy as np

g = np.empty(1)
problem = LinearModel(np.array([[2.0]]), [1.0], Quartic(0.5))
problem.value_and_gradient(np.ones(1), np.array([0]), None, g)
x = np.ones(1)
problem.compiled_stretch(x, np.array([0]), None, np.array([1.0]))
print(g[0], x[0])
"""


@pytest.mark.slow
def test_a_loss_of_ones_own_is_one_class_and_its_formula_may_change(tmp_path):
    """Scale 1/2, z = 2, y = 1: the slope is factor / 2, times the row, 2. numba's cache never gives an old formula."""
    for factor in (4, 5, 4):
        (tmp_path / "own.py").write_text(OWN.replace("FACTOR", str(float(factor))))
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        found = subprocess.run([sys.executable, "-B", "-c", USE], capture_output=True, text=True, cwd=tmp_path, env=env)
        assert found.stdout.split() == [f"{factor:.1f}", f"{1 - factor:.1f}"]


@pytest.mark.slow
def test_what_a_formula_reads_beside_its_class_may_change_too(tmp_path):
    """A constant of the file, used by a function in a base class."""
    own = OWN.replace("FACTOR", "SCALE").replace("class Quartic(", "SCALE = VALUE\n\nclass Quartic(", 1)
    for value in (4, 5, 4):
        (tmp_path / "own.py").write_text(own.replace("VALUE", str(float(value))))
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        found = subprocess.run([sys.executable, "-B", "-c", USE], capture_output=True, text=True, cwd=tmp_path, env=env)
        assert found.stdout.split() == [f"{value:.1f}", f"{1 - value:.1f}"], found.stderr


class Slopes(Real, namedtuple("Slopes", "")):
    """A loss that knows its slopes alone."""

    __slots__ = ()
    curvature = 1.0
    one, arrays = Squared.one, Squared.arrays


def test_a_loss_without_second_derivative_or_conjugate_runs_and_says_what_it_lacks(rng):
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    problem, plain = LinearModel(X, y, Slopes(), regulariser=L1(0.1)), LeastSquares(X, y, regulariser=L1(0.1))
    assert problem.metrics(np.ones(3)).keys() == {"objective", "gradient_norm", "nonzeros"}
    assert problem.value(np.ones(3), np.arange(5)) == plain.value(np.ones(3), np.arange(5))
    with pytest.raises(ValueError, match=r"Slopes\(\) defines no second derivative"):
        problem.minimum()
    with pytest.raises(ValueError, match=r"Slopes\(\) defines no conjugate"):
        problem.duality_gap(np.ones(3))


# ---------------------------------------------------------------------------------------------------------- problems
def make(loss, rng, n=50, d=6, sparse=False, **more):
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.7)
    y = labels(loss, rng, n) if loss != Huber(0.6) else X @ np.ones(d) + rng.standard_t(1.5, n)
    if isinstance(loss, Softmax):
        y[:4] = range(4)
    return LinearModel(scipy.sparse.csr_matrix(X) if sparse else X, y, loss, **more)


def textbook_gradient(problem, x):
    """X'l'/n + l2 w, from the definition of the two new losses."""
    X, y, n = problem.exact_X, problem.host_y, problem.n
    X = X.toarray() if scipy.sparse.issparse(X) else X
    w, c = x[: problem.d], x[problem.d :].sum()
    g, gc = problem.l2 * w, 0.0
    for i in range(n):
        z = X[i] @ w + c
        if isinstance(problem.loss, Huber):
            s = np.sign(z - y[i]) * min(abs(z - y[i]), problem.loss.delta)
        else:
            s = -y[i] * max(0.0, 1 - y[i] * z)
        g, gc = g + s * X[i] / n, gc + s / n
    return np.append(g, gc) if problem.intercept else g


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("loss", [Huber(0.6), SquaredHinge()], ids=repr)
def test_the_minimum_is_that_of_a_slow_loop(loss, intercept, rng):
    """Gradient descent, written out, until it stands; CSR and dense rows have one minimum."""
    problem = make(loss, rng, l2=0.1, intercept=intercept)
    x, L = np.zeros(problem.dim), problem.smoothness()
    for _ in range(4000):
        g = textbook_gradient(problem, x)
        x = x - g / L
        if np.linalg.norm(g) < 1e-14:
            break
    found, best = problem.minimum()
    np.testing.assert_allclose(found, x, atol=1e-10)
    assert problem.certificate < 1e-11 and best == pytest.approx(problem.value(x), abs=1e-14)
    sparse = LinearModel(scipy.sparse.csr_matrix(problem.host_X), problem.host_y, loss, l2=0.1, intercept=intercept)
    np.testing.assert_allclose(sparse.minimum()[0], x, atol=1e-10)


def test_minima_of_one_column_by_hand():
    """Huber: two rows inside, (w - 0) + (w - 0.2), and one outlier at 10, which pulls with delta = 1. A squared hinge
    with every margin short of 1: (w - 1) + l2 w = 0; with l1 >= |mean slope at 0| it is 0."""
    X = np.ones((3, 1))
    assert LinearModel(X, [0, 0.2, 10], Huber(1)).minimum()[0] == pytest.approx([0.6], rel=1e-13)
    assert LinearModel(X, [0, 0.2, 10], Huber(1), l2=1 / 3).minimum()[0] == pytest.approx([1.2 / 3], rel=1e-13)
    signed = np.array([[1.0], [-1.0], [2.0]]), [1, -1, 1]
    assert LinearModel(signed[0][:2], signed[1][:2], SquaredHinge(), l2=0.25).minimum()[0] == pytest.approx([0.8])
    assert LinearModel(*signed, SquaredHinge(), regulariser=L1(4 / 3 + 1e-9)).minimum()[0] == [0]
    assert LinearModel(*signed, SquaredHinge(), regulariser=L1(4 / 3 - 1e-6)).minimum()[0] > 0


def test_a_minimum_is_found_from_a_start_without_curvature(rng):
    """Every row is an outlier at 0, where Huber's Hessian is 0; wide data go without a matrix."""
    X = rng.standard_normal((80, 5))
    y = 1000 + 50 * X @ np.ones(5) + rng.standard_normal(80)
    for penalty in (None, L1(1e-3), L2(1e-9)):
        problem = LinearModel(X, y, Huber(0.01), intercept=True, regulariser=penalty)
        x, best = problem.minimum()
        assert problem.certificate < 1e-10 and x[5] == pytest.approx(1000, abs=1)
    rival = scipy.optimize.linprog(
        np.r_[np.zeros(6), np.ones(160)] / 80,
        A_eq=np.hstack([X, np.ones((80, 1)), np.eye(80), -np.eye(80)]),
        b_eq=y,
        bounds=[(None, None)] * 6 + [(0, None)] * 160,
    )
    best = LinearModel(X, y, Huber(0.01), intercept=True).minimum()[1]
    assert 0.01 * rival.fun - 0.01**2 / 2 <= best <= 0.01 * rival.fun  # delta |r| - delta^2/2 <= l <= delta |r|
    wide = scipy.sparse.random(60, 2500, density=0.02, random_state=3, format="csr")
    problem = LinearModel(wide, 100 + rng.standard_normal(60), Huber(0.5), l2=0.01)
    problem.minimum()
    assert problem.certificate < 1e-11


def test_a_separable_squared_hinge_has_a_minimum_and_huber_is_least_squares_for_a_large_delta(rng):
    X = rng.standard_normal((30, 3))
    assert LinearModel(X, np.sign(X[:, 0]), SquaredHinge()).minimum()[1] == pytest.approx(0, abs=1e-20)
    y = rng.standard_normal(30)
    ours, plain = LinearModel(X, y, Huber(1e3), l2=0.1), LeastSquares(X, y, l2=0.1)
    np.testing.assert_allclose(ours.minimum()[0], plain.minimum()[0], rtol=1e-11)
    assert ours.strong_convexity() == 0.1 < plain.strong_convexity() and ours.smoothness() == plain.smoothness()


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize(
    "l2, penalty", [(0.0, L1(0.05)), (0.1, L1(0.03)), (0.0, L1L2(0.02, 0.3)), (0.2, None), (0.05, L2(0.1))], ids=str
)
@pytest.mark.parametrize("loss", ALL, ids=repr)
def test_the_duality_gap_bounds_the_distance_and_closes_at_the_minimum(loss, l2, penalty, intercept, rng):
    problem = make(loss, rng, l2=l2, regulariser=penalty, intercept=intercept, sparse=intercept)
    if intercept and loss.outputs > 1:
        with pytest.raises(ValueError, match="without intercepts only"):
            problem.duality_gap(np.zeros(problem.dim))
        return
    x, best = problem.minimum()
    assert 0 <= problem.duality_gap(x) < 1e-12
    for scale in (1e-5, 1e-2, 1.0, 10.0):
        u = x + scale * rng.standard_normal(problem.dim)
        assert problem.duality_gap(u) >= problem.value(u) + problem.penalty(u) - best - 1e-13
    assert np.isfinite(problem.duality_gap(u))


def test_a_curvature_of_one_does_not_make_a_loss_least_squares(rng):
    """Huber and the squared hinge have l'' <= 1 as well; their gaps and minima are their own."""
    for loss in (Huber(0.6), SquaredHinge()):
        problem = make(loss, rng, regulariser=L1(0.02))
        if isinstance(loss, SquaredHinge):  # as long as all margins are below 1 they are equal
            y = np.sign(problem.host_X @ np.ones(6) + 0.5 * rng.standard_normal(50))
            problem = LinearModel(problem.host_X, y, loss, regulariser=L1(0.02))
        squares = LeastSquares(problem.host_X, problem.host_y, regulariser=L1(0.02))
        x = problem.minimum()[0]
        assert problem.duality_gap(x) < 1e-12 < squares.duality_gap(x)
        assert squares.minimum()[1] - squares.value(x) - squares.penalty(x) < -1e-4


@pytest.mark.parametrize("loss", [Huber(0.6), SquaredHinge()], ids=repr)
def test_optimizers_reach_the_minimum(loss, rng):
    problem = make(loss, rng, l2=0.1, sparse=True)
    run = minimize(
        problem,
        SGD(),
        RandomReshuffling(1),
        1 / (3 * problem.row_smoothness().max()),
        SAGA(),
        stop=Stop(epochs=400),
        events=Events(None),
    )
    assert run.loop == "compiled" and abs(run.final["gap"]) < 1e-13
    boxed = make(loss, rng, l2=0.1, regulariser=Box(-0.1, 0.2))
    run = minimize(
        boxed,
        FISTA("gradient"),
        RandomReshuffling(None),
        1 / boxed.smoothness(),
        stop=Stop(steps=2000),
        events=Events(None),
    )
    np.testing.assert_allclose(run.answer, boxed.minimum()[0], atol=1e-8)


def test_a_logistic_gap_with_an_intercept_and_one_class_almost_alone(rng):
    y = np.ones(40)
    y[0] = -1
    problem = Logistic(rng.standard_normal((40, 3)), y, regulariser=L1(0.2), intercept=True)
    x, best = problem.minimum()
    assert not x[:3].any() and problem.duality_gap(x) < 1e-12
    assert problem.duality_gap(np.zeros(4)) >= problem.value(np.zeros(4)) - best
