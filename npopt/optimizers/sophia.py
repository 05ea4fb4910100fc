"""Sophia: Liu, Li, Hall, Liang & Ma, ICLR 2024, arXiv:2305.14342, Algorithm 3; estimators: Algorithms 1 (H), 2 (G)."""

from npopt import backend
from npopt.backend import elementwise
from npopt.errors import UserError
from npopt.optimizers.base import Optimizer, number_or_array
from npopt.values import number, whole


@elementwise
def sophia(x, m, h, g, lr, b1, rho, eps, weight_decay):
    m = b1 * m + (1 - b1) * g
    x = x - lr * (max(min(m / max(rho * h, eps), 1.0), -1.0) + weight_decay * x)
    return x, m


@elementwise
def hutchinson(h, u, right, left, b2, step):
    h = b2 * h + (1 - b2) * u * (right - left) / step
    return h


@elementwise
def gauss_newton(h, g, b2, rows):
    h = b2 * h + (1 - b2) * rows * g * g
    return h


@elementwise
def shifted(y, x, u, step):
    y = x + step * u
    return y


class Sophia(Optimizer):
    """m <- b1 m + (1-b1) g            x <- x - lr (clip(m / max(rho h, eps), -1, 1) + weight_decay x)

    At steps 1, k+1, 2k+1, ... it first sets h <- b2 h + (1-b2) hh, where hh is an estimate of the Hessian's diagonal.
    No bias is corrected. The decay is decoupled and multiplied by lr; weight_decay may be an array like x. Where h <= 0
    the step is lr. The authors' code keeps h for one row and folds the batch size into rho; here h is the diagonal
    itself.
    """

    arrays = ("m", "h")
    numbers = {"before": 0}  # steps before a restart: no draw comes twice
    options = ("weight_decay",)

    def __init__(self, b1=0.965, b2=0.99, rho=0.04, eps=1e-12, weight_decay=0.0, every=10):
        name = type(self).__name__
        self.b1 = number(name, "b1", b1, low=0, high=1, open_high=True)
        self.b2 = number(name, "b2", b2, low=0, high=1, open_high=True)
        self.rho = number(name, "rho", rho, low=0, open_low=True)
        self.eps = number(name, "eps", eps, low=0, open_low=True)
        self.weight_decay = number_or_array(name, "weight_decay", weight_decay, low=0)
        self.every = whole(name, "every", every)

    def restart(self, x):
        before = self.before + self.t
        super().restart(x)
        self.before = before

    def step(self, x, g, lr):
        if self.t % self.every == 0:
            if self.oracle is None:
                raise UserError(f"{type(self).__name__} asks for second gradients: run it by minimize")
            self.estimate(x, self.slot("h"))
        super().step(x, g, lr)

    def update(self, x, g, lr, m, h, weight_decay):
        sophia(x, m, h, g, lr, self.b1, self.rho, self.eps, weight_decay)

    def key(self):
        return backend.key(self.oracle.seed, type(self).__name__, self.before + self.t)


class SophiaH(Sophia):
    """Sophia with Hutchinson's estimate: hh = u * (H u), u ~ N(0, I), E[hh] = diag H, H that of this step's batch.

    H u = (grad f(x + r u) - grad f(x - r u)) / (2 r) with r = radius (1 + |x|) / |u|: two more gradients every k steps,
    exact on quadratics. The points lie radius (1 + |x|) from x: r scales with x and not with the number of unknowns,
    so that float32 neither loses the difference nor a small x its curvature.
    """

    def __init__(self, b1=0.965, b2=0.99, rho=0.04, eps=1e-12, weight_decay=0.0, every=10, radius=1e-3):
        super().__init__(b1, b2, rho, eps, weight_decay, every)
        self.radius = number("SophiaH", "radius", radius, low=0, open_low=True)

    def estimate(self, x, h):
        m = backend.xp(x)
        u, y, right, left = (m.empty_like(x) for _ in range(4))
        backend.normals(self.key(), u)
        r = self.radius * (1 + backend.norm(x)) / backend.norm(u)
        for sign, out in ((1, right), (-1, left)):
            shifted(y, x, u, sign * r)
            self.oracle.again(y, out)
        hutchinson(h, u, right, left, self.b2, 2 * r)


class SophiaG(Sophia):
    """Sophia with the Gauss-Newton-Bartlett estimate: hh = B gh^2. Here gh is the gradient of the mean loss of this
    step's B rows, with labels drawn from the model's own softmax. E[hh] is the diagonal of the Gauss-Newton matrix of
    the mean loss.
    """

    never_negative = ("h",)

    def estimate(self, x, h):
        gradient = backend.xp(x).empty_like(x)
        rows = self.oracle.sampled(x, gradient, self.key())
        gauss_newton(h, gradient, self.b2, rows)
