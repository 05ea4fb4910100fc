"""What a step moves between host and device: nothing, but for the algorithms that decide on the host."""

import importlib
from types import SimpleNamespace

import nn
import npopt
from nn.adapters import free
from npopt import (
    FISTA,
    ISTA,
    L1,
    SAGA,
    SGD,
    SWATS,
    Anderson,
    BlockGradient,
    Events,
    HeavyBall,
    RandomReshuffling,
    Stop,
    backend,
    estimators,
    minimize,
    optimizers,
    range_test,
    samplers,
)
from npopt.values import Value
from problems import Logistic, Neural, Quadratic, Surface
from problems.batched import Batched
from problems.feeds import CropFlip, Images

import numpy as np
import pytest
import scipy.sparse
import strict_moves

loop = importlib.import_module("npopt.minimize")  # `npopt.minimize` is the function
N = 48


@pytest.fixture(autouse=True)
def strict_device():
    backend.use("strict")
    yield
    backend.use("cpu")


def logistic(kind=np.asarray, **more):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((N, 5)) * (rng.random((N, 5)) < 0.7)
    return Logistic(kind(X), np.where(rng.random(N) < 0.5, -1, 1), 0.1, intercept=True, **more)


def network(build, size, channels, augment=None):
    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 256, (N, size, size, channels)).astype("uint8"), rng.integers(0, 10, N)
    data = SimpleNamespace(
        name="noise",
        x_train=x,
        y_train=y,
        x_test=x[:7],
        y_test=y[:7],
        mean=[100.0] * channels,
        std=[70.0] * channels,
        scale=255.0,
    )
    return Neural(build(), Images(data, augment), l2=1e-3, metrics_batch=20)


PROBLEMS = {
    "linear, dense": logistic,
    "linear, CSR": lambda: logistic(scipy.sparse.csr_matrix),
    "LeNet-5": lambda: network(nn.lenet5, 28, 1),
    "ResNet-18": lambda: network(lambda: nn.resnet18(width=2, image=8), 8, 3, CropFlip(1)),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_training_step_moves_nothing_and_an_interval_reads_its_losses_once(name, monkeypatch):
    monkeypatch.setattr(loop, "STRETCH", 1e9)  # seconds: stretches grow to an interval, by the clock
    problem, seen = PROBLEMS[name](), []
    with strict_moves.counted() as moves:

        def progress(fraction, epoch, loss):
            seen.append((fraction, sum(move.stack[0] == "run.on_host" for move in moves.reads)))

        minimize(
            problem,
            HeavyBall(0.9),
            RandomReshuffling(16),
            1e-3,
            stop=Stop(steps=36),
            seed=1,
            events=Events(metrics=12, per="step", progress=progress),
        )
    reads, uploads, waits = moves.in_steps()
    assert reads == waits == []
    assert {move.stack[0] for move in uploads} == {"base._order_there"} and len(uploads) == 36 // 3  # 3 batches
    (before, some), (after, all_), end = seen[-3:]  # the last call finds the run finished
    assert (after, all_) == end == (1.0, some + 1) and 36 * (after - before) == pytest.approx(12)
    assert not moves.waits
    metrics = [move for move in moves.reads if "_Loop" not in move.stack[0] and "metrics" in move.stack[0]]
    assert 0 < len(metrics) <= 4 * 4  # four rows of columns; loss and hits of two parts


@pytest.mark.parametrize("estimator", [SAGA("gradients"), npopt.SVRG(1)], ids=lambda e: type(e).__name__)
def test_methods_with_a_memory_read_nothing_on_fixed_batches(estimator):
    problem = Batched(network(lambda: nn.mlp((16, 5, 10), norm="batch"), 4, 1), 16)
    with strict_moves.counted() as moves:
        run = minimize(problem, SGD(), RandomReshuffling(1), 0.1, estimator, stop=Stop(steps=7), events=Events(None))
    reads, _, waits = moves.in_steps()
    assert reads == waits == [] and run.reason == "steps"


ARGUMENTS = {  # of those that have no default
    "EMA": (SGD(), 0.9),
    "SWA": (SGD(), 2),
    "Lookahead": (SGD(), 2),
    "Quantised": (HeavyBall(), 16, "dynamic", 8, True, 16),
    "Rounded": (SGD(),),
    "Proximal": (SGD(),),
    "ReLoRA": (SGD(), 4),
    "Accumulated": (3,),
    "Clipped": (1.0,),
    "ClippedByValue": (0.1,),
    "ClippedBySegment": (0.5,),
    "MixedClipping": (0.1,),
    "Adversarial": (0.1, 0.05, 2),
    "BlockGradient": (3,),
    "Blockwise": (SGD(),),
    "FreeAdversarial": (0.1, 16),
    "TRADES": (0.1, 1.0, 0.05, 2),
    "Replay": (RandomReshuffling(16), 2),
}
ON_NETWORKS = {"Adversarial", "FreeAdversarial", "TRADES", "LossScaled"}
ON_NETWORKS |= {"Layerwise", "BlockGradient", "BlockGradient(largest)"}
BASES = {"Array", "Optimizer", "Around", "BySegment", "Projected", "Sophia", "Mirrored"}
BASES |= {"Estimator", "Wrapper", "Clipping", "Sampler", "Batch"}
VARIANTS = {
    "ISTA(backtracking)": ISTA(backtracking=True),
    "FISTA(backtracking)": FISTA(backtracking=True),
    'FISTA("gradient")': FISTA("gradient"),
    'FISTA("function")': FISTA("function"),
    "Anderson(gram)": Anderson(3, "gram"),
    "Anderson(no guard)": Anderson(3, guard=False),
    "SAGA(gradients)": SAGA("gradients"),
    "BlockGradient(largest)": BlockGradient(2, "largest"),
}
# What is read on the host inside of a step. These and no others; their docstrings say so.
READERS = {
    "AdaptiveImportance": {"importance.observe"},
    "DeepZero": {"deepzero.count"},
    "Anderson": {
        "anderson.loss",
        "history.append",
        "history.extrapolate",
        "anderson.descent_bound",
        "penalties.value",
    },
    "Anderson(gram)": {"anderson.loss", "history.extrapolate", "anderson.descent_bound", "penalties.value"},
    "Anderson(no guard)": {"history.append", "history.extrapolate"},
    'FISTA("function")': {"fista.step", "penalties.value"},
    'FISTA("gradient")': {"fista.step"},
    "FISTA(backtracking)": {"ista.forward_backward"},
    "ISTA(backtracking)": {"ista.forward_backward"},
    "LossScaled": {"loss_scaled.__call__"},
    "SWATS": {"swats.step"},
    "BlockGradient(largest)": {"block_gradient.take"},
}


def methods():
    """{name: optimizer, estimator or sampler}: all public ones with their defaults, and the variants."""
    found = {}
    for room in (optimizers, estimators, samplers):
        public = {name for name in room.__all__ if issubclass(getattr(room, name), Value)}
        for name in public - BASES:
            size = (16,) if room is samplers else ()
            found[name] = getattr(room, name)(*ARGUMENTS.get(name, size))
    return found | VARIANTS


@pytest.mark.parametrize("name", sorted(methods()))
def test_what_algorithms_read_in_a_step(name):
    method, given = methods()[name], {"optimizer": SGD(), "sampler": RandomReshuffling(16)}
    if isinstance(method, optimizers.Optimizer):
        proximal = method.proximal
        given |= {"optimizer": method, "sampler": RandomReshuffling(None if proximal else 16)}
        problem = logistic(regulariser=L1(0.01)) if proximal else network(lambda: nn.mlp((16, 5, 10)), 4, 1)
        if name == "ReLoRA":
            problem = network(lambda: nn.adapted(nn.mlp((16, 5, 10)), rank=2), 4, 1)
            problem = problem.restrict(problem.x0(backend.generator(0, "x0")), free(problem.network))
        given |= {"estimator": BlockGradient(3)} if name == "Blockwise" else {}
    else:
        problem = network(lambda: nn.mlp((16, 5, 10)), 4, 1) if name in ON_NETWORKS else logistic()
        given |= {"estimator": method} if isinstance(method, estimators.Estimator) else {"sampler": method}
    with strict_moves.counted() as moves:
        minimize(problem, **given, schedule=0.3, stop=Stop(steps=9), events=Events(None))
    reads, uploads, waits = moves.in_steps()
    assert {move.stack[0] for move in reads} == READERS.get(name, set())
    assert waits == []
    if name not in READERS and name != "SAGA(gradients)":  # which numbers all rows in its first pass
        assert {move.stack[0] for move in uploads} <= {"base._order_there"}


@pytest.mark.parametrize("name", sorted({name.split("(")[0] for name in READERS}))
def test_readers_say_so(name):
    said = " ".join((getattr(npopt, name).__doc__ or "").split())
    assert "host" in said or "see ProximalGradient" in said
    assert "wait" in said


def test_surfaces_are_computed_on_the_host():
    """Of the problems they alone read x in a step; a script's own function of one unknown may do so, too."""
    net = network(lambda: nn.mlp((16, 10)), 4, 1)
    with strict_moves.counted() as moves:
        for problem in (Surface("beale"), Quadratic([1.0, 2.0], n=N, noise=0.1), net):
            minimize(problem, SGD(), RandomReshuffling(1), 1e-3, stop=Stop(steps=3), events=Events(None))
    assert {move.stack[0] for move in moves.in_steps()[0]} == {"landscapes.value_and_gradient"}
    assert "on the host" in Surface.__doc__


def test_swats_reads_no_more_after_its_switch():
    with strict_moves.counted() as moves:
        minimize(logistic(), SWATS(tolerance=1e9), RandomReshuffling(16), 0.1, stop=Stop(steps=9), events=Events(None))
    assert len(moves.in_steps()[0]) == 4  # two products in steps 1 and 2, where it switches


def test_a_range_test_reads_one_loss_a_step():
    with strict_moves.counted() as moves:
        found = range_test(logistic(), SGD(), RandomReshuffling(16), 1e-4, 1e-2, steps=10)
    assert len(found.losses) == 10
    assert [move.stack[0] for move in moves.reads if move.size == 1].count("range_test.range_test") == 10


def test_kernels_of_a_step_do_not_multiply():
    """Upper bounds, so that a step that suddenly asks a GPU for twice as many operations is seen."""
    for problem, method, most in ((logistic(), SGD(), 14), (Quadratic([1.0, 2.0], n=N, noise=0.1), SGD(), 12)):
        with strict_moves.counted() as few:
            minimize(problem, method, RandomReshuffling(16), 1e-3, stop=Stop(steps=6), events=Events(None))
        with strict_moves.counted() as many:
            minimize(problem, method, RandomReshuffling(16), 1e-3, stop=Stop(steps=18), events=Events(None))
        assert (many.calls - few.calls) / 12 <= most, problem.name
