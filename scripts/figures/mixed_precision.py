"""Figures of mixed_precision: accuracies by format, memory by kind, slopes by size, what fails, the scale by steps."""

from lab import Album, Undecided
from lab.account import KINDS
from lab.figures import DASHES, MARKERS, below, look, named, panels
from lab.mixed import EXPONENTS
from lab.verdicts import close, interval

import numpy as np

album = Album()
FORMATS = ("float32", "bfloat16", "float16", "float16, scaled", "float8_e4m3, scaled", "float8_e5m2, scaled")
BATCHES = (32, 128, 512)


def whole_run(args):
    """Claims speak of the whole grid."""
    if args.quick:
        raise Undecided("it speaks of runs at full length")


def one(results, **tags):
    (run,) = results.select(**tags)
    return run


def ends(results, study):
    """{method: training loss at the end, by seed} of a study of part w."""
    return results.select("w", study=study).finals("train_loss")


def alike(results, part, margin, column, **tags):
    """({format: end less that of float32, by seed}, verdicts that each is within the margin)."""
    some = results.select(part, **tags)
    exact = some.select(format="float32").final(column)
    found = {name: some.select(format=name).final(column) - exact for name in FORMATS[1:4]}
    return found, [close(v, 0.0, margin) for v in found.values()]


def measured(run):
    """Bytes lent out between the passes of a step: of all kinds but the workspace."""
    return sum(run.final[f"measured_{kind}"] for kind in KINDS[:-1])


def accounted(results, part):
    """The largest gap of measured bytes and the sum over kinds, in parts of what was measured; and whether it is
    below a twentieth."""
    gaps = [abs(1 - sum(r.final[k] for k in KINDS[:-1]) / measured(r)) for r in results.select(part)]
    return f"largest gap {100 * max(gaps):.2f} % of {len(gaps)} runs", bool(max(gaps) < 0.05)


def colour(name):
    i = FORMATS.index(name)
    return look(i) | {"marker": MARKERS[i]}


def apart(ax, groups, column, scale, ylabel, limit=np.inf):
    """Ends less those of float32 with the same seed, mean and 95 % interval, one group of points a row of results. A
    mean beyond the limit stands at the border, as a number."""
    for i, (_, runs) in enumerate(groups):
        exact = runs.select(format="float32").final(column)
        for name in FORMATS[1:4]:
            away = scale * (runs.select(format=name).final(column) - exact)
            try:
                middle, half = interval(away)
            except Undecided:
                middle, half = away.mean(), 0.0
            at = i + 0.2 * (FORMATS.index(name) - 2)
            label = name if i == 0 else None
            if abs(middle) > limit:
                up = np.sign(middle)
                ax.text(at, up * limit * 0.97, f"{middle:.0f}", color=colour(name)["color"], ha="center", fontsize=10)
                continue
            ax.errorbar(at, middle, half, capsize=3, label=label, **colour(name) | {"linestyle": ""})
    ax.axhline(0, color="#888888", lw=1)
    ax.set_xticks(range(len(groups)), [str(key) for key, _ in groups])
    ax.set_xlim(-0.5, len(groups) - 0.5)
    ax.set_ylabel(ylabel)
    if np.isfinite(limit):
        ax.set_ylim(-limit, limit)


@album.figure(
    "formats.png",
    caption="How far training in two bytes ends from float32 with the same seed: mean and 95 % interval over seeds. "
    "Left: LeNet-5 and an MLP on pictures of digits, by batch size; dotted: the margin of the claims; means beyond "
    "2 points stand as numbers at the border. Then ResNet-18, and a GPT of two layers.",
)
def formats(results):
    figure, axes = panels(1, 4, size=(13, 4.6), gridspec_kw=dict(width_ratios=(3, 3, 1.4, 1.4)))
    for ax, network in zip(axes[:2], ("LeNet-5", "MLP"), strict=True):
        some = results.select("a", network=network, format=FORMATS[:4])
        apart(ax, some.groups("batch"), "test_accuracy", 100, "test accuracy less float32's [points]", 2)
        ax.set(title=network, xlabel="batch size")
        for y in (-1, 1):
            ax.axhline(y, color="#888888", ls=":", lw=1)
    apart(axes[2], [("pictures", results.select("r"))], "test_accuracy", 100, "test accuracy less float32's [points]")
    axes[2].set_title("ResNet-18")
    apart(axes[3], [("text", results.select("t"))], "test_loss", 1, "test loss less float32's [nats]")
    axes[3].set_title("GPT")
    return below(figure, axes[0], 3)


@album.figure(
    "failures.png",
    caption="What must stay float32. Left: LeNet-5 at a small rate with weights that are themselves bfloat16, rounded "
    "to the nearest or at random, beside float32 weights. Middle: batch norm with float16 sums. Right: the loss "
    "divided by 2^18 and the rate multiplied by it. Mean and range over seeds; a cross: not finite.",
)
def failures(results):
    titles = {
        "masters": "master weights",
        "statistics": "statistics of batch norm",
        "small slopes": "loss / 2¹⁸, rate × 2¹⁸",
    }
    figure, axes = panels(1, 3, size=(13, 4.6))
    for ax, (study, title) in zip(axes, titles.items(), strict=True):
        for i, (method, runs) in enumerate(results.select("w", study=study).groups("method")):
            grid, values = runs.stack("train_loss", "step")
            with np.errstate(invalid="ignore"):
                middle = np.nanmean(np.where(np.isfinite(values), values, np.nan), 0)
            ax.plot(grid, middle, label=method, **look(i) | {"linestyle": DASHES[min(i, 2)]})
            ax.fill_between(grid, values.min(0), values.max(0), color=look(i)["color"], alpha=0.18, lw=0)
            if not np.isfinite(values).all():
                ax.plot(grid[np.isfinite(middle)][-1:], middle[np.isfinite(middle)][-1:], "x", ms=10, color="black")
        ax.set(title=title, xlabel="step", yscale="log")
        ax.legend(fontsize=10, loc="best")
    axes[0].set_ylabel("training loss")
    return figure


def bars(ax, runs, unit):
    """Stacked bytes by kind of some runs, and what was measured."""
    under = np.zeros(len(runs))
    for i, kind in enumerate(KINDS[:-1]):
        size = np.array([run.final[kind] for run in runs]) / unit
        ax.bar(range(len(runs)), size, 0.7, under, color=look(i)["color"], label=kind)
        under += size
    ax.plot(
        range(len(runs)), [measured(run) / unit for run in runs], "_", ms=24, mew=2, color="black", label="measured"
    )
    short = {"float32": "32", "float16": "f16", "bfloat16": "b16"}
    ax.set_xticks(range(len(runs)), [f"{short[run.tags['format']]}\n{run.tags['batch']}" for run in runs])


@album.figure(
    "memory.png",
    caption="Bytes in use between the passes of a step, counted by kind, of networks with AdamW; the black mark is "
    "what was measured. Below each bar its format (32: float32, f16: float16, b16: bfloat16) and the "
    "batch size. Right: 100 million parameters.",
)
def memory(results):
    figure, axes = panels(1, 3, size=(13, 4.8))
    for ax, network in zip(axes[:2], ("LeNet-5", "CNN"), strict=True):
        bars(ax, sorted(results.select("m", network=network), key=lambda r: r.tags["batch"]), 2**20)
        ax.set(title=network, ylabel="bytes [MiB]")
    bars(axes[2], sorted(results.select("b"), key=lambda r: r.tags["batch"]), 2**30)
    axes[2].set(title="GPT-2 small's shape", ylabel="bytes [GiB]")
    return below(figure, axes[0], 6)


@album.figure(
    "slopes.png",
    caption="LeNet-5 in float32: the sizes of dL/dy at each layer with parameters, at the start and after training; "
    "shares of the numbers that are not 0, mean over seeds. Left of the dashed line float16 has but zero, left of the "
    "dotted one it has fewer bits. In the legend: the share of non-zero slopes that vanish, and that with a scale of "
    "2^16.",
)
def slopes(results):
    groups = results.select("h", network="LeNet-5").groups("after")
    figure, axes = panels(1, len(groups), size=(13, 4.8), sharey=True)
    for ax, (after, runs) in zip(np.atleast_1d(axes), groups, strict=True):
        layers = runs[0].config["layers"]
        for i in np.flatnonzero(runs[0].columns["gradient"] == 0):
            share = np.mean([[run.columns[f"e{e}"][i] for e in EXPONENTS] for run in runs], 0)
            share = np.where(share > 0, share, np.nan) / share.sum()
            lost, scaled = (100 * np.nanmean([run.columns[c][i] for run in runs]) for c in ("lost", "scaled_lost"))
            text = f"{layers[i]}: {lost:.2g} %, scaled {scaled:.2g} %"
            ax.plot(EXPONENTS, 100 * share, drawstyle="steps-mid", label=text, **look(int(i)))
        ax.axvline(-25, color="#333333", ls="--", lw=1.2)
        ax.axvline(-14, color="#333333", ls=":", lw=1.2)
        ax.set(xlabel="log₂ |dL/dy|", title="at the start" if after == 0 else f"after {after:,} steps", xlim=(-45, 3))
        ax.set(yscale="log", ylim=(1e-4, 1e4))
        ax.set_yticks([10.0**e for e in range(-4, 3)])
        ax.legend(fontsize=10, loc="upper left")
    np.atleast_1d(axes)[0].set_ylabel("share of the slopes [%]")
    return figure


@album.figure(
    "scale.png",
    caption="The loss scale of LeNet-5 in float16 by batches, with a growth after 50 or 200 good steps, each seed a "
    "line. A dot is a skipped step.",
)
def scale(results):
    figure, axes = panels(1, 2, size=(12, 4.4), sharey=True)
    for ax, (interval_, runs) in zip(axes, results.select("l").groups("interval"), strict=True):
        for i, run in enumerate(runs):
            columns = run.columns
            ax.step(
                columns["step"],
                np.log2(columns["scale"]),
                label=f"seed {run.seed}",
                **look(i) | {"linestyle": DASHES[i % len(DASHES)]},
            )
            bad = columns["skipped"] > 0
            ax.plot(columns["step"][bad], np.log2(columns["scale"][bad]), "o", ms=5, color=look(i)["color"])
        share = np.mean([run.columns["skipped"].mean() for run in runs])
        ax.set(xlabel="batch", title=f"growth every {interval_}: {share:.1%} skipped")
    axes[0].set_ylabel("log₂ of the scale")
    named(axes[1])
    return figure
