"""Trained networks, and their loss on lines and planes: what scripts/loss_surface.py measures.

A surface is stored as columns NAME_a, NAME_b, NAME_loss and NAME_accuracy; `surface_of` reads it again.
"""

from lab.results import MissingRuns
from npopt import Cosine, Events, HeavyBall, RandomReshuffling, Stop, backend, minimize
from npopt.analysis.eigen import eigenpairs
from npopt.analysis.persistence import persistence
from npopt.analysis.planes import Plane, cosines, random_direction
from npopt.analysis.products import hessian
from npopt.analysis.surfaces import LossSurface, interpolation, loss_surface
from npopt.analysis.trajectories import components, step_lengths, tsne, walk_shares
from npopt.optional import Absent
from problems.classifiers import Remembering, perceptron, residual

import numpy as np


def stored(name, surface):
    """The columns of a LossSurface."""
    found = {f"{name}_a": surface.a, f"{name}_loss": surface.loss, f"{name}_accuracy": surface.accuracy}
    return found if surface.b is None else found | {f"{name}_b": surface.b}


def surface_of(run, name):
    """The LossSurface that a run stored under this name."""
    columns = run.columns
    return LossSurface(
        columns[f"{name}_a"], columns.get(f"{name}_b"), columns[f"{name}_loss"], columns[f"{name}_accuracy"]
    )


def with_package(function, *given):
    """function(*given). Where a package that it needs is absent, a claim is undecided and a figure left out."""
    try:
        return function(*given)
    except Absent as error:
        raise MissingRuns(str(error)) from None


def lasting(grid, part=0.01):
    """How many basins of a grid live for longer than that part of its range."""
    return with_package(persistence, grid).lasting(part * np.ptp(grid))


def train(problem, seed, events, *, lr, epochs, batch, optimizer=None, marks=1, share=1.0):
    """x at the end of a run, by momentum SGD with a cosine unless an optimizer is given with its rate."""

    def told(fraction, epoch, loss):
        if events.progress is not None:
            events.progress(share * fraction, epoch, loss)

    schedule = Cosine(lr) if optimizer is None else lr
    method = HeavyBall(0.9) if optimizer is None else optimizer
    run = minimize(
        problem, method, RandomReshuffling(batch, drop_last=True), schedule, stop=Stop(epochs=epochs), seed=seed,
        events=Events(1 / marks, progress=told),
    )  # fmt: skip
    return run.x


def plane_of(x, directions):
    return Plane(x, backend.xp(x).stack(directions))


def first(problem, count):
    """The numbers of the first so many training rows: of sets that come in a random order."""
    return np.arange(min(count, problem.n))


def span(reach, points):
    """(points,) from -reach to reach."""
    return np.linspace(-reach, reach, points)


# --------------------------------------------------------------------------------------------------------------- paths
def paths(seed, events, *, data, problem, methods, epochs, batch, marks, look, side):
    """Paths of methods, {name: (optimizer, lr)}, from one start: components, beside those of random walks; t-SNE; and
    the surface over the plane of the first two components of all paths together, about their mean.

    look    rows whose loss is taken; side: points along both axes
    """
    walks, found = {}, {}
    for name, (optimizer, lr) in methods.items():
        given = perceptron(data, **problem, kind=Remembering)
        train(given, seed, events, lr=lr, epochs=epochs, batch=batch, optimizer=optimizer, marks=marks)
        walks[name] = given.path
        found |= {f"{name} {word}": value for word, value in seen_alone(given, given.path, seed).items()}
    plane, rows = components([point for path in walks.values() for point in path], 2).plane, first(given, look)
    for name, path in walks.items():
        seen = plane.project(path)
        at = np.array([given_loss(given, point, rows) for point in path])
        on = np.array([given_loss(given, plane.at(*c), rows) for c in seen.coefficients])
        found |= {f"{name} place": seen.coefficients, f"{name} loss": at, f"{name} on plane": on}
        found[f"{name} seen"] = [seen.share]
    places = np.concatenate([found[f"{name} place"] for name in walks])
    low, high = places.min(0), places.max(0)
    low, high = low - 0.15 * (high - low), high + 0.15 * (high - low)
    a, b = (np.linspace(*ends, side) for ends in zip(low, high, strict=True))
    found["every"] = [given.n // batch / marks]  # steps between two points of a path
    return found | stored("plane", loss_surface(given, plane, a, b, rows))


def given_loss(problem, x, rows):
    """The loss in evaluation mode."""
    return loss_surface(problem, Plane(x, backend.xp(x).ones_like(x).reshape(1, -1)), [0.0], rows=rows).loss[0]


def seen_alone(problem, path, seed):
    """What a path's own components say, those of a random walk with its steps, and a random plane's share."""
    points, unknown = len(path), np.full(len(path) - 1, np.nan)
    whole = points > 4  # not broken off at once
    at_random = plane_of(path[-1], [random_direction(problem, path[-1], "filter", seed, k) for k in (0, 1)])
    return {
        "components": curves(path, 4),
        "shares": components(path, 2).shares[:-1] if whole else unknown,
        "walk": walk_shares(step_lengths(path)),
        "about last": components(path, 2, about="last").shares[:-1] if whole else unknown,
        "at random": [at_random.project(path[:-1]).share],
        "tsne": tsne(path, min(10.0, (points - 1) / 3), seed) if whole else np.full((points, 2), np.nan),
    }


def joined_runs(seed, events, *, data, problem, lr, epochs, batch, change):
    """Components of a path of checkpoints, one an epoch, and of the same path whose epochs after `change` come from
    another run."""
    runs = []
    for k in (0, 1):
        given = perceptron(data, **problem, kind=Remembering)
        train(given, seed + 1000 * k, events, lr=lr, epochs=epochs, batch=batch)
        runs.append(given.path[1:])
    return {"one": curves(runs[0], 2), "mixed": curves(runs[0][:change] + runs[1][change:], 2)}


def curves(path, count):
    """(T, count): coordinates of the components of a path; NaN for a run that was broken off after too few points."""
    return components(path, count).coordinates if len(path) > count else np.full((len(path), count), np.nan)


# ---------------------------------------------------------------------------------------------------------- directions
RANDOM = {"filter": "filter", "whole": "whole", "unit": None}  # kinds of random directions


def directions(seed, events, *, data, problem, lr, epochs, batch, look, kinds, side, near, steps):
    """A trained perceptron's loss over planes of several kinds, all from -1 to 1: of RANDOM, or "eigen", the two
    leading eigenvectors of the Hessian of the same rows. "near": over that plane in float64, from -near to near;
    "values", "errors": the two largest eigenvalues and the least."""
    given = perceptron(data, **problem)
    x = train(given, seed, events, lr=lr, epochs=epochs, batch=batch)
    rows, found = first(given, look), {}
    twin, wide = perceptron(data, **problem, dtype="float64"), backend.asarray(backend.to_host(x), "float64")
    product = hessian(twin, wide, rows)
    high = eigenpairs(product, wide.shape[0], 2, steps, seed)
    low = eigenpairs(product, wide.shape[0], 1, steps, seed, "smallest")
    found |= {"values": [*high.values, low.value], "errors": [*high.errors, *low.errors]}
    for kind in kinds:
        if kind == "eigen":
            plane = Plane(x, high.vectors)
        else:
            plane = plane_of(x, [random_direction(given, x, RANDOM[kind], seed, k) for k in (0, 1)])
        found |= stored(kind, loss_surface(given, plane, span(1, side), span(1, side), rows))
        found[f"{kind} cosine"] = [cosines(plane.directions)[0, 1]]
    plane = Plane(wide, high.vectors)
    return found | stored("near", loss_surface(twin, plane, span(near, 11), span(near, 11), rows))


def scaled_twins(seed, events, *, data, problem, lr, epochs, batch, look, points, factor, steps):
    """A trained perceptron, and the same function with its first layer multiplied and its second one's weights divided
    by a factor: the loss along one random direction of each kind, and the largest eigenvalue, of both."""
    given = perceptron(data, **problem)
    x = train(given, seed, events, lr=lr, epochs=epochs, batch=batch)
    y, rows, found = x.copy(), first(given, look), {}
    for name, scale in (("fc1.W", factor), ("fc1.b", factor), ("fc2.W", 1 / factor)):
        y[given.segments.find(name).slice] *= scale
    twin = perceptron(data, **problem, dtype="float64")
    for name, point in (("first", x), ("twin", y)):
        for kind, by in RANDOM.items():
            plane = plane_of(point, [random_direction(given, point, by, seed, 0)])
            found |= stored(f"{name} {kind}", loss_surface(given, plane, span(1, points), rows=rows))
        wide = backend.asarray(backend.to_host(point), "float64")
        found[f"{name} high"] = [eigenpairs(hessian(twin, wide, rows), wide.shape[0], 1, steps, seed).value]
    return found


# ------------------------------------------------------------------------------------------------------- interpolation
def between(seed, events, *, data, problem, lr, epochs, batch, look, points):
    """Lines between networks: from epoch 1 to the end of a run ("along"), and to the end of another run from another
    start ("across"). With batch normalisation by three kinds of statistics: those of the first end, mixed, and of the
    rows at each point."""
    ends, states, firsts = [], [], None
    for k in (0, 1):
        given = perceptron(data, **problem, kind=Remembering)
        ends.append(train(given, seed + 1000 * k, events, lr=lr, epochs=epochs, batch=batch))
        states.append(given.state())
        if not k:
            firsts, held = given.path[1], given
    a, rows, found = np.linspace(-0.5, 1.5, points), first(held, look), {}
    kinds = {"running": "running", "rows": "rows"}
    if problem.get("norm") == "batch":
        kinds["mixed"] = states
    for name, statistics in kinds.items():
        line = interpolation(held, *ends, a, rows, statistics=statistics)
        found |= stored(f"across {name}", line)
    return found | stored("along", interpolation(held, firsts, ends[0], a, rows, statistics="rows"))


# ------------------------------------------------------------------------------------------------------------ residual
def residual_surface(seed, events, *, data, problem, lr, epochs, batch, look, side, points):
    """A trained residual network, or one without skips: its loss over a filter-normalised random plane with the running
    statistics, as Li et al. draw it, and along its first direction with these and with those of the rows."""
    given = residual(data, **problem)
    x = train(given, seed, events, lr=lr, epochs=epochs, batch=batch)
    rows, vectors = first(given, look), [random_direction(given, x, "filter", seed, k) for k in (0, 1)]
    found = {name: [value] for name, value in given.metrics(x).items()}
    found |= stored("plane", loss_surface(given, plane_of(x, vectors), span(1, side), span(1, side), rows))
    for statistics in ("running", "rows"):
        line = loss_surface(given, plane_of(x, vectors[:1]), span(1, points), rows=rows, statistics=statistics)
        found |= stored(statistics, line)
    return found
