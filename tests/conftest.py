"""Fixtures of all tests; `--device gpu` runs those that take `device` on a GPU as well."""

import os

import numpy as np
import pytest

os.environ.setdefault("MPLBACKEND", "Agg")

from npopt import backend

import strict


def pytest_addoption(parser):
    parser.addoption("--device", choices=("cpu", "gpu"), default="cpu", help="also run the `device` tests on a GPU")


def pytest_configure(config):
    """One -q stands in pyproject.toml; with one more, pytest would not even say how many tests passed."""
    config.option.verbose = max(config.option.verbose, -1)


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        names = ["cpu", "strict", pytest.param("gpu", marks=pytest.mark.gpu)]
        metafunc.parametrize("device", names, indirect=True)


def pytest_make_parametrize_id(val, argname):
    """Bytes name a test by their argument: what is packed carries the time, and workers must agree on names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(config, items):
    """Without --device gpu, the tests marked gpu are left out, not counted as skipped."""
    if config.getoption("--device") != "gpu":
        left = [item for item in items if item.get_closest_marker("gpu")]
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]
        config.hook.pytest_deselected(items=left)


@pytest.fixture
def device(request):
    """The test runs on the CPU, on the strict stand-in for a GPU, and with --device gpu on a real one."""
    backend.use(request.param)
    yield request.param
    backend.use("cpu")


@pytest.fixture(autouse=True)
def _threads(request):
    """Results must not depend on what an earlier test set. Two threads, or what a file's THREADS says: where loops take
    a microsecond, to wake a second thread for each takes most of the time. The tests of the loops themselves, such as
    tests/nn/test_layers.py, run on two."""
    backend.use("cpu")
    backend.threads(min(getattr(request.module, "THREADS", 2), backend.cores()))
    yield


@pytest.fixture
def rng():
    return np.random.default_rng(12345)


backend.DEVICES["strict"] = strict.Strict
