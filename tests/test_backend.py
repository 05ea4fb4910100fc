"""Devices, draws, threads."""

import json
import math
import mmap
import os
import pathlib
import subprocess
import sys

from npopt import backend
from npopt.backend import devices, draws, elementary
from npopt.errors import UserError

import numpy as np
import pytest

MASK = (1 << 64) - 1


def splitmix(z):
    """SplitMix64's output function in unbounded integers, from its paper."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_mix_reproduces_the_published_first_outputs_of_splitmix64():
    # Seed 1234567: the sequence that the reference C code prints.
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [draws.mix((1234567 + (i + 1) * draws.GOLDEN) & MASK) for i in range(5)] == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normals_are_box_muller_of_the_counter(dtype):
    key = backend.key(3, "test", 5)
    z = backend.normals(key, np.empty(7, dtype), offset=11)
    for i in range(7):
        a, b = (splitmix((key + (2 * (11 + i) + k) * draws.GOLDEN) & MASK) >> 11 for k in (1, 2))
        u, v = (a + 0.5) * 2.0**-53, (b + 0.5) * 2.0**-53
        expected = np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
        assert abs(z[i] - expected) <= (1e-14 if dtype == "float64" else 1e-6) * max(1, abs(expected))


def test_logarithm_and_cosine_are_good_to_the_last_bits(rng):
    """The cosine against that of the angle left when whole quarters of a turn, exact numbers, are taken off."""
    edges = [2.0**-54, 2.0**-53, 0.5**0.5, np.nextafter(0.5**0.5, 0), 1 - 2.0**-53, 1.0, 1.5, 1e300]
    for x in [*edges, *rng.random(2000), *np.exp(-30 * rng.random(500))]:
        assert abs(elementary.log(x) - math.log(x)) <= 4e-16 * abs(math.log(x))
    for v in [0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 0.875, 1.0, 2.0**-54, *rng.random(2000)]:
        k = round(4 * v)
        r = 2 * math.pi * (v - k / 4)
        exact = (math.cos(r), -math.sin(r), -math.cos(r), math.sin(r))[k % 4]
        assert abs(elementary.cosine_of_turns(v) - exact) <= 4e-16 * max(abs(exact), 1e-300)


def test_normals_have_the_moments_of_a_normal_law_and_no_serial_correlation():
    z = backend.normals(backend.key(0, "moments"), np.empty(400_000))
    s = 1 / np.sqrt(z.size)  # five standard errors of each estimate
    assert abs(z.mean()) < 5 * s
    assert abs(z.var() - 1) < 5 * np.sqrt(2) * s
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96) * s
    assert abs((z[1:] * z[:-1]).mean()) < 5 * s


def test_uniforms_lie_strictly_inside_the_unit_interval_and_agree_between_dtypes():
    key = backend.key(0, "uniform")
    u = backend.row_uniform(key, None, np.empty((1000, 64)))
    v = backend.row_uniform(key, None, np.empty((1000, 64), "float32"))
    assert u.min() > 0 and u.max() < 1
    np.testing.assert_array_equal(u, v.astype(float))
    counts = np.histogram(u, 16, (0, 1))[0]
    expected = u.size / 16
    assert ((counts - expected) ** 2 / expected).sum() < 44  # chi-square, 15 degrees of freedom: p = 1e-4


def test_a_rows_uniforms_do_not_depend_on_its_batch():
    key = backend.key(1, "rows")
    whole = backend.row_uniform(key, None, np.empty((9, 5)))
    some = backend.row_uniform(key, np.array([7, 0, 7]), np.empty((3, 5)))
    np.testing.assert_array_equal(some, whole[[7, 0, 7]])
    assert [backend.uniform_at(key, i) for i in range(45)] == whole.reshape(-1).tolist()


def test_keys_differ_in_seed_stream_and_counter():
    keys = {backend.key(s, name, c) for s in range(5) for name in ("a", "b") for c in range(50)}
    assert len(keys) == 500


def test_generators_replay_and_differ():
    a = backend.generator(4, "order", 2).standard_normal(3)
    np.testing.assert_array_equal(a, backend.generator(4, "order", 2).standard_normal(3))
    assert not np.array_equal(a, backend.generator(4, "order", 3).standard_normal(3))


def test_a_gpu_without_cupy_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy now raises ImportError
    monkeypatch.delitem(devices._made, "gpu", raising=False)
    with pytest.raises(UserError, match="pip install -r requirements-gpu.txt"):
        backend.use("gpu")
    assert backend.device() == "cpu"
    with pytest.raises(ValueError, match="device must be one of cpu, gpu"):
        backend.use("tpu")


def test_arrays_travel_there_and_back(device):
    a = backend.asarray([[1.0, 2.0], [3.0, 4.0]], "float32")
    assert a.dtype == np.float32
    np.testing.assert_array_equal(backend.to_host(a), [[1, 2], [3, 4]])
    assert backend.to_host(backend.xp(a).sum(a)) == 10.0
    assert backend.xp(backend.zeros((2,), "float64")) is backend.xp()


def test_threads_are_set_together_and_checked():
    import threadpoolctl

    backend.threads(1)
    assert backend.threads() == 1
    blas = [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    assert blas and set(blas) == {1}
    with pytest.raises(ValueError, match="at least 1"):
        backend.threads(0)


@pytest.mark.parametrize("first, blas", [("import numpy", 1), ("", 2)])
def test_blas_does_not_spin_where_numpy_came_first(first, blas):
    """scipy may bring a BLAS of its own, which comes later. A sitecustomize on PYTHONPATH, such as a profiler's, is
    left out: it may import NumPy before the first line."""
    code = f"""
{first}
import sys
print(int("numpy" in sys.modules))
from npopt import backend
import numpy, threadpoolctl
for n in (2, 1, 2, 2):
    backend.threads(n)
    print([pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"])
    import scipy.linalg
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}
    paths = [str(pathlib.Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    paths = [path for path in paths if path and not pathlib.Path(path, "sitecustomize.py").exists()]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    early, *found = [json.loads(line) for line in done.stdout.splitlines()]
    assert early == (blas == 1), "something imports NumPy whenever Python starts"
    most = min(blas, backend.cores())
    assert [set(counts) for counts in found] == [{most}, {1}, {most}, {most}], done.stdout


def test_memory_counts_what_is_allocated():
    """The pages are asked of the system itself: malloc may serve a block from what an earlier test has freed."""
    before = backend.memory()["host"]
    with mmap.mmap(-1, 64_000_000) as pages:
        pages.write(b"\1" * len(pages))
        after = backend.memory()
    assert 60e6 < after["host"] - before < 140e6  # the bytes that are written may need new pages, too
    assert after["host_peak"] >= 0.99 * after["host"]


def test_the_strict_device_refuses_what_a_gpu_would_do_slowly_or_not_at_all():
    import strict

    backend.use("strict")
    a = backend.asarray([1.0, 2.0])
    for wrong in (
        lambda: np.asarray(a),
        lambda: np.sqrt(a),
        lambda: float(a[0]),
        lambda: bool(a[0] > 0),
        lambda: a + np.ones(2),
        lambda: np.ones(2) + a,
        lambda: a * np.float64(2),
        lambda: list(a),
    ):
        with pytest.raises(TypeError):
            wrong()
    assert isinstance(a.sum(), strict.StrictArray)
