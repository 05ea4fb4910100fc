"""What do batch statistics and skips do to the loss between and around networks?   Course book, chapter 4.

Lines between two networks: from an early epoch to the end of a run the loss should fall all the way (Goodfellow et al.
2015); between the ends of two runs a barrier should stand (Frankle et al. 2020). With batch normalisation the running
statistics of one end are wrong everywhere else on the line. Mixed as the weights are they should be less wrong, and
statistics of the rows themselves, taken anew at each point, right: part of a barrier is that of the statistics alone
(Jordan et al. 2023). The same along random directions: with running statistics they must look steeper.

Residual networks of width 8 with and without skips on pictures of half size, 20 and 44 layers: without skips the
surface of the deep one should be rougher, with more basins, and training should end higher (Li et al. 2018, figure 5,
on 56 layers, 300 epochs). Roughness is the share that Haar's finest diagonal details, which no plane has, take of the
variance of the logarithm of the loss.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about 4 minutes.
"""

from figures.loss_surface_networks import album
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, on_every, spreads
from lab.sections import between, lasting, residual_surface, surface_of, with_package
from lab.verdicts import lower, together, within
from npopt.analysis import barrier, wavelets

import numpy as np

experiment = Experiment(
    __doc__,
    task="C.3",
    source="course book, chapter 4; Li et al., NeurIPS 2018, arXiv:1712.09913",
    parts={
        "i": Part("lines between networks, with and without batch norm", "digits", "fashion-mnist"),
        "r": Part("residual networks with and without skips", "digits", "cifar-10-jpeg"),
    },
    seeds=5,
    figures=album,
)

DEPTHS = (3, 7)  # blocks a stage: 20 and 44 layers


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    net = dict(rows=args.pick(10_000, 300), test_rows=args.pick(1000, 100), hidden=args.pick((128, 56), (16,)))
    some = dict(lr=0.03, epochs=args.pick(10, 2), batch=args.pick(128, 32), look=args.pick(1000, 100))
    for data in args.data_of("i"):
        for norm in (None, "batch"):
            more = some | dict(problem=net | dict(norm=norm), data=data, points=args.pick(61, 13))
            yield Entry("i", run=Recipe(between, **more), norm=norm or "none")
    for data in args.data_of("r"):
        yield from deep(args, data)


def deep(args, data):
    """The deep networks with three seeds, the others, for the figures, with one."""
    for blocks in args.pick(DEPTHS, (1,)):
        for skip in (True, False):
            net = dict(width=args.pick(8, 2), blocks=blocks, skip=skip, rows=args.pick(4000, 60), l2=5e-4)
            net |= dict(test_rows=args.pick(1000, 40), halves=data.startswith("cifar"))
            some = dict(lr=0.1, epochs=args.budget(5, 1), batch=args.pick(128, 16), look=args.pick(64, 16))
            some |= dict(side=args.pick(21, 7), points=args.pick(41, 5))
            run = Recipe(residual_surface, data=data, problem=net, **some)
            seeds = args.seeds[: 1 if blocks < max(DEPTHS) and not args.quick else 3]
            yield Entry("r", run=run, seeds=seeds, blocks=blocks, skip=skip)


# --------------------------------------------------------------------------------------------- claims: interpolation
def heights(results, norm, line):
    return np.array([barrier(surface_of(run, line)).height for run in results.select("i", norm=norm)])


@experiment.claim(
    "i-along",
    "from epoch 1 to the end of a run the loss falls without a barrier, between two runs there is one",
    expected="at most 0.01 along, at least 0.1 across, with statistics of the rows (95 %)",
    source="Goodfellow et al., ICLR 2015; Frankle et al., ICML 2020",
)
def i_along(results):
    groups = [(f"batch norm: {norm};", norm) for norm in results.select("i").values("norm")]

    def judged(_, norm):
        found = {"along": heights(results, norm, "along"), "across": heights(results, norm, "across rows")}
        return spreads(found), together([within(found["along"], high=0.01), within(found["across"], low=0.1)])

    return on_every(groups, judged)


@experiment.claim(
    "i-statistics",
    "a part of the barrier is that of wrong statistics: mixed ones lower it, those of the rows lower it most",
    expected="both orders (95 %); false where one is the other way",
    source="Jordan et al., ICLR 2023, arXiv:2211.08403",
)
def i_statistics(results):
    running, mixed, rows = (heights(results, "batch", f"across {kind}") for kind in ("running", "mixed", "rows"))
    text = spreads({"of one end": running, "mixed": mixed, "of the rows": rows})
    return decided(text, lower(mixed, running), lower(rows, mixed))


@experiment.claim(
    "i-middle",
    "half way the loss is highest with the statistics of one end, lower with mixed ones, least with those of the rows",
    expected="both orders (95 %); false where one is the other way",
    source="Jordan et al., ICLR 2023. Said after i-statistics was seen: a barrier counts from ends that wrong "
    "statistics raise, too",
)
def i_middle(results):
    found = {}
    for kind in ("running", "mixed", "rows"):
        lines = [surface_of(run, f"across {kind}") for run in results.select("i", norm="batch")]
        found[kind] = np.array([line.loss[np.argmin(np.abs(line.a - 0.5))] for line in lines])
    running, mixed, rows = found.values()
    text = spreads({"of one end": running, "mixed": mixed, "of the rows": rows})
    return decided(text, lower(mixed, running), lower(rows, mixed))


# -------------------------------------------------------------------------------------------------- claims: residual
def roughness(run):
    """The share of the finest diagonal details in the variance of the logarithm of the loss."""
    loss = surface_of(run, "plane").loss
    grid = np.log(loss[: len(loss) // 2 * 2, : len(loss) // 2 * 2])
    diagonal = with_package(wavelets, grid, 1).details[0][2]
    return (diagonal**2).sum() / ((grid - grid.mean()) ** 2).sum()


def compare(results, measure, word, judged):
    """A measure with and without skips, at the greater depth."""
    blocks = max(results.select("r").values("blocks"))
    with_skips, without = (
        np.array([measure(run) for run in results.select("r", blocks=blocks, skip=skip)]) for skip in (True, False)
    )
    text = spreads({f"{word} with skips": with_skips, "without": without})
    return decided(f"{6 * blocks + 2} layers: {text}", judged(with_skips, without))


@experiment.claim(
    "r-rough",
    "without skips the surface of a deep network is rougher",
    expected="Haar's finest diagonal details have a larger share of the variance (95 %); false where smaller",
    source="Li et al., figure 5",
)
def r_rough(results):
    return compare(results, roughness, "share", lower)


@experiment.claim(
    "r-basins",
    "and has more basins",
    expected="that last longer than 1 % of the range of the logarithm (95 %); false where not more",
    source="Li et al., figure 5",
)
def r_basins(results):
    return compare(results, lambda run: lasting(np.log(surface_of(run, "plane").loss)), "basins", lower)


@experiment.claim(
    "r-train",
    "skips train a deep network better",
    expected="training loss lower (95 %); false where higher",
    source="He et al., CVPR 2016; Li et al., table 1",
)
def r_train(results):
    return compare(results, lambda run: run.final["train_loss"], "training loss", lower)


@experiment.claim(
    "r-statistics",
    "with running statistics a random direction looks steeper than with those of each point",
    expected="mean of the loss's logarithm over the line higher, with and without skips (95 %); false where lower",
    source="the statistics are those of the middle alone",
)
def r_statistics(results):
    def judged(_, some):
        one, two = (np.array([np.log(surface_of(run, k).loss).mean() for run in some]) for k in ("rows", "running"))
        return f"{np.exp(two.mean()):.2f} ({np.exp(one.mean()):.2f} with those of each point)", lower(one, two)

    some = results.select("r", blocks=max(results.select("r").values("blocks")))
    return on_every([("with skips" if s else "without", runs) for s, runs in some.groups("skip")], judged)


if __name__ == "__main__":
    experiment.main()
