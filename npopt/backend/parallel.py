"""Threads of BLAS and numba, set together; imported first, because their waiting policy is read when they start."""

import os

from npopt.errors import UserError

# Waiting threads must soon sleep: while it waits actively, a pool takes the cores from the pool that works (BLAS and
# numba have one each) and from other processes. But to wake a thread takes 40 us, and a small network's step enters a
# parallel loop every 50 us: numba's threads look around 1,000 times before they sleep. A parallel loop then costs 2 us
# (sleeping at once: 45), and up to 50 us with another busy process on the two cores (spinning without a limit: 8 ms).
# These settings are read when the libraries load, hence before the imports below (OpenBLAS's when NumPy loads: it
# counts only if npopt is imported first, or in the processes of --jobs).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
os.environ.setdefault("KMP_BLOCKTIME", "0")
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp tbb workqueue")

import numba
import threadpoolctl


def cores():
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def threads(n=None):
    """Set the number of threads of BLAS and of numba together; without n, read it."""
    if n is not None:
        if int(n) != n or n < 1:
            raise UserError(f"threads must be a whole number of at least 1, got {n!r}")
        numba.set_num_threads(min(int(n), numba.config.NUMBA_NUM_THREADS))
        threadpoolctl.threadpool_limits(int(n), user_api="blas")
    return numba.get_num_threads()
