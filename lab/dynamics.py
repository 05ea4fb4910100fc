"""Runs whose every step is looked at: norms, cosines and the sharpness along the way; scripts/training_dynamics.py."""

import math

from lab.escapes import stepping
from lab.flatness import fitted
from npopt import SGD, RandomReshuffling, Run, backend
from npopt.analysis import Dynamics, Top, hessian, preconditioner
from npopt.analysis.sharpness import scaled
from problems.bilinear import Bilinear, recursion
from problems.classifiers import book

import numpy as np

AWAY = 1e3  # a loss so many times the first one has left for good


def started(problem, seed):
    """x0 as `minimize` takes it."""
    problem.set_seed(seed)
    return problem.x0(backend.generator(seed, "x0"))


class Table(dict):
    """Columns that grow by rows; what a row lacks is NaN."""

    def add(self, **row):
        rows = len(next(iter(self.values()), ()))
        for name in row:
            self.setdefault(name, [math.nan] * rows)
        for name, column in self.items():
            column.append(row.get(name, math.nan))


def sharpened(seed, events, *, data, problem, optimizer, lr, steps, every, batch=None, relative=False):
    """A run with a row for each step, the first for the start: `loss` and gradient of the step, what Dynamics says of
    it, and, in one row of `every` and the last, of the point after it: `high`, lmax of the training loss's Hessian over
    all rows, by exact products, to a hundredth; `conditioned`, that of P^(-1/2) H P^(-1/2), for Adam; and the metrics.

    problem    arguments of lab.flatness.fitted
    batch      rows of a step; None: all, gradient descent
    relative   lr is in parts of 1 / lmax at the start; the column `rate` is lr itself
    """
    problem = fitted(data, **problem)
    x = started(problem, seed)
    told, kinds = Dynamics(problem.segments, x), [("high", Top(problem.dim, dtype=problem.dtype.name))]
    if hasattr(optimizer, "b2"):
        kinds.append(("conditioned", Top(problem.dim, dtype=problem.dtype.name)))

    def look():
        product, found = hessian(problem, x, how="exact"), {}
        for name, top in kinds:
            if name == "high" or optimizer.t:
                of = product if name == "high" else scaled(product, preconditioner(optimizer) ** -0.5)
                found[name], found[f"{name}_error"] = top(of)
        return found | problem.metrics(x)

    columns, reason, optimizer.t = Table(), "steps", 0
    start = look()
    lr = lr / start["high"] if relative else lr
    columns.add(step=0, epoch=0.0, rate=lr, **start)
    sampler = RandomReshuffling(batch)
    for t, (loss, g) in enumerate(stepping(problem, x, optimizer, sampler, lr, steps, seed), 1):
        loss = float(backend.to_host(loss))
        if not loss <= AWAY * columns["loss"][1] if t > 1 else not math.isfinite(loss):
            reason = f"diverged: the loss is {loss} at step {t - 1}"
            break
        row = told(x, g) | dict(step=t, epoch=t / sampler.steps_per_epoch, rate=lr, loss=loss)
        columns.add(**row, **(look() if t % every == 0 or t == steps else {}))
        if events is not None and events.progress is not None:
            events.progress(t / steps, t / sampler.steps_per_epoch, loss)
    return Run(columns, x, x, reason, {"n": problem.n, "optimizer": repr(optimizer)}, "python")


def chapter(seed, events, *, data, rows, init, optimizer, lr, batch, epochs):
    """The chapter's curves of its network: for each epoch the means over its steps of what Dynamics says, the loss and
    its improvement (the loss of the epoch before less that of this one, 0 first), and metrics. Then the same again from
    there (column `phase`), the method and all beginnings new: the chapter's own run went on from a trained network."""
    problem = book(data, init, rows)
    x, columns = started(problem, seed), Table()
    for phase in (0, 1):
        sampler, told, before, sums = RandomReshuffling(batch), Dynamics(problem.segments, x), None, {}
        total = epochs * -(-problem.n // batch)
        columns.add(epoch=phase * epochs, phase=phase, **problem.metrics(x))
        for t, (loss, g) in enumerate(stepping(problem, x, optimizer, sampler, lr, total, seed + 1000 * phase), 1):
            for name, value in (told(x, g) | {"loss": float(backend.to_host(loss))}).items():
                sums.setdefault(name, []).append(value)
            if t % sampler.steps_per_epoch == 0:
                means = {name: float(np.nanmean(values)) for name, values in sums.items()}
                means |= {name: sums[name][-1] for name in sums if name.startswith(("change", "weights"))}
                improved = 0.0 if before is None else before - means["loss"]
                before, sums, epoch = means["loss"], {}, t // sampler.steps_per_epoch
                columns.add(
                    epoch=phase * epochs + epoch, phase=phase, improvement=improved, **means, **problem.metrics(x)
                )
                if events is not None and events.progress is not None:
                    events.progress((phase + epoch / epochs) / 2, epoch, before)
    return columns


def slung(seed, events, *, m, factor, steps):
    """Gradient descent on Bilinear from normal u and v, at the rate factor / K: its loss f and kernel K by step, and
    by the recursion of the two, `f_said` and `kernel_said`."""
    problem = Bilinear(backend.generator(seed, "bilinear").standard_normal(2 * m))
    x = problem.x0(None)
    z, K = float(backend.to_host(problem.parts(x)[2])), problem.kernel(x)
    lr, columns = factor / K, Table()
    said = np.array(recursion(z, K, lr, m, steps))
    columns.add(step=0, f=0.5 * z * z, kernel=K, f_said=said[0, 0], kernel_said=K, rate=lr)
    for t, _ in enumerate(stepping(problem, x, SGD(), RandomReshuffling(None), lr, steps, seed), 1):
        f, K = float(backend.to_host(problem.value(x))), problem.kernel(x)
        if not f < 1e30:
            break
        columns.add(step=t, f=f, kernel=K, f_said=said[0, t], kernel_said=said[1, t], rate=lr)
    reason = "steps" if len(columns["f"]) > steps else "diverged"
    return Run(columns, x, x, reason, {"n": 1}, "python")
