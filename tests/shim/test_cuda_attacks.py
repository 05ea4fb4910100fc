"""Attacks and adversarial training on the stand-in GPU, beside the CPU."""

import nn
from npopt import TRADES, Adversarial, FreeAdversarial, HeavyBall, RandomReshuffling, Replay, Stop, backend, minimize
from problems import Neural, datasets
from problems.attacks import APGD, PGD, LogitRatio, Square, attacked
from problems.feeds import Images

import cudashim
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)


def problem():
    return Neural(nn.mlp((64, 12, 10), norm="batch"), Images(datasets.load("digits").part(200)))


def on_both(function):
    found = []
    for device in ("cpu", "shim"):
        backend.use(device)
        found.append(function())
    backend.use("cpu")
    return found


@pytest.mark.parametrize(
    "method, sampler",
    [
        (Adversarial(0.1, 0.03, 2, ramp=4), RandomReshuffling(15)),
        (FreeAdversarial(0.1, 15), Replay(RandomReshuffling(15), 3)),
        (TRADES(0.1, 2.0, 0.03, 2), RandomReshuffling(15)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_adversarial_steps_are_those_of_the_cpu(method, sampler):
    def run():
        found = minimize(problem(), HeavyBall(0.9), sampler, 0.03, method, stop=Stop(steps=6), seed=2)
        return backend.to_host(found.x)

    one, two = on_both(run)
    assert abs(one - two).max() < 2e-3  # a sign may turn where a slope rounds to 0


@pytest.mark.parametrize(
    "attack", [PGD(0.9, None, 4, norm="l2"), APGD(0.1, 9, loss=LogitRatio()), Square(0.1, 8)], ids=repr
)
def test_attacks_are_those_of_the_cpu(attack):
    def run():
        p = problem()
        x = p.x0(backend.generator(0, "x0"))
        return attacked(p, x, attack, rows=range(40), seed=3, keep=True, stop=False)

    one, two = on_both(run)
    np.testing.assert_allclose(one.delta, two.delta, atol=1e-4)
    np.testing.assert_array_equal(one.robust, two.robust)
    assert one.counts == two.counts
