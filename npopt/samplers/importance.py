"""Rows drawn with probabilities of their own, and weights 1/(n p_i) that keep the gradient unbiased."""

from npopt import backend
from npopt.errors import UserError
from npopt.samplers.base import Batch, Sampler
from npopt.values import number

import numba
import numpy as np


class Importance(Sampler):
    """Fixed probabilities: Zhao & Zhang, ICML 2015. Rows are drawn independently, an epoch is n draws:

        i ~ p,      w_i = 1 / (n p_i),      p <- (1 - mix) p + mix / n

    by   "smoothness": p_i prop. to problem.row_smoothness(), L_i; "norms": p_i prop. to |a_i|, the bound of the
         gradient norms of a linear model with bounded l'; or the n probabilities themselves
    mix  the share of uniform draws. A row with p_i = 0 is refused: its l2 gradient would be missing from the mean

    The variance of the gradient of one row is sum_i |grad f_i|^2 / (n^2 p_i) - |grad f|^2. It is least for p_i prop. to
    |grad f_i|. If G_i are bounds of |grad f_i|, p_i prop. to G_i lowers the bound of the variance by
    mean(G^2) / mean(G)^2 = 1 + CV(G)^2: on rows of one norm nothing is gained. Draws are by bisection in the cumulative
    sums, O(log n) each.
    """

    def __init__(self, batch_size=1, by="smoothness", mix=0.0, drop_last=False):
        super().__init__(batch_size, drop_last)
        self.mix = number("Importance", "mix", mix, low=0, high=1)
        if isinstance(by, str) and by not in ("smoothness", "norms"):
            raise UserError(f'Importance: by must be "smoothness", "norms" or the probabilities, got {by!r}')
        if not isinstance(by, str):
            by = np.asarray(by, np.float64)
            if by.ndim != 1 or not np.isfinite(by).all() or by.min() < 0 or abs(by.sum() - 1) > 1e-9:
                raise UserError(
                    "Importance: probabilities must be a vector of numbers >= 0 that sum to 1, got shape "
                    f"{by.shape} with sum {by.sum():.6g}"
                )
        self.by = by

    def start(self, problem, seed):
        super().start(problem, seed)
        p = self.by
        if isinstance(p, str):
            needed = "row_smoothness" if p == "smoothness" else "square_norms"
            if not hasattr(problem, needed):
                raise UserError(f'Importance: {problem.name} does not know what by="{p}" needs; give probabilities')
            p = problem.row_smoothness() if p == "smoothness" else np.sqrt(problem.square_norms)
            total = p.sum()
            p = p / total if total > 0 else np.full(self.n, 1 / self.n)
        if p.shape != (self.n,):
            raise UserError(f"Importance: {len(p)} probabilities for the {self.n} rows of {problem.name}")
        p = (1 - self.mix) * p + self.mix / self.n
        if p.min() == 0:
            raise UserError(f"Importance: row {int(p.argmin())} of {problem.name} would never be drawn; give mix > 0")
        self.probabilities = p / p.sum()
        self._sums = np.cumsum(self.probabilities)
        self._weights = 1 / (self.n * self.probabilities)

    def epoch(self, e):
        u = backend.generator(self.seed, "importance", e).random(self.n) * self._sums[-1]
        order = np.minimum(np.searchsorted(self._sums, u, side="right"), self.n - 1)
        return order, self._weights[order]


class AdaptiveImportance(Sampler):
    """Probabilities learned on the way, after Yuan, Ying, Vlaski & Sayed, IEEE MLSP 2016 (details are ours):

        psi_i <- (1 - a) psi_i + a |grad f_i(x)|  when row i is drawn,     p = (1 - c) psi / sum psi + c / n

    The first epoch is one reshuffled pass with weights 1. It sets psi_i = |grad f_i|, so no scale has to be guessed.
    After it every row of a batch is drawn from the p of that moment, with weight 1/(n p_i). The norms are
    problem.row_norms() of the last pass, which leave the l2 term out.

    p lies in a Fenwick tree (cumulative sums in a binary tree), so a draw and a change cost O(log n). The uniform
    numbers are a function of (seed, epoch); which rows they pick depends on the norms seen so far. The tree is on the
    host. So on a device each step moves rows and weights there, reads the norms back, and waits for the device.
    """

    learns = True

    def __init__(self, batch_size=1, a=0.3, c=0.1, drop_last=False):
        super().__init__(batch_size, drop_last)
        self.a = number("AdaptiveImportance", "a", a, low=0, high=1, open_low=True)
        self.c = number("AdaptiveImportance", "c", c, low=0, high=1, open_low=True)

    def start(self, problem, seed):
        super().start(problem, seed)
        self.psi, self._tree = np.zeros(self.n), np.zeros(self.n + 1)
        self._uniforms, self._drawn = (None, None), None  # _drawn: the last batch's rows, on the host

    @property
    def probabilities(self):
        """p as it is now, (n,); None while the first pass is under way or nothing has a gradient."""
        total = self.psi.sum()
        if self.taken <= self.steps_per_epoch or total == 0:
            return None
        return (1 - self.c) * self.psi / total + self.c / self.n

    def epoch(self, e):
        """The order of the first epoch; later orders are drawn batch by batch."""
        return backend.generator(self.seed, "adaptive first", e).permutation(self.n), None

    def take(self, k):
        for _ in range(k):
            e, j = divmod(self.taken, self.steps_per_epoch)
            self.taken += 1
            if e == 0:
                cut = slice(j * self.size, (j + 1) * self.size)
                self._drawn = self._order(0)[0][cut]
                yield Batch(self._order_there(0)[0][cut])
                continue
            if self._uniforms[0] != e:
                self._uniforms = (e, backend.generator(self.seed, "adaptive", e).random((self.n, 2)))
            u = self._uniforms[1][j * self.size : (j + 1) * self.size]
            rows, weights = np.empty(len(u), np.int64), np.empty(len(u))
            draw(self._tree, self.psi, u, self.c, rows, weights)
            self._drawn = rows
            yield Batch(backend.asarray(rows), backend.asarray(weights), None, e)

    def observe(self, batch, problem):
        norms = problem.row_norms()
        if norms is None:
            raise UserError(f"AdaptiveImportance: {problem.name} does not know the gradient norms of its rows")
        norms = np.asarray(backend.to_host(norms), np.float64)
        first = self.taken <= self.steps_per_epoch
        learn(self._tree, self.psi, self._drawn, norms, 1.0 if first else float(self.a))

    def span(self, k):
        raise UserError("AdaptiveImportance: rows are drawn one batch at a time")

    def state(self):
        return {**super().state(), "psi": self.psi, "tree": self._tree}

    def load_state(self, state):
        super().load_state(state)
        self.psi[:], self._tree[:] = state["psi"], state["tree"]


@numba.njit(cache=True)
def draw(tree, psi, uniforms, c, rows, weights):
    """rows[b] ~ p, weights[b] = 1/(n p). tree: (n + 1,), tree[i] the sum of psi over the i & -i rows that end with row
    i - 1; uniforms: (B, 2), the first chooses between the two parts of p."""
    n = psi.size
    total, top_step = 0.0, 1
    i = n
    while i > 0:
        total += tree[i]
        i -= i & -i
    while top_step * 2 <= n:
        top_step *= 2
    for b in range(rows.size):
        if uniforms[b, 0] < c or not total > 0:
            i = int(uniforms[b, 1] * n)
        else:
            left, i, step = uniforms[b, 1] * total, 0, top_step
            while step > 0:
                if i + step <= n and tree[i + step] <= left:
                    i += step
                    left -= tree[i]
                step //= 2
            while i >= n or psi[i] == 0:  # rounding at the end of the sums, or on an empty row
                i = i - 1 if i > 0 else n - 1
        rows[b] = i
        p = (1 - c) * psi[i] / total + c / n if total > 0 else 1 / n
        weights[b] = 1 / (n * p)


@numba.njit(cache=True)
def learn(tree, psi, rows, norms, a):
    """psi_i <- (1 - a) psi_i + a |grad f_i|, and the change into the tree's sums."""
    for b in range(rows.size):
        i = rows[b]
        change = a * (norms[b] - psi[i])
        psi[i] = psi[i] + change if a < 1 else norms[b]
        i += 1
        while i < tree.size:
            tree[i] += change
            i += i & -i
