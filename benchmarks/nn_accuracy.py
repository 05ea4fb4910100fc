"""Rounding in float32: how far each ReLU of ResNet-18 is from float64's, and how many of its numbers change sides.

    python benchmarks/nn_accuracy.py --write

The gradient of a network in float32 differs from float64's mostly by ReLUs whose input lies so near 0 that rounding
decides its sign. One such flip changes a gradient by 1e-3, where no flip leaves 1e-6. So the gradient's error varies
from seed to seed, and only its cause can be compared. Each side runs the same weights and images in float32 and in
float64, in training mode: PyTorch, and npopt's three choices of kernels. Flips: the numbers of all seventeen ReLUs that
are positive on one side only. Error: |y32 - y64| / |y64| of the ReLUs' outputs, the largest of the layers.
"""

from types import SimpleNamespace

from pairs import Table, arguments, torch  # isort: skip (before NumPy)
from steps import rivals  # isort: skip

import nn
from nn import kernels
from nn.networks import resnet18
from npopt import backend

import numpy as np

BATCH = 32


def rectified(network, x, images, path):
    """The outputs of all ReLUs of a training pass, in order."""
    found, run = [], nn.Run(training=True)
    network.bind(x)

    def watch(name, chosen):
        plain = getattr(kernels, name)

        def call(*arguments):
            plain(*arguments)
            if chosen(arguments):
                found.append(arguments[-1].copy())

        setattr(kernels, name, call)
        return name, plain

    kernels.use(path)
    undo = [watch("normalise", lambda a: a[5]), watch("relu", lambda a: True)]
    try:
        network.forward(images, run)
    finally:
        kernels.use("fast")
        for name, plain in undo:
            setattr(kernels, name, plain)
    return [y.reshape(BATCH, -1) for y in found]


def theirs(weights, images):
    """The same of PyTorch, with the weights of npopt's network: {name: array}."""
    functional, relu, found = torch.nn.functional, torch.nn.functional.relu, []
    network = rivals()["resnet"]().to(weights.dtype)
    for p, w in zip(network.parameters(), weights.tensors, strict=True):
        with torch.no_grad():
            p.copy_(torch.from_numpy(w))

    def watch(x, inplace=False):
        y = relu(x)
        found.append(y.permute(0, 2, 3, 1).contiguous().numpy().reshape(BATCH, -1).copy())
        return y

    functional.relu = watch
    try:
        with torch.no_grad():
            network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    finally:
        functional.relu = relu
    return found


def tensors(network, x):
    """npopt's parameters in the order and the layout of PyTorch's: (O, I, kh, kw); a block's shortcut comes last."""
    views = [network.segments.view(x, segment.name) for segment in network.segments]
    return [v.transpose(0, 3, 1, 2).copy() if v.ndim == 4 else v for v in views]


def compare(low, high):
    """(flips, largest relative error) over the layers."""
    flips = sum(int(((a > 0) != (b > 0)).sum()) for a, b in zip(low, high, strict=True))
    return flips, max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(low, high, strict=True))


def main():
    args = arguments(__doc__, rounds=5).parse_args()
    backend.threads(args.threads)
    table = Table(f"ReLUs of ResNet-18, batch {BATCH}, float32 beside float64, {args.rounds} seeds", "", "")
    table.lines[-2:] = []
    found = {}
    for seed in range(args.rounds):
        rng, network = np.random.default_rng(seed), resnet18()
        x64 = network.x0(rng, "float64").astype("float32").astype("float64")
        images = rng.standard_normal((BATCH, 32, 32, 3)).astype("float32")
        exact = rectified(network, x64, images.astype("float64"), "reference")
        sides = {path: rectified(network, x64.astype("float32"), images, path) for path in kernels.CHOICES}
        if torch:
            weights = [
                SimpleNamespace(dtype=d, tensors=tensors(network, x64.astype(n)))
                for d, n in ((torch.float32, "float32"), (torch.float64, "float64"))
            ]
            sides["PyTorch"] = theirs(weights[0], images)
            own = theirs(weights[1], images.astype("float64"))
            assert compare(own, exact)[1] < 1e-12  # the same network
        for name, low in sides.items():
            found.setdefault(name, []).append(compare(low, exact))
    total = sum(y.size for y in exact)
    for name, values in found.items():
        flips, errors = np.array(values).T
        table.note(
            f"{name:10} flips of {total:,}: median {np.median(flips):.0f} ({flips.min():.0f} to "
            f"{flips.max():.0f}); largest relative error of a layer: median {np.median(errors):.1e}"
        )
    if torch:
        flips = {name: np.median(np.array(values)[:, 0]) for name, values in found.items()}
        ratios = ", ".join(f"{name} {flips[name] / flips['PyTorch']:.2f}" for name in kernels.CHOICES)
        table.note(f"Flips beside PyTorch's (target: at most 3): {ratios}.")
    if args.write:
        table.write("nn_accuracy.txt")


if __name__ == "__main__":
    main()
