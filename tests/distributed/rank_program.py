"""What each rank of tests/distributed/test_ranks.py runs: mpiexec -n 4 python rank_program.py FOLDER HOW."""

import os
import signal
import sys
from pathlib import Path

from npopt.distributed import (
    DSGD,
    EF21,
    EXTRA,
    QSGD,
    CompressedSGD,
    DataParallel,
    FedAvg,
    FedVARP,
    GradientTracking,
    LocalSGD,
    OneBitAdam,
    PowerSGD,
    Scaffold,
    TopK,
    exponential,
    ranks,
    ring,
)
from npopt.distributed.ranks import on_ranks
from npopt.distributed.wire import MPIWires
from problems.quadratic import Quadratic

import numpy as np

ROUNDS, SEED = 7, 4
CASES = {  # name: (algorithm, graph of n nodes)
    "flat": (DataParallel(0.1, batch=2), None),
    "round": (DataParallel(0.1, batch=2, ring=True), None),
    "local": (LocalSGD(0.1, 3, batch=2), None),
    "dsgd": (DSGD(0.1, batch=2), exponential),
    "tracking": (GradientTracking(0.05), exponential),
    "extra": (EXTRA(0.1), ring),
    "fedavg": (FedAvg(0.1, 3, batch=2, share=0.5), None),
    "scaffold": (Scaffold(0.1, 3, batch=2), None),
    "ef21": (EF21(0.1, TopK(2)), None),
    "fedvarp": (FedVARP(0.1, 3, share=0.5), None),
    "adam": (OneBitAdam(0.1, 3), None),
    "power": (PowerSGD(0.1, 1), None),
    "qsgd": (CompressedSGD(0.1, QSGD(3), batch=2), None),
}


def problem(k, dtype=np.float64):
    """The rows of node k."""
    rng = np.random.default_rng(50 + k)
    A = rng.standard_normal((6, 6))
    return Quadratic(A @ A.T / 6 + np.eye(6), rng.standard_normal(6), 3 + k, 0.4, seed=k, dtype=dtype)


def part(name, wires):
    """The History of one case on this rank."""
    algorithm, graph = CASES[name]
    first = int(algorithm.federated)
    own = problem(wires.rank - first) if wires.rank >= first else None
    return on_ranks(algorithm, own, ROUNDS, graph=graph and graph(wires.size), seed=SEED, wires=wires)


def main(folder, how):
    wires = MPIWires()
    if how == "wrong":  # rank 1 has a problem of another size
        on_ranks(EXTRA(0.1), Quadratic(np.ones(6 + (wires.rank == 1))), ROUNDS, graph=ring(wires.size), wires=wires)
    if how == "killed":
        if wires.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        on_ranks(EXTRA(0.1), problem(wires.rank), 10**9, graph=ring(wires.size), wires=wires)
    if how == "slices":
        ranks.SLICED = 1
    for name in CASES:
        run = part(name, wires)
        if wires.rank == 0:
            np.savez(Path(folder) / f"{name}.npz", x=np.array(run.x), **run.columns)


if __name__ == "__main__":
    main(*sys.argv[1:])
