"""Resuming: optimizers, estimators and samplers go on bit for bit, and no checkpoint that does not fit is loaded."""

import copy

import npopt
from lab.methods import BASES
from nn import adapted, networks
from nn.adapters import free
from npopt import (
    LOZO,
    SAGA,
    SVRG,
    ZOSVRG,
    Accumulated,
    Adam,
    AdamMini,
    AdaptiveImportance,
    Anderson,
    Clipped,
    ClippedBySegment,
    ClippedByValue,
    DeepZero,
    Events,
    HeavyBall,
    MeZO,
    MeZOSVRG,
    Normalised,
    RandomReshuffling,
    ReLoRA,
    Stop,
    backend,
    checkpoint,
    elementwise,
    minimize,
)
from npopt.minimize import _Loop
from npopt.optimizers import Array, BySegment, Optimizer
from npopt.state import misfit
from problems import Lasso, LeastSquares, Neural, Problem, datasets
from problems.feeds import Images

import numpy as np
import pytest
from methods import ASKING, EVERY, ORACLE, PROXIMAL, TABLE, short


class Springs(Problem):
    """f_i(x) = (1/2) sum_j c_j (x_j - a_ij)^2, in the segments of the table."""

    name, n = "springs", 24

    def __init__(self):
        self.set_shape(TABLE.dim, "float32", TABLE)
        rng = np.random.default_rng(5)
        self.a, self.c = (
            backend.asarray(v.astype("float32"))
            for v in (rng.standard_normal((self.n, self.dim)), rng.uniform(0.2, 2.0, self.dim))
        )

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        d = x - (self.a if rows is None else self.a[rows])
        out[...] = (d * self.c).mean(axis=0)
        return float((d * d * self.c).sum() / (2 * len(d)))

    def loss(self, x, rows, weights):
        return self.value_and_gradient(x, rows, out=np.empty_like(x))


def network():
    return Neural(networks.mlp((64, 4, 10), norm="batch"), Images(datasets.load("digits")), metrics_rows=40)


def adapters():
    problem = Neural(adapted(networks.mlp((64, 4, 10)), rank=2), Images(datasets.load("digits")), metrics_rows=40)
    return problem.restrict(problem.x0(backend.generator(0, "x0")), free(problem.network))


def lasso():
    rng = np.random.default_rng(6)
    A = rng.standard_normal((24, 5))
    return Lasso(A, A @ rng.standard_normal(5), 0.1)


def regression():
    rng = np.random.default_rng(6)
    A = rng.standard_normal((24, 5))
    return LeastSquares(A, A @ rng.standard_normal(5), l2=0.01)


FULL, PART = RandomReshuffling(None), RandomReshuffling(5)
RUNS = [
    *((Springs, o, PART, None) for o in EVERY if o not in PROXIMAL + ASKING),
    *((lasso, o, FULL, None) for o in PROXIMAL),
    *((network, o, PART, None) for o in ASKING),
    (adapters, ReLoRA(Adam(0.7, 0.95, 1e-2), 4, 0.3), PART, None),
    *((regression, o, FULL, None) for o in PROXIMAL if isinstance(o, Anderson)),
    *((regression, HeavyBall(0.7), PART, e) for e in (SVRG(), SAGA(), Clipped(0.5, Accumulated(2)))),
    *((regression, HeavyBall(0.7), PART, e) for e in (ClippedByValue(0.1), ClippedBySegment(0.4), Normalised(0.2))),
    (network, HeavyBall(0.7), PART, SVRG(option="II")),
    *((regression, HeavyBall(0.7), PART, e) for e in (ZOSVRG(), MeZOSVRG(3), DeepZero(0.5, queries=3))),
    *((network, HeavyBall(0.7), PART, e) for e in (MeZO(), LOZO(2, 4, momentum=0.6))),
    (regression, HeavyBall(0.7), AdaptiveImportance(5), None),
]
NAMES = [f"{problem.__name__} {short(o)} {type(s).__name__} {e or ''}" for problem, o, s, e in RUNS]


class Uneven(npopt.Constant):
    """No rate like the one before."""

    def at(self, k):
        return self.lr * (1 + (7 * k) % 5) / 3


def run(case, steps, path=None):
    problem, optimizer, sampler, estimator = case
    return minimize(
        problem(),
        optimizer,
        sampler,
        Uneven(0.03),
        estimator,
        stop=Stop(steps=steps),
        seed=2,
        events=Events(metrics=None, checkpoint=path),
    )


def flat(tree, name=""):
    """(name, leaf) of a tree of dicts and lists."""
    if isinstance(tree, (dict, list)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return [leaf for key, value in items for leaf in flat(value, f"{name}/{key}")]
    return [(name, tree)]


def test_every_public_optimizer_is_resumed():
    called = {type(o).__name__ for _, o, _, _ in RUNS}
    assert called == set(npopt.optimizers.__all__) - BASES - {"Blockwise"}  # tests/test_blocks.py: it has an estimator


@pytest.mark.parametrize("case", RUNS, ids=NAMES)
def test_two_parts_equal_the_whole_bitwise(case, tmp_path):
    whole = run(case, 12, tmp_path / "whole.npz")
    for steps in (1, 6, 12):
        rest = run(case, steps, tmp_path / "parts.npz")
    np.testing.assert_array_equal(whole.x, rest.x)
    np.testing.assert_array_equal(whole.answer, rest.answer)
    one, two = (checkpoint.load(tmp_path / f"{name}.npz") for name in ("whole", "parts"))
    for state in (one, two):
        state["seconds"] = state["columns"] = state["loss"] = None
    assert [name for name, _ in flat(one)] == [name for name, _ in flat(two)]
    for (name, a), (_, b) in zip(flat(one), flat(two), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


ROW = ("epoch", "step", "seconds", "gradients", "values", "bytes", "lr", "loss")


def leaves(tree, path=()):
    """Paths to everything in a tree that `misfit` looks at, without config."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if path or key not in ("config", "format", "made_of"):
            yield (*path, key)
            if isinstance(value, dict) or isinstance(value, list) and path[:1] != ("columns",):
                yield from leaves(value, (*path, key))


def damages(value, first):
    """What may stand in a file in the place of a value, and does not fit it; first: what stands there at the start."""
    yield from ("text", {"a": 1}, [1, 2, 3, 4])
    if isinstance(value, np.ndarray):
        yield from (
            0.0,
            value.astype(complex),
            value[:-1],
            value[None],
            value[:1] if len(value) > 1 else value[0],
            value.astype("float32" if value.dtype == "float64" else "float64"),
            None,
        )
    elif type(value) is bool:
        yield from (1, None)
    elif type(value) is int:
        yield from (1.5, True, None, np.zeros(3), *(-1,) * (first >= 0))
    elif type(value) is float:
        yield from (True, np.zeros(3), np.nan if first is None else None)
    elif isinstance(value, (dict, list)):
        yield from (0, None)


def replaced(tree, path, value):
    """A copy of the tree with another value; without that name where the value is `...`."""
    tree = copy.copy(tree)
    if len(path) > 1:
        tree[path[0]] = replaced(tree[path[0]], path[1:], value)
    elif value is ...:
        del tree[path[0]]
    else:
        tree[path[0]] = value
    return tree


def loop(case, path):
    problem, optimizer, sampler, estimator = case
    return _Loop(
        problem(),
        optimizer,
        seed=2,
        x=None,
        sampler=sampler,
        schedule=Uneven(0.03),
        estimator=estimator,
        vary=None,
        stop=Stop(steps=12),
        events=Events(metrics=None, checkpoint=path),
    )


@pytest.mark.parametrize("case", RUNS, ids=NAMES)
def test_a_damaged_checkpoint_is_refused_and_nothing_is_loaded(case, tmp_path):
    path = tmp_path / "c.npz"
    run(case, 6, path)
    saved, fresh = checkpoint.load(path), loop(case, path)
    before, tried = flat(copy.deepcopy(fresh.state())), 0
    for where in leaves(saved):
        value, first = saved, fresh.state()
        for key in where:
            value = value[key]
            first = first.get(key, {}) if isinstance(first, dict) else first[key]
        if value is None or where[0] == "columns" and where[-1] not in (*ROW, "columns"):  # not known beforehand
            continue
        for other in (..., *damages(value, first)):
            if isinstance(other, list) and isinstance(value, list) and len(other) == len(value):
                continue
            with pytest.raises(checkpoint.Damaged, match="c.npz does not fit this run: .*; remove it or choose"):
                fresh.load_state(replaced(saved, where, other), path)
            tried += 1
    for where in ((), ("optimizer",), ("columns",)):
        with pytest.raises(ValueError, match="not known here|has not one entry"):
            fresh.load_state(replaced(saved, (*where, "more"), 1.0), path)
    for (name, a), (_, b) in zip(before, flat(fresh.state()), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    fresh.load_state(saved, path)
    assert fresh.t == 6 and tried > 50


def test_the_message_names_the_place_once_and_says_what_to_do(tmp_path):
    path = tmp_path / "c.npz"
    case = (regression, HeavyBall(0.7), PART, None)
    run(case, 6, path)
    saved = checkpoint.load(path)
    for where, value, words in (
        (("x",), 0.0, "x is a number there, float64 (5,) here"),
        (("x",), saved["x"] + 1j, "x is complex128 (5,) there, float64 (5,) here"),
        (("optimizer", "m"), ..., "optimizer/m is missing there"),
        (("sampler", "taken"), -2, "sampler/taken is -2, which is negative"),
        (("columns", "loss"), [], "columns/loss has not one entry a row"),
        (("loss",), [0.0], "loss is a list there, a list of 3 here"),
        (("reason",), 3.5, "reason is a number there, text here"),
    ):
        checkpoint.save(path, replaced(saved, where, value))
        with pytest.raises(ValueError) as error:
            run(case, 12, path)
        assert str(error.value) == f"minimize: {path} does not fit this run: {words}; remove it or choose another path"
    checkpoint.save(path, [1, 2])
    with pytest.raises(checkpoint.Damaged, match="a file of another kind"):
        run(case, 12, path)
    checkpoint.save(path, {**saved, "config": 3})
    with pytest.raises(checkpoint.Damaged, match="a file of another kind"):
        run(case, 12, path)


def test_a_state_of_another_optimizer_is_refused_by_the_optimizer():
    x, adam, other = np.ones(5), npopt.Adam(), npopt.Adam()
    adam.start(x)
    other.start(np.ones(4))
    adam.step(x, np.ones(5), 0.1)
    before = copy.deepcopy(adam.state())
    with pytest.raises(ValueError, match=r"Adam: this state is another's: m is float64 \(4,\) there, float64 \(5,\)"):
        adam.load_state(other.state())
    assert misfit(before, adam.state()) is None and (adam.slot("m") == before["m"]).all()
    with pytest.raises(ValueError, match="w is not known here"):
        adam.load_state({**before, "w": 1})


# ----------------------------------------------------------------------------------------------- what may be declared


@elementwise
def dequantised(x, m, g, lr, beta):
    m = beta * m + g
    x = x - lr * m
    return x, m


class Bytes(BySegment):
    """Heavy ball whose memory is one byte a number and one scale for 16 numbers."""

    arrays = (Array("q", dtype="int8"), Array("scale", lambda s: (-(-s.size // 16),), "float32"))

    def update_segment(self, segment, x, g, lr, q, scale):
        m = q.astype(x.dtype) * np.repeat(scale, 16)[: q.size].astype(x.dtype)
        dequantised(x, m, g, lr, 0.7)
        for i in range(len(scale)):
            block = slice(16 * i, 16 * i + 16)
            scale[i] = np.abs(m[block]).max() / 127
            q[block] = np.round(m[block] / max(scale[i], 1e-30))


class LowRank(BySegment):
    """The step of a matrix from its two leading rows of singular vectors; other segments keep one number."""

    arrays = (Array("P", lambda s: (2, s.shape[1]) if len(s.shape) == 2 else None), Array("count", lambda s: (1,)))
    numbers = {"longest": 0.0, "last": None, "seen": False}

    def update_segment(self, segment, x, g, lr, P, count):
        count += 1
        if P is not None:
            P[...] = 0.5 * P + np.linalg.svd(g.reshape(segment.shape), full_matrices=False)[2][:2]
            g = (g.reshape(segment.shape) @ P.T @ P).ravel()
        self.last, self.seen = float(np.linalg.norm(g)), True
        self.longest = max(self.longest, self.last)
        x -= lr * g


@pytest.mark.parametrize("kind", [Bytes, LowRank])
def test_declared_shapes_and_types_are_allocated_cut_counted_and_resumed(kind, tmp_path):
    x, optimizer = np.ones(TABLE.dim, "float32"), kind()
    optimizer.start(x, ORACLE)
    matrices = [s for s in TABLE if len(s.shape) == 2]
    expected = {
        Bytes: x.size + 4 * sum(-(-s.size // 16) for s in TABLE),
        LowRank: 4 * sum(2 * s.shape[1] for s in matrices) + 4 * len(TABLE),
    }
    assert optimizer.bytes() == expected[kind]
    assert kind is not Bytes or optimizer.state()["q"].dtype == np.int8
    case = (Springs, kind(), PART, None)
    whole = run(case, 12)
    for steps in (5, 12):
        rest = run(case, steps, tmp_path / "c.npz")
    np.testing.assert_array_equal(whole.x, rest.x)
    saved = checkpoint.load(tmp_path / "c.npz")["optimizer"]
    if kind is LowRank:
        assert saved["seen"] is True and saved["longest"] > 0 and (saved["count"] == 12).all()
        assert optimizer.cut(TABLE.find("fc.b"))[0] is None and optimizer.cut(TABLE.find("fc.W"))[0].shape == (2, 4)


def test_state_by_segment_needs_segments():
    class Wrong(Optimizer):
        arrays = (Array("v", lambda s: (1,)),)

    with pytest.raises(ValueError, match="Wrong: v has a shape for each segment; derive from BySegment"):
        Wrong().start(np.ones(3))


@pytest.mark.parametrize("optimizer", [AdamMini(), npopt.Adafactor(b1=0.5)], ids=short)
def test_declared_state_lives_on_the_device(optimizer, device):
    x = backend.asarray(np.ones(TABLE.dim))
    optimizer.start(x, ORACLE)
    optimizer.step(x, backend.asarray(np.ones(TABLE.dim)), 0.1)
    assert {type(v) for v in optimizer.state().values() if getattr(v, "ndim", 0)} == {type(x)}
    kept = {name: backend.to_host(v) if getattr(v, "ndim", 0) else v for name, v in optimizer.state().items()}
    again = copy.deepcopy(optimizer)
    again.start(x, ORACLE)
    again.load_state(kept)
    for name, value in kept.items():
        np.testing.assert_array_equal(backend.to_host(again.state()[name]), value)
