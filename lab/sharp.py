"""SAM on problems.wells, and networks with the sharpness of where they end: what scripts/sam.py measures."""

import math

from lab.escapes import walk
from npopt import SAM, SGD, Events, Phase, Stop, backend, in_phases, minimize
from npopt.analysis.curvature import Hessian, lanczos
from problems.wells import RIDGE, Wells, two_basins

import numpy as np
import scipy

SPAN = 2.5  # starts lie on a grid in [-SPAN, SPAN]^2


def starts(side):
    """(side^2, 2)"""
    return np.stack(np.meshgrid(*[np.linspace(-SPAN, SPAN, side)] * 2), -1).reshape(-1, 2)


def many(problem, w, rho, lr, steps):
    """Where gradient descent (rho = 0) or SAM leads from each of the points w, (m, 2), of some Wells: the steps of
    npopt's SAM and SGD on all points at once."""
    x, y = w.T.copy()
    for _ in range(steps):
        a, b = problem.gradient(x, y)
        if rho:
            size = np.hypot(a, b)
            part = np.where(size > 0, rho / np.where(size > 0, size, 1), 0)
            a, b = problem.gradient(x + part * a, y + part * b)
        x, y = x - lr * a, y - lr * b
    return np.stack([x, y], 1)


def ends(seed, events, *, rho, width, lr, steps, side):
    """A row for each start: the well within 0.3 of where SAM leads (0 sharp, 1 flat, -1 none), and `then`, the same
    after as many steps of gradient descent from there."""
    problem = Wells(widths=(width, 0.9))
    w = many(problem, starts(side), rho, lr, steps)
    return {"well": near(problem, w), "then": near(problem, many(problem, w, 0.0, lr, steps))}


def near(problem, w):
    apart = np.linalg.norm(w[:, None] - problem.minimum()[0], axis=2)
    return np.where(apart.min(1) < 0.3, apart.argmin(1), -1).astype(float).tolist()


def in_turn(seed, events, *, start, rho, lr, steps, metrics):
    """SAM from a start on the two wells, then gradient descent, so many steps each; a row every `metrics` steps."""
    phases = [Phase(SGD(), lr, Stop(steps=steps), estimator=SAM(rho)), Phase(SGD(), lr, Stop(steps=steps))]
    return in_phases(Wells(start=start), phases, seed=seed, events=Events(metrics=metrics, per="step"))


def toy(name):
    """(problem, its sharp minimum, the unit vector from there over the ridge to the flat one, distance of the ridge)"""
    if name == "two bowls":
        return two_basins(1), np.ones(2), -np.full(2, math.sqrt(0.5)), RIDGE
    problem = Wells()
    sharp = problem.minimum()[0][0]
    return problem, sharp, np.array([1.0, 0.0]), ridge(problem) - sharp[0]


def ridge(problem):
    """x of the saddle between the two wells of some Wells, on the line y = 0."""
    (a, _), (b, _) = problem.minimum()[0]
    return scipy.optimize.brentq(lambda x: problem.gradient(x, 0.0)[0], a + 0.1, b - 0.5)


def predicted(name, lr):
    """The radius from which SAM does not stay in the sharp basin.

    Beside the minimum, on the far side, a step leads across it to the distance lr |f'(-rho)| on the side of the ridge,
    and the next gradient is taken rho further on: the basin cannot hold SAM where that is past the ridge, at D.
    """
    problem, sharp, way, D = toy(name)
    g = backend.empty((2,), "float64")

    def short(rho):
        problem.value_and_gradient(backend.asarray(sharp - rho * way), out=g)
        return rho + lr * abs(backend.to_host(g) @ way) - D

    return scipy.optimize.brentq(short, 1e-6, D)


def threshold(seed, events, *, name, lr, steps, halvings):
    """The radius where SAM, from beside the sharp minimum, begins to leave it within so many steps: between `stays` and
    `leaves`."""
    problem, sharp, way, D = toy(name)
    low, high = 0.25 * D, 1.25 * D
    problem.start = sharp - 1e-3 * way

    def past(x):
        return (x - sharp) @ way > D

    for _ in range(halvings):
        rho = (low + high) / 2
        gone = past(walk(problem, lr, steps, seed, estimator=SAM(rho), until=past)[-1])
        low, high = (low, rho) if gone else (rho, high)
    return {"stays": [low], "leaves": [high], "predicted": [predicted(name, lr)]}


def highest(problem, x, y, rho, rings=24, angles=64):
    """max of f over the disc of radius rho about points (x, y): arrays of one shape."""
    best = problem.f(x, y)
    for r in np.linspace(0, rho, rings + 1)[1:]:
        for angle in np.linspace(0, 2 * np.pi, angles, endpoint=False):
            best = np.maximum(best, problem.f(x + r * np.cos(angle), y + r * np.sin(angle)))
    return best


def trained(seed, events, *, data, build, arguments, epochs, look, **methods):
    """A run of minimize on build(data=, **arguments), with two more columns in its last row: `high`, the largest
    eigenvalue of the training loss's Hessian, by look=(rows, steps of Lanczos), and `rise`, what the steepest shift of
    length 0.05 adds to that loss. Both are taken in float64 (build takes dtype=), with batch statistics and
    augmentation of step 0."""
    problem = build(data=data, **arguments)
    run = minimize(problem, stop=Stop(epochs=epochs), seed=seed, events=events, **methods)
    if run.diverged or run.reason == "interrupted":
        return run
    exact, x = build(data=data, **arguments, dtype="float64"), backend.asarray(backend.to_host(run.answer), "float64")
    some, method = backend.asarray(np.arange(min(look[0], exact.n))), SAM(0.05)
    exact.begin(0)
    g, top = method.start(exact, x, 0), backend.xp(x).empty_like(x)
    before = exact.value_and_gradient(x, some, None, g)
    method.ascend(top, x, g)
    found = {
        "high": lanczos(Hessian(exact, x, some), x.shape[0], look[1]).values[-1],
        "rise": exact.value(top, some) - before,
    }
    for name, value in found.items():
        run.columns[name] = [math.nan] * (len(run.columns["step"]) - 1) + [float(backend.to_host(value))]
    return run
