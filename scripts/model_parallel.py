"""What does it cost to train one network on several devices?   Course task B9; GPipe, 1F1B, Megatron-LM, ZeRO.

A small GPT-2 on simulated nodes, one description for all engines (npopt.distributed). Counted are bytes, passes that
are kept, numbers a node; time is that of the simulated clock. Theory says, for p nodes and m micro-batches:

    pipelines (a)     a stage idles for (p-1)/(m+p-1); GPipe keeps m passes, 1F1B min(m, p - stage)
    tensors (b)       four all-reduces of B T D numbers a layer; matrices in p parts, all else on every node
    ZeRO-1 (c)        the same bytes sent and the same bits of x, with K/p bytes of optimizer state a parameter
    links (d)         computed for published links: a step of Megatron-LM's 8.3 billion parameters on 8 devices

Part d is computed, not measured: the clock's links and arithmetic are slowed down by the ratios of bytes and of
operations between the small network and 72 layers of D = 3072, T = 1024, in 16 bits, on A100s at their peak rate.
Nothing overlaps. Latency is 10 us a message, an assumption.

Run time on one core: --quick about 10 seconds; --data real about 3 minutes.
"""

from figures.model_parallel import album
from lab import Entry, Experiment, Part, Recipe
from lab.claims import listed
from lab.links import LINKS, ROW, clock_of, efficiency, theory, under_way
from lab.parallel import by_stage, idle, piped, replicated, sharded
from lab.verdicts import Undecided
from npopt import AdamW, HeavyBall
from npopt.distributed import GPipe, PipeDreamFlush, TensorParallel, ZeRO

import numpy as np

experiment = Experiment(
    __doc__,
    task="B9",
    source="Huang et al., NeurIPS 2019; Narayanan et al., ICML 2021; Shoeybi et al. 2019; Rajbhandari et al., SC 2020",
    parts={
        "a": Part("pipelines", "chain", "tinyshakespeare"),
        "b": Part("tensor parallelism", "chain", "tinyshakespeare"),
        "c": Part("sharded optimizer states", "chain", "tinyshakespeare"),
        "d": Part("published links (computed)", "chain", "tinyshakespeare"),
    },
    seeds=1,
    quick_seeds=1,
    figures=album,
)

PIPES = {"GPipe": GPipe, "1F1B": PipeDreamFlush}
STATES = {"AdamW": AdamW(), "momentum": HeavyBall(0.9)}
BATCH = 32  # of part a


def size_of(args):
    return args.pick(dict(length=32, features=64, layers=8, heads=8), dict(length=8, features=16, layers=4, heads=4))


# ------------------------------------------------------------------------------------------------------------- grid
def links(data, size, nodes, parameters):
    """(how, link, recipe) of part d: each small message takes the time of the large one that it stands for."""
    same = dict(data=data, size=size)
    for link in LINKS:
        clock = clock_of("tensors", link, size, parameters)
        ring = TensorParallel(1.0, 2, ring=True)
        yield "tensors", link, Recipe(sharded, method=ring, ranks=nodes, clock=clock, **same)
        clock = clock_of("pipeline", link, size, parameters)
        for name, kind in PIPES.items():
            for micro in (4 * nodes, 8 * nodes):
                run = Recipe(piped, method=kind(1.0, micro, micro), stages=nodes, clock=clock, **same)
                yield f"{name}, m = {micro}", link, run
        clock = clock_of("ZeRO", link, size, parameters)
        sharing, plain = (ZeRO(1e-3, AdamW(), 1, yes) for yes in (True, False))
        both = dict(method=sharing, plain=plain, nodes=nodes, rounds=1)
        yield "ZeRO", link, Recipe(replicated, clock=clock, **both, **same)


def count(size, words):
    """Parameters of the small GPT-2."""
    t, d = size["length"], size["features"]
    return 2 * words * d + t * d + size["layers"] * (12 * d * d + 13 * d) + 2 * d


WORDS = {"chain": 200, "tinyshakespeare": 65}


@experiment.runs
def runs(args):
    size, nodes = size_of(args), args.pick(8, 4)
    for data in args.data_of("a"):
        for stages in args.pick((2, 4, 8), (2, 4)):
            for micro in args.pick((1, 2, 4, 8, 16, 32), (1, 8)):
                for name, kind in PIPES.items():
                    for again in (False, True) if stages == 4 else (False,):
                        method = kind(1.0, micro, BATCH, recompute=again)
                        run = Recipe(piped, data=data, size=size, method=method, stages=stages)
                        yield Entry("a", run=run, method=name, stages=stages, micro=micro, again=again)
    for data in args.data_of("b"):
        for ranks in args.pick((1, 2, 4, 8), (1, 2, 4)):
            run = Recipe(sharded, data=data, size=size, method=TensorParallel(1.0, 8), ranks=ranks)
            yield Entry("b", run=run, ranks=ranks)
    for data in args.data_of("c"):
        for name, optimizer in STATES.items():
            for ranks in args.pick((1, 2, 4, 8, 16), (1, 4)):
                both = dict(method=ZeRO(1e-2, optimizer, 4), plain=ZeRO(1e-2, optimizer, 4, sharded=False))
                run = Recipe(replicated, data=data, size=size, nodes=ranks, rounds=args.pick(20, 3), **both)
                yield Entry("c", run=run, method=name, ranks=ranks)
    for data in args.data_of("d"):
        for how, link, run in links(data, size, nodes, count(size, WORDS[data])):
            yield Entry("d", run=run, how=how, link=link, nodes=nodes)


# ----------------------------------------------------------------------------------------------------------- claims
def worst(found):
    """The name and the size of the largest of {name: number}."""
    name = max(found, key=found.get)
    return f"at most {found[name]:.2g} ({name})", found[name]


@experiment.claim(
    "a-serial",
    "the step of a pipeline is that of the whole network",
    expected="every part of every run: at most 1e-10 of the longest move of a number (float64)",
    source="definitions",
)
def a_serial(results):
    text, most = worst({f"{r.tags['method']}, p = {r.tags['stages']}, m = {r.tags['micro']}": r.final["apart"] for r in
                        results.select("a")})  # fmt: skip
    return text, bool(most <= 1e-10)


@experiment.claim(
    "a-bubble",
    "every stage of both schedules idles for (p-1)/(m+p-1)",
    expected="measured on the clock, without delays: within 1e-9",
    source="Huang et al. 2019, section 2.3; Narayanan et al. 2021",
)
def a_bubble(results):
    runs = results.select("a")
    off = {}
    for run in runs:
        p, m = run.tags["stages"], run.tags["micro"]
        off[f"p = {p}, m = {m}"] = float(np.abs(idle(run) - (p - 1) / (m + p - 1)).max())
    most = {f"p = {p}": f"{idle(runs.select(stages=p, micro=some[0].tags['micro'])[0]).max():.3f}" for p, some in
            runs.groups("stages")}  # fmt: skip
    return f"{worst(off)[0]}; idle with the fewest micro-batches: {listed(most)}", bool(max(off.values()) <= 1e-9)


@experiment.claim(
    "a-passes",
    "GPipe keeps m passes, 1F1B min(m, p - stage)",
    expected="exactly, on every stage",
    source="Narayanan et al. 2021, section 3.2",
)
def a_passes(results):
    wrong, runs = 0, results.select("a", again=False)
    for run in runs:
        p, m = int(run.tags["stages"]), int(run.tags["micro"])
        wanted = [m if run.tags["method"] == "GPipe" else min(m, p - s) for s in range(p)]
        wrong += int((by_stage(run, "passes") != wanted).sum())
    return f"{wrong} stages of {len(runs)} runs differ", wrong == 0


@experiment.claim(
    "a-memory",
    "with as many bytes a pass as GPipe, 1F1B's first stage keeps min(m, p)/m of GPipe's bytes",
    expected="the ratio within 2 %",
    source="counted from what layers keep",
)
def a_memory(results):
    off, shown = {}, {}
    for (p, m), runs in results.select("a", again=False).groups("stages", "micro"):
        kept = {run.tags["method"]: by_stage(run, "kept")[0] for run in runs}
        ratio = kept["1F1B"] / kept["GPipe"]
        off[f"p = {p}, m = {m}"] = abs(ratio / (min(m, p) / m) - 1)
        shown[f"p = {p}, m = {m}"] = f"{ratio:.3f}"
    last = list(shown)[-1]
    return f"{worst(off)[0]}; {last}: {shown[last]}", bool(max(off.values()) <= 0.02)


@experiment.claim(
    "a-again",
    "recomputation makes a step a third longer and leaves one pass and the inputs of the others",
    expected="time exactly 4/3; bytes of stage 1: those of one pass and of m - 1 inputs (1F1B: p - 2), within 2 %",
    source="Huang et al. 2019, section 2.3: O(N + L/K N/M)",
)
def a_again(results, args):
    size, times, off = size_of(args), {}, {}
    for (name, m), runs in results.select("a", stages=4).groups("method", "micro"):
        plain, again = runs.select(again=False)[0], runs.select(again=True)[0]
        alive = m if name == "GPipe" else min(m, 3)
        one = by_stage(plain, "kept")[1] / alive
        inputs = (alive - 1) * BATCH // m * size["length"] * size["features"] * 8
        key = f"{name}, m = {m}"
        times[key] = abs(again.final["time"] / plain.final["time"] - 4 / 3)
        off[key] = abs(by_stage(again, "kept")[1] / (one + inputs) - 1)
    fine = max(times.values()) <= 1e-9 and max(off.values()) <= 0.02
    return f"time: {worst(times)[0]}; bytes: {worst(off)[0]}", bool(fine)


@experiment.claim(
    "b-serial",
    "the tensor-parallel step is that of the whole network",
    expected="at most 1e-10 of the longest move of a number (float64)",
    source="Shoeybi et al. 2019, section 3",
)
def b_serial(results):
    text, most = worst({f"N = {run.tags['ranks']}": run.final["apart"] for run in results.select("b")})
    return text, bool(most <= 1e-10)


@experiment.claim(
    "b-bytes",
    "a layer sends four all-reduces of B T D numbers",
    expected="all nodes together: 4 * 2 (N - 1) * 8 B T D bytes a layer, exactly",
    source="Shoeybi et al. 2019, Figure 4",
)
def b_bytes(results, args):
    size, found = size_of(args), {}
    for run in results.select("b"):
        each = 4 * 2 * (run.tags["ranks"] - 1) * 8 * 8 * size["length"] * size["features"] * size["layers"]
        found[f"N = {run.tags['ranks']}"] = (run.final["bytes"], each)
    return listed({n: f"{a / 1e6:.3f} MB" for n, (a, _) in found.items()}), all(a == b for a, b in found.values())


@experiment.claim(
    "b-numbers",
    "matrices are shared out, norms and tables are not, and activations only in part",
    expected="parameters: 12 D^2 + 7 D of a layer in N parts, exactly (rank 0: and 2 D biases); kept bytes: a + b/N, "
    "from N = 1 and 2, within 2 % for larger N",
    source="Shoeybi et al. 2019; Korthikanti et al. 2022, section 4.1",
)
def b_numbers(results, args):
    size, runs = size_of(args), {run.tags["ranks"]: run.final for run in results.select("b")}
    d, layers = size["features"], size["layers"]
    cut = layers * (12 * d * d + 7 * d)
    exact = all(f["numbers"] == runs[1]["numbers"] - cut + cut / n for n, f in runs.items())
    slope = 2 * (runs[1]["kept"] - runs[2]["kept"])
    off = {f"N = {n}": abs((runs[1]["kept"] - slope + slope / n) / f["kept"] - 1) for n, f in runs.items() if n > 2}
    share = {f"N = {n}": f"{f['numbers'] / runs[1]['numbers']:.3f} and {f['kept'] / runs[1]['kept']:.3f}" for n, f in
             runs.items() if n > 1}  # fmt: skip
    text = f"{listed(share)} of parameters and of kept bytes; {worst(off)[0]}"
    return text, bool(exact and max(off.values()) <= 0.02)


@experiment.claim(
    "c-bits",
    "ZeRO-1 trains to the bits of data-parallel training",
    expected="no number of x differs on any node after all rounds",
    source="Rajbhandari et al. 2020, section 5.1",
)
def c_bits(results):
    found = {f"{r.tags['method']}, N = {r.tags['ranks']}": int(r.final["differing"]) for r in results.select("c")}
    return f"{max(found.values())} of {int(results.select('c')[0].final['parameters'])} numbers", not any(
        found.values()
    )


@experiment.claim(
    "c-bytes",
    "a node sends what it sends in data-parallel training",
    expected="2 (N - 1)/N * 4 bytes a parameter, exactly, as a mean over nodes",
    source="Rajbhandari et al. 2020, section 7.2.1",
)
def c_bytes(results):
    found = {f"N = {r.tags['ranks']}": (r.final["bytes"] / r.final["parameters"], 8 * (1 - 1 / r.tags["ranks"])) for r
             in results.select("c", method="AdamW")}  # fmt: skip
    fine = all(abs(a - b) < 1e-9 for a, b in found.values())
    return listed({n: f"{a:.2f} bytes a parameter" for n, (a, _) in found.items()}), fine


@experiment.claim(
    "c-state",
    "a node keeps K/N bytes of state a parameter",
    expected="K = 8 (AdamW), 4 (momentum): within 1 %; in all 4 + 4 + K/N in float32",
    source="Rajbhandari et al. 2020, section 5.1, with K of float32",
)
def c_state(results):
    off, shown = {}, {}
    for run in results.select("c"):
        K, n = {"AdamW": 8, "momentum": 4}[run.tags["method"]], run.tags["ranks"]
        found = run.final["state"] / run.final["parameters"]
        off[f"{run.tags['method']}, N = {n}"] = abs(found / (K / n) - 1)
        if K == 8:
            shown[f"N = {n}"] = f"{8 + found:.2f}"
    return f"{worst(off)[0]}; AdamW, bytes a parameter in all: {listed(shown)}", bool(max(off.values()) <= 0.01)


@experiment.claim(
    "d-clock",
    "the simulated clock takes the time of the formulas",
    expected="rings of 2 (N-1) messages of 1/N; GPipe (m+p-1)(f+b) + 2 (p-1) c, c a message's time: within 1 %",
    source="definitions",
)
def d_clock(results):
    off = {}
    for run in results.select("d"):
        wanted = theory(run.tags["how"], run.tags["nodes"], LINKS[run.tags["link"]])
        if wanted is not None:
            off[f"{run.tags['how']}, {run.tags['link']}"] = abs(run.final["time"] / wanted - 1)
    return worst(off)[0], bool(max(off.values()) <= 0.01)


@experiment.claim(
    "d-period",
    "1F1B waits for its messages at every turn: f + b + 2 c (p-1)/p a micro-batch",
    expected="what each micro-batch beyond 4 p takes longer (m = 8 p against 4 p): within 2 %, all links",
    source="a loop of p passes in 2 p (f+b) / 2 + 2 (p-1) c seconds; the papers leave c out",
)
def d_period(results):
    off = {}
    for link, runs in results.select("d", how=lambda how: how.startswith("1F1B")).groups("link"):
        nodes, (few, many) = runs[0].tags["nodes"], sorted(run.final["time"] for run in runs)
        period = (many - few) / (4 * nodes)
        c = under_way(LINKS[link])
        off[link] = abs(period / (ROW / nodes + 2 * c * (nodes - 1) / nodes) - 1)
    return listed({link: f"{100 * v:.2g} %" for link, v in off.items()}), bool(max(off.values()) <= 0.02)


@experiment.claim(
    "d-where",
    "tensors belong into a machine, pipelines may leave it",
    expected="8 nodes, computed: tensors above 1/2 on NVLink, and slower than one device on Ethernet of 100 Gb/s; "
    "GPipe loses at most 2 points there",
    source="bytes over published links; Narayanan et al., SC 2021, section 3",
)
def d_where(results, args):
    if args.quick:
        raise Undecided("--quick has 4 nodes")
    runs = results.select("d")
    found = {(r.tags["how"], r.tags["link"]): efficiency(r.tags["how"], 8, r.final["time"]) for r in runs}
    fast, slow = found["tensors", "NVLink 3"], found["tensors", "Ethernet 100 Gb/s"]
    lost = found["GPipe, m = 32", "NVLink 3"] - found["GPipe, m = 32", "Ethernet 100 Gb/s"]
    text = f"{fast:.2f} and {slow:.3f} (one of 8: 0.125); GPipe loses {100 * lost:.2g} points"
    return text, bool(fast > 1 / 2 and slow < 1 / 8 and lost <= 0.02)


if __name__ == "__main__":
    experiment.main()
