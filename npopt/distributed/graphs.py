"""Who talks to whom, and with which weights.

W is doubly stochastic: its rows and columns sum to 1, so that x <- W x keeps the mean. One round shrinks the distance
from the mean by sigma_2(W) = |W - 1 1'/n|_2 at worst; the spectral gap is 1 - sigma_2. Metropolis weights
(Xiao & Boyd, Systems & Control Letters 53, 2004) of neighbours are W_ij = 1 / (1 + max(deg_i, deg_j)), and W_ii is
the rest.

    ring(n)          two neighbours, W = 1/3:      sigma_2 = max |1/3 + 2/3 cos(2 pi k / n)|
    torus(a, b)      four neighbours, W = 1/5
    exponential(n)   node i hears i + 1, i + 2, i + 4, ...: one way, W = 1 / (1 + ceil(log2 n)). For even n the gap is
                     2 / (1 + ceil(log2 n)) (Ying et al., NeurIPS 2021, arXiv:2110.13363, Proposition 1)
    complete(n)      W = 1/n, sigma_2 = 0
    star(n)          Metropolis: every leaf gives and takes 1/n
"""

from npopt import backend
from npopt.errors import UserError
from npopt.values import whole

import numpy as np
import scipy.sparse

DENSE = 1000  # nodes up to which sigma_2 comes from all singular values


class Graph:
    """Nodes with weights W, (n, n), doubly stochastic, dense or sparse. Every W_ii is stored, also where it is 0.

    n, name, symmetric; W: CSR, float64, columns in rising order; degrees: (n,) neighbours that hear node i.
    """

    def __init__(self, W, name="graph"):
        W = scipy.sparse.csr_array(W, dtype=np.float64)
        if W.ndim != 2 or W.shape[0] != W.shape[1] or not W.shape[0]:
            raise UserError(f"Graph: W must have shape (n, n), got {W.shape}")
        ones = np.ones(W.shape[0])
        if not (np.isfinite(W.data).all() and np.allclose(W @ ones, 1) and np.allclose(ones @ W, 1)):
            raise UserError(
                "Graph: the rows and the columns of W must sum to 1; metropolis(edges, n) makes such weights"
            )
        self.n, self.name = W.shape[0], name
        rows, columns = W.nonzero()
        away = rows != columns
        rows, columns = np.append(rows[away], np.arange(self.n)), np.append(columns[away], np.arange(self.n))
        values = np.append(W.data[W.data != 0][away] if W.nnz else [], W.diagonal())
        order = np.lexsort((columns, rows))
        counts = np.bincount(rows, minlength=self.n)
        starts = np.append(0, np.cumsum(counts))
        self.W = scipy.sparse.csr_array((values[order], columns[order], starts), shape=W.shape)
        self.receivers = rows[order]
        self.degrees = np.bincount(columns, minlength=self.n) - 1
        self.symmetric = abs(self.W - self.W.T).max() < 1e-14
        self._cast = {}

    def __repr__(self):
        return self.name

    def hears(self, i):
        """The ranks whose x node i mixes, its own among them, in rising order: a list."""
        return self.W.indices[self.W.indptr[i] : self.W.indptr[i + 1]].tolist()

    def heard_by(self, i):
        """The ranks that hear node i, without itself: a list in rising order."""
        return [j for j in np.sort(self.receivers[self.W.indices == i]).tolist() if j != i]

    def mix(self, X, data=None):
        """W X for X: (n, d), a row summed in the order of its columns; data: other weights in W's places."""
        if data is None and X.dtype not in self._cast:
            self._cast[X.dtype] = self.W.astype(X.dtype)
        W = self._cast[X.dtype] if data is None else self.like(data.astype(X.dtype))
        return W @ X if backend.xp(X) is np else backend.asarray(W.toarray()) @ X

    def mix_one(self, i, X):
        """Row i of W times the x of those whom it hears, X: (len(hears(i)), d). The bits are those of mix."""
        w = self.W.data[self.W.indptr[i] : self.W.indptr[i + 1]].astype(X.dtype)
        return (scipy.sparse.csr_array((w, np.arange(len(w)), [0, len(w)]), shape=(1, len(w))) @ X)[0]

    def like(self, data):
        """A matrix with other numbers in the places of W."""
        return scipy.sparse.csr_array((data, self.W.indices, self.W.indptr), shape=self.W.shape)

    def without(self, lost):
        """The weights where the messages of a mask over the stored entries are lost: W_ij goes to W_ii."""
        data = self.W.data.copy()
        data[lost] = 0
        home = np.flatnonzero(self.receivers == self.W.indices)
        data[home] += np.bincount(self.receivers[lost], self.W.data[lost], minlength=self.n)
        return data

    @property
    def gap(self):
        """1 - |W - 1 1'/n|_2, a float."""
        if self.n <= DENSE:
            return float(1 - np.linalg.norm(self.W.toarray() - 1 / self.n, 2))
        from scipy.sparse.linalg import LinearOperator, svds

        centred = LinearOperator(
            self.W.shape, matvec=lambda v: self.W @ v - v.mean(), rmatvec=lambda v: self.W.T @ v - v.mean()
        )
        v0 = backend.generator(0, "gap").standard_normal(self.n)
        return float(1 - svds(centred, k=1, v0=v0, return_singular_vectors=False)[0])


def metropolis(edges, n, name="metropolis"):
    """A Graph of pairs (i, j), both ways, with Metropolis weights."""
    n = whole("metropolis", "n", n)
    pairs = np.array([(i, j) for i, j in edges if i != j], dtype=np.int64).reshape(-1, 2)
    if pairs.size and not 0 <= pairs.min() <= pairs.max() < n:
        raise UserError(f"metropolis: edges must join nodes 0..{n - 1}")
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    degrees = np.bincount(pairs.ravel(), minlength=n)
    i, j = pairs.T
    w = 1 / (1 + np.maximum(degrees[i], degrees[j]))
    rest = 1 - np.bincount(i, w, minlength=n) - np.bincount(j, w, minlength=n)
    everyone = np.arange(n)
    where = (np.concatenate((i, j, everyone)), np.concatenate((j, i, everyone)))
    return Graph(scipy.sparse.coo_array((np.concatenate((w, w, rest)), where), shape=(n, n)), name)


def ring(n):
    return metropolis([(i, (i + 1) % n) for i in range(whole("ring", "n", n))], n, f"ring({n})")


def torus(a, b):
    """a b nodes in a rectangle whose opposite sides are joined; node (i, j) has rank i b + j."""
    a, b = whole("torus", "a", a), whole("torus", "b", b)
    right = [(i * b + j, i * b + (j + 1) % b) for i in range(a) for j in range(b)]
    down = [(i * b + j, (i + 1) % a * b + j) for i in range(a) for j in range(b)]
    return metropolis(right + down, a * b, f"torus({a}, {b})")


def exponential(n):
    n = whole("exponential", "n", n)
    hops = [0, *(2**k for k in range((n - 1).bit_length()))]
    rows = np.repeat(np.arange(n), len(hops))
    columns = (rows + np.tile(hops, n)) % n
    return Graph(
        scipy.sparse.coo_array((np.full(len(rows), 1 / len(hops)), (rows, columns)), shape=(n, n)), f"exponential({n})"
    )


def complete(n):
    return Graph(np.full((whole("complete", "n", n), n), 1 / n), f"complete({n})")


def star(n):
    return metropolis([(0, i) for i in range(1, whole("star", "n", n))], n, f"star({n})")
