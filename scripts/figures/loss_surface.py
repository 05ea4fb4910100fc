"""Figures of loss_surface: planes, paths, components, one function written twice, the book's well."""

from types import SimpleNamespace

from lab import Album
from lab.figures import MARKERS, look, named, panels, plain
from lab.maps import bar, contours, scale_of, turning
from lab.sections import surface_of
from lab.surfaces import moving
from npopt.analysis import gaussian_fit, quadratic_fit, walk_coordinates, walk_shares
from problems.wells import Wells

import numpy as np

album = Album()

BOOK = dict(centres=((-0.04886, -0.06688),), widths=((0.74692, 0.94904),), depths=(29.2716,), bowl=0.0, start=(-1, 1))
KINDS = {
    "filter": "random, filter-normalised",
    "whole": "random, as long as the weights",
    "unit": "random, of length 1",
    "eigen": "two leading eigenvectors, of length 1",
}


def first_of(results, part):
    """The run of the first seed."""
    return results.select(part)[0]


def trained(results):
    """The run of part d with all planes."""
    return results.select("d", activation="ReLU")[0]


def methods_of(run):
    return [name.removesuffix(" place") for name in run.columns if name.endswith(" place")]


@album.figure(
    "planes.png",
    caption="One trained perceptron (cross), four planes, all from -1 to 1, on one scale of colours: the training loss "
    "on 1,000 rows, seed 0. The axes have different scales: a step of 1 is as long as the weights above.",
)
def planes(results):
    run = trained(results)
    surfaces = {kind: surface_of(run, kind) for kind in KINDS}
    norm = scale_of(surfaces.values())
    figure, axes = panels(2, 2, size=(11, 7.5))
    for ax, (kind, surface) in zip(axes.flat, surfaces.items(), strict=True):
        picture = contours(ax, surface, norm)
        ax.set_title(KINDS[kind])
        ax.set_aspect("equal")
    bar(figure, picture, axes, shrink=0.8)
    return figure


@album.figure(
    "relief.png",
    caption="The same network along filter-normalised random directions and along the two leading eigenvectors; the "
    "plane of three paths. The height is the logarithm of the training loss.",
)
def reliefs(results):
    run, walks = trained(results), first_of(results, "p")
    shown = [(run, kind, KINDS[kind], {}) for kind in ("filter", "eigen")]
    shown.append((walks, "plane", "three paths", {m: walks.columns[f"{m} place"] for m in methods_of(walks)}))
    return [turning(surface_of(*of), title, paths) for *of, title, paths in shown]


@album.figure(
    "paths.png",
    caption="Three methods from one start, seen in the plane of the first two components of all their points. Left: "
    "the training loss on that plane, in brackets the share of a path's squared distances that the plane sees. Right: "
    "the loss on the path (full) and at its projection (dashed).",
)
def paths_figure(results):
    run = first_of(results, "p")
    surface = surface_of(run, "plane")
    figure, (left, right) = panels(1, 2, size=(13, 5.8), width_ratios=(1.35, 1))
    picture = contours(left, surface, scale_of([surface]), ("first component", "second component"), middle=False)
    steps = run.columns["every"][0] * np.arange(len(run.columns[f"{methods_of(run)[0]} loss"]))
    for i, name in enumerate(methods_of(run)):
        place, style = run.columns[f"{name} place"], path_style(i)
        left.plot(*place.T, **style, label=f"{name} ({100 * run.columns[f'{name} seen'][0]:.0f} %)")
        right.plot(steps, run.columns[f"{name} loss"], color=style["color"], label=name)
        right.plot(steps, run.columns[f"{name} on plane"], color=style["color"], ls="--", lw=1.3)
    left.plot(*place[0], "X", color="white", mec="black", ms=11, zorder=7)
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    right.set(yscale="log", xlabel="step", ylabel="training loss, 1,000 rows")
    plain(right.yaxis)
    right.legend()
    bar(figure, picture, left)
    return figure


PATH = ("#D55E00", "#E69F00", "#56B4E9")  # visible on the map, blue to yellow


def path_style(i):
    return dict(color=PATH[i], marker=MARKERS[i], ms=3.5, lw=1.6, mec="black", mew=0.3)


@album.figure(
    "paths.gif",
    caption="The same paths, step by step. The map is the loss on the plane, the curves are that on the paths.",
)
def paths_animation(results, args):
    run, runs = first_of(results, "p"), {}
    surface, losses = surface_of(run, "plane"), []
    for name in methods_of(run):
        place = run.columns[f"{name} place"]
        columns = {"x": place[:, 0], "y": place[:, 1], "loss": np.log10(run.columns[f"{name} loss"])}
        runs[name] = SimpleNamespace(columns=columns)
        losses.append(columns["loss"])
    span = np.min(losses) - 0.05, np.max(losses) + 0.05

    def draw(ax):
        words = ("first component", "second component")
        contours(ax, surface, scale_of([surface]), words, middle=False, grey=True)
        return span

    last = len(losses[0]) - 1
    for figure in moving(draw, runs, range(0, last + 1, args.pick(1, last)), "loss", every=run.columns["every"][0]):
        figure.axes[1].set_ylabel("log10 of the training loss")
        yield figure


@album.figure(
    "components.png",
    caption="Left: the first three components of each path about its mean, and those of a random walk in many "
    "dimensions (dotted: cosines); each curve of length 1. Middle: their shares, with those of random walks that have "
    "the path's steps (dotted). Right: the same points by t-SNE, which keeps neighbours only; start: cross.",
)
def components_figure(results):
    run = first_of(results, "p")
    figure, (left, middle, right) = panels(1, 3, size=(13, 4.9))
    for i, name in enumerate(methods_of(run)):
        coordinates, shares = run.columns[f"{name} components"], run.columns[f"{name} shares"]
        for k in range(3):
            curve = coordinates[:, k] / np.linalg.norm(coordinates[:, k])
            left.plot(curve - 0.45 * k, color=look(i)["color"], label=name if not k else None)
        count = np.arange(1, 9)
        middle.plot(count, shares[:8], marker=MARKERS[i], **look(i), label=name)
        middle.plot(count, run.columns[f"{name} walk"][:8], ls=":", color=look(i)["color"], lw=1.4)
        spots = run.columns[f"{name} tsne"]
        right.plot(*spots.T, marker=MARKERS[i], ms=4, lw=0.6, color=look(i)["color"])
        right.plot(*spots[0], "X", color=look(i)["color"], ms=11, mec="black")
    cosines = walk_coordinates(len(coordinates), 3)
    for k in range(3):
        left.plot(cosines[:, k] - 0.45 * k, ls=":", color="#333333", label="random walk" if not k else None)
    middle.plot(count, walk_shares(len(coordinates))[:8], ls=":", color="#333333")
    left.set(xlabel="checkpoint", ylabel="components 1, 2, 3 (moved apart)", yticks=[])
    middle.set(xlabel="component", ylabel="share of squared distances", yscale="log", ylim=(3e-4, 1.3))
    right.set(xticks=[], yticks=[], title="t-SNE")
    left.legend(fontsize=9, loc="upper right")
    middle.legend(fontsize=9)
    return figure


@album.figure(
    "order.png",
    caption="The first component of 15 checkpoints of one run in their order; in the order of their names as texts (1, "
    "10, 11, ..., 15, 2, ...), as in the book; and of a path whose epochs 9 to 15 come from another run.",
)
def order_figure(results):
    run = first_of(results, "b")
    epochs = np.arange(1, len(run.columns["one"]) + 1)
    names = sorted(epochs, key=str)
    one, mixed = (run.columns[word][:, 0] for word in ("one", "mixed"))
    figure, axes = panels(1, 3, size=(13, 4.4), sharey=True)
    for ax, values, ticks, title in (
        (axes[0], one, epochs, "one run, in order"),
        (axes[1], one[np.array(names) - 1], names, "one run, names as texts"),
        (axes[2], mixed, epochs, "two runs, joined behind epoch 8"),
    ):
        ax.plot(epochs, values, marker="o", **look(0))
        ax.set_xticks(epochs, [str(t) for t in ticks], fontsize=10)
        ax.set(xlabel="checkpoint of epoch", title=title)
    axes[0].set_ylabel("first component")
    return figure


@album.figure(
    "twins.png",
    caption="One function with two sets of weights: the first layer times 4, the second one's weights divided by 4. "
    "Along a direction from the same draw the two lines are one if directions are normalised by filters, and are not "
    "otherwise. A thin line for each seed.",
)
def twins_figure(results):
    titles = {"filter": "filter-normalised", "whole": "as long as the weights", "unit": "of length 1"}
    figure, axes = panels(1, 3, size=(13, 4.6))
    for ax, (kind, title) in zip(axes, titles.items(), strict=True):
        for run in results.select("t"):
            for i, name in enumerate(("first", "twin")):
                line = surface_of(run, f"{name} {kind}")
                some = dict(color=look(i)["color"], ls=("-", (0, (4, 3)))[i], lw=(2.2, 1.6)[i])
                ax.plot(line.a, line.loss, **some, label=("as trained", "scaled")[i] if run.seed == 0 else None)
        ax.set(xlabel="a", title=title)
    axes[0].set_ylabel("training loss")
    axes[0].legend()
    return figure


@album.figure(
    "well.png",
    caption="Left: the book's Gaussian well and its three methods, 100 steps from (-1, 1). Gradient descent at 0.1 "
    "does not stay: 2/52.5 = 0.038. Middle: their distance to the minimum, down to 1e-9. Right: our own surface along "
    "the diagonal, with the Gaussian and the quadratic that fit the whole of it best.",
)
def well_figure(results):
    some = results.select("g")
    figure, (left, middle, right) = panels(1, 3, size=(13, 4.9))
    runs = {run.tags["method"]: run for run in some}
    problem = Wells(**BOOK)
    a = np.linspace(-1.6, 1.6, 81)
    z = problem.f(*np.meshgrid(a, a))
    left.contourf(a, a, z, 14, colors=[str(0.97 - 0.45 * k / 14) for k in range(15, 0, -1)])
    for i, (name, run) in enumerate(runs.items()):
        style = dict(color=look(i)["color"], marker=MARKERS[i], ms=3, lw=1.1 if i else 0.5)
        left.plot(run.columns["x"], run.columns["y"], **style, label=name)
        far = run.columns["distance"]
        middle.plot(np.where(far > 1e-9, far, np.nan), **look(i), label=name)
    left.plot(*problem.minimum()[0][0], "*", color="black", ms=12, zorder=6)
    left.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xlabel="a", ylabel="b")
    left.grid(False)
    left.legend(fontsize=9, loc="lower left")
    middle.set(yscale="log", xlabel="step", ylabel="distance to the minimum", ylim=(5e-10, 5))
    named(middle, 9)
    surface = surface_of(trained(results), "filter")
    right.plot(surface.a, np.diag(surface.loss), color="black", label="loss, a = b")
    for i, (name, fit) in enumerate((("Gaussian", gaussian_fit(surface)), ("quadratic", quadratic_fit(surface)))):
        right.plot(surface.a, fit.at(surface.a, surface.b), **look(i + 4), label=f"{name} ({100 * fit.share:.1f} %)")
    right.set(xlabel="a = b, filter-normalised", ylabel="training loss")
    right.legend(fontsize=9)
    return figure
