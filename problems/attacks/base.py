"""What attacks share: rows of a network at one x, the best perturbation found so far, and restarts."""

from npopt import backend
from npopt.backend import key, row_uniform, xp
from npopt.ball import Perturbed, per_row, row_normals
from npopt.errors import UserError
from npopt.values import Value, number, whole

import numpy as np


def length(a):
    """Euclidean norms of rows, (B,)."""
    flat = a.reshape(a.shape[0], -1)
    return xp(a).sqrt((flat * flat).sum(axis=1))


class Aim:
    """Rows of a network at one x, in evaluation mode, in pixels.

    value(delta) and gradient(delta) give (losses, fooled), (B,) each; gradient also leaves d loss / d delta in `slope`.
    `goals` are the classes an attack wants (None: any wrong one); it then climbs minus the loss of the goal.
    counts has the rows differentiated and the rows evaluated.
    """

    def __init__(self, problem, x, inputs, targets, rows, counts, loss=None, goals=None):
        self.problem, self.x, self.targets, self.rows, self.counts = problem, x, targets, rows, counts
        self.loss, self.goals, self.pixels = loss, goals, Perturbed(problem, inputs, rows)
        self.count = inputs.shape[0]

    def part(self, chosen):
        """The rows whose places in this one are `chosen`, a device array of whole numbers."""
        goals = None if self.goals is None else self.goals[chosen]
        return Aim(
            self.problem,
            self.x,
            self.pixels.own[chosen],
            self.targets[chosen],
            self.rows[chosen],
            self.counts,
            loss=self.loss,
            goals=goals,
        )

    def value(self, delta, slope=None):
        goals = self.targets if self.goals is None else self.goals
        self.counts["values" if slope is None else "gradients"] += self.count
        z, losses = self.problem.attacked(self.x, self.pixels.at(delta), goals, self.loss, slope)
        answers = z.argmax(axis=1)
        if self.goals is None:
            return losses, answers != self.targets
        return -losses, answers == self.goals

    def gradient(self, delta):
        slope = xp(delta).empty_like(delta)
        losses, fooled = self.value(delta, slope)
        self.slope = slope
        slope *= self.pixels.unit if self.goals is None else -self.pixels.unit
        return losses, fooled


class Ball:
    """|delta| <= eps in the norm "linf" or "l2", and pixels in [0, 1].

    project(delta)    for linf the nearest point of both sets. For l2 delta is shortened to eps, then its pixels are
                      cut, which shortens it further: a point of both sets.
    direction(g)      sign(g), or g/|g| (0 where g = 0): the steepest ascent of its norm
    start(key)        a point drawn uniformly from the ball, then cut to the pixels; a function of (key, row)
    """

    def __init__(self, aim, eps, norm):
        self.pixels, self.eps, self.norm = aim.pixels, eps, norm

    def project(self, delta):
        if self.norm == "linf":
            return self.pixels.ascend(delta, delta, 0.0, self.eps)
        m = xp(delta)
        delta *= per_row(m.minimum(1.0, self.eps / m.maximum(length(delta), 1e-30)), delta)
        return m.minimum(m.maximum(delta, self.pixels.lower), self.pixels.upper)

    def direction(self, g):
        if self.norm == "linf":
            return xp(g).sign(g)
        return g / per_row(xp(g).maximum(length(g), 1e-30), g)

    def start(self, seed, stream, counter):
        if self.norm == "linf":
            return self.pixels.uniform(seed, stream, counter, self.eps)
        delta = row_normals(key(seed, stream, counter), self.pixels.rows, self.pixels.own)
        u = backend.empty((delta.shape[0], 1), delta.dtype)
        row_uniform(key(seed, stream + " radius", counter), self.pixels.rows, u)
        far = u.reshape(-1) ** (delta.shape[0] / delta.size) * self.eps
        delta *= per_row(far / length(delta), delta)
        return self.project(delta)


class Best:
    """The best perturbation of each row so far: one that fools, else the one of the highest loss. It starts as 0, or
    `empty`: lower than all others."""

    def __init__(self, aim, empty=False):
        m, self.delta = xp(aim.targets), aim.pixels.zeros()
        if empty:
            self.losses = backend.zeros((aim.count,), self.delta.dtype) - m.inf
            self.fooled = self.losses > 0
        else:
            self.losses, self.fooled = aim.value(self.delta)

    def note(self, delta, losses, fooled, at=None):
        """Take these where they are better. at: their places, a device array, or None for all rows."""
        at = slice(None) if at is None else at
        m, before, old = xp(delta), self.fooled[at], self.losses[at]
        better = (fooled & ~before) | ((fooled == before) & (losses > old))
        self.delta[at] = m.where(per_row(better, delta), delta, self.delta[at])
        self.losses[at] = m.where(better, losses, old)
        self.fooled[at] = before | fooled


def remaining(fooled):
    """Places of the rows that are not fooled, a device array. On a GPU this waits."""
    return backend.asarray(np.flatnonzero(~backend.to_host(fooled)))


class Attack(Value):
    """An attack; a subclass has once(aim, best, draw), and the arguments eps, norm, loss, restarts where it takes them.

    attack(aim, seed, stop) returns a Best of the aim's rows. Restart r draws by (seed, its name, r, row). stop: rows
    that are fooled are left alone from then on, as robust accuracy allows; without it all rows climb to the end, and
    the best one is the one of the highest loss among those that fool.
    """

    eps, norm, loss, restarts, goal = 0.0, "linf", None, 1, None

    def check(self, norms=("linf",)):
        name = type(self).__name__
        number(name, "eps", self.eps, low=0)
        whole(name, "restarts", self.restarts)
        if self.norm not in norms:
            raise UserError(f"{name}: norm must be one of {', '.join(norms)}, got {self.norm!r}")
        if self.goal is not None and self.goal != "least":
            whole(name, "goal", self.goal)

    def aimed(self, aim):
        """The same rows, seen through this attack's loss and goals."""
        goals = None
        if self.goal == "least":
            aim.counts["values"] += aim.count
            goals = aim.problem.scores(aim.x, aim.pixels.own).argmin(axis=1)
        elif self.goal is not None:
            goals = (aim.targets + self.goal) % aim.problem.network.output_shape[-1]
        if self.loss is not None:
            self.loss.targets(aim.problem.network.output_shape, aim.targets, None)
        args = aim.problem, aim.x, aim.pixels.own, aim.targets, aim.rows, aim.counts
        return Aim(*args, loss=self.loss, goals=goals)

    def __call__(self, aim, seed=0, stop=True):
        aim = self.aimed(aim)
        best = Best(aim)
        for restart in range(self.restarts):
            left = remaining(best.fooled) if stop else backend.asarray(np.arange(aim.count))
            if not left.shape[0]:
                break
            part = aim.part(left)
            found = self.once(part, (seed, type(self).__name__, restart), stop)
            best.note(found.delta, found.losses, found.fooled, left)
        return best


class Attacked:
    """What an attack left: rows, (n,) row numbers; right and robust, (n,) truth values on the host: the answer is right
    on the image, and on what the attack made of it; losses, (n,), of the attack's objective; delta, (n, *input_shape),
    in pixels, or None; counts."""

    def __init__(self, rows, right, robust, losses, delta, counts):
        self.rows, self.right, self.robust, self.losses = rows, right, robust, losses
        self.delta, self.counts = delta, counts


def numbered(problem, part, rows):
    """Row numbers of a part as (n,) int64 on the host; rows None: all."""
    if not hasattr(problem, "pairs"):
        raise UserError(f"{problem.name}: attacks need a network (problems.Neural)")
    if part not in problem.feed.parts:
        raise UserError(f"{problem.name} has no part {part!r}; there is {', '.join(problem.feed.parts)}")
    count = problem.feed.count(part)
    rows = np.arange(count) if rows is None else np.asarray(rows)
    if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu" or not (0 <= rows.min() and rows.max() < count):
        raise UserError(f"{problem.name}: rows of {part} must be whole numbers in 0..{count - 1}, at least one")
    return rows.astype(np.int64)


def attacked(problem, x, attack, part="test", rows=None, *, seed=0, batch=250, keep=False, stop=True):
    """Attack rows of a part (None: all), batch by batch, in evaluation mode; nothing of the problem changes.

    stop   leave rows alone once they are fooled; those that are misclassified as they are count as fooled
    keep   return the perturbations
    """
    if not isinstance(attack, Attack):
        raise UserError(f"attacked: attack must be one of problems.attacks, such as PGD(0.3), got {attack!r}")
    rows = numbered(problem, part, rows)
    counts, found = {"gradients": 0, "values": 0}, []
    for start in range(0, len(rows), batch):
        there = backend.asarray(rows[start : start + batch])
        inputs, targets = problem.pairs(part, there)
        aim = Aim(problem, x, inputs, targets, there, counts)
        right = ~aim.value(aim.pixels.zeros())[1]
        best = attack(aim, seed, stop)
        robust = right & ~best.fooled
        arrays = right, robust, best.losses, best.delta if keep else None
        found.append([None if a is None else backend.to_host(a).copy() for a in arrays])
    right, robust, losses, delta = (None if col[0] is None else np.concatenate(col) for col in zip(*found, strict=True))
    return Attacked(rows, right, robust, losses, delta, counts)
