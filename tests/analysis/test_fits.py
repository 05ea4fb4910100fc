"""Quadratics and Gaussian wells from surfaces that are one."""

from npopt.analysis import GaussianFit, LossSurface, Plane, QuadraticFit, gaussian_fit, loss_surface, quadratic_fit
from problems import Quadratic

import numpy as np
import pytest

BOOK = GaussianFit(29.2716, np.array([-0.04886, -0.06688]), np.array([0.74692, 0.94904]), 30.0, 1.0)


def sheet(f, reach=1.0, side=21):
    a = np.linspace(-reach, reach, side)
    b = np.linspace(-reach, reach, side + 2)
    A, B = np.meshgrid(a, b, indexing="ij")
    return LossSurface(a, b, f(A, B), np.full(A.shape, np.nan))


def test_a_quadratic_is_found_exactly(rng):
    A = rng.standard_normal((5, 5))
    problem, x, d = Quadratic(A @ A.T, rng.standard_normal(5)), rng.standard_normal(5), rng.standard_normal((2, 5))
    surface = loss_surface(problem, Plane(x, d), np.linspace(-1, 2, 6), np.linspace(-2, 1, 7))
    fit = quadratic_fit(surface)
    assert isinstance(fit, QuadraticFit)
    np.testing.assert_allclose(fit.hessian, d @ A @ A.T @ d.T, rtol=1e-9)
    np.testing.assert_allclose(fit.slope, d @ (A @ A.T @ x - problem.exact_b), rtol=1e-9)
    assert fit.value == pytest.approx(problem.value(x), rel=1e-9) and fit.share == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(fit.at(*surface.grid), surface.loss, rtol=1e-9)
    centre = fit.centre
    np.testing.assert_allclose(fit.slope + fit.hessian @ centre, 0, atol=1e-9)


def test_what_is_left_of_another_function_is_told():
    fit = quadratic_fit(sheet(lambda a, b: np.sin(6 * a) + b * b))
    z, f = np.sin(6 * fit_grid()[0]) + fit_grid()[1] ** 2, fit.at(*fit_grid())
    assert fit.share == pytest.approx(1 - ((z - f) ** 2).sum() / ((z - z.mean()) ** 2).sum(), rel=1e-12)
    assert fit.share < 0.8


def fit_grid():
    return sheet(lambda a, b: a).grid


def test_a_gaussian_well_whose_top_is_seen_is_found_again():
    truth = GaussianFit(7.0, np.array([0.3, -0.4]), np.array([0.5, 0.8]), 9.0, 1.0)
    surface = sheet(truth.at, reach=8.0, side=161)  # far enough for the largest value to be the top
    fit = gaussian_fit(surface)
    assert isinstance(fit, GaussianFit)
    assert fit.top == pytest.approx(9) and fit.depth == pytest.approx(7, rel=1e-9)
    np.testing.assert_allclose(fit.centre, truth.centre, atol=1e-9)
    np.testing.assert_allclose(fit.widths, truth.widths, rtol=1e-9)
    assert fit.share == pytest.approx(1, rel=1e-12)


def test_the_curvatures_of_the_books_fit_are_those_of_its_numbers():
    """A / s^2 = 52.47 and 32.50, so gradient descent stays at the centre below the rate 0.0381 alone."""
    np.testing.assert_allclose(BOOK.curvatures, [52.47, 32.50], atol=0.005)
    assert 2 / BOOK.curvatures.max() == pytest.approx(0.0381, abs=5e-5)
    h = 1e-4
    for k, step in enumerate(np.eye(2) * h):
        up, middle, down = (BOOK.at(*(BOOK.centre + s * step)) for s in (1, 0, -1))
        assert (up - 2 * middle + down) / h**2 == pytest.approx(BOOK.curvatures[k], rel=1e-5)


def test_gradients_are_differences_of_values(rng):
    for a, b in rng.uniform(-1, 1, (5, 2)):
        numeric = [(BOOK.at(a + h, b + k) - BOOK.at(a - h, b - k)) / 2e-6 for h, k in ((1e-6, 0.0), (0.0, 1e-6))]
        np.testing.assert_allclose(BOOK.gradient(a, b), numeric, rtol=1e-6)


def test_a_line_has_no_fit():
    with pytest.raises(ValueError, match="plane of at least 3 x 3"):
        quadratic_fit(LossSurface(np.arange(5.0), None, np.arange(5.0), np.arange(5.0)))
