"""A data set in memory: its rows in parts, what they are, where they come from."""

import dataclasses

from npopt.errors import UserError
from npopt.values import number, whole
from problems.splits import channel_statistics, column_statistics, split, standardise

import numpy as np
import scipy.sparse


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set, split into training, test and perhaps validation rows.

    x_*          images: uint8 (n, H, W, C); otherwise float (n, d), dense or CSR
    y_*          images and multi-class sets: int64 0..C-1; binary sets: -1 and +1 as floats; regression: floats
    classes      names in the order of the labels (for -1 and +1, too); None for regression
    mean, std    over the training rows alone: of the channels of images, in the units of x (0..scale); of the columns
                 of dense rows, before standardisation, constant columns having std 1; None for sparse rows
    scale        the largest pixel value, 255 or 16; 1 where x is not an image
    sha256       of the source files together (of the arrays, for bundled sets)
    source       where the rows come from and what was done to them, as text
    """

    name: str
    task: str
    x_train: object
    y_train: np.ndarray
    x_test: object
    y_test: np.ndarray
    classes: tuple
    sha256: str
    source: str
    scale: float = 1.0
    mean: np.ndarray = None
    std: np.ndarray = None
    x_validation: object = None
    y_validation: np.ndarray = None

    @property
    def rows(self):
        """The number of rows of all parts."""
        return sum(len(y) for y in (self.y_train, self.y_test, self.y_validation) if y is not None)

    @property
    def images(self):
        return self.x_train.ndim == 4

    def part(self, rows, seed=0):
        """The set with so many of its training rows (all, if it has fewer), in a random order. mean and std stay those
        of all training rows. rows=None: the set itself."""
        if rows is None:
            return self
        chosen = np.random.default_rng(seed).permutation(len(self.y_train))[: whole("part", "rows", rows)]
        text = f"{self.source}; {len(chosen)} of {len(self.y_train)} training rows, seed {seed}"
        return dataclasses.replace(self, x_train=self.x_train[chosen], y_train=self.y_train[chosen], source=text)

    def with_validation(self, fraction=0.1, seed=0):
        """The set with that part of its training rows held out for validation. mean and std are those of the other
        rows."""
        kept, held = split(len(self.y_train), fraction, seed)
        return dataclasses.replace(
            self,
            x_train=self.x_train[kept],
            y_train=self.y_train[kept],
            x_validation=self.x_train[held],
            y_validation=self.y_train[held],
            source=f"{self.source}; validation: {fraction:g} of the training rows, seed {seed}",
        ).measured()

    def with_label_noise(self, share, seed=0):
        """The set in which round(share n) training rows, drawn at random, have a label drawn uniformly from all
        classes: of K classes one in K of them keeps its own by chance. Test and validation rows keep theirs."""
        if self.classes is None:
            raise UserError(f"{self.name}: only sets with classes have labels to draw")
        number("with_label_noise", "share", share, low=0, high=1)
        rng, y, labels = np.random.default_rng(seed), self.y_train.copy(), np.unique(self.y_train)
        chosen = rng.permutation(len(y))[: round(share * len(y))]
        y[chosen] = labels[rng.integers(len(labels), size=len(chosen))]
        text = f"{self.source}; {len(chosen)} of {len(y)} training labels drawn anew, seed {seed}"
        return dataclasses.replace(self, y_train=y, source=text)

    def measured(self):
        """The set with mean and std of its training rows."""
        if scipy.sparse.issparse(self.x_train):
            return dataclasses.replace(self, mean=None, std=None)
        mean, std = (channel_statistics if self.images else column_statistics)(self.x_train)
        return dataclasses.replace(self, mean=mean, std=std)

    def standardised(self):
        """Columns of dense rows moved and scaled to mean 0 and standard deviation 1 over the training rows."""
        if self.images:
            raise UserError(f"{self.name}: images keep their bytes; normalise a batch with mean and std")
        parts = [x for x in (self.x_train, self.x_test, self.x_validation) if x is not None]
        *parts, mean, std = standardise(*parts)
        parts += [None] * (3 - len(parts))
        return dataclasses.replace(
            self,
            **dict(zip(("x_train", "x_test", "x_validation"), parts, strict=True)),
            mean=mean,
            std=std,
            source=f"{self.source}; standardised by the training rows",
        )
