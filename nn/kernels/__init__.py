"""The pieces of the layers that have a fast path: one function each, two ways to compute it.

`reference` is array code for every device. `cpu`, `matrices`, `norms` and `pools` hold what replaces it on NumPy
arrays. A test holds the two equal. use("reference") switches the replacements off.
"""

from npopt import backend

from . import cpu, matrices, norms, pools, reference
from .reference import taps

__all__ = ["chosen", "taps", "use", *reference.NAMES]

# device name -> {function name: replacement}
MODULES = (cpu, matrices, norms, pools)
FAST = {"cpu": {name: vars(module)[name] for module in MODULES for name in reference.NAMES if name in vars(module)}}
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


def _dispatch(name):
    plain = getattr(reference, name)

    def call(x, *arguments):
        if _chosen == "fast":
            fast = FAST.get(backend.owner(x).name, {}).get(name)
            if fast is not None:
                return fast(x, *arguments)
        return plain(x, *arguments)

    call.__name__, call.__doc__ = name, plain.__doc__
    return call


for _name in reference.NAMES:
    globals()[_name] = _dispatch(_name)
