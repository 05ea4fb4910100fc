"""What minimize looks at before the first step: its arguments, the start, the length of a step, and what varies."""

from npopt import backend
from npopt.analysis import theory
from npopt.errors import UserError
from npopt.estimators import Estimator
from npopt.optimizers import Optimizer
from npopt.samplers import Sampler

import numpy as np

LOOKS = 1000  # how many values of what varies are looked at
CHEAP = 500  # unknowns up to which the smoothness is looked up


def check_arguments(problem, optimizer, sampler, estimator, vary):
    """Refuse what minimize cannot run."""
    if isinstance(problem, type) or not hasattr(problem, "value_and_gradient"):
        raise UserError(
            "minimize: problem must be a problem such as LeastSquares(X, y), got "
            f"{' '.join(repr(problem).split())[:80]}"
        )
    if vary is not None and not isinstance(vary, dict):
        raise UserError(f'minimize: vary must be a dict such as {{"beta": Linear(0.9, 0.5)}}, got {vary!r}')
    for what, value, kind, example in (
        ("optimizer", optimizer, Optimizer, "Adam()"),
        ("sampler", sampler, Sampler, "RandomReshuffling(64)"),
        ("estimator", estimator, Estimator, "Minibatch()"),
    ):
        if not isinstance(value, kind) and (value is not None or what == "optimizer"):
            raise UserError(f"minimize: {what} must be a value such as {example}, got {value!r}")
    for name in vary or {}:
        if name not in optimizer.arguments():
            raise UserError(f"minimize: vary names {name!r}, but {optimizer!r} has no such argument")
    if getattr(problem, "has_penalty", False) and not getattr(optimizer, "proximal", False):
        raise UserError(
            f"minimize: {problem.name} has a non-smooth penalty, which {type(optimizer).__name__} "
            "cannot handle; use a proximal method"
        )


def starting_point(problem, x, seed):
    """A copy of x, checked. If x is None: the problem's own start, with the problem as if it were new."""
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
    """Warn before the run if a gradient step of all rows is longer than 2/L. Only where L is cheap to know."""
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
