"""The sum of a vector of every rank, on all ranks, beside a copy through shared memory and beside MPI's own Allreduce.

    mpiexec -n 2 python benchmarks/all_reduce.py --write --threads 1

11.2 M float32 are the numbers of ResNet-18. The copy: each rank writes its vector into a window of shared memory, waits
for the others, and reads the vector of the next rank into memory of its own. The target is a ratio of at most 1 / 0.8.
"""

import contextlib
import io

from pairs import Table, arguments  # isort: skip (before NumPy)

from npopt import backend
from npopt.distributed.ranks import Rank
from npopt.distributed.wire import MPIWires

import numpy as np

NUMBERS, TARGET = 11_200_000, 1 / 0.8


class Links(Rank):
    """A rank without an algorithm."""

    def __init__(self, wires):
        self.wires, self.rank, self.count = wires, wires.rank, wires.size
        self.sent = self.received = self.messages = 0


def window(comm, MPI):
    """The vectors of all ranks in shared memory."""
    found = MPI.Win.Allocate_shared(4 * NUMBERS, 4, comm=comm)
    return found, [np.ndarray((NUMBERS,), "f4", buffer=found.Shared_query(k)[0]) for k in range(comm.size)]


def main():
    args = arguments(__doc__, rounds=25).parse_args()
    backend.threads(args.threads)
    wires = MPIWires()
    comm, rank, size = wires.comm, wires.rank, wires.size
    links, (kept, shared) = Links(wires), window(comm, wires.MPI)
    vectors = [np.random.default_rng(k).standard_normal(NUMBERS).astype("f4") for k in range(size)]
    v, out = vectors[rank], np.empty(NUMBERS, "f4")

    def ours():
        comm.Barrier()
        total = links.reduce(v)
        comm.Barrier()
        return total

    def copy():
        comm.Barrier()
        shared[rank][...] = v
        comm.Barrier()
        out[...] = shared[(rank + 1) % size]
        comm.Barrier()

    def theirs():
        comm.Barrier()
        comm.Allreduce(v, out)
        comm.Barrier()

    total = vectors[0].copy()
    for other in vectors[1:]:
        total += other
    assert np.array_equal(ours(), total), "the sum in the order of ranks, bit for bit"
    for f in (copy, theirs):
        f()
    with contextlib.redirect_stdout(io.StringIO()) if rank else contextlib.nullcontext():
        title = f"All-reduce of {NUMBERS / 1e6:.1f} M float32 over {size} ranks, alternated, seen from rank {rank}"
        table = Table(title, "npopt", "rival")
        ratio = table.add("beside a copy by shared memory", ours, copy, args.rounds, calls=3)
        table.add("beside MPI's Allreduce", ours, theirs, args.rounds, calls=3)
        name = " ".join(wires.MPI.Get_library_version().splitlines()[0].split())
        table.note(f"Beside the copy: {ratio:.2f} (target at most {TARGET:.2f}). {name}.")
        if args.write and rank == 0:
            table.write("all_reduce.txt")
    kept.Free()


if __name__ == "__main__":
    main()
