"""Attacks: slow loops written from the papers, closed forms, identities, draws by row, and networks that hide."""

from nn import BatchNorm, Dropout, Linear, Network, ReLU, Sequential, init
from npopt import Adam, RandomReshuffling, Stop, backend, minimize
from problems import LeastSquares, Neural, datasets
from problems.attacks import APGD, FGSM, PGD, Ensemble, LogitMargin, LogitRatio, Square, attacked
from problems.attacks.apgd import checkpoints
from problems.attacks.base import Aim, Ball
from problems.classifiers import between
from problems.feeds import Images

import numpy as np
import pytest
import written_out as slow

THREADS = 1  # layers of a few numbers: tests/conftest.py

ROWS = np.array([3, 7, 0, 12, 5, 9])
LOSSES = {
    "own": (None, slow.cross_entropy),
    "margin": (LogitMargin(), slow.margin),
    "ratio": (LogitRatio(), slow.ratio),
}


@pytest.fixture
def noise(rng):
    data = slow.images(rng)
    return data, slow.problem(data), 1.5 * rng.standard_normal(slow.HIDDEN * (slow.D + 1) + 4 * (slow.HIDDEN + 1))


def aim_at(problem, x, rows=ROWS, loss=None):
    inputs, targets = problem.pairs("test", rows)
    return Aim(problem, x, inputs, targets, rows, {"gradients": 0, "values": 0}, loss=loss)


def objective(x, p, t, loss, sign=1):
    """(f, df/dp, answer) at the pixels p."""
    z = slow.outputs(x, p)[1]
    f, dz = loss(z, t)
    return sign * f, sign * slow.by_pixels(x, p, dz), int(z.argmax())


# ---------------------------------------------------------------------------------------------------- gradients, losses


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients_by_pixels_are_those_written_out(name, noise, rng):
    data, problem, x = noise
    loss, written = LOSSES[name]
    aim, p, t = aim_at(problem, x, loss=loss), slow.pixels(data)[ROWS], data.y_train[ROWS]
    delta = 0.01 * rng.standard_normal(p.shape)
    losses, fooled = aim.gradient(delta)
    for b in range(len(ROWS)):
        f, g, answer = objective(x, p[b] + delta[b], t[b], written)
        np.testing.assert_allclose(losses[b], f, rtol=1e-10)
        np.testing.assert_allclose(aim.slope[b], g, rtol=1e-9, atol=1e-12)
        assert fooled[b] == (answer != t[b])


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_five_pixels_by_differences_in_evaluation_mode(name, rng):
    net = Network(Sequential(a=Linear(64, 7), n=BatchNorm(7), r=ReLU(), d=Dropout(0.4), b=Linear(7, 10)), (64,))
    problem = Neural(net, Images(datasets.load("digits")), dtype="float64")
    x = problem.x0(rng)
    problem.begin(0)
    problem.value(x, np.arange(40))
    problem.commit()  # statistics of their own
    aim, loss = aim_at(problem, x, loss=LOSSES[name][0]), 0
    delta, h = 0.01 * rng.standard_normal((len(ROWS), 64)), 1e-6
    aim.gradient(delta)
    for pixel in rng.integers(0, 64, 5):
        d = np.zeros_like(delta)
        d[:, pixel] = h
        loss = (aim.value(delta + d)[0] - aim.value(delta - d)[0]) / (2 * h)
        np.testing.assert_allclose(aim.slope[:, pixel], loss, rtol=1e-7, atol=1e-7)


def test_a_ratio_of_logits_changes_neither_with_shift_nor_with_scale(rng):
    z, t = rng.standard_normal((6, 5)), rng.integers(0, 5, 6)
    rows, slope = LogitRatio().both(z, t)
    np.testing.assert_allclose(LogitRatio().rows(7 * z - 3, t), rows, rtol=1e-12)
    np.testing.assert_allclose(slope.sum(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose((slope * z).sum(axis=1), 0, atol=1e-12)  # Euler: of degree 0
    wrong = LogitMargin().rows(z, t) > 0
    assert ((rows > 0) == wrong).all() and (wrong == ~LogitMargin().right(z, t)).all()


# ---------------------------------------------------------------------------------------------------- slow loops


def length_cut(delta, p, eps):
    delta = delta * min(1, eps / max(np.linalg.norm(delta), 1e-30))
    return np.clip(p + delta, 0, 1) - p


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("goal", [None, 2])
def test_pgd_is_the_loop_written_out(norm, name, goal, noise):
    data, problem, x = noise
    loss, written = LOSSES[name]
    eps, step, sign = (0.11, 0.031, -1 if goal else 1) if norm == "linf" else (0.4, 0.13, -1 if goal else 1)
    attack = PGD(eps, step, 6, norm == "linf", 2, norm=norm, loss=loss, goal=goal)
    found = attacked(problem, x, attack, rows=ROWS, seed=5, keep=True, stop=False, batch=4)
    for b, row in enumerate(ROWS):
        p, t, best = slow.pixels(data)[row], data.y_train[row], []
        wanted = t if goal is None else (t + goal) % slow.CLASSES
        points = [np.zeros(slow.D)]
        for restart in range(2):
            delta = np.zeros(slow.D)
            if norm == "linf":
                delta = slow.cut(eps * (2 * slow.uniforms(5, "PGD", restart, row) - 1), p, eps)
            for _ in range(6):
                points.append(delta)
                g = objective(x, p + delta, wanted, written, sign)[1]
                if norm == "linf":
                    delta = slow.cut(delta + step * np.sign(g), p, eps)
                else:
                    delta = length_cut(delta + step * g / (np.linalg.norm(g) or 1), p, eps)
            points.append(delta)
        for delta in points:
            f, _, answer = objective(x, p + delta, wanted, written, sign)
            best.append((answer == wanted if goal else answer != t, f, delta))
        fooled, f, delta = max(best, key=lambda one: one[:2])
        np.testing.assert_allclose(found.losses[b], f, rtol=1e-9)
        np.testing.assert_allclose(found.delta[b], delta, rtol=1e-9, atol=1e-12)
        assert found.robust[b] == (found.right[b] and not fooled)
    assert found.counts == {"gradients": 6 * 12, "values": 6 * (2 + 2)}


def algorithm_1(f, gradient, project, x0, eps, n, rho, alpha, direction):
    """Croce & Hein 2020, Algorithm 1, all points kept."""
    w, p = [0], [0, 0.22]
    while p[-1] <= 1:
        w.append(int(np.ceil(p[-1] * n - 1e-9)))
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    eta, etas, tops = 2 * eps, {}, {}
    x = {0: x0, 1: project(x0 + eta * direction(gradient(x0)))}
    f_max = max(f(x[0]), f(x[1]))
    x_max = x[0] if f_max == f(x[0]) else x[1]
    etas[0], tops[0], seen = eta, f_max, [x[0], x[1]]
    for k in range(1, n):
        z = project(x[k] + eta * direction(gradient(x[k])))
        x[k + 1] = project(x[k] + alpha * (z - x[k]) + (1 - alpha) * (x[k] - x[k - 1]))
        seen.append(x[k + 1])
        if f(x[k + 1]) > f_max:
            x_max, f_max = x[k + 1], f(x[k + 1])
        if k in w:
            before = w[w.index(k) - 1]
            etas[k], tops[k] = eta, f_max
            rises = sum(f(x[i + 1]) > f(x[i]) for i in range(before, k))
            if rises < rho * (k - before) or (etas[before] == etas[k] and tops[before] == tops[k]):
                eta, x[k + 1] = eta / 2, x_max
    return x_max, f_max, eta, seen


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["own", "ratio"])
def test_apgd_is_algorithm_1_of_croce_and_hein(norm, name, noise):
    data, problem, x = noise
    loss, written = LOSSES[name]
    eps, n, halved = 0.3 if norm == "linf" else 0.9, 23, set()
    attack = APGD(eps, n, norm=norm, loss=loss, rho=0.6, alpha=0.7)
    rows = np.arange(13)
    found = attacked(problem, x, attack, rows=rows, seed=5, keep=True, stop=False, batch=20)
    for row in rows:
        p, t = slow.pixels(data)[row], data.y_train[row]
        if norm == "linf":
            start = slow.cut(eps * (2 * slow.uniforms(5, "APGD", 0, row) - 1), p, eps)
            project, direction = (lambda d, p=p: slow.cut(d, p, eps)), np.sign
        else:
            aim = aim_at(problem, x, np.array([row]))
            start = Ball(aim, eps, "l2").start(5, "APGD", 0)[0]
            project, direction = (lambda d, p=p: length_cut(d, p, eps)), (lambda g: g / (np.linalg.norm(g) or 1))
        parts = [lambda d, i=i, p=p, t=t: objective(x, p + d, t, written)[i] for i in range(3)]
        top, f_max, eta, seen = algorithm_1(
            parts[0], parts[1], project, start, eps, n, attack.rho, attack.alpha, direction
        )
        halved.add(eta)
        all_ = [(parts[2](d) != t, parts[0](d)) for d in [np.zeros(slow.D), *seen]]
        fooled, f = max(all_)
        np.testing.assert_allclose(found.losses[row], f, rtol=1e-8, err_msg=str(row))
        assert found.robust[row] == (found.right[row] and not fooled)
        if f == f_max > parts[0](np.zeros(slow.D)):  # of equals the first counts
            np.testing.assert_allclose(found.delta[row], top, rtol=1e-7, atol=1e-10)
    assert len(halved) > 1  # rows went different ways
    assert found.counts == {"gradients": 13 * n, "values": 13 * 3}


def test_the_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]


def test_square_is_the_search_written_out_and_counts_its_queries(noise):
    data, problem, x = noise
    eps, queries, (height, width, _) = 0.13, 40, slow.SHAPE
    found = attacked(problem, x, Square(eps, queries, p=0.6), rows=ROWS, seed=5, keep=True, stop=False)
    assert found.counts == {"gradients": 0, "values": len(ROWS) * (queries + 2)}
    for b, row in enumerate(ROWS):
        p, t = slow.pixels(data)[row].reshape(slow.SHAPE), data.y_train[row]

        def f(delta, p=p, t=t):
            return objective(x, (p + delta).ravel(), t, slow.margin)[0]

        u = slow.uniforms(5, "Square", 0, row, width)
        delta = slow.cut(np.where(u < 0.5, -eps, eps)[None, :, None] * np.ones(slow.SHAPE), p, eps)
        for i in range(1, queries):
            share = 0.6
            for bound in (10, 50, 200, 1000, 2000, 4000, 6000, 8000):
                share /= 2 if i > bound * queries / 10_000 else 1
            h = min(max(1, round(np.sqrt(share * height * width))), height, width)
            u = slow.uniforms(5, "Square", i, row, 3)
            r, s = int(u[0] * (height - h + 1)), int(u[1] * (width - h + 1))
            new = delta.copy()
            new[r : r + h, s : s + h, 0] += 2 * eps if u[2] >= 0.5 else -2 * eps
            new = slow.cut(new, p, eps)
            if f(new) > f(delta):
                delta = new
        best = delta if f(delta) > f(0 * delta) else 0 * delta
        np.testing.assert_allclose(found.losses[b], f(best), rtol=1e-9)
        np.testing.assert_allclose(found.delta[b], best.ravel(), atol=1e-12)


# ---------------------------------------------------------------------------------------------------- closed forms


def linear(rng, classes=2, dtype="float64"):
    data = slow.images(rng, 40)
    data.y_train = data.y_test = data.y_train % classes
    net = Network(Sequential(fc=Linear(slow.D, classes)), (slow.D,))
    problem = Neural(net, Images(data), dtype=dtype)
    return data, problem, rng.standard_normal(problem.dim)


@pytest.mark.parametrize("eps", [0.05, 0.4])
def test_fgsm_is_the_worst_there_is_for_a_linear_model_of_two_classes(eps, rng):
    data, problem, x = linear(rng)
    found = attacked(problem, x, FGSM(eps), keep=True, stop=False)
    W, p, t = x[: 2 * slow.D].reshape(2, slow.D), slow.pixels(data), data.y_train
    worst = np.array([slow.cut(eps * np.sign(W[1 - c] - W[c]), q, eps) for q, c in zip(p, t, strict=True)])
    wrong = np.array(
        [
            (W[1 - c] - W[c]) @ (255 * (q + d) - slow.MEAN) / slow.STD + x[-2:][1 - c] - x[-2:][c]
            for q, d, c in zip(p, worst, t, strict=True)
        ]
    )
    np.testing.assert_allclose(found.losses, np.log1p(np.exp(wrong)), rtol=1e-9)
    np.testing.assert_allclose(found.delta, worst, atol=1e-12)
    np.testing.assert_array_equal(found.robust, wrong < 0)
    strong = attacked(problem, x, PGD(eps, None, 30), seed=1, stop=False)
    np.testing.assert_allclose(strong.losses, found.losses, rtol=1e-9)  # it finds the same corner, and no better
    square = attacked(problem, x, Square(eps, 200), seed=1, stop=False)
    assert (np.log1p(np.exp(square.losses)) <= found.losses + 1e-12).all()


def test_projections_hold_to_both_sets_and_are_the_nearest_points_where_pixels_do_not_bind(noise, rng):
    _, problem, x = noise
    aim = aim_at(problem, x)
    p, delta = aim.pixels, rng.standard_normal((len(ROWS), slow.D))
    box = Ball(aim, 0.2, "linf").project(delta.copy())
    np.testing.assert_array_equal(box, np.clip(np.clip(delta, -0.2, 0.2), p.lower, p.upper))
    round_ = Ball(aim, 0.3, "l2").project(delta.copy())
    assert (np.linalg.norm(round_, axis=1) <= 0.3 + 1e-12).all() and (p.lower <= round_).all()
    p.lower, p.upper = p.lower - 9, p.upper + 9
    ball, small = Ball(aim, 0.3, "l2"), 0.01 * delta
    np.testing.assert_allclose(ball.project(delta.copy()), 0.3 * delta / np.linalg.norm(delta, axis=1, keepdims=True))
    np.testing.assert_array_equal(ball.project(small.copy()), small)


def test_pixels_and_lengths_keep_to_their_bounds_and_starts_fill_the_ball(rng):
    data = slow.images(rng, 400)
    problem = slow.problem(data)
    x = problem.x0(rng)
    aim = aim_at(problem, x, np.arange(400))
    aim.pixels.lower, aim.pixels.upper = aim.pixels.lower - 9, aim.pixels.upper + 9
    flat, round_ = (Ball(aim, 0.3, norm).start(4, "start", 0) for norm in ("linf", "l2"))
    assert abs(flat).max() <= 0.3 and abs(flat.mean()) < 0.01 and flat.var() == pytest.approx(0.3**2 / 3, rel=0.05)
    radius = np.linalg.norm(round_, axis=1) / 0.3
    assert radius.max() <= 1 + 1e-12 and (radius**slow.D).mean() == pytest.approx(0.5, abs=4 * (1 / 12 / 400) ** 0.5)
    for attack in (
        PGD(0.2, 0.05, 5),
        PGD(0.5, 0.2, 5, norm="l2"),
        APGD(0.2, 12),
        APGD(0.5, 12, norm="l2"),
        Square(0.2, 9),
    ):
        found = attacked(problem, x, attack, rows=range(50), keep=True, stop=False)
        size = abs(found.delta).max() if attack.norm == "linf" else np.linalg.norm(found.delta, axis=1).max()
        there = slow.pixels(data)[:50] + found.delta
        assert 0 < size <= attack.eps + 1e-12 and -1e-12 <= there.min() and there.max() <= 1 + 1e-12


# ---------------------------------------------------------------------------------------------------- networks


@pytest.fixture(scope="module")
def trained():
    net = Network(
        Sequential(a=Linear(64, 32), n=BatchNorm(32), r=ReLU(), d=Dropout(0.2), b=Linear(32, 10)), (64,), "trained"
    )
    problem = Neural(net, Images(datasets.load("digits")))
    run = minimize(problem, Adam(), RandomReshuffling(64), 0.01, stop=Stop(epochs=6), seed=1)
    return problem, run.x


ALL = [
    FGSM(0.1), PGD(0.1, None, 5), PGD(0.1, 0.03, 4, restarts=2, loss=LogitMargin()), PGD(0.9, None, 6, norm="l2"),
    PGD(0.1, 0.03, 4, goal="least"), APGD(0.1, 12, loss=LogitRatio()), APGD(0.9, 12, norm="l2"), Square(0.1, 15),
    Ensemble(APGD(0.1, 8), Square(0.1, 8)),
]  # fmt: skip


@pytest.mark.parametrize("attack", ALL, ids=repr)
def test_an_attack_changes_nothing_and_is_a_function_of_seed_and_row(attack, trained):
    problem, x = trained
    before, point = str(problem.state()), x.copy()
    one, two = (attacked(problem, x, attack, rows=range(60), seed=3, keep=True, batch=b, stop=False) for b in (60, 17))
    np.testing.assert_allclose(one.delta, two.delta, atol=2e-3)  # float32: products round by their shapes
    assert (one.robust == two.robust).mean() > 0.95 and one.counts == two.counts
    assert str(problem.state()) == before
    np.testing.assert_array_equal(x, point)
    early = attacked(problem, x, attack, rows=range(60), seed=3)
    assert (early.robust == one.robust).mean() > 0.95  # rows that were fooled are left alone, no verdict changes
    assert sum(early.counts.values()) <= sum(one.counts.values())


def test_accuracy_falls_with_eps_steps_and_restarts_and_ends_at_zero(trained):
    problem, x = trained
    accuracy, losses = [], []
    for eps in (0, 0.03, 0.06, 0.1, 0.2, 1.0):
        found = attacked(problem, x, PGD(eps, None, 20, restarts=2), seed=2, stop=False)
        accuracy.append(found.robust.mean())
        losses.append(found.losses.mean())
    assert (np.diff(losses) > 0).all() and (np.diff(accuracy) <= 0).all()
    assert accuracy[0] == found.right.mean() > 0.9 and accuracy[-1] == 0
    one, three = (attacked(problem, x, PGD(0.06, 0.02, 5, restarts=k), seed=2).robust for k in (1, 3))
    few, many = (attacked(problem, x, PGD(0.06, 0.02, k), seed=2).robust for k in (3, 9))
    assert not (three & ~one).any() and not (many & ~few).any()
    fgsm, pgd = (attacked(problem, x, a).robust.mean() for a in (FGSM(0.06), PGD(0.06, 0.01, 20)))
    assert pgd <= fgsm + 0.01


def test_eps_of_zero_leaves_the_clean_answers(trained):
    problem, x = trained
    for attack in (FGSM(0), PGD(0, 0.1, 3), APGD(0, 9), Square(0, 5), PGD(0, 0.1, 3, norm="l2")):
        found = attacked(problem, x, attack, rows=range(50), keep=True)
        np.testing.assert_array_equal(found.robust, found.right)
        assert not found.delta.any()


def test_eps_is_in_units_of_the_image_whatever_the_network_sees(rng):
    raw, found = datasets.load("digits"), []
    for data in (raw, between(raw, 0.0, 1.0)):
        net = Network(Sequential(a=Linear(64, 10, init=init.Zeros(), bias_init=init.Zeros())), (64,))
        problem = Neural(net, Images(data), dtype="float64")
        x = np.zeros(problem.dim)
        W = rng.standard_normal((10, 64)) if not found else W  # noqa: F821
        unit = np.asarray(problem.box()[2])
        low = np.asarray(problem.box()[0])
        x[:640], x[640:] = (W / unit).ravel(), -(W / unit) @ low  # the same function of the pixels
        found.append(attacked(problem, x, PGD(0.07, 0.02, 5), rows=range(40), seed=1, keep=True, stop=False))
    np.testing.assert_allclose(found[0].delta, found[1].delta, atol=1e-9)
    np.testing.assert_allclose(found[0].losses, found[1].losses, rtol=1e-9)


def test_a_goal_is_reached(trained):
    problem, x = trained
    found = attacked(problem, x, PGD(0.5, None, 30, goal=3), rows=range(80), keep=True)
    inputs, targets = problem.pairs("test", np.arange(80))
    answers = problem.scores(x, inputs + (problem.box()[2] * found.delta).astype("float32")).argmax(axis=1)
    reached = answers == (targets + 3) % 10
    np.testing.assert_array_equal(found.robust, found.right & ~reached)
    assert reached.mean() > 0.9


def test_a_network_that_hides_its_gradients_is_found_out(trained):
    """Logits 10,000 times as large give the same answers. Their softmax is 0 or 1 in float32, with gradients of 0."""
    problem, x = trained
    hidden = x.copy()
    for name in ("b.W", "b.b"):
        hidden[problem.segments.find(name).slice] *= 1e4
    honest, masked = (attacked(problem, v, PGD(0.15, None, 10, random=False)).robust.mean() for v in (x, hidden))
    assert honest < 0.2 and masked > 0.7
    for attack in (APGD(0.15, 30, loss=LogitRatio()), PGD(0.15, None, 10, loss=LogitMargin()), Square(0.15, 300)):
        assert attacked(problem, hidden, attack).robust.mean() < 0.35, attack
    found = attacked(problem, hidden, Ensemble.small(0.15, 20, 50))
    each = [attacked(problem, hidden, one).robust for one in Ensemble.small(0.15, 20, 50).attacks]
    assert found.robust.mean() <= min(one.mean() for one in each) + 0.01


@pytest.mark.parametrize("attack", ALL, ids=repr)
def test_attacks_run_where_nothing_may_be_read(attack, device, trained):
    problem, x = trained
    net = Network(Sequential(a=Linear(64, 32), n=BatchNorm(32), r=ReLU(), b=Linear(32, 10)), (64,))
    there = Neural(net, Images(datasets.load("digits")))
    there.load_state(problem.state())
    found = attacked(there, backend.asarray(backend.to_host(x)), attack, rows=range(30), seed=3, keep=True)
    backend.use("cpu")
    here = attacked(problem, x, attack, rows=range(30), seed=3, keep=True)
    assert (found.robust == here.robust).mean() > 0.9 and found.delta.shape == here.delta.shape
    assert abs(found.delta).max() == pytest.approx(abs(here.delta).max(), abs=0.05)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda p: PGD(-0.1), "eps must lie in"),
        (lambda p: PGD(0.1, norm="l1"), "norm must be one of linf, l2"),
        (lambda p: PGD(0.1, steps=0), "steps must be"),
        (lambda p: PGD(0.1, goal="most"), "goal must be"),
        (lambda p: APGD(0.1, 1), "steps must be"),
        (lambda p: Square(0.1, p=0.0), "p must lie in"),
        (lambda p: Ensemble(), "give attacks"),
        (lambda p: attacked(p, np.zeros(p.dim), FGSM(0.1), rows=[40]), r"whole numbers in 0\.\.39"),
        (lambda p: attacked(p, np.zeros(p.dim), FGSM(0.1), rows=[]), "at least one"),
        (lambda p: attacked(p, np.zeros(p.dim), FGSM(0.1), "validation"), "no part 'validation'; there is train, test"),
        (lambda p: attacked(LeastSquares(np.eye(2), np.ones(2)), np.zeros(2), FGSM(0.1)), "attacks need a network"),
        (lambda p: attacked(p, np.zeros(p.dim), "FGSM"), "attack must be one of problems.attacks"),
        (lambda p: Ensemble(0.3), "give attacks"),
        (lambda p: attacked(p, np.zeros(p.dim), FGSM(0.1, loss=LogitRatio())), "logits of 3 classes or more"),
    ],
)
def test_bad_arguments(wrong, words, rng):
    with pytest.raises(ValueError, match=words):
        wrong(linear(rng)[1])
