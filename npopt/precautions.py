"""What minimize looks at before the first step: the start, the step's length, the values to come of what varies."""

from npopt import backend
from npopt.analysis import theory
from npopt.errors import UserError

import numpy as np

LOOKS = 1000  # at the values of what varies
CHEAP = 500  # unknowns up to which the smoothness is looked up


def starting_point(problem, x, seed):
    """A copy of x, checked; x None: the problem's own start, with the problem as if it were new."""
    problem.set_seed(seed)
    if x is None:
        problem.reset()
        return problem.x0(backend.generator(seed, "x0"))
    dtype = getattr(x, "dtype", None)
    if dtype is None or dtype.name not in ("float32", "float64") or tuple(x.shape) != (problem.dim,):
        got = type(x).__name__ if dtype is None else f"{dtype} {tuple(x.shape)}"
        raise UserError(
            f"minimize: x must be a float32 or float64 array of shape ({problem.dim},) for {problem.name}, got {got}"
        )
    wanted = getattr(problem, "dtype", None)
    if wanted is not None and dtype != wanted:
        raise UserError(f"minimize: x is {dtype}, {problem.name} computes in {np.dtype(wanted)}; convert x")
    return backend.asarray(x).copy()


def warn_of_long_steps(loop):
    """A gradient step of all rows above 2/L: say so beforehand, where L is cheap to know."""
    optimizer, problem = loop.optimizer, loop.problem
    steps = (optimizer.plain or optimizer.proximal) and not getattr(optimizer, "backtracking", False)
    rate = loop.schedule(0)
    if steps and loop.sampler.size == loop.sampler.n and loop.x.size <= CHEAP and not getattr(rate, "ndim", 0):
        if hasattr(problem, "smoothness"):
            theory.check_step(float(backend.to_host(rate)), problem.smoothness(), stacklevel=5)


def check_varied(optimizer, vary, last):
    """Let the optimizer's constructor check the first values of what varies, and the least and largest up to step
    `last`."""
    for name, s in vary.items():
        seen = [(s(t), t) for t in sorted({round(last * i / LOOKS) for i in range(LOOKS + 1)} | {0})]
        ends = seen[:1] if getattr(seen[0][0], "ndim", 0) else [seen[0], min(seen), max(seen)]
        for value, t in ends:
            try:
                type(optimizer)(**{**optimizer.arguments(), name: value})
            except ValueError as error:
                raise UserError(f"{error}, to which vary leads at step {t}") from None
