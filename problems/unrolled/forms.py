"""Networks whose layers are iterations of a method for sparse coding, with the numbers of the method to be learned.

Each form is a value: which variables it has, how they start, and what layer k is made of. The iterations themselves are
in dense.py (array code) and sparse.py (loops over the non-zeros).
"""

from typing import Any, NamedTuple

from npopt.errors import UserError
from npopt.values import Value, number, whole
from problems.unrolled.analytic import analytic_weight

import numpy as np

SUPPORT = (1.2, 13)  # percent more with each layer, and at most: the commands in the readme of Chen et al.'s code
SCALE = 1.001  # of |A|^2, their code's margin


class Layer(NamedTuple):
    """What an iteration needs. theta: (1,) or (n,). kept: entries that are not shrunk, see Unrolling. The others are
    None where the form has none: W (n, m) and gain (1,), or V (n, n), which is W2' of the paper."""

    theta: Any
    kept: int
    W: Any = None
    gain: Any = None
    V: Any = None


class Unrolling(Value):
    """Common to all forms. x_0 = 0; layer k = 0, ..., layers - 1 makes x_{k+1} = S_theta_k(u_k), where

        S_t(u) = sign(u) max(|u| - t, 0)

    layers          how many iterations
    lam             theta starts at lam/L with L = 1.001 |A|^2: untrained, the network is ISTA for that lam
    tied            one matrix for all layers, not one for each
    per_coordinate  theta_k has n numbers, not one
    support         None, or (p, most): support selection. Layer k does not shrink the entries whose |u| is above both
                    theta_k and the threshold of the min(p (k+1), most) percent largest of their sample. Which entries
                    those are counts as constant in backward. As in the code of Chen et al., whose commands
                    have p = 1.2 and most = 13 (SUPPORT).

    The count of such entries is round(percent (n - 1) / 100): the nearest order statistic, as there.
    """

    def __init__(self, layers=16, lam=0.4, tied=False, per_coordinate=False, support=None):
        name = type(self).__name__
        self.layers, self.lam = whole(name, "layers", layers), number(name, "lam", lam, low=0)
        self.tied, self.per_coordinate, self.support = bool(tied), bool(per_coordinate), support
        if support is not None:
            if not isinstance(support, (tuple, list)) or len(support) != 2:
                raise UserError(f"{name}: support must be (percent a layer, percent at most), got {support!r}")
            for value in support:
                number(name, "a percentage of support", value, low=0, high=100)
            self.support = tuple(support)

    def kept(self, k, n):
        """Entries of a sample that layer k does not shrink, at most."""
        if self.support is None:
            return 0
        p, most = self.support
        return round(min(p * (k + 1), most) * (n - 1) / 100)

    def thetas(self, n):
        """[(name, shape, kind, block)] of theta_k, by layer."""
        shape, kind = ((n,), "vector") if self.per_coordinate else ((1,), "scalar")
        return [(f"{k}.theta", shape, kind, f"layer{k}") for k in range(self.layers)]

    def matrix(self, k, letter):
        """The name of layer k's matrix."""
        return letter if self.tied else f"{k}.{letter}"

    def own(self, k):
        """The names of the variables that come into the network with layer k."""
        before = {name for j in range(k) for name in self.used(j)}
        return [name for name in self.used(k) if name not in before]

    def up_to(self, depth):
        """The names of the variables of layers 0 to depth - 1."""
        return [name for k in range(depth) for name in self.own(k)]

    def constants(self, A):
        """What is computed from A, (m, n) float64, and not learned: {name: float64 array}."""
        return {}


def start(A, lam):
    """(L, theta) of ISTA: L = 1.001 |A|^2, theta = lam/L."""
    L = SCALE * float(np.linalg.norm(A, 2) ** 2)
    return L, lam / L


class LISTA(Unrolling):
    """u_k = W1 b + W2_k x_k: Gregor & LeCun, ICML 2010, with one W1 for all layers, as in Chen et al.'s code.

    Variables: B = W1 (n, m), k.V = W2_k' (n, n) for k >= 1 (x_0 is 0), k.theta. They start at W1 = A'/L and
    W2 = I - A'A/L. theta < 0 counts as 0, as in that code. With `support` it is LISTA-SS of Chen et al.
    """

    clamp = True

    def entries(self, m, n):
        found = [("B", (n, m), "matrix", "shared")]
        if self.tied and self.layers > 1:
            found.append(("V", (n, n), "matrix", "shared"))
        for k, theta in enumerate(self.thetas(n)):
            if k and not self.tied:
                found.append((f"{k}.V", (n, n), "matrix", f"layer{k}"))
            found.append(theta)
        return found

    def initial(self, A):
        L, theta = start(A, self.lam)
        return {"B": A.T / L, "V": np.eye(A.shape[1]) - A.T @ A / L, "theta": theta}

    def used(self, k):
        return ["B", *([self.matrix(k, "V")] if k else []), f"{k}.theta"]

    def layer(self, k, views, constants, n):
        V = views[self.matrix(k, "V")] if k else None
        return Layer(views[f"{k}.theta"], self.kept(k, n), V=V)


class LISTACP(Unrolling):
    """u_k = x_k + W_k (b - A x_k), LISTA with its weights coupled as W2_k = I - W_k A: Chen, Liu, Wang & Yin, NeurIPS
    2018, arXiv:1808.10038, with W_k for the transpose of theirs.

    Variables: k.W (n, m) and k.theta. They start at W = A'/L. theta < 0 is allowed, as in their code. With `support` it
    is LISTA-CPSS.
    """

    clamp = False

    def entries(self, m, n):
        layers = self.thetas(n)
        if self.tied:
            return [("W", (n, m), "matrix", "shared"), *layers]
        return [entry for k in range(self.layers) for entry in ((f"{k}.W", (n, m), "matrix", f"layer{k}"), layers[k])]

    def initial(self, A):
        L, theta = start(A, self.lam)
        return {"W": A.T / L, "theta": theta}

    def used(self, k):
        return [self.matrix(k, "W"), f"{k}.theta"]

    def layer(self, k, views, constants, n):
        return Layer(views[f"{k}.theta"], self.kept(k, n), W=views[self.matrix(k, "W")])


class ALISTA(Unrolling):
    """u_k = x_k + gain_k W' (b - A x_k), W computed from A alone: Liu, Chen, Wang & Yin, ICLR 2019 ("ALISTA: analytic
    weights are as good as learned weights in LISTA"), with gain_k for their gamma_k.

    Variables: k.gain and k.theta, two numbers a layer. They start at gain = 1 and theta = lam/L. `tied` has no meaning.
    """

    clamp = False

    def __init__(self, layers=16, lam=0.4, per_coordinate=False, support=None):
        super().__init__(layers, lam, False, per_coordinate, support)

    def entries(self, m, n):
        layers = self.thetas(n)
        gains = [(f"{k}.gain", (1,), "scalar", f"layer{k}") for k in range(self.layers)]
        return [entry for pair in zip(gains, layers, strict=True) for entry in pair]

    def initial(self, A):
        return {"gain": 1.0, "theta": start(A, self.lam)[1]}

    def constants(self, A):
        return {"W": np.ascontiguousarray(analytic_weight(A).T)}

    def used(self, k):
        return [f"{k}.gain", f"{k}.theta"]

    def layer(self, k, views, constants, n):
        return Layer(views[f"{k}.theta"], self.kept(k, n), W=constants["W"], gain=views[f"{k}.gain"])
