"""The course's classifiers: a network on a data set, as a Problem. Each is a function of names and numbers, so its
Recipe can be printed.

    rows         training rows, drawn at random; None: all
    validation   fraction of them that is held out, to choose hyper-parameters by: metrics validation_*
    test_rows    test rows, drawn at random; None: all
    l2           of the objective
"""

import dataclasses

from nn import BatchNorm, Conv2d, Dropout, Flatten, Linear, MaxPool2d, Network, PReLU, ReLU, Sequential, init
from nn.networks import lenet5, mlp, resnet18, resnet20
from npopt import backend
from npopt.errors import UserError
from problems.datasets import shared
from problems.feeds import CropFlip, Images, feed_of
from problems.neural import Neural

import numpy as np

HIDDEN = (128, 56)
BOOK = (256, 192, 128, 64)


def rows_of(data, rows=None, validation=0.0):
    """The number of training rows that the networks below see."""
    return len(shared(data, validation=validation, rows=rows).y_train)


def shortened(d, test_rows):
    """The set with so many of its test rows, drawn at random; None: all."""
    if test_rows is None:
        return d
    rows = np.random.default_rng(0).permutation(len(d.y_test))[:test_rows]
    return dataclasses.replace(d, x_test=d.x_test[rows], y_test=d.y_test[rows])


def padded(d, size):
    """The set with images of size x size pixels, zeros around them: MNIST for networks that halve five times."""
    height, width = d.x_train.shape[1:3]
    if size < max(height, width):
        raise UserError(f"padded: images of {height} x {width} are larger than {size} x {size}")
    around = [(0, 0), *(((size - n) // 2, size - n - (size - n) // 2) for n in (height, width)), (0, 0)]
    parts = {f"x_{part}": getattr(d, f"x_{part}") for part in ("train", "validation", "test")}
    return dataclasses.replace(d, **{name: None if x is None else np.pad(x, around) for name, x in parts.items()})


def between(d, low, high):
    """The images of d with pixels from low to high, instead of mean 0 and standard deviation 1."""
    std = d.scale / (high - low)
    return dataclasses.replace(d, mean=-low * std, std=std)


def perceptron(
    data,
    hidden=HIDDEN,
    rows=None,
    validation=0.0,
    test_rows=None,
    l2=0.0,
    dtype="float32",
    pixels=None,
    kind=Neural,
    **more,
):
    """A multi-layer perceptron, 784-128-56-10 on images of 28x28. Metrics on at most 10,000 training rows.

    pixels   (low, high) to which black and white go, such as (0, 1); None: mean 0 and standard deviation 1
    kind     Neural, or a class of it
    more     goes to nn.networks.mlp
    """
    d = shortened(shared(data, validation=validation, rows=rows), test_rows)
    if pixels is not None:
        d = between(d, *pixels)
    size = d.x_train[0].size
    return kind(
        mlp((size, *hidden, len(d.classes)), **more),
        feed_of(d),
        l2=l2,
        dtype=dtype,
        metrics_rows=min(10_000, len(d.y_train)),
        metrics_batch=1000,
    )


def book_network(size, classes, start):
    """size-256-192-128-64-classes with one PReLU, whose slope all four activations share; weights from `start`."""
    layers, sizes = {}, (size, *BOOK, classes)
    for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True), 1):
        layers[f"fc{i}"] = Linear(a, b, init=start, bias_init=init.Zeros())
        if i < len(sizes) - 1:
            layers[f"act{i}"] = PReLU()
    share = {f"act{i}.a": "act1.a" for i in range(2, len(sizes) - 1)}
    return Network(Sequential(**layers), (size,), "book-" + "-".join(map(str, sizes)), share=share)


def book(data, start, rows=None, validation=0.0):
    """The network of the course book on a set with pixels from -1 to 1."""
    d = between(shared(data, rows=rows, validation=validation), -1.0, 1.0)
    net = book_network(d.x_train[0].size, len(d.classes), start)
    return Neural(net, feed_of(d), metrics_rows=min(10_000, len(d.y_train)), metrics_batch=1000)


def book_cnn(data, rows=None, validation=0.0, test_rows=None):
    """The book's convolutional network: three times conv 3x3 - batch norm - ReLU - pool 2 with 32, 64 and 128 channels,
    512 hidden units, dropout 1/2; 1,194,084 weights for 32x32 pictures of 100 classes. Pixels from -1 to 1."""
    d = between(shortened(shared(data, validation=validation, rows=rows or 10**9), test_rows), -1.0, 1.0)
    height, width, inputs = d.x_train.shape[1:]
    layers = {}
    for i, channels in enumerate((32, 64, 128), 1):
        layers |= {f"conv{i}": Conv2d(inputs, channels, 3, 1, 1), f"bn{i}": BatchNorm(channels), f"act{i}": ReLU()}
        layers[f"pool{i}"], inputs = MaxPool2d(2), channels
    layers |= {"flatten": Flatten(), "fc1": Linear((height // 8) * (width // 8) * 128, 512), "act4": ReLU()}
    layers |= {"drop": Dropout(0.5), "fc2": Linear(512, len(d.classes))}
    network = Network(Sequential(**layers), d.x_train.shape[1:], "book-cnn")
    return Neural(network, Images(d), metrics_rows=min(2000, len(d.y_train)))


def lenet(data, rows=None, validation=0.0, test_rows=None, l2=0.0, **more):
    """LeNet-5; `more` goes to nn.networks.lenet5. Metrics on at most 10,000 training rows."""
    d = shortened(shared(data, validation=validation, rows=rows), test_rows)
    network = lenet5(input_shape=d.x_train.shape[1:], classes=len(d.classes), **more)
    return Neural(network, Images(d), l2=l2, metrics_rows=min(10_000, len(d.y_train)))


class Recalibrated(Neural):
    """A network whose metrics are taken with the statistics of x itself: those of its metrics_rows training rows, as
    `recalibrate` gathers them. Running averages lag behind weights that move fast: early in training they measure the
    lag. The running averages are put back; steps see nothing of it."""

    def metrics(self, x):
        kept = self.network.state()
        self.recalibrate(x, backend.xp().arange(min(self.n, self.metrics_rows)))
        try:
            return super().metrics(x)
        finally:
            self.network.load_state(kept)


def resnet(data, width=64, rows=None, validation=0.0, test_rows=None, l2=0.0, **more):
    """ResNet-18 of this width in its first stage; pictures of 32x32 are moved by up to 4 pixels and mirrored (digits
    are not: a mirrored digit is another one). Metrics on at most 2,000 training rows, with their statistics. `more`
    goes to Neural."""
    d = shared(data, validation=validation, rows=rows or 10**9)  # in a random order: cifar-10-jpeg is sorted by class
    network = resnet18(width, in_channels=d.x_train.shape[3], image=d.x_train.shape[1], classes=len(d.classes))
    feed = Images(shortened(d, test_rows), CropFlip(4) if d.x_train.shape[1] == 32 else None)
    return Recalibrated(network, feed, l2=l2, metrics_rows=min(2000, len(d.y_train)), **more)


class Remembering(Neural):
    """A network that keeps a copy of x whenever its metrics are taken: `path`, a list of vectors on the device."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.path = []

    def metrics(self, x):
        self.path.append(x.copy())
        return super().metrics(x)


def halved(d):
    """The images of d at half their size, each pixel the mean of four, rounded."""
    if any(n % 2 for n in d.x_train.shape[1:3]):
        raise UserError(f"halved: images of {d.x_train.shape[1:3]} pixels cannot be halved")

    def half(x):
        n, height, width, channels = x.shape
        return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4)).round().astype(x.dtype)

    parts = {f"x_{part}": getattr(d, f"x_{part}") for part in ("train", "validation", "test")}
    return dataclasses.replace(d, **{name: None if x is None else half(x) for name, x in parts.items()}).measured()


def residual(data, width=8, blocks=3, skip=True, rows=None, test_rows=None, l2=0.0, halves=True, **more):
    """ResNet-(6 blocks + 2) of this width, or the same layers without skips, on images of half their size (halves), so
    that a deep one trains on a processor. Without augmentation. `more` goes to Neural."""
    d = shortened(shared(data, rows=rows or 10**9), test_rows)
    d = halved(d) if halves else d
    network = resnet20(width, d.x_train.shape[3], len(d.classes), d.x_train.shape[1], blocks=blocks, skip=skip)
    return Neural(network, Images(d), l2=l2, metrics_rows=min(2000, len(d.y_train)), **more)
