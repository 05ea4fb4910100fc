"""The learning-rate range test: Smith, WACV 2017, arXiv:1506.01186, section 3.3, with rates that rise geometrically."""

import copy
import dataclasses
import math

from npopt import backend
from npopt.errors import UserError
from npopt.estimators import Minibatch
from npopt.samplers import RandomReshuffling
from npopt.values import number, whole

import numpy as np


@dataclasses.dataclass
class RangeTest:
    """rates and losses of the steps, (steps,). The loss of a step is taken before the step moves x."""

    rates: np.ndarray
    losses: np.ndarray
    fade: float = 0.9

    @property
    def smooth(self):
        """s_t = sum_i fade^(t-i) loss_i / sum_i fade^(t-i)."""
        out, total, weight = np.empty(len(self.losses)), 0.0, 0.0
        for t, loss in enumerate(self.losses):
            total, weight = self.fade * total + loss, self.fade * weight + 1
            out[t] = total / weight
        return out

    @property
    def highest(self):
        """The rate just before the loss turns up. It is the rate at the least smoothed loss, moved back by as many
        steps as the smoothing lags behind. Where the loss has not turned up, it is the last rate."""
        least = int(np.nanargmin(self.smooth))
        lag = round(1 / (1 - self.fade)) if self.fade < 1 and least < len(self.rates) - 1 else 0
        return float(self.rates[max(0, least - lag)])

    @property
    def steepest(self):
        """The rate at which the smoothed loss falls fastest against log rate, over a tenth of the rates."""
        smooth, wide = self.smooth, max(1, len(self.rates) // 20)
        if len(smooth) <= 2 * wide:
            return float(self.rates[0])
        return float(self.rates[wide + np.nanargmin(smooth[2 * wide :] - smooth[: -2 * wide])])


def range_test(problem, optimizer, sampler=None, low=1e-6, high=10.0, steps=100, seed=0, worse=4.0):
    """Run `optimizer` with rates low (high/low)^(t/(steps-1)) from the problem's start, and return a RangeTest.

    The test ends early where the smoothed loss is not finite, or above `worse` times its least value. This is decided
    on the host, so each step waits for the device. At the end the problem is reset and gets its old seed back.
    """
    low, high = number("range_test", "low", low, low=0, open_low=True), number("range_test", "high", high, low=0)
    steps = whole("range_test", "steps", steps, 2)
    if high <= low:
        raise UserError(f"range_test: high must be above low, got {high!r} and {low!r}")
    sampler = copy.deepcopy(sampler or RandomReshuffling(min(64, problem.n)))
    optimizer, estimator = copy.deepcopy(optimizer), Minibatch()
    if getattr(problem, "has_penalty", False) and not optimizer.proximal:
        raise UserError(
            f"range_test: {problem.name} has a non-smooth penalty, which {type(optimizer).__name__} "
            "cannot handle; use a proximal method"
        )
    before = getattr(problem, "seed", 0)
    problem.set_seed(seed)
    problem.reset()
    x = problem.x0(backend.generator(seed, "x0"))
    sampler.start(problem, seed)
    g = estimator.start(problem, x, seed)
    optimizer.start(x, estimator)
    rates, losses = low * (high / low) ** (np.arange(steps) / (steps - 1)), []
    for t, batch in enumerate(sampler.take(steps)):
        problem.begin(t)
        estimator.loss = estimator(x, batch, out=g)
        losses.append(float(backend.to_host(estimator.loss)))
        if not np.isfinite(losses).any():
            raise UserError(f"range_test: the loss of {problem.name} is {losses[0]} at the start")
        found = RangeTest(rates[: t + 1], np.array(losses))
        if not math.isfinite(losses[-1]) or found.smooth[-1] > worse * np.abs(found.smooth).min():
            break
        optimizer.step(x, g, float(rates[t]))
        problem.commit()
    problem.set_seed(before)
    problem.reset()
    return found
