"""backend.Csr against scipy.sparse, and its CUDA source against the compiler's rules where there is one."""

import pathlib
import shutil
import subprocess

from npopt import backend
from npopt.backend import sparse
from npopt.errors import UserError

import numpy as np
import pytest
import scipy.sparse as sp

ROWS = [None, [4], [7, 0, 7, 7, 3, 0, 19], list(range(20)) * 3]


def compare(rows, K, dtype, rng):
    """Both products of some rows with K columns, on the device in use, and those of SciPy."""
    tolerance = {"float64": 1e-13, "float32": 3e-6}[dtype]
    host = sp.random(20, 90, 0.4, "csr", random_state=rng).toarray()
    host[7], host[:, 5] = 0, 0
    host = sp.csr_matrix(host.astype(dtype))
    A, some = backend.Csr(host), host if rows is None else host[rows]
    A = A if rows is None else A[backend.asarray(np.array(rows))]
    V, S = (rng.standard_normal(shape).astype(dtype) for shape in ((K, 90), (some.shape[0], K)))
    assert A.shape == some.shape
    right, left = A @ backend.asarray(V).T, backend.asarray(S).T @ A  # both factors with strides
    np.testing.assert_allclose(backend.to_host(right), some @ V.T, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(backend.to_host(left), S.T @ some, rtol=tolerance, atol=20 * tolerance)
    assert right.dtype == left.dtype == dtype


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("rows", ROWS, ids=lambda r: r and len(r))
def test_products_are_those_of_scipy(rows, K, dtype, rng, device):
    compare(rows, K, dtype, rng)


def test_products_repeat_bit_for_bit(rng, device):
    A = backend.Csr(sp.random(300, 40, 0.5, "csr", random_state=rng))
    rows = backend.asarray(rng.integers(0, 300, 500))
    S = backend.asarray(rng.standard_normal((500, 2)))
    one, two = (backend.to_host(S.T @ A[rows]) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_another_dtype_is_refused(device):
    A = backend.Csr(sp.eye(3, format="csr", dtype="float32"))
    with pytest.raises(UserError, match="a sparse matrix of float32 meets float64"):
        A @ backend.zeros((3, 1), "float64")
    with pytest.raises(UserError, match="a sparse matrix of float32 meets float64"):
        backend.zeros((1, 3), "float64") @ A


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler here")
@pytest.mark.parametrize("kernel", [sparse._rows_times, sparse._spread], ids=lambda k: k.name)
def test_the_cuda_source_compiles(kernel, tmp_path):
    source = pathlib.Path(tmp_path / "kernel.cu")
    source.write_text(kernel.gpu)
    done = subprocess.run(["nvcc", "-ptx", "-o", tmp_path / "kernel.ptx", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
