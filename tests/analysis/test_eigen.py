"""Eigenpairs, traces and densities of matrices whose spectra are known."""

import nn
from npopt import backend
from npopt.analysis import Density, Pairs, Top, Trace, density, eigenpairs, hessian, power_iteration, trace
from npopt.analysis.densities import sign_vector

import numpy as np
import pytest
from nets import dense, small


def matrix(values):
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((len(values), len(values))))
    return (q * values) @ q.T


def check(A, pairs):
    """What Pairs promise."""
    assert isinstance(pairs, Pairs)
    exact = np.linalg.eigvalsh(A)
    for value, v, error in zip(pairs.values, pairs.vectors, pairs.errors, strict=True):
        assert np.linalg.norm(v) == pytest.approx(1, rel=1e-12)
        assert np.linalg.norm(A @ v - value * v) == pytest.approx(error, rel=1e-6, abs=1e-12)
        assert np.abs(exact - value).min() <= error + 1e-12


def test_power_iteration_takes_the_largest_magnitudes_one_by_one():
    A = matrix([9.0, -5.0, 3.0, 1.0, 0.5, -0.1])
    pairs = power_iteration(lambda v: A @ v, 6, 3, steps=200, tol=1e-9, seed=3)
    check(A, pairs)
    np.testing.assert_allclose(pairs.values, [9, -5, 3], rtol=1e-8)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(3), atol=1e-8)
    again = power_iteration(lambda v: A @ v, 6, 3, steps=200, tol=1e-9, seed=3)
    np.testing.assert_array_equal(pairs.values, again.values)


def test_power_iteration_says_when_it_did_not_get_there():
    A = matrix([5.0, -4.99, 1.0, 0.3])
    pairs = power_iteration(lambda v: A @ v, 4, steps=5, tol=1e-6)
    check(A, pairs)
    assert pairs.errors[0] > 1e-3 and pairs.products == 6


@pytest.mark.parametrize("which, expected", [("largest", [9, 3]), ("smallest", [-5, -0.1]), ("magnitude", [9, -5])])
def test_eigenpairs_by_lanczos(which, expected):
    A = matrix([9.0, -5.0, 3.0, 1.0, 0.5, -0.1])
    pairs = eigenpairs(lambda v: A @ v, 6, 2, steps=6, which=which)
    check(A, pairs)
    np.testing.assert_allclose(pairs.values, expected, rtol=1e-10)
    with pytest.raises(ValueError, match="which must be"):
        eigenpairs(lambda v: A @ v, 6, which="biggest")


def test_float32_vectors_are_enough_for_six_digits():
    A = matrix([9.0, -5.0, 3.0, *np.linspace(0, 1, 57)])
    low = A.astype("float32")
    pairs = eigenpairs(lambda v: low @ v, 60, 2, steps=40, which="magnitude", dtype="float32")
    assert pairs.vectors.dtype == np.float32
    np.testing.assert_allclose(pairs.values, [9, -5], rtol=3e-6)
    assert (pairs.errors < 1e-4).all()


def test_eigenpairs_of_a_network_are_those_of_its_whole_hessian(rng):
    problem = small(activation=nn.Tanh)
    x = problem.x0(rng)
    product = hessian(problem, x)
    values, vectors = np.linalg.eigh(dense(product, problem.dim))
    pairs = eigenpairs(product, problem.dim, 3, steps=60)
    np.testing.assert_allclose(pairs.values, values[::-1][:3], rtol=1e-9)
    assert abs(pairs.vectors[0] @ vectors[:, -1]) == pytest.approx(1, rel=1e-9)
    first = power_iteration(product, problem.dim, steps=500, tol=1e-8)
    assert first.value == pytest.approx(values[np.argmax(np.abs(values))], rel=1e-8)


def test_the_top_of_a_path_of_matrices_is_followed_in_few_products():
    """A pencil on which the second eigenvector overtakes the first one, both exact, at 1/2."""
    A, B = matrix([9.0, 1.0, *np.linspace(0, 3, 38)]), matrix([1.0, 9.0, *np.linspace(0, 3, 38)])
    for dtype in ("float64", "float32"):
        top, count = Top(40, tol=1e-3, dtype=dtype), []
        for part in np.linspace(0, 1, 21):
            M = ((1 - part) * A + part * B).astype(dtype)
            calls = []
            value, error = top(lambda v, M=M, calls=calls: calls.append(1) or M @ v)
            exact = np.linalg.eigvalsh(M.astype(float))
            assert value == pytest.approx(exact[-1], rel=1e-5) and np.abs(exact - value).min() <= error + 1e-5
            assert error <= 1e-3 * value and top.vector.dtype == dtype
            count.append(len(calls))
        assert np.median(count) <= 14
    one = [Top(40, seed=s) for s in (1, 1, 2)]
    assert one[0](lambda v: A @ v) == one[1](lambda v: A @ v) != one[2](lambda v: A @ v)


def test_signs_are_signs_with_the_identity_as_their_covariance(device):
    z = np.stack([backend.to_host(sign_vector(5, 1, k)) for k in range(4000)])
    assert set(np.unique(z)) == {-1.0, 1.0}
    np.testing.assert_allclose(z.T @ z / 4000, np.eye(5), atol=4.5 / 4000**0.5)  # 4.5 standard errors
    np.testing.assert_allclose(z.mean(0), 0, atol=4.5 / 4000**0.5)


def test_hutchinson_is_exact_for_diagonals_and_its_error_bar_is_right():
    d = np.array([3.0, -1.0, 0.5])
    found = trace(lambda v: d * v, 3, draws=4)
    assert isinstance(found, Trace)
    assert found.value == pytest.approx(2.5, rel=1e-14) and found.error == pytest.approx(0, abs=1e-14)
    A = matrix(np.linspace(-1, 4, 30))
    found = trace(lambda v: A @ v, 30, draws=2000)
    assert abs(found.value - np.trace(A)) < 4 * found.error
    spread = 2 * ((A * A).sum() - (np.diag(A) ** 2).sum())
    assert found.draws.var(ddof=1) == pytest.approx(spread, rel=0.15)
    assert found.error == pytest.approx((found.draws.var(ddof=1) / 2000) ** 0.5)


def test_the_density_of_a_known_spectrum():
    values = np.concatenate([np.zeros(150), np.linspace(0.5, 1.5, 48), [6.0, 8.0]])
    A = matrix(values)
    found = density(lambda v: A @ v, 200, draws=20, steps=40, seed=1)
    assert isinstance(found, Density)
    grid = np.linspace(-2, 10, 4001)
    assert np.trapezoid(found.at(grid), grid) == pytest.approx(1, rel=1e-6)
    assert found.share(-0.1, 0.1) == pytest.approx(0.75, abs=0.03)
    assert found.share(5, 9) == pytest.approx(0.01, abs=0.005)
    for f, exact in ((np.square, (values**2).sum()), (np.abs, values.sum())):
        estimate, error = found.sum_of(f)
        assert abs(estimate - exact) < 4 * error
    wide = found.at(grid, 0.3)
    exact = np.exp(-0.5 * ((grid[:, None] - values) / 0.3) ** 2).sum(1) / (200 * 0.3 * (2 * np.pi) ** 0.5)
    assert np.trapezoid(np.abs(wide - exact), grid) < 0.1


def test_moments_of_a_diagonal_are_those_of_hutchinson():
    d = np.array([3.0, -1.0, 0.5, 2.0])
    estimate, error = density(lambda v: d * v, 4, draws=3, steps=4).sum_of(lambda v: v**3)
    assert estimate == pytest.approx((d**3).sum(), rel=1e-10) and error < 1e-9


def test_the_same_where_nothing_may_be_read(device, rng):
    A, found = matrix([9.0, -5.0, 3.0, 1.0, 0.5, -0.1]), []
    for where in ("cpu", device):
        backend.use(where)
        there = backend.asarray(A)
        product = lambda v, A=there: A @ v  # noqa: E731
        pairs = eigenpairs(product, 6, 2, steps=6)
        power = power_iteration(product, 6, 2, steps=20)
        spectrum, top = density(product, 6, draws=2, steps=4), Top(6)
        assert isinstance(top(product)[0], float) and top(product)[0] == pytest.approx(9)
        estimate = trace(product, 6, draws=3).draws
        found.append([pairs.values, np.abs(backend.to_host(pairs.vectors)), power.values, estimate])
        found[-1].append(spectrum.at(np.linspace(-6, 10, 5), 1.0))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)
