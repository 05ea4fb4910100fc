"""Sharpness on quadratics, and on ReLU networks that are rescaled without being changed."""

from npopt import backend
from npopt.analysis import Rise, eigenpairs, fisher_rao, hessian, relative_flatness, scaled, scales, trace, worst_rise
from problems import Quadratic

import numpy as np
import pytest
from nets import bias_free, dense, small

A = np.array([[5.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])


def test_at_a_quadratics_minimum_the_rise_is_half_of_lambda_max():
    problem, rho = Quadratic(A), 0.3
    found, top = worst_rise(problem, np.zeros(3), rho, steps=60), np.linalg.eigvalsh(A)[-1]
    assert isinstance(found, Rise)
    assert found.most == pytest.approx(rho**2 * top / 2, rel=1e-9)
    assert np.linalg.norm(found.step) == pytest.approx(rho, rel=1e-12)
    T = np.array([0.5, 2.0, 1.5])
    found, top = worst_rise(problem, np.zeros(3), rho, T=T, steps=100), np.linalg.eigvalsh(T[:, None] * A * T)[-1]
    assert found.most == pytest.approx(rho**2 * top / 2, rel=1e-9)
    assert np.linalg.norm(found.step / T) == pytest.approx(rho, rel=1e-12)


def test_the_first_step_is_sams():
    problem, x = Quadratic(A, np.array([1.0, -2.0, 0.3])), np.array([0.5, 0.2, -1.0])
    g = A @ x - np.array([1.0, -2.0, 0.3])
    for T in (None, np.abs(x)):
        t = 1.0 if T is None else T
        e = 0.1 * t * t * g / np.linalg.norm(t * g)
        found = worst_rise(problem, x, 0.1, T=T, steps=1)
        assert found.one == pytest.approx(problem.value(x + e) - problem.value(x), rel=1e-10)
        np.testing.assert_allclose(found.step, e, rtol=1e-12)
        assert worst_rise(problem, x, 0.1, T=T, steps=5).most >= found.one


def rescaled(problem, x, units):
    """x with the weights into each unit of the first hidden layer multiplied, and those out of it divided."""
    y = x.copy()
    first, second = (s for s in problem.segments if len(s.shape) == 2 and s.shape[::-1][0] in (3, 6))
    y[first.slice] = (y[first.slice].reshape(first.shape) * units[:, None]).ravel()
    y[second.slice] = (y[second.slice].reshape(second.shape) / units).ravel()
    for segment in problem.segments:
        if segment.kind == "bias" and segment.shape == (6,):
            y[segment.slice] *= units
    return y


SCALINGS = {"units": np.array([50.0, 0.02, 1.0, 3.0, 0.1, 100.0]), "layers": np.full(6, 30.0)}


@pytest.mark.parametrize("kind", SCALINGS)
def test_rescaling_leaves_the_function_and_changes_the_plain_measures_alone(kind, rng):
    problem = small()
    x = problem.x0(rng)
    y = rescaled(problem, x, SCALINGS[kind])
    assert problem.value(y) == pytest.approx(problem.value(x), rel=1e-13)
    plain, adaptive, filters, fisher, flat = ([] for _ in range(5))
    for point in (x, y):
        H = hessian(problem, point)
        plain.append((eigenpairs(H, problem.dim, steps=problem.dim).value, np.trace(dense(H, problem.dim))))
        for into, by in ((adaptive, "element"), (filters, "filter")):
            scaled_H = scaled(H, scales(problem, point, by))
            top = eigenpairs(scaled_H, problem.dim, steps=problem.dim).value
            into.append((top, trace(scaled_H, problem.dim).value))
        fisher.append([fisher_rao(problem, point, labels=labels) for labels in ("data", "model")])
        flat.append(relative_flatness(H, problem, point, "fc2.W").value)
    assert plain[1][0] > 3 * plain[0][0] and plain[1][1] > 3 * plain[0][1]
    np.testing.assert_allclose(adaptive[1], adaptive[0], rtol=1e-9)
    if kind == "layers":
        np.testing.assert_allclose(filters[1], filters[0], rtol=1e-9)
        assert flat[1] == pytest.approx(flat[0], rel=1e-9)
    np.testing.assert_allclose(fisher[1], fisher[0], rtol=1e-11)
    rises = [worst_rise(problem, p, 1e-2, T=scales(problem, p)).one for p in (x, y)]
    assert rises[1] == pytest.approx(rises[0], rel=1e-9)


def test_scales_are_norms_of_filters():
    problem = small()
    x = problem.x0(np.random.default_rng(3))
    T = scales(problem, x, "filter")
    W, b = problem.segments.find("fc2.W"), problem.segments.find("fc2.b")
    expected = np.linalg.norm(x[W.slice].reshape(W.shape), axis=1)
    np.testing.assert_allclose(T[W.slice].reshape(W.shape), np.repeat(expected[:, None], 6, 1), rtol=1e-14)
    np.testing.assert_array_equal(T[b.slice], np.abs(x[b.slice]))
    np.testing.assert_array_equal(scales(problem, x), np.abs(x))
    with pytest.raises(ValueError, match="by must be"):
        scales(problem, x, "layer")


def test_the_fisher_rao_norm_is_its_definition_and_the_theorem_of_liang_et_al(rng):
    problem = bias_free()
    x = problem.x0(rng)
    g, along = np.empty_like(x), []
    for i in range(12):
        problem.value_and_gradient(x, np.array([i]), None, g)
        along.append(x @ g)
    assert fisher_rao(problem, x) == pytest.approx(np.mean(np.square(along)) ** 0.5, rel=1e-12)
    z = problem.outputs(x, "train", np.arange(12))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    slopes = p - np.eye(4)[problem.targets()]
    theorem = 9 * np.mean((slopes * z).sum(1) ** 2)  # (L + 1)^2 E <dl/dz, z>^2, L = 2 hidden layers
    assert fisher_rao(problem, x) ** 2 == pytest.approx(theorem, rel=1e-12)
    model = 9 * np.mean((p * z * z).sum(1) - (p * z).sum(1) ** 2)
    assert fisher_rao(problem, x, labels="model") ** 2 == pytest.approx(model, rel=1e-12)
    with pytest.raises(ValueError, match="no tangents"):
        fisher_rao(Quadratic(A), np.ones(3))
    with pytest.raises(ValueError, match="'data' or 'model'"):
        fisher_rao(problem, x, labels="mine")


def test_relative_flatness_is_the_sum_over_pairs_of_rows(rng):
    problem = small()
    x = problem.x0(rng)
    H, segment = hessian(problem, x), problem.segments.find("fc2.W")
    W = x[segment.slice].reshape(segment.shape)
    block = dense(H, problem.dim)[segment.slice, segment.slice].reshape(*segment.shape, *segment.shape)
    expected = np.einsum("si,ti,sjtj->", W, W, block)
    found = relative_flatness(H, problem, x, "fc2.W", draws=3000)
    assert abs(found.value - expected) < 4 * found.error and found.error < 0.1 * abs(expected)
    with pytest.raises(ValueError, match="must be a matrix"):
        relative_flatness(H, problem, x, "fc2.b")


def test_sharpness_where_nothing_may_be_read(device):
    found = []
    for where in ("cpu", device):
        backend.use(where)
        problem = small()
        x = problem.x0(np.random.default_rng(1))
        T, H = scales(problem, x, "filter"), hessian(problem, x)
        rise = worst_rise(problem, x, 0.1, T=T, steps=3)
        found.append([rise.one, rise.most, fisher_rao(problem, x), fisher_rao(problem, x, labels="model")])
        found[-1] += [relative_flatness(H, problem, x, "fc1.W", 3).value, trace(scaled(H, T), problem.dim, 3).value]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)
