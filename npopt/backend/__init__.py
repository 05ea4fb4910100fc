"""Arrays, draws, threads and kernels on two devices. The only module that imports CuPy, or asks which device is in use.

    backend.use("gpu")                      # or "cpu", the default
    x = backend.zeros(10, "float32")        # on the device in use
    backend.xp(x).sqrt(x)                   # the array module of x
    backend.to_host(x)                      # a NumPy array; a float for a 0-d array

A draw is a function of (seed, stream, counter): see draws.py. Formulas: see formulas.py.
"""

from npopt.backend.parallel import cores, threads  # isort: skip (before NumPy: it says how pools of threads wait)
from npopt.backend.devices import (
    DEVICES,
    asarray,
    device,
    empty,
    kernel,
    memory,
    norm,
    owner,
    precision,
    synchronize,
    to_host,
    use,
    workspace,
    xp,
    zeros,
)
from npopt.backend.draws import generator, key, uniform_at
from npopt.backend.formulas import elementwise
from npopt.backend.noise import normals, row_uniform, uniforms
from npopt.backend.rounding import FORMATS, rounded
from npopt.backend.sparse import Csr

__all__ = [
    "Csr",
    "DEVICES",
    "FORMATS",
    "asarray",
    "cores",
    "device",
    "elementwise",
    "empty",
    "generator",
    "kernel",
    "key",
    "memory",
    "norm",
    "normals",
    "owner",
    "precision",
    "rounded",
    "row_uniform",
    "synchronize",
    "threads",
    "to_host",
    "uniform_at",
    "uniforms",
    "use",
    "workspace",
    "xp",
    "zeros",
]
