"""What SAGA's two tables take on a linear model."""

from npopt import SAGA, SGD, Stop, WithReplacement, backend, minimize
from problems.convex import linear

import numpy as np

LARGE = 1e9  # bytes: a larger table is not allocated


def memory(data, table, steps, seed, events):
    """Bytes of SAGA's table and of its whole state, and the iterate after some steps. A table above LARGE is not made;
    its bytes are computed."""
    problem = linear(data)
    size = problem.n * (1 if table == "scalars" else problem.dim) * problem.dtype.itemsize
    found = {
        "table_bytes": size,
        "state_bytes": size + problem.dim * problem.dtype.itemsize,
        "dim": problem.dim,
        "rows": problem.n,
        "allocated": int(size <= LARGE),
    }
    X = problem.host_X
    found["data_bytes"] = X.nbytes if isinstance(X, np.ndarray) else X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    if size <= LARGE:
        estimator = SAGA(table)
        estimator.start(problem, backend.zeros(problem.dim, problem.dtype), seed)
        state = estimator.state()
        run = minimize(
            problem,
            SGD(),
            WithReplacement(1),
            1 / (3 * problem.row_smoothness().max()),
            estimator,
            stop=Stop(steps=steps),
            seed=seed,
            events={"metrics": None},
        )
        w = backend.to_host(run.x)
        found |= {
            "table_bytes": state["table"].nbytes,
            "state_bytes": sum(getattr(v, "nbytes", 0) for v in state.values()),
            "w": w,
            "objective": problem.exact(w)[0],
            "compiled": int(run.loop == "compiled"),
            "seconds_a_step": run.final["seconds"] / steps,
        }
    return {name: [value] for name, value in found.items()}
