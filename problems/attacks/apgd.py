"""Auto-PGD: Croce & Hein, ICML 2020, arXiv:2003.01690, Algorithm 1, with the checkpoints of its section 3.2."""

import math

from npopt.backend import xp
from npopt.ball import per_row
from npopt.values import number, whole
from problems.attacks.base import Attack, Ball, Best, remaining


def checkpoints(steps):
    """w_j = ceil(p_j steps), p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), up to steps."""
    before, p, found = 0.0, 0.22, [0]
    while p <= 1:
        w = math.ceil(round(p * steps, 9))
        if w > found[-1]:
            found.append(w)
        before, p = p, p + max(p - before - 0.03, 0.06)
    return found


class APGD(Attack):
    """Projected ascent with momentum, whose steps are halved row by row:

        z_{k+1} = P(x_k + eta dir(grad f(x_k)))
        x_{k+1} = P(x_k + alpha (z_{k+1} - x_k) + (1 - alpha)(x_k - x_{k-1}))

    x_1 = P(x_0 + eta dir(grad f(x_0))), eta = 2 eps at first. At a checkpoint k = w_j, after x_{k+1} was found,
    eta <- eta/2 and x_{k+1} <- x_max, the best point so far, if one of these holds:

        1.  sum_{i = w_{j-1}}^{w_j - 1} 1[f(x_{i+1}) > f(x_i)] < rho (w_j - w_{j-1})
        2.  eta was not halved at w_{j-1}, and f_max has not grown since then

    In 1, x_i are the points after replacement. The authors' code compares the losses before replacement, shortens its
    intervals in whole steps, and cannot use 2 at its first checkpoint; here it is as the paper has it.

    loss     None: cross-entropy, the problem's own; LogitRatio() for APGD-DLR
    steps    passes of gradients in a restart, and one evaluation at its end

    x_0 is drawn from the ball (the authors scale such a draw to the ball's surface). For "l2" dir(g) = g/|g|.
    """

    def __init__(self, eps, steps=100, restarts=1, *, norm="linf", loss=None, rho=0.75, alpha=0.75):
        self.eps, self.steps, self.restarts = eps, whole("APGD", "steps", steps, low=2), restarts
        self.rho = number("APGD", "rho", rho, low=0, high=1)
        self.alpha = number("APGD", "alpha", alpha, low=0, high=1, open_low=True)
        self.norm, self.loss = norm, loss
        self.check(("linf", "l2"))

    def once(self, aim, draw, stop):
        climb, marks = Climb(self, aim, draw), checkpoints(self.steps)
        for k in range(self.steps):
            climb.step(self, k)
            if k in marks[1:]:
                climb.look(self.rho * (k - marks[marks.index(k) - 1]))
            climb.count(first=k == 0)
            if stop and k < self.steps - 1 and climb.leave():
                break
        return climb.best


class Climb:
    """One climb of some rows. The names in `rows` are the paper's symbols, one entry for each row: f_old is f(x_k),
    f_seen the f_max of the last checkpoint, rises the sum of condition 1."""

    def __init__(self, attack, aim, draw):
        self.aim, self.at, self.best, self.ball = aim, None, Best(aim, empty=True), Ball(aim, attack.eps, attack.norm)
        x = self.ball.start(*draw)
        f, fooled = aim.gradient(x)
        self.best.note(x, f, fooled)
        g, zero = aim.slope, xp(x).zeros_like(f)
        self.rows = dict(x=x, x_old=x, x_max=x, f=f, f_old=f, f_max=f, f_seen=f, g=g, g_max=g)
        self.rows |= dict(eta=zero + 2 * attack.eps, rises=zero, halved=zero > 0, fooled=fooled)

    def step(self, attack, k):
        """From x_k to x_{k+1}, with its loss; the last needs no gradient."""
        r, ball, a, x, last = self.rows, self.ball, attack.alpha, self.rows["x"], k == attack.steps - 1
        m = xp(x)
        z = ball.project(x + per_row(r["eta"], x) * ball.direction(r["g"]))
        new = z if k == 0 else ball.project(x + a * (z - x) + (1 - a) * (x - r["x_old"]))
        f, fooled = self.aim.value(new) if last else self.aim.gradient(new)
        self.best.note(new, f, fooled, self.at)
        r["x_old"], r["x"], r["f_old"], r["f"], r["fooled"] = x, new, r["f"], f, r["fooled"] | fooled
        higher = f > r["f_max"]
        r["x_max"], r["f_max"] = m.where(per_row(higher, new), new, r["x_max"]), m.where(higher, f, r["f_max"])
        if not last:
            r["g"] = self.aim.slope
            r["g_max"] = m.where(per_row(higher, new), r["g"], r["g_max"])

    def look(self, least):
        """A checkpoint: halve eta and go back to x_max where one of the conditions holds."""
        r, m = self.rows, xp(self.rows["x"])
        halve = (r["rises"] < least) | (~r["halved"] & (r["f_max"] == r["f_seen"]))
        r["eta"] = m.where(halve, r["eta"] * 0.5, r["eta"])
        for name in "xfg":
            r[name] = m.where(per_row(halve, r[name]), r[name + "_max"], r[name])
        r["halved"], r["f_seen"], r["rises"] = halve, r["f_max"], m.zeros_like(r["rises"])

    def count(self, first):
        """Whether x_{k+1}, as it is now, is higher than x_k: a term of the window that comes."""
        r = self.rows
        r["rises"] = r["rises"] + (r["f"] > r["f_old"])
        if first:
            r["f_seen"] = r["f_max"]

    def leave(self):
        """Leave rows that are fooled, once they are a quarter. Returns whether no row remains."""
        left = remaining(self.rows["fooled"])
        if left.shape[0] >= 0.75 * self.aim.count:
            return False
        if left.shape[0]:
            self.rows = {name: value[left] for name, value in self.rows.items()}
            self.at = left if self.at is None else self.at[left]
            self.aim = self.aim.part(left)
            self.ball = Ball(self.aim, self.ball.eps, self.ball.norm)
        return not left.shape[0]
