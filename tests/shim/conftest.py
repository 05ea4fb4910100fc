"""The stand-in GPU, with the kernels of a real one."""

from nn import kernels
from npopt import backend

import cudashim
import pytest

backend.DEVICES["shim"] = cudashim.Shim
kernels.FAST["shim"] = kernels.FAST["gpu"]


@pytest.fixture
def shim():
    """The test runs on the stand-in."""
    backend.use("shim")
    yield
    backend.use("cpu")
