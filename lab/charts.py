"""Whole figures that many scripts share: methods at their best rates, methods by epoch, a range test."""

from lab.figures import below, closer, curves, each, look, mark, named, panels, plain, said, style

import numpy as np

COLUMNS = {"train_loss": "training loss", "train_error": "training error [%]", "test_error": "test error [%]"}


def with_errors(results):
    """The runs with columns train_error and test_error, in per cent."""
    for part in ("train", "test"):
        results = results.with_column(f"{part}_error", lambda c, p=part: 100 * (1 - c[f"{p}_accuracy"]))
    return results


def by_epoch(axes, results, label=None, top=100, **more):
    """Training loss, training and test error by epoch in three axes, up to the percentile `top` of their values."""
    some = with_errors(results)
    for ax, (column, text) in zip(axes, COLUMNS.items(), strict=True):
        curves(ax, some, column, label=label, ylabel=text, legend=False, **more)
        closer(ax, some, column, 0.1, 0.05, top)


def tuned(results, by="validation_loss", of="method"):
    """A figure of methods, each at its best rate: the value of its tag "lr" that is best by the column `by`, a loss of
    held-out rows. It shows training loss and test error by epoch, and the column `by` against the rate (circles:
    chosen; up to ten times the least)."""
    best, some = results.tuned(by=by, of=of), results.at_best(by=by, of=of)
    some = with_errors(some)
    figure, (left, middle, right) = panels(1, 3)
    for ax, column, text in ((left, "train_loss", "training loss"), (middle, "test_error", "test error [%]")):
        curves(ax, some, column, logy=True, ylabel=text, legend=False)
        closer(ax, some, column, 1 / 11)
        ax.set_xlim(left=0)
    with style():
        least = against_rate(right, best)
        right.set_yscale("log")
        right.set_ylim(least / 1.1, min(right.get_ylim()[1], 10 * least))
        plain(right.yaxis)
    return below(figure, left, min(4, len(best)), title=f"at the best rate; {said(len(results.seeds))}")


def against_rate(ax, best, size=4):
    """The scores of {method: Tuned} against the rate, the chosen ones in circles. Returns the least score."""
    for i, found in enumerate(best.values()):
        values = sorted(found.scores)
        ax.plot(values, [found.scores[v] for v in values], marker="o", ms=size, **look(i))
        ax.plot([found.value], [found.scores[found.value]], "o", ms=size + 8, mfc="none", color=look(i)["color"])
    ax.set(xscale="log", xlabel="learning rate", ylabel="loss of held-out rows")
    return min(np.nanmin(list(found.scores.values())) for found in best.values())


def gaps(results, methods, target, *, columns=3, legend=3, ylabel="f(w) - f*"):
    """A figure of the column "gap" by iteration, a panel for each data set, down to the target (dotted). A method has
    the colour of its place among `methods`."""
    sets = dict(results.select(method=methods).groups("data"))
    more = dict(xlabel="iterations", ylabel=ylabel, colours=lambda tags: methods.index(tags["method"]))

    def draw(ax, data):
        curves(ax, sets[data], "gap", "step", logx=True, logy=True, legend=False, **more)
        ax.set_ylim(0.3 * target, None)
        ax.axhline(target, color="#888888", lw=1, ls=":")

    return each(list(sets), draw, columns, legend)


def range_test(found):
    """A figure of a RangeTest: loss against rate, with both suggestions."""
    figure, ax = panels()
    ax.plot(found.rates, found.losses, color="#bbbbbb", lw=1, label="loss of a batch")
    ax.plot(found.rates, found.smooth, label=f"smoothed ({found.fade:g})")
    for rate, name, dash in ((found.steepest, "falls fastest", ":"), (found.highest, "turns up", "--")):
        ax.axvline(rate, color="#666666", lw=1.2, ls=dash, label=f"{name}: {rate:.2g}")
    finite = found.smooth[np.isfinite(found.smooth)]
    ax.set_ylim(min(finite) - 0.05 * abs(min(finite)), 1.5 * finite[0])
    ax.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    ax.legend()
    return figure


def ranking(results, by="validation_loss"):
    """A figure of methods at their best rates, sorted by test accuracy. It shows training and test accuracy at the end
    (points: seeds; bars: mean), with the rate in brackets. On the right stands the gap between the two, in points, with
    its deviation."""
    tuned = results.tuned(by=by)
    order = sorted(tuned, key=lambda m: np.mean(tuned[m].runs.final("test_accuracy")))
    figure, ax = panels(size=(9, min(0.36 * len(order) + 1.6, 7.5)))
    for i, m in enumerate(order):
        ends = {c: 100 * tuned[m].runs.final(f"{c}_accuracy") for c in ("train", "test")}
        gap = ends["train"] - ends["test"]
        ax.annotate(
            f"gap {gap.mean():.1f} ± {gap.std(ddof=1) if len(gap) > 1 else 0:.1f}",
            (1.01, i),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
        )
        for (_, values), shade, text in zip(ends.items(), (1, 0), ("training", "test"), strict=True):
            colour = look(shade)["color"]
            ax.plot(values, [i] * len(values), "o", color=colour, alpha=0.5, ms=5)
            ax.plot([values.mean()], [i], "|", color=colour, ms=16, mew=2.5, label=text if not i else None)
    ax.set_yticks(range(len(order)), [f"{m} ({tuned[m].value:.2g})" for m in order])
    ax.set_xlabel("accuracy [%]")
    ax.legend(loc="lower right")
    return figure


def rates(results, customary, ticks, by="validation_loss", families=None):
    """A figure of the column `by`, a loss of held-out rows, against the rate in units of {method: customary rate}, mean
    over seeds; up to three times the least, what lies above or diverged as crosses at the edge. ticks: {factor: text};
    families: {title: methods}, a panel for each of at most seven lines (None: one panel)."""
    tuned = results.tuned(by=by)
    families = families or {"": list(tuned)}
    figure, axes = panels(-(-len(families) // 2), min(2, len(families)), squeeze=False, sharex=True, sharey=True)
    top = 3 * np.nanmin([v for found in tuned.values() for v in found.scores.values()])
    for ax, (title, names) in zip(axes.flat, families.items(), strict=False):
        for i, method in enumerate(name for name in names if name in tuned):
            found, style_of = tuned[method], look(i)
            xs = np.array(sorted(found.scores))
            ys = np.array([found.scores[x] for x in xs])
            lost = ~(ys <= top)
            xs = xs / customary[method]
            ax.plot(xs, np.where(lost, np.nan, ys), marker="o", ms=4, label=method, **style_of)
            ax.plot(xs[lost], [0.97] * lost.sum(), "x", color=style_of["color"], transform=ax.get_xaxis_transform())
        ax.set(xscale="log", yscale="log", title=title, xlabel="rate / customary rate", ylabel="loss of held-out rows")
        ax.set_xticks(list(ticks), list(ticks.values()))
        ax.minorticks_off()
        ax.set_ylim(top / 3 / 1.05, top)
        plain(ax.yaxis)
        ax.legend(loc="upper right", bbox_to_anchor=(1, 0.95), fontsize=9, ncols=2)
    return figure


def shapes(ax, plans, epoch, steps):
    """The rates of {name: schedule} by epoch; `epoch` steps an epoch."""
    for i, (name, schedule) in enumerate(plans.items()):
        schedule.start(epoch, steps)
        ax.plot(np.arange(steps) / epoch, [schedule(t) for t in range(steps)], label=name, lw=1.6, **look(i))
    ax.set_xlabel("epoch")


def watched(results, looks, limit, by="start"):
    """A figure of runs on problems.watched, a row for each value of the tag `by`, with three panels. First the norm of
    the gradient by layer. Then the cosine of successive rows' gradients, and the part of a batch's gradient that is
    signal. Last the extreme eigenvalues of the Hessian at the epochs of `looks`, with 2/lr: medians over the seeds
    where they are known, bars for error bounds."""
    groups = results.groups(by)
    figure, axes = panels(len(groups), 3, squeeze=False)
    for row, (title, runs) in zip(axes, groups, strict=True):
        for ax, lines in (
            (row[0], {"norm": "all", "norm_fc1": "fc1", "norm_fc2": "fc2", "norm_fc3": "fc3"}),
            (row[1], {"cosine": "cosine of g, g before", "signal": "|g|² / mean |g_B|²"}),
        ):
            for i, (column, name) in enumerate(lines.items()):
                epochs, values = runs.stack(column)
                ax.plot(epochs, np.median(values, 0), label=name, **look(i))
        row[0].set(yscale="log", ylabel="gradient norm")
        row[1].set(ylabel="without unit", ylim=(-1.05, 1.05))
        for i, (column, name) in enumerate((("high", "largest"), ("low", "least"))):
            epochs, values = runs.stack(column)
            errors = runs.stack(f"{column}_error")[1]
            known = [k for k, e in enumerate(epochs) if e in looks and np.isfinite(values[:, k]).any()]
            row[2].errorbar(
                epochs[known],
                np.nanmedian(values[:, known], 0),
                yerr=np.nanmax(errors[:, known], 0),
                marker="o",
                capsize=3,
                label=name,
                color=look(i)["color"],
            )
        mark(row[2], limit, "2/lr", 0.01)
        row[2].set(ylabel="eigenvalue", yscale="symlog", ylim=(None, 3 * limit))
        for ax in row:
            ax.set(xlabel="epoch", title=title)
        row[2].legend(loc="center right")
        for ax in row[:2]:
            named(ax)
    return figure
