"""The cost of the five lines: AdamW on a large vector beside PyTorch, a formula beside its maths, a step of the loop.

python benchmarks/backend.py --write
"""

import os
import subprocess
import sys

from pairs import Table, arguments, repeat, timed, torch  # isort: skip (before NumPy)

from npopt import SGD, Accumulated, Adam, AdamW, Clipped, WithReplacement, backend, minimize
from npopt.optimizers.adamw import adamw
from problems import LeastSquares, Logistic

import numpy as np

args = arguments(__doc__).parse_args()
backend.threads(args.threads)
if torch:
    torch.set_num_threads(args.threads)

N = 11_173_962
rng = np.random.default_rng(0)
x, g = rng.standard_normal(N).astype("float32"), rng.standard_normal(N).astype("float32")
ours = AdamW()
ours.start(x)
theirs = None
if torch:
    p = torch.nn.Parameter(torch.from_numpy(x.copy()))
    p.grad = torch.from_numpy(g.copy())
    theirs = torch.optim.AdamW([p], lr=1e-3, fused=True).step

table = Table(
    f"AdamW on {N:,} float32 parameters, {args.threads} threads",
    "npopt",
    f"PyTorch {torch.__version__.split('+')[0]}" if torch else "no PyTorch",
)
ratio = table.add("AdamW step (PyTorch: fused)", lambda: ours.step(x, g, 1e-3), theirs, args.rounds)
if torch:
    table.note(f"Target: at most 1.00; measured {ratio:.2f}.")

small = [np.zeros(10) for _ in range(4)]
numbers = (0.1, 0.9, 0.99, 1e-8, 0.1, 1.0, 1.0)
compiled = adamw.loop(("x", "m", "v", "g"), "float64", False)
n = repeat(lambda: adamw(*small, *numbers))
pair = (lambda: adamw(*small, *numbers), lambda: compiled(*small, *numbers, 0))
whole, maths = (min(timed(f, n) for _ in range(args.rounds)) * 1e6 for f in pair)
table.note(
    f"A formula with 4 arrays of 10 numbers and 7 scalars: {whole:.2f} us, of which the compiled loop with its "
    f"own call {maths:.2f} us; beside the maths: {whole - maths:.2f} us (target 3)."
)

A, b = rng.standard_normal((1000, 10)), rng.standard_normal(1000)
problem, lines = LeastSquares(A, b), []
for name, optimizer, estimator in (
    ("SGD", SGD(), None),
    ("Adam", Adam(), None),
    ("SGD with Clipped(Accumulated(1))", SGD(), Clipped(1.0, Accumulated(1))),
):
    best = min(
        run.final["seconds"] / run.final["step"]
        for run in (
            minimize(
                problem, optimizer, WithReplacement(1), 1e-3, estimator, stop=dict(epochs=50), events=dict(metrics=None)
            )
            for _ in range(args.rounds)
        )
    )
    lines.append(f"{name} {best * 1e6:.1f} us")
table.note(
    "One step of the loop, least squares with 10 weights, batch 1, best of the rounds (target 8 for SGD and "
    "Adam): " + ", ".join(lines) + "."
)
row, w, one = Logistic(A, np.where(b > 0, 1, -1), 0.1), np.zeros(10), np.empty(10)
n = repeat(lambda: row.value_and_gradient(w, np.array([3]), None, one))
best = min(timed(lambda: row.value_and_gradient(w, np.array([3]), None, one), n) for _ in range(args.rounds))
table.note(f"Value and gradient of one row, logistic regression with 10 weights: {best * 1e6:.2f} us.")
LATE = """
FIRST
import time, types
import npopt, nn, problems, numpy as np
from problems.feeds import Images
npopt.backend.threads(THREADS)
rng = np.random.default_rng(0)
data = types.SimpleNamespace(name="noise", x_train=rng.standard_normal((64, 28, 28, 1)).astype("float32"),
                             y_train=rng.integers(0, 10, 64))
problem, seconds = problems.Neural(nn.lenet5(), Images(data)), []
x, g = problem.x0(rng), np.empty(problem.dim, "float32")
for t in range(400):
    start = time.perf_counter()
    problem.begin(t)
    problem.value_and_gradient(x, None, None, g)
    problem.commit()
    seconds.append(time.perf_counter() - start)
print(np.median(seconds[100:]))
"""


def lenet(first):
    """Seconds of a step of LeNet-5 at batch 64 in a process of its own, after the statement `first`: the median."""
    code = LATE.replace("FIRST", first).replace("THREADS", str(args.threads))
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    return float(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        ).stdout.split()[-1]
    )


pairs = [[lenet(first) for first in ("import numpy", "import npopt")] for _ in range(5)]
late, early = np.median(pairs, 0) * 1e3
table.note(
    f"A step of LeNet-5, batch 64: {late:.2f} ms where NumPy was imported first, {early:.2f} where npopt was, "
    f"a ratio of {late / early:.2f} (target 1.2)."
)
if args.write:
    table.write("backend.txt")
