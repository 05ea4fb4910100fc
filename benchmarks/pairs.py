"""Side by side: two ways of doing one thing, alternated in one process, so that both meet the same machine.

    table = Table("AdamW, 11.2 M float32", "ours", "PyTorch 2.13 fused")
    table.add("step", ours, theirs)
    table.write("backend.txt")

Each side waits for its threads in the way that suits it. npopt uses OpenBLAS, whose threads soon go to sleep (npopt
sets this when it is imported before NumPy). PyTorch is loaded before npopt and keeps its own policy.

A row is the median time of each side, the median of the ratios of neighbours, and their quartiles. Wall-clock time.
"""

import argparse
import gc
import os
import pathlib
import platform
import time

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

try:
    import torch
except ImportError:
    torch = None

import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"


def arguments(doc, rounds=15):
    """--rounds, --threads and --write of every benchmark."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=rounds, help="pairs to time (default: %(default)s)")
    p.add_argument("--threads", type=int, default=2, help="threads of both sides (default: %(default)s)")
    p.add_argument("--write", action="store_true", help="write the table to benchmarks/results")
    return p


def repeat(function, seconds=0.05):
    """How many calls take about so many seconds, and warm up on the way."""
    function()
    start = time.perf_counter()
    function()
    return max(1, int(seconds / max(time.perf_counter() - start, 1e-7)))


clock = time.perf_counter  # or time.process_time, the processor's time of all threads, where others use the machine


def timed(function, calls):
    start = clock()
    for _ in range(calls):
        function()
    return (clock() - start) / calls


def alternate(ours, theirs, rounds, calls=None):
    """(rounds,) seconds of each; theirs may be None. Which goes first changes from pair to pair. calls: of each in a
    round; None: as many as take 0.05 s."""
    calls = [calls or repeat(f) if f else 0 for f in (ours, theirs)]
    times = np.full((2, rounds), np.nan)
    gc.disable()
    for r in range(rounds):
        for side in ((0, 1), (1, 0))[r % 2]:
            if (ours, theirs)[side]:
                times[side, r] = timed((ours, theirs)[side], calls[side])
        gc.collect()
    gc.enable()
    return times


def beside_compiled(mine, make, rounds):
    """The median ratio of our step to that of make(), which torch.compile has compiled, as text. If it does not compile
    here, the text says why."""
    try:
        a, b = alternate(mine, make(), rounds)
    except Exception as error:  # no compiler for it, or one that it does not know
        return type(error).__name__
    return f"{np.median(a / b):.2f}"


def unit(seconds):
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1 or name == "us":
            return f"{seconds * factor:.3g} {name}"


def machine():
    """The processor in words, without names of hosts or paths."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                model = line.split(":")[1].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()}, Python {platform.python_version()}, NumPy {np.__version__}"


class Table:
    """Rows of pairs, printed as they come."""

    def __init__(self, title, ours="npopt", theirs="rival", columns=()):
        self.lines = [title, machine(), ""]
        self.columns = columns
        head = f"{'':34}{ours:>12}{theirs:>16}{'ratio':>9}{'quartiles':>16}" + "".join(f"{c:>16}" for c in columns)
        self.lines += [head, "-" * len(head)]
        print("\n".join(self.lines), flush=True)

    def add(self, name, ours, theirs, rounds, *more, calls=None):
        """Time a pair of functions and add its row; `more` fills the further columns. Returns the median ratio."""
        a, b = alternate(ours, theirs, rounds, calls)
        ratio = a / b
        low, high = np.nanpercentile(ratio, (25, 75)) if theirs else (np.nan, np.nan)
        line = f"{name:34}{unit(np.median(a)):>12}"
        line += (
            f"{unit(np.median(b)):>16}{np.median(ratio):>9.2f}{f'{low:.2f}-{high:.2f}':>16}"
            if theirs
            else (f"{'-':>16}{'-':>9}{'-':>16}")
        )
        line += "".join(f"{m:>16}" for m in more)
        self.lines.append(line)
        print(line, flush=True)
        return float(np.median(ratio))

    def note(self, text):
        self.lines += ["", text]
        print("\n" + text, flush=True)

    def write(self, name):
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / name).write_text("\n".join(self.lines) + "\n")
        print(f"written to benchmarks/results/{name}")
