"""Threads of BLAS and numba, set together; imported first, because their waiting policy is read when they start."""

import os

# Waiting threads must sleep: with active waiting, a pool that waits takes the cores from the pool that works (BLAS and
# numba have one each). These settings are read when the libraries load, hence before the imports below (OpenBLAS's
# when NumPy loads: it counts only if npopt is imported first, or in the processes of --jobs).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
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
            raise ValueError(f"threads must be a whole number of at least 1, got {n!r}")
        numba.set_num_threads(min(int(n), numba.config.NUMBA_NUM_THREADS))
        threadpoolctl.threadpool_limits(int(n), user_api="blas")
    return numba.get_num_threads()
