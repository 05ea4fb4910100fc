"""What a loss surface of 51 x 51 points costs, beside PyTorch's way of drawing one.

    python benchmarks/surfaces.py --write

A row of the surface, 51 points, is timed; there are 51 of them. PyTorch's side is the recipe of Li et al., NeurIPS
2018: at each point the parameters are set to w + a d + b e, tensor by tensor, and the network runs in evaluation mode
without gradients, on the same rows, all of them in one batch or in batches of 64, whichever is faster. Float32.
"""

from pairs import Table, arguments, repeat, timed, torch  # isort: skip (before NumPy)
from steps import NETWORKS, batch, dataset, rivals  # isort: skip

from nn.networks import mlp
from npopt import backend
from npopt.analysis import Plane, loss_surface, random_direction
from problems.feeds import Images
from problems.neural import Neural

import numpy as np

BOOK = (784, 256, 192, 128, 64, 10)
NETWORKS = NETWORKS | {"book": lambda: mlp(BOOK)}
CASES = {  # name: (network, images, seconds on two cores)
    "MLP 784-128-56-10, 1000 images": ("mlp", 1000, 20),
    "MLP of the book, 1000 images": ("book", 1000, 20),
    "ResNet-18 of width 16, 256 images": ("resnet16", 256, 180),
}
SIDE = np.linspace(-1, 1, 51)


def images(case, size):
    return batch("mlp" if case == "book" else case, size)


def ours(case, size, statistics="running", **more):
    """A function that takes a row of the surface."""
    problem = Neural(NETWORKS[case](), Images(dataset(*images(case, size))))
    x = problem.x0(backend.generator(0, "x0"))
    plane = Plane(x, np.stack([random_direction(problem, x, number=k) for k in (0, 1)]))
    return lambda: loss_surface(problem, plane, SIDE, [0.5], statistics=statistics, **more)


def theirs(case, size):
    """PyTorch's, by batches of so many rows."""
    x, y = images(case, size)
    x, y = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))), torch.from_numpy(y)
    network = rivals()[case]() if case != "book" else torch_mlp()
    network.eval()
    start = [p.detach().clone() for p in network.parameters()]
    directions = [[torch.randn_like(p) for p in start] for _ in range(2)]

    def row(rows):
        losses = []
        with torch.no_grad():
            for a in SIDE.tolist():
                for p, w, d, e in zip(network.parameters(), start, *directions, strict=True):
                    p.copy_(w + a * d + 0.5 * e)
                total = 0.0
                for first in range(0, size, rows):
                    some = slice(first, first + rows)
                    total += torch.nn.functional.cross_entropy(network(x[some]), y[some], reduction="sum").item()
                losses.append(total / size)
        return losses

    ways = [lambda rows=rows: row(rows) for rows in (size, 64)]
    return min(ways, key=lambda way: min(timed(way, repeat(way)) for _ in range(2)))


def torch_mlp():
    layers = [torch.nn.Flatten()]
    for a, b in zip(BOOK[:-1], BOOK[1:], strict=True):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def main():
    p = arguments(__doc__, rounds=5)
    p.add_argument("--only", default="", help="only cases whose name contains this")
    args = p.parse_args()
    backend.threads(args.threads)
    if torch:
        torch.set_num_threads(args.threads)
    rival = f"PyTorch {torch.__version__.split('+')[0]}" if torch else "no PyTorch"
    table, notes = Table(f"A row of 51 points, float32, {args.threads} threads", "npopt", rival), []
    for name, (case, size, target) in CASES.items():
        if args.only not in name:
            continue
        row = ours(case, size)
        table.add(name, row, theirs(case, size) if torch else None, args.rounds)
        seconds = 51 * min(timed(row, 1) for _ in range(args.rounds))
        notes.append(f"{name}: {seconds:.1f} s a surface of 51 x 51 (target {target})")
        if "ResNet" in name:
            table.add("  statistics of the rows", ours(case, size, "rows"), None, args.rounds)
    table.note("; ".join(notes))
    if args.write:
        table.write("surfaces.txt")


if __name__ == "__main__":
    main()
