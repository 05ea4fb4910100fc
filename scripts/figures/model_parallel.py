"""Figures of model_parallel: schedules as Gantt charts, bubbles, memory, links."""

from lab import Album
from lab.figures import COLOURS, MARKERS, below, panels
from lab.links import LINKS, efficiency, theory
from lab.parallel import by_stage, idle

import matplotlib as mpl
import numpy as np

album = Album()
SHADES = {0: "Blues", 1: "Oranges"}  # forward, backward; darker is a later micro-batch


def gantt(ax, run):
    """One bar a pass, its micro-batch's number in it."""
    stages, m = int(run.tags["stages"]), int(run.tags["micro"])
    columns = [run.columns[name] for name in ("stage", "kind", "micro", "begin", "end")]
    unit = columns[4][0] - columns[3][0]  # of a pass forward
    for stage, kind, k, begin, end in zip(*columns, strict=True):
        shade = 0.25 + 0.55 * k / max(1, m - 1)
        colour = mpl.colormaps[SHADES[int(kind)]](shade)
        ax.barh(stage, (end - begin) / unit, left=begin / unit, height=0.86, color=colour, edgecolor="white", lw=1.2)
        ax.text((begin + end) / 2 / unit, stage, f"{int(k) + 1}", ha="center", va="center", fontsize=12,
                color="white" if shade > 0.55 else "#222222")  # fmt: skip
    kept = by_stage(run, "passes").astype(int)
    for stage in range(stages):
        ax.text(run.final["time"] / unit + 0.3, stage, f"keeps {kept[stage]}", va="center", fontsize=12)
    ax.set_yticks(range(stages), [f"stage {s}" for s in range(stages)])
    ax.set(ylim=(stages - 0.5, -0.5), facecolor="#EEEEEE", xlim=(0, run.final["time"] / unit))
    ax.grid(False)
    ax.set_title(f"{run.tags['method']}: {run.final['time'] / unit:.0f} units, idle {100 * idle(run).mean():.0f} %")


@album.figure(
    "schedules.png",
    caption="One step of a pipeline of four stages with eight micro-batches on the simulated clock. Blue: forward; "
    "orange: back, twice as long; grey: idle. At the right: passes that a stage keeps at a time, at most.",
)
def schedules(results):
    figure, axes = panels(2, 1, (13, 6.6), sharex=True)
    for ax, name in zip(axes, ("GPipe", "1F1B"), strict=True):
        gantt(ax, results.select("a", method=name, stages=4, micro=8, again=False)[0])
    axes[1].set_xlabel("time [passes forward of a micro-batch]")
    return figure


@album.figure(
    "bubbles.png",
    caption="Left: the share of the time in which a stage idles, measured (marks; GPipe and 1F1B lie on one another), "
    "and (p-1)/(m+p-1) (lines). Right: bytes that the second of four stages keeps at most; the batch is the same for "
    "all m, so a pass is smaller with more micro-batches.",
)
def bubbles(results):
    figure, (left, right) = panels(1, 2)
    runs = results.select("a", again=False)
    for i, (p, some) in enumerate(runs.groups("stages")):
        m = np.array(sorted(set(some.values("micro"))))
        fine = np.geomspace(m[0], m[-1], 100)
        left.plot(fine, (p - 1) / (fine + p - 1), color=COLOURS[i], label=f"p = {p}")
        for name, marker, size in (("GPipe", "o", 9), ("1F1B", "x", 6)):
            found = [idle(some.select(method=name, micro=int(k))[0]).mean() for k in m]
            left.plot(m, found, marker, ms=size, mfc="none", mew=1.6, color=COLOURS[i] if marker == "o" else "#222222")
    left.set(xscale="log", xlabel="micro-batches m", ylabel="idle share", ylim=(0, 1), title="the bubble of p stages")
    left.legend(loc="upper right")
    lines = (("GPipe", False), ("1F1B", False), ("GPipe", True), ("1F1B", True))
    for i, (name, again) in enumerate(lines):
        some = results.select("a", stages=4, method=name, again=again)
        kept = [by_stage(run, "kept")[1] / 1e6 for run in some]
        right.plot(some.values("micro"), kept, marker=MARKERS[i], color=COLOURS[i], ls="--" if again else "-",
                   label=name + ", recomputing" * again)  # fmt: skip
    right.set(xscale="log", yscale="log", xlabel="micro-batches m", ylabel="MB", title="kept by the second of 4 stages")
    right.legend()
    for ax in (left, right):
        ax.set_xticks(m, [str(k) for k in m])
        ax.minorticks_off()
    return figure


@album.figure(
    "shares.png",
    caption="What one of N nodes has, as a share of what a single node has. Left: tensor parallelism. Right: ZeRO-1 "
    "with AdamW and with momentum, weights, gradients and states in float32; lines: 4 + 4 + K/N bytes a parameter.",
)
def shares(results):
    figure, (left, right) = panels(1, 2)
    runs = results.select("b")
    n, finals = np.array([run.tags["ranks"] for run in runs]), [run.final for run in runs]
    for i, (column, label) in enumerate((("numbers", "parameters"), ("kept", "kept for the way back"))):
        left.plot(n, [f[column] / finals[0][column] for f in finals], marker=MARKERS[i], color=COLOURS[i], label=label)
    fine = np.geomspace(n[0], n[-1], 100)
    left.plot(fine, 1 / fine, color="#888888", ls=":", label="1/N")
    left.set(ylabel="of a single node's", ylim=(0, 1.05), title="tensor parallelism")
    for i, (name, some) in enumerate(results.select("c").groups("method")):
        n, K = np.array([run.tags["ranks"] for run in some]), {"AdamW": 8, "momentum": 4}[name]
        fine = np.geomspace(n[0], n[-1], 100)
        right.plot(fine, 8 + K / fine, color=COLOURS[i])
        found = [8 + run.final["state"] / run.final["parameters"] for run in some]
        right.plot(n, found, MARKERS[i], color=COLOURS[i], label=name)
    right.set(ylabel="bytes a parameter", ylim=(0, 17), title="ZeRO-1")
    for ax in (left, right):
        ax.set(xscale="log", xlabel="nodes N")
        ticks = [run.tags["ranks"] for run in (runs if ax is left else some)]
        ax.set_xticks(ticks, [str(k) for k in ticks])
        ax.minorticks_off()
        ax.legend()
    return figure


@album.figure(
    "links.png",
    caption="Computed, not measured: how much of its time a device computes in a step of Megatron-LM's 72 layers of "
    "D = 3072 on several A100s at their peak rate, without overlap. Marks: the simulated clock; lines: formulas; "
    "1F1B's marks are joined by dots. Dotted level: the work of one device. ZeRO: data-parallel, 8 rows a device.",
)
def links(results):
    figure, ax = panels(1, 1, (11, 6))
    runs = results.select("d")
    nodes = runs[0].tags["nodes"]
    names = [how for how in runs.values("how") if how.endswith(f"= {4 * nodes}") or "m =" not in how]
    fine = np.geomspace(min(LINKS.values()), max(LINKS.values()), 100)
    for i, how in enumerate(names):
        some = runs.select(how=how)
        speeds = np.array([LINKS[run.tags["link"]] for run in some])
        found = [efficiency(how, nodes, run.final["time"]) for run in some]
        ax.plot(speeds / 1e9, found, MARKERS[i], color=COLOURS[i], ms=9,
                label="ZeRO, data parallel" if how == "ZeRO" else how)  # fmt: skip
        if theory(how, nodes, fine[0]):
            lines = [efficiency(how, nodes, theory(how, nodes, speed)) for speed in fine]
            ax.plot(fine / 1e9, lines, color=COLOURS[i])
        else:
            ax.plot(speeds / 1e9, found, color=COLOURS[i], ls=":", lw=1.2)
    ax.axhline(1 / nodes, color="#888888", ls=":")
    ax.text(1.3, 1 / nodes + 0.01, "one device's work", color="#555555", va="bottom", fontsize=12)
    ax.set(xscale="log", ylim=(0, 1), xlim=(1.1, 400), title="Tensors belong into a machine, pipelines may leave it")
    ax.set(ylabel=f"efficiency of {nodes} devices, computed", xlabel="link, one way [GB/s]")
    ax.set_xticks([v / 1e9 for v in LINKS.values()], [f"{v / 1e9:.3g}" for v in LINKS.values()])
    names = ax.secondary_xaxis("top")
    names.set_xticks([v / 1e9 for v in LINKS.values()], list(LINKS), rotation=40, ha="left", rotation_mode="anchor")
    for one in (ax, names):
        one.minorticks_off()
        one.tick_params(length=0)
    names.spines["top"].set_visible(False)
    return below(figure, ax, 4)
