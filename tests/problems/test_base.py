"""Problem's defaults, checks of x, shift, and restriction to segments."""

from npopt import backend
from npopt.segments import Segments
from problems import LeastSquares, Logistic, Problem, Quadratic
from problems.base import number

import numpy as np
import pytest


class Pieces(Problem):
    """1/2 |x - i|^2 for row i, in four segments, with an l1 penalty and a state: all that Restricted passes on."""

    name, n, has_penalty = "pieces", 3, True

    def __init__(self, dtype=np.float64):
        table = [("a", (2,), "vector", "one"), ("b", (2, 2), "matrix", "one"), ("c", (1,), "bias", "two")]
        self.set_shape(9, dtype, Segments.of(*table, ("d", (2,), "vector", "three")))
        self.pending, self.kept = 0, 0

    def difference(self, x, rows):
        rows = np.arange(self.n) if rows is None else rows
        return x - float(np.mean(rows))

    def loss(self, x, rows, weights):
        r = self.difference(x, rows)
        return number(0.5 * (r @ r))

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        self.pending += 1
        out[:] = self.difference(x, rows)
        return self.loss(x, rows, weights)

    def commit(self):
        self.kept, self.pending = self.kept + self.pending, 0

    def state(self):
        return {"t": self.t, "kept": self.kept}

    def load_state(self, state):
        self.t, self.kept = state["t"], state["kept"]

    def penalty(self, x):
        return number(abs(x).sum())

    def prox(self, x, step):
        x[:] = np.sign(x) * np.maximum(abs(x) - step, 0)
        return x


def test_defaults_do_nothing_but_remember_the_step():
    problem = Quadratic([1.0, 2.0])
    x = np.array([3.0, -4.0])
    assert (problem.has_penalty, problem.penalty(x), problem.row_norms()) == (False, 0.0, None)
    assert problem.prox(x, 0.5) is x and list(x) == [3.0, -4.0]
    problem.begin(7)
    problem.commit()
    other = Quadratic([1.0, 2.0])
    other.load_state(problem.state())
    assert other.t == 7
    assert [(s.name, s.start, s.stop, s.kind) for s in problem.segments] == [("w", 0, 2, "vector")]


@pytest.mark.parametrize(
    "x, says",
    [
        (np.zeros(3), "shape (3,)"),
        (np.zeros((2, 1)), "shape (2, 1)"),
        (np.zeros(2, np.float32), "float32"),
        (np.zeros(4)[::2], "gaps"),
        ([0.0, 0.0], "got list"),
    ],
)
@pytest.mark.parametrize("problem", [Quadratic([1.0, 2.0]), LeastSquares(np.eye(2), [1.0, 2.0])], ids=repr)
def test_a_wrong_x_is_one_sentence(problem, x, says):
    for call in (lambda: problem.value(x), lambda: problem.value_and_gradient(x, np.array([0]), out=np.zeros(2))):
        with pytest.raises(ValueError, match="x must be a contiguous vector of 2 numbers of float64") as error:
            call()
        assert says in str(error.value)


def test_only_two_dtypes_exist():
    with pytest.raises(ValueError, match="float32 or float64, got float16"):
        Quadratic([1.0], dtype=np.float16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shift_is_a_step_along_the_normals_of_the_key_and_leaves_x_alone(dtype, rng):
    X, y = rng.standard_normal((20, 5)).astype(dtype), np.where(rng.random(20) < 0.5, -1, 1)
    for problem in (Logistic(X, y, 0.1), Quadratic(np.arange(1.0, 6), dtype=dtype)):
        x = rng.standard_normal(5).astype(dtype)
        before, z, key = x.copy(), np.empty(5, dtype), backend.key(3, "test")
        backend.normals(key, z)
        assert problem.value(x, shift=(0.3, key)) == pytest.approx(problem.value(x + dtype(0.3) * z), rel=4e-7)
        assert problem.value(x, shift=(0.3, key)) != pytest.approx(problem.value(x), rel=1e-4)
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("names, place", [(["b"], [2, 3, 4, 5]), (["c", "a"], [0, 1, 6]), ("one", [0, 1, 2, 3, 4, 5])])
def test_restriction_is_the_problem_with_the_rest_held(names, place, rng):
    problem, x = Pieces(), rng.standard_normal(9)
    sub = problem.restrict(x, names)
    held = x.copy()
    x[:] = np.nan  # the caller's x is not kept
    assert (sub.dim, sub.n, sub.segments.dim) == (len(place), 3, len(place))
    np.testing.assert_array_equal(sub.x0(rng), held[place])
    y, g, full = rng.standard_normal(sub.dim), np.empty(sub.dim), held.copy()
    full[place] = y
    rows = np.array([1, 2, 2])
    whole = np.empty(9)
    assert sub.value_and_gradient(y, rows, None, g) == problem.value_and_gradient(full, rows, None, whole)
    np.testing.assert_array_equal(g, whole[place])
    assert sub.value(y, rows) == problem.value(full, rows)
    np.testing.assert_array_equal(sub.place(y), full)
    np.testing.assert_array_equal(sub.gather(whole), whole[place])
    v = np.zeros(9)
    sub.scatter(y, v)
    np.testing.assert_array_equal(v[place], y)
    assert np.count_nonzero(v) == sub.dim
    assert sub.penalty(y) == problem.penalty(full)
    expected = problem.prox(full.copy(), 0.4)[place]
    np.testing.assert_array_equal(sub.prox(y, 0.4), expected)
    np.testing.assert_array_equal(y, expected)  # written in place


def test_restriction_shares_steps_state_and_pending_statistics():
    problem = Pieces()
    sub = problem.restrict(np.zeros(9), ["d"])
    sub.begin(4)
    sub.value_and_gradient(np.ones(2), out=np.empty(2))
    assert (problem.t, problem.pending, problem.kept) == (4, 1, 0)
    sub.commit()
    assert sub.state() == {"t": 4, "kept": 1} == problem.state()


def test_restriction_of_a_restriction_holds_what_the_first_held(rng):
    problem, x = Pieces(), rng.standard_normal(9)
    sub = problem.restrict(x, ["a", "b"])
    y = rng.standard_normal(6)
    inner = sub.restrict(y, ["b"])
    full = x.copy()
    full[:6] = y
    full[2:6] = 5.0
    assert inner.dim == 4 and inner.value(np.full(4, 5.0)) == problem.value(full)
    with pytest.raises(ValueError, match="no segment or block is named d"):
        sub.restrict(y, ["d"])


def test_restricted_gradient_of_a_linear_model_is_its_own_derivative(rng):
    problem = Logistic(rng.standard_normal((30, 4)), rng.integers(0, 3, 30), 0.2, intercept=True)
    x = rng.standard_normal(problem.dim)
    sub = problem.restrict(x, ["intercept"])
    y, d, g, h = rng.standard_normal(3), rng.standard_normal(3), np.empty(3), 1e-6
    sub.value_and_gradient(y, out=g)
    assert g @ d == pytest.approx((sub.value(y + h * d) - sub.value(y - h * d)) / (2 * h), rel=1e-7, abs=1e-9)


def test_restriction_runs_where_arrays_cannot_become_numpy(device, rng):
    problem = LeastSquares(rng.standard_normal((12, 3)), rng.standard_normal(12), 0.1, intercept=True)
    sub = problem.restrict(backend.asarray(rng.standard_normal(4)), ["w"])
    y, g = backend.asarray(np.ones(3)), backend.zeros(3, np.float64)
    sub.value_and_gradient(y, backend.asarray(np.array([2, 5])), None, g)
    sub.value(y, shift=(0.1, 5))
    assert np.isfinite(backend.to_host(g)).all() and set(sub.metrics(y)) >= {"objective", "gradient_norm"}
