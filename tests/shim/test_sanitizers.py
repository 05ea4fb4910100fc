"""The CUDA sources under the sanitizers of g++: the tests that run them, once more, in a process of their own.

UBSan ends the process at a signed overflow, a wrong shift, an index outside of a local array, or an address that is not
a multiple of what its type asks for. ASan sees reads and writes outside: the zones around device arrays are poisoned,
and so is memory that was freed. It has to be loaded before Python, by LD_PRELOAD, and looks for no leaks, of which
Python's start has many. A fibre's stack is memory like any other to it; when one fibre jumps to the next, ASan says
once that it leaves an unknown stack as it is ("ignoring requested __asan_handle_no_return"). That is what is wanted:
the zones around the local arrays of a fibre that waits stay in place. Only fibres that a failed launch leaves behind
have to be cleaned (shim.h).
"""

import os
import pathlib
import subprocess
import sys

import cudashim
import pytest

HERE = pathlib.Path(__file__).parent
MODULES = (
    *("cuda_kernels", "cuda_attention", "cuda_rows", "cuda_formulas", "cuda_codes", "cuda_recurrent", "cuda_sparse"),
    *("cuda_stretches", "cuda_networks", "half", "tensor"),
)
OTHERS = {"shim", "sanitizers", "nn_gpu", "recorded", "cuda_attacks"}  # faults on purpose, the same kernels again
CODE = """
import sys
sys.path[:0] = [{tests!r}, {here!r}]
import numpy as np, cudashim
from npopt import backend
backend.DEVICES["shim"] = cudashim.Shim
backend.use("shim")
source = '''extern "C" __global__ void run(float* y, int by) {{
    float local[4] = {{0, 1, 2, 3}};
    {statement}
    y[threadIdx.x] += local[threadIdx.x % 4];
}}'''
y = backend.zeros((64,), "float32")
cudashim.RawModule(code=source).get_function("run")((1,), (64,), (y, np.int32(4)))
print("ran")
"""
FINE = "y[threadIdx.x] = by; __syncthreads();"
FAULTS = [
    ("undefined", "y[threadIdx.x] = 2147483647 - 3 + by;", "signed integer overflow"),
    ("undefined", "y[threadIdx.x] = 1 << (by + 28);", "shift exponent"),
    ("undefined", "local[threadIdx.x % 4 + by] = 1;", "index 4 out of bounds"),
    ("undefined", "*(float*)((char*)y + by - 3) = 1;", "misaligned address"),
    ("address", "y[threadIdx.x] = y[threadIdx.x + by];", "use-after-poison"),
    ("address", "y[(int)threadIdx.x - by] = 1;", "use-after-poison"),
    ("address", "__syncthreads(); float* p = local; y[threadIdx.x] = p[by];", "stack-buffer-overflow"),
]


def library(name):
    """The path of a sanitizer's library, or None."""
    if cudashim.COMPILER is None:
        return None
    asked = subprocess.run([cudashim.COMPILER, f"-print-file-name={name}"], capture_output=True, text=True)
    found = pathlib.Path(asked.stdout.strip())
    return str(found.resolve()) if found.is_absolute() and found.exists() else None


def python(sanitizers, *arguments):
    """A process with the shim's kernels compiled for these sanitizers."""
    env = {**os.environ, "SHIM_SANITIZE": sanitizers, "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16"}
    if "address" in sanitizers:
        env |= {"LD_PRELOAD": library("libasan.so"), "PYTHONMALLOC": "malloc"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env, cwd=HERE.parent.parent)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(library("libubsan.so") is None, reason="no sanitizers here"),
]
with_asan = pytest.mark.skipif(library("libasan.so") is None, reason="no libasan here")


def script(statement):
    return "-c", CODE.format(tests=str(HERE.parent), here=str(HERE), statement=statement)


@pytest.mark.parametrize("sanitizers, statement, message", [pytest.param(*f, marks=with_asan) for f in FAULTS])
def test_faults_are_found(sanitizers, statement, message):
    done = python(sanitizers, *script(statement))
    assert done.returncode and message in done.stderr and "ran" not in done.stdout, done.stderr


@pytest.mark.parametrize("sanitizers", ["undefined", pytest.param("address", marks=with_asan)])
def test_kernels_without_faults_run(sanitizers):
    done = python(sanitizers, *script(FINE))
    assert done.returncode == 0 and "ran" in done.stdout, done.stderr


@pytest.mark.parametrize("sanitizers", ["undefined", pytest.param("address", marks=with_asan)])
@pytest.mark.parametrize("module", MODULES)
def test_the_sources_have_no_such_fault(module, sanitizers):
    words = ("-m", "pytest", "-x", "-p", "no:cacheprovider", "-k", "not nvcc", f"tests/shim/test_{module}.py")
    done = python(sanitizers, *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_no_module_is_forgotten():
    assert {p.stem for p in HERE.glob("test_*.py")} == {f"test_{name}" for name in {*MODULES, *OTHERS}}
