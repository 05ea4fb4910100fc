"""Estimators from function values: loops written from the papers, means and second moments, what they cost and keep."""

import npopt
from npopt import (
    LOZO,
    SGD,
    SPSA,
    ZOSVRG,
    Accumulated,
    Adam,
    Batch,
    Clipped,
    CoordinateDifferences,
    DeepZero,
    Events,
    GaussianSmoothing,
    HeavyBall,
    MeZO,
    MeZOSVRG,
    RandomReshuffling,
    SphereSmoothing,
    Stop,
    WithReplacement,
    backend,
    minimize,
)
from npopt.segments import Segments
from problems import LeastSquares, Logistic, Quadratic

import numpy as np
import pytest

D, N = 6, 11
ROWS = np.array([3, 7, 7, 0, 10])


@pytest.fixture
def quartic(rng):
    """A problem whose third derivatives are not 0: logistic regression, 11 rows, its loss as a plain function."""
    X, y = rng.standard_normal((N, D)), np.where(rng.random(N) < 0.4, -1.0, 1.0)

    def loss(x, rows):
        return np.mean([np.log1p(np.exp(-y[i] * (X[i] @ x))) + 0.1 * (x @ x) for i in rows])

    return Logistic(X, y, 0.2), loss


def normal(estimator, k, t=0, d=D):
    return backend.normals(estimator.key(k, t), np.empty(d))


def slow(estimator, loss, x, rows, t):
    """One estimate by the formulas of the papers, sum by sum."""
    mu, q, g = estimator.radius, estimator.q, np.zeros(x.size)
    for k in range(q):
        z = normal(estimator, k, t, x.size)
        if isinstance(estimator, SPSA):
            u = np.where(backend.row_uniform(estimator.key(k, t), None, np.empty((1, x.size)))[0] < 0.5, 1.0, -1.0)
        else:
            u = z / np.sqrt(z @ z) if isinstance(estimator, SphereSmoothing) else z
        if estimator.difference == "forward":
            s = (loss(x + mu * u, rows) - loss(x, rows)) / mu
        else:
            s = (loss(x + mu * u, rows) - loss(x - mu * u, rows)) / (2 * mu)
        g += s * (x.size if isinstance(estimator, SphereSmoothing) else 1) * u / q
    return g


SMOOTH = [
    kind(0.3, q, difference)
    for kind in (GaussianSmoothing, SphereSmoothing, SPSA, MeZO)
    for q, difference in ((1, "central"), (3, "forward"), (2, "central"))
]


@pytest.mark.parametrize("estimator", SMOOTH, ids=repr)
def test_estimates_are_those_of_a_slow_loop_and_values_are_counted(estimator, quartic, rng):
    problem, loss = quartic
    x, g = rng.standard_normal(D), np.empty(D)
    estimator.start(problem, x, 5)
    values = estimator.q + 1 if estimator.difference == "forward" else 2 * estimator.q
    for t in (0, 4):
        problem.begin(t)
        for rows in (ROWS, None):
            before, spent = x.copy(), estimator.counts["values"]
            told = estimator(x, Batch(rows), out=g)
            some = range(N) if rows is None else rows
            np.testing.assert_allclose(g, slow(estimator, loss, x, some, t), rtol=1e-9, atol=1e-12)
            np.testing.assert_array_equal(x, before)
            assert estimator.counts["values"] - spent == values * len(some)
            assert told == pytest.approx(loss(x, some), rel=0.5 if estimator.difference == "central" else 1e-12)
    assert estimator.counts["gradients"] == 0


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("coordinates", [None, [4, 1], 3])
def test_coordinate_differences_of_a_slow_loop(coordinates, difference, quartic, rng):
    problem, loss = quartic
    estimator, mu = CoordinateDifferences(0.2, difference, coordinates), 0.2
    x, g = rng.standard_normal(D), np.empty(D)
    estimator.start(problem, x, 5)
    seen = set()
    for t in range(4):
        problem.begin(t)
        before = x.copy()
        estimator(x, Batch(ROWS), out=g)
        np.testing.assert_array_equal(x, before)
        some = {None: range(D), 3: np.flatnonzero(g)}.get(coordinates if np.ndim(coordinates) == 0 else 0, [1, 4])
        expected = np.zeros(D)
        for i in some:
            e = mu * np.eye(D)[i]
            up, down = loss(x + e, ROWS), loss(x, ROWS) if difference == "forward" else loss(x - e, ROWS)
            expected[i] = (up - down) / (mu if difference == "forward" else 2 * mu) * (2 if coordinates == 3 else 1)
        np.testing.assert_allclose(g, expected, rtol=1e-9, atol=1e-12)
        seen.add(tuple(some))
        cost = len(some) + 1 if difference == "forward" else 2 * len(some)
        assert estimator.counts["values"] == 5 * cost * (t + 1)
    assert len(seen) > 1 or coordinates != 3  # a subset is drawn anew


def curved(d, rng):
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    A = Q @ np.diag(np.linspace(0.5, 3, d)) @ Q.T
    return Quadratic((A + A.T) / 2, rng.standard_normal(d))


def draws(estimator, problem, x, count):
    """(count, d) estimates, one a step."""
    found, g = np.empty((count, x.size)), np.empty(x.size)
    estimator.start(problem, x, 7)
    for t in range(count):
        problem.begin(t)
        estimator(x, Batch(None), out=g)
        found[t] = g
    return found


MOMENTS = [
    (GaussianSmoothing(0.5), lambda d: d + 2),
    (GaussianSmoothing(0.5, 4), lambda d: 1 + (d + 1) / 4),
    (MeZO(0.5), lambda d: d + 2),
    (SphereSmoothing(0.5), lambda d: d),
    (SphereSmoothing(0.5, 5), lambda d: 1 + (d - 1) / 5),
    (SPSA(0.5), lambda d: d),
    (SPSA(0.5, 5), lambda d: 1 + (d - 1) / 5),
    (CoordinateDifferences(0.5, "central", 4), lambda d: d / 4),
]


@pytest.mark.parametrize("estimator, factor", MOMENTS, ids=lambda v: repr(v) if hasattr(v, "radius") else "")
def test_on_quadratics_the_mean_is_the_gradient_and_second_moments_are_the_closed_forms(estimator, factor, rng):
    d, count = 9, 3000
    problem, x = curved(d, rng), rng.standard_normal(d)
    gradient = problem.A @ x - problem.b
    found = draws(estimator, problem, x, count)
    error = found.std(0, ddof=1) / np.sqrt(count)
    assert (np.abs(found.mean(0) - gradient) < 4.5 * error).all() and (error < 0.15 * np.linalg.norm(gradient)).all()
    squares = (found**2).sum(1) / (gradient @ gradient)
    wanted = factor(d)
    if isinstance(estimator, CoordinateDifferences):  # (d/c)^2 E sum of c of the g_i^2
        assert squares.mean() == pytest.approx(wanted, rel=0.05)
    assert abs(squares.mean() - wanted) < 4.5 * squares.std(ddof=1) / np.sqrt(count)
    assert squares.std(ddof=1) / np.sqrt(count) < 0.05 * wanted


def test_forward_differences_add_noise_at_the_minimum_of_a_quadratic_and_central_ones_do_not(rng):
    problem, mu = curved(5, rng), 0.3
    x = problem.minimum()[0]
    for kind in (GaussianSmoothing, SphereSmoothing, SPSA):
        forward = draws(kind(mu, 1, "forward"), problem, x, 5)
        estimator = kind(mu, 1, "forward")
        estimator.start(problem, x, 7)
        for t in range(5):
            u = np.empty(5)
            estimator.draw(estimator.key(0, t), u)
            expected = mu / 2 * (u @ problem.A @ u) * u * estimator.factor
            np.testing.assert_allclose(forward[t], expected, rtol=1e-9, atol=1e-12)
        assert np.abs(draws(kind(mu), problem, x, 5)).max() < 1e-12


def test_one_direction_serves_all_micro_batches_and_clipping_takes_the_estimate(quartic, rng):
    problem, _ = quartic
    x = rng.standard_normal(D)
    whole, parts, short = np.empty(D), np.empty(D), np.empty(D)
    for estimator, out in (
        (GaussianSmoothing(0.1, 2), whole),
        (Accumulated(2, GaussianSmoothing(0.1, 2)), parts),
        (Clipped(1e-3, GaussianSmoothing(0.1, 2)), short),
    ):
        estimator.start(problem, x, 5)
        estimator(x, Batch(ROWS), out=out)
    np.testing.assert_allclose(parts, whole, rtol=1e-10)
    np.testing.assert_allclose(short, whole * 1e-3 / np.linalg.norm(whole), rtol=1e-12)
    for wrapper in (Clipped(1.0, MeZO()), Accumulated(2, LOZO()), ZOSVRG(inner=MeZO())):
        with pytest.raises(ValueError, match="makes its gradient in pieces, and this needs it whole"):
            wrapper.start(problem, x, 0)


# ----------------------------------------------------------------------------------------------------------- ZO-SVRG


@pytest.mark.parametrize("inner", [CoordinateDifferences(0.1), SphereSmoothing(0.1, 3, "forward")], ids=repr)
def test_zo_svrg_is_the_loop_of_the_paper(inner, quartic):
    problem, loss = quartic
    problem.metrics = lambda x: {"w": x.copy()}
    sampler, lr, mu = WithReplacement(2), 0.2, 0.1
    run = minimize(
        problem, SGD(), sampler, lr, ZOSVRG(1.3, inner), stop=Stop(steps=17), events=Events(1, "step"), seed=3
    )
    sampler.start(problem, 3)
    inner.start(problem, np.zeros(D), 3)
    m = int(np.ceil(1.3 * N / 2))

    def h(x, rows, t):
        if isinstance(inner, SphereSmoothing):
            return slow(inner, loss, x, rows, t)
        return np.array([(loss(x + mu * e, rows) - loss(x, rows)) / mu for e in np.eye(D)])

    x, seen = np.zeros(D), 0
    for t, batch in enumerate(sampler.take(17)):
        seen += 2 * len(batch.rows) + (N if t % m == 0 else 0)
        if t % m == 0:
            anchor, G = x.copy(), h(x, range(N), t)
        x = x - lr * (h(x, batch.rows, t) - h(anchor, batch.rows, t) + G)
        np.testing.assert_allclose(run.columns["w"][t + 1], x, rtol=1e-8, atol=1e-10)
    values = D + 1 if isinstance(inner, CoordinateDifferences) else 4
    assert run.final["values"] == values * seen and run.final["gradients"] == 0


def test_zo_svrg_with_coordinates_falls_where_plain_differences_stay_at_their_noise(rng):
    X, y = rng.standard_normal((40, 4)), rng.standard_normal(40)
    problem = LeastSquares(X, y, 0.1)
    least, L = problem.minimum()[1], problem.row_smoothness().max()
    ends = []
    for estimator in (CoordinateDifferences(1e-4, "central"), ZOSVRG(2, CoordinateDifferences(1e-4, "central"))):
        run = minimize(problem, SGD(), WithReplacement(1), 0.3 / L, estimator, stop=Stop(steps=4000), seed=1)
        ends.append(run.final["objective"] - least)
    assert ends[1] < 1e-9 < 1e-3 < ends[0]


# ------------------------------------------------------------------------------------------- what all have in common

EVERY = [
    CoordinateDifferences(1e-2),
    CoordinateDifferences(1e-2, "central", 2),
    GaussianSmoothing(1e-2, 2, "forward"),
    SphereSmoothing(1e-2, 2),
    SPSA(1e-2, 2),
    MeZO(1e-2, 2),
    MeZO(1e-2, 1, "forward"),
    MeZOSVRG(3, 0.5, 1e-2, 2),
    LOZO(2, 3, 1e-2),
    LOZO(2, 3, 1e-2, 0.6, False),
    ZOSVRG(1.3, GaussianSmoothing(1e-2)),
    DeepZero(0.5, 1e-2, "forward", 2, 5),
]


class Matrices(Quadratic):
    """A quadratic in a matrix of 3 x 4, a bias, and a convolution's weights."""

    table = Segments.of(("W", (3, 4), "matrix", "W"), ("b", (3,), "bias", "W"), ("K", (2, 2, 1, 2), "conv", "K"))

    def set_shape(self, dim, dtype, segments=None):
        super().set_shape(dim, dtype, self.table)


def matrices(dtype="float64", noise=0.1):
    rng = np.random.default_rng(8)
    d = Matrices.table.dim
    B = rng.standard_normal((d, d))
    return Matrices(B @ B.T / d, rng.standard_normal(d), n=12, noise=noise, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_on_a_device_that_lets_nothing_be_read_runs_are_those_of_the_cpu(estimator, dtype, device):
    runs = []
    for where in ("cpu", device):
        backend.use(where)
        run = minimize(
            matrices(dtype), HeavyBall(0.5), RandomReshuffling(4), 0.02, estimator, stop=Stop(steps=7), seed=2
        )
        runs.append(backend.to_host(run.x).copy())
        moved = np.abs(runs[-1] - backend.to_host(matrices(dtype).x0(backend.generator(2, "x0")))).max()
        assert moved > 1e-3 and not run.diverged
    backend.use("cpu")
    tolerance = 1e-10 if dtype == "float64" else 1e-2  # a difference loses what the loss rounds, divided by the radius
    np.testing.assert_allclose(runs[0], runs[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("estimator", EVERY, ids=repr)
def test_a_run_that_is_broken_goes_on_bit_for_bit(estimator, tmp_path):
    def run(steps, path=None):
        return minimize(
            matrices(), Adam(0.7, 0.9), RandomReshuffling(4), 0.02, estimator, stop=Stop(steps=steps), seed=2,
            events=Events(None, checkpoint=path),
        )  # fmt: skip

    whole = run(9)
    for steps in (1, 4, 5, 9):
        parts = run(steps, tmp_path / "c.npz")
    np.testing.assert_array_equal(whole.x, parts.x)
    assert whole.final["values"] == parts.final["values"]


@pytest.mark.parametrize("wrong, says", [
    (lambda: MeZO(0), "MeZO: radius must"),
    (lambda: GaussianSmoothing(q=0), "GaussianSmoothing: q must"),
    (lambda: SphereSmoothing(difference="backward"), "must be \"central\" or \"forward\""),
    (lambda: CoordinateDifferences(coordinates=0), "coordinates must be a whole number"),
    (lambda: CoordinateDifferences(coordinates=99).start(matrices(), np.zeros(19), 0), "cannot be drawn of"),
    (lambda: CoordinateDifferences(coordinates=[1, 1]).start(matrices(), np.zeros(19), 0), "different numbers"),
    (lambda: CoordinateDifferences(coordinates=[99]).start(matrices(), np.zeros(19), 0), "different numbers"),
    (lambda: LOZO(momentum=1.0), "LOZO: momentum"),
    (lambda: LOZO(kinds="weights"), "LOZO: kinds"),
    (lambda: MeZOSVRG(ratio=0), "MeZOSVRG: ratio"),
    (lambda: ZOSVRG(0), "ZOSVRG: passes"),
    (lambda: DeepZero(1.0), "DeepZero: sparsity"),
])  # fmt: skip
def test_bad_arguments(wrong, says):
    with pytest.raises(npopt.errors.UserError, match=says):
        wrong()
