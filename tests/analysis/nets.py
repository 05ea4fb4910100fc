"""Small problems of these tests."""

from types import SimpleNamespace

import nn
from problems import Neural
from problems.feeds import Table

import numpy as np


def small(sizes=(3, 6, 5, 4), rows=12, loss=None, dtype="float64", **options):
    """A perceptron on noise, in float64."""
    rng = np.random.default_rng(0)
    a, t = rng.standard_normal((rows, sizes[0])), rng.integers(0, sizes[-1], rows)
    none = dict(x_test=None, y_test=None, mean=None, std=None, scale=1.0, classes=tuple(range(sizes[-1])), sha256="")
    data = SimpleNamespace(name="noise", x_train=a, y_train=t, **none)
    return Neural(nn.mlp(sizes, **options), Table(data), loss, dtype=dtype)


def bias_free(rows=12):
    """A ReLU network of three layers without biases."""
    problem = small(rows=rows)
    layers = dict(a=nn.Linear(3, 6, bias=False), r=nn.ReLU(), b=nn.Linear(6, 5, bias=False), s=nn.ReLU())
    network = nn.Network(nn.Sequential(**layers, c=nn.Linear(5, 4, bias=False)), (3,))
    return Neural(network, Table(problem.feed.data), dtype="float64")


def dense(product, dim):
    """The matrix behind a product."""
    return np.stack([product(e) for e in np.eye(dim)], axis=1)
