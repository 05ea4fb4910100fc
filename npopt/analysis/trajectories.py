"""The path of a run as a picture: principal components beside those of a random walk, and t-SNE.

Components of a path w_1, ..., w_T (rows), about its mean or, as in Li et al., NeurIPS 2018, section 7, about its last
point: the eigenvectors of the (T, T) matrix of inner products, so that the matrix of dim numbers squared is never made.

A path is smooth in its first components whatever it does. Of a random walk in many dimensions, whose inner products
are min(s, t), the shares and the curves are known (Antognini & Sohl-Dickstein, NeurIPS 2018, arXiv:1806.08805):

    share_k = 3 / (2 (T^2 - 1) sin^2(pi k / 2T))        coordinate_k(t) ~ cos(pi k (t - 1/2) / T),   k = 1, ..., T - 1

because the inverse of the centred matrix is the Laplacian of a chain. So the first two components of a random walk have
76 % of it, and draw Lissajous curves. That alone says nothing of learning.
"""

from dataclasses import dataclass

from npopt import backend
from npopt.analysis.planes import Plane, gram, vectors
from npopt.errors import UserError
from npopt.values import number, whole

import numpy as np


@dataclass
class Components:
    """Principal components of a path of T points.

    origin        the mean or the last point, (dim,)
    directions    (k, dim), orthogonal, of length 1
    coordinates   (T, k), on the host; the first point has none below 0
    shares        (T,), falling: of the squared distances from the origin, every component's part
    """

    origin: object
    directions: object
    coordinates: np.ndarray
    shares: np.ndarray

    @property
    def plane(self):
        """The Plane of the first two."""
        return Plane(self.origin, self.directions[:2])


def components(path, count=2, about="mean"):
    """The first `count` Components of a path, an array (T, dim) or a list of vectors. about: "mean" or "last"."""
    if about not in ("mean", "last"):
        raise UserError(f"components: about must be 'mean' or 'last', got {about!r}")
    path, count = vectors(path), whole("components", "count", count)
    if len(path) < count + 1:
        raise UserError(f"components: {count} components need at least {count + 1} points, got {len(path)}")
    origin = path[-1].copy() if about == "last" else sum(point.astype("float64") for point in path) / len(path)
    apart = [point - origin.astype(point.dtype) for point in path]
    values, along = np.linalg.eigh(gram(apart, apart))
    values, along = np.maximum(values[::-1], 0), along[:, ::-1][:, :count]
    if not values[count - 1] > 1e-12 * values.sum():
        raise UserError(f"components: the path has fewer than {count} dimensions")
    along = along * np.where(along[0] < 0, -1, 1)  # an eigenvector has no sign of its own
    directions = backend.zeros((count, origin.shape[0]), path[0].dtype)
    for k in range(count):
        for weight, point in zip(along[:, k] / values[k] ** 0.5, apart, strict=True):
            directions[k] += float(weight) * point
    return Components(origin.astype(path[0].dtype), directions, along * np.sqrt(values[:count]), values / values.sum())


def walk_shares(steps):
    """Shares of the components of a random walk of many dimensions, about its mean, falling.

    steps   the number of points T: (T - 1,) by the formula above; or the lengths of the T - 1 steps, (T - 1,): of a
            walk with these lengths in random directions, which a rate that falls makes shorter
    """
    if np.ndim(steps) == 0:
        T = whole("walk_shares", "steps", steps, low=2)
        k = np.arange(1, T)
        return 3 / (2 * (T * T - 1.0) * np.sin(np.pi * k / (2 * T)) ** 2)
    squares = np.concatenate([[0.0], np.cumsum(np.square(np.asarray(steps, float)))])
    G = np.minimum.outer(squares, squares)
    G = G - G.mean(0) - G.mean(1)[:, None] + G.mean()
    values = np.linalg.eigvalsh(G)[::-1][:-1]
    return np.maximum(values, 0) / values.sum()


def walk_coordinates(points, count=2):
    """(points, count): the expected shape of a random walk's components, columns of length 1, the first point above 0:
    cos(pi k (t - 1/2) / T)."""
    t, k = np.arange(whole("walk_coordinates", "points", points, low=2)) + 0.5, np.arange(1, count + 1)
    found = np.cos(np.pi * k * t[:, None] / points)
    return found / np.linalg.norm(found, axis=0)


def step_lengths(path):
    """(T - 1,): the lengths of a path's steps."""
    path = vectors(path)
    return np.array([float(backend.to_host(backend.norm(b - a))) for a, b in zip(path[:-1], path[1:], strict=True)])


def tsne(path, perplexity=5.0, seed=0):
    """(T, 2): a path by t-SNE, van der Maaten & Hinton, JMLR 9, 2008, as scikit-learn has it, exact, from its two
    principal components.

    perplexity   about how many neighbours a point has; below a third of the points. It keeps neighbours together;
                 distances, areas and the shape of gaps between groups mean nothing.
    """
    from sklearn.manifold import TSNE

    path = vectors(path)
    perplexity = number("tsne", "perplexity", perplexity, low=1)
    if not perplexity < len(path) / 3:
        raise UserError(f"tsne: perplexity must be below a third of the {len(path)} points, got {perplexity:g}")
    mean = sum(point.astype("float64") for point in path) / len(path)
    apart = [point - mean.astype(point.dtype) for point in path]
    values, along = np.linalg.eigh(gram(apart, apart))  # the same distances in T numbers a point
    flat = (along * np.sqrt(np.maximum(values, 0)))[:, ::-1] / max(values.max(), 1e-300) ** 0.5
    method = TSNE(perplexity=perplexity, init=1e-4 * flat[:, :2] / flat[:, 0].std(), random_state=seed, method="exact")
    return np.asarray(method.fit_transform(flat), float)
