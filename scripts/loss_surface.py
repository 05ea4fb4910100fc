"""What do pictures of a network's loss show, and what do they hide?   Course book, chapter 4, section on loss surfaces.

Every tool of the chapter on a perceptron (784-128-56-10, Fashion-MNIST), its statements written as claims, and
corrected where they are wrong. (Batch norm, skips and lines between networks: loss_surface_networks.)

- Axes of different kinds have different scales. A step of 1 is as long as the weights along filter-normalised
  directions (Li et al. 2018), and about a tenth of that along a unit vector. Scaling layers so that the function stays
  the same changes plain surfaces, not filter-normalised ones.
- A plane through a path shows the path's projection. Its loss is not the path's, so the share that it explains belongs
  beside it. Principal components of any walk are smooth: of a random one the first two hold 76 %, as cosines. A curve
  that jumps comes from checkpoints in the wrong order or from two runs, as in the book (epochs 1, 10, 11, ..., 2).
- The book fits a Gaussian well of curvatures 52.5 and 32.5 and says that SGD at the rate 0.1 reaches the minimum.
  Gradient descent is stable there below 2/52.5 = 0.0381 alone: it must not come to rest.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 6 minutes.
"""

from figures.loss_surface import BOOK, KINDS, album
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, listed, spread, spreads
from lab.sections import directions, joined_runs, lasting, paths, scaled_twins, surface_of
from lab.verdicts import lower, within
from nn import Tanh
from npopt import SGD, Adam, HeavyBall, Stop
from npopt.analysis import gaussian_fit, quadratic_fit, walk_coordinates
from problems.wells import Wells

import numpy as np

experiment = Experiment(
    __doc__,
    task="C.3",
    source="course book, chapter 4; Li et al., NeurIPS 2018, arXiv:1712.09913",
    parts={
        "p": Part("paths of methods, their components and their plane", "digits", "fashion-mnist"),
        "b": Part("checkpoints in the wrong order, and from two runs", "digits", "fashion-mnist"),
        "d": Part("planes of four kinds of directions", "digits", "fashion-mnist"),
        "t": Part("one function, two sets of weights", "digits", "fashion-mnist"),
        "g": Part("methods on the book's Gaussian well"),
    },
    seeds=5,
    figures=album,
)

METHODS = {"SGD": (SGD(), 0.1), "momentum": (HeavyBall(0.9), 0.03), "Adam": (Adam(), 1e-3)}
NEAR = 0.02  # half the side of the plane on which curvatures are measured
WELL = {  # the book's rates; its momentum is an average of gradients, 0.05 (1 - 0.8) in the form of HeavyBall
    "GD 0.1": (SGD(), 0.1),
    "GD 0.02": (SGD(), 0.02),
    "momentum 0.05": (HeavyBall(0.8), 0.01),
    "Adam 0.1": (Adam(), 0.1),
}


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    net = dict(rows=args.pick(10_000, 300), test_rows=args.pick(1000, 100), hidden=args.pick((128, 56), (16,)))
    some = dict(problem=net, lr=0.03, epochs=args.pick(10, 2), batch=args.pick(128, 32), look=args.pick(1000, 100))
    for data in args.data_of("p"):
        more = dict(data=data, methods=METHODS, marks=args.pick(6, 6), side=args.pick(41, 9), **some)
        yield Entry("p", run=Recipe(paths, **{k: v for k, v in more.items() if k != "lr"}))
    for data in args.data_of("b"):
        more = {k: v for k, v in some.items() if k != "look"} | dict(epochs=15, change=8)
        yield Entry("b", run=Recipe(joined_runs, data=data, **more))
    for data in args.data_of("d"):
        more = some | dict(data=data, side=args.pick(33, 9), near=NEAR, steps=30)
        yield Entry("d", run=Recipe(directions, kinds=tuple(KINDS), **more), activation="ReLU")
        more |= dict(problem=net | dict(activation=Tanh))
        yield Entry("d", run=Recipe(directions, kinds=(), **more), activation="tanh")
    for data in args.data_of("t"):
        more = dict(data=data, points=args.pick(41, 9), factor=4.0, steps=args.pick(20, 8))
        yield Entry("t", run=Recipe(scaled_twins, **more, **some))
    for method, (optimizer, lr) in WELL.items():
        stop = dict(stop=Stop(steps=100), metrics=1, per="step", seeds=[0])
        yield Entry("g", Recipe(Wells, **BOOK), optimizer, schedule=lr, method=method, **stop)


# ----------------------------------------------------------------------------------------------------- claims: paths
def column(results, part, name, **tags):
    """A column of every run of a part, (seeds, ...)."""
    return np.array([run.columns[name] for run in results.select(part, **tags)])


def planes(results):
    """The runs with all planes."""
    return results.select("d", activation="ReLU")


@experiment.claim(
    "p-plane",
    "two components of all paths see most of them, two random directions nothing",
    expected="share of squared distances at least 0.7 for every method, at most 0.001 at random (95 %)",
    source="Li et al., section 7",
)
def p_plane(results):
    seen = {m: column(results, "p", f"{m} seen")[:, 0] for m in METHODS}
    chance = {m: column(results, "p", f"{m} at random")[:, 0] for m in METHODS}
    text = f"{spreads(seen)}; at random at most {max(v.max() for v in chance.values()):.1g}"
    return decided(
        text, *(within(v, low=0.7) for v in seen.values()), *(within(v, high=0.001) for v in chance.values())
    )


@experiment.claim(
    "p-walk",
    "a path's first component holds more than that of a random walk with the same steps",
    expected="for every method (95 %); false where it holds less",
    source="Antognini & Sohl-Dickstein, NeurIPS 2018",
)
def p_walk(results):
    found, good = {}, []
    for m in METHODS:
        own, walk = (column(results, "p", f"{m} {word}")[:, 0] for word in ("shares", "walk"))
        found[m], _ = f"{own.mean():.2f} ({walk.mean():.2f})", good.append(lower(walk, own))
    return decided(f"{listed(found)} (walk)", *good)


@experiment.claim(
    "p-cosine",
    "its curve is the half cosine that a random walk draws, too",
    expected="cosine of the angle between the two curves at least 0.9 for every method (95 %)",
    source="Antognini & Sohl-Dickstein, NeurIPS 2018",
)
def p_cosine(results):
    found = {}
    for m in METHODS:
        curves = column(results, "p", f"{m} components")[:, :, 0]
        found[m] = curves @ walk_coordinates(curves.shape[1], 1)[:, 0] / np.linalg.norm(curves, axis=1)
    return decided(spreads(found), *(within(v, low=0.9) for v in found.values()))


@experiment.claim(
    "p-beside",
    "the plane shows another loss than the path has: where a path ends, a higher one",
    expected="for every method (95 %); false where lower",
    source="the plane leaves out what the share lacks",
)
def p_beside(results):
    found, good = {}, []
    for m in METHODS:
        at, on = (column(results, "p", f"{m} {word}")[:, -1] for word in ("loss", "on plane"))
        found[m] = f"{at.mean():.3f} on the path, {on.mean():.3f} in the plane"
        good.append(lower(at, on))
    return decided(listed(found), *good)


def jump(curve, change):
    """The step from one checkpoint to the next at `change`, in parts of the longest other one."""
    steps = np.abs(np.diff(curve))
    return steps[change - 1] / np.delete(steps, change - 1).max()


@experiment.claim(
    "b-jump",
    "a jump in a component's curve comes from two runs, not from learning",
    expected="step from epoch 8 to 9 over the longest other one: above 2 where a second run begins, below 1 in one run",
    source="the book's checkpoints: +10.4 at epoch 8, -11.6 at epoch 9",
)
def b_jump(results):
    found = {w: np.array([jump(c[:, 0], 8) for c in column(results, "b", w)]) for w in ("one", "mixed")}
    return decided(spreads(found), within(found["mixed"], low=2.0), within(found["one"], high=1.0))


# ------------------------------------------------------------------------------------------------ claims: directions
@experiment.claim(
    "d-curvature",
    "beside the minimum the plane of two eigenvectors has their eigenvalues as curvatures if the network is smooth; "
    "ReLUs add the kinks that the plane crosses",
    expected=f"a quadratic fitted within {NEAR:g}: both within 10 % with tanh; with ReLU above the eigenvalues (95 %)",
    source="Taylor; a ReLU's second derivative is 0, or infinite",
)
def d_curvature(results):
    found = {}
    for activation in ("tanh", "ReLU"):
        for run in results.select("d", activation=activation):
            ratio = np.linalg.eigvalsh(quadratic_fit(surface_of(run, "near")).hessian)[::-1] / run.columns["values"][:2]
            found.setdefault(activation, []).append(ratio)
    ratios = {f"{a} {w}": np.array(v)[:, i] for a, v in found.items() for i, w in enumerate(("first", "second"))}
    good = [within(v, 0.9, 1.1) if name.startswith("tanh") else within(v, low=1.0) for name, v in ratios.items()]
    return decided(f"ratios: {spreads(ratios)}", *good)


@experiment.claim(
    "d-scale",
    "axes have scales: a step of 1 along a random unit vector changes nothing, along an eigenvector much",
    expected="curvature along unit vectors below a hundredth of that along eigenvectors (95 %)",
    source="trace / dim against the largest eigenvalue",
)
def d_scale(results):
    found = []
    for run in planes(results):
        unit = np.trace(quadratic_fit(surface_of(run, "unit")).hessian)
        found.append(unit / run.columns["values"][:2].sum())
    return decided(spread(found), within(found, high=0.01))


@experiment.claim(
    "d-orthogonal",
    "random directions are orthogonal as they come",
    expected="|cosine| below 0.02 for all kinds (standard deviation of plain ones: 1/sqrt(dim) = 0.003)",
    source="Li et al., section 4",
)
def d_orthogonal(results):
    found = {
        k: np.abs(column(results, "d", f"{k} cosine", activation="ReLU")).max() for k in ("filter", "whole", "unit")
    }
    return listed({k: f"{v:.1g}" for k, v in found.items()}), max(found.values()) < 0.02


@experiment.claim(
    "d-gauss",
    "a Gaussian well fits the surface, and better than a quadratic",
    expected="share of the variance at least 0.95, and above the quadratic's (95 %); false where below",
    source="the book's fit",
)
def d_gauss(results):
    fits = [[f(surface_of(run, "filter")).share for f in (gaussian_fit, quadratic_fit)] for run in planes(results)]
    gauss, square = np.transpose(fits)
    return decided(spreads({"Gaussian": gauss, "quadratic": square}), within(gauss, low=0.95), lower(square, gauss))


@experiment.claim(
    "d-basin",
    "the filter-normalised plane shows one basin",
    expected="no other lasts longer than 1 % of the surface's range, all seeds",
    source="Li et al., figure 5: wide networks",
)
def d_basin(results):
    found = [lasting(surface_of(run, "filter").loss) for run in planes(results)]
    return listed({"basins": max(found)}), max(found) == 1


@experiment.claim(
    "t-filter",
    "filter-normalised surfaces do not see how a function is written down, plain ones and eigenvalues do",
    expected="difference of the two lines: below 1 % of the range for filters, above 20 % for unit vectors; "
    "eigenvalues differ by a factor above 2",
    source="Li et al., section 4; Dinh et al., ICML 2017",
)
def t_filter(results):
    far, high = {}, []
    for kind in ("filter", "unit"):
        lines = [[surface_of(run, f"{name} {kind}").loss for name in ("first", "twin")] for run in results.select("t")]
        far[kind] = np.array([np.abs(a - b).max() / max(np.ptp(a), np.ptp(b)) for a, b in lines])
    high = np.abs(np.log(column(results, "t", "twin high")[:, 0] / column(results, "t", "first high")[:, 0]))
    text = f"{spreads(far)}; eigenvalues by the factor {np.exp(high.mean()):.3g}"
    return decided(text, within(far["filter"], high=0.01), within(far["unit"], low=0.2), within(high, low=np.log(2)))


# ------------------------------------------------------------------------------------------------------ claims: well
@experiment.claim(
    "g-diverges",
    "SGD at the book's rate 0.1 does not come to rest in the book's well; at 0.02 it does",
    expected="first steps (0.18, 0.18), (-0.93, -0.56), (1.09, 0.14); never three steps within 0.3 of the minimum; "
    "after 100 steps GD at 0.02 below 1e-6, momentum below 3e-5, Adam below 5e-3",
    source="2 / 52.47 = 0.0381; points computed for the task sheet. The walk is chaotic: its end says nothing",
)
def g_diverges(results):
    runs = {m: results.select("g", method=m)[0] for m in WELL}
    walk = runs["GD 0.1"].columns
    points = np.stack([walk["x"], walk["y"]], 1)[1:4]
    near = np.abs(points - ((0.18, 0.18), (-0.93, -0.56), (1.09, 0.14))).max()
    rest = np.lib.stride_tricks.sliding_window_view(walk["distance"], 3).max(1).min()
    ends = {m: run.final["distance"] for m, run in runs.items()}
    limits = {"GD 0.02": 1e-6, "momentum 0.05": 3e-5, "Adam 0.1": 5e-3}
    good = near <= 0.01 and rest > 0.3 and all(ends[m] <= limit for m, limit in limits.items())
    text = f"points within {near:.2g}, three steps within {rest:.2f}; ends: "
    return text + listed({m: f"{v:.3g}" for m, v in ends.items()}), good


if __name__ == "__main__":
    experiment.main()
