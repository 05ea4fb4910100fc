"""Figures of poems: networks against n-grams, what one changed part does, norms and depth, tones and rhymes."""

from lab import Album
from lab.claims import spread
from lab.figures import MARKERS, curves, fitted, look, mark, panels, plain, reference
from lab.verdicts import interval
from lab.verse import SPELT
from problems.verse import KINDS

import matplotlib
import numpy as np

album = Album()
BASE, PRE = "ReLU (base)", dict(place="pre")
VARIANTS = {  # name: options of the encoder-decoder
    BASE: PRE,
    "GELU": PRE | dict(activation="gelu"),
    "SwiGLU": PRE | dict(activation="swiglu"),
    "post": dict(place="post"),
    "rotary": PRE | dict(positions="rotary"),
    "relative": PRE | dict(positions="relative"),
    "no positions": PRE | dict(positions=None),
    "strided": PRE | dict(pattern=("strided", 3)),
    "untied": PRE | dict(tied=False),
}
PLACES = ("pre", "post")
JUDGED = {
    "form": "right length",
    "level": "level end",
    "opposed": "opposite tones",
    "repeated": "repeats a character",
    "copied": "is a training line",
}


def gap(results, place, verdict):
    """(text, verdict) of test losses without and with a warm-up."""
    some = results.select("w", place=place)
    without, warmed = (some.select(warmup=how).final("test_loss") for how in (False, True))
    return f"{spread(without)} without, {spread(warmed)} with", verdict(without, warmed)


def slopes(results, place):
    """Slope of log norm against log depth, one a seed."""
    runs = results.select("w", place=place, what="gradients")
    return np.array([np.polyfit(np.log(r.columns["layers"]), np.log(r.columns["norm"]), 1)[0] for r in runs])


@album.figure(
    "networks.png",
    caption="Left: perplexity of held-out lower lines by step, each network at its rate; dotted: n-grams of the same "
    "split. Right: what they write at temperature 1, shares of the lines drawn, against the poets' own (ticks).",
)
def networks(results):
    some = results.select("a", stage="chosen").with_column("perplexity", lambda c: np.exp(c["test_loss"]))
    figure, axes = panels(1, 2, size=(13, 5.2))
    curves(axes[0], some, "perplexity", "step", label=lambda tags: tags["method"], logy=True,
           ylabel="test perplexity")  # fmt: skip
    grams = results.select("n")[0].final
    for name, text in (("unigram", "unigrams"), ("bigram", "bigrams"), ("mixture", "n-grams with the upper line")):
        mark(axes[0], grams[name], text, 0.01)
    last = np.concatenate([run.columns["perplexity"][1:] for run in some])
    axes[0].set_ylim(0.9 * last.min(), 1.3 * max(last.max(), grams["unigram"]))
    poets = results.select("p")[0].final
    for i, kind in enumerate(KINDS):
        for y, column in enumerate(JUDGED):
            values = some.select(method=kind).final(column)
            at = y + 0.22 * (i - 1)
            axes[1].plot(values, [at] * len(values), MARKERS[i], color=look(i)["color"], ms=7, mfc="none",
                         label=kind if not y else None)  # fmt: skip
    for y, column in enumerate(JUDGED):
        axes[1].plot([poets[f"poets_{column}"]] * 2, [y - 0.4, y + 0.4], color="#333333", lw=2,
                     label=None if y else "poets")  # fmt: skip
    axes[1].set(xlabel="share of lines, or of places", xlim=(-0.02, 1.02), title="what they write")
    axes[1].set_yticks(range(len(JUDGED)), list(JUDGED.values()))
    axes[1].invert_yaxis()
    axes[1].legend(loc="lower left", bbox_to_anchor=(0.25, 0.02))
    axes[0].set_title("what they expect")
    return figure


@album.figure(
    "variants.png",
    caption="Test loss of the encoder-decoder with one part changed, minus that of the base (norms before the parts, "
    "sinusoids, ReLU, full attention, one table), paired over seeds; bars: 95 % interval. Left of 0 is better.",
)
def variants(results):
    some = results.select("v", stage="chosen")
    base = some.select(method=BASE).final("test_loss")
    figure, ax = panels()
    others = [name for name in VARIANTS if name != BASE and name in some.values("method")]
    for y, name in enumerate(others):
        d = some.select(method=name).final("test_loss") - base
        middle, half = interval(d) if len(d) > 2 and np.isfinite(d).all() else (d.mean(), 0.0)
        ax.errorbar([middle], [y], xerr=[[half], [half]], fmt="o", color=look(0)["color"], capsize=4)
        ax.plot(d, [y] * len(d), ".", color="#888888", ms=5)
    ax.axvline(0, color="#888888", lw=1, ls=":")
    ax.set_yticks(range(len(others)), others)
    ax.invert_yaxis()
    ax.set(xlabel=f"test loss minus the base's {base.mean():.3f} [nats a character]", title="one part changed")
    return figure


@album.figure(
    "depth.png",
    caption="Left: test loss of six and six layers, with a linear warm-up over a tenth of the steps and without. "
    "Right: norm of the gradient of the last feed-forward part's second matrix at the start, against the depth.",
)
def depth(results):
    figure, axes = panels(1, 2, size=(13, 5))
    some = results.select("w", warmup=(True, False))
    curves(axes[0], some, "test_loss", "step", ylabel="test loss [nats a character]",
           label=lambda tags: f"{tags['place']}, {'' if tags['warmup'] else 'no '}warm-up")  # fmt: skip
    axes[0].set_title("six layers each")
    for i, place in enumerate(PLACES):
        runs = results.select("w", place=place, what="gradients")
        norms = np.mean([run.columns["norm"] for run in runs], axis=0)
        fitted(axes[1], runs[0].columns["layers"], norms, i, place, MARKERS[i])
    layers = runs[0].columns["layers"]
    reference(axes[1], (layers[0], layers[-1]), 1.25 * norms.max(), -0.5, at_start=True)
    axes[1].set(xlabel="layers of encoder and decoder each", ylabel="norm of the last gradient", title="at the start",
                xscale="log", yscale="log")  # fmt: skip
    axes[1].set_xticks(layers, [f"{n:g}" for n in layers])
    axes[1].minorticks_off()
    plain(axes[1].yaxis)
    axes[1].legend()
    return figure


@album.figure(
    "rhymes.png",
    caption="Left: pairs of even lines of held-out poems, by the groups of their last characters, which were found in "
    "other poems; a group that holds the name of a level rhyme of the books has it. Right: tones learned, each "
    "character counted as often as it occurs.",
)
def rhymes(results):
    run = results.select("p")[0]
    figure, axes = panels(1, 2, size=(13, 6), gridspec_kw={"width_ratios": (1.15, 1)})
    counts = np.atleast_2d(run.columns["pairs"])[-1]
    groups = round(len(counts) ** 0.5)
    counts = counts.reshape(groups, groups)
    shown = np.where(counts > 0, counts, np.nan)
    norm = matplotlib.colors.LogNorm(1, max(2, np.nanmax(shown)))
    picture = axes[0].imshow(shown, cmap="viridis", norm=norm, interpolation="nearest")
    where = np.atleast_2d(run.columns["names"])[-1].astype(int)
    spelt = {g: ", ".join(name for name, w in zip(SPELT, where, strict=True) if w == g) for g in range(groups)}
    labels = [spelt[g] or "·" for g in range(groups)]
    axes[0].set_xticks(range(groups), labels, rotation=90, fontsize=10)
    axes[0].set_yticks(range(groups), labels, fontsize=10)
    axes[0].grid(False)
    axes[0].set_title(f"{run.final['rhymed']:.1%} of held-out pairs are in one group")
    figure.colorbar(picture, ax=axes[0], label="pairs of lines, in either order", shrink=0.8)
    share = np.atleast_2d(run.columns["tone_shares"])[-1]
    edges = np.linspace(-1, 1, len(share) + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    for i, (side, text) in enumerate(((middle < 0, "oblique"), (middle > 0, "level"))):
        axes[1].bar(middle[side], share[side], edges[1] - edges[0], color=look(i)["color"], label=text)
    axes[1].set(
        xlabel="t", ylabel="share of all characters in the poems", xlim=(-1, 1), title="tones, by the rules alone"
    )
    axes[1].legend()
    return figure
