"""The CUDA stretches of linear models, run on the CPU, against the compiled loops of the CPU."""

import itertools
import math
import pathlib
import re
from collections import namedtuple

from npopt import (
    L1,
    L1L2,
    SAGA,
    SGD,
    SVRG,
    Exponential,
    HeavyBall,
    Minibatch,
    Proximal,
    RandomReshuffling,
    Stop,
    WithReplacement,
    backend,
    minimize,
)
from npopt.backend import cuda
from problems import LeastSquares, LinearModel, Logistic
from problems.linear import Huber, Logit, Softmax, Squared, SquaredHinge, formula, gpu
from problems.linear.losses import Real

import cudashim
import numpy as np
import pytest
import scipy.sparse
from test_stretches import make

pytestmark = pytest.mark.skipif(cudashim.COMPILER is None, reason=cudashim.WHY)
LOSSES = {"squares": Squared(), "binary": Logit(), "classes": Softmax(3), "huber": Huber(0.6), "hinge": SquaredHinge()}
STORAGES = ("dense", "sparse")
PAIRS = list(itertools.product(("binary", "classes"), STORAGES))  # the slow test: all
BUILT = [(*pair, "float64") for pair in PAIRS] + [(*pair, "float32") for pair in PAIRS[:2]]


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    cudashim.build([(program(*pair), cuda.options(dtype)) for *pair, dtype in BUILT])


def program(loss, storage):
    return gpu.program(LOSSES[loss], storage).source()


def on_both(call):
    """What call() answers on the stand-in and on the CPU."""
    found = []
    try:
        for device in ("shim", "cpu"):
            backend.use(device)
            found.append(call())
    finally:
        backend.use("cpu")
    return found


def stretch(problem, size, kind, steps=40, weighted=True, rate=0.2):
    """Steps with no argument at its default, on rows that come twice in a batch, too; all that they leave behind."""
    rng = np.random.default_rng(7)
    rows = rng.integers(0, problem.n, steps * size)
    weights, rates = rng.random(len(rows)) + 0.2 if weighted else None, rate * (0.2 + rng.random(steps))
    x, m = (backend.asarray(v.astype(problem.dtype)) for v in rng.standard_normal((2, problem.dim)))
    table, mean = (
        backend.asarray(v.astype(problem.dtype))
        for v in (rng.standard_normal((problem.n, problem.outputs)) / 3, rng.standard_normal(problem.dim) / 9)
    )
    memory = {"sgd": {}, "svrg": dict(table=table, mean=mean), "saga": dict(table=table, mean=mean, moves=True)}
    heavy = {"beta": 0.6, "m": m} if kind == "heavy" else {}
    losses = problem.compiled_stretch(x, rows, weights, rates, **memory.get(kind, {}), **heavy)
    return [losses, *(np.array(backend.to_host(v)) for v in (x, table, mean, m))]


def same(call, rtol=1e-12, atol=1e-13):
    one, other = on_both(call)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    return one


@pytest.mark.parametrize("kind", ["sgd", "svrg", "saga", "heavy"])
@pytest.mark.parametrize("loss, storage", PAIRS)
def test_steps_are_those_of_the_cpu(loss, storage, kind):
    if (storage, kind) == ("sparse", "heavy"):
        return  # momentum has a loop on dense rows alone
    for size, penalty in itertools.product((1, 7), (None, L1L2(0.03, 0.05)) if kind != "heavy" else (None,)):
        full = (size == 1) == (penalty is None)  # weights and an intercept

        def steps(full=full, size=size, penalty=penalty):
            draws = np.random.default_rng(3)
            problem = make(loss, storage == "sparse", draws, l2=0.1, intercept=full, regulariser=penalty)
            return stretch(problem, size, kind, 40, full)

        cudashim.EXECUTED.clear()
        same(steps)
        single = size == 1 and loss != "classes"
        assert [name for name, _ in cudashim.EXECUTED] == [f"{storage}_{'single' if single else 'batch'}_steps"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 7, 40])
@pytest.mark.parametrize("loss, storage", list(itertools.product(LOSSES, STORAGES)))
def test_hundreds_of_steps_are_those_of_the_cpu(loss, storage, size):
    for penalty, full, kind in itertools.product((None, L1(0.02)), (False, True), ("sgd", "svrg", "saga")):
        same(
            lambda full=full, penalty=penalty, kind=kind: stretch(
                make(loss, storage == "sparse", np.random.default_rng(5), l2=0.1, intercept=full, regulariser=penalty),
                *(size, kind, 300, full),
            )
        )


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("storage", STORAGES)
def test_what_does_not_fit_into_shared_memory_stays_outside(storage, size):
    """2100 columns: more than x or cells in shared memory, and than the four of a thread that are fetched early."""
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((9, 2100)) * (rng.random((9, 2100)) < 0.5) / 30, np.where(np.arange(9) % 2, 1, -1)
    for penalty in (None, L1(0.01)):
        same(
            lambda penalty=penalty: stretch(
                Logistic(scipy.sparse.csr_matrix(X) if storage == "sparse" else X, y, 0.1, True, regulariser=penalty),
                *(size, "saga", 12),
            )
        )


@pytest.mark.parametrize("loss, storage", PAIRS[:2])
def test_float32(loss, storage):
    for size in (1, 3):

        def steps(size=size):
            draws = np.random.default_rng(5)
            return stretch(make(loss, storage == "sparse", draws, np.float32, l2=0.1), size, "saga")

        one = same(steps, rtol=0, atol=4e-6)
        assert one[1].dtype == np.float32


@pytest.mark.parametrize("storage", STORAGES)
def test_runs_are_compiled_and_those_of_the_cpu(storage):
    """minimize with all that lies between stretches: stages, options, the mean summed anew, short last batches."""
    for estimator, optimizer, size in (
        (SVRG(1.3, "II"), Proximal(SGD()), 7),
        (SAGA(refresh=0.7), Proximal(SGD()), 1),
        (Minibatch(), HeavyBall(0.7) if storage == "dense" else SGD(), 7),
    ):
        penalty = L1(0.02) if optimizer.proximal else None

        def run(estimator=estimator, optimizer=optimizer, size=size, penalty=penalty):
            problem = make("binary", storage == "sparse", np.random.default_rng(3), l2=0.1, regulariser=penalty)
            sampler = RandomReshuffling(size)
            return minimize(problem, optimizer, sampler, Exponential(0.02, 0.9), estimator, stop=Stop(epochs=2), seed=3)

        one, other = on_both(run)
        assert one.loop == other.loop == "compiled"
        np.testing.assert_allclose(np.array(one.x), other.x, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(one.columns["loss"][1:], other.columns["loss"][1:], rtol=1e-12)
        for name in ("gradients", "step", "epoch", "lr"):
            assert one.columns[name] == other.columns[name]


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("storage", STORAGES)
def test_a_run_that_diverges_stops_before_the_step_of_the_bad_loss(storage, size):
    def run():
        problem = make("binary", storage == "sparse", np.random.default_rng(3))
        return minimize(problem, SGD(), RandomReshuffling(size), 1e307, stop=Stop(epochs=50))

    one, other = on_both(run)
    assert one.diverged and one.loop == "compiled"
    for name in ("step", "epoch", "gradients"):
        assert one.final[name] == other.final[name]
    np.testing.assert_allclose(np.array(one.x), other.x, rtol=1e-10)


def test_steps_beyond_one_over_l2_are_made_one_by_one():
    def run():
        X = np.random.default_rng(3).standard_normal((9, 4)) / 9
        return minimize(LeastSquares(X, X[:, 0], 5.0), SGD(), WithReplacement(2), 0.25, SAGA(), stop=Stop(epochs=3))

    cudashim.EXECUTED.clear()
    one, other = on_both(run)
    np.testing.assert_allclose(np.array(one.x), other.x, rtol=1e-11)
    np.testing.assert_allclose(one.columns["loss"][1:], other.columns["loss"][1:], rtol=1e-11)
    assert not cudashim.EXECUTED & {(f"{s}_batch_steps", cuda.options("float64")) for s in STORAGES}


class Quartic(Real, namedtuple("Quartic", "scale power")):
    """l = scale |r| + r^4/4, in words that a GPU's formulas have."""

    __slots__ = ()
    curvature = 9.0

    def one(self, y, z):
        r = z - y
        size = np.sqrt(r * r + self.power)
        return self.scale * size + math.log1p(r**2), self.scale * r / size + 2 * r / (1 + r**2)

    def arrays(self, z, y, xp):
        r = z[:, 0] - y
        size = xp.sqrt(r * r + self.power)
        return self.scale * size + xp.log1p(r * r), (self.scale * r / size + 2 * r / (1 + r * r))[:, None]


class Counted(Quartic):
    """The same in words that it does not have."""

    __slots__ = ()

    def one(self, y, z):
        value, slope = 0.0, 0.0
        for _ in range(1):
            value, slope = Quartic.one(self, y, z)
        return value, slope


def test_a_loss_of_ones_own_is_translated_or_takes_the_loop(shim, rng):
    X, y, rows = rng.standard_normal((20, 3)), rng.standard_normal(20), rng.integers(0, 20, 50)
    quartic, w = Quartic(0.7, 0.2), np.ones(3)
    for i in rows:
        w -= 0.05 * quartic.arrays(X[i : i + 1] @ w[:, None], y[i : i + 1], np)[1][0, 0] * X[i]
    x = backend.asarray(np.ones(3))
    LinearModel(X, y, quartic).compiled_stretch(x, rows, None, np.full(50, 0.05))
    np.testing.assert_allclose(np.array(x), w, rtol=1e-12)
    for loss, loop in ((quartic, "compiled"), (Counted(0.7, 0.2), "python")):
        run = minimize(LinearModel(X, y, loss, 0.1), SGD(), RandomReshuffling(1), 0.05, stop=Stop(epochs=1))
        assert run.loop == loop


PROBE = """
extern "C" __global__ void probe(const double* numbers, const double* y, double* z, double* value, long long K) {
    value[threadIdx.x] = loss_of(numbers, y[threadIdx.x], z, (int)(threadIdx.x * K), (int)K);
}
"""


def test_every_loss_is_that_of_its_array_code(shim, rng):
    cudashim.build([(formula.cuda(loss) + PROBE, ()) for loss in LOSSES.values()])
    for name, loss in LOSSES.items():
        K = loss.outputs
        z = 3 * rng.standard_normal((60, K))
        z[:4] = [[0.0], [800.0], [-800.0], [0.5]]
        y = {"classes": rng.integers(0, 3, 60) * 1.0, "squares": z[:, 0] - 1, "huber": rng.standard_normal(60)}.get(
            name, np.where(rng.random(60) < 0.5, -1.0, 1.0)
        )
        slopes, values = backend.asarray(z), backend.empty((60,), "float64")
        given = (backend.asarray(np.array([*loss, 0.0])), backend.asarray(y), slopes, values, K)
        cudashim.RawModule(code=formula.cuda(loss) + PROBE).get_function("probe")((1,), (60,), given)
        for found, right in zip((values, slopes), loss.arrays(z, y, np), strict=True):
            np.testing.assert_allclose(np.array(found), right, rtol=1e-13, atol=1e-15, err_msg=name)


def test_batches_beyond_a_block_take_the_loop(shim, rng):
    X, y = rng.standard_normal((2000, 3)), rng.standard_normal(2000)
    problem = LeastSquares(X, y)
    assert problem.takes_stretches(768) and not problem.takes_stretches(769)
    assert not LeastSquares(np.ones((200, 4000)), np.ones(200)).takes_stretches(100)  # too much for one block
    constants = (pathlib.Path(gpu.__file__).parent / "steps.cuh").read_text()
    for name in ("SLOTS", "OUTPUTS"):
        assert re.search(rf"\b{name} = (\d+)", constants)[1] == str(getattr(gpu, name))
