"""Threads of BLAS and numba, set together; imported first, because their waiting policy is read when they start."""

import os
import sys

from npopt.errors import UserError

# If NumPy was imported before, its OpenBLAS has not read our settings. Its threads would spin for some 30 ms after each
# product, on cores that everything else needs. Then BLAS gets one thread: a thread that never works never spins.
SPINS = "numpy" in sys.modules and "OPENBLAS_THREAD_TIMEOUT" not in os.environ

# BLAS and numba have a pool of threads each. A thread that waits by spinning takes a core from the pool that works, and
# from other processes; so waiting threads must soon sleep. But waking one takes 40 us, and a step of a small network
# enters a parallel loop every 50 us. So numba's threads look 1,000 times for work before they sleep. A parallel loop
# then costs 2 us (45 if they slept at once). With another busy process on the two cores it costs up to 50 us (8 ms if
# they spun without a limit). The libraries read these settings when they load, hence before the imports below.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
os.environ.setdefault("KMP_BLOCKTIME", "0")
os.environ.setdefault("NUMBA_THREADING_LAYER_PRIORITY", "omp tbb workqueue")

import numba  # noqa: E402
import threadpoolctl  # noqa: E402


def cores():
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


_found = 0, None  # how many modules there were, and what of BLAS was loaded then


def _libraries():
    """threadpoolctl's controller of what is loaded. It takes a millisecond to look, so we look when modules came."""
    global _found
    if _found[0] != len(sys.modules):
        _found = len(sys.modules), threadpoolctl.ThreadpoolController()
    return _found[1]


def threads(n=None):
    """Set the number of threads of BLAS and of numba together; without n, read it.

    BLAS keeps one thread where NumPy was imported before npopt: import npopt first if your products are large.
    """
    if n is not None:
        if int(n) != n or n < 1:
            raise UserError(f"threads must be a whole number of at least 1, got {n!r}")
        numba.set_num_threads(min(int(n), numba.config.NUMBA_NUM_THREADS))
        _libraries().limit(limits=1 if SPINS else int(n), user_api="blas")
    return numba.get_num_threads()


if SPINS:
    threadpoolctl.threadpool_limits(1, user_api="blas")
