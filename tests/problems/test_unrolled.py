"""Unrolled networks: gradients, a slow loop from the papers, both ways of the passes, samples, restriction."""

import math

from nn import kernels
from npopt import Adam, RandomReshuffling, Stop, backend, minimize
from npopt.errors import UserError
from problems.unrolled import ALISTA, LISTA, LISTACP, SUPPORT, SparseCodes, Unrolled, analytic_weight, ista, nmse
from problems.unrolled.forms import Unrolling

import numpy as np
import pytest

SOURCE = SparseCodes(20, 36, 0.2, snr=15, seed=3)
FORMS = [
    LISTACP(4, 0.3),
    LISTACP(4, 0.3, support=(9, 20)),
    LISTACP(4, 0.3, tied=True, per_coordinate=True, support=(9, 20)),
    LISTA(4, 0.3),
    LISTA(4, 0.3, support=(9, 20)),
    LISTA(4, 0.3, tied=True, per_coordinate=True),
    ALISTA(4, 0.3, support=(9, 20)),
    ALISTA(4, 0.3, per_coordinate=True),
]
NAMES = [f"{type(f).__name__}-{'tied' * f.tied}-{f.per_coordinate}-{f.support}" for f in FORMS]
every_form = pytest.mark.parametrize("form", FORMS, ids=NAMES)


@pytest.fixture(params=["fast", "reference"])
def way(request):
    kernels.use(request.param)
    yield request.param
    kernels.use("fast")


def moved(problem, seed=0, spread=0.3):
    """A point at which no two numbers are alike, thetas of both signs among them where they may be."""
    rng = np.random.default_rng(seed)
    x = np.array(backend.to_host(problem.x0(None)), np.float64)
    x *= 1 + spread * rng.standard_normal(x.shape)
    x += 0.02 * rng.standard_normal(x.shape)
    return backend.asarray(x, problem.dtype)


def slow(form, x, problem, b):
    """(x_K, margins) for one sample b, (m,), by numbers one after the other, from the papers' equations; margins: how
    far each decision is from its border."""
    A, n, v, margins = problem.source.dictionary(), problem.source.n, problem.views(x), []
    z = np.zeros(n)
    for k in range(problem.depth):
        if isinstance(form, LISTA):
            W2 = (v["V"] if form.tied else v[f"{k}.V"]).T if k else np.zeros((n, n))
            u = v["B"] @ b + W2 @ z
        elif isinstance(form, ALISTA):
            u = z + v[f"{k}.gain"][0] * analytic_weight(A).T @ (b - A @ z)
        else:
            u = z + (v["W"] if form.tied else v[f"{k}.W"]) @ (b - A @ z)
        theta = np.broadcast_to(v[f"{k}.theta"], n)
        theta = np.maximum(theta, 0) if isinstance(form, LISTA) else theta
        z = np.array([math.copysign(max(abs(a) - t, 0), a) for a, t in zip(u, theta, strict=True)])
        margins += list(abs(abs(u) - theta)) + list(abs(u))
        if form.support is not None:
            p, most = form.support
            place = n - 1 - round(min(p * (k + 1), most) * (n - 1) / 100)
            ranks = sorted(abs(u))
            for j in range(n):
                if abs(u[j]) > theta[j] and abs(u[j]) > ranks[place]:
                    z[j] = u[j]
            margins += list(np.diff(ranks)[max(place - 1, 0) : place + 1])
    return z, min(margins)


@every_form
def test_outputs_are_those_of_a_slow_loop(form, way):
    problem = Unrolled(form, SOURCE, 5, held=20, dtype="float64")
    x = moved(problem)
    b, truth = problem.samples()
    found = problem.outputs(x, b)
    expected = np.array([slow(form, x, problem, row)[0] for row in b])
    np.testing.assert_allclose(found[-1], expected, rtol=1e-11, atol=1e-13)
    assert len(found) == 4 and 0.02 < (expected != 0).mean() < 0.98
    value = problem.value(x, weights=np.arange(5.0))
    assert value == pytest.approx(np.mean(np.arange(5.0) * 0.5 * ((expected - truth) ** 2).sum(1)), rel=1e-12)


@every_form
def test_gradients_of_variables_and_of_b(form, way):
    problem, h = Unrolled(form, SOURCE, 5, held=20, dtype="float64"), 1e-6
    rows, w = np.array([4, 1, 2, 1]), np.array([0.3, 1.7, 0.9, 0.4])
    for seed in range(20):  # away from kinks: no decision is nearer to its border than 30 h
        rng, x = np.random.default_rng(seed), moved(problem, seed)
        b = problem.samples(rows)[0] + 0.1 * rng.standard_normal((4, 20))
        if min(slow(form, x, problem, row)[1] for row in b) > 30 * h:
            break
    else:
        raise AssertionError("every point is at a kink")
    g, db = np.empty_like(x), np.empty_like(b)
    problem.value_and_gradient(x, rows, w, g, b, db)

    def along(d, e):
        up, down = (problem.value_and_gradient(x + s * h * d, rows, w, inputs=b + s * h * e) for s in (1, -1))
        return (up - down) / (2 * h)

    for segment in problem.segments:  # each variable by itself: none may hide behind a larger one
        d, size = np.zeros_like(x), np.linalg.norm(g[segment.slice])
        d[segment.slice] = rng.standard_normal(segment.size)
        d /= np.linalg.norm(d)
        assert size > 1e-3 and abs(along(d, 0.0) - g @ d) < 1e-7 * max(size, 1e-2), segment.name
    e = rng.standard_normal(b.shape)
    e /= np.linalg.norm(e)
    assert abs(along(0.0, e) - (db * e).sum()) < 1e-7 * np.linalg.norm(db)


@every_form
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_ways_of_the_passes_agree(form, dtype):
    problem = Unrolled(form, SOURCE, 9, held=20, dtype=dtype)
    x, found = moved(problem, spread=0.1), []
    for which in ("fast", "reference"):
        kernels.use(which)
        g, db = np.full_like(x, np.nan), np.full((9, 20), np.nan, dtype)
        found.append((problem.value_and_gradient(x, None, np.arange(9.0), g, dinputs=db), g, db))
    kernels.use("fast")
    rtol = 1e-11 if dtype == "float64" else 2e-4
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * np.abs(other).max())


@pytest.mark.parametrize("threads", [1, 2])
def test_no_result_depends_on_the_number_of_threads(threads):
    backend.threads(threads)
    problem = Unrolled(LISTACP(3, support=SUPPORT), SparseCodes(30, 60), 40, held=20)
    g = np.empty(problem.dim, "float32")
    problem.value_and_gradient(moved(problem), out=g)
    backend.threads(1)
    other = np.empty_like(g)
    problem.value_and_gradient(moved(problem), out=other)
    np.testing.assert_allclose(g, other, rtol=1e-6, atol=1e-9)  # BLAS may sum r W' in another order


@pytest.mark.parametrize("form", [LISTA(6, 0.2), LISTACP(6, 0.2), LISTA(6, 0.2, tied=True), LISTACP(6, 0.2, tied=True)])
def test_untrained_networks_are_ista(form, way):
    problem = Unrolled(form, SOURCE, 7, held=20, dtype="float64")
    b, _ = problem.samples()
    A = SOURCE.dictionary()
    iterates = ista(b, A, 0.2, L=1.001 * np.linalg.norm(A, 2) ** 2)
    for found, expected in zip(problem.outputs(problem.x0(None), b), iterates, strict=False):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_support_selection_with_all_and_with_no_entries():
    b = SOURCE.held("test", 6, Unrolled(LISTACP(1), SOURCE).At.astype(float))[0]
    none, some, every = (
        Unrolled(LISTACP(3, 0.3, support=s), SOURCE, 6, dtype="float64") for s in (None, (0, 50), (100, 100))
    )
    x = none.x0(None)
    for one, other in zip(none.outputs(x, b), some.outputs(x, b), strict=True):
        np.testing.assert_array_equal(one, other)
    u = every.outputs(x, b)[0]  # hard thresholding of all but the smallest entry
    theta = every.views(x)["0.theta"][0]
    z = b @ every.views(x)["0.W"].T
    np.testing.assert_allclose(u, np.where(abs(z) > theta, z, 0), rtol=1e-12)


def test_a_threshold_below_zero_counts_as_zero_in_lista_alone(way):
    problem = Unrolled(LISTA(2, 0.2), SOURCE, 4, dtype="float64")
    x, g = moved(problem), np.empty(problem.dim)
    problem.views(x)["1.theta"][...] = -0.3
    problem.value_and_gradient(x, out=g)
    assert problem.views(g)["1.theta"][0] == 0 and problem.views(g)["0.theta"][0] != 0
    other = x.copy()
    problem.views(other)["1.theta"][...] = 0
    assert problem.value(x) == problem.value(other)
    coupled = Unrolled(LISTACP(2, 0.2), SOURCE, 4, dtype="float64")
    x, g = moved(coupled), np.empty(coupled.dim)
    coupled.views(x)["1.theta"][...] = -0.3
    coupled.value_and_gradient(x, out=g)
    assert coupled.views(g)["1.theta"][0] != 0
    np.testing.assert_allclose(coupled.outputs(x, coupled.samples()[0])[-1][0], slow(coupled.form, x, coupled,
                               coupled.samples()[0][0])[0], rtol=1e-10)  # fmt: skip


@every_form
def test_edges(form, way):
    one = Unrolled(form, SOURCE, 1, held=20, dtype="float64")  # a single sample
    x, g, db = moved(one), np.full(one.dim, np.nan), np.full((1, 20), np.nan)
    value = one.value_and_gradient(x, out=g, dinputs=db)
    b, truth = one.samples()
    assert value == pytest.approx(0.5 * ((slow(form, x, one, b[0])[0] - truth[0]) ** 2).sum(), rel=1e-12)
    assert np.isfinite(g).all() and np.isfinite(db).all() and one.value(x, weights=np.zeros(1)) == 0
    for name, theta in one.views(x).items():  # nothing is above the thresholds: x_K = 0, and nothing moves it
        if name.endswith("theta"):
            theta[...] = 100.0
    assert one.value_and_gradient(x, out=g, dinputs=db) == pytest.approx(0.5 * (truth**2).sum(), rel=1e-12)
    assert not g.any() and not db.any() and not one.outputs(x, b)[-1].any()
    gaps = np.full((1, 40), 7.0)  # inputs with gaps between their numbers
    gaps[:, ::2] = b
    assert one.value_and_gradient(x, inputs=gaps[:, ::2]) == one.value(x)


# ---------------------------------------------------------------------------------------------------------- samples
def test_the_dictionary_and_its_condition():
    A = SparseCodes(30, 60, seed=1).dictionary()
    np.testing.assert_allclose((A * A).sum(0), 1, rtol=1e-12)
    assert abs(A.std() * np.sqrt(30) - 1) < 0.05 and not np.array_equal(A, SparseCodes(30, 60, seed=2).dictionary())
    for c in (5, 50):
        s = np.linalg.svd(SparseCodes(30, 60, seed=1, condition=c).dictionary(), compute_uv=False)
        assert 0.5 * c < s[0] / s[-1] < 1.3 * c  # the scaling of the columns moves it


def test_samples_are_a_function_of_seed_and_step_and_are_spread_as_said():
    source = SparseCodes(40, 80, 0.1, snr=20)
    problem = Unrolled(LISTACP(1), source, 500, dtype="float64")
    problem.set_seed(4)
    draws = []
    for t in (0, 1, 0):
        problem.begin(t)
        draws.append(problem.samples())
    np.testing.assert_array_equal(draws[0][0], draws[2][0])
    assert not np.array_equal(draws[0][1], draws[1][1])
    again = Unrolled(LISTACP(3), source, 500, dtype="float64")
    again.set_seed(5)
    assert not np.array_equal(again.samples()[1], draws[0][1])
    again.set_seed(4)
    np.testing.assert_array_equal(again.samples()[1], draws[0][1])
    b, x = draws[0]
    used = x != 0
    assert abs(used.mean() - 0.1) < 4 * np.sqrt(0.1 * 0.9 / x.size)
    assert abs(x[used].std() - 1) < 4 / np.sqrt(2 * used.sum()) and abs(x[used].mean()) < 4 / np.sqrt(used.sum())
    clean = x @ source.dictionary().T
    ratio = (b - clean).var(1) / clean.var(1) / (0.1**2 * 39 / 40)  # chi^2 of 39 degrees of freedom, over its mean
    assert abs(ratio.mean() - 1) < 4 * np.sqrt(2 / 39 / 500) and abs(ratio.std() - np.sqrt(2 / 39)) < 0.04
    np.testing.assert_array_equal(problem.samples(np.array([7, 3]))[0], b[[7, 3]])
    one, other = (source.draw(count, 77, problem.At)[1] for count in (5, 9))
    np.testing.assert_array_equal(one, other[:5])
    half = SparseCodes(40, 80, 0.1).held("test", 10, problem.At)
    np.testing.assert_allclose(half[0], half[1] @ source.dictionary().T, rtol=1e-12)


def test_draws_are_those_of_the_cpu(device):
    found = SparseCodes(8, 20, 0.3, snr=10).draw(6, 5, backend.asarray(np.eye(20, 8), "float64"))
    backend.use("cpu")
    for one, other in zip(found, SparseCodes(8, 20, 0.3, snr=10).draw(6, 5, np.eye(20, 8)), strict=True):
        np.testing.assert_allclose(getattr(one, "inner", one), other, rtol=1e-12)


def test_nmse_is_of_sums():
    truth = np.array([[3.0, 0.0], [0.0, 0.1]])
    assert nmse(truth * 1.1, truth) == pytest.approx(-20)
    assert nmse(np.array([[3.0, 0.0], [0.0, 0.0]]), truth) == pytest.approx(10 * math.log10(0.01 / 9.01))


# ------------------------------------------------------------------------------------------- depth and restriction
@every_form
def test_restricted_gradients_are_pieces_of_the_whole(form, way):
    problem = Unrolled(form, SOURCE, 5, dtype="float64").upto(3)
    x, g = moved(problem), np.full(problem.dim, np.nan)
    value = problem.value_and_gradient(x, out=g)
    last = problem.views(g)["3.theta"]
    assert (last == 0).all()  # the loss does not look there
    for names in [form.own(2), form.own(0), form.up_to(3)] + [["1.theta"]]:
        part = problem.restrict(x, names)
        y, gy = part.first, np.full(part.dim, np.nan)
        assert part.value_and_gradient(y, out=gy) == value == part.value(y)
        np.testing.assert_allclose(gy, part.gather(g), rtol=1e-10, atol=1e-14)
        y += 0.01
        moved_whole = part.scatter(y, x.copy())
        assert part.value(y) == problem.value(moved_whole) == part.value_and_gradient(y)
    assert problem.metrics(x)["nmse"] == problem.nmse_by_layer(x, "validation")[3]


def test_variables_come_in_layer_by_layer():
    for form in FORMS:
        names = [entry[0] for entry in form.entries(20, 36)]
        assert sorted(form.up_to(form.layers)) == sorted(names)
    assert LISTA(3).own(0) == ["B", "0.theta"] and LISTA(3).own(2) == ["2.V", "2.theta"]
    assert LISTACP(3, tied=True).own(1) == ["1.theta"]


@every_form
def test_training_where_nothing_may_be_read(form, device):
    problem = Unrolled(form, SOURCE, 6, held=30)
    start = problem.metrics(problem.x0(None))["nmse"]
    part = problem.restrict(problem.x0(None), form.up_to(4))
    for each in (problem, part):
        run = minimize(each, Adam(), RandomReshuffling(None), 3e-3, stop=Stop(steps=80), events=dict(metrics=None))
        assert run.final["nmse"] < start and run.final["step"] == 80
    w = backend.asarray(np.arange(3.0), "float32")
    g = backend.empty((problem.dim,), "float32")
    problem.value_and_gradient(problem.x0(None), backend.asarray(np.array([1, 5, 1])), w, g)
    assert np.isfinite(backend.to_host(g)).all()


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: Unrolled("LISTA", SOURCE), "form must be a Unrolling such as"),
        (lambda: Unrolled(LISTA(2), 3), "source must be a SparseCodes"),
        (lambda: LISTA(0), "layers must be a whole number"),
        (lambda: LISTACP(2, support=5), "support must be"),
        (lambda: LISTACP(2, support=(5, 101)), "percentage of support"),
        (lambda: Unrolled(LISTA(2), SOURCE).upto(3), r"depth must lie in 1..2"),
        (lambda: Unrolled(LISTA(2), SOURCE, 4).samples(np.array([4])), r"rows must be one or more of 0..3"),
        (lambda: Unrolled(LISTA(2), SOURCE, 4).value(np.zeros(3)), "must be a contiguous vector"),
        (lambda: SparseCodes(density=0), "density"),
        (lambda: analytic_weight(np.ones((3, 5))), "linearly independent"),
        (lambda: analytic_weight(np.ones((5, 3))), "no more rows than columns"),
    ],
)
def test_wrong_arguments(wrong, says):
    with pytest.raises(UserError, match=says):
        wrong()


def test_forms_are_values():
    assert LISTA(3) == LISTA(3) != LISTA(3, tied=True) and isinstance(ALISTA(), Unrolling)
    assert repr(ALISTA(2)) == "ALISTA(layers=2, lam=0.4, per_coordinate=False, support=None)"


# ----------------------------------------------------------------------------------------------- the analytic weight
def test_the_analytic_weight_meets_its_constraint_and_is_the_least(rng):
    A = SparseCodes(12, 30).dictionary()
    W = analytic_weight(A)
    np.testing.assert_allclose((W * A).sum(0), 1, rtol=1e-12)

    def size(V):
        return (np.abs(V.T @ A) ** 2).sum()

    for _ in range(5):  # moves within the constraint
        D = rng.standard_normal(A.shape)
        D -= A * (D * A).sum(0)  # columns of A have length 1
        assert size(W + 1e-3 * D) > size(W)
    V, step = A.copy(), 0.5 / np.linalg.norm(A @ A.T, 2)  # the paper's way: gradient steps, and back to the constraint
    for _ in range(3000):
        V -= step * 2 * A @ (A.T @ V)
        V += A * (1 - (V * A).sum(0))
    np.testing.assert_allclose(W, V, atol=1e-6)
    assert size(W) < size(A)
