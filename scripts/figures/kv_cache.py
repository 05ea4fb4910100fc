"""Figures of kv_cache: loss by position, shares of attention, codes, bytes and time."""

from lab import Album
from lab.figures import COLOURS, below, look, mark, named, panels

import numpy as np

album = Album()
LATE = 512  # positions behind which losses are compared, or the last third of shorter streams
SHOWN = ("full", "window", "streaming, 0 first", "streaming, 1 first", "streaming, 4 first", "H2O", "KIVI, 2 bits")


def late(runs):
    """The mean loss of the later buckets, one a run."""
    found = []
    for run in runs:
        position, loss = np.array(run.columns["position"]), np.array(run.columns["loss"])
        found.append(loss[position > min(LATE, 2 * position[-1] / 3)].mean())
    return np.array(found)


def by_position(ax, results, part, names):
    """Loss against position: the mean of the seeds, and their range."""
    for i, name in enumerate(names):
        runs = [run for run in results.select(part) if run.tags["cache"] == name]
        if runs:
            position = np.array(runs[0].columns["position"])
            losses = np.array([run.columns["loss"] for run in runs])
            ax.plot(position, losses.mean(0), label=name, **look(i))
            ax.fill_between(position, losses.min(0), losses.max(0), alpha=0.15, color=look(i)["color"])
    ax.set(xlabel="position", ylabel="loss of a word [nats]")
    ax.set_xlim(left=0)


@album.figure(
    "positions.png",
    caption="Loss by position of a text, far behind the length of training (dotted), mean and range of the streams. "
    "Caches that leave words out keep 64.",
)
def positions_figure(results):
    figure, ax = panels(1, 1, (11, 5.6))
    by_position(ax, results, "a", SHOWN)
    ax.axvline(results.select("a", cache="full")[0].columns["position"][3], color="#333333", ls=":", lw=1.2)
    return below(figure, ax, 4)


@album.figure(
    "attention.png",
    caption="Left: share of attention that goes to the first word and to the first four, by layer, of queries in the "
    "second half of a window (dotted: an even spread over what they see). Right: loss behind 512 words against the "
    "number of first words that stay (points: seeds; bars: mean).",
)
def attention_figure(results):
    figure, (left, right) = panels(1, 2)
    runs = results.select("a", cache="attention")
    layers = np.array(runs[0].columns["layer"])
    for i, (column, text) in enumerate((("first", "the first word"), ("four", "the first four"))):
        shares = 100 * np.array([run.columns[column] for run in runs])
        left.bar(layers + 0.4 * i - 0.2, shares.mean(0), 0.38, color=COLOURS[i], label=text)
    mark(left, 100 / 96, "an even share of one word", 0.02)
    left.set(xlabel="layer", ylabel="share of attention [%]", xticks=layers)
    left.set_ylim(0, 1.3 * left.get_ylim()[1])
    left.legend(loc="upper right", ncols=2)
    names = sorted({r.tags["cache"] for r in results.select("a") if r.tags["cache"].startswith("streaming")},
                   key=lambda name: int(name.split()[1]))  # fmt: skip
    for i, name in enumerate(("window", *names)):
        ends = late(results.select("a", cache=name))
        right.plot([i] * len(ends), ends, "o", ms=6, alpha=0.5, color=COLOURS[0])
        right.plot([i], [ends.mean()], "_", ms=22, mew=2.5, color=COLOURS[0])
    texts = ["window,\nown places", *(name.split()[1] for name in names)]
    right.set_xticks(range(len(texts)), texts)
    right.set(xlabel="first words that stay", ylabel="loss of a word [nats]")
    return figure


@album.figure(
    "codes.png",
    caption="What codes add to the loss, within the length of training (points: streams; bars: mean). Left of 0 a "
    "stream is read better than with the full cache.",
)
def codes_figure(results):
    figure, ax = panels(1, 1, (9, 4.8))
    base = np.array([np.mean(run.columns["loss"]) for run in results.select("k", cache="full")])
    names = list(dict.fromkeys(run.tags["cache"] for run in results.select("k") if run.tags["cache"] != "full"))
    for i, name in enumerate(names):
        more = np.array([np.mean(run.columns["loss"]) for run in results.select("k", cache=name)]) - base
        ax.plot(1e3 * more, [i] * len(more), "o", ms=6, alpha=0.5, color=COLOURS[0])
        ax.plot([1e3 * more.mean()], [i], "|", ms=20, mew=2.5, color=COLOURS[0])
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.axvline(0, color="#888888", lw=1, ls=":")
    ax.set(xlabel="loss above that of the full cache [0.001 nats]")
    return figure


@album.figure(
    "growth.png",
    caption="Bytes of a cache and time of a word, one thread, against the length of the text. Words behind a full "
    "cache are compiled; groups of 16 numbers are not, nor what leaves words out.",
)
def growth_figure(results):
    figure, (left, right) = panels(1, 2)
    for i, run in enumerate(results.select("t")):
        position = run.columns["position"]
        left.plot(position, np.array(run.columns["bytes"]) / 1e3, label=run.tags["cache"], **look(i))
        right.plot(position, 1e3 * np.array(run.columns["step_seconds"]), label=run.tags["cache"], **look(i))
    left.set(xlabel="words", ylabel="kB", xlim=(0, None), ylim=(0, None))
    right.set(xlabel="words", ylabel="ms a word", xlim=(0, None), ylim=(0, None))
    return below(figure, left, 5)


@album.figure("published.png", caption="The same of published weights, on words that they were not trained on.")
def published_figure(results):
    figure, ax = panels(1, 1, (9, 5))
    by_position(ax, results, "w", SHOWN)
    named(ax)
    return figure
