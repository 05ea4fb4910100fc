"""What a step without a gradient costs: MeZO in forward passes and in memory, DeepZero with and without feature reuse.

A row is a pair in one process: a step of MeZO (two passes, every z drawn three times, the update) and one pass forward
on the same rows. Memory is counted, not sampled: bytes of all arrays alive at once, at most, during a step, with x: of
NumPy's by tracemalloc, of the pool's blocks by their sizes. Rows of both are from noise: times do not depend on it.
"""

import gc
import tracemalloc

from nn.networks import lenet5, resnet20
from npopt import LOZO, SGD, Batch, GaussianSmoothing, MeZO, backend
from npopt.backend import allocator
from problems import Neural, Problem
from problems.feeds import Images

import numpy as np
from pairs import Table, arguments
from steps import dataset

NAMES = {MeZO: "MeZO", LOZO: "LOZO", GaussianSmoothing: "ZO-SGD"}
CASES = {"LeNet-5": (lenet5, (28, 28, 1), (64, 128, 256)), "ResNet-20": (resnet20, (32, 32, 3), (16, 64))}


def problem_of(build, shape, rows):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((rows, *shape)).astype("float32")
    data = dataset(images, rng.integers(0, 10, rows))
    problem = Neural(build(), Images(data))
    return problem, problem.x0(backend.generator(0, "x0"))


def stepper(problem, x, estimator, rows):
    """A function that takes one step of SGD with this estimator."""
    g, optimizer, batch = estimator.start(problem, x, 0), SGD(), Batch(rows)
    optimizer.start(x, estimator)

    def step():
        problem.begin(problem.t + 1)
        estimator(x, batch, out=g)
        optimizer.step(x, g, 1e-9)

    return step


def peak(function):
    """Bytes alive at most during a call, beyond those before it: arrays of NumPy's, and loans of the pool."""
    allocator.pool.release()
    allocator.spaces.free.clear()
    gc.collect()
    lent = most = blocks = 0
    lend, fresh = allocator.lend, allocator.fresh

    class Home:
        """Where a block goes when its array dies: back to its pool, by way of the count."""

        def __init__(self, home, size):
            self.home, self.size = home, size

        def append(self, block):
            nonlocal lent
            lent -= self.size
            self.home.append(block)

    def counted(block, home, shape, dtype):
        nonlocal lent, most
        array = lend(block, Home(home, block[2]), shape, dtype)
        lent += block[2]
        most = max(most, lent + tracemalloc.get_traced_memory()[0] - start - blocks)
        return array

    def made(size):
        nonlocal blocks
        blocks += size  # the memory of blocks is NumPy's own: it counts while it is lent
        return fresh(size)

    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    allocator.lend, allocator.fresh = counted, made
    try:
        function()
        return most
    finally:
        allocator.lend, allocator.fresh = lend, fresh
        tracemalloc.stop()


def steps(table, name, threads, rounds):
    build, shape, sizes = CASES[name]
    for size in sizes:
        problem, x = problem_of(build, shape, size)
        rows = np.arange(size)

        def forward(problem=problem, x=x, rows=rows):
            problem.value(x, rows)

        for estimator in (MeZO(),) if size != 64 else (MeZO(), GaussianSmoothing(), LOZO(2)):
            label = NAMES[type(estimator)]
            table.add(f"{name}, {size} rows, {label}", stepper(problem, x, estimator, rows), forward, rounds)


def memory(table):
    table.note("Bytes alive at most in a step, with x, against a pass forward:")
    for name, (build, shape, sizes) in CASES.items():
        for size in sizes:
            problem, x = problem_of(build, shape, size)
            rows, found = np.arange(size), {}
            problem.value(x, rows)
            found["forward"] = x.nbytes + peak(lambda p=problem, x=x, r=rows: p.value(x, r))
            for estimator in (MeZO(), LOZO(2), GaussianSmoothing()):
                label = NAMES[type(estimator)]
                found[label] = x.nbytes + peak(lambda p=problem, x=x, e=estimator, r=rows: stepper(p, x, e, r)())
            text = ", ".join(f"{label} {v / found['forward']:.3f}" for label, v in found.items() if label != "forward")
            table.note(f"  {name}, {size} rows: {found['forward'] / 1e6:.2f} MB forward; {text}")


def reuse(table, rounds):
    """Forty coordinates, evenly spread, forward differences, 64 rows."""
    for name, (build, shape, _) in CASES.items():
        problem, x = problem_of(build, shape, 64)
        places, rows = list(range(0, x.size, x.size // 40)), np.arange(64)

        def values(kind, problem=problem, x=x, places=places, rows=rows):
            return lambda: list(kind(problem, x, places, (1e-3,), rows))

        table.add(
            f"{name}, {len(places)} coordinates", values(Neural.moved_values), values(Problem.moved_values), rounds
        )


def main():
    args = arguments(__doc__).parse_args()
    backend.threads(args.threads)
    table = Table(f"MeZO and DeepZero, {args.threads} thread(s)", "a step", "one pass forward")
    for name in CASES:
        steps(table, name, args.threads, args.rounds)
    table.note("DeepZero's values, layers before the change run once (left) or every time (right):")
    reuse(table, max(3, args.rounds // 3))
    memory(table)
    if args.write:
        table.write("zeroth_order.txt")


if __name__ == "__main__":
    main()
