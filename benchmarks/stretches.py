"""Microseconds of one step in a compiled stretch of a linear model, and how far x lies from the CPU's loop after it.

    python benchmarks/stretches.py --device gpu

8192 steps a stretch, the best of five, the transfers of rows, rates and losses included; SAGA, or SGD with momentum.
"""

import argparse
import time

from npopt import backend
from problems import Logistic

import numpy as np
import scipy.sparse

STEPS = 8192
CASES = [  # columns, non-zeros of a row (None: dense), classes, batch size, momentum
    (10, None, 2, 1, 0.9),
    (10, None, 2, 16, 0.9),
    (123, 14, 2, 1, None),
    (300, 12, 2, 1, None),
    (300, None, 2, 1, None),
    (784, None, 10, 16, None),
    (20000, 80, 2, 1, None),
    (20000, 80, 2, 64, None),
]


def stretch(case, device, rounds=5, steps=STEPS):
    """(x at the end, seconds of the best round)"""
    d, filled, classes, size, momentum = case
    rng, n = np.random.default_rng(0), 3000
    X = rng.standard_normal((n, d)) / 9 if filled is None else scipy.sparse.random(n, d, filled / d, "csr", rng=rng)
    backend.use(device)
    problem = Logistic(X, np.arange(n) % classes, l2=1e-3, intercept=True)
    rows, rates, took = rng.integers(0, n, steps * size), np.full(steps, 0.01), []
    for _ in range(rounds):
        x, table, mean = (backend.zeros(s, "float64") for s in (problem.dim, (n, problem.outputs), problem.dim))
        if momentum is None:
            memory = dict(table=table, mean=mean, moves=True)
        else:
            memory = dict(beta=momentum, m=mean)
        backend.synchronize()
        start = time.perf_counter()
        problem.compiled_stretch(x, rows, None, rates, **memory)
        backend.synchronize()
        took.append(time.perf_counter() - start)
    return np.array(backend.to_host(x)), min(took)


def main(words=None, cases=CASES, **given):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="gpu")
    device = parser.parse_args(words).device
    for case in cases:
        (one, took), (other, host) = stretch(case, device, **given), stretch(case, "cpu", **given)
        far, steps = np.abs(one - other).max() / np.abs(other).max(), given.get("steps", STEPS)
        name = "d={}, non-zeros {}, classes {}, batch {}, momentum {}".format(*case)
        print(
            f"{name}: {1e6 * took / steps:.2f} us on {device}, {1e6 * host / steps:.2f} on the CPU, x {far:.0e} apart"
        )


if __name__ == "__main__":
    main()
