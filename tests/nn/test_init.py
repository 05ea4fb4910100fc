"""Initialisers: the variance each promises, bounds, orthogonality, and the fans of layers."""

from math import sqrt

import nn
from nn import init

import numpy as np
import pytest

FANS = 30, 20
CASES = [
    (init.Normal(0.3), 0.3, None),
    (init.Uniform(0.3), 0.3 / sqrt(3), 0.3),
    (init.LeCun(), sqrt(1 / 30), None),
    (init.XavierNormal(), sqrt(2 / 50), None),
    (init.XavierUniform(), sqrt(2 / 50), sqrt(6 / 50)),
    (init.KaimingNormal(), sqrt(2 / 30), None),
    (init.KaimingNormal(a=0.5), sqrt(2 / (1.25 * 30)), None),
    (init.KaimingUniform(), sqrt(2 / 30), sqrt(6 / 30)),
    (init.KaimingUniform(a=0.5), sqrt(2 / (1.25 * 30)), sqrt(6 / (1.25 * 30))),
    (init.PyTorchDefault(), sqrt(1 / 90), sqrt(1 / 30)),
]


@pytest.mark.parametrize("initialiser, std, bound", CASES, ids=lambda v: repr(v) if isinstance(v, init.Value) else "")
def test_standard_deviation_and_bound(initialiser, std, bound, rng):
    w = initialiser(rng, (200, 500), *FANS, "float64")
    # 1e5 draws: the mean has deviation std/316, a sample standard deviation at most 0.23 %; five of each
    assert abs(w.mean()) < 5 * std / 316
    assert abs(w.std() / std - 1) < 0.0115
    if bound is not None:
        assert 0.999 * bound < np.abs(w).max() <= bound
    half = initialiser(np.random.default_rng(1), (3, 4), *FANS, "float32")
    assert half.dtype == np.float32
    np.testing.assert_array_equal(
        half, initialiser(np.random.default_rng(1), (3, 4), *FANS, "float64").astype("float32")
    )


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (4, 3, 3, 2)])
def test_orthogonal_rows_or_columns(shape, rng):
    q = init.Orthogonal(gain=2.0)(rng, shape, 1, 1, "float64").reshape(shape[0], -1) / 2
    gram = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-14)


def test_orthogonal_has_no_preferred_sign(rng):
    """QR alone leaves signs that favour one side: the mean of Q_11 is then far from 0, -2/pi in two dimensions."""
    first = [init.Orthogonal()(rng, (2, 2), 1, 1, "float64")[0, 0] for _ in range(2000)]
    assert abs(np.mean(first)) < 5 * sqrt(0.5 / 2000)  # Q_11 = cos of a uniform angle: variance 1/2


def test_fan_in_of_a_convolution_counts_its_area(rng):
    network = nn.Network(
        nn.Sequential(
            c=nn.Conv2d(3, 50, 5, init=init.LeCun()),
            f=nn.Flatten(),
            l=nn.Linear(50, 400, init=init.XavierNormal(), bias_init=init.Constant(0.5)),
        ),
        (5, 5, 3),
    )
    x, table = network.x0(rng, "float64"), network.segments
    assert table.view(x, "c.W").std() * sqrt(75) == pytest.approx(1, abs=0.06)  # 3750 draws: 1.2 %
    assert table.view(x, "l.W").std() * sqrt(225) == pytest.approx(1, abs=0.03)  # 20,000 draws: 0.5 %
    assert np.abs(table.view(x, "c.b")).max() <= sqrt(1 / 75)
    assert (table.view(x, "l.b") == 0.5).all()
    assert network.layer.layers[0].fans("W") == (75, 1250)


def test_a_start_is_a_function_of_the_generator():
    network = nn.lenet5()
    x, y = (network.x0(np.random.default_rng(3), "float32") for _ in range(2))
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(x, network.x0(np.random.default_rng(3), "float64").astype("float32"))


def test_constants_and_printing(rng):
    np.testing.assert_array_equal(init.Zeros()(rng, (2,), 1, 1, "float32"), np.zeros(2, "float32"))
    np.testing.assert_array_equal(init.Ones()(rng, (2,), 1, 1, "float32"), np.ones(2, "float32"))
    assert repr(init.KaimingNormal()) == "KaimingNormal(a=0.0)"
    with pytest.raises(ValueError, match="std must lie in"):
        init.Normal(-1)


def test_the_initialisers_of_the_book(rng):
    w = init.ScaledOrthogonal()(rng, (64, 100), 100, 64, "float64")
    np.testing.assert_allclose(w @ w.T, np.eye(64) * 2 / 100, atol=1e-14)
    for shape in ((50, 784), (10, 64)):
        w = init.LMomentum(0.49)(rng, shape, shape[1], shape[0], "float64")
        assert w.var() == pytest.approx(0.49, rel=1e-12) and np.abs(w).max() < 0.7 * sqrt(3) * 1.05
    for shape in ((30, 20), (8, 3, 3, 5)):
        w = init.SpectralNormalised(init.KaimingNormal(), 1.5)(rng, shape, 20, 30, "float64")
        assert np.linalg.norm(w.reshape(shape[0], -1), 2) == pytest.approx(1.5, rel=1e-12)


def test_metrics_of_spectra():
    from nn import spectra

    w = np.diag([4.0, 2.0, 1.0, 1.0])[:, [2, 0, 1, 3]].reshape(4, 2, 2)
    s = spectra.singular_values(w)
    np.testing.assert_allclose(s, [4, 2, 1, 1])
    p = np.array([0.5, 0.25, 0.125, 0.125])
    expected = dict(
        condition_number=4,
        spectral_norm=4,
        rank_by_sum=2,
        rank_by_entropy=np.exp(-(p * np.log(p)).sum()),
        rank_by_share=0.75,
    )
    assert {name: f(s) for name, f in spectra.METRICS.items()} == pytest.approx(expected)
    same = spectra.singular_values(np.eye(20))
    assert spectra.rank_by_sum(same) == pytest.approx(20) and spectra.rank_by_entropy(same) == pytest.approx(20)
    assert spectra.rank_by_share(np.full(40, 0.5)) == pytest.approx(37 / 40)
    assert spectra.condition_number(np.array([1.0, 0.0])) == np.inf


def test_power_iteration_finds_the_largest_singular_value(rng):
    from nn.spectra import PowerIteration

    w = rng.standard_normal((12, 3, 3, 4))
    exact, found = np.linalg.norm(w.reshape(12, -1), 2), PowerIteration(w.shape, rng)
    estimates = [found(w) for _ in range(3000)]
    assert estimates[-1] == pytest.approx(exact, rel=1e-9) and max(estimates) <= exact * (1 + 1e-12)
    for _ in range(20):  # one step a change follows a weight that moves
        w += 0.003 * rng.standard_normal(w.shape)
        last = found(w)
    assert last == pytest.approx(np.linalg.norm(w.reshape(12, -1), 2), rel=0.01)
