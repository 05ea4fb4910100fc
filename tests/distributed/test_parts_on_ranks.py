"""Parts of a network on real ranks: the bits and the bytes of the simulation."""

import os
import subprocess
import sys
from pathlib import Path

from npopt.distributed import simulate
from npopt.distributed.ranks import on_ranks

import numpy as np
import parts_program
import pytest
import rank_program
from test_ranks import COUNTED, mpiexec, together

THREADS = 1  # layers of a few numbers: tests/conftest.py


def simulated(name, count):
    algorithm, make = parts_program.CASES[name]
    return simulate(algorithm, make(count), parts_program.ROUNDS, seed=rank_program.SEED)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", parts_program.CASES)
def test_threads_as_ranks_give_the_bits_of_the_simulation(name, count):
    expected = simulated(name, count)
    found = together(count, lambda wires: parts_program.part(name, wires)[1])
    assert not [f for f in found if isinstance(f, Exception)], found
    for rank in range(count):
        np.testing.assert_array_equal(found[0].x[rank], expected.x[rank])
    for column in COUNTED:
        np.testing.assert_array_equal(found[0].columns[column], expected.columns[column])


def broken_off(at):
    """An observe that raises in round `at`, with the sum of what node 0 shows."""
    seen = []

    def observe(shown):
        seen.append(1)
        if len(seen) == at:
            raise Broken
        return {"sum": float(shown[0].sum())}

    return observe


class Broken(Exception):
    pass


@pytest.mark.parametrize("name", parts_program.CASES)
def test_a_run_that_is_broken_off_goes_on_bit_for_bit(name, tmp_path):
    """Optimizers, dropout's step and batch statistics go on where they were; in the simulation and on ranks."""
    algorithm, make = parts_program.CASES[name]
    some = dict(seed=rank_program.SEED, seconds=0)
    expected = simulate(algorithm, make(2), 5, seed=rank_program.SEED, observe=broken_off(0))
    file = tmp_path / "simulated"
    with pytest.raises(Broken):
        simulate(algorithm, make(2), 5, observe=broken_off(3), checkpoint=file, **some)
    found = simulate(algorithm, make(2), 5, observe=broken_off(4), checkpoint=file, **some)
    file = tmp_path / "ranks"
    for at in (3, 4):
        ranks = together(2, lambda w, at=at: on_ranks(algorithm, make(2)[w.rank], 5, observe=broken_off(at), wires=w,
                                                      checkpoint=file, **some))  # fmt: skip
        assert isinstance(ranks[0], Broken) == (at == 3)
    for run in (found, ranks[0]):
        for one, two in zip(run.x, expected.x, strict=True):
            np.testing.assert_array_equal(one, two)
        for column in (*COUNTED, "sum"):
            np.testing.assert_array_equal(run.columns[column], expected.columns[column])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_ranks_of_mpi_give_the_bits_of_the_simulation(count, tmp_path):
    here = Path(__file__).parent
    env = os.environ | {"PYTHONPATH": str(here.parents[1]), "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [mpiexec(), "-n", str(count), sys.executable, str(here / "parts_program.py"), str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name in parts_program.CASES:
        expected, found = simulated(name, count), np.load(tmp_path / f"{name}.npz")
        for rank in range(count):
            np.testing.assert_array_equal(found[f"x{rank}"], expected.x[rank])
        for column in COUNTED:
            np.testing.assert_array_equal(found[column], expected.columns[column])
