"""Projected gradient ascent, and its one-step form: Goodfellow et al. 2015, Kurakin et al. 2017, Madry et al. 2018."""

from npopt.values import number, whole
from problems.attacks.base import Attack, Ball, Best, remaining


class PGD(Attack):
    """delta <- P(delta + step direction(d loss / d delta)), `steps` times:  Madry et al., ICLR 2018, arXiv:1706.06083.

    eps, step   in units of the image; step None: 2.5 eps / steps
    random      start from a point drawn from the ball, else from 0
    restarts    starts; the best is kept
    norm        "linf": direction = sign, sign(0) = 0; "l2": g/|g|
    loss        None: the problem's own; LogitMargin(): the difference of logits of Carlini & Wagner; LogitRatio()
    goal        None: any wrong class. "least": the class of the smallest output (Kurakin et al., ICLR 2017); a number
                k: class (t + k) mod K. The attack then descends the loss of the goal, and fools where it reaches it.

    Every iterate counts: the best perturbation is one that fools, else the one of the highest loss among all iterates.
    A restart differentiates `steps` times its rows and evaluates them once.
    """

    def __init__(self, eps, step=None, steps=40, random=True, restarts=1, *, norm="linf", loss=None, goal=None):
        self.eps, self.steps, self.random = eps, whole(type(self).__name__, "steps", steps), bool(random)
        self.step = None if step is None else number(type(self).__name__, "step", step, low=0)
        self.restarts, self.norm, self.loss, self.goal = restarts, norm, loss, goal
        self.check(("linf", "l2"))

    def once(self, aim, draw, stop):
        ball, best, at = Ball(aim, self.eps, self.norm), Best(aim, empty=True), None
        step = 2.5 * self.eps / self.steps if self.step is None else self.step
        delta = ball.start(*draw) if self.random else aim.pixels.zeros()
        for _ in range(self.steps):
            losses, fooled = aim.gradient(delta)
            best.note(delta, losses, fooled, at)
            slope = aim.slope
            if stop and (left := remaining(fooled)).shape[0] < 0.75 * aim.count:
                if not left.shape[0]:
                    return best
                at = left if at is None else at[left]
                aim, delta, slope = aim.part(left), delta[left], slope[left]
                ball = Ball(aim, self.eps, self.norm)
            delta = self.moved(ball, delta, slope, step)
        best.note(delta, *aim.value(delta), at)
        return best

    def moved(self, ball, delta, slope, step):
        if ball.norm == "linf":
            return ball.pixels.ascend(delta, slope, step, self.eps)
        return ball.project(delta + step * ball.direction(slope))


class FGSM(PGD):
    """delta = P(eps sign(d loss / d delta)) from 0, or along g/|g|: Goodfellow, Shlens & Szegedy, ICLR 2015,
    arXiv:1412.6572. For a linear model with two classes it is the worst delta there is. PGD has the arguments."""

    def __init__(self, eps, *, norm="linf", loss=None, goal=None):
        super().__init__(eps, eps, 1, False, norm=norm, loss=loss, goal=goal)
