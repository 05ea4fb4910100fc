"""What steps add to the resident set of a fresh process that has made a small one before, on Linux."""

import gc
import subprocess
import sys


def resident():
    """(now, peak) in bytes."""
    fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
    return [int(fields[k].split()[0]) * 1024 for k in ("VmRSS", "VmHWM")]


def peak(script, threads, *words):
    """Bytes that `script --peak words` says, the median of three processes; None where it cannot run."""
    command = [sys.executable, script, "--threads", str(threads), "--peak", *map(str, words)]
    done = [subprocess.run(command, capture_output=True, text=True) for _ in range(3)]
    return None if any(d.returncode for d in done) else sorted(int(d.stdout) for d in done)[1]


def added(make, small, large, steps=3):
    """Bytes that steps of make(large) add after one of make(small), when libraries, compilers and pools are there."""
    make(small)()
    gc.collect()  # what the small one had is gone
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is counted from here
    before = resident()[0]
    step = make(large)
    for _ in range(steps):
        step()
    return max(resident()[1] - before, 0)
