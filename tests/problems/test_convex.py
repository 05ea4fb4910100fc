"""Linear models that scripts share: their objectives, where they start, what they log."""

from types import SimpleNamespace

from npopt import SGD, Events, Stop, WithReplacement, backend, minimize
from problems import convex, load

import numpy as np
import pytest
import scipy.sparse


def test_rows_are_scaled_to_one_length_or_to_random_ones():
    X = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    for A in (X, scipy.sparse.csr_matrix(X)):
        unit, longer, same = (convex.scaled(A, kind) for kind in ("normalised", "log-normal", "as they are"))
        assert same is A
        unit, longer = (B.toarray() if scipy.sparse.issparse(B) else B for B in (unit, longer))
        np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 1], [1, 0]])
        np.testing.assert_allclose(longer, X * np.exp(np.random.default_rng(0).standard_normal(3))[:, None])


@pytest.mark.parametrize(
    "build, arguments",
    [
        (convex.regression, {}),
        (convex.linear, {}),
        (convex.linear, {"strength": 0.01}),
        (convex.lasso, {}),
    ],
)
def test_what_is_logged_at_the_minimum(build, arguments):
    problem = build("diabetes", **arguments, at_minimum=True, logs=("w", "error", "distance", "sigma"))
    best = problem.minimum()[0]
    x = problem.x0(np.random.default_rng(0))
    np.testing.assert_array_equal(x, best)
    found = problem.metrics(x + 0.5)
    np.testing.assert_array_equal(found["w"], best + 0.5)
    np.testing.assert_allclose(found["error"], 0.5, rtol=1e-9)
    assert found["distance"] == pytest.approx(0.25 * problem.dim)
    rows = []
    for i in range(problem.n):
        rows.append(backend.zeros(problem.dim, "float64"))
        problem.value_and_gradient(best, np.array([i]), out=rows[-1])
    assert found["sigma"] == pytest.approx(np.var(rows, axis=0).sum(), rel=1e-9)
    assert problem.memory == pytest.approx(problem.row_smoothness().max() / problem.strong_convexity() / problem.n)
    plain = build("diabetes", **arguments)
    assert not np.asarray(plain.x0(np.random.default_rng(0))).any() and not {"w", "sigma"} & set(plain.metrics(x))


def test_the_strength_of_l2():
    n = len(load("breast_cancer").y_train)
    problem = convex.linear("breast_cancer")
    assert problem.l2 == pytest.approx((problem.row_smoothness().max() - problem.l2) / n)
    assert convex.linear("breast_cancer", strength=3).l2 == 3 / n and convex.linear("breast_cancer", l2=0.1).l2 == 0.1
    boxed = convex.linear("breast_cancer", l2=1e-4, bound=0.3, test=False)
    assert np.abs(boxed.minimum()[0]).max() == pytest.approx(0.3) and "test_accuracy" not in boxed.metrics(np.zeros(30))


def test_of_several_classes_the_first_is_told_from_the_rest(monkeypatch):
    rng = np.random.default_rng(0)
    some = SimpleNamespace(
        x_train=rng.random((9, 2)),
        y_train=np.arange(9) % 3,
        x_test=rng.random((3, 2)),
        y_test=np.array([2, 0, 1]),
        task="classification",
        classes=(0, 1, 2),
    )
    monkeypatch.setattr(convex, "shared", lambda name: some)
    problem = convex.linear("any", l2=1e-2)
    np.testing.assert_array_equal(problem.host_y, [1, -1, -1] * 3)
    assert problem.metrics(np.zeros(2))["test_loss"] == pytest.approx(np.log(2))


def test_held_out_rows_are_a_fifth_and_none_is_lost():
    d, problem = load("breast_cancer"), convex.held_out("breast_cancer")
    assert problem.n == len(d.y_train) * 4 // 5 and problem.n + len(problem.labels) == len(d.y_train)
    together = np.vstack([problem.host_X, problem.held])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(d.x_train, axis=0))
    x = problem.minimum()[0]
    expected = np.mean(np.sign(problem.held @ x) == problem.labels)
    found = problem.metrics(x)
    assert found["validation_accuracy"] == pytest.approx(expected)
    loss = np.mean(np.log1p(np.exp(-problem.labels * (problem.held @ x))))
    assert found["validation_loss"] == pytest.approx(loss, rel=1e-12)
    with pytest.raises(ValueError, match="needs a table with two classes, such as a9a; digits is not one"):
        convex.held_out("digits")


def test_traced_runs_resume_and_repeat():
    runs = [
        minimize(
            convex.regression("diabetes", logs=("w",)),
            SGD(),
            WithReplacement(4),
            1e-3,
            stop=Stop(steps=5),
            events=Events(1, "step"),
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0].columns["w"][-1], runs[1].columns["w"][-1])
    np.testing.assert_array_equal(runs[0].columns["w"][-1], runs[0].x)
