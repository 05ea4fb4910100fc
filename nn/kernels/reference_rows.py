"""Norms of rows in array code: x, y, dy, dx: (N, D)   a, b, da, db: (D,)   m, r: (N,)

dx may be dy; None for what is not wanted.
"""

from npopt.backend import xp

from .reference import sum_rows


def layer_norm(x, a, b, eps, y, m, r):
    """y = a (x - m) r + b, m the mean of a row, r = (its variance + eps)^(-1/2)."""
    m[...] = x.mean(1)
    h = x - m[:, None]
    r[...] = 1 / xp(x).sqrt((h * h).mean(1) + eps)
    h *= r[:, None]
    xp(x).add(a * h, b, out=y)


def layer_norm_backward(x, a, m, r, dy, dx, da, db):
    """With xh = (x - m) r, h = a dy:  dx = r (h - mean h - xh mean(h xh)),  da = sum_rows dy xh,  db = sum_rows dy."""
    xh = (x - m[:, None]) * r[:, None]
    if da is not None:
        sum_rows(dy * xh, da)
    if db is not None:
        sum_rows(dy, db)
    if dx is not None:
        h = a * dy
        dx[...] = r[:, None] * (h - h.mean(1, keepdims=True) - xh * (h * xh).mean(1, keepdims=True))


def rms_norm(x, a, eps, y, r):
    """y = a x r, r = (mean x^2 + eps)^(-1/2)."""
    r[...] = 1 / xp(x).sqrt((x * x).mean(1) + eps)
    xp(x).multiply(a * x, r[:, None], out=y)


def rms_norm_backward(x, a, r, dy, dx, da):
    """With xh = x r and h = a dy:  dx = r (h - xh mean(h xh)),  da = sum_rows dy xh."""
    xh = x * r[:, None]
    if da is not None:
        sum_rows(dy * xh, da)
    if dx is not None:
        h = a * dy
        dx[...] = r[:, None] * (h - xh * (h * xh).mean(1, keepdims=True))


def rotate(x, cos, sin, adjacent):
    """Turn pairs of x, (B, T, H, D), in place: (u, v) -> (u cos - v sin, u sin + v cos). cos, sin: (T, d/2). A pair is
    (x_2i, x_2i+1) if adjacent, else (x_i, x_(i+d/2)); what is behind the first d numbers stays."""
    half, (c, s) = cos.shape[1], (a[:, None] for a in (cos, sin))
    if adjacent:
        u, v = x[..., : 2 * half : 2], x[..., 1 : 2 * half : 2]
    else:
        u, v = x[..., :half], x[..., half : 2 * half]
    turned = u * c - v * s
    v[...] = u * s + v * c
    u[...] = turned
