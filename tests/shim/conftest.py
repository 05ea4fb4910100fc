"""The stand-in GPU, with the kernels of a real one."""

import pathlib
import sys

from nn import kernels
from npopt import backend

import cudashim
import pytest

sys.path.append(str(pathlib.Path(__file__).parent.parent / "nn"))  # for the table of layers in test_layers
backend.DEVICES["shim"] = cudashim.Shim
for _piece in vars(kernels).values():
    if hasattr(_piece, "fast"):
        _piece.fast["shim"] = _piece.fast["gpu"]


@pytest.fixture
def shim():
    """The test runs on the stand-in."""
    backend.use("shim")
    yield
    backend.use("cpu")
