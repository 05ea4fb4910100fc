"""The stand-in GPU, with the kernels of a real one."""

import pathlib
import sys

from nn import kernels
from npopt import backend

import cudashim
import pytest

for _room in ("nn", "problems"):  # for the table of layers in test_layers, and the problems of test_stretches
    sys.path.append(str(pathlib.Path(__file__).parent.parent / _room))
backend.DEVICES["shim"] = cudashim.Shim
for _piece in vars(kernels).values():
    if "gpu" in getattr(_piece, "fast", ()):
        _piece.fast["shim"] = _piece.fast["gpu"]


@pytest.fixture
def shim():
    """The test runs on the stand-in."""
    backend.use("shim")
    yield
    backend.use("cpu")
