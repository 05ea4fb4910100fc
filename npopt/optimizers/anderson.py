"""Anderson acceleration: D. G. Anderson, J. ACM 12, 1965; the guarded proximal form of Mai & Johansson, ICML 2020."""

import warnings

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer
from npopt.optimizers.ista import descent
from npopt.state import Stateful
from npopt.values import number, whole

import numpy as np


@elementwise
def rotate(a, b, c, s):
    old = a
    a = c * a + s * b
    b = c * b - s * old
    return a, b


class Anderson(Optimizer):
    """Type II, mixing 1, over the last m_k = min(window, k) steps of the fixed-point map q(x) = x - lr grad f(x):

        r_k = q_k - x_k
        a   = argmin |sum_j a_j r_{k-j}|,  sum_j a_j = 1            x_{k+1} = sum_j a_j q_{k-j}

    or, the same without the constraint, with the differences dR = [r_{j+1} - r_j], dQ = [q_{j+1} - q_j] (solver "qr"):

        z = argmin |r_k - dR z|                                     x_{k+1} = q_k - dQ z

    On a penalised problem x = prox_{lr h}(y) and it is y that is extrapolated: r_k = q_k - y_k, y_{k+1} from the
    formulas above, x_{k+1} = prox_{lr h}(y_{k+1}). Without a penalty y is x. window=0 is gradient descent, bit for bit
    (ISTA with a penalty). On a quadratic, window >= d ends after as many steps as there are distinct eigenvalues, plus
    one. Meant for full batches and one lr.

    solver  "qr": dR = Q R, updated: the new column by Gram-Schmidt, twice; the oldest is dropped by Givens rotations,
            and further ones while cond(R) > condition. "gram": (G/|G|_2 + reg I) a ~ 1, G the residuals' Gram matrix;
            reg is 1e-10 in the paper's code, 1e-15 for its quadratics
    guard   accept x_{k+1} if F(x_{k+1}) <= f(x_k) + <grad f(x_k), p - x_k> + |p - x_k|^2 / (2 lr) + h(p), where
            p = prox_{lr h}(q_k) is the plain step, for which this holds if lr <= 1/L. Without a penalty the right-hand
            side is f(x_k) - lr/2 |grad f(x_k)|^2. (The paper has f for F; for the indicator of a set it is the same.)
            The guard is looked at one step late, with the loss that the loop has anyway: x_{k+1} is rejected when its
            loss and gradient are known, x goes to p, and that gradient is all that a rejection costs. The accepted
            iterates are the paper's: r_k is kept either way, and of the rejected point nothing

    `accepted` and `rejected` count. Memory: 2 (window + 1) d numbers, d more for y with a penalty, two work vectors,
    and O(window^2); work beside the gradient: about 6 window d ("qr"), 2 window d ("gram"). The window's system is
    solved, and the guard decides, on the host: a step reads a few numbers of a device and waits for it.
    """

    proximal = True
    numbers = {"accepted": 0, "rejected": 0, "bound": None}  # bound: of the accelerated point that awaits its loss
    parts = ("history",)

    @property
    def arrays(self):
        return ("y",) if self.penalised else ()

    def __init__(self, window=5, solver="qr", reg=1e-10, condition=1e10, guard=True):
        self.window = whole("Anderson", "window", window, low=0)
        if solver not in ("qr", "gram"):
            raise UserError(f'Anderson: solver must be "qr" or "gram", got {solver!r}')
        self.solver, self.guard = solver, bool(guard)
        self.reg = number("Anderson", "reg", reg, low=0)
        self.condition = number("Anderson", "condition", condition, low=1)

    def start(self, x, oracle=None):
        self.penalised = oracle is not None and oracle.problem.has_penalty
        super().start(x, oracle)
        m = self.window
        if m > x.size:
            m = x.size
            warnings.warn(
                f"Anderson: window {self.window} is more than the {m} unknowns; {m} are used",
                RuntimeWarning,
                stacklevel=2,
            )
        self.history = (UpdatedQR(m, x, self.condition) if self.solver == "qr" else Gram(m, x, self.reg)) if m else None
        self._q, self._r = backend.xp(x).zeros_like(x), backend.xp(x).zeros_like(x)  # work vectors

    def step(self, x, g, lr):
        if getattr(lr, "ndim", 0):
            raise UserError("Anderson: the map x - lr grad f(x) has one step size; give a schedule of numbers")
        lr = float(backend.to_host(lr))
        if self.t == 0 and self.penalised:
            self.slot("y")[...] = x
        self.t += 1
        if self.bound is not None:
            bound, self.bound = self.bound, None
            if not self.objective(x) <= bound:
                self.rejected += 1
                self.move(x, self.history.last, lr)  # the plain step from the point before
                return
            self.accepted += 1
        q, r = self._q, self._r
        descent(q, x, g, lr)
        if self.history is None:
            self.move(x, q, lr)
            return
        bound = self.descent_bound(x, g, q, lr) if self.guard else None
        descent(r, q, self.slot("y") if self.penalised else x, 1.0)  # r = q - y
        mixed = self.history.extrapolate(q, r)
        if mixed is not None:
            self.bound = bound
        self.move(x, q if mixed is None else mixed, lr)

    def descent_bound(self, x, g, q, lr):
        """What F is at most at p = prox(q), by the descent lemma; a few roundings are let pass."""
        if not self.penalised:
            bound = self.loss() - lr / 2 * float(backend.to_host((g * g).sum()))
        else:
            p, problem = self._r, self.oracle.problem
            p[...] = q
            problem.prox(p, lr)
            bound = self.loss() + problem.penalty(p)
            descent(p, p, x, 1.0)  # p - x
            bound += float(backend.to_host((g * p).sum() + (p * p).sum() / (2 * lr)))
        return bound + 4 * float(backend.xp(x).finfo(x.dtype).eps) * abs(bound)

    def move(self, x, y, lr):
        """x <- prox(y)"""
        x[...] = y
        if self.penalised:
            self.slot("y")[...] = y
            self.oracle.problem.prox(x, lr)

    def loss(self):
        return float(backend.to_host(self.oracle.loss))

    def objective(self, x):
        return self.loss() + (self.oracle.problem.penalty(x) if self.penalised else 0.0)


class UpdatedQR(Stateful):
    """dR = Q R with Q' (m, d) by rows on the device and R (m, m) on the host; dQ in a ring of m rows.

    ring[:k] says which rows of `steps` hold the k differences in use, the oldest first.
    """

    def __init__(self, m, x, condition):
        self.m, self.condition = m, condition
        xp = backend.xp(x)
        self.Q, self.steps = (backend.zeros((m, x.size), x.dtype) for _ in range(2))
        self.R, self.ring, self.k = np.zeros((m, m)), np.zeros(m, np.int64), 0
        self.q, self.r = xp.zeros_like(x), xp.zeros_like(x)  # the last ones
        self.ready = False

    @property
    def last(self):
        return self.q

    def extrapolate(self, q, r):
        """q - dQ z, or None where there is no history yet; q and r are kept, r is overwritten."""
        if self.ready:
            self.append(q, r)
        self.q[...], self.r[...], self.ready = q, r, True
        k = self.k
        if k == 0:
            return None
        right = backend.to_host(self.Q[:k] @ r).astype(np.float64)
        if not np.isfinite(right).all():
            return None
        z = np.zeros(self.m)
        z[self.ring[:k]] = np.linalg.solve(self.R[:k, :k], right)  # triangular
        r[...] = backend.asarray(z, r.dtype) @ self.steps
        descent(r, q, r, 1.0)
        return r

    def append(self, q, r):
        """The newest differences as the last column."""
        if self.k == self.m:
            self.drop()
        k = self.k
        row = next(i for i in range(self.m) if i not in self.ring[:k])
        descent(self.steps[row], q, self.q, 1.0)
        v = self.Q[k]
        descent(v, r, self.r, 1.0)
        size = float(backend.to_host((v * v).sum())) ** 0.5
        self.R[: k + 1, k] = 0
        for _ in range(2 if k else 0):
            h = self.Q[:k] @ v
            descent(v, v, h @ self.Q[:k], 1.0)
            self.R[:k, k] += backend.to_host(h)
        left = float(backend.to_host((v * v).sum())) ** 0.5
        if not size < np.inf or left <= 1e-300:  # nothing new, or no numbers
            if not size < np.inf:
                self.k = 0
            return
        v *= 1 / left
        self.R[k, k] = left
        self.ring[k], self.k = row, k + 1
        while self.k > 1 and not self.well_conditioned():
            self.drop()

    def well_conditioned(self):
        k = self.k
        return np.isfinite(self.R[:k, :k]).all() and np.linalg.cond(self.R[:k, :k]) <= self.condition

    def drop(self):
        """Remove the oldest column: R without its first column is upper Hessenberg, rotations make it triangular."""
        k = self.k
        R = self.R[:k, 1:k].copy()
        for i in range(k - 1):
            a, b = R[i, i], R[i + 1, i]
            length = float(np.hypot(a, b))
            c, s = (a / length, b / length) if length else (1.0, 0.0)
            R[i], R[i + 1] = c * R[i] + s * R[i + 1], c * R[i + 1] - s * R[i]
            rotate(self.Q[i], self.Q[i + 1], float(c), float(s))
        self.R[: k - 1, : k - 1] = R[:-1]
        self.ring[: k - 1], self.k = self.ring[1:k].copy(), k - 1

    def kept(self):
        return {name: getattr(self, name) for name in ("Q", "steps", "R", "ring", "k", "q", "r", "ready")}


class Gram(Stateful):
    """Residuals and q's in rings of m + 1 rows on the device, the residuals' Gram matrix on the host."""

    def __init__(self, m, x, reg):
        self.reg = reg
        self.r, self.q = (backend.zeros((m + 1, x.size), x.dtype) for _ in range(2))
        self.G, self.count = np.zeros((m + 1, m + 1)), 0

    @property
    def last(self):
        return self.q[(self.count - 1) % len(self.q)]

    def extrapolate(self, q, r):
        rows = len(self.r)
        i = self.count % rows
        self.r[i], self.q[i] = r, q
        self.count += 1
        k = min(self.count, rows)
        self.G[i, :k] = self.G[:k, i] = backend.to_host(self.r[:k] @ r)
        if k == 1:
            return None
        G = self.G[:k, :k]
        size = np.linalg.norm(G, 2) if np.isfinite(G).all() else 0.0
        if not size > 0:
            return None
        a = np.linalg.solve(G / size + self.reg * np.eye(k), np.ones(k))
        r[...] = backend.asarray(a / a.sum(), r.dtype) @ self.q[:k]
        return r

    def kept(self):
        return {name: getattr(self, name) for name in ("r", "q", "G", "count")}
