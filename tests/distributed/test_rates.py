"""Fixed points in closed form, and rates: those of the recursions' eigenvalues, and of theorems."""

from npopt.distributed import (
    DSGD,
    EF21,
    EF21SGDM,
    EXTRA,
    CompressedSGD,
    DataParallel,
    Faults,
    FedAvg,
    FedVARP,
    GradientTracking,
    Identity,
    LocalSGD,
    OneBitAdam,
    Scaffold,
    Sign,
    TopK,
    ef21_rate,
    exponential,
    largest_rate,
    ring,
    simulate,
    torus,
)
from npopt.distributed.clock import Clock
from npopt.distributed.simulation import Network
from problems.quadratic import Quadratic

import numpy as np
import pytest
from bowls import (
    MINIMUM,
    PROBLEMS,
    SHARES,
    WEIGHTED,
    X0,
    A,
    B,
    D,
    L,
    distances,
    late_rate,
    matrix,
    moduli,
    trajectory,
    value,
)


# ------------------------------------------------------------------------------------------------------- all reduce
@pytest.mark.parametrize(
    "algorithm", [DataParallel(0.1), DataParallel(0.1, ring=True), FedAvg(0.1, 1), LocalSGD(0.1, 1)]
)
def test_these_are_gradient_descent(algorithm):
    """One step at home, all clients, all rows: x <- x - lr grad f(x), whose rate is 1 - lr lmin."""
    mean, x, found = np.einsum("i,iab->ab", SHARES, A), X0, trajectory(algorithm, rounds=60)
    for t in range(60):
        x = x - 0.1 * (mean @ x - SHARES @ B)
        np.testing.assert_allclose(found[t], [x] * found.shape[1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("algorithm", [LocalSGD(0.1, 4), FedAvg(0.1, 4)])
def test_local_steps_have_a_fixed_point_of_their_own(algorithm):
    """x = sum_i s_i (x_i* + (I - lr A_i)^4 (x - x_i*)): a linear equation, reached at the rate of its matrix."""
    powers = np.array([np.linalg.matrix_power(np.eye(D) - 0.1 * a, 4) for a in A])
    own = np.array([np.linalg.solve(a, b) for a, b in zip(A, B, strict=True)])
    M = np.einsum("i,iab->ab", SHARES, powers)
    fixed = np.linalg.solve(np.eye(D) - M, SHARES @ (own - np.einsum("iab,ib->ia", powers, own)))
    errors = distances(algorithm, fixed, rounds=60)
    assert errors[-1] < 1e-10 and np.linalg.norm(fixed - WEIGHTED) > 0.05
    assert late_rate(errors, 1e-3, 1e-10) == pytest.approx(moduli(M)[0], rel=0.02)


@pytest.mark.parametrize("option", [1, 2])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_scaffold_ends_at_the_minimum(option, share):
    errors = distances(Scaffold(0.05, 4, share=share, option=option), MINIMUM, rounds=200)
    assert errors[-1] < 1e-12 < 1e-7 < errors[40]


def test_the_rate_of_scaffold():
    """With y_i = P_i x + lr S_i (b_i + c_i - c), P_i = (I - lr A_i)^4, S_i = sum_{k<4} (I - lr A_i)^k, a round is a
    linear map of (x, c_1, ..., c_N)."""
    lr, steps, n, eye = 0.05, 4, 6, np.eye(D)
    M = np.zeros(((n + 1) * D, (n + 1) * D))
    mean = np.tile(eye / n, n)
    for i in range(n):
        own = np.zeros((D, n * D))
        own[:, i * D : (i + 1) * D] = eye
        P = np.linalg.matrix_power(eye - lr * A[i], steps)
        S = sum(np.linalg.matrix_power(eye - lr * A[i], k) for k in range(steps))
        y = np.hstack((P, lr * S @ (own - mean)))
        M[:D] += y / n
        here = slice((i + 1) * D, (i + 2) * D)
        M[here] = np.hstack((eye, 0 * own)) / (steps * lr) - y / (steps * lr)
        M[here, D:] += own - mean
    errors = distances(Scaffold(lr, steps), MINIMUM, rounds=200)
    assert late_rate(errors) == pytest.approx(moduli(M)[0], abs=0.01)


def test_fedvarp_takes_out_the_variance_of_who_takes_part():
    """With one step at home its fixed point is the minimum, FedAvg walks around it; with all clients both are one."""
    varp, avg = (trajectory(make(0.03, 1, share=0.34), rounds=1500)[:, 0] for make in (FedVARP, FedAvg))
    assert np.linalg.norm(varp[-1] - MINIMUM) < 1e-8
    assert np.linalg.norm(avg[-300:] - WEIGHTED, axis=1).min() > 1e-3
    alike = [Quadratic(p.exact_A, p.exact_b) for p in PROBLEMS]
    one, other = (trajectory(make(0.05, 3), rounds=20, problems=alike) for make in (FedVARP, FedAvg))
    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_one_bit_adam_goes_on_where_adam_warmed_up():
    """Without compression the second phase is momentum SGD with the scales that v had; with signs it comes as near."""
    for compressor, near in ((Identity(), 1e-9), (Sign(), 0.05)):
        X = trajectory(OneBitAdam(0.02, 20, 0.9, 0.99, 1e-8, None, compressor), rounds=2000)[:, 0]
        end = np.linalg.norm(X[-300:] - MINIMUM, axis=1).mean()
        assert end < near < 0.1 < np.linalg.norm(X[19] - MINIMUM)


# ----------------------------------------------------------------------------------------------------------- gossip
def test_dsgd_stops_at_the_minimum_of_another_function():
    """sum f_i(x_i) + x'(I - W)x / (2 lr): half as far away at half the rate; it goes there at the matrix's rate."""
    W, far = matrix(ring(6)), {}
    blocks = np.zeros((6 * D, 6 * D))
    for i in range(6):
        blocks[i * D : (i + 1) * D, i * D : (i + 1) * D] = A[i]
    for lr in (0.04, 0.02, 0.01):
        away = np.kron(np.eye(6) - W, np.eye(D)) / lr
        fixed = np.linalg.solve(blocks + away, B.ravel()).reshape(6, D)
        errors = distances(DSGD(lr), fixed, ring(6), rounds=1200)
        assert errors[-1] < 1e-2 * np.linalg.norm(fixed - MINIMUM)
        rate = moduli(np.kron(W, np.eye(D)) - lr * blocks)[0]
        assert late_rate(errors, errors[200], errors[400]) == pytest.approx(rate, abs=2e-3)
        far[lr] = np.linalg.norm(fixed - MINIMUM)
    assert far[0.04] / far[0.02] == pytest.approx(2, rel=0.2) and far[0.02] / far[0.01] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("graph", [ring(6), torus(2, 3)], ids=str)
def test_extra_goes_to_the_minimum_where_dsgd_stops(graph):
    """At the rate of the linear recursion in (x^{k+1}, x^k); eigenvalue 1 belongs to what the start rules out."""
    lr, W = 0.9 * largest_rate(graph, L), np.kron(matrix(graph), np.eye(D))
    errors = distances(EXTRA(lr), MINIMUM, graph, rounds=900)
    assert errors[-1] < 1e-12
    assert distances(DSGD(lr), MINIMUM, graph, rounds=900)[-1] > 0.1
    blocks, eye, zero = np.zeros_like(W), np.eye(6 * D), np.zeros_like(W)
    for i in range(6):
        blocks[i * D : (i + 1) * D, i * D : (i + 1) * D] = A[i]
    M = np.block([[eye + W - lr * blocks, lr * blocks - (eye + W) / 2], [eye, zero]])
    rates = moduli(M)
    rates = rates[rates < 1 - 1e-9]
    assert late_rate(errors) == pytest.approx(rates[0], abs=0.01)


@pytest.mark.parametrize("graph", [ring(6), exponential(6)], ids=str)
def test_gradient_tracking_goes_to_the_minimum_also_one_way(graph):
    lr, W = 0.04, np.kron(matrix(graph), np.eye(D))
    blocks = np.zeros_like(W)
    for i in range(6):
        blocks[i * D : (i + 1) * D, i * D : (i + 1) * D] = A[i]
    errors = distances(GradientTracking(lr), MINIMUM, graph, rounds=900)
    assert errors[-1] < 1e-12
    eye = np.eye(6 * D)
    M = np.block([[W, -lr * eye], [blocks @ (W - eye), W - lr * blocks]])
    rates = moduli(M)
    rates = rates[rates < 1 - 1e-9]
    assert late_rate(errors) == pytest.approx(rates[0], abs=0.01)


def test_with_noise_dsgd_on_more_nodes_is_quieter():
    """One common minimum, noise of its own at each node: the mean over N nodes has 1/N of the variance of one node.
    For f = x^2/2 and rate lr it is lr / (2 - lr) sigma^2 / N at any doubly stochastic W."""
    lr, sums = 0.3, {}
    for count in (1, 8):
        problems = [Quadratic(np.ones(300), None, n=50, noise=1.0, seed=k) for k in range(count)]
        run, values = [], np.mean([(p.e**2).sum(1).mean() for p in problems])
        simulate(
            DSGD(lr, batch=1),
            problems,
            120,
            graph=ring(count),
            start=np.zeros(300),
            observe=lambda shown, run=run: run.append(np.mean(shown, axis=0)) or {},
        )
        sums[count] = np.mean([x @ x for x in run[20:]]) / values
        assert sums[count] == pytest.approx(lr / (2 - lr) / count, rel=0.1)


# ------------------------------------------------------------------------------------------------------- compressed
@pytest.mark.parametrize(
    "make", [lambda C: EF21(0.1, C), lambda C: CompressedSGD(0.1, C), lambda C: CompressedSGD(0.1, C, False)]
)
def test_without_compression_these_are_gradient_descent(make):
    x, found = X0, trajectory(make(Identity()), rounds=40)
    for t in range(40):
        x = x - 0.1 * (A.mean(0) @ x - B.mean(0))
        np.testing.assert_allclose(found[t, 0], x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_rates_of_ef21(k):
    """Theorem 1: mean |grad f|^2 <= 2 (f(x^0) - f*) / (lr T) + G^0 / (theta T); Theorem 2, for mu-convex f at its rate:
    f - f* <= (1 - lr mu)^t (f(x^0) - f* + lr / theta G^0), G^0 = mean |h_i^0 - g_i(x^0)|^2."""
    smooth, mu = (np.linalg.eigvalsh(A.mean(0))[i] for i in (-1, 0))
    each = [np.linalg.eigvalsh(a)[-1] for a in A]
    alpha = k / D
    theta = 1 - np.sqrt(1 - alpha)
    lr = ef21_rate(alpha, smooth, each)
    if k == D:
        assert lr == pytest.approx(1 / smooth)
    first = np.array([a @ X0 - b for a, b in zip(A, B, strict=True)])
    spread = np.mean([((TopK(k)(g) - g) ** 2).sum() for g in first])
    X = np.concatenate([[X0], trajectory(EF21(lr, TopK(k)), rounds=1500)[:, 0]])
    slopes = np.array([((A.mean(0) @ (x - MINIMUM)) ** 2).sum() for x in X])
    for T in (10, 100, 1000):
        assert slopes[:T].mean() <= 2 * value(X0) / (lr * T) + spread / (theta * T)
    mean = np.sqrt(np.mean(np.square(each)))
    lr = min(1 / (smooth + mean * np.sqrt(2 * (1 - alpha)) / theta), theta / (2 * mu))
    X = np.concatenate([[X0], trajectory(EF21(lr, TopK(k)), rounds=1500)[:, 0]])
    bound = value(X0) + lr / theta * spread
    assert all(value(x) <= (1 - lr * mu) ** t * bound + 1e-25 for t, x in enumerate(X))


def test_naive_top_1_stops_where_ef21_goes_on():
    naive, memory, ef21 = (
        np.array([value(x[0]) for x in trajectory(algorithm, rounds=1500, every=100)])
        for algorithm in (CompressedSGD(0.05, TopK(1), False), CompressedSGD(0.05, TopK(1)), EF21(0.05, TopK(1)))
    )
    assert ef21[-1] < 1e-20
    assert naive[-10:].min() > 1e-3 and naive[-10:].min() > 10 * memory[-10:].max() > 0 < memory[-10:].min()


def test_what_was_sent_and_the_memory_are_all_gradients():
    """x^0 - x^T = mean_i (lr sum_t g_i(x^t) - e_i^T): nothing is lost, nothing counted twice."""
    net = Network(CompressedSGD(0.06, TopK(1)), PROBLEMS, None, Clock(), Faults(), 0, X0)
    total, x = np.zeros(D), X0
    for t in range(25):
        total += 0.06 * (A.mean(0) @ x - B.mean(0))
        x = net.round(t)[0].copy()
    memory = [program.gi_frame.f_locals["e"] for program in net.programs[1:]]
    assert np.linalg.norm(np.mean(memory, axis=0)) > 1e-3
    np.testing.assert_allclose(X0 - x, total - np.mean(memory, axis=0), rtol=1e-12)


def test_momentum_quietens_ef21_with_noisy_gradients():
    ends = {
        eta: np.mean([value(x[0]) for x in trajectory(EF21SGDM(0.05, TopK(1), eta, batch=1), rounds=1500)[500:]])
        for eta in (1.0, 0.1)
    }
    assert ends[0.1] < 0.6 * ends[1.0]
