"""Square Attack in linf, from answers alone: Andriushchenko et al., ECCV 2020, arXiv:1912.00049, Algorithms 1 and 2."""

import math

from npopt import backend
from npopt.backend import key, row_uniform, xp
from npopt.ball import per_row
from npopt.errors import UserError
from npopt.values import number, whole
from problems.attacks.base import Attack, Ball, Best, remaining
from problems.attacks.losses import LogitMargin

HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: section 4.1 of the paper


class Square(Attack):
    """Random search by squares; no gradient is asked for, so a network cannot hide it.

    Start: vertical stripes of width 1, each -eps or eps in each channel. Query i draws a square of side
    h = max(1, round(sqrt(p_i H W))) and for each channel a value -2 eps or 2 eps; it is added there, the sum is cut to
    the ball and the pixels, and kept where the loss rises.

    queries   evaluations of each row, the start among them
    p         the share of pixels in the first squares; halved after 10, 50, 200, 1000, 2000, 4000, 6000 and 8000
              of 10,000 queries, and in proportion for another number (their figure; their code has 500, too)
    loss      None: LogitMargin(), as in the paper

    Networks on images alone, also those that take them as flat rows. All draws are functions of (seed, query, row).
    """

    def __init__(self, eps, queries=1000, restarts=1, *, p=0.8, loss=None):
        self.eps, self.queries, self.restarts = eps, whole("Square", "queries", queries, low=2), restarts
        self.p, self.loss = (
            number("Square", "p", p, low=0, high=1, open_low=True),
            LogitMargin() if loss is None else loss,
        )
        self.check()

    def share(self, i):
        """p_i of query i of 0, ..., queries - 1."""
        at = i * 10_000 / self.queries
        return self.p / 2 ** sum(at > bound for bound in HALVINGS)

    def once(self, aim, draw, stop):
        shape = aim.problem.image_shape()
        if len(shape) != 3:
            raise UserError(f"Square: rows must be images (H, W, C), those of {aim.problem.name} have shape {shape}")
        best, at, (seed, stream, restart) = Best(aim, empty=True), None, draw
        ball, number_of = Ball(aim, self.eps, "linf"), restart * self.queries
        delta = stripes(uniforms(key(seed, stream, number_of), aim, shape[1] * shape[2]), shape, self.eps)
        delta = ball.project(delta.reshape(aim.pixels.own.shape))
        losses, fooled = aim.value(delta)
        best.note(delta, losses, fooled)
        for i in range(1, self.queries):
            if stop and (left := remaining(fooled)).shape[0] < 0.75 * aim.count:
                if not left.shape[0]:
                    break
                at = left if at is None else at[left]
                aim, delta, losses, fooled = aim.part(left), delta[left], losses[left], fooled[left]
                ball = Ball(aim, self.eps, "linf")
            u = uniforms(key(seed, stream, number_of + i), aim, 2 + shape[2])
            new = ball.project(delta + squares(u, shape, self.side(i, shape), 2 * self.eps).reshape(delta.shape))
            found, wrong = aim.value(new)
            best.note(new, found, wrong, at)
            higher = found > losses
            delta = xp(new).where(per_row(higher, new), new, delta)
            losses, fooled = xp(new).where(higher, found, losses), fooled | wrong
        return best

    def side(self, i, shape):
        h = max(1, round(math.sqrt(self.share(i) * shape[0] * shape[1])))
        return min(h, shape[0], shape[1])


def uniforms(draw, aim, width):
    """(B, width) uniform numbers, functions of (key, row)."""
    return row_uniform(draw, aim.rows, backend.empty((aim.count, width), aim.pixels.own.dtype))


def stripes(u, shape, eps):
    """(B, H, W, C): -eps or eps, the same along a column of a channel. u: (B, W C)."""
    height, width, channels = shape
    signs = (eps - 2 * eps * (u < 0.5)).astype(u.dtype).reshape(-1, 1, width, channels)
    return backend.zeros((1, height, 1, 1), u.dtype) + signs


def squares(u, shape, h, size):
    """(B, H, W, C): -size or size in each channel inside of a square of side h, 0 elsewhere. u: (B, 2 + C), the first
    two for the corner: floor(u (n - h + 1)), for each of its places equally likely."""
    m, box = xp(u), True
    for k in (0, 1):
        corner = (u[:, k] * (shape[k] - h + 1)).astype("int64").reshape(-1, 1)
        places = m.arange(shape[k]).reshape(1, -1)
        inside = (places >= corner) & (places < corner + h)
        box = box & inside.reshape(-1, *((shape[0], 1) if k == 0 else (1, shape[1])), 1)
    return box.astype(u.dtype) * (size - 2 * size * (u[:, 2:] < 0.5)).astype(u.dtype).reshape(-1, 1, 1, shape[2])
