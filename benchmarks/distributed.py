"""A round of 100 simulated nodes on a9a, beside the same arithmetic without nodes, network and clock.

    python benchmarks/distributed.py --write --threads 1

The second side is a loop over the nodes' problems: the same gradients, sums and products with W, in the same arrays.
Both sides go on from round to round. The target is 1.5 times the arithmetic alone.
"""

from pairs import Table, arguments  # isort: skip (before NumPy)

from npopt import backend
from npopt.distributed import DSGD, EXTRA, Clock, DataParallel, Faults, FedAvg, at_random, exponential, ring
from npopt.distributed.simulation import Network
from problems import Logistic
from problems.datasets import load

import numpy as np

NODES, LR, TARGET = 100, 0.1, 1.5


def simulated(algorithm, problems, graph=None):
    """A function that makes a round."""
    net, at = Network(algorithm, problems, graph, Clock(row_seconds=1e-6), Faults(), 0), [0]

    def turn():
        net.round(at[0])
        at[0] += 1

    return turn


def gradient(problem, x):
    g = np.empty_like(x)
    problem.value_and_gradient(x, out=g)
    return g


def descent(problems, shares):
    """Gradient descent on all rows: the arithmetic of DataParallel."""
    x = np.zeros(problems[0].dim)

    def turn():
        total = np.zeros_like(x)
        for problem, share in zip(problems, shares, strict=True):
            total += gradient(problem, x) * share
        x[:] -= LR * total

    return turn


def averaged(problems, shares):
    """FedAvg with one step."""
    x = np.zeros(problems[0].dim)

    def turn():
        total = np.zeros_like(x)
        for problem, share in zip(problems, shares, strict=True):
            y = x.copy()
            y -= LR * gradient(problem, y)
            total += share * (y - x)
        x[:] += total

    return turn


def mixed(problems, W):
    """D-SGD."""
    X = np.zeros((len(problems), problems[0].dim))

    def turn():
        mean = W @ X
        for i, problem in enumerate(problems):
            X[i] = mean[i] - LR * gradient(problem, X[i])

    return turn


def exact(problems, W):
    """EXTRA."""
    X = np.zeros((len(problems), problems[0].dim))
    old, mean_old, G_old = X.copy(), W @ X, np.zeros_like(X)

    def turn():
        mean = W @ X
        for i, problem in enumerate(problems):
            g = gradient(problem, X[i])
            new = X[i] + mean[i] - (old[i] + mean_old[i]) / 2 - LR * (g - G_old[i])
            old[i], X[i], G_old[i] = X[i], new, g
        mean_old[:] = mean

    return turn


def main():
    args = arguments(__doc__, rounds=15).parse_args()
    backend.threads(args.threads)
    data = load("a9a")
    parts = at_random(len(data.y_train), NODES)
    problems = [Logistic(data.x_train[part], data.y_train[part], l2=1e-3) for part in parts]
    shares = [problem.n / len(data.y_train) for problem in problems]
    cases = {
        "gradient descent": (simulated(DataParallel(LR), problems), descent(problems, shares)),
        "FedAvg, 1 step": (simulated(FedAvg(LR, 1), problems), averaged(problems, shares)),
        "D-SGD, exponential": (
            simulated(DSGD(LR), problems, exponential(NODES)),
            mixed(problems, exponential(NODES).W),
        ),
        "EXTRA, ring": (simulated(EXTRA(LR), problems, ring(NODES)), exact(problems, ring(NODES).W)),
    }
    title = f"A round, {NODES} nodes, a9a, float64, {args.threads} threads each, alternated"
    table, found = Table(title, "simulated", "the arithmetic"), {}
    for name, (ours, alone) in cases.items():
        found[name] = table.add(name, ours, alone, args.rounds)
    table.note(f"Ratios (target at most {TARGET}): {'; '.join(f'{k}: {v:.2f}' for k, v in found.items())}.")
    if args.write:
        table.write("distributed.txt")


if __name__ == "__main__":
    main()
