"""What does a training step need of memory, by kind, and what does each method of little memory save?   Course task B2.

One small Llama on text, one batch, every method: weights, gradients, states, activations and workspace in bytes,
counted from arrays, and measured by what the allocators lend out (lab/account.py, `npopt run NAME --memory`). Beside
AdamW in float32, 16 bytes a parameter and the activations: gradients in pieces; states in 8 and 4 bits; Adam-mini;
blocks (BAdam, LISA); subspaces (GaLore, Flora); adapters (LoRA, SLTrain); activations of two bytes; momentum, SGD, and
MeZO without a way back. Counted and measured are to agree within 5 % of the highest point.

Which part is large depends on the batch: activations grow with it, all else does not. Part b has the same account of
AdamW and MeZO over batch sizes.

Run time on one core: --quick about 10 seconds; --data real --jobs 1 --threads 1 about a minute.
"""

from figures.memory_account import album
from lab import Entry, Experiment, Part, Recipe
from lab.account import KINDS, account_of
from lab.claims import listed
from lab.verdicts import Undecided
from nn.adapters import LoRA, free
from nn.low_rank import SLTrain
from npopt import (
    SGD,
    AdamMini,
    AdamW,
    BlockGradient,
    Blockwise,
    Flora,
    GaLore,
    HeavyBall,
    Layerwise,
    MeZO,
    Quantised,
    RandomReshuffling,
)
from problems.language import llama

import numpy as np

experiment = Experiment(
    __doc__,
    task="B2",
    source="Zhao et al., ICML 2024; Luo et al., NeurIPS 2024; Dettmers et al., ICLR 2022; Malladi et al., NeurIPS 2023",
    parts={
        "a": Part("every method on one batch", "chain", "tinyshakespeare"),
        "b": Part("batch sizes", "chain", "tinyshakespeare"),
    },
    seeds=1,
    quick_seeds=1,
    figures=album,
)

OUTER = ["embed", "norm"]
RANK = 16


# ---------------------------------------------------------------------------------------------------- own functions
def layers_of(size):
    return [f"layer{i}" for i in range(1, size["layers"] + 1)]


def block(size, which):
    """BAdam with one layer at hand."""
    never = [*OUTER, *(name for name in layers_of(size) if name != which)]
    return BlockGradient(100, "ascending", never=never)


def methods(size):
    """{name: (optimizer, estimator, what differs in the network)}"""
    low, high = layers_of(size)[0], layers_of(size)[-1]
    return {
        "AdamW": (AdamW(), None, {}),
        "AdamW, layerwise": (AdamW(), Layerwise(), {}),
        "AdamW, 8 bits": (Quantised(AdamW()), None, {}),
        "AdamW, 8 bits, layerwise": (Quantised(AdamW()), Layerwise(), {}),
        "AdamW, 4 bits": (Quantised(AdamW(), block=128, bits=4), None, {}),
        "Adam-mini": (AdamMini(heads=size["heads"]), None, {}),
        "AdamW, float16": (AdamW(), None, {"compute": "float16"}),
        "LISA, one layer": (Blockwise(AdamW()), BlockGradient(100, "uniform", 1, OUTER), {}),
        "BAdam, lowest layer": (Blockwise(AdamW()), block(size, low), {}),
        "BAdam, highest layer": (Blockwise(AdamW()), block(size, high), {}),
        "GaLore": (GaLore(RANK), None, {}),
        "GaLore, layerwise": (GaLore(RANK), Layerwise(), {}),
        "Flora": (Flora(RANK), None, {}),
        "LoRA": (AdamW(), None, {"adapters": LoRA, "options": (("rank", RANK),)}),
        "SLTrain": (AdamW(), None, {"adapters": SLTrain, "options": (("rank", RANK), ("density", 0.1))}),
        "momentum": (HeavyBall(0.9), None, {}),
        "SGD, layerwise": (SGD(), Layerwise(), {}),
        "MeZO": (SGD(), MeZO(), {}),
    }


def built(data, adapters=None, **more):
    """The problem; with LoRA in its adapters, table and norms alone."""
    problem = llama(data, adapters=adapters, **more)
    if adapters is not LoRA:
        return problem
    return problem.restrict(problem.x0(np.random.default_rng(0)), free(problem.network))


def accounted(seed, events, optimizer, estimator, batch, **options):
    """Bytes by kind of a step: "counted weights", "measured weights", ..."""
    found = account_of(lambda: built(**options), optimizer, RandomReshuffling(batch), estimator, 1e-4, seed)
    measured = {f"measured {kind}": [count] for kind, count in found.measured.items()}
    return measured | {f"counted {k}": [np.nan if v is None else v] for k, v in found.counted.items()}


def size_of(args):
    return args.pick(dict(length=128, features=256, layers=4, heads=4), dict(length=32, features=64, layers=2, heads=2))


# ------------------------------------------------------------------------------------------------------------- grid
@experiment.runs
def runs(args):
    size = size_of(args)
    for data in args.data_of("a"):
        known = methods(size)
        for name in args.pick(known, ("AdamW", "AdamW, layerwise", "AdamW, 8 bits", "GaLore, layerwise", "MeZO")):
            optimizer, estimator, other = known[name]
            run = Recipe(accounted, data=data, optimizer=optimizer, estimator=estimator, batch=16, **size, **other)
            yield Entry("a", run=run, method=name)
    for data in args.data_of("b"):
        for batch in args.pick((1, 4, 16, 64), (1, 4)):
            for name in ("AdamW", "MeZO"):
                optimizer, estimator, _ = methods(size)[name]
                run = Recipe(accounted, data=data, optimizer=optimizer, estimator=estimator, batch=batch, **size)
                yield Entry("b", run=run, method=name, batch=batch)


# ----------------------------------------------------------------------------------------------------------- claims
def top(run):
    """The highest point of a step."""
    return sum(run.final[f"measured {kind}"] for kind in KINDS)


def tops(results):
    return {run.tags["method"]: top(run) for run in results.select("a")}


@experiment.claim(
    "a-counted",
    "what is counted is what is measured",
    expected="weights, gradients, states and activations of every method, each within 5 % of the highest point",
    source="definitions",
)
def a_counted(results):
    worst = {}
    for run in results:
        for kind in KINDS[:-1]:
            apart = abs(run.final[f"measured {kind}"] - run.final[f"counted {kind}"]) / top(run)
            worst[f"{run.tags['method']}, {kind}"] = apart
    name = max(worst, key=worst.get)
    return f"farthest {name}: {100 * worst[name]:.2g} %", bool(worst[name] <= 0.05)


@experiment.claim(
    "a-states",
    "states are what their papers say",
    expected="bytes a parameter: AdamW 8; 8 bits at most 2.1, 4 bits 1.2, Adam-mini 4.2 (counted)",
    source="Dettmers et al. 2022; Zhang et al. 2024",
)
def a_states(results, args):
    if args.quick:
        raise Undecided("--quick has small matrices, which stay in 32 bits")
    runs = results.select("a")
    found = {run.tags["method"]: 4 * run.final["counted states"] / run.final["counted weights"] for run in runs}
    bounds = {"AdamW": 8.001, "AdamW, 8 bits": 2.1, "AdamW, 4 bits": 1.2, "Adam-mini": 4.2}
    return listed({m: f"{found[m]:.2f}" for m in bounds}), all(found[m] <= bound for m, bound in bounds.items())


@experiment.claim(
    "a-order",
    "of methods that move all weights GaLore in pieces needs least, of all MeZO",
    expected="the highest points: MeZO below every other; GaLore, layerwise, below AdamW, layerwise",
    source="Malladi et al. 2023, Figure 3; Zhao et al. 2024, Figure 1",
)
def a_order(results):
    found = tops(results)
    least = min(found, key=found.get)
    fine = least == "MeZO" and found["GaLore, layerwise"] < found["AdamW, layerwise"]
    return listed({m: f"{v / 1e6:.1f} MB" for m, v in found.items()}), bool(fine)


@experiment.claim(
    "b-batch",
    "activations alone grow with the batch",
    expected="AdamW's other kinds at most 5 % larger at the largest batch than at the smallest, of the highest point",
    source="definitions",
)
def b_batch(results):
    runs = sorted(results.select("b", method="AdamW"), key=lambda run: run.tags["batch"])
    first, last = runs[0].final, runs[-1].final
    more = sum(last[f"measured {kind}"] - first[f"measured {kind}"] for kind in KINDS[:3]) / top(runs[-1])
    grown = last["measured activations"] / first["measured activations"]
    return f"activations {grown:.1f} times, others {100 * more:.2g} % more", bool(abs(more) <= 0.05)


if __name__ == "__main__":
    experiment.main()
