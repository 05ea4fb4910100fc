"""The CUDA source of sparse products, run on the CPU, against SciPy."""

from npopt import backend
from npopt.backend import sparse
from problems import Logistic

import cudashim
import numpy as np
import pytest
import scipy.sparse as sp
from test_sparse import ROWS, compare

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    cudashim.build([(pair.gpu, ()) for pair in (sparse._rows_times, sparse._spread)])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("rows", ROWS, ids=lambda r: r and len(r))
def test_products_are_those_of_scipy(rows, K, dtype, rng, shim):
    cudashim.EXECUTED.clear()
    compare(rows, K, dtype, rng)
    assert {name for name, _ in cudashim.EXECUTED} >= {"sparse_rows_times"} | (
        set() if rows is None else {"sparse_spread"}
    )


def test_a_linear_model_on_sparse_rows(rng):
    X, y = sp.random(30, 40, 0.3, "csr", random_state=rng), np.tile([0, 1, 2], 10)
    x, rows, found = rng.standard_normal(41 * 3), np.array([4, 9, 4, 0]), []
    for where in ("shim", "cpu"):
        backend.use(where)
        problem = Logistic(X, y, 0.1, intercept=True)
        for some in (None, rows):
            g = backend.zeros(problem.dim, "float64")
            given = None if some is None else backend.asarray(some)
            value = backend.to_host(problem.value_and_gradient(backend.asarray(x), given, None, g))
            found.append(np.append(backend.to_host(g), value))
    np.testing.assert_allclose(found[:2], found[2:], rtol=1e-12, atol=1e-14)
