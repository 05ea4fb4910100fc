"""Directions that are never whole: MeZO, MeZO-SVRG, LOZO on networks; DeepZero with layers that are not run again."""

import nn
from nn.networks import lenet5, mlp, resnet20
from nn.stages import Stages
from npopt import (
    LOZO,
    SGD,
    SWATS,
    Adam,
    Batch,
    Constant,
    CoordinateDifferences,
    DeepZero,
    Events,
    GaussianSmoothing,
    HeavyBall,
    Lookahead,
    MeZO,
    MeZOSVRG,
    RandomReshuffling,
    Stop,
    backend,
    minimize,
)
from npopt.directions import LowRank, Normals
from npopt.estimators.mezo import Pieces, replay
from npopt.optimizers import Optimizer
from problems import Neural, Problem, Quadratic, load
from problems.feeds import Images
from problems.linear import Logistic

import numpy as np
import pytest
from test_zeroth_order import matrices

THREADS = 1  # layers of a few numbers: tests/conftest.py

ROWS = np.arange(3, 19)


def shared():
    """Two linear layers with one weight matrix, and a slope that two activations share."""
    layers = dict(
        fc1=nn.Linear(64, 16), act1=nn.PReLU(), fc2=nn.Linear(16, 16), act2=nn.PReLU(), fc3=nn.Linear(16, 16),
        norm=nn.LayerNorm(16), head=nn.Linear(16, 10),
    )  # fmt: skip
    return nn.Network(nn.Sequential(**layers), (64,), share={"fc3.W": "fc2.W", "act2.a": "act1.a"})


NETWORKS = {
    "mlp": lambda: mlp((64, 12, 10), norm="batch", dropout=0.3),
    "LeNet": lambda: lenet5(input_shape=(8, 8, 1)),
    "smooth LeNet": lambda: lenet5(nn.Tanh, "avg", input_shape=(8, 8, 1)),
    "smooth mlp": lambda: mlp((64, 12, 10), nn.Tanh, norm="batch", dropout=0.3),
    "ResNet-20": lambda: resnet20(width=2, in_channels=1, image=8),
    "shared": shared,
    "one layer": lambda: nn.Network(nn.Linear(64, 10), (64,)),
}


def problem_of(name, dtype="float64", l2=0.1):
    return Neural(NETWORKS[name](), Images(load("digits")), l2=l2, dtype=dtype, metrics_rows=40)


def start(problem, seed=3):
    return problem.x0(backend.generator(seed, "x0"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_at_x_plus_a_z_is_the_network_at_that_vector_bit_for_bit(name, dtype):
    problem = problem_of(name, dtype, l2=0.0)
    x, key = start(problem), backend.key(1, "z")
    keys = LowRank(backend.key(1, "u"), backend.key(1, "v"), 2, ("matrix", "conv"))
    for direction, vector in ((key, backend.normals(key, np.empty_like(x))), (keys, None)):
        kept, problem.t = x.copy(), 4
        there = Problem.shifted(problem, x, 0.25, direction).copy()
        if vector is not None:
            np.testing.assert_array_equal(there, x + x.dtype.type(0.25) * vector)
        problem.begin(4)
        found = problem.value(x, ROWS, shift=(0.25, direction))
        np.testing.assert_array_equal(x, kept)
        problem.begin(4)
        assert found == problem.value(there, ROWS)
        g = np.empty_like(x)  # the network is as before, and may be trained
        assert problem.value(x, ROWS) == pytest.approx(problem.value_and_gradient(x, ROWS, out=g), rel=1e-6)
    weighted = problem_of(name, dtype, l2=0.3)
    there = Problem.shifted(weighted, x, 0.25, key)
    assert weighted.value(x, ROWS, shift=(0.25, key)) == pytest.approx(weighted.value(there, ROWS), rel=1e-5)


def test_the_parameters_of_one_layer_exist_at_a_time(monkeypatch):
    problem, sizes = problem_of("LeNet"), []
    x = start(problem)
    monkeypatch.setattr(Normals, "add", lambda self, out, a, segment: sizes.append(out.size))
    problem.value(x, ROWS, shift=(0.1, 5))
    assert sorted(sizes[:10]) == sorted(s.size for s in problem.segments) and max(sizes) < x.size / 2
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'V'"):
        problem.network.layer.layers[-1].V  # noqa: B018


def test_the_network_is_bound_again_where_a_pass_fails(monkeypatch):
    problem = problem_of("LeNet")
    x = start(problem)
    value = problem.value(x, ROWS)
    with monkeypatch.context() as patched:
        patched.setattr(Normals, "add", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            problem.value(x, ROWS, shift=(0.1, 5))
    assert problem.value(x, ROWS) == value


@pytest.mark.parametrize("name", ["LeNet", "ResNet-20", "shared"])
@pytest.mark.parametrize("q, difference", [(1, "central"), (2, "forward")])
def test_mezo_is_zo_sgd_and_zo_adam_with_the_same_directions(name, q, difference):
    ends = []
    for estimator in (MeZO(1e-4, q, difference), GaussianSmoothing(1e-4, q, difference)):
        for optimizer in (SGD(), Adam(0.7, 0.9), Lookahead(HeavyBall(0.5), 3)):
            run = minimize(
                problem_of(name), optimizer, RandomReshuffling(16), 1e-3, estimator, stop=Stop(steps=5), seed=2
            )
            ends.append(run.x)
            first = start(problem_of(name), 2)
            assert np.abs(run.x - first).max() > 1e-4
    for mezo, plain in zip(ends[:3], ends[3:], strict=True):
        np.testing.assert_allclose(mezo, plain, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["smooth LeNet", "smooth mlp"])
def test_projected_gradients_are_the_backward_passs_along_z(name):
    problem = problem_of(name)
    x = start(problem)
    estimator, g, z = MeZO(1e-5), np.empty_like(x), np.empty_like(x)
    pieces = estimator.start(problem, x, 4)
    for t in range(3):
        problem.begin(t)
        loss = estimator(x, Batch(ROWS), out=pieces)
        assert loss == pytest.approx(problem.value_and_gradient(x, ROWS, out=g), rel=1e-6)
        backend.normals(estimator.key(0), z)
        (projected,) = estimator.projected
        assert abs(projected - z @ g) < 1e-6 * np.linalg.norm(z) * np.linalg.norm(g)
        assert abs(z @ g) > 1e-2


def test_the_mean_of_many_estimates_has_the_cosine_that_theory_gives():
    problem = Quadratic(np.ones(50))
    x, g, total, n = np.arange(50.0) - 20, np.empty(50), np.zeros(50), 400
    estimator = MeZO(1e-3)
    estimator.start(problem, x, 4)
    for t in range(n):
        problem.begin(t)
        estimator(x, Batch(None), out=g)
        total += g
    cosine = total @ x / np.linalg.norm(total) / np.linalg.norm(x)
    assert cosine == pytest.approx(np.sqrt(n / (n + 50)), abs=0.03)


ITERATED = [
    MeZO(1e-3), MeZO(1e-3, 3, "forward"), LOZO(2, 3, 1e-3), LOZO(2, 3, 1e-3, 0.6),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("estimator", ITERATED, ids=repr)
def test_a_run_is_its_seed_and_its_projected_gradients(estimator, dtype):
    tape, rates, steps = [], [1e-5 * (1 + t % 3) for t in range(8)], 8

    class Noted(type(estimator)):
        def give(self, projected, loss, out):
            tape.append(list(projected))
            return super().give(projected, loss, out)

    class Rates(Constant):
        def at(self, k):
            return 1e-5 * (1 + k % 3)

    noted = Noted(*estimator.arguments().values())
    problem = problem_of("LeNet", dtype)
    run = minimize(problem, HeavyBall(0.7), RandomReshuffling(16), Rates(0.01), noted, stop=Stop(steps=steps), seed=6)
    x = start(problem_of("LeNet", dtype), 6)
    replay(estimator, HeavyBall(0.7), problem_of("LeNet", dtype), x, np.array(tape), rates, seed=6)
    np.testing.assert_array_equal(x, run.x)
    assert not run.diverged and np.abs(x - start(problem_of("LeNet", dtype), 6)).max() > 1e-4
    with pytest.raises(ValueError, match="8 steps of projected gradients need as many rates, got 2"):
        replay(estimator, SGD(), problem, x, tape, rates[:2])


def test_what_needs_the_whole_gradient_says_so_and_foreign_optimizers_run():
    class Own(Optimizer):
        def update(self, x, g, lr):
            x -= lr * g

    run, same = (
        minimize(matrices(), optimizer, RandomReshuffling(4), 0.01, MeZO(), stop=Stop(steps=4), seed=1)
        for optimizer in (Own(), SGD())
    )
    np.testing.assert_allclose(run.x, same.x, rtol=1e-12)
    with pytest.raises(ValueError, match="SWATS: the switch is decided on the whole gradient"):
        minimize(matrices(), SWATS(), RandomReshuffling(4), 0.01, MeZO(), stop=Stop(steps=4))


# -------------------------------------------------------------------------------------------- MeZO-SVRG and LOZO


def value_of(problem, x, rows):
    return problem.value(np.ascontiguousarray(x), np.asarray(rows))


def test_mezo_svrg_is_the_loop_of_the_paper():
    problem, mu, q, every, ratio, lr = matrices(), 0.1, 2, 3, 0.5, 0.05
    estimator = MeZOSVRG(every, ratio, mu, q)
    problem.metrics = lambda x: {"w": x.copy()}
    run = minimize(
        problem, SGD(), RandomReshuffling(4), lr, estimator, stop=Stop(steps=10), events=Events(1, "step"), seed=2
    )
    sampler, problem = RandomReshuffling(4), matrices()
    sampler.start(problem, 2)
    x = start(problem, 2)

    def s(x, rows, z):
        return (value_of(problem, x + mu * z, rows) - value_of(problem, x - mu * z, rows)) / (2 * mu)

    estimator.start(problem, x, 2)
    for t, batch in enumerate(sampler.take(10)):
        zs = [backend.normals(estimator.key(k, t), np.empty_like(x)) for k in range(q)]
        if t % every == 0:
            anchor = x.copy()
            mean = sum(s(x, range(12), z) * z for z in zs) / q
            x = x - ratio * lr * mean
        else:
            g = sum((s(x, batch.rows, z) - s(anchor, batch.rows, z)) * z for z in zs) / q + mean
            x = x - lr * g
        np.testing.assert_allclose(run.columns["w"][t + 1], x, rtol=1e-8, atol=1e-10)
    assert run.final["values"] == 4 * 2 * q * 12 + 6 * 4 * q * 4


def test_the_control_variate_of_mezo_svrg_takes_the_noise_of_rows_away():
    """Rows that differ by a linear term: the difference of two s along one z does not see which rows are drawn."""
    problem = matrices(noise=1.0)
    anchor, found = start(problem), []
    for rows in ([0, 3], [5, 11], [7, 7]):
        estimator, g = MeZOSVRG(5), np.empty_like(anchor)
        estimator.start(problem, anchor, 2)
        problem.begin(0)
        estimator(anchor, Batch(None), out=g)
        problem.begin(1)
        estimator(1.1 * anchor, Batch(np.array(rows)), out=g)
        found.append(g)
    for g in found[1:]:
        np.testing.assert_allclose(g, found[0], rtol=1e-8, atol=1e-9)
    plain, slopes = MeZO(), []
    plain.start(problem, anchor, 2)
    for rows in ([0, 3], [5, 11]):  # MeZO's own estimate does
        plain(1.1 * anchor, Batch(np.array(rows)), out=g)
        slopes.append(plain.projected[0])
    assert abs(slopes[0] - slopes[1]) > 0.1


def slow_lozo(problem, x, batches, lr, estimator):
    """The algorithms of the paper with loops over the segments; draws are those of the keys."""
    r, mu, b = estimator.rank, estimator.radius, estimator.momentum
    N, V = {}, {}
    for t, batch in enumerate(batches):
        z, U = np.zeros_like(x), {}
        for segment in problem.segments:
            shape = (segment.shape[0], segment.size // segment.shape[0])
            draw = np.empty(segment.size)
            if segment.kind == "bias":
                z[segment.slice] = backend.normals(estimator.key(0, t), draw, offset=segment.start)
                continue
            k = min(r, *shape)
            backend.normals(estimator.key(0, t), draw, offset=segment.start)
            U[segment] = draw[: shape[0] * k].reshape(-1, k).copy()
            old = V.get(segment)
            if t % estimator.every == 0:
                columns = backend.key(estimator.seed, "columns", t // estimator.every)
                draw = backend.normals(columns, np.empty(shape[1] * k), offset=segment.start)
                V[segment] = draw.reshape(-1, k)
                if t:
                    N[segment] = N[segment] @ (old.T @ V[segment]) / shape[1]
            z[segment.slice] = (U[segment] @ V[segment].T).ravel()
        s = (value_of(problem, x + mu * z, batch.rows) - value_of(problem, x - mu * z, batch.rows)) / (2 * mu)
        x = x.copy()
        for segment in problem.segments:
            part = U.get(segment, z[segment.slice])
            N[segment] = b * N.get(segment, 0) + (1 - b) * s * part
            step = N[segment]
            if segment in U:
                step = (N[segment] @ V[segment].T).ravel() / (V[segment].shape[1] if estimator.mean else 1)
            x[segment.slice] -= lr * step
        yield x


@pytest.mark.parametrize("estimator", [LOZO(2, 3, 0.1), LOZO(1, 4, 0.1, mean=False), LOZO(2, 3, 0.1, 0.6)], ids=repr)
def test_lozo_is_the_loop_of_the_paper(estimator):
    problem = matrices()
    problem.metrics = lambda x: {"w": x.copy()}
    sampler, lr = RandomReshuffling(4), 0.05
    run = minimize(problem, SGD(), sampler, lr, estimator, stop=Stop(steps=10), events=Events(1, "step"), seed=2)
    problem = matrices()
    sampler.start(problem, 2)
    estimator.start(problem, run.x, 2)
    expected = list(slow_lozo(problem, start(problem, 2), sampler.take(10), lr, estimator))
    np.testing.assert_allclose(run.columns["w"][1:], expected, rtol=1e-8, atol=1e-10)


def test_the_directions_of_lozo_have_rank_r_and_stay_in_the_columns_of_v_for_a_while():
    problem = problem_of("LeNet", l2=0)
    x, estimator = start(problem), LOZO(3, 4)
    pieces = estimator.start(problem, x, 2)
    fc1 = problem.segments.find("fc1.W")
    found = {}
    for t in range(6):
        problem.begin(t)
        estimator(x, Batch(ROWS), out=pieces)
        found[t] = {piece.start: g.copy() for piece, g in pieces}[fc1.start].reshape(fc1.shape)
        assert np.linalg.matrix_rank(found[t]) == 3
    assert np.linalg.matrix_rank(np.vstack([found[t] for t in range(4)])) == 3
    assert np.linalg.matrix_rank(np.vstack([found[t] for t in range(3, 6)])) == 6


@pytest.mark.parametrize("mean", [True, False])
def test_the_mean_of_lozo_is_the_gradient_or_r_times_the_gradient(mean):
    problem = matrices(noise=0.0)
    x, estimator, count = start(problem), LOZO(2, 1, 0.1, mean=mean), 6000
    gradient, g, found = problem.A @ x - problem.b, np.empty_like(x), []
    estimator.start(problem, x, 2)
    for t in range(count):
        problem.begin(t)
        estimator(x, Batch(None), out=g)
        found.append(g.copy())
    found = np.array(found)
    factor = np.where([s.kind != "bias" and not mean for s in problem.segments for _ in range(s.size)], 2.0, 1.0)
    error = found.std(0, ddof=1) / np.sqrt(count)
    assert (np.abs(found.mean(0) - factor * gradient) < 4.5 * error).all()
    assert error.max() < 0.2 * np.abs(gradient).max() * factor.max()


# --------------------------------------------------------------------------------------------------------- DeepZero


@pytest.mark.parametrize("difference", ["forward", "central"])
@pytest.mark.parametrize("name", NETWORKS)
def test_values_without_the_layers_that_stay_equal_are_those_of_whole_passes(name, difference):
    problem, whole = problem_of(name), problem_of(name)
    x = start(problem)
    kept, amounts = x.copy(), (0.05,) if difference == "forward" else (0.05, -0.05)
    places = sorted(
        {s.start + (s.size * 3) // 7 for s in problem.segments[:: 1 + len(problem.segments) // 16]} | {x.size - 1}
    )
    for p in (problem, whole):
        p.begin(3)
    found = list(problem.moved_values(x, places, amounts, ROWS))
    expected = list(Problem.moved_values(whole, x, places, amounts, ROWS))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(x, kept)
    backwards = [values for i in places[::-1] for values in problem.moved_values(x, [i], amounts, ROWS)]
    np.testing.assert_array_equal(backwards[::-1], expected)


def test_layers_before_the_one_that_changes_run_once(monkeypatch):
    problem, calls = problem_of("LeNet"), []
    x, forward = start(problem), nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x, run: calls.append(self.path) or forward(self, x, run))
    fc1 = problem.segments.find("fc1.W")
    list(problem.moved_values(x, range(fc1.start, fc1.start + 20), (0.1,), ROWS))
    assert calls == ["conv1", "conv2"]
    residual = problem_of("ResNet-20")
    stages = Stages(residual.network)
    assert len(stages.stages) == 2 + 9 + 2 and stages.of(0) == 0 and stages.of(residual.dim - 1) == 12


def test_statistics_of_a_step_are_those_of_x_whatever_is_probed():
    states = []
    for difference in ("forward", "central"):
        problem = problem_of("mlp")
        x = start(problem)
        estimator = CoordinateDifferences(0.5, difference, [0, 900])
        g = estimator.start(problem, x, 0)
        problem.begin(0)
        estimator(x, Batch(ROWS), out=g)
        problem.commit()
        states.append(problem.network.state()["norm1"]["mean"])
    problem = problem_of("mlp")
    problem.begin(0)
    problem.value(x, ROWS)
    problem.commit()
    for mean in states:
        np.testing.assert_array_equal(mean, problem.network.state()["norm1"]["mean"])


def test_deepzero_with_all_coordinates_is_the_gradient_of_differences():
    problem = problem_of("one layer")
    x, found = start(problem), []
    for estimator in (DeepZero(0.0, 1e-5, "central"), CoordinateDifferences(1e-5, "central")):
        g = estimator.start(problem, x, 4)
        estimator(x, Batch(ROWS), out=g)
        found.append((g, estimator.counts["values"]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] == 2 * x.size * ROWS.size
    exact = np.empty_like(x)
    problem.value_and_gradient(x, ROWS, out=exact)
    np.testing.assert_allclose(found[0][0], exact, atol=1e-8)


def slow_counts(problem, x, rows, estimator):
    """ZO-GraSP by its formulas: how many coordinates of each segment are left."""
    d, mu = x.size, estimator.radius

    def h(x):
        total = np.zeros(d)
        for k in range(estimator.queries):
            u = backend.normals(backend.key(estimator.seed, "scores", k), np.empty(d))
            u /= np.sqrt(u @ u)
            total += (
                d
                / estimator.queries
                * (problem.value(x + mu * u, rows) - problem.value(x - mu * u, rows))
                / (2 * mu)
                * u
            )
        return total

    g0 = h(x)
    score = np.abs(-x * (h(x + mu * g0) - g0) / mu)
    left = set(np.argsort(-score)[: round((1 - estimator.sparsity) * d)])
    return [max(1, sum(i in left for i in range(s.start, s.stop))) for s in problem.segments]


def test_deepzero_keeps_what_zo_grasp_says_and_draws_within_segments_anew():
    problem, rows = matrices(), np.arange(12)
    x, estimator = start(problem), DeepZero(0.6, 1e-2, "forward", 3, 20)
    g = estimator.start(problem, x, 4)
    masks = []
    for t in range(9):
        problem.begin(t)
        estimator(x, Batch(rows), out=g)
        masks.append(tuple(np.flatnonzero(g)))
    expected = slow_counts(problem, x, rows, estimator)
    assert list(estimator.kept) == expected and 8 <= sum(expected) <= 10
    for mask in masks:
        assert [sum(s.start <= i < s.stop for i in mask) for s in problem.segments] == expected
    assert [len(set(masks[i : i + 3])) for i in (0, 3, 6)] == [1, 1, 1] and len(set(masks)) == 3
    gradient = problem.A @ x - problem.b
    np.testing.assert_allclose(g[list(masks[-1])], (gradient + 5e-3 * np.diag(problem.A))[list(masks[-1])], rtol=1e-6)
    assert estimator.counts["values"] == 12 * (4 * 20 + 9 * (sum(expected) + 1))


def test_deepzero_trains_a_network_by_descent_in_its_coordinates():
    problem = problem_of("one layer", l2=0)
    run = minimize(
        problem, HeavyBall(0.9), RandomReshuffling(64), 0.3, DeepZero(0.8, 1e-3, every=10, queries=10),
        stop=Stop(steps=40), seed=1,
    )  # fmt: skip
    assert run.final["test_accuracy"] > 0.8 > 0.3 > run.columns["test_accuracy"][0]


def test_pieces_are_the_segments_in_order_and_can_be_had_again():
    problem = Logistic(np.eye(4), np.array([1, -1, 1, -1]))
    pieces = Pieces(problem.segments, np.dtype("float64"))
    pieces.terms = [(2.0, Normals(3)), (-1.0, Normals(4))]
    one, two = ([(piece, g.copy()) for piece, g in pieces] for _ in range(2))
    expected = 2 * backend.normals(3, np.empty(4)) - backend.normals(4, np.empty(4))
    np.testing.assert_allclose(np.concatenate([g for _, g in one]), expected, rtol=1e-12)
    assert [p for p, _ in one] == [s.slice for s in problem.segments]
    for (_, a), (_, b) in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
