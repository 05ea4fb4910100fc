"""Runs of model parallelism as recipes: GPT-2's decoder on a text, several nodes in one process.

A `size` is a dict: length T, features D, layers, heads.
"""

from lab.account import bytes_of
from nn import gpt2
from npopt import backend
from npopt.distributed import Clock, simulate
from problems.datasets import shared
from problems.language import windows
from problems.neural import Neural
from problems.parts import Shard, Stage, together

import numpy as np

IDEAL = Clock(latency=0, bandwidth=1e30, row_seconds=1.0)
KINDS = ("forward", "backward", "again")


def decoder(data, size):
    """(network, feed, whole problem) of a text, three functions."""
    text = shared(data)
    make = lambda: gpt2(len(text.words), **size, tied=False)  # noqa: E731
    feed = lambda: windows(text, size["length"], 0)  # noqa: E731
    return make, feed, lambda dtype: Neural(make(), feed(), dtype=dtype)


def apart(seed, problem, parts, shown, method):
    """|x - x'|_max / |x' - x0|_max of one step, x' being that of gradient descent on the whole network."""
    x, g = problem.x0(backend.generator(seed, "start")), backend.empty((problem.dim,), problem.dtype)
    rows = backend.generator(seed, "rows of all", 0).integers(problem.n, size=method.batch)
    problem.set_seed(seed)
    problem.value_and_gradient(x, rows, out=g)
    step = method.lr * g
    return float(backend.to_host(abs(together(parts, shown) - (x - step)).max() / abs(step).max()))


class SeenStage(Stage):
    """A stage that notes (passes, bytes) that are kept."""

    def seen(self, kept):
        found = vars(self).setdefault("noted", [])
        found.append((len(kept), bytes_of(list(kept.values()))))


class SeenShard(Shard):
    """A shard that notes the bytes that are kept."""

    def seen(self, kept):
        self.noted = bytes_of(kept)


def piped(seed, events, *, data, size, method, stages, clock=IDEAL):
    """One step of a pipeline. A row for each pass, stage by stage: stage, kind (a number of KINDS), micro, begin, end;
    passes and kept, the most passes and bytes that the stage keeps at a time. The same in all rows: bytes, sent by all;
    time, in all; apart (see there)."""
    make, feed, whole = decoder(data, size)
    parts = [SeenStage(make(), feed(), stage=k, stages=stages, dtype="float64") for k in range(stages)]
    told = []
    run = simulate(method, parts, 1, seed=seed, clock=clock, watch=lambda *event: told.append(event))
    told.sort(key=lambda event: (event[0], event[2]))
    most = [np.max(part.noted, axis=0) for part in parts]
    rows = [(i, KINDS.index(what), k, begin, end, *most[i]) for i, (what, k), begin, end in told]
    names = ("stage", "kind", "micro", "begin", "end", "passes", "kept")
    columns = {name: [float(v) for v in values] for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    once = {"bytes": run.columns["bytes"][0], "time": run.columns["seconds"][0]}
    once["apart"] = apart(seed, whole("float64"), parts, run.x, method)
    return columns | {name: [float(value)] * len(rows) for name, value in once.items()}


def sharded(seed, events, *, data, size, method, ranks, clock=IDEAL):
    """One tensor-parallel step: bytes and messages sent by all, time, apart; numbers and kept, the parameters and bytes
    for the way back of the rank that has most of them."""
    make, feed, whole = decoder(data, size)
    parts = [SeenShard(make(), feed(), rank=k, ranks=ranks, dtype="float64") for k in range(ranks)]
    run = simulate(method, parts, 1, seed=seed, clock=clock)
    found = {name: run.columns[name][0] for name in ("bytes", "messages")} | {"time": run.columns["seconds"][0]}
    found["apart"] = apart(seed, whole("float64"), parts, run.x, method)
    found |= {"numbers": max(part.dim for part in parts), "kept": max(part.noted for part in parts)}
    return {name: [float(value)] for name, value in found.items()}


def replicated(seed, events, *, data, size, method, plain, nodes, rounds, clock=IDEAL):
    """Data-parallel training by `method` (ZeRO), and by `plain`, to which it is compared.

    differing  numbers of x that differ in any bit, of any node     parameters  of the network
    bytes      sent by a node in a round     state, whole   the most bytes of a node's optimizer; and by `plain`
    time       of a round
    """
    _, _, whole = decoder(data, size)
    runs, told = [], {}

    def watch(rank, what, *_):
        told.setdefault(rank, []).append(what[1])

    for one in (method, plain):
        problems = [whole("float32") for _ in range(nodes)]
        runs.append(simulate(one, problems, rounds, seed=seed, clock=clock, watch=watch))
    most = np.max(list(told.values()), axis=0)
    differing = max(int(backend.to_host((a != b).sum())) for a, b in zip(*(run.x for run in runs), strict=True))
    found = {"differing": differing, "bytes": runs[0].columns["bytes"][-1] / rounds / nodes, "state": most[0]}
    found |= {"whole": most[1], "parameters": len(runs[0].x[0]), "time": runs[0].columns["seconds"][-1] / rounds}
    return {name: [float(value)] for name, value in found.items()}


def by_stage(run, column):
    """A column of `piped` that has one number a stage: (stages,)."""
    return np.array([run.columns[column][run.columns["stage"] == s][0] for s in np.unique(run.columns["stage"])])


def idle(run):
    """The share of the time in which each stage does nothing, (stages,)."""
    took = run.columns["end"] - run.columns["begin"]
    return 1 - np.bincount(run.columns["stage"].astype(int), weights=took) / run.columns["time"][0]
