"""A full training step (forward, loss, backward, momentum update) of each network, beside PyTorch on the same cores.

    python benchmarks/nn_cpu.py --write

Both sides see the same batch again and again. PyTorch runs eagerly, in the memory format that is faster for it (NCHW
or channels last, tried here), with its fused SGD. The last column is npopt's time as a part of torch.compile's. Peak
memory is what three steps add to the resident set of a process. This process has made a step of batch 2 before, so
libraries and compiled code are there already. The number is the median of three such processes.
"""

from pairs import Table, arguments, beside_compiled, repeat, timed, torch  # isort: skip (before NumPy)
from peaks import added, peak  # isort: skip
from steps import ours, theirs  # isort: skip

import functools

from npopt import backend

CASES = {
    "LeNet-5, batch 64": ("lenet", 64),
    "LeNet-5, batch 256": ("lenet", 256),
    "MLP, batch 256": ("mlp", 256),
    "VGG-11, batch 128": ("vgg", 128),
    "ResNet-18, batch 128": ("resnet", 128),
    "ResNet-18 of width 8, batch 128": ("resnet8", 128),
    "ResNet-18 of width 16, batch 128": ("resnet16", 128),
    "ResNet-18 of width 32, batch 128": ("resnet32", 128),
}
TARGETS = {
    "LeNet-5, batch 64": 0.45,
    "LeNet-5, batch 256": 0.5,
    "MLP, batch 256": 0.8,
    "VGG-11, batch 128": 0.7,
    "ResNet-18, batch 128": 0.65,
    "ResNet-18 of width 8, batch 128": 0.45,
    "ResNet-18 of width 16, batch 128": 0.5,
    "ResNet-18 of width 32, batch 128": 0.45,
}


def main():
    p = arguments(__doc__, rounds=11)
    p.add_argument("--peak", nargs=3, metavar=("SIDE", "CASE", "SIZE"), help="print one side's peak memory, in bytes")
    p.add_argument("--only", default="", help="only cases whose name contains this")
    args = p.parse_args()
    backend.threads(args.threads)
    if torch:
        torch.set_num_threads(args.threads)
    if args.peak:
        side, case, size = args.peak[0], args.peak[1], int(args.peak[2])

        def made(rows):
            return ours(case, rows) if side == "ours" else theirs(case, rows, side == "last")

        print(added(made, 2, size))
        return
    rival = f"PyTorch {torch.__version__.split('+')[0]}" if torch else "no PyTorch"
    table = Table(
        f"Full training step, float32, {args.threads} threads each, alternated",
        "npopt",
        rival,
        ("format", "peak npopt", f"peak {rival.split()[0]}", "torch.compile"),
    )
    notes = []
    for name, (case, size) in CASES.items():
        if args.only not in name:
            continue
        mine, other, layout = ours(case, size), None, "-"
        if torch:
            pair = {last: theirs(case, size, last) for last in (False, True)}
            fast = min(pair, key=lambda last: min(timed(pair[last], repeat(pair[last])) for _ in range(3)))
            other, layout = pair[fast], "channels last" if fast else "NCHW"
        sides = ("ours", "last" if layout == "channels last" else "nchw")
        peaks = [peak(__file__, args.threads, s, case, size) if torch or s == "ours" else None for s in sides]
        rounds = args.rounds if case in ("lenet", "mlp") else max(3, args.rounds // 2)
        memory = [f"{b / 2**20:.0f} MiB" if b else "-" for b in peaks]
        made = functools.partial(theirs, case, size, layout == "channels last", compiled=True)
        compiled = beside_compiled(mine, made, rounds) if torch else "-"
        found = table.add(name, mine, other, rounds, layout, *memory, compiled)
        if torch:
            notes.append(f"{name}: {found:.2f} (target {TARGETS[name]}), memory {peaks[0] / peaks[1]:.2f}")
    if torch:
        table.note(
            "Ratios: " + "; ".join(notes) + ". Target for the memory of ResNet-18: 1.1. AdamW on 11.2 M "
            "parameters stands in backend.txt."
        )
    if args.write:
        table.write("nn_cpu.txt")


if __name__ == "__main__":
    main()
