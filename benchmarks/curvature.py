"""What a Hessian-vector product costs, in gradients and beside PyHessian's recipe; the memory of 100 Lanczos steps.

    python benchmarks/curvature.py --write

In gradients: a product beside one value_and_gradient of the same problem, alternated. "kept": the pass is kept for many
products, as Lanczos and power iteration do. "alone": the pass is made for one product. Differences need float64.

PyHessian's recipe (Yao, Gholami, Keutzer & Mahoney, arXiv:1912.07145): one gradient with create_graph=True, then for
each vector torch.autograd.grad(gradient, parameters, grad_outputs=v, retain_graph=True). The same network, batch and
layout of float32 numbers on both sides (PyTorch: the faster of NCHW and channels last), batch norm in training mode.

Memory: what a gradient, and then 100 steps of Lanczos with float32 vectors, add to the resident set of a process that
has made products of a batch of 2 before; the median of three processes. Beside it the vectors that are kept.
"""

import subprocess
import sys

from pairs import Table, arguments, repeat, timed, torch  # isort: skip (before NumPy)
from peaks import resident  # isort: skip
from steps import NETWORKS, batch, dataset, rivals  # isort: skip

from npopt import backend
from npopt.analysis import hessian, lanczos
from problems.feeds import Images
from problems.neural import Neural

import numpy as np

CASES = {
    "MLP, batch 1000": ("mlp", 1000),
    "LeNet-5, batch 256": ("lenet", 256),
    "ResNet-18 of width 16, batch 64": ("resnet16", 64),
}
KINDS = (("exact, kept", 2.5), ("exact, alone", None), ("Gauss-Newton, kept", None), ("differences", 2.2))
RIVAL, STEPS = 0.6, 100


class Side:
    """A problem with a point, a direction and its rows."""

    def __init__(self, case, size, dtype="float32"):
        self.problem = Neural(NETWORKS[case](), Images(dataset(*batch(case, size))), dtype=dtype)
        self.x = self.problem.x0(backend.generator(0, "x0"))
        self.v = np.random.default_rng(0).standard_normal(self.x.size).astype(dtype)
        self.g, self.rows = np.empty_like(self.x), np.arange(size)

    def gradient(self):
        self.problem.value_and_gradient(self.x, self.rows, None, self.g)

    def product(self, kind="exact, kept"):
        """A function that makes one product."""
        if kind == "differences":
            difference = hessian(self.problem, self.x, self.rows, "differences")
            return lambda: difference(self.v)
        if kind == "exact, alone":
            return lambda: self.kept()(self.v)
        kept = self.kept()
        chosen = kept.gauss_newton if kind.startswith("Gauss") else kept
        return lambda: chosen(self.v)

    def kept(self):
        """v -> H v, of a pass that is kept."""
        return self.problem.curvature(self.x, self.rows)


def theirs(case, size, channels_last, kept):
    """PyHessian's product; kept: the gradient's graph is made once."""
    images, labels = batch(case, size)
    x, y = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))), torch.from_numpy(labels)
    network = rivals()[case]()
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    parameters = list(network.parameters())
    torch.manual_seed(0)
    v = [torch.randn_like(p) for p in parameters]

    def graph():
        loss = torch.nn.functional.cross_entropy(network(x), y)
        return torch.autograd.grad(loss, parameters, create_graph=True)

    made = graph() if kept else None

    def product():
        g = graph() if made is None else made
        torch.autograd.grad(g, parameters, grad_outputs=v, retain_graph=kept)

    return product


def in_gradients(args):
    """The table of costs."""
    table, notes = Table(f"Products in gradients, {args.threads} threads", "product", "gradient"), []
    for name, (case, size) in CASES.items():
        if args.only not in name:
            continue
        for dtype in ("float32", "float64"):
            side = Side(case, size, dtype)
            for kind, target in KINDS:
                if kind == "differences" and dtype == "float32":
                    continue
                ratio = table.add(f"{case} {dtype}: {kind}", side.product(kind), side.gradient, args.rounds)
                if target:
                    notes.append(f"{case} {dtype} {kind} {ratio:.2f} (target {target})")
    table.note("; ".join(notes))
    return table


def beside_pyhessian(args):
    """The table of ratios."""
    rival = f"PyTorch {torch.__version__.split('+')[0]}" if torch else "no PyTorch"
    table, notes = Table(f"Hessian-vector product, float32, {args.threads} threads", "npopt", rival, ("format",)), []
    for name, (case, size) in CASES.items():
        if args.only not in name:
            continue
        for kept in (True, False):
            mine, other, layout = Side(case, size).product("exact, kept" if kept else "exact, alone"), None, "-"
            if torch:
                pair = {last: theirs(case, size, last, kept) for last in (False, True)}
                fast = min(pair, key=lambda last: min(timed(pair[last], repeat(pair[last])) for _ in range(3)))
                other, layout = pair[fast], "channels last" if fast else "NCHW"
            ratio = table.add(f"{case}: {'kept' if kept else 'alone'}", mine, other, args.rounds, layout)
            notes.append(f"{case} {'kept' if kept else 'alone'} {ratio:.2f} (target {RIVAL})")
    if torch:
        table.note("; ".join(notes))
    return table


def measure(case, size):
    """Print what a gradient and then Lanczos add to this process's resident set."""
    small = Side(case, 2)
    small.gradient()
    lanczos(small.kept(), small.x.size, 2, dtype="float32")
    before, side = resident()[0], Side(case, size)
    side.gradient()
    gradient = resident()[1] - before
    found = lanczos(side.kept(), side.x.size, STEPS, dtype="float32")
    print(gradient, resident()[1] - before, side.x.nbytes * (STEPS + 1), found.values[-1])


def memory(args):
    """Lines of the third part."""
    lines = [f"Memory of {STEPS} Lanczos steps, float32, MiB", ""]
    for name, (case, size) in CASES.items():
        if args.only not in name:
            continue
        command = [sys.executable, __file__, "--threads", str(args.threads), "--measure", case, str(size)]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(3)]
        gradient, peak, vectors = (sorted(float(run[i]) / 2**20 for run in runs)[1] for i in range(3))
        lines.append(
            f"{name:34} a gradient {gradient:.0f}, Lanczos {peak:.0f}, of which vectors {vectors:.0f}: beside them "
            f"{(peak - vectors) / gradient:.1f} times a gradient"
        )
    return "\n".join(lines)


def main():
    p = arguments(__doc__, rounds=9)
    p.add_argument("--only", default="", help="only cases whose name contains this")
    p.add_argument("--measure", nargs=2, metavar=("CASE", "SIZE"), help="print the memory of one case, in bytes")
    p.add_argument("--part", choices=("gradients", "rival", "memory"), help="one table alone")
    args = p.parse_args()
    backend.threads(args.threads)
    if torch:
        torch.set_num_threads(args.threads)
    if args.measure:
        measure(args.measure[0], int(args.measure[1]))
        return
    lines = []
    for part, table in (("gradients", in_gradients), ("rival", beside_pyhessian)):
        if args.part in (None, part):
            lines += [*table(args).lines, ""]
    if args.part in (None, "memory"):
        text = memory(args)
        print("\n" + text)
        lines.append(text)
    if args.write:
        table = Table.__new__(Table)
        table.lines = lines
        table.write("curvature.txt")


if __name__ == "__main__":
    main()
