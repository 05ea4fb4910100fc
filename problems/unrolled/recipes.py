"""What scripts run on sparse codes: a network trained by layers, a classical method, the support known; each gives
columns with a row a layer, as the Recipe of an entry's `run` must. The seed is that of A, of samples and of draws."""

import itertools

from npopt import backend, in_phases
from npopt.run import Events
from problems.unrolled.classical import amp, decreasing, fista, ista, lipschitz
from problems.unrolled.codes import SparseCodes, nmse
from problems.unrolled.forms import LISTA, SCALE, Unrolling
from problems.unrolled.network import Unrolled
from problems.unrolled.staged import stages

import numpy as np

METHODS = {"ISTA": ista, "FISTA": fista}


def seeded(source, seed):
    return SparseCodes(**{**source.arguments(), "seed": seed})


def trained(form: Unrolling, source: SparseCodes, steps, lr, seed, events, held=1000, warm=True, fade=1.0):
    """Training by `stages`, whose arguments they are, then by_layer of where it ends; a run that was interrupted or
    diverged as it is."""
    problem = Unrolled(form, seeded(source, seed), held=64)  # nobody looks at the metrics on the way
    events = Events(**{**events.arguments(), "metrics": None})
    run = in_phases(problem, stages(form, steps, lr, warm=warm, fade=fade), seed=seed, events=events)
    if run.diverged or run.reason == "interrupted":
        return run
    found = by_layer(Unrolled(form, problem.source, held=held), run.x)
    return found | {"seconds": [run.final["seconds"]] * len(found["layer"])}


def by_layer(problem, x):
    """Columns for layers k = 0, ..., K:

    nmse, untrained   of x_k on the test set in dB, at x and at the start
    l1                mean over samples of |x_k - x*|_1
    false, missed     entries of x_k that are not 0 where x* is, and the other way round, for each entry of x*
    theta             the mean of the threshold that made x_k
    coupling          |W2 - (I - W1 A)|_2 of LISTA's layer, for the layers that have a W2
    """
    b, truth = problem.source.held("test", problem.held, problem.At)
    size = float(backend.to_host((truth != 0).sum()))
    outputs = [backend.xp(truth).zeros_like(truth), *problem.outputs(x, b)]
    found = {"layer": list(range(len(outputs))), "nmse": [], "l1": [], "false": [], "missed": []}
    for y in outputs:
        found["nmse"].append(float(nmse(y, truth)))
        found["l1"].append(float(backend.to_host(abs(y - truth).sum(axis=1).mean())))
        found["false"].append(float(backend.to_host(((y != 0) & (truth == 0)).sum())) / size)
        found["missed"].append(float(backend.to_host(((y == 0) & (truth != 0)).sum())) / size)
    found["untrained"] = [float(v) for v in problem.nmse_by_layer(problem.x0(None))]
    views = {name: np.asarray(backend.to_host(v), np.float64) for name, v in problem.views(x).items() if v.size > 1}
    thetas = (problem.views(x)[f"{k}.theta"] for k in range(problem.depth))
    found["theta"] = [np.nan, *(float(backend.to_host(theta.mean())) for theta in thetas)]
    found["coupling"] = [np.nan] * len(outputs)
    if isinstance(problem.form, LISTA):
        rest = np.eye(problem.source.n) - views["B"] @ problem.source.dictionary()
        for k in range(1, problem.depth):
            W2 = views[problem.form.matrix(k, "V")].T
            found["coupling"][k + 1] = float(np.linalg.norm(W2 - rest, 2))
    return found


def rows_of(iterations):
    """Every iteration up to 32, then about ten a factor of two."""
    late = np.round(32 * 2.0 ** (np.arange(1, 10 * 20) / 10)).astype(int)
    return sorted({*range(1, min(iterations, 32) + 1), *(int(k) for k in late if k < iterations), iterations})


def classical(method, source: SparseCodes, iterations, seed, events, lam=None, held=1000):
    """NMSE in dB on the test set after so many iterations of "ISTA", "FISTA" (lam: a number, or the arguments of
    `decreasing`) or "AMP". The column `layer` counts iterations. ISTA's L is that of untrained networks."""
    source = seeded(source, seed)
    A = source.dictionary()
    At = backend.asarray(np.ascontiguousarray(A.T), "float32")
    b, truth = source.held("test", held, At)
    matrix = backend.asarray(A, "float32")
    if method == "AMP":
        iterates = amp(b, matrix)
    else:
        rule = decreasing(*lam) if isinstance(lam, tuple) else lam
        iterates = METHODS[method](b, matrix, rule, L=SCALE * lipschitz(A))
    wanted, found = set(rows_of(iterations)), {"layer": [0], "nmse": [0.0]}
    for k, x in enumerate(itertools.islice(iterates, iterations), 1):
        if k in wanted:
            found["layer"].append(k)
            found["nmse"].append(float(nmse(x, truth)))
    return found


def oracle(source: SparseCodes, seed, events, held=1000):
    """NMSE in dB of least squares on the true support: who knows the places needs only the values."""
    source = seeded(source, seed)
    A = source.dictionary()
    b, truth = (np.asarray(backend.to_host(v), np.float64)
                for v in source.held("test", held, backend.asarray(np.ascontiguousarray(A.T), "float64")))  # fmt: skip
    found = np.zeros_like(truth)
    for row in range(held):
        places = np.flatnonzero(truth[row])
        found[row, places] = np.linalg.lstsq(A[:, places], b[row], rcond=None)[0]
    return {"layer": [0, 1], "nmse": [0.0, float(nmse(found, truth))]}
