"""Messages as bytes between processes: numbers of known types and nothing else. Nothing is unpickled.

A message is a run of bytes: the number of arrays, int64; for each array its dtype's number in DTYPES, its number of
axes and its shape, int64; then the numbers of each array. `unpack` checks all of it before it makes an array, so that
a message that is damaged, or not one of ours, is refused where it arrives.

`MPIWires` sends such runs through mpi4py: buffers of MPI.BYTE, by Isend, Probe and Recv. Where both sides know what
comes, `swap` sends the numbers alone.
"""

import json
import math
import time

from npopt import checkpoint
from npopt.distributed.node import DTYPES
from npopt.errors import UserError
from npopt.optional import optional

import numpy as np

MESSAGE, SHOWN, RUN, SLICE = 1, 2, 3, 4  # tags
AXES = 8
SPIN, NAP = 200, 5e-5  # looks for a message without a pause, and seconds between two looks after that


def pack(arrays):
    """The bytes of a message, (size,) uint8, on the host."""
    header, parts = [len(arrays)], []
    for a in arrays:
        header += [DTYPES.index(str(a.dtype)), a.ndim, *a.shape]
        parts.append(np.ascontiguousarray(a).reshape(-1).view(np.uint8))
    return np.concatenate([np.array(header, np.int64).view(np.uint8), *parts])


def unpack(data, source):
    """The tuple of arrays of a message of `source`, a rank, in memory of its own."""
    place = 0

    def number(high):
        nonlocal place
        if place + 8 > data.size:
            raise wrong(source)
        value = int(data[place : place + 8].copy().view(np.int64)[0])
        place += 8
        if not 0 <= value <= high:
            raise wrong(source)
        return value

    kinds = []
    for _ in range(number(data.size)):
        dtype, axes = np.dtype(DTYPES[number(len(DTYPES) - 1)]), number(AXES)
        kinds.append((dtype, [number(data.size) for _ in range(axes)]))
    if sum(dtype.itemsize * math.prod(shape) for dtype, shape in kinds) != data.size - place:
        raise wrong(source)
    arrays = []
    for dtype, shape in kinds:
        end = place + dtype.itemsize * math.prod(shape)
        arrays.append(data[place:end].copy().view(dtype).reshape(shape))
        place = end
    return tuple(arrays)


def pack_tree(tree):
    """The bytes of a dict of arrays and plain values: its JSON text, and the arrays that the text names."""
    text, arrays = checkpoint.flat(tree)
    text = json.dumps([text, list(arrays)])
    return pack((np.frombuffer(text.encode(), np.uint8), *arrays.values()))


def unpack_tree(data, source):
    """The dict of such bytes."""
    text, *arrays = unpack(data, source)
    try:
        text, names = json.loads(text.tobytes().decode())
        return checkpoint.whole(text, dict(zip(names, arrays, strict=True)))
    except (ValueError, KeyError, TypeError):
        raise wrong(source) from None


def wrong(source):
    return UserError(f"rank {source} sent bytes that are no message of arrays; all ranks must run the same program")


class MPIWires:
    """Runs of bytes between the ranks of an mpi4py communicator (by default all that mpiexec started)."""

    def __init__(self, comm=None):
        try:
            self.MPI = optional("mpi4py.MPI", "mpi4py", "the engine mpi")
        except RuntimeError as error:  # mpi4py is there, the library that it loads is not
            raise UserError(
                f"the engine mpi needs an MPI library, and mpi4py finds none ({str(error).splitlines()[0]}); "
                "install Open MPI or MPICH"
            ) from None
        self.comm = self.MPI.COMM_WORLD if comm is None else comm
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self.pending = []  # (request, its buffer)

    def post(self, to, tag, data):
        """Put bytes, uint8, on their way; they may not change any more."""
        self.pending = [(request, kept) for request, kept in self.pending if not request.Test()]
        self.pending.append((self.comm.Isend([data, self.MPI.BYTE], dest=to, tag=tag), data))

    def take(self, source, tag):
        """Wait for the next bytes of a rank. Signals are heard, and other processes have the core, while it waits."""
        status, looks = self.MPI.Status(), 0
        while not self.comm.Iprobe(source=source, tag=tag, status=status):
            looks += 1
            time.sleep(0 if looks < SPIN else NAP)
        data = np.empty(status.Get_count(self.MPI.BYTE), np.uint8)
        self.comm.Recv([data, self.MPI.BYTE], source=source, tag=tag)
        return data

    def swap(self, out, into):
        """Send an array to each of some ranks and take one of each, {rank: array}: numbers alone, of sizes that both
        sides know, straight from one memory into the other."""
        calls, looks = [(self.comm.Irecv, into), (self.comm.Isend, out)], 0
        requests = [
            call([array.view(np.uint8), self.MPI.BYTE], j, SLICE) for call, some in calls for j, array in some.items()
        ]
        while not self.MPI.Request.Testall(requests):
            looks += 1
            time.sleep(0 if looks < SPIN else NAP)

    def finish(self):
        """Wait until all that was posted has been taken."""
        for request, _ in self.pending:
            request.Wait()
        self.pending = []

    def abort(self):
        """End all ranks."""
        self.comm.Abort(1)
