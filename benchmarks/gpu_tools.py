"""What the GPU's benchmarks share: a report that is printed as it grows, times with the device waited for, noise."""

import time

from pairs import torch  # isort: skip (before NumPy)

from npopt import backend

SAMPLE = 0.03  # seconds


class Report:
    """Lines, printed as they come."""

    def __init__(self, *lines):
        self.lines = []
        self.add(*lines)

    def add(self, *lines):
        self.lines += lines
        print("\n".join(lines), flush=True)

    def heading(self, title, *columns):
        head = f"{columns[0]:44}" + "".join(f"{c:>14}" for c in columns[1:])
        self.add("", title, "", head, "-" * len(head))

    def row(self, *cells):
        self.add(f"{cells[0]:44}" + "".join(f"{c:>14}" for c in cells[1:]))


def wait():
    backend.synchronize()
    if torch and torch.cuda.is_available():
        torch.cuda.synchronize()


def sample(function, calls):
    """Seconds of a call, from the mean of `calls` calls. The device is idle before and after."""
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    wait()
    return (time.perf_counter() - start) / calls


def calls_of(function):
    """How many calls take SAMPLE seconds; warms up on the way."""
    sample(function, 2)
    return max(1, int(SAMPLE / sample(function, 1)))


def best(function, rounds=5):
    """Seconds of a call, the smallest of some samples: for limits and passes."""
    calls = calls_of(function)
    return min(sample(function, calls) for _ in range(rounds))


def products(name):
    """Both sides take products of float32 numbers in this precision from now on."""
    backend.precision(name)
    if torch:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"


def noise(*shape):
    """Numbers in (-1/2, 1/2), made on the device."""
    out = backend.empty(shape, "float32")
    backend.row_uniform(backend.key(0, "noise"), None, out.reshape(1, -1))
    out -= 0.5
    return out
