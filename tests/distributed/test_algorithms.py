"""Trajectories of the papers, and bytes."""

from npopt import backend
from npopt.distributed import (
    DSGD,
    EF21,
    EF21SGDM,
    EXTRA,
    QSGD,
    CompressedSGD,
    DataParallel,
    FedAvg,
    FedVARP,
    GradientTracking,
    LocalSGD,
    OneBitAdam,
    PowerSGD,
    RandK,
    Scaffold,
    Sign,
    TopK,
    ef21_rate,
    exponential,
    ring,
    simulate,
    torus,
)
from npopt.errors import UserError
from npopt.segments import Segments
from problems.quadratic import Quadratic

import numpy as np
import papers as slow
import pytest
from bowls import PROBLEMS, SIZES, X0, D, matrix, nodes, oracles, trajectory

CASES = {
    "data-parallel": (DataParallel(0.11, batch=2), None, lambda: slow.data_parallel(oracles(), SIZES, X0, 12, 0.11, 2)),
    "its ring": (
        DataParallel(0.11, batch=2, ring=True),
        None,
        lambda: slow.data_parallel(oracles(), SIZES, X0, 12, 0.11, 2),
    ),
    "local": (LocalSGD(0.07, 3, batch=2), None, lambda: slow.local_sgd(oracles(), SIZES, X0, 12, 0.07, 3, 2)),
    "fedavg": (
        FedAvg(0.07, 3, 2, share=0.5, server_lr=0.8),
        None,
        lambda: slow.fedavg(oracles(1), SIZES, X0, 12, 0.07, 3, 2, 0.5, 0.8),
    ),
    "scaffold 1": (
        Scaffold(0.07, 3, 2, share=0.5, server_lr=0.8, option=1),
        None,
        lambda: slow.scaffold(oracles(1), SIZES, X0, 12, 0.07, 3, 2, 0.5, 0.8, 1),
    ),
    "scaffold 2": (
        Scaffold(0.07, 3, 2, share=0.5, server_lr=0.8),
        None,
        lambda: slow.scaffold(oracles(1), SIZES, X0, 12, 0.07, 3, 2, 0.5, 0.8, 2),
    ),
    "fedvarp": (
        FedVARP(0.07, 3, 2, share=0.5, server_lr=0.8),
        None,
        lambda: slow.fedvarp(oracles(1), SIZES, X0, 12, 0.07, 3, 2, 0.5, 0.8),
    ),
    "1-bit adam": (
        OneBitAdam(0.07, 4, 0.8, 0.9, 1e-2, 2, RandK(2)),
        None,
        lambda: slow.one_bit_adam(
            oracles(1), X0, 12, 0.07, 4, 0.8, 0.9, 1e-2, RandK(2), 2, slow.Oracle(PROBLEMS[0], 0)
        ),
    ),
    "dsgd": (DSGD(0.09, 2), exponential(6), lambda: slow.dsgd(oracles(), matrix(exponential(6)), X0, 12, 0.09, 2)),
    "tracking": (
        GradientTracking(0.05, 2),
        exponential(6),
        lambda: slow.gradient_tracking(oracles(), matrix(exponential(6)), X0, 12, 0.05, 2),
    ),
    "extra": (EXTRA(0.09), torus(2, 3), lambda: slow.extra(oracles(), matrix(torus(2, 3)), X0, 12, 0.09)),
    "ef21": (EF21(0.06, TopK(2)), None, lambda: slow.ef21(oracles(1), X0, 12, 0.06, TopK(2), 1.0, None)),
    "ef21-sgdm": (
        EF21SGDM(0.06, RandK(1, scaled=False), eta=0.3, batch=2),
        None,
        lambda: slow.ef21(oracles(1), X0, 12, 0.06, RandK(1, scaled=False), 0.3, 2),
    ),
    "feedback": (
        CompressedSGD(0.06, Sign(), batch=2),
        None,
        lambda: slow.compressed(oracles(1), X0, 12, 0.06, Sign(), True, 2),
    ),
    "no feedback": (
        CompressedSGD(0.06, QSGD(3), feedback=False, batch=2),
        None,
        lambda: slow.compressed(oracles(1), X0, 12, 0.06, QSGD(3), False, 2),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_trajectory(case):
    algorithm, graph, written = CASES[case]
    np.testing.assert_allclose(trajectory(algorithm, graph), np.array(list(written())), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_in_single_precision(case, device):
    """float32 in, float32 throughout, near the numbers in float64; also where nothing may be read."""
    algorithm, graph, written = CASES[case]
    found = trajectory(algorithm, graph, problems=nodes(np.float32))
    backend.use("cpu")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(list(written())), rtol=2e-4, atol=2e-4)


# ------------------------------------------------------------------------------------------------------------ powers
def shaped():
    """Quadratics of 6 x 4 matrices and 3 more numbers."""
    rng, found = np.random.default_rng(2), []
    for k in range(4):
        root = rng.standard_normal((27, 27))
        p = Quadratic(root @ root.T / 27 + np.eye(27), rng.standard_normal(27), 5, 0.5, seed=k)
        p.set_shape(27, float, Segments.of(("W", (6, 4), "matrix", "W"), ("c", (3,), "bias", "c")))
        found.append(p)
    return found


def test_power_sgd_is_the_subspace_iteration_of_the_mean(device):
    problems, start, found = shaped(), np.linspace(-1, 1, 27), []
    algorithm = PowerSGD(0.05, rank=2, beta=0.6, batch=2)
    run = simulate(
        algorithm,
        problems,
        12,
        seed=slow.SEED,
        start=start,
        observe=lambda shown: found.append([backend.to_host(x) for x in shown]) or {},
    )
    backend.use("cpu")
    f = [slow.Oracle(p, k) for k, p in enumerate(shaped())]
    expected = slow.power_sgd(f, start, 12, 0.05, 2, 0.6, 2, ("W", slice(0, 24), (6, 4)))
    np.testing.assert_allclose(found, list(expected), rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(np.diff(run.columns["bytes"]), 2 * 3 * 8 * (2 * (6 + 4) + 3))


def test_power_sgd_of_full_rank_is_momentum_and_of_rank_1_still_converges():
    problems = shaped()
    mean = sum(p.exact_A for p in problems) / 4
    minimum = np.linalg.solve(mean, sum(p.exact_b for p in problems) / 4)
    for rank in (1, 2):
        x = simulate(PowerSGD(0.02, rank, beta=0.5), problems, 2500, start=np.zeros(27)).x[0]
        assert np.linalg.norm(x - minimum) < 1e-9
    x, m = np.zeros(27), np.zeros(27)
    for _ in range(9):
        g = mean @ x - sum(p.exact_b for p in problems) / 4
        m = 0.5 * m + g
        x = x - 0.02 * (g + m)
    full = simulate(PowerSGD(0.02, 4, beta=0.5), problems, 9, start=np.zeros(27)).x
    np.testing.assert_allclose(full, [x] * 4, rtol=1e-12)


# ----------------------------------------------------------------------------------------------------------- counts
@pytest.mark.parametrize(
    "algorithm, graph, bytes_",
    [
        (DataParallel(0.1), None, 2 * 5 * 8 * D),
        (LocalSGD(0.1, 7), None, 2 * 5 * 8 * D),
        (FedAvg(0.1, 7), None, 2 * 6 * 8 * D),
        (FedAvg(0.1, 7, share=0.5), None, 2 * 3 * 8 * D),
        (Scaffold(0.1, 7), None, 4 * 6 * 8 * D),
        (DSGD(0.1), ring(6), 12 * 8 * D),
        (EXTRA(0.1), torus(2, 3), (6 + 12) * 8 * D),
        (GradientTracking(0.1), ring(6), 24 * 8 * D),
        (FedVARP(0.1, 7), None, 2 * 6 * 8 * D),
        (EF21(0.1, TopK(1)), None, 6 * (8 * D + 12)),
        (EF21(0.1, Sign()), None, 6 * (8 * D + 9)),
        (CompressedSGD(0.1, QSGD(1)), None, 6 * (8 * D + 9)),
    ],
    ids=str,
)
def test_bytes_of_a_round(algorithm, graph, bytes_):
    """EXTRA exchanges x once before its first round ends, and once in each: as many as rounds."""
    columns = simulate(algorithm, PROBLEMS, 3, graph=graph, start=X0).columns
    np.testing.assert_array_equal(np.diff(columns["bytes"]), bytes_)
    assert columns["bytes"][0] == bytes_


def test_bytes_of_one_bit_adam():
    """Up in this round, down in the next: whole numbers in two rounds, then a bit each and a scale."""
    columns = simulate(OneBitAdam(0.1, 2), PROBLEMS, 5, start=X0).columns
    whole, short = 6 * 8 * D, 6 * 9
    expected = np.cumsum([whole, 2 * whole, whole + short, 2 * short, 2 * short])
    np.testing.assert_array_equal(columns["bytes"], expected)


@pytest.mark.parametrize(
    "make", [DataParallel, LocalSGD, FedAvg, Scaffold, DSGD, GradientTracking, EXTRA, FedVARP, OneBitAdam, PowerSGD]
)
def test_rates_are_checked(make):
    for lr in (-1, "x", np.nan):
        with pytest.raises(UserError, match=f"{make.__name__}: lr"):
            make(lr)
    assert repr(make(0.5)).startswith(f"{make.__name__}(lr=0.5")


def test_other_arguments_are_checked():
    for make in (
        lambda: FedAvg(0.1, share=0),
        lambda: Scaffold(0.1, option=3),
        lambda: EF21SGDM(0.1, TopK(1), eta=0),
        lambda: EF21(-1, TopK(1)),
        lambda: CompressedSGD(0.1, TopK(1), batch=0),
        lambda: LocalSGD(0.1, steps=0),
        lambda: ef21_rate(0, 1, [1]),
    ):
        with pytest.raises(UserError):
            make()
