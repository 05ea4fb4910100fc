"""A full training step (forward, loss, backward, momentum update) of each network, beside PyTorch on the same cores.

    python benchmarks/nn_cpu.py --write

Both sides see the same batch again and again. PyTorch runs eagerly, in the memory format that is faster for it (NCHW
or channels last, tried here), with its fused SGD. Peak memory is what three steps add to the resident set of a process
that has made a step of batch 2 before, so that libraries and compiled code are there already, the median of three such
processes.
"""

import subprocess
import sys

from pairs import Table, arguments, repeat, timed, torch  # isort: skip (before NumPy)

import numpy as np

CASES = {"LeNet-5, batch 64": ("lenet", 64), "LeNet-5, batch 256": ("lenet", 256), "MLP, batch 256": ("mlp", 256),
         "VGG-11, batch 128": ("vgg", 128), "ResNet-18, batch 128": ("resnet", 128)}
TARGETS = {"LeNet-5, batch 64": 0.45, "LeNet-5, batch 256": 0.5, "MLP, batch 256": 0.8, "VGG-11, batch 128": 0.7,
           "ResNet-18, batch 128": 0.65}
SHAPES = {"lenet": (28, 28, 1), "mlp": (28, 28, 1), "vgg": (32, 32, 3), "resnet": (32, 32, 3)}


def batch(case, size):
    """Images and labels, the same for both sides."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((size, *SHAPES[case])).astype("float32"), rng.integers(0, 10, size)


def ours(case, size, threads):
    """A function that makes one step of npopt."""
    from types import SimpleNamespace

    from nn.networks import lenet5, mlp, resnet18, vgg
    from npopt import HeavyBall, backend
    from problems.feeds import Images
    from problems.neural import Neural

    backend.threads(threads)
    images, labels = batch(case, size)
    data = SimpleNamespace(name="noise", x_train=images, y_train=labels, x_test=None, y_test=None, mean=None, std=None,
                           scale=1.0, classes=tuple(range(10)), sha256="")
    network = {"lenet": lenet5, "mlp": mlp, "vgg": vgg, "resnet": resnet18}[case]()
    problem = Neural(network, Images(data))
    x = problem.x0(backend.generator(0, "x0"))
    g, optimizer, rows = np.empty_like(x), HeavyBall(0.9), np.arange(size)
    optimizer.start(x)
    t = 0

    def step():
        nonlocal t
        problem.begin(t)
        problem.value_and_gradient(x, rows, None, g)
        optimizer.step(x, g, 1e-4)
        problem.commit()
        t += 1

    return step


def theirs(case, size, threads, channels_last):
    """A function that makes one step of PyTorch."""
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(threads)

    class Block(nn.Module):
        def __init__(self, a, b, stride):
            super().__init__()
            self.one, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
            self.two, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
            self.short = nn.Sequential() if stride == 1 and a == b else nn.Sequential(
                nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))

        def forward(self, x):
            y = F.relu(self.bn1(self.one(x)), inplace=True)
            return F.relu(self.bn2(self.two(y)) + self.short(x), inplace=True)

    def resnet():
        layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(True)]
        width = 64
        for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [Block(width, channels, stride), Block(channels, channels, 1)]
            width = channels
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))

    def vgg():
        layers, width = [], 3
        for item in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
            if item == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(width, item, 3, 1, 1), nn.BatchNorm2d(item), nn.ReLU(True)]
            width = item
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))

    network = {
        "lenet": lambda: nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 56), nn.ReLU(),
                                     nn.Linear(56, 10)),
        "vgg": vgg, "resnet": resnet,
    }[case]()
    images, labels = batch(case, size)
    x, y = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))), torch.from_numpy(labels)
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, fused=True)

    def step():
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()

    return step


def resident():
    """(now, peak) in bytes."""
    fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
    return [int(fields[k].split()[0]) * 1024 for k in ("VmRSS", "VmHWM")]


def peak(side, case, size, threads):
    """Bytes that three steps add to a fresh process, the median of three; None where it cannot run."""
    command = [sys.executable, __file__, "--threads", str(threads), "--peak", side, case, str(size)]
    done = [subprocess.run(command, capture_output=True, text=True) for _ in range(3)]
    return None if any(d.returncode for d in done) else sorted(int(d.stdout) for d in done)[1]


def main():
    p = arguments(__doc__, rounds=11)
    p.add_argument("--peak", nargs=3, metavar=("SIDE", "CASE", "SIZE"), help="print one side's peak memory, in bytes")
    p.add_argument("--only", default="", help="only cases whose name contains this")
    args = p.parse_args()
    if args.peak:
        side, case, size = args.peak[0], args.peak[1], int(args.peak[2])

        def made(rows):
            if side == "ours":
                return ours(case, rows, args.threads)
            return theirs(case, rows, args.threads, side == "last")

        made(2)()                                               # libraries, compilers and pools are there now
        before = resident()[0]
        step = made(size)
        for _ in range(3):
            step()
        print(max(resident()[1] - before, 0))
        return
    rival = f"PyTorch {torch.__version__.split('+')[0]}" if torch else "no PyTorch"
    table = Table(f"Full training step, float32, {args.threads} threads each, alternated", "npopt", rival,
                  ("format", "peak npopt", f"peak {rival.split()[0]}"))
    notes = []
    for name, (case, size) in CASES.items():
        if args.only not in name:
            continue
        mine, other, layout = ours(case, size, args.threads), None, "-"
        if torch:
            pair = {last: theirs(case, size, args.threads, last) for last in (False, True)}
            fast = min(pair, key=lambda last: min(timed(pair[last], repeat(pair[last])) for _ in range(3)))
            other, layout = pair[fast], "channels last" if fast else "NCHW"
        sides = ("ours", "last" if layout == "channels last" else "nchw")
        peaks = [peak(s, case, size, args.threads) if torch or s == "ours" else None for s in sides]
        rounds = args.rounds if case in ("lenet", "mlp") else max(3, args.rounds // 2)
        found = table.add(name, mine, other, rounds, layout, *[f"{b / 2**20:.0f} MiB" if b else "-" for b in peaks])
        if torch:
            notes.append(f"{name}: {found:.2f} (target {TARGETS[name]}), memory {peaks[0] / peaks[1]:.2f}")
    if torch:
        table.note("Ratios: " + "; ".join(notes) + ". Target for the memory of ResNet-18: 1.1. AdamW on 11.2 M "
                   "parameters stands in backend.txt.")
    if args.write:
        table.write("nn_cpu.txt")


if __name__ == "__main__":
    main()
