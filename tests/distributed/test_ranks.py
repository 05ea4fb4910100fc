"""Real ranks: the bits and the bytes of the simulation. Threads with queues stand for MPI where there is none."""

import importlib.util
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from npopt.distributed import EXTRA, FedAvg, ranks, ring, simulate
from npopt.distributed import wire as wires_of
from npopt.distributed.base import Algorithm
from npopt.distributed.ranks import on_ranks
from npopt.distributed.simulation import History
from npopt.distributed.wire import MPIWires, pack, pack_tree, unpack, unpack_tree
from npopt.errors import UserError
from problems.quadratic import Quadratic

import numpy as np
import pytest
import rank_program

COUNTED = ("round", "bytes", "messages", "busiest")


def simulated(name, count):
    """The same case in one process."""
    algorithm, graph = rank_program.CASES[name]
    problems = [rank_program.problem(k) for k in range(count - algorithm.federated)]
    some = dict(graph=graph and graph(count), seed=rank_program.SEED)
    return simulate(algorithm, problems, rank_program.ROUNDS, **some)


class Threads:
    """The wires of ranks that are threads."""

    def __init__(self, rank, boxes, size):
        self.rank, self.size, self.boxes = rank, size, boxes

    def post(self, to, tag, data):
        self.boxes[self.rank, to, tag].put(data.tobytes())

    def take(self, source, tag):
        data = self.boxes[source, self.rank, tag].get(timeout=20)
        if data is None:
            raise InterruptedError
        return np.frombuffer(data, np.uint8)

    def swap(self, out, into):
        for j, array in out.items():
            self.post(j, wires_of.SLICE, array.view(np.uint8))
        for j, array in into.items():
            array[...] = self.take(j, wires_of.SLICE).view(array.dtype)

    def finish(self):
        pass

    def abort(self):
        for box in self.boxes.values():
            box.put(None)


def together(size, body):
    """[body(wires)] of so many ranks; an exception stands for itself."""
    boxes = {(i, j, tag): queue.Queue() for i in range(size) for j in range(size) for tag in (1, 2, 4)}
    found = [None] * size

    def run(rank):
        try:
            found[rank] = body(Threads(rank, boxes, size))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("way", ["by rank 0", "by slices"])
@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("name", rank_program.CASES)
def test_threads_as_ranks_give_the_bits_of_the_simulation(name, count, way, monkeypatch):
    """The simulation adds whole vectors. A rank adds a slice of long ones: here of all."""
    monkeypatch.setattr(ranks, "SLICED", 1 if way == "by slices" else 1 << 60)
    expected = simulated(name, count)
    found = together(count, lambda wires: rank_program.part(name, wires))
    assert not [f for f in found if isinstance(f, Exception)], found
    np.testing.assert_array_equal(found[0].x, expected.x)
    for column in COUNTED:
        np.testing.assert_array_equal(found[0].columns[column], expected.columns[column])
    for rank in range(1, count):
        federated = rank_program.CASES[name][0].federated
        assert not found[rank].columns and len(found[rank].x) == (0 if federated else 1)
        if not federated:
            np.testing.assert_array_equal(found[rank].x[0], expected.x[rank])


def test_one_rank_alone():
    run = on_ranks(EXTRA(0.1), rank_program.problem(0), 5, graph=ring(1), wires=Threads(0, {}, 1))
    np.testing.assert_array_equal(run.x, simulate(EXTRA(0.1), [rank_program.problem(0)], 5, graph=ring(1)).x)
    with pytest.raises(UserError, match="need two ranks"):
        on_ranks(FedAvg(0.1), None, 5, wires=Threads(0, {}, 1))


def test_a_problem_of_another_size_is_refused_where_it_arrives(capsys):
    found = together(
        3, lambda w: on_ranks(EXTRA(0.1), Quadratic(np.ones(5 + (w.rank == 1))), 3, graph=ring(3), wires=w)
    )
    assert isinstance(found[1], UserError) and "expected (6,)" in str(found[1])
    assert "npopt: rank 1: start: rank 2 sent shape (5,)" in capsys.readouterr().err


class Sum(Algorithm):
    """All nodes add the vectors of their problems, once a round."""

    def program(self, me):
        while True:
            total = yield me.all_reduce(me.problem.diagonal)
            yield me.show(total)


@pytest.mark.parametrize("far", [np.ones(300_001), np.ones((2, 150_000)), np.ones(300_000, "f4")], ids=str)
def test_a_long_vector_of_another_shape_is_refused_where_it_arrives(far, capsys):
    """It would be cut into other slices."""

    def body(wires):
        problem = Quadratic(np.ones(3))
        problem.diagonal = far if wires.rank == 1 else np.ones(300_000)
        return on_ranks(Sum(), problem, 2, wires=wires)

    found = together(3, body)
    assert any(isinstance(f, UserError) and "all_reduce: rank" in str(f) for f in found), found
    assert not any(isinstance(f, History) for f in found)
    assert "npopt: rank" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- messages
def test_messages_come_back_as_they_were(rng):
    arrays = (
        rng.standard_normal((3, 2)),
        np.arange(4, dtype=np.int32)[::2],
        np.array(2.5, np.float32),
        np.empty((0, 3), np.uint8),
        np.array([2**64 - 1], np.uint64),
    )
    back = unpack(pack(arrays), 0)
    for a, b in zip(arrays, back, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and b.flags.writeable
        np.testing.assert_array_equal(a, b)


def test_other_bytes_are_refused(rng):
    """Cut anywhere, longer, or with any number of the header changed: an error, or another message, never a crash."""
    good = pack((rng.standard_normal(3), np.arange(2)))
    refused = 0
    for cut in range(good.size):
        with pytest.raises(UserError, match="rank 7 sent bytes"):
            unpack(good[:cut], 7)
    with pytest.raises(UserError, match="rank 7 sent bytes"):
        unpack(np.append(good, good[:1]), 7)
    for place in range(0, 56, 8):
        for value in (-1, 5, 99, 2**62):
            bad = good.copy()
            bad[place : place + 8] = np.array([value]).view(np.uint8)
            try:
                unpack(bad, 7)
            except UserError:
                refused += 1
    assert refused >= 7 * 3
    assert b"pickle" not in Path(wires_of.__file__).read_bytes().replace(b"unpickled", b"")


def test_trees_come_back_as_they_were(rng):
    tree = {
        "kept": [rng.standard_normal(3), None, [np.arange(2), 0.1 + 0.2]],
        "t": 3,
        "of": {"x": np.ones(1, np.float32)},
    }
    back = unpack_tree(pack_tree(tree), 0)
    np.testing.assert_equal(back, tree)
    assert back["of"]["x"].dtype == np.float32 and back["kept"][2][1] == 0.1 + 0.2
    assert unpack_tree(pack_tree({}), 0) == {}
    for bad in (
        (np.arange(3, dtype=np.uint8),),
        (np.frombuffer(b'["{}", ["a"]]', np.uint8),),
        (np.frombuffer(b"[1]", np.uint8),),
    ):
        with pytest.raises(UserError, match="rank 7 sent bytes"):
            unpack_tree(pack(bad), 7)


def test_an_absent_mpi_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    with pytest.raises(UserError, match="the engine mpi needs mpi4py, which is not installed: pip install mpi4py"):
        MPIWires()

    def broken(*args):
        raise RuntimeError("cannot load MPI library\nmore")

    monkeypatch.setattr(wires_of, "optional", broken)
    with pytest.raises(UserError, match=r"finds none \(cannot load MPI library\); install Open MPI or MPICH"):
        MPIWires()


# --------------------------------------------------------------------------------------------------------- real ranks
def mpiexec():
    """The command, beside this Python or on the path, or a skip that says why."""
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    found = shutil.which("mpiexec", path=path)
    if found is None:
        pytest.skip("there is no mpiexec")
    return found


def start(count, tmp_path, how):
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [mpiexec(), "-n", str(count), sys.executable, str(Path(__file__).parent / "rank_program.py")]
    return subprocess.run([*command, str(tmp_path), how], env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("count, how", [(2, "all"), (2, "slices"), (4, "all"), (4, "slices")])
def test_ranks_of_mpi_give_the_bits_of_the_simulation(count, how, tmp_path):
    done = start(count, tmp_path, how)
    assert done.returncode == 0, done.stderr
    for name in rank_program.CASES:
        expected, found = simulated(name, count), np.load(tmp_path / f"{name}.npz")
        np.testing.assert_array_equal(found["x"], expected.x)
        for column in COUNTED:
            np.testing.assert_array_equal(found[column], expected.columns[column])


@pytest.mark.slow
def test_an_error_on_one_rank_ends_all(tmp_path):
    done = start(3, tmp_path, "wrong")
    assert done.returncode and "npopt: rank 1: start: rank 2 sent shape (6,)" in done.stderr


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_others_within_seconds(tmp_path):
    begin = time.perf_counter()
    done = start(3, tmp_path, "killed")  # the others have thousands of millions of rounds to go
    assert done.returncode and time.perf_counter() - begin < 60
