"""Figures of distributed_nodes: errors over rounds, bytes and mixes of classes, and what an all-reduce waits for."""

from lab import Album
from lab.figures import each, look, panels, ranged

import numpy as np

album = Album()
HOW = {"random": "at random", "label": "by label"}
RATES = (0.25, 1.0)


def lines(ax, results, x, skip=()):
    """The error against a column, a line a method; of several seeds the median."""
    names = [name for name in results.values("method") if name not in skip]
    for k, name in enumerate(names):
        some = results.select(method=name)
        ax.plot(some[0].columns[x], np.median([run.columns["error"] for run in some], 0), label=name, **look(k))
    ax.set(yscale="log", ylabel="largest relative error of a node")
    return ax


@album.figure(
    "ring.png",
    caption="Ten nodes on a ring, the rate 0.5/L (tracking: 0.2/L): the largest |x_i - w*| / |w*| over rounds, with "
    "rows at random and sorted by label.",
)
def on_a_ring(results):
    def draw(ax, name):
        data, split = name
        lines(ax, results.select("a", data=data, split=split, scale=(0.5, 0.2)), "round").set(xlabel="rounds")

    names = [(data, split) for data in results.select("a").values("data") for split in ("random", "label")]
    return each(names, draw, columns=2, titles=lambda name: f"{name[0]}, rows {HOW[name[1]]}")


@album.figure(
    "server.png",
    caption="Short messages to a server, rows by label, at two rates: the relative error over what all nodes sent, up "
    "and down. x goes down whole.",
)
def short(results):
    def draw(ax, name):
        data, scale = name
        lines(ax, results.select("b", data=data, scale=scale), "bytes").set(xlabel="bytes", xscale="log")

    names = [(data, scale) for data in results.select("b").values("data") for scale in RATES]
    return each(names, draw, columns=2, legend=4, titles=lambda name: f"{name[0]}, rate {name[1]:g}/L")


@album.figure(
    "clients.png",
    caption="Rows by label. Left: all clients, some steps at home at the rate 0.5/L. Right: three of ten clients a "
    "round, one step at 0.3/L (median over seeds); SCAFFOLD lies on FedVARP. Below 1e-11 one sees the precision of w*.",
)
def local(results):
    names = results.select("c").values("data")
    figure, axes = panels(len(names), 2, squeeze=False)
    for row, data in zip(axes, names, strict=True):
        for ax, scale, title in zip(row, (0.5, 0.3), ("all clients", "three of ten"), strict=True):
            some = results.select("c", data=data, split="label", scale=scale)
            lines(ax, some, "round").set(xlabel="rounds", title=f"{data}, {title}")
            ax.legend()
    return figure


@album.figure(
    "mixes.png",
    caption="Classes mixed by Dirichlet(alpha K p): the largest relative error of a node in the end, over alpha; "
    "median, lowest and highest of the seeds. To the left a node has one class, to the right all nodes are alike.",
)
def mixed(results):
    def draw(ax, data):
        some = results.select("h", data=data)
        alphas = sorted(some.values("split"))
        for k, name in enumerate(some.values("method")):
            ends = [some.select(method=name, split=alpha).final("error") for alpha in alphas]
            ranged(ax, alphas, ends, k, label=name)
        ax.set(xscale="log", yscale="log", xlabel="alpha", ylabel="largest relative error of a node")

    return each(results.select("h").values("data"), draw, columns=2)


@album.figure(
    "all_reduce.png",
    caption="Seconds of the simulated clock over rounds of data-parallel SGD, 50 rows a gradient: an all-reduce waits "
    "for the slowest of ten nodes, each of which takes 20 times as long in one round of ten, and for messages that are "
    "sent again (1 of 20 is lost).",
)
def waiting(results):
    def draw(ax, data):
        for k, name in enumerate(["all-reduce, nobody", "all-reduce, lost messages", "all-reduce, stragglers"]):
            some = results.select("c", data=data, method=name)
            for run in some:
                label = name.replace("nobody", "nothing wrong") if run is some[0] else None
                ax.plot(run.columns["round"], run.columns["seconds"], label=label, lw=1.2, color=look(k)["color"])
        ax.set(xlabel="rounds", ylabel="simulated seconds")

    return each(results.select("c").values("data"), draw, columns=2)
