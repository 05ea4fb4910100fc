"""Anderson acceleration: D. G. Anderson, J. ACM 12, 1965; the guarded proximal form of Mai & Johansson, ICML 2020."""

import warnings

from npopt import backend
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer
from npopt.optimizers.history import Gram, UpdatedQR
from npopt.optimizers.ista import descent
from npopt.values import number, whole


class Anderson(Optimizer):
    """Type II, mixing 1, over the last m_k = min(window, k) steps of the fixed-point map q(x) = x - lr grad f(x):

        r_k = q_k - x_k
        a   = argmin |sum_j a_j r_{k-j}|,  sum_j a_j = 1            x_{k+1} = sum_j a_j q_{k-j}

    or, the same without the constraint, with the differences dR = [r_{j+1} - r_j], dQ = [q_{j+1} - q_j] (solver "qr"):

        z = argmin |r_k - dR z|                                     x_{k+1} = q_k - dQ z

    On a penalised problem y is extrapolated, and x = prox_{lr h}(y): r_k = q_k - y_k, y_{k+1} from the formulas above,
    x_{k+1} = prox_{lr h}(y_{k+1}). Without a penalty y is x. window=0 is gradient descent, bit for bit (ISTA with a
    penalty). On a quadratic, window >= d ends after as many steps as there are distinct eigenvalues, plus one. The
    method is meant for full batches and one lr.

    solver  "qr": dR = Q R is updated. Gram-Schmidt, done twice, adds the new column. Givens rotations drop the oldest
            column, and further ones while |R|_F |R^-1|_F > condition. "gram": (G/|G|_2 + reg I) a ~ 1, G the residuals'
            Gram matrix; reg is 1e-10 in the paper's code, 1e-15 for its quadratics
    guard   accept x_{k+1} if F(x_{k+1}) <= f(x_k) + <grad f(x_k), p - x_k> + |p - x_k|^2 / (2 lr) + h(p), where
            p = prox_{lr h}(q_k) is the plain step, for which this holds if lr <= 1/L. Without a penalty the right-hand
            side is f(x_k) - lr/2 |grad f(x_k)|^2. (The paper has f for F; for the indicator of a set it is the same.)
            The guard decides one step late, with the loss that the loop has anyway: when the loss and the gradient at
            x_{k+1} are known. If it rejects x_{k+1}, x goes to p, and that gradient is all that the rejection costs.
            The accepted iterates are the paper's: r_k is kept in both cases, and nothing of the rejected point is kept
    patience  after so many rejections in a row the window is emptied, and begins anew at the last point. For it holds
            steps of a region that x has left, and each trial from it costs a gradient. None: never, as in the paper

    `accepted` and `rejected` count the points. Memory: 2 (window + 1) d numbers, d more for y with a penalty, two work
    vectors, and O(window^2). Work beside the gradient: about 6 window d ("qr"), 2 window d ("gram"). The window's
    system is solved on the host, and the guard decides there. So a step reads a few numbers of a device and waits.
    """

    proximal = True
    numbers = {"accepted": 0, "rejected": 0, "running": 0, "bound": None}  # running: rejected since the last accepted
    parts = ("history",)

    @property
    def arrays(self):
        return ("y",) if self.penalised else ()

    def __init__(self, window=5, solver="qr", reg=1e-10, condition=1e10, guard=True, patience=1):
        self.window = whole("Anderson", "window", window, low=0)
        if solver not in ("qr", "gram"):
            raise UserError(f'Anderson: solver must be "qr" or "gram", got {solver!r}')
        self.solver, self.guard = solver, bool(guard)
        self.reg = number("Anderson", "reg", reg, low=0)
        self.condition = number("Anderson", "condition", condition, low=1)
        self.patience = None if patience is None else whole("Anderson", "patience", patience, low=1)

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
        if self.bound is not None:  # of the accelerated point that awaits its loss
            bound, self.bound = self.bound, None
            if not self.objective(x) <= bound:
                self.reject(x, lr)
                return
            self.accepted, self.running = self.accepted + 1, 0
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

    def reject(self, x, lr):
        """Move x to the plain step from the point before."""
        self.rejected, self.running = self.rejected + 1, self.running + 1
        self.move(x, self.history.last, lr)
        if self.patience is not None and self.running >= self.patience:
            self.history.forget()
            self.running = 0

    def descent_bound(self, x, g, q, lr):
        """An upper bound of F at p = prox(q), by the descent lemma, with some allowance for rounding."""
        if not self.penalised:
            bound = self.loss() - lr / 2 * float(backend.to_host(g @ g))
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
