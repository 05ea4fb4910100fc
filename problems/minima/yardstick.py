"""SciPy's L-BFGS-B on a problem that knows its minimum: the yardstick for methods of this library."""

import time

from npopt import backend

import numpy as np
import scipy


def lbfgs(problem, target, longest, pairs=10):
    """Run it from 0 until the gap f - f* is `target`, for at most `longest` iterations and evaluations, on a smooth
    problem. Returns the columns step, gap, seconds (without the measuring) and gradients (rows differentiated).

    SciPy works on the host: if the problem lives on a device, x goes there and the gradient comes back at each call.
    """
    start, g = np.zeros(problem.dim), backend.empty(problem.dim, problem.dtype)
    columns = {"step": [0], "gap": [problem.metrics(backend.asarray(start))["gap"]], "seconds": [0.0], "gradients": [0]}
    calls, begin = 0, time.perf_counter()

    def function(x):
        nonlocal calls
        calls += 1
        value = problem.value_and_gradient(backend.asarray(x), None, None, g)
        return backend.to_host(value), backend.to_host(g).copy()

    def note(x):
        nonlocal begin
        taken = time.perf_counter() - begin
        for name, value in (
            ("step", columns["step"][-1] + 1),
            ("gap", problem.metrics(backend.asarray(x))["gap"]),
            ("seconds", columns["seconds"][-1] + taken),
            ("gradients", calls * problem.n),
        ):
            columns[name].append(value)
        if columns["gap"][-1] <= target:
            raise StopIteration
        begin = time.perf_counter()

    scipy.optimize.minimize(
        function,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=note,
        options={"maxiter": longest, "maxfun": longest, "ftol": 0, "gtol": 0, "maxcor": pairs},
    )
    return columns
