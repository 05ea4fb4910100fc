"""The stand-in GPU, with the kernels of a real one."""

import pathlib
import sys

from nn import kernels
from npopt import backend

import cudashim
import pytest

sys.path.append(str(pathlib.Path(__file__).parent.parent / "nn"))           # for the table of layers in test_layers
backend.DEVICES["shim"] = cudashim.Shim
kernels.FAST["shim"] = kernels.FAST["gpu"]


@pytest.fixture
def shim():
    """The test runs on the stand-in."""
    backend.use("shim")
    yield
    backend.use("cpu")
