"""Two runs for ranks, one of which kills rank 1 once: tests/lab/test_engine_mpi.py."""

import os
import signal
from pathlib import Path

from lab import Entry, Experiment, Part, Recipe
from lab.nodes import run_of
from lab.ranks import RANKS
from npopt.distributed import EXTRA, FedAvg, ring
from npopt.errors import UserError
from problems.quadratic import Quadratic

import numpy as np

experiment = Experiment(
    __doc__, parts={"a": Part("runs"), "k": Part("killed"), "e": Part("wrong")}, options=[RANKS], seeds=2, seconds=0.0
)
ROUNDS = 60


def problem(k):
    rng = np.random.default_rng(k)
    A = rng.standard_normal((4, 4))
    return Quadratic(A @ A.T / 4 + np.eye(4), rng.standard_normal(4), 3 + k, 0.4, seed=k)


class Fragile(Quadratic):
    """Rank 1 is killed at its 40th gradient, where the file $KILLED is not there yet."""

    calls = 0

    def value_and_gradient(self, *arguments, **more):
        Fragile.calls += 1
        flag = Path(os.environ["KILLED"])
        if Fragile.calls == 40 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().value_and_gradient(*arguments, **more)


def run(seed, events, *, method, nodes, fragile=False, wires=None):
    def make(k):
        made = problem(k)
        if fragile and wires is not None and wires.rank == 1:
            made.__class__ = Fragile
        return made

    def look(shown):
        if "SEEN" in os.environ:
            with open(os.environ["SEEN"], "a") as file:
                file.write("x")
        return {"first": float(shown[0][0])}

    graph = None if method.federated else ring
    return run_of(method, make, nodes, ROUNDS, events=events, wires=wires, graph=graph, seed=seed, observe=look)


def wrong(seed, events, *, nodes, wires=None):
    if wires is not None and wires.rank == 1:
        raise UserError("no data here")
    return run(seed, events, method=EXTRA(0.1), nodes=nodes, wires=wires)


@experiment.runs
def runs(args):
    count = args.ranks or 3
    yield Entry("a", run=Recipe(run, method=EXTRA(0.1), nodes=count), method="EXTRA")
    yield Entry("a", run=Recipe(run, method=FedAvg(0.1, 2, batch=1, share=0.5), nodes=count - 1), method="FedAvg")
    yield Entry("k", run=Recipe(run, method=EXTRA(0.1), nodes=count, fragile=True), method="killed", seeds=[0])
    yield Entry("e", run=Recipe(wrong, nodes=count), method="wrong", seeds=[0])


@experiment.figure("first.png", caption="Drawn by rank 0 alone.")
def first(results):
    from lab.figures import curves, panels

    figure, ax = panels()
    curves(ax, results, y="first", x="round")
    return figure


if __name__ == "__main__":
    experiment.main()
