"""Is the gradient the derivative of the value?   Directional central differences in float64, with a readable report.

    D(h) = (f(x + h d) - f(x - h d)) / (2h) = g.d + h^2 f'''/6 + ...,      R(h) = (4 D(h/2) - D(h)) / 3 = g.d + O(h^4)

Directions d are standard normal: over the whole vector, and, where the problem has more than one segment, over each
segment alone. For every direction R is taken at smaller and smaller steps h until two neighbours agree to tol/100. If
none do, the two that agree best are taken. The gradient plays no part in this choice. Too large a step feels curvature,
or crosses a kink of ReLU or of a maximum. Too small a step feels rounding.

The error is |numeric - analytic| / max(|numeric|, |analytic|, floor). The floor stands for what rounding hides from any
difference quotient. Let e be the change of f when every x_i changes by one unit in its last place (signs at random, the
largest of four draws). Then a quotient is uncertain by about 2e/h, and floor = 2e / (h tol). A derivative below the
floor is only asked to be small; the report shows the floor where it was used.
"""

from dataclasses import dataclass, field

from npopt import backend
from npopt.errors import UserError

import numpy as np

STEPS = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7)
EPS = float(np.finfo(np.float64).eps)


@dataclass
class Line:
    """One direction."""

    where: str
    numeric: float
    analytic: float
    h: float
    error: float
    floor: float = 0.0


@dataclass
class Report:
    """What gradcheck found; print it, or ask `ok` and `worst`."""

    name: str
    tol: float
    value: float
    lines: list = field(default_factory=list)

    @property
    def worst(self):
        """The largest relative error."""
        return max(line.error for line in self.lines)

    @property
    def ok(self):
        return bool(self.worst <= self.tol)  # a NaN is not ok

    def __bool__(self):
        return self.ok

    def __str__(self):
        width = max(9, *(len(line.where) for line in self.lines))
        head = f"gradcheck of {self.name}: {'ok' if self.ok else 'FAILED'}, worst relative error {self.worst:.1e}, "
        rows = [
            f"{head}tolerance {self.tol:.0e}, f = {self.value:.9g}",
            f"  {'direction':{width}}  {'numeric':>17}  {'analytic':>17}  {'step':>7}  {'error':>8}",
        ]
        for line in self.lines:
            mark = "" if line.error <= self.tol else "  <-"
            if line.floor > max(abs(line.numeric), abs(line.analytic)):
                mark = f"  relative to {line.floor:.0e}" + mark
            rows.append(
                f"  {line.where:{width}}  {line.numeric:17.10g}  {line.analytic:17.10g}  {line.h:7.0e}  "
                f"{line.error:8.1e}{mark}"
            )
        return "\n".join(rows)


def settle(slope, d, steps, tol):
    """(R(h), h) for the pair of neighbouring steps that agree; of the two the larger, which has less rounding."""
    gap, best, before = np.inf, None, None
    for step in steps:
        now = ((4 * slope(d, step / 2) - slope(d, step)) / 3, step)
        if before is not None and not abs(now[0] - before[0]) >= gap:
            gap, best = abs(now[0] - before[0]), before
            if gap <= 1e-2 * tol * abs(now[0]):
                break
        before = now
    return best or before


def gradcheck(problem, x, rows=None, directions=3, h=None, tol=1e-7, seed=0):
    """Compare value_and_gradient with value at x.

    problem      anything with value(x, rows) and value_and_gradient(x, rows, out=g), and perhaps `segments` and `name`
    x            (dim,), float64; not changed
    directions   how many random directions over the whole vector
    h            None, or one step to use instead of the search
    -> Report
    """
    if str(x.dtype) != "float64":
        raise UserError(
            f"gradcheck: x must be float64, got {x.dtype}; rounding would hide the derivative in differences of values"
        )
    name, rng = getattr(problem, "name", type(problem).__name__), np.random.default_rng(seed)
    g = backend.zeros(x.shape, x.dtype)
    value = backend.to_host(problem.value_and_gradient(x, rows, out=g))
    again = backend.to_host(problem.value(x, rows))
    if not abs(again - value) <= 1e-12 * max(1.0, abs(value)):
        raise UserError(
            f"gradcheck: {name} gives f = {value!r} with the gradient and {again!r} without; it must be the same "
            "in both passes"
        )
    gradient = np.array(backend.to_host(g), dtype=np.float64).reshape(x.shape)
    point, report = np.array(backend.to_host(x)).reshape(x.shape), Report(name, tol, value)
    pieces = [(f"all {i + 1}", slice(None)) for i in range(directions)]
    segments = getattr(problem, "segments", None) or ()
    if len(segments) > 1:
        pieces += [(segment.name, segment.slice) for segment in segments]

    def f(shifted):
        return backend.to_host(problem.value(backend.asarray(shifted), rows))

    def slope(d, h):
        return (f(point + h * d) - f(point - h * d)) / (2 * h)

    last = np.spacing(np.abs(point))
    draws = [f(point + last * rng.choice((-1.0, 1.0), point.shape)) for _ in range(4)]
    noise = max(EPS * abs(value), *(abs(draw - value) for draw in draws))
    for where, piece in pieces:
        d = np.zeros(point.shape)
        d[piece] = rng.standard_normal(d[piece].shape)
        analytic = float(gradient[piece] @ d[piece])
        numeric, step = settle(slope, d, STEPS if h is None else (h,), tol)
        floor = 2 * noise / (step * tol)
        scale = max(abs(numeric), abs(analytic), floor)
        report.lines.append(
            Line(where, numeric, analytic, step, abs(numeric - analytic) / scale if scale else 0.0, floor)
        )
    return report
