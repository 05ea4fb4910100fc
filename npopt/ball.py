"""Perturbations of inputs in pixels: eps and delta are in units of the image, which runs from 0 to 1 in each channel.

A network sees inputs in a scale of its own. problem.box() says which: (low, high, unit), black, white and white - black
in that scale, each of one row's shape. So

    inputs = own + unit delta,    d loss / d delta = unit (d loss / d inputs),
    lower = min(0, (low - own)/unit) <= delta <= max(0, (high - own)/unit) = upper

keep the perturbed pixels between 0 and 1. 0 always lies in that box, also where rounding or a padded border leaves an
image just outside of it. Rows of numbers have no bounds, and unit 1.
"""

from npopt import backend
from npopt.backend import elementwise, key, row_uniform, xp
from npopt.errors import UserError


@elementwise
def moved(inputs, own, unit, delta):
    inputs = own + unit * delta
    return inputs


@elementwise
def ascended(delta, g, lower, upper, step, eps):
    delta = min(max(min(max(delta + step * sign(g), -eps), eps), lower), upper)  # noqa: F821
    return delta


@elementwise
def spread(delta, u, lower, upper, eps):
    delta = min(max(eps * (2 * u - 1), lower), upper)
    return delta


def per_row(v, like):
    """A vector of one number a row in the shape that meets `like`."""
    return v.reshape(-1, *[1] * (like.ndim - 1))


def row_normals(draw, rows, like):
    """Standard normal numbers of the shape and dtype of `like`, functions of (key, row): Box & Muller 1958."""
    count = like.shape[0]
    u = row_uniform(draw, rows, backend.empty((count, 2 * (like.size // count)), "float64"))
    half, m = u.shape[1] // 2, xp(like)
    z = m.sqrt(-2 * m.log(u[:, :half])) * m.cos(6.283185307179586 * u[:, half:])
    return z.reshape(like.shape).astype(like.dtype)


def of_step(problem, rows):
    """The Perturbed inputs of training rows, as this step of the problem sees them."""
    if not hasattr(problem, "box"):
        raise UserError(f"{problem.name}: perturbed inputs need a network (problems.Neural)")
    return Perturbed(problem, problem.inputs(rows, augmented=True), rows)


class Perturbed:
    """Inputs `own`, (B, ...) in the network's scale, of the rows `rows`, and what may be added to them."""

    def __init__(self, problem, own, rows):
        if isinstance(own, tuple) or own.dtype.kind != "f":
            raise UserError(f"{problem.name}: perturbed inputs must be one array of pixels or numbers, not of words")
        m, (low, high, unit) = xp(own), problem.box()
        self.own, self.rows = own, rows
        self.unit = m.zeros_like(own) + unit
        self.lower, self.upper = m.minimum(0, (low - own) / unit), m.maximum(0, (high - own) / unit)
        self.inputs, self.gradient = m.empty_like(own), m.empty_like(own)

    def at(self, delta):
        """own + unit delta, in an array that is used again."""
        moved(*(a.reshape(-1) for a in (self.inputs, self.own, self.unit, delta)))
        return self.inputs

    def zeros(self):
        return xp(self.own).zeros_like(self.own)

    def uniform(self, seed, stream, counter, eps, inside=True):
        """delta ~ U(-eps, eps), cut to the box if `inside`: a function of (seed, stream, counter, row)."""
        delta = self.zeros()
        u = backend.empty((delta.shape[0], delta.size // delta.shape[0]), delta.dtype)
        row_uniform(key(seed, stream, counter), self.rows, u)
        bounds = (self.lower.reshape(-1), self.upper.reshape(-1)) if inside else (-eps, eps)
        spread(delta.reshape(-1), u.reshape(-1), *bounds, eps)
        return delta

    def ascend(self, delta, g, step, eps):
        """delta <- P(delta + step sign(g)), in place: P cuts to [-eps, eps] and to the box; sign(0) = 0."""
        ascended(*(a.reshape(-1) for a in (delta, g, self.lower, self.upper)), step, eps)
        return delta
