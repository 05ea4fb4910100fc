"""Loss scaling: Micikevicius et al., ICLR 2018, arXiv:1710.03740, section 3.2; its dynamic form as in PyTorch."""

import math

from npopt import backend
from npopt.errors import UserError
from npopt.estimators.base import Wrapper
from npopt.estimators.clipped import Clipping
from npopt.estimators.minibatch import Minibatch
from npopt.values import number, whole

MOST = 40  # steps skipped one after the other; from 2^16 the scale is then 2^-24


class LossScaled(Wrapper):
    """g = (1/S) grad (S L), so that the small slopes of a network in a narrow format are not rounded to 0.

    The problem multiplies dL/dz, in float32, by S before it is rounded, and its gradient by 1/S (Neural's loss_scale,
    which this sets for the time of a call). The loss itself is not scaled: 65536 times 2.3 is more than float16 has.
    So whatever is around this, such as Clipped, sees a gradient of the usual size, and l2 and decay are not scaled.

    Where g is not finite, `skip` is True: x, the optimizer, the schedule, batch statistics and t stay, and

        S <- backoff S, k <- 0;     else k <- k + 1, and where k = interval:  S <- growth S, k <- 0.

    Powers of 2 change no other bit. With interval=None the scale is fixed, and steps are skipped alike. Of 40 skipped
    steps one after the other the next is let through, and the run ends as diverged: no scale helps it. The first steps
    often lower S; that is how it finds its size. On a GPU the norm of g comes to the host once a step: the next step
    waits for it.

    run.columns has "skipped", how many steps were, and "scale", the S of the next step.

    scale      S at the start, a power of 2
    growth     a power of 2, at least 1;   backoff   a power of 2 below 1
    interval   good steps from one growth to the next; None: a fixed scale
    inner      the estimator whose gradient it is. It is asked anew after a skipped step, so it may keep nothing of a
               gradient: Minibatch, Accumulated, SAM. An estimator that clips goes around: Clipped(1.0, LossScaled())
    """

    def __init__(self, scale=65536.0, growth=2.0, backoff=0.5, interval=2000, inner=None):
        self.scale = power("scale", number("LossScaled", "scale", scale, low=0, open_low=True))
        self.growth = power("growth", number("LossScaled", "growth", growth, low=1))
        bounds = dict(low=0, high=1, open_low=True, open_high=True)
        self.backoff = power("backoff", number("LossScaled", "backoff", backoff, **bounds))
        self.interval = interval if interval is None else whole("LossScaled", "interval", interval)
        self.inner = Minibatch() if inner is None else inner
        within = self.inner
        while within is not None:
            if isinstance(within, Clipping):
                name = type(within).__name__
                raise UserError(
                    f"LossScaled: {name} may hide that g is not finite; put it around: {name}(.., LossScaled())"
                )
            within = getattr(within, "inner", None)

    def start(self, problem, x, seed):
        self.owner = problem
        while not hasattr(self.owner, "loss_scale"):
            self.owner = getattr(self.owner, "problem", None)
            if self.owner is None:
                raise UserError(
                    f"LossScaled: {problem.name} has no loss_scale; it goes with networks (problems.Neural)"
                )
        g = super().start(problem, x, seed)
        self.current, self.good, self.bad, self.over = self.scale, 0, 0, False
        self.counts["skipped"] = 0
        return g

    def scaled(self, function):
        """function(), with the scale of this step in the problem."""
        before, self.owner.loss_scale = self.owner.loss_scale, self.current
        try:
            return function()
        finally:
            self.owner.loss_scale = before

    def __call__(self, x, batch, out):
        self.batch = batch
        loss = self.scaled(lambda: self.inner(x, batch, out))
        self.learn(math.isfinite(backend.to_host(backend.norm(out))))
        return loss

    def learn(self, finite):
        """What a step that is finite, or is not, does to the scale; and whether it is skipped."""
        self.over = not finite and self.bad < MOST
        if finite:
            self.good, self.bad = self.good + 1, 0
            if self.good == self.interval:
                self.current, self.good = self.growth * self.current, 0
        else:
            self.good, self.bad = 0, self.bad + 1
            if self.interval is not None:
                self.current *= self.backoff
        self.counts["skipped"] += self.over

    @property
    def shown(self):
        return {**self.inner.shown, "scale": self.current}

    @property
    def skip(self):
        return self.over or self.inner.skip

    def again(self, y, out):
        return self.scaled(lambda: self.inner.again(y, out))

    def sampled(self, y, out, key):
        return self.inner.sampled(y, out, key)

    def state(self):
        return {"inner": self.inner.state(), "scale": self.current, "good": self.good, "bad": self.bad}

    def load_state(self, state):
        super().load_state(state)
        self.current, self.good, self.bad = float(state["scale"]), int(state["good"]), int(state["bad"])


def power(name, value):
    """A power of 2, or a UserError."""
    if math.frexp(value)[0] != 0.5:
        raise UserError(f"LossScaled: {name} must be a power of 2, so that it changes no other bit; got {value}")
    return value
