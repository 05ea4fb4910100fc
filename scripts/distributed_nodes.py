"""What does it cost to learn from rows that may not be moved?   Course task B9; EXTRA 2015, EF21 2021, SCAFFOLD 2020.

Ten nodes have a logistic regression's rows among them, at random or sorted by label. Theory says, for constant rates:

    D-SGD stops at a distance of order lr from the minimum, and only where nodes differ; EXTRA and gradient tracking
    reach the minimum at a linear rate with the same messages (tracking: twice as many numbers)
    top-k gradients alone stop anywhere; with error feedback they stop nearer; EF21 reaches the minimum
    local steps save rounds and move the fixed point; SCAFFOLD moves it back; FedVARP takes out who takes part
    an all-reduce waits for the slowest of n nodes, and for what is lost and sent again

The runs are simulated: rounds and bytes are exact, seconds are those of a clock of 1 ms a message, 12.5 MB/s a link and
1 us a row. Rates are multiples of 1/L, L the largest smoothness of a node. In part h the mixes of classes are drawn
from Dirichlet(alpha K p), p the K classes' parts of all rows. Networks on nodes: node_networks.

    mpiexec -n 4 npopt run distributed_nodes --quick --engine mpi       real ranks, a node each, without the faults
    npopt run distributed_nodes --quick --ranks 4 --threads 1           the same in simulation: the same bits

Run time on one core: --quick about 10 seconds; --data real about half an hour.
"""

from functools import partial

from figures.distributed_nodes import album
from lab import Entry, Experiment, Part, Recipe
from lab.claims import decided, listed
from lab.nodes import trained
from lab.ranks import RANKS
from lab.verdicts import lower, shown, within
from npopt.distributed import (
    DSGD,
    EF21,
    EXTRA,
    QSGD,
    Clock,
    CompressedSGD,
    DataParallel,
    Faults,
    FedAvg,
    FedVARP,
    GradientTracking,
    Scaffold,
    TopK,
    ring,
)

import numpy as np

experiment = Experiment(
    __doc__,
    task="B9",
    source="Shi et al., SIAM J. Optim. 2015; Richtarik et al., NeurIPS 2021; Karimireddy et al., ICML 2020",
    parts={
        "a": Part("neighbours on a ring", ("breast_cancer",), ("a9a", "w8a")),
        "b": Part("short messages to a server", ("breast_cancer",), ("a9a", "w8a")),
        "c": Part("local steps, absent clients and stragglers", ("breast_cancer",), ("a9a",)),
        "h": Part("from nodes of one class to nodes alike", ("breast_cancer",), ("a9a",)),
    },
    options=[RANKS],
    figures=album,
    seeds=5,
)

NODES, L2 = 10, {"breast_cancer": 0.5, "a9a": 0.05, "w8a": 0.05}
CLOCK = Clock(latency=1e-3, bandwidth=12.5e6, row_seconds=1e-6)
SLOW = Clock(latency=1e-3, bandwidth=12.5e6, row_seconds=1e-5, stragglers=0.1, slowdown=20.0)
PATIENCE = {"waits 10 ms": 0.01, "waits 100 ms": 0.1}  # 5 ms a round without stragglers, 53 ms with one
KEPT = (3, 12)  # numbers of top-k, of 30 (breast_cancer), 123 (a9a) or 300 (w8a)
RATES = (0.25, 1.0)  # times 1/L, part b
EVEN = Clock(latency=1e-3, bandwidth=12.5e6, row_seconds=1e-5)
WAITS = {  # what an all-reduce waits for, part c
    "nobody": dict(clock=EVEN),
    "stragglers": dict(clock=SLOW),
    "lost messages": dict(clock=EVEN, faults=Faults(loss=0.05)),
}
ALPHAS = (0.1, 0.3, 1.0, 10.0)
SPREAD = {  # part h: method, scale, rounds in hundreds, arguments
    "D-SGD": (DSGD, 0.5, 10, dict(graph=ring)),
    "EXTRA": (EXTRA, 0.5, 10, dict(graph=ring)),
    "EF21, top-12": (EF21, 0.25, 10, dict(compressor=TopK(12))),
    "FedAvg, 5 steps": (FedAvg, 0.5, 4, dict(steps=5)),
    "SCAFFOLD, 5 steps": (Scaffold, 0.5, 4, dict(steps=5)),
}
AT_HOME = {1: "FedAvg, 1 step", 5: "FedAvg, 5 steps", 20: "FedAvg, 20 steps"}
ONE = [1]  # the seed of runs without draws


# ------------------------------------------------------------------------------------------------------------- grid
def entry(args, part, name, method, scale, rounds, *, data, split, graph=None, clock=CLOCK, faults=None, seeds=None,
          **given):  # fmt: skip
    """One line of the grid. With --ranks each rank is a node, and a server takes one of them."""
    nodes = NODES if args.ranks is None else args.ranks - int(method.federated)
    some = dict(data=data, nodes=nodes, split=split, l2=L2[data], method=method, scale=scale, given=given)
    more = dict(rounds=rounds, every=max(1, rounds // args.pick(100, 25)), graph=graph, clock=clock, faults=faults)
    run = Recipe(trained, **some, **more)
    return Entry(part, run=run, seeds=seeds, data=data, split=split, method=name, scale=scale)


@experiment.runs
def runs(args):
    add, far, near = partial(entry, args), args.pick(4000, 150), args.pick(2000, 100)
    for data in args.data_of("a"):
        for split in ("random", "label"):
            same = dict(data=data, split=split, graph=ring, seeds=ONE)
            for scale in (0.5, 0.25):
                yield add("a", "D-SGD", DSGD, scale, far, **same)
            yield add("a", "EXTRA", EXTRA, 0.5, far, **same)
            yield add("a", "tracking", GradientTracking, 0.2, far, **same)
    for data in args.data_of("b"):
        same = dict(data=data, split="label")
        for scale in RATES:
            yield add("b", "all numbers", DataParallel, scale, near, seeds=ONE, **same)
            for k in KEPT:
                top = dict(compressor=TopK(k), seeds=ONE, **same)
                yield add("b", f"top-{k} alone", CompressedSGD, scale, near, feedback=False, **top)
                yield add("b", f"top-{k} with memory", CompressedSGD, scale, near, **top)
                yield add("b", f"EF21, top-{k}", EF21, scale, near, **top)
        yield add("b", "QSGD", CompressedSGD, 0.25, near, compressor=QSGD(4), feedback=False, **same)
    for data in args.data_of("c"):
        yield from away(args, add, data)
    for data in args.data_of("h"):
        for alpha in args.pick(ALPHAS, (0.1, 10.0)):
            for name, (method, scale, rounds, given) in SPREAD.items():
                rounds *= args.pick(100, 5)
                yield add("h", name, method, scale, rounds, data=data, split=alpha, seeds=args.seeds[:3], **given)


def away(args, add, data):
    """Part c. Ranks of MPI lose nothing, and have no clock: there only the first half is run."""
    same, few, far = dict(data=data, split="label"), args.pick(2000, 40), args.pick(4000, 150)
    for steps in AT_HOME:
        yield add("c", AT_HOME[steps], FedAvg, 0.5, few, steps=steps, seeds=ONE, **same)
    yield add("c", "SCAFFOLD, 5 steps", Scaffold, 0.5, few, steps=5, seeds=ONE, **same)
    for name, method in (("FedAvg, 3 of 10", FedAvg), ("FedVARP, 3 of 10", FedVARP), ("SCAFFOLD, 3 of 10", Scaffold)):
        yield add("c", name, method, 0.3, far, steps=1, share=0.3, **same)
    if args.engine == "mpi":
        return
    more = dict(clock=SLOW, faults=Faults(away=0.05), steps=5, batch=50, data=data, split="random")
    for name, patience in PATIENCE.items():
        yield add("c", name, FedAvg, 0.5, few, patience=patience, **more)
    for name, given in WAITS.items():
        yield add("c", f"all-reduce, {name}", DataParallel, 0.5, few, batch=50, data=data, split="random", **given)


# ----------------------------------------------------------------------------------------------------------- claims
def error(results, part, **tags):
    """The last errors, one a run."""
    return results.select(part, **tags).final("error")


def claim(id, statement, **about):
    """A claim about the data sets of a part, the first letter of its id: judged(runs, args), the runs of one set, gives
    (text, verdicts)."""

    def add(judged):
        def over_all(results, args):
            found = {data: judged(runs, args) for data, runs in results.select(id[0]).groups("data")}
            verdicts = [verdict for _, some in found.values() for verdict in some]
            return decided(listed({data: text for data, (text, _) in found.items()}), *verdicts)

        return experiment.claim(id, statement, **about)(over_all)

    return add


@claim(
    "a-exact",
    "EXTRA and gradient tracking pass the point where D-SGD stops, with rows sorted by label",
    expected="last error of both below 1/100 of D-SGD's at the rate 0.5/L",
    source="linear convergence: Shi et al., section 3; Nedic et al.",
)
def exact(runs, args):
    stop = error(runs, "a", split="label", method="D-SGD", scale=0.5)[0]
    ends = {name: error(runs, "a", split="label", method=name)[0] for name in ("EXTRA", "tracking")}
    text = listed({"D-SGD": f"{stop:.2g}"} | {name: f"{end:.2g}" for name, end in ends.items()})
    return text, [bool(end < stop / 100) for end in ends.values()]


@claim(
    "a-order",
    "half the rate halves the distance at which D-SGD stops",
    expected="ratio of the last errors at 0.5/L and 0.25/L within 1.5 to 2.2, rows by label",
    source="its fixed point is the minimum of sum f_i + x'(I - W)x / (2 lr)",
)
def order(runs, args):
    far, near = (error(runs, "a", split="label", method="D-SGD", scale=s)[0] for s in (0.5, 0.25))
    return f"{far / near:.2f}", [bool(1.5 <= far / near <= 2.2)]


@claim(
    "a-alike",
    "D-SGD's bias is that of nodes that differ",
    expected="with rows at random it stops at most 1/3 as far away as with rows by label, rate 0.5/L",
)
def alike(runs, args):
    ends = {s: error(runs, "a", split=s, method="D-SGD", scale=0.5)[0] for s in ("random", "label")}
    return listed({s: f"{e:.2g}" for s, e in ends.items()}), [bool(ends["random"] <= ends["label"] / 3)]


@claim(
    "b-ef21",
    "EF21 goes on where top-k alone stops",
    expected="k = 3 and 12, rate 0.25/L: its last error below 1/10 of that of top-k alone",
    source="Richtarik et al., Theorem 2",
)
def ef21(runs, args):
    pairs = {}
    for k in KEPT:
        names = (f"EF21, top-{k}", f"top-{k} alone")
        pairs[k] = [error(runs, "b", method=name, scale=0.25)[0] for name in names]
    text = listed({f"k = {k}": f"{a:.2g} against {b:.2g}" for k, (a, b) in pairs.items()})
    return text, [bool(a < b / 10) for a, b in pairs.values()]


def bytes_to(run, level):
    """Bytes after which a run's error stays below a level; inf if it does not."""
    above = np.flatnonzero(~(run.columns["error"] < level))
    later = above[-1] + 1 if len(above) else 0
    return run.columns["bytes"][later] if later < run.rows else np.inf


@claim(
    "b-bytes",
    "EF21 needs fewer bytes than gradient descent",
    expected="to the relative error 1e-2, top-12, each at the better of both rates: fewer than gradient descent",
    source="k / d of the numbers, up; x goes down whole",
)
def fewer(runs, args):
    whole = min(bytes_to(run, 1e-2) for run in runs.select("b", method="all numbers"))
    short = min(bytes_to(run, 1e-2) for run in runs.select("b", method="EF21, top-12"))
    return f"{short:.3g} against {whole:.3g} bytes", [bool(short < whole)]


@claim(
    "c-drift",
    "more local steps stop farther away, and SCAFFOLD does not stop there",
    expected="last errors rise from 1 to 5 to 20 steps; SCAFFOLD with 5 below 1/100 of FedAvg with 5",
    source="Karimireddy et al., ICML 2020, sections 3 and 5",
)
def drift(runs, args):
    ends = [error(runs, "c", method=name)[0] for name in AT_HOME.values()]
    other = error(runs, "c", method="SCAFFOLD, 5 steps")[0]
    text = f"{', '.join(f'{e:.2g}' for e in ends)}; SCAFFOLD {other:.2g}"
    return text, [bool(ends[0] < ends[1] < ends[2]), bool(other < ends[1] / 100)]


@claim(
    "c-who",
    "FedVARP is nearer than FedAvg where three of ten clients take part",
    expected="logarithm of the error, mean of the last half, lower (95 %, paired over seeds)",
    source="Jhunjhunwala et al., UAI 2022",
)
def who(runs, args):
    late = [np.log(runs.select("c", method=f"{name}, 3 of 10").late("error")) for name in ("FedVARP", "FedAvg")]
    return f"{shown(np.exp(late[0]))} against {shown(np.exp(late[1]))}", [lower(*late)]


def first_below(run, column, level):
    """A column where the error is first below a level; inf if it never is."""
    below = np.flatnonzero(run.columns["error"] < level)
    return float(run.columns[column][below[0]]) if len(below) else np.inf


@claim(
    "c-all",
    "an all-reduce waits for the slowest node, and a lost message goes again",
    expected="stragglers add 19 (1 - 0.9^nodes) times the 0.5 ms of a gradient to a round, within 10 %; 1 / 0.95 "
    "as many messages, within 2 % (95 %)",
    source="one of n nodes is slow with probability 1 - 0.9^n; a message is sent 1 / (1 - loss) times on average",
)
def all_wait(runs, args):
    plain, slow, lost = (runs.select("c", method=f"all-reduce, {name}") for name in WAITS)
    rounds, seconds = slow.final("round"), slow.final("seconds") - plain.final("seconds")
    times = seconds / rounds / (50 * SLOW.row_seconds)
    predicted, again = 19 * (1 - 0.9 ** (args.ranks or NODES)), lost.final("messages") / plain.final("messages")
    text = f"{shown(times)} times against {predicted:.1f}; {shown(again, digits=4)} against {1 / 0.95:.4f}"
    return text, [within(times / predicted, 0.9, 1.1), within(again * 0.95, 0.98, 1.02)]


@claim(
    "c-patience",
    "a server that waits 10 ms is sooner near the minimum than one that waits for stragglers",
    expected="seconds to the relative error 0.2 at most half (mean over seeds)",
)
def patience(runs, args):
    short, long = (runs.select("c", method=name) for name in PATIENCE)
    seconds = [float(np.mean([first_below(run, "seconds", 0.2) for run in some])) for some in (short, long)]
    ends = [float(np.mean(some.final("error"))) for some in (short, long)]
    text = f"{seconds[0]:.3g} and {seconds[1]:.3g} s (in the end {ends[0]:.2g} and {ends[1]:.2g})"
    return text, [bool(seconds[0] <= seconds[1] / 2)]


@claim(
    "h-bias",
    "how far D-SGD and FedAvg stop is a matter of how nodes differ; EXTRA and SCAFFOLD do not stop there",
    expected="last errors of the first two at alpha 0.1 above those at 10, and above 100 times those of the others "
    "at 0.1 (95 %, paired over seeds, logarithms)",
    source="Karimireddy et al., ICML 2020; Shi et al., 2015",
)
def bias(runs, args):
    def ends(name, alpha):
        return np.log(error(runs, "h", method=name, split=alpha))

    found, verdicts = {}, []
    for name, other in (("D-SGD", "EXTRA"), ("FedAvg, 5 steps", "SCAFFOLD, 5 steps")):
        found[name] = f"{shown(np.exp(ends(name, 0.1)))}, at 10 {shown(np.exp(ends(name, 10.0)))}"
        verdicts += [
            lower(ends(name, 10.0), ends(name, 0.1)),
            lower(ends(other, 0.1) + np.log(100), ends(name, 0.1)),
        ]
    return listed(found), verdicts


if __name__ == "__main__":
    experiment.main()
