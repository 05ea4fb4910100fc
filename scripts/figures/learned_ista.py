"""Figures of learned_ista: decibels by layer, and what theory says of the weights."""

from lab import Album
from lab.figures import MARKERS, curves, look, mark, named, panels, plain, reference

from matplotlib import ticker

album = Album()
NETWORKS = ("LISTA-CP", "LISTA", "LISTA-CPSS", "LISTA-SS", "ALISTA")
COLOURS = {name: i for i, name in enumerate((*NETWORKS, "FISTA", "ISTA"))} | {"AMP": 13}


def title_of(tags):
    return tags["method"] + (f", λ {tags['lam']}" if tags["method"] in ("ISTA", "FISTA") else "")


def by_layer(ax, runs, methods, y="nmse", ylabel=None, label=title_of, colours=lambda t: COLOURS[t["method"]]):
    """Median over seeds with its band, of each method."""
    more = dict(xlabel="layer, or iteration", ylabel=ylabel or "NMSE [dB]", legend=False)
    for method in methods:
        curves(ax, runs.select(method=method), y, "layer", label=label, colours=colours, **more)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))


def all_named(figure, *axes):
    for ax in axes:  # when their limits are set
        named(ax)
    return figure


@album.figure(
    "layers.png",
    caption="NMSE on 1,000 test samples by layer, without noise; median over seeds, band: lowest to highest. Left: the "
    "networks of Figure 3 beside the methods they unroll. Right: with support selection, and with one weight computed "
    "from A.",
)
def layers(results):
    figure, axes = panels(1, 2, size=(13, 6), sharey=True)
    left = ("ISTA", "FISTA", "AMP", "LISTA", "LISTA-CP")
    right = ("AMP", "LISTA-CP", "LISTA-SS", "LISTA-CPSS", "ALISTA")
    for ax, methods in zip(axes, (left, right), strict=True):
        by_layer(ax, results.select("a"), methods)
    return all_named(figure, *axes)


@album.figure(
    "classical.png",
    caption="FISTA (left) and ISTA (right) with five lambdas, against LISTA-CP's layers: a large lambda is fast and "
    "has a high floor, a small one is slow. λ falling: from 0.4 to 0.0125 by a tenth an iteration. Seed 0.",
)
def classical_figure(results):
    figure, axes = panels(1, 2, size=(13, 6), sharey=True)
    order = [None, *results.select("f", method="FISTA").values("lam")]
    more = dict(logx=True, legend=False, xlabel="iteration, or layer", ylabel="NMSE [dB]")

    def title(tags):
        return f"λ {'falling' if tags['lam'].startswith('(') else tags['lam']}" if "lam" in tags else "LISTA-CP"

    for ax, method in zip(axes, ("FISTA", "ISTA"), strict=True):
        for runs in (results.select("a", method="LISTA-CP", seed=0), results.select("f", method=method, seed=0)):
            curves(ax, runs, "nmse", "layer", label=title, colours=lambda t: order.index(t.get("lam")), **more)
        ax.set_title(method)
    return all_named(figure, *axes)


@album.figure(
    "theory.png",
    caption="What theory says of the weights. Left: how far LISTA's layers are from coupled weights. Middle: "
    "LISTA-CP's thresholds against the error that they meet, one mark a layer, one kind of mark a seed; dotted: slope "
    "1. Right: entries that are not 0 where x* is, for each true one.",
)
def theory_figure(results):
    figure, axes = panels(1, 3, size=(13, 5))
    by_layer(axes[0], results.select("a"), ("LISTA", "LISTA-SS"), "coupling", "|W2 - (I - W1 A)|₂")
    axes[0].set_ylim(0, None)
    for i, run in enumerate(results.select("a", method="LISTA-CP")):
        error, theta = run.columns["l1"][:-1], run.columns["theta"][1:]
        axes[1].plot(error, theta, MARKERS[i], ms=6, color=look(i)["color"], label=f"seed {run.seed}")
    axes[1].set(xscale="log", yscale="log", xlabel="mean |x_k - x*|₁", ylabel="threshold θ_k")
    reference(axes[1], (error.min(), error.max()), theta.max() / 2, 1)
    axes[1].legend()
    for axis in (axes[1].xaxis, axes[1].yaxis):
        plain(axis)
    by_layer(axes[2], results.select("a"), ("LISTA", "LISTA-CP", "LISTA-CPSS"), "false", "false entries / true ones")
    return all_named(figure, axes[0], axes[2])


def row_of(results, part, tag, title):
    groups = sorted(results.select(part).groups(tag), reverse=tag == "snr")
    figure, axes = panels(1, len(groups), size=(13, 5), sharey=True, squeeze=False)
    for ax, (value, runs) in zip(axes[0], groups, strict=True):
        for known in runs.select(method="support known") if part == "n" else ():
            mark(ax, known.final["nmse"], "support known", 0.02)
        ax.set_title(title.format(value))
        by_layer(ax, runs, ("FISTA", *["AMP"] * (part == "n"), "LISTA-CPSS"))
    return all_named(figure, *axes[0])


@album.figure("noise.png", caption="With noise; dotted: least squares on the true support. Seed 0.")
def noise_figure(results):
    return row_of(results, "n", "snr", "SNR {} dB")


@album.figure("condition.png", caption="Singular values from 1 to 1/c before A's columns are scaled. Seed 0.")
def condition_figure(results):
    return row_of(results, "i", "condition", "condition {}")


@album.figure("budget.png", caption="LISTA-CPSS's layers after half to twice the steps a layer; seed 0.")
def budget_figure(results):
    figure, ax = panels()
    runs = results.select("b")
    shares = sorted(runs.values("budget"))
    more = dict(label=lambda t: f"{t['budget']:g} times", colours=lambda t: shares.index(t["budget"]))
    by_layer(ax, runs, ("LISTA-CPSS",), **more)
    return all_named(figure, ax)
