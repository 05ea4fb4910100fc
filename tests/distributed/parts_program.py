"""What each rank of tests/distributed/test_parts_on_ranks.py runs: mpiexec -n 4 python parts_program.py FOLDER."""

import sys
from pathlib import Path

from npopt import AdamW, HeavyBall
from npopt.distributed import GPipe, PipeDreamFlush, TensorParallel, ZeRO
from npopt.distributed.ranks import on_ranks
from npopt.distributed.wire import MPIWires

import cut_networks as cut
import numpy as np
import rank_program

ROUNDS = 3
CASES = {  # name: (algorithm, f(number of ranks) -> problems)
    "gpipe": (GPipe(0.2, 3, cut.BATCH, HeavyBall(0.8)), lambda count: cut.stages("gpt2", count)),
    "1f1b": (PipeDreamFlush(0.2, 4, cut.BATCH, recompute=True), lambda count: cut.stages("llama", count)),
    "norms": (GPipe(0.2, 2, 6), lambda count: cut.stages("norms", count)),
    "flat": (TensorParallel(0.2, cut.BATCH, HeavyBall(0.8)), lambda count: cut.shards("gpt2", count)),
    "ring": (TensorParallel(0.2, cut.BATCH, ring=True), lambda count: cut.shards("wide", count)),
    "zero": (ZeRO(0.1, AdamW(eps=1e-2), 2), lambda count: [rank_program.problem(k) for k in range(count)]),
}


def part(name, wires):
    """(this rank's problem, its History) of one case."""
    algorithm, make = CASES[name]
    own = make(wires.size)[wires.rank]
    return own, on_ranks(algorithm, own, ROUNDS, seed=rank_program.SEED, wires=wires)


def main(folder):
    wires = MPIWires()
    for name in CASES:
        _, run = part(name, wires)
        if wires.rank == 0:
            shown = {f"x{i}": x for i, x in enumerate(run.x)}
            np.savez(Path(folder) / f"{name}.npz", **shown, **run.columns)


if __name__ == "__main__":
    main(*sys.argv[1:])
