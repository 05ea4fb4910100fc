"""The pieces of the layers that have a fast path: one function each, two or three ways to compute it.

`reference` is array code for every device. The other modules hold what replaces it on one device: `gpu` on CuPy arrays,
all others on the CPU. Arrays of mixed dtypes, with gaps, read-only or empty go through `reference`. A test holds all
ways equal, with two exceptions. In a fast convolution an infinite or NaN number may reach neighbours that it has no
connection to. And a fast ReLU cuts an infinite dy to 0 where the plain one has NaN. use("reference") switches the
replacements off. use("accurate") leaves out what rounds most, the larger tiles of Winograd's form.

`words` is more than a piece: a whole decoder for a few words, chosen by nn/decoding/compiled.py.
`suffixes` has the loops of nn/decoding/drafts.py.

The compiled loops use inner parts of numba and llvmlite. If an installed version does not import or compile them, one
warning says so, and `reference` does the work.
"""

import functools
import warnings

from npopt import backend
from npopt.errors import UserError

import numpy as np

from . import (
    gpu,
    reference,
    reference_attention,
    reference_gates,
    reference_recurrent,
    reference_rows,
    reference_sparse,
)
from .reference import taps

SAID = []  # not empty once it was said


def warn(error):
    """Warn, once, that the compiled loops cannot be used."""
    if SAID:
        return
    SAID.append(error)
    why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    warnings.warn(
        f"the compiled kernels of nn cannot be used here ({why[:200]}); layers run as plain array code, "
        "several times slower. requirements.txt names the versions of numba and llvmlite that work",
        RuntimeWarning,
        stacklevel=3,
    )


class Absent:
    """Stands for a module that cannot be imported. It has no replacement for anything."""

    def __getattr__(self, name):
        return None


try:
    from . import attention_blocks, cpu, gates, matrices, norms, packed, pooling, recurrent, rows, sparse, words
except Exception as error:  # whatever a library does whose inner parts have changed
    warn(error)
    attention_blocks = cpu = gates = matrices = norms = packed = pooling = recurrent = rows = sparse = words = Absent()

__all__ = [
    "CHOICES",
    "activate",
    "activate_backward",
    "attention",
    "attention_backward",
    "chosen",
    "convolve",
    "convolve_inputs",
    "convolve_weights",
    "erf",
    "gate",
    "gate_backward",
    "gather_images",
    "gather_windows",
    "gru",
    "gru_backward",
    "gru_before",
    "gru_before_backward",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_inputs",
    "linear_weights",
    "lstm",
    "lstm_backward",
    "max_pool",
    "max_pool_backward",
    "max_pool_tangent",
    "moments",
    "normalise",
    "normalise_backward",
    "normalise_sums",
    "plan",
    "reference_gates",
    "relu",
    "relu_backward",
    "rotate",
    "rms_norm",
    "rms_norm_backward",
    "softmax",
    "sparse_inputs",
    "sparse_linear",
    "sparse_values",
    "sum_by_word",
    "sum_rows",
    "sum_windows",
    "taps",
    "use",
]

CHOICES = ("fast", "accurate", "reference")
_chosen = "fast"


def use(which):
    """Choose "fast", "accurate" or "reference" for all layers."""
    global _chosen
    if which not in CHOICES:
        raise UserError(f"kernels must be one of {', '.join(map(repr, CHOICES))}, got {which!r}")
    _chosen = which
    cpu.tiles = (0, 2) if which == "accurate" else (0, 2, 4)
    gpu.convolutions.accurate = which == "accurate"


def chosen():
    """What was chosen."""
    return _chosen


def plan():
    """ "reference" where layers run as they were given, else "fast": composites run their fused layers."""
    return "reference" if _chosen == "reference" else "fast"


def alike(arguments):
    """Whether compiled loops take these arrays: contiguous, writable, not empty, of one floating dtype."""
    first = None
    for a in arguments:
        if isinstance(a, np.ndarray):
            if type(a) is not np.ndarray or not a.flags.carray or not a.size:
                return False
            dtype = a.dtype
            if dtype is not first and dtype.kind == "f":
                if first is not None and dtype != first or dtype.char not in "fd" or not dtype.isnative:
                    return False
                first = dtype
    return True


def either(plain, **fast):
    """The function of `plain`: computed by fast[device] where its first array lives on that device, else by `plain`."""

    @functools.wraps(plain)
    def call(*arguments):
        if _chosen != "reference":
            device = backend.owner(arguments[0]).name
            replacement = fast.get(device)
            if replacement is not None and (alike if device == "cpu" else gpu.takes)(arguments):
                if device != "cpu":
                    return replacement(*arguments)
                try:
                    return replacement(*arguments)
                except MemoryError:
                    raise
                except Exception as error:  # it does not compile; the loops themselves raise nothing
                    warn(error)
                    fast["cpu"] = None
        return plain(*arguments)

    call.fast = fast
    return call


linear = either(reference.linear, cpu=matrices.linear, gpu=gpu.convolutions.linear)
linear_inputs = either(reference.linear_inputs, cpu=matrices.linear_inputs, gpu=gpu.convolutions.linear_inputs)
linear_weights = either(reference.linear_weights, cpu=matrices.linear_weights, gpu=gpu.convolutions.linear_weights)
sum_rows = either(reference.sum_rows, cpu=matrices.sum_rows, gpu=gpu.norms.sum_rows)
sum_by_word = either(reference.sum_by_word, cpu=matrices.sum_by_word, gpu=gpu.pixels.sum_by_word)
convolve = either(reference.convolve, cpu=cpu.convolve, gpu=gpu.convolutions.convolve)
convolve_inputs = either(reference.convolve_inputs, cpu=cpu.convolve_inputs, gpu=gpu.convolutions.convolve_inputs)
convolve_weights = either(reference.convolve_weights, cpu=cpu.convolve_weights, gpu=gpu.convolutions.convolve_weights)
gather_windows = either(reference.gather_windows, gpu=gpu.convolutions.gather_windows)
sum_windows = either(reference.sum_windows, gpu=gpu.convolutions.sum_windows)
gather_images = either(reference.gather_images, cpu=cpu.gather_images, gpu=gpu.pixels.gather_images)
moments = either(reference.moments, cpu=norms.moments, gpu=gpu.norms.moments)
normalise = either(reference.normalise, cpu=norms.normalise, gpu=gpu.norms.normalise)
normalise_sums = either(reference.normalise_sums, cpu=norms.normalise_sums, gpu=gpu.norms.normalise_sums)
normalise_backward = either(
    reference.normalise_backward, cpu=norms.normalise_backward, gpu=gpu.norms.normalise_backward
)
relu = either(reference.relu, cpu=cpu.relu, gpu=gpu.pixels.relu)
relu_backward = either(reference.relu_backward, cpu=cpu.relu_backward, gpu=gpu.pixels.relu_backward)
max_pool = either(reference.max_pool, cpu=pooling.max_pool, gpu=gpu.pixels.max_pool)
max_pool_backward = either(reference.max_pool_backward, cpu=pooling.max_pool_backward, gpu=gpu.pixels.max_pool_backward)
max_pool_tangent = either(reference.max_pool_tangent, cpu=pooling.max_pool_tangent)
softmax = either(reference.softmax, cpu=cpu.softmax, gpu=gpu.pixels.softmax)
erf = either(reference.erf, cpu=cpu.erf, gpu=gpu.pixels.erf)
lstm = either(reference_recurrent.lstm, cpu=recurrent.lstm, gpu=gpu.recurrent.lstm)
lstm_backward = either(reference_recurrent.lstm_backward, cpu=recurrent.lstm_backward, gpu=gpu.recurrent.lstm_backward)
gru = either(reference_recurrent.gru, cpu=recurrent.gru, gpu=gpu.recurrent.gru)
gru_backward = either(reference_recurrent.gru_backward, cpu=recurrent.gru_backward, gpu=gpu.recurrent.gru_backward)
gru_before = either(reference_recurrent.gru_before)
gru_before_backward = either(reference_recurrent.gru_before_backward)
activate = either(reference_gates.activate, cpu=gates.activate, gpu=gpu.gates.activate)
activate_backward = either(
    reference_gates.activate_backward, cpu=gates.activate_backward, gpu=gpu.gates.activate_backward
)
gate = either(reference_gates.gate, cpu=gates.gate, gpu=gpu.gates.gate)
gate_backward = either(reference_gates.gate_backward, cpu=gates.gate_backward, gpu=gpu.gates.gate_backward)
layer_norm = either(reference_rows.layer_norm, cpu=rows.layer_norm, gpu=gpu.row_norms.layer_norm)
layer_norm_backward = either(
    reference_rows.layer_norm_backward, cpu=rows.layer_norm_backward, gpu=gpu.row_norms.layer_norm_backward
)
rms_norm = either(reference_rows.rms_norm, cpu=rows.rms_norm, gpu=gpu.row_norms.rms_norm)
rms_norm_backward = either(
    reference_rows.rms_norm_backward, cpu=rows.rms_norm_backward, gpu=gpu.row_norms.rms_norm_backward
)
attention = either(reference_attention.attention, cpu=attention_blocks.attention, gpu=gpu.attention.attention)
attention_backward = either(
    reference_attention.attention_backward,
    cpu=attention_blocks.attention_backward,
    gpu=gpu.attention.attention_backward,
)
rotate = either(reference_rows.rotate, cpu=rows.rotate, gpu=gpu.row_norms.rotate)
sparse_linear = either(reference_sparse.sparse_linear, cpu=sparse.sparse_linear)
sparse_inputs = either(reference_sparse.sparse_inputs, cpu=sparse.sparse_inputs)
sparse_values = either(reference_sparse.sparse_values, cpu=sparse.sparse_values)
