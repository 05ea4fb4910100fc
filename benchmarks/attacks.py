"""PGD with 40 steps on images of MNIST's size beside PyTorch on the same cores: gradients of the inputs alone.

    python benchmarks/attacks.py --write

LeNet-5, eps 0.3, steps of 0.01 from the image itself, every row to the end. npopt also keeps the best perturbation of
each row, and evaluates the last one; PyTorch's loop does neither. Both sides have the same weights, briefly trained on
the images, so that gradients are no noise. Before they are timed, the answers that their attacks leave are compared.
PyTorch runs in each of its two layouts of memory; the faster one is the rival.
"""

import pairs  # isort: skip (before NumPy)
from pairs import Table, arguments, torch  # isort: skip
from steps import SHAPES, dataset, rivals  # isort: skip

import time

from nn.networks import lenet5
from npopt import HeavyBall, RandomReshuffling, Stop, backend, minimize
from problems.attacks import PGD, attacked
from problems.feeds import Images
from problems.neural import Neural

import numpy as np

EPS, STEP, STEPS = 0.3, 0.01, 40


def blobs(rows):
    """Images with pixels in [0, 1] and their classes: one of ten patterns, half hidden in noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, rows)
    patterns = rng.random((10, *SHAPES["lenet"]))
    return (0.4 * patterns[labels] + 0.6 * rng.random((rows, *SHAPES["lenet"]))).astype("float32"), labels


def trained(rows):
    """(problem, x): LeNet-5 after two epochs on the images."""
    data = dataset(*blobs(rows))
    data.mean, data.std = 0.0, 1.0
    problem = Neural(lenet5(), Images(data))
    return problem, minimize(problem, HeavyBall(0.9), RandomReshuffling(64), 0.02, stop=Stop(epochs=2)).x


def copied(problem, x):
    """PyTorch's LeNet-5 with these weights: (O, I, kh, kw), and fc1's columns in the order (C, H, W)."""
    network = rivals()["lenet"]()
    with torch.no_grad():
        for p, segment in zip(network.parameters(), problem.segments, strict=True):
            w = problem.segments.view(x, segment.name)
            if w.ndim == 4:
                w = w.transpose(0, 3, 1, 2)
            elif segment.name == "fc1.W":
                w = w.reshape(len(w), 5, 5, 16).transpose(0, 3, 1, 2).reshape(len(w), -1)
            p.copy_(torch.from_numpy(w.copy()))
    return network.requires_grad_(False).eval()


def theirs(network, images, labels, batch, layout):
    """A function that attacks all images with PyTorch and returns the answers."""
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(memory_format=layout)
    y, network = torch.from_numpy(labels), network.to(memory_format=layout)

    def once(own, t):
        adv = own.clone()
        for _ in range(STEPS):
            adv.requires_grad_(True)
            loss = torch.nn.functional.cross_entropy(network(adv), t, reduction="sum")
            (g,) = torch.autograd.grad(loss, adv)
            with torch.no_grad():
                adv = torch.clamp(own + torch.clamp(adv + STEP * g.sign() - own, -EPS, EPS), 0, 1)
        return adv

    def run():
        found = []
        for first in range(0, len(y), batch):
            adv = once(x[first : first + batch], y[first : first + batch])
            with torch.no_grad():
                found.append(network(adv).argmax(1))
        return torch.cat(found).numpy()

    return run


def main():
    p = arguments(__doc__, rounds=7)
    p.add_argument("--rows", type=int, default=1000, help="images of a timed call (default: %(default)s)")
    p.add_argument("--cpu", action="store_true", help="time the processor, not the clock")
    args = p.parse_args()
    backend.threads(args.threads)
    if torch:
        torch.set_num_threads(args.threads)
    if args.cpu:
        pairs.clock = time.process_time
    problem, x = trained(args.rows)
    images, labels = problem.feed.data.x_train, problem.feed.data.y_train
    table = Table(f"PGD-{STEPS}, LeNet-5, {args.rows} images, float32, {args.threads} threads", "npopt", "PyTorch")
    for batch in (100, 250, 1000):
        attack = PGD(EPS, STEP, STEPS, random=False)

        def ours(batch=batch, attack=attack):
            return attacked(problem, x, attack, "train", batch=batch, stop=False)

        rival = None
        if torch:
            network = copied(problem, x)
            sides = [theirs(network, images, labels, batch, k) for k in (torch.contiguous_format, torch.channels_last)]
            share, other = ours().robust.mean(), (sides[0]() == labels).mean()
            assert abs(share - other) < 0.02, (share, other)  # npopt's keeps the best of all iterates
            rival = min(sides, key=lambda side: min(pairs.timed(side, 1) for _ in range(2)))
        table.add(f"batches of {batch}", ours, rival, args.rounds)
    table.note("Target of the course's task A10: at most 0.5 of PyTorch's time.")
    if args.write:
        table.write("attacks.txt")


if __name__ == "__main__":
    main()
