"""Six nodes with quadratics of their own, the minima that they share, and what is measured of a run on them."""

from npopt import backend
from npopt.distributed import simulate
from problems.quadratic import Quadratic

import numpy as np
import papers as slow

D, ROUNDS = 4, 12
SIZES = [3, 5, 4, 3, 6, 2]


def nodes(dtype=np.float64):
    """Six quadratics with minima, curvatures, noise and numbers of rows of their own."""
    rng = np.random.default_rng(8)
    found = []
    for k, rows in enumerate(SIZES):
        A = rng.standard_normal((D, D))
        b = 3 * rng.standard_normal(D)
        found.append(Quadratic(A @ A.T / D + (0.5 + 0.2 * k) * np.eye(D), b, rows, 0.7, seed=k, dtype=dtype))
    return found


PROBLEMS = nodes()
A = np.array([p.exact_A for p in PROBLEMS])
B = np.array([p.exact_b for p in PROBLEMS])
SHARES = np.array(SIZES) / sum(SIZES)
L = max(np.linalg.eigvalsh(a)[-1] for a in A)
MINIMUM = np.linalg.solve(A.sum(0), B.sum(0))  # of the mean of the f_i
WEIGHTED = np.linalg.solve(np.einsum("i,iab->ab", SHARES, A), SHARES @ B)  # of the mean over all rows
X0 = np.array([1.0, -2.0, 0.5, 3.0])


def trajectory(algorithm, graph=None, rounds=ROUNDS, problems=PROBLEMS, every=1):
    found = []
    simulate(
        algorithm,
        problems,
        rounds,
        graph=graph,
        seed=slow.SEED,
        start=X0,
        every=every,
        observe=lambda shown: found.append(np.array([backend.to_host(x) for x in shown])) or {},
    )
    return np.array(found)


def oracles(first=0):
    return [slow.Oracle(p, first + k) for k, p in enumerate(PROBLEMS)]


def matrix(graph):
    return graph.W.toarray()


def late_rate(errors, above=1e-7, below=1e-12):
    """The mean factor of a round between two errors."""
    first, last = (int(np.argmax(errors < bound)) for bound in (above, below))
    return (errors[last] / errors[first]) ** (1 / (last - first))


def distances(algorithm, to, graph=None, rounds=300):
    return np.linalg.norm(trajectory(algorithm, graph, rounds) - to, axis=2).max(1)


def moduli(M):
    return np.sort(np.abs(np.linalg.eigvals(M)))[::-1]


def value(x):
    """(mean of f_i)(x) above its minimum."""
    d = x - MINIMUM
    return float(d @ A.mean(0) @ d) / 2
