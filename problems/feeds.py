"""Where a network's rows come from: inputs and targets as functions of (seed, t, row).

A Feed is made of data and a few words; `place` puts it onto the device in use. Then `batch(part, rows, draw)` gives the
inputs and targets of rows of a part ("train", "validation", "test"). `draw` is None, or the (seed, t) of a training
step; augmentation and the like draw for each row by it. A feed serves one problem.

Inputs are an array (B, ...), or a tuple of arrays for a network that takes several.
"""

from nn.kernels import gather_images
from npopt import backend
from npopt.errors import UserError
from npopt.values import Value, whole

import numpy as np
import scipy.sparse

PARTS = ("train", "validation", "test")


def chosen(array, rows):
    """The rows of an array; rows None: all of them, in order."""
    return array if rows is None else array[rows]


class Feed:
    """Common to all feeds. A subclass has `name`; arrays(part) -> (inputs, targets) on the host; and
    inputs(part, rows, draw)."""

    name = "rows"
    perplexity = False  # whether every row has as many targets, words or characters, so that e^loss is their perplexity

    def place(self, network, loss, dtype):
        """Check the data against the network's input and output shape and the loss, and move them onto the device."""
        self.dtype, self.input_shape = np.dtype(dtype), network.input_shape
        self.parts = {}
        for part in PARTS:
            found = self.arrays(part)
            if found is not None:
                x, t = found
                placed = self.fit(x)
                if len(x) != len(t):
                    raise UserError(f"{self.name}: {part} has {len(x)} rows and {len(t)} targets")
                t = loss.targets(network.output_shape, np.asarray(t), self.dtype)
                self.parts[part] = placed, backend.asarray(t)
        self.n = self.count("train")

    def count(self, part):
        """How many rows a part has."""
        return self.parts[part][1].shape[0]

    def walk(self, part, count, size):
        """The first `count` rows of a part, each once, in batches of at most `size`: the row numbers of each batch in
        the order of evaluation."""
        rows = backend.xp().arange(count)
        return [rows[first : first + size] for first in range(0, count, size)]

    def box(self):
        """(low, high, unit) of the inputs: npopt/ball.py. Rows of numbers have no bounds, and are their own unit."""
        return -np.inf, np.inf, 1.0

    def targets(self):
        """The training targets, on the host."""
        return np.asarray(self.arrays("train")[1])

    def batch(self, part, rows=None, draw=None):
        """(inputs, targets) of these rows, (B,) int64 of the device, or None for all."""
        return self.inputs(part, rows, draw), chosen(self.parts[part][1], rows)


class CropFlip(Value):
    """Augmentation of images: a crop after `pad` pixels of padding on each side, and a mirror image half of the time.

    A function of (seed, t, row): the row's move is the same in every pass of a step. Padding is black, 0 before
    normalisation, as in the usual pipeline for CIFAR-10 (He et al., CVPR 2016, section 4.2).
    """

    def __init__(self, pad=4, flip=True):
        self.pad, self.flip = whole("CropFlip", "pad", pad, low=0), bool(flip)

    def __call__(self, u):
        """Moves (B, 3) from uniform numbers u, (B, 3): down and right in -pad..pad, and 1 for a mirror image."""
        moves = (u * (2 * self.pad + 1)).astype("int64")  # u < 1, so at most 2 pad
        moves -= self.pad
        moves[:, 2] = (u[:, 2] < 0.5) & self.flip
        return moves


class DataFeed(Feed):
    """The rows of a Dataset, or of anything with x_train, y_train, x_test, y_test (None: absent) and name, and with
    x_validation, y_validation where rows are held out."""

    def __init__(self, data):
        self.data, self.name = data, data.name

    def arrays(self, part):
        x = getattr(self.data, f"x_{part}", None)
        if x is not None and not x.shape[0]:
            raise UserError(f"{self.name}: x_{part} has no rows; leave it out as None, or load some")
        return None if x is None else (x, getattr(self.data, f"y_{part}"))

    def fit(self, x):
        if scipy.sparse.issparse(x):
            raise UserError(f"{self.name}: a network needs dense rows; load the data with dense=True")
        if np.prod(x.shape[1:]) != np.prod(self.input_shape):
            raise UserError(f"{self.name}: a row has shape {x.shape[1:]}, the network expects {self.input_shape}")
        return backend.asarray(np.ascontiguousarray(x if x.dtype == np.uint8 else x.astype(self.dtype)))


class Table(DataFeed):
    """Rows of numbers, taken as they are."""

    def inputs(self, part, rows, draw):
        x = chosen(self.parts[part][0], rows).reshape(-1, *self.input_shape)
        return x if x.dtype == self.dtype else x.astype(self.dtype)


class Images(DataFeed):
    """Images (n, H, W, C), made from bytes batch by batch: pixels minus the mean, divided by the standard deviation, of
    their channel. Images without `mean` and `std` (per channel, in the units of x) become x / scale. For a network with
    flat rows they are laid out flat.

    augment: None or CropFlip(), on training passes alone
    """

    def __init__(self, data, augment=None):
        super().__init__(data)
        if data.x_train.ndim != 4:
            raise UserError(
                f"{data.name}: Images are (n, H, W, C), x has shape {data.x_train.shape}; rows of numbers "
                "go into a Table"
            )
        self.augment = augment
        if augment is not None:
            self.name = f"{data.name}, {augment!r}"

    def place(self, network, loss, dtype):
        super().place(network, loss, dtype)
        channels, mean = self.data.x_train.shape[3], getattr(self.data, "mean", None)
        if mean is None:
            scale, shift = np.full(channels, 1 / getattr(self.data, "scale", 1.0)), np.zeros(channels)
        else:
            mean, std = (np.broadcast_to(np.asarray(v, np.float64), (channels,)) for v in (mean, self.data.std))
            scale, shift = 1 / std, -mean / std
        self.scale, self.shift = (backend.asarray(np.ascontiguousarray(v), self.dtype) for v in (scale, shift))

    def box(self):
        """Black, white and their distance in the network's scale: three arrays of the shape of a row."""
        shape, whites = self.parts["train"][0].shape[1:], getattr(self.data, "scale", 1.0)
        unit = self.scale * whites
        low, unit = (backend.zeros(shape, self.dtype) + v for v in (self.shift, unit))
        return tuple(v.reshape(self.input_shape) for v in (low, low + unit, unit))

    def inputs(self, part, rows, draw):
        images, moves = self.parts[part][0], None
        count = images.shape[0] if rows is None else rows.shape[0]
        out = backend.empty((count, *images.shape[1:]), self.dtype)
        if draw is not None and self.augment is not None:
            seed, t = draw
            u = backend.row_uniform(backend.key(seed, "augment", t), rows, backend.empty((count, 3), "float64"))
            moves = self.augment(u)
        gather_images(images, rows, moves, self.scale, self.shift, out)
        return out.reshape(count, *self.input_shape)


def feed_of(data):
    """Images(data) where the rows of x are images, else Table(data)."""
    return Images(data) if data.x_train.ndim == 4 else Table(data)
