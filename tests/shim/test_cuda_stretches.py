"""The CUDA stretches of linear models, run on the CPU, against the compiled loops of the CPU."""

import itertools

from npopt import L1, L1L2, L2, SAGA, SGD, SVRG, Exponential, Minibatch, Proximal, RandomReshuffling, Stop
from npopt import backend, minimize
from npopt.backend import cuda
from problems import LinearModel
from problems.linear import Huber, Logit, Softmax, Squared, SquaredHinge, gpu

import cudashim
import numpy as np
import pytest
from test_stretches import N, make

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)
LOSSES = {"squares": Squared(), "binary": Logit(), "classes": Softmax(3), "huber": Huber(0.6), "hinge": SquaredHinge()}
CASES = list(itertools.product(LOSSES, ("dense", "sparse")))


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    programs = [gpu.program(loss, storage).source() for loss in LOSSES.values() for storage in ("dense", "sparse")]
    cudashim.build([(text, cuda.options("float64")) for text in programs])


def on_both(call):
    """What a function gives on the stand-in and on the CPU, the arrays among it on the host."""
    found = []
    for device in ("shim", "cpu"):
        backend.use(device)
        found.append(call())
    backend.use("cpu")
    return found


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("penalty", [None, L1(0.02), L2(0.1), L1L2(0.01, 0.05)], ids=repr)
@pytest.mark.parametrize("loss, storage", CASES)
def test_steps_are_those_of_the_cpu(loss, storage, penalty, size):
    class Weighted(RandomReshuffling):
        def epoch(self, e):
            order, _ = super().epoch(e)
            return order, None if self.weights is None else self.weights[order]

    for intercept, weighted in ((False, False), (True, True)):
        def run(estimator):
            rng = np.random.default_rng(3)
            problem = make(loss, storage == "sparse", rng, l2=0.1, intercept=intercept, regulariser=penalty)
            sampler = Weighted(size)
            sampler.weights = rng.random(N) + 0.1 if weighted else None
            rates = Exponential(0.3 / problem.row_smoothness().max(), 0.9)
            return minimize(problem, Proximal(SGD()), sampler, rates, estimator, stop=Stop(epochs=5), seed=3)

        for estimator in (Minibatch(), SVRG(1.3, "II"), SAGA(refresh=2.5)):
            cudashim.EXECUTED.clear()
            one, other = on_both(lambda: run(estimator))
            assert one.loop == other.loop == "compiled"
            kind = "single" if size == 1 and loss != "classes" else "batch"
            assert f"{storage}_{kind}_steps" in {name for name, _ in cudashim.EXECUTED}
            np.testing.assert_allclose(np.array(one.x), other.x, rtol=1e-12, atol=1e-13)
            for name in ("gradients", "step", "epoch", "lr"):
                assert one.columns[name] == other.columns[name]
            np.testing.assert_allclose(one.columns["loss"][1:], other.columns["loss"][1:], rtol=1e-12)
