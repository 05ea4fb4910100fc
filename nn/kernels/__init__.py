"""The pieces of the layers that have a fast path: one function each, two ways to compute it.

`reference` is array code for every device. `cpu`, `matrices`, `norms` and `pools` hold what replaces it on NumPy
arrays; arrays of mixed dtypes, with gaps, read-only or empty go the plain way. A test holds the two equal, with two
exceptions: an infinite or NaN number may reach neighbours in a fast convolution that it has no connection to, and an
infinite dy is cut to 0 by a fast ReLU where the plain one has NaN. use("reference") switches the replacements off.
"""

from npopt import backend

import numpy as np

from . import cpu, gpu, matrices, norms, pools, reference
from .reference import taps

__all__ = ["chosen", "taps", "use", *reference.NAMES]

# device name -> {function name: replacement}
MODULES = (cpu, matrices, norms, pools)
FAST = {"cpu": {name: vars(module)[name] for module in MODULES for name in reference.NAMES if name in vars(module)}}
FAST["gpu"] = gpu.FUNCTIONS
_chosen = "fast"


def use(which):
    """Choose "fast" or "reference" for all layers."""
    global _chosen
    if which not in ("fast", "reference"):
        raise ValueError(f"kernels must be 'fast' or 'reference', got {which!r}")
    _chosen = which


def chosen():
    """"fast" or "reference"."""
    return _chosen


def alike(x, arguments):
    """Whether compiled loops take these arrays: contiguous, writable, not empty, floating ones of one dtype."""
    first = None
    for a in (x, *arguments):
        if type(a) is np.ndarray:
            if not a.flags.carray or not a.size:
                return False
            dtype = a.dtype
            if dtype is not first and dtype.kind == "f":
                if first is not None and dtype != first:
                    return False
                first = dtype
    return True


def _dispatch(name):
    plain = getattr(reference, name)

    def call(x, *arguments):
        if _chosen == "fast":
            fast = FAST.get(backend.owner(x).name, {}).get(name)
            if fast is not None and alike(x, arguments):
                return fast(x, *arguments)
        return plain(x, *arguments)

    call.__name__, call.__doc__ = name, plain.__doc__
    return call


for _name in reference.NAMES:
    globals()[_name] = _dispatch(_name)
