"""Normalisation by the batch, feature by feature. N rows of D features: (N, D). (By the features: layer_norm.py.)"""

from npopt import backend
from npopt.backend import elementwise, xp
from npopt.errors import UserError
from npopt.values import number, whole

from . import init, kernels
from .layer import Layer

ONES, ZEROS = init.Ones(), init.Zeros()


@elementwise
def scales(r, ar, a, v, eps):
    r = 1 / sqrt(v + eps)  # noqa: F821
    ar = a * r
    return r, ar


@elementwise
def slopes(slope, shift, da, db, r, rows):
    slope = da * r / rows
    shift = db / rows
    return slope, shift


@elementwise
def fold(mean, variance, m, v, momentum, rows):
    mean = (1 - momentum) * mean + momentum * m
    variance = (1 - momentum) * variance + momentum * (v * rows / (rows - 1))
    return mean, variance


class BatchNorm(Layer):
    """y = a xh + b, xh = (x - m) r, r = (v + eps)^(-1/2), m, v over all but the last axis.  Ioffe & Szegedy, ICML 2015.

    x: (B, D) or (B, H, W, D), seen as (N, D)   a, b: (D,), kinds norm and bias

    Training: m, v = batch mean and (biased) variance. With h = a dy and xh = (x - m) r, per feature,
        dL = sum_n h_n dxh_n,    dxh_n = r (dx_n - dm) + (x_n - m) dr,    dm = mean dx,
        dr = -(1/2) r^3 dv,      dv = (2/N) sum_k (x_k - m) dx_k,
        dx_n = r (h_n - mean h - xh_n mean(h xh)) = a r (dy_n - db/N - xh_n da/N),
        da = sum dy xh,  db = sum dy.
    Evaluation: m, v are the running estimates, constants, so dx = a r dy.

    Running estimates, as in PyTorch: R <- (1 - momentum) R + momentum (batch value), with the batch's *unbiased*
    variance N/(N-1) v. A training pass leaves them pending; `Network.commit` folds them in. Kept: x, m, r.

    Along a direction, with c = mean(xh Rx) and Rm = mean Rx (both 0 in evaluation), and J the map from dy to dx above:

        Rxh = r (Rx - Rm - xh c),    Rr = -r^2 c,    Ry = a Rxh + Ra xh + Rb = J Rx + Ra xh + Rb
        R db = sum Rdy,   R da = sum (Rdy xh + dy Rxh),   sum dy Rxh = r sum dy (Rx - Rm) - r c da
        R dx = (r Ra + a Rr) (dy - db/N - xh da/N) + a r (Rdy - R db/N - Rxh da/N - xh R da/N)

    without the sums over N in evaluation.
    """

    reads_output = False

    def __init__(self, features, momentum=0.1, eps=1e-5, init=ONES, bias_init=ZEROS):
        self.features = whole("BatchNorm", "features", features)
        self.momentum = number("BatchNorm", "momentum", momentum, low=0, high=1)
        self.eps = number("BatchNorm", "eps", eps, low=0)
        self.shapes = {"a": ((features,), "norm"), "b": ((features,), "bias")}
        self.init = {"a": init, "b": bias_init}
        self.mean = self.variance = None

    def output_shape(self, shape):
        if shape[-1] != self.features:
            raise UserError(f"BatchNorm: x has {shape[-1]} features, the layer {self.features}")
        return tuple(shape)

    def forward(self, x, run):
        return self.joint(x, None, False, None if run.backward else run.place(x), run)

    def backward(self, dy, saved, run):
        return self.back(dy, saved, False, run)

    def joint(self, x, skip, rectify, onto, run):
        """y = a xh + b, plus skip unless skip is None. Where `rectify` is set, y is the larger of that and 0. y is
        written over the array `onto` unless that is None."""
        rows, batch = x.reshape(-1, self.features), run.training or run.recalibrating
        m, v = self.moments(rows, run) if batch else (s.astype(self.a.dtype) for s in self.running())
        r, ar = (backend.empty(m.shape, self.a.dtype) for _ in "ra")
        scales(r, ar, self.a, v, self.eps)
        y = backend.empty(x.shape, x.dtype) if onto is None else onto
        out = y.reshape(rows.shape)
        kernels.normalise(rows, m, ar, self.b, None if skip is None else skip.reshape(rows.shape), rectify, out)
        return y, (rows, m, r, ar, out if rectify else None, batch)

    def back(self, dy, saved, both, run):
        """dx, written over dy. With `both` dx is new, and dy becomes the gradient of skip."""
        rows, m, r, ar, y, batch = saved  # forward was: y = (x - m) a r + b (+ skip, cut at 0)
        n, shape, dy = rows.shape[0], dy.shape, dy.reshape(rows.shape)
        da, db = (backend.empty(m.shape, r.dtype) if d is None else d for d in (self.da, self.db))
        if self.active or batch or y is not None:
            kernels.normalise_sums(rows, m, r, dy, y, da, db)  # dy is cut where y = 0; da, db: the sums
        if not run.dx:
            return None
        dx = backend.empty(rows.shape, dy.dtype) if both else dy
        if batch:
            slope, shift = (backend.empty(m.shape, r.dtype) for _ in "ss")
            slopes(slope, shift, da, db, r, n)
        else:
            slope = shift = xp(dy).zeros_like(r)
        kernels.normalise_backward(rows, m, ar, dy, slope, shift, dx)  # dx = a r (dy - db/N - (x - m) r da/N)
        return dx.reshape(shape)

    def tangent(self, rx, saved, run):
        x, m, r, ar, _, batch = saved
        c, rm, slope, shift = (xp(r).zeros_like(r) for _ in "cmss")
        ry = backend.empty(x.shape, x.dtype)
        if rx is not None:
            rx = rx.reshape(x.shape)
            if batch:
                kernels.normalise_sums(x, m, r, rx, None, c, rm)
                slopes(slope, shift, c, rm, r, x.shape[0])
                c, rm = c / x.shape[0], rm / x.shape[0]
            kernels.normalise_backward(x, m, ar, rx, slope, shift, ry)  # J Rx
        kernels.normalise(x, m, r * self.va, self.vb, None if rx is None else ry, False, ry)
        return ry, (rx, c, rm)  # ry: (N, D)

    def note(self, dy, saved):
        x, m, r, *_ = saved
        da, db, dy = backend.empty(m.shape, r.dtype), backend.empty(m.shape, r.dtype), dy.reshape(x.shape).copy()
        kernels.normalise_sums(x, m, r, dy, None, da, db)
        return dy, da, db

    def backward_tangent(self, rdy, noted, kept, saved, run):
        (dy, da, db), (rx, c, rm), (x, m, r, ar, _, batch) = noted, kept, saved
        n, shape, rdy = x.shape[0], rdy.shape, rdy.reshape(x.shape)
        rda, rdb, along, _ = vectors = [xp(r).zeros_like(r) for _ in "abab"]
        kernels.normalise_sums(x, m, r, rdy, None, rda, rdb)  # sum Rdy xh, sum Rdy
        if rx is not None:
            kernels.normalise_sums(rx, rm, r, dy, None, *vectors[2:])  # r sum dy (Rx - Rm)
            rda = rda + along - r * c * da
        for d, rd in ((self.da, rda), (self.db, rdb)):
            if d is not None:
                d[...] = rd
        if not run.dx:
            return None
        turned = r * self.va - ar * r * c  # r Ra + a Rr
        zero = slope = offset = xp(r).zeros_like(r)
        if batch:  # a r (Rdy - R db/N - Rxh da/N - xh R da/N), Rxh = r (Rx - Rm - xh c), xh = r (x - m)
            slope, offset = r * (rda - r * c * da) / n, (rdb - r * rm * da) / n
        kernels.normalise_backward(x, m, ar, rdy, slope, offset, rdy)
        if batch:
            kernels.normalise(rx, zero, -ar * r * da / n, zero, rdy, False, rdy)
            slope, offset = r * da / n, db / n
        more = backend.workspace(x.shape, x.dtype)
        kernels.normalise_backward(x, m, turned, dy, slope, offset, more)
        rdy += more
        return rdy.reshape(shape)

    # statistics, in float64 on the device in use

    def moments(self, rows, run):
        """Mean and variance of this batch. A pass that gathers statistics also leaves them for commit."""
        n = rows.shape[0]
        if n < 2 and run.training:
            raise UserError(
                f"BatchNorm: {self.path or 'the layer'} needs more than one value per feature in training; use a "
                "larger batch, or leave a last batch of one row out (drop_last=True)"
            )
        both = backend.empty((2, self.features), self.a.dtype)
        kernels.moments(rows, both[0], both[1])
        if run.pending is not None:
            wide = both.astype("float64")
            run.leave(self, joined(run.left(self), n, wide[0], wide[1]) if run.recalibrating else (n, wide[0], wide[1]))
        return both[0], both[1]

    def running(self):
        """The running mean and variance."""
        if self.mean is None:
            self.mean = backend.zeros((self.features,), "float64")
            self.variance = backend.zeros((self.features,), "float64") + 1
        return self.mean, self.variance

    def commit(self, left):
        """R <- (1 - momentum) R + momentum (what was left), the variance unbiased."""
        n, mean, variance = left
        fold(*self.running(), mean, variance, self.momentum, n)

    def recalibrate(self, left):
        """Replace the running estimates by what recalibrating passes gathered."""
        n, self.mean, square = left
        self.variance = square / max(n - 1, 1)

    def state(self):
        self.running()
        return {"mean": backend.to_host(self.mean).copy(), "variance": backend.to_host(self.variance).copy()}

    def load_state(self, state):
        self.mean = backend.asarray(state["mean"], "float64").copy()
        self.variance = backend.asarray(state["variance"], "float64").copy()

    def __repr__(self):
        return f"{type(self).__name__}({self.features}, momentum={self.momentum}, eps={self.eps})"


def joined(before, n, mean, variance):
    """(rows, mean, sum of squares about it), with those before: Chan, Golub & LeVeque 1979, equation 2.1."""
    square = variance * n
    if before is not None:
        seen, old, total = before
        step = mean - old
        mean = old + step * (n / (seen + n))
        square = total + square + step * step * (seen * n / (seen + n))
        n += seen
    return n, mean, square
