"""CUDA C++ behind the layers' pieces: the functions of reference.py for CuPy arrays, one launch or two each.

The sources are the .cu files of this folder; CuPy compiles them when they are first used. `attention`, `convolutions`,
`winograd`, `tensor`, `norms`, `row_norms`, `pixels` and `recurrent` call them and count their bytes and operations.
Nothing uses atomics. The order of every sum depends on shapes alone. So a step gives the same bits again. Matrix
products are cuBLAS's, float32 in full unless backend.precision("tf32") is set. Activations may be float16 or bfloat16:
parameters, their gradients, statistics and sums stay float32.
"""

from . import attention, convolutions, gates, norms, pixels, recurrent, row_norms, tensor, winograd
from .launch import takes

__all__ = [
    "PROGRAMS",
    "attention",
    "convolutions",
    "gates",
    "norms",
    "pixels",
    "recurrent",
    "row_norms",
    "takes",
    "tensor",
    "winograd",
]

PROGRAMS = (
    convolutions.program,
    winograd.program,
    tensor.program,
    attention.program,
    attention.tensor_program,
    norms.program,
    row_norms.program,
    pixels.rows_program,
    pixels.pools_program,
    recurrent.program,
)
