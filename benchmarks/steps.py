"""One training step (forward, loss, backward, momentum update) of each network, in npopt and in PyTorch.

Both sides see the same batch again and again: `ours(case, size)` and `theirs(case, size, ...)` make a function that
takes one step. PyTorch runs eagerly, with its fused SGD.
"""

import functools
from types import SimpleNamespace

from pairs import torch  # isort: skip (before NumPy)

from nn.networks import lenet5, mlp, resnet18, vgg
from npopt import HeavyBall, backend
from problems.feeds import Images
from problems.neural import Neural

import numpy as np

NARROW = {f"resnet{width}": width for width in (8, 16, 32)}  # ResNet-18 of other widths than 64
SHAPES = {"lenet": (28, 28, 1), "mlp": (28, 28, 1)}  # others: 32 x 32, three colours
NETWORKS = {"lenet": lenet5, "mlp": mlp, "vgg": vgg, "resnet": resnet18}
NETWORKS |= {name: functools.partial(resnet18, width=width) for name, width in NARROW.items()}


def batch(case, size):
    """Images and labels, the same for both sides."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((size, *SHAPES.get(case, (32, 32, 3)))).astype("float32"), rng.integers(0, 10, size)


def dataset(images, labels):
    """Images (n, H, W, C) and labels (n,) as a data set of ten classes, without a test part."""
    return SimpleNamespace(
        name="noise",
        x_train=images,
        y_train=labels,
        x_test=None,
        y_test=None,
        mean=None,
        std=None,
        scale=1.0,
        classes=tuple(range(10)),
        sha256="",
    )


def ours(case, size, compute=None, **options):
    """A function that makes one step of npopt on the device in use; compute: the type of activations; options go to the
    network."""
    data = dataset(*batch(case, size))
    problem = Neural(NETWORKS[case](**options), Images(data), compute=compute)
    x = problem.x0(backend.generator(0, "x0"))
    g, optimizer, rows = backend.empty(x.shape, x.dtype), HeavyBall(0.9), backend.asarray(np.arange(size))
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


def theirs(case, size, channels_last, device="cpu", cast=None, compiled=False):
    """A function that makes one step of PyTorch on its device; cast: a dtype for autocast, without loss scaling;
    compiled: by torch.compile."""
    images, labels = batch(case, size)
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)
    y, network = torch.from_numpy(labels).to(device), rivals()[case]().to(device)
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, fused=True)
    network = torch.compile(network) if compiled else network

    def step():
        optimizer.zero_grad()
        with torch.autocast(device, dtype=cast, enabled=cast is not None):
            loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()

    return step


def rivals():
    """{case: a function that makes PyTorch's network}."""
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, a, b, stride):
            super().__init__()
            self.one, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
            self.two, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
            self.short = (
                nn.Sequential()
                if stride == 1 and a == b
                else nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
            )

        def forward(self, x):
            y = F.relu(self.bn1(self.one(x)), inplace=True)
            return F.relu(self.bn2(self.two(y)) + self.short(x), inplace=True)

    def resnet(width=64):
        layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
        for stage in range(4):
            channels = width << (stage > 0)
            layers += [Block(width, channels, 1 + (stage > 0)), Block(channels, channels, 1)]
            width = channels
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))

    def vgg():
        layers, width = [], 3
        for item in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
            if item == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(width, item, 3, 1, 1), nn.BatchNorm2d(item), nn.ReLU(True)]
            width = item
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))

    return {
        "lenet": lambda: nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        ),
        "mlp": lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 56), nn.ReLU(), nn.Linear(56, 10)
        ),
        "vgg": vgg,
        "resnet": resnet,
        **{name: functools.partial(resnet, width) for name, width in NARROW.items()},
    }
