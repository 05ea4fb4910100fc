"""Convex problems on LIBSVM data beside scikit-learn and celer: epochs, time to a gap, LASSO paths, scaling, memory.

    NPOPT_DATA=... python benchmarks/convex.py --write

Both sides run in one process, in turn, on one thread. Sets that are not found are left out. news20 is one class against
the rest.

    epochs  SAGA on logistic regression with l2 = 1/n. `minimize` is timed for eleven epochs and for a single one, and
            the difference is divided by ten. Everything is in it (orders, rates, losses). scikit-learn's saga is timed
            in the same way, with tol=0
    time    until f - f* <= 1e-7 from 0, l2 = 1/n. The number of epochs (iterations) that each method needs is found
            first. Then runs of just that length are timed. Ours is SAGA with reshuffling at 1/(L_max + mean L_i), a
            rule of thumb for all sets (theory has 1/(3 L_max)); scikit-learn chooses its own step
    paths   50 values of l1 from the largest down to a hundredth, every point to a duality gap of 1e-7 of
            1/(2n) |Xw - y|^2 + l1 |w|_1. The rivals' relative tolerances are converted, and tightened until their gap,
            by our formula, is below 1.01e-7
"""

import sys
import tracemalloc
import warnings

from pairs import Table, arguments, timed  # isort: skip (before NumPy)

import numpy as np
import scipy.sparse
from sklearn.linear_model import LogisticRegression, lasso_path

try:
    from celer import celer_path
except ImportError:
    celer_path = None

from npopt import SAGA, SGD, Events, RandomReshuffling, Stop, WithReplacement, backend, minimize
from problems import Logistic, load
from problems.minima import coordinate

QUIET = Events(None)


def sets(*names):
    """(name, X as CSR, y -1/+1 or real) of the sets that are there."""
    for name in names:
        try:
            d = load(name)
        except Exception as error:
            print(f"{name} is left out: {str(error)[:90]}", file=sys.stderr)
            continue
        y = np.where(d.y_train == 0, 1.0, -1.0) if name == "news20" else d.y_train.astype(float)
        yield name, scipy.sparse.csr_matrix(d.x_train), y


def theirs(X, y, solver, iterations):
    """scikit-learn's fit of the same objective: C = 1 is l2 = 1/n."""
    model = LogisticRegression(C=1.0, solver=solver, tol=0.0, max_iter=iterations, fit_intercept=False, random_state=0)
    return model.fit(X, y)


def epochs(table, rounds):
    for name, X, y in sets("a9a", "w8a", "news20"):
        seconds = epoch_pairs(X, y, rounds)
        table.pairs(f"epoch of SAGA, {name}", seconds, f"{X.shape[0]}x{X.shape[1]}", f"{X.nnz} non-zeros")


def epoch_pairs(X, y, rounds):
    """(2, rounds) seconds of an epoch, alternating."""
    problem = Logistic(X, y, 1 / len(y))
    problem.metrics = lambda x: {}
    rate = 1 / (3 * problem.row_smoothness().max())

    def ours(k):
        minimize(problem, SGD(), WithReplacement(1), rate, SAGA(), stop=Stop(epochs=k), events=QUIET)

    def rival(k):
        theirs(X, y, "saga", k)

    sides, seconds = (ours, rival), np.empty((2, rounds))
    ours(2), rival(2)
    for r in range(rounds):
        for side in ((0, 1), (1, 0))[r % 2]:
            long, short = (timed(lambda s=side, k=k: sides[s](k), 1) for k in (11, 1))
            seconds[side, r] = (long - short) / 10
    return seconds


def needed(problem, run, start=1, limit=4096):
    """The least number of epochs (of a doubling, then bisected) after which run(k) is within 1e-7."""
    best, high = problem.minimum()[1], start
    while problem.exact(run(high))[0] - best > 1e-7:
        high *= 2
        if high > limit:
            return None
    low = high // 2
    while high - low > max(1, high // 32):
        middle = (low + high) // 2
        low, high = (low, middle) if problem.exact(run(middle))[0] - best <= 1e-7 else (middle, high)
    return high


def time_to_gap(table, rounds):
    for name, X, y in sets("a9a", "w8a", "mushrooms", "phishing"):
        problem = Logistic(X, y, 1 / len(y))
        problem.minimum()
        quiet = Logistic(X, y, 1 / len(y))
        quiet.metrics = lambda x: {}
        rate = 1 / (problem.row_smoothness().max() + problem.row_smoothness().mean())

        def ours(k, quiet=quiet, rate=rate):
            return minimize(
                quiet, SGD(), RandomReshuffling(1), rate, SAGA(initial="zeros"), stop=Stop(epochs=k), events=QUIET
            ).x

        k = needed(problem, ours)
        for solver in ("saga", "lbfgs"):

            def rival(j, solver=solver, X=X, y=y):
                return theirs(X, y, solver, j).coef_.ravel()

            j = needed(problem, rival)
            if k is None or j is None:
                table.note(f"{name}: {'SAGA' if k is None else solver} does not reach 1e-7 in 4096 epochs")
                continue
            pairs = [[timed(lambda k=k: ours(k), 1), timed(lambda r=rival, j=j: r(j), 1)] for _ in range(rounds)]
            table.pairs(f"to 1e-7, {name}, {solver}", np.array(pairs).T, f"{k} epochs", f"{j} iterations")


def paths(table, rounds):
    rng = np.random.default_rng(0)
    dense = np.asfortranarray(rng.standard_normal((400, 8000)))
    response = dense[:, :40] @ rng.standard_normal(40) + rng.standard_normal(400)
    for name, X, y in (*sets("news20", "a9a"), ("400x8000", dense, response)):
        X = scipy.sparse.csc_matrix(X) if scipy.sparse.issparse(X) else X
        l1s = coordinate.lam_max(X, y) * np.logspace(0, -2, 50)
        columns, n = coordinate.Columns(X, y, gram=False), len(y)

        def ours(X=X, y=y, l1s=l1s):
            return np.array([s.x for s in coordinate.path(X, y, l1s, tol=1e-7)]).T

        def gap(W, columns=columns, l1s=l1s):
            return max(coordinate.duality_gap(columns, None, w, l1) for w, l1 in zip(W.T, l1s, strict=True))

        def sk(tol, X=X, y=y, l1s=l1s):
            return lasso_path(X, y, alphas=l1s, tol=tol, max_iter=100_000)[1]

        def celer(tol, X=X, y=y, l1s=l1s):
            return celer_path(X, y, "lasso", alphas=l1s, tol=tol, max_iter=200, max_epochs=100_000)[1]

        rivals = [("scikit-learn", sk, 1e-7 * n / (y @ y))]
        if celer_path is not None:
            rivals.append(("celer", celer, 1e-7 * 2 * n / (y @ y)))
        reached = gap(ours())
        for rival, function, tol in rivals:
            found = gap(function(tol))
            for _ in range(6):
                if found <= 1.01e-7:
                    break
                tol /= 4
                found = gap(function(tol))
            pairs = [[timed(ours, 1), timed(lambda f=function, t=tol: f(t), 1)] for _ in range(rounds)]
            table.pairs(f"LASSO path, {name}, {rival}", np.array(pairs).T, f"gap {reached:.0e}", f"gap {found:.0e}")


def scaling(table):
    """An epoch against the number of non-zeros: 2,000 rows with 10 to 10,000 non-zeros each."""
    for what, columns in (
        ("20,000 columns", lambda per_row: 20_000),
        ("columns 100 times a row's non-zeros (from 1e5 on they leave the caches)", lambda per_row: 100 * per_row),
    ):
        times = [stretch_time(per_row, columns(per_row)) for per_row in (10, 31, 100, 310, 1000, 3100, 10_000)]
        slope = np.polyfit(*np.log(np.array(times)).T, 1)[0]
        listed = ", ".join(f"{nnz:.2g}: {1e9 * s / nnz:.1f}" for nnz, s in times)
        table.note(
            f"An epoch of SAGA, {what}: ns a non-zero, by their number:\n{listed}.\nSlope of log time against "
            f"log non-zeros: {slope:.2f} (1 is linear)."
        )


def stretch_time(per_row, d, rows=2000):
    """(non-zeros, seconds of an epoch, the best of eight)"""
    rng = np.random.default_rng(0)
    indices = np.sort(rng.integers(0, d, (rows, per_row)), 1).ravel()
    X = scipy.sparse.csr_matrix((rng.standard_normal(indices.size), indices, np.arange(rows + 1) * per_row), (rows, d))
    problem = Logistic(X, np.where(rng.random(rows) < 0.5, 1.0, -1.0), 1 / rows)
    x, mean, scalars = np.zeros(d), np.zeros(d), np.zeros(rows)
    rates = np.full(rows, 1 / (3 * problem.row_smoothness().max()))

    def epoch():
        problem.compiled_stretch(x, rng.integers(0, rows, rows), None, rates, scalars, mean, True)

    epoch()
    return problem.X.nnz, min(timed(epoch, 1) for _ in range(8))


def memory(table):
    """What a run of SAGA allocates at its peak, beside the data."""
    for name, X, y in sets("a9a", "news20"):
        problem = Logistic(X, y, 1 / len(y))
        problem.metrics = lambda x: {}
        common = dict(schedule=1e-3, estimator=SAGA(), events=QUIET)
        minimize(problem, SGD(), WithReplacement(1), **common, stop=Stop(epochs=1))
        tracemalloc.start()
        minimize(problem, SGD(), WithReplacement(1), **common, stop=Stop(epochs=3))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        data = problem.X.data.nbytes + problem.X.indices.nbytes + problem.X.indptr.nbytes
        wanted = data + 8 * (problem.n + 3 * problem.dim)
        table.note(
            f"Memory, {name}: the data {data / 1e6:.2f} MB, at the peak of a run {peak / 1e6:.2f} MB more "
            f"(orders and\nlosses included); together {(data + peak) / wanted:.3f} of data + n + 3 d numbers."
        )


class Pairs(Table):
    def pairs(self, name, seconds, *more):
        """A row from measured pairs, (2, rounds)."""
        from pairs import unit

        ratio = seconds[0] / seconds[1]
        low, high = np.percentile(ratio, (25, 75))
        line = (
            f"{name:34}{unit(np.median(seconds[0])):>12}{unit(np.median(seconds[1])):>16}{np.median(ratio):>9.2f}"
            f"{f'{low:.2f}-{high:.2f}':>16}" + "".join(f"{m:>18}" for m in more)
        )
        self.lines.append(line)
        print(line, flush=True)


def main():
    args = arguments(__doc__, rounds=9)
    args.add_argument("--only", default="epochs,time,paths,scaling,memory", help="some of %(default)s")
    args = args.parse_args()
    backend.threads(1)
    warnings.simplefilter("ignore")
    table = Pairs("Convex problems, one thread", "npopt", "rival", ("", ""))
    steps = {
        "epochs": lambda: epochs(table, args.rounds),
        "time": lambda: time_to_gap(table, args.rounds),
        "paths": lambda: paths(table, max(3, args.rounds // 3)),
        "scaling": lambda: scaling(table),
        "memory": lambda: memory(table),
    }
    for name in args.only.split(","):
        steps[name]()
    if args.write:
        table.write("convex.txt")


if __name__ == "__main__":
    main()
