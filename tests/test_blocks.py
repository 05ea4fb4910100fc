"""Gradients in pieces while backward runs, and in blocks: to the bit those of vectors. BAdam and LISA written out."""

import copy
from types import SimpleNamespace

import nn
import nn.release
from nn.language import bert, gpt2, llama
from npopt import (
    LAMB,
    SGD,
    Adafactor,
    Adam,
    AdamW,
    BlockGradient,
    Blockwise,
    Clipped,
    Events,
    HeavyBall,
    Layerwise,
    Lion,
    Lookahead,
    Minibatch,
    NAdam,
    RandomReshuffling,
    Stop,
    backend,
    minimize,
)
from npopt.errors import UserError
from problems import LeastSquares, Neural
from problems.encoded import Masked
from problems.feeds import CropFlip, Images
from problems.tokens import Windows

import numpy as np
import pytest

THREADS = 1  # layers of a few numbers: tests/conftest.py


def pictures(build, size=8, channels=1, **more):
    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 256, (24, size, size, channels)).astype("uint8"), rng.integers(0, 10, 24)
    fields = dict(x_train=x, y_train=y, x_test=x, y_test=y, mean=np.full(channels, 99.0), std=np.full(channels, 50.0))
    feed = Images(SimpleNamespace(name="noise", labels=10, **fields), augment=more.pop("augment", None))
    return Neural(build(), feed, **more)


def text(network, **more):
    return Neural(network, Windows(np.random.default_rng(5).integers(0, 30, 200), 6), **more)


def gaps():
    rng = np.random.default_rng(6)
    rows = [rng.integers(3, 30, n) for n in rng.integers(3, 7, 20)]
    return Neural(bert(30, 6, 8, 2, 2, head="words", dropout=0.1), Masked(rows, 6, 1, (3, 30), validation=rows[:3]))


def thrice():
    """A table of words with three users."""
    last = nn.Sequential(embed=nn.Embedding(8, 8), mid=nn.Linear(8, 8, bias=False), act=nn.Tanh(),
                         head=nn.Linear(8, 8, bias=False))  # fmt: skip
    network = nn.Network(last, (6,), share={"mid.W": "embed.W", "head.W": "embed.W"})
    return Neural(network, Windows(np.random.default_rng(5).integers(0, 8, 200), 6), dtype="float64", l2=0.03)


PROBLEMS = {
    "MLP": lambda: pictures(lambda: nn.mlp((64, 20, 10), norm="batch", dropout=0.2), l2=0.02),
    "LeNet": lambda: pictures(nn.lenet5, 28),
    "ResNet": lambda: pictures(lambda: nn.resnet18(width=4), 32, 3, augment=CropFlip()),
    "GPT-2": lambda: text(gpt2(30, 6, 8, 2, 2, dropout=0.1), l2=0.01),
    "Llama": lambda: text(llama(30, 6, 8, 2, 2, kv_heads=1, tied=False), dtype="float64"),
    "BERT": gaps,
    "thrice": thrice,
}


def run_of(problem, optimizer, estimator, steps=4, **more):
    args = dict(schedule=0.05, stop=Stop(steps=steps), seed=3, events=Events(None)) | more
    return minimize(problem, optimizer, RandomReshuffling(6), estimator=estimator, **args)


PAIRS = [(name, Adam(0.8, 0.95, 1e-3)) for name in PROBLEMS]
PAIRS += [("MLP", HeavyBall(0.7)), ("GPT-2", LAMB(0.8, 0.9)), ("thrice", LAMB(0.8, 0.9))]


@pytest.mark.parametrize("name, optimizer", PAIRS, ids=[f"{name} {type(method).__name__}" for name, method in PAIRS])
def test_steps_in_pieces_are_those_of_the_whole_gradient_to_the_bit(name, optimizer):
    problem = PROBLEMS[name]()
    whole, pieces = (run_of(problem, optimizer, method) for method in (Minibatch(), Layerwise()))
    assert whole.reason == "steps" and np.any(whole.x != problem.x0(np.random.default_rng(0)))
    np.testing.assert_array_equal(pieces.x, whole.x)
    for column in ("loss", "gradients"):
        assert pieces.columns[column] == whole.columns[column]


@pytest.mark.parametrize("name", ["LeNet", "GPT-2"])
def test_pieces_come_from_the_top_and_one_layers_live_at_a_time(name, monkeypatch):
    """What has been handed on is gone before the next layer's is made; a shared table waits for its last user."""
    problem, alive, most = PROBLEMS[name](), [], []
    problem.begin(0)
    _, each = problem.value_and_pieces(problem.x0(np.random.default_rng(0)), range(6))
    made = nn.release.Handing.made

    def watched(self, layer, parameter):
        gradient = made(self, layer, parameter)
        waiting = sum(g.nbytes for found in self.waiting.values() for g in found.values())
        most.append(waiting + sum(g.nbytes for g in self.open.values()))
        return gradient

    monkeypatch.setattr(nn.release.Handing, "made", watched)
    each(lambda piece, gradient: alive.append((piece.start, gradient.size)))
    starts = [segment.start for segment in problem.segments]
    blocks = {segment.start: segment.block for segment in problem.segments}
    assert sorted(start for start, _ in alive) == starts and sum(size for _, size in alive) == problem.dim
    order = list(dict.fromkeys(blocks[start] for start, _ in alive))
    assert order == problem.segments.blocks[::-1]
    one = max(sum(s.size for s in problem.segments if s.name.rpartition(".")[0] == path)
              for path in {s.name.rpartition(".")[0] for s in problem.segments})  # fmt: skip
    shared = 2 * problem.segments.find("embed.W").size if name == "GPT-2" else 0
    assert max(most) <= (one + shared) * problem.dtype.itemsize


def test_a_problem_without_layers_gives_its_gradient_segment_by_segment():
    rng = np.random.default_rng(1)
    A, b = rng.standard_normal((30, 5)), rng.standard_normal(30)
    problem = LeastSquares(A, b, 0.1)
    runs = [run_of(problem, Adam(0.6), method, schedule=0.1) for method in (Minibatch(), Layerwise())]
    np.testing.assert_array_equal(*(run.x for run in runs))


# ------------------------------------------------------------------------------------------------------------ blocks
def blocks_of(problem, method, phases, x=None):
    """The blocks at hand in each phase, from the estimator alone."""
    method, x = copy.deepcopy(method), problem.x0(np.random.default_rng(0)) if x is None else x
    g, found = method.start(problem, x, 7), []
    batch = next(iter(started(problem)))
    for phase in range(phases):
        for t in range(phase * method.period, (phase + 1) * method.period):
            problem.begin(t)
            method(x, batch, g)
            g.each(lambda piece, gradient: None)
            now = method.active
            assert method.phase == phase and (t % method.period == 0 or now == found[-1])
            found.append(now) if t % method.period == 0 else None
    return found, method


def started(problem, size=6):
    sampler = RandomReshuffling(size)
    sampler.start(problem, 3)
    return sampler.take(1)


def decoder():
    return text(gpt2(30, 6, 8, 5, 2), dtype="float64")


OUTER = dict(never=["embed", "positions", "norm"])


def test_orders_of_blocks():
    problem, layers = decoder(), [f"layer{i}" for i in range(1, 6)]
    up, _ = blocks_of(problem, BlockGradient(2, "ascending", 2, **OUTER), 4)
    down, _ = blocks_of(problem, BlockGradient(3, "descending", **OUTER), 6)
    assert up == [layers[:2], layers[2:4], layers[4:], layers[:2]]
    assert [one for (one,) in down] == [*layers[::-1], "layer5"]
    shuffled, _ = blocks_of(problem, BlockGradient(1, "random", **OUTER), 15)
    cycles = [[one for (one,) in shuffled[i : i + 5]] for i in (0, 5, 10)]
    assert all(sorted(cycle) == layers for cycle in cycles) and len(set(map(tuple, cycles))) == 3
    drawn, _ = blocks_of(problem, BlockGradient(1, "uniform", 2, always=["embed"], never=["positions", "norm"]), 200)
    assert all(now[0] == "embed" and len(set(now)) == 3 for now in drawn)
    counts = np.array([sum(layer in now for now in drawn) for layer in layers])
    assert abs(counts - 80).max() < 3.5 * np.sqrt(200 * 0.4 * 0.6)


def test_the_largest_blocks_and_those_of_importance():
    """A quadratic whose blocks have gradients of known length."""
    problem, lengths = text(gpt2(30, 6, 8, 3, 2), dtype="float64"), {}
    x, batch = problem.x0(np.random.default_rng(0)), next(iter(started(problem)))
    g = np.empty_like(x)
    problem.begin(0)
    problem.value_and_gradient(x, batch.rows, batch.weights, out=g)
    for block in problem.segments.blocks:
        lengths[block] = np.sqrt(sum((g[s.slice] ** 2).sum() for s in problem.segments if s.block == block))
    by_length = sorted(lengths, key=lengths.get, reverse=True)
    largest, method = blocks_of(problem, BlockGradient(1, "largest", 2), 1)
    assert set(largest[0]) == set(by_length[:2]) and method.counts["gradients"] == 2 * 6
    drawn, method = blocks_of(problem, BlockGradient(1, "importance", corrected=True), 250)
    total = sum(lengths.values())
    for block, length in lengths.items():
        p = length / total
        count = sum(now == [block] for now in drawn)
        assert abs(count - 250 * p) < 4 * np.sqrt(250 * p * (1 - p)) + 1, block
    assert method.factor == pytest.approx(total / (len(lengths) * lengths[drawn[-1][0]]))
    mean, out = np.zeros_like(x), np.empty_like(x)
    p = np.array([lengths[block] / total for block in method.blocks])
    for i, share in enumerate(p):  # E [1/(D p) g_b] = g / D
        method.chosen[0], method.factor = i, 1 / (len(p) * share)
        method.again(x, out)
        mean += share * out
    np.testing.assert_allclose(mean, g / len(p), rtol=1e-9, atol=1e-14)


def test_a_block_has_the_gradient_of_the_restricted_problem():
    problem, found = decoder(), {}
    x = problem.x0(np.random.default_rng(0))
    problem.begin(0)
    part = problem.restrict(x, ["layer4"])
    g = np.empty(part.dim)
    loss = part.value_and_gradient(part.first, range(6), out=g)
    again, each = problem.value_and_pieces(x, range(6), names=["layer4"])
    each(lambda piece, gradient: found.update({piece.start: gradient.copy()}))
    np.testing.assert_array_equal(np.concatenate([found[start] for start in sorted(found)]), g)
    assert again == loss


def bytes_kept(problem, names):
    """Bytes of the arrays that the forward pass of a gradient in these blocks leaves for the way back."""
    seen = {}

    def walk(saved):
        for one in saved if isinstance(saved, (tuple, list)) else ():
            walk(one)
        if getattr(saved, "nbytes", 0):
            base = saved
            while getattr(base, "base", None) is not None and hasattr(base.base, "nbytes"):
                base = base.base
            seen[id(base)] = base.nbytes

    network = problem.network
    inputs, _, run = problem._prepare(np.arange(6), None)
    network.bind(problem.x0(np.random.default_rng(0)), np.empty(problem.segments.select(names).dim), frozenset(
        problem.segments.select(names).names), compact=True)  # fmt: skip
    walk(network.forward(inputs, run)[1])
    return sum(seen.values())


def test_what_is_kept_falls_with_the_height_of_the_block():
    problem = decoder()
    kept = [bytes_kept(problem, [f"layer{i}"]) for i in range(1, 6)]
    falls = -np.diff(kept)
    assert (falls > 0).all() and falls.max() < 1.3 * falls.min(), kept
    assert bytes_kept(problem, ["embed"]) >= kept[0]


# ---------------------------------------------------------------------------------------------------- BAdam and LISA
def slow_run(problem, x, phases, period, rates, *, lisa=(), kept=(), decay=0.0, b1=0.8, b2=0.95, eps=1e-3, seed=3):
    """Algorithm 1 of both papers: `phases` has the layers of each; `lisa`: blocks that always move; `kept`: states that
    a change of blocks leaves."""
    table = problem.segments
    pieces = {block: [s.slice for s in table if s.block == block] for block in table.blocks}
    sampler = RandomReshuffling(6)
    sampler.start(problem, seed)
    state, g = {}, np.empty_like(x)
    for t, (batch, lr) in enumerate(zip(sampler.take(len(rates)), rates, strict=True)):
        chosen = phases[t // period]
        if t % period == 0:
            state = {block: s for block, s in state.items() if block in (*lisa, *kept)}
        problem.begin(t)
        problem.value_and_gradient(x, batch.rows, batch.weights, out=g)
        for block in (*lisa, *chosen):
            m, v, k = state.get(block, (0.0, 0.0, 0))
            gb = np.concatenate([g[piece] for piece in pieces[block]])
            m, v, k = b1 * m + (1 - b1) * gb, b2 * v + (1 - b2) * gb**2, k + 1
            state[block] = m, v, k
            step = (m / (1 - b1**k)) / (np.sqrt(v / (1 - b2**k)) + eps)
            start = 0
            for piece in pieces[block]:
                n = piece.stop - piece.start
                x[piece] -= lr * (step[start : start + n] + decay * x[piece])
                start += n
    return x


def phases_of(problem, order, count, seed=3):
    """The blocks of the first phases of a run."""
    order = copy.deepcopy(order)
    order.start(problem, problem.x0(np.random.default_rng(0)), seed)
    return [[order.blocks[i] for i in order.choose(None, phase)] for phase in range(count)]


def first_point(problem, seed=3):
    problem.set_seed(seed)
    problem.reset()
    return problem.x0(backend.generator(seed, "x0"))


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_badam_is_the_loop_of_the_paper(order):
    problem, method = decoder(), BlockGradient(3, order, **OUTER)
    run = run_of(problem, Blockwise(Adam(0.8, 0.95, 1e-3)), method, 14, schedule=0.03)
    start = first_point(problem)
    x = slow_run(problem, start.copy(), phases_of(problem, method, 5), 3, [0.03] * 14)
    np.testing.assert_allclose(run.x, x, rtol=1e-10, atol=1e-13)
    for segment in problem.segments:
        assert np.array_equal(run.x[segment.slice], start[segment.slice]) == (segment.block in OUTER["never"])


def test_lisa_is_the_loop_of_the_paper():
    problem, always = decoder(), ["embed", "norm"]
    method = BlockGradient(4, "uniform", 2, always, ["positions"])
    run = run_of(problem, Blockwise(AdamW(0.8, 0.95, 1e-3, 0.07)), method, 14, schedule=0.03)
    phases = phases_of(problem, method, 4)
    x = slow_run(problem, first_point(problem), phases, 4, [0.03] * 14, lisa=always, decay=0.07)
    np.testing.assert_allclose(run.x, x, rtol=1e-10, atol=1e-13)


def test_states_that_are_kept_go_on_where_they_were():
    problem, method = decoder(), BlockGradient(2, "ascending", **OUTER)
    run = run_of(problem, Blockwise(Adam(0.8, 0.95, 1e-3), keep=True), method, 17, schedule=0.03)
    layers = [f"layer{i}" for i in range(1, 6)]
    x = slow_run(problem, first_point(problem), phases_of(problem, method, 9), 2, [0.03] * 17, kept=layers)
    np.testing.assert_allclose(run.x, x, rtol=1e-10, atol=1e-13)


def test_all_blocks_at_once_are_the_inner_method():
    for inner in (SGD(), HeavyBall(0.6), Lion(0.7, 0.9, 0.1)):
        plain = run_of(decoder(), inner, Minibatch(), 5)
        block = run_of(decoder(), Blockwise(inner), BlockGradient(100, "uniform", 6, ["embed", "norm"]), 5)
        np.testing.assert_array_equal(block.x, plain.x)


def test_states_are_those_of_the_blocks_at_hand():
    problem = decoder()
    sizes = {name: sum(s.size for s in problem.segments if s.block == name) for name in problem.segments.blocks}
    lisa = BlockGradient(3, "uniform", 2, ["embed", "norm"], ["positions"])
    for order, keep, numbers in (
        (BlockGradient(3, **OUTER), False, sizes["layer1"]),
        (BlockGradient(3, **OUTER), True, 5 * sizes["layer1"]),
        (lisa, False, sizes["embed"] + sizes["norm"] + 2 * sizes["layer1"]),
    ):
        x, order = problem.x0(np.random.default_rng(0)), copy.deepcopy(order)
        order.start(problem, x, 0)
        optimizer = Blockwise(Adam(), keep)
        optimizer.start(x, order)
        assert optimizer.inner.bytes() == 2 * numbers * 8 and optimizer.bytes() < 2 * numbers * 8 + 100


@pytest.mark.parametrize("order", ["descending", "random", "uniform", "largest", "importance"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_run_that_is_cut_anywhere_resumes_bitwise(order, keep, tmp_path):
    def small():
        return text(gpt2(30, 6, 8, 5, 2))

    size = 2 if order == "uniform" else 1
    method = BlockGradient(4, order, size, ["norm"], ["positions"], corrected=order == "importance")
    whole = run_of(small(), Blockwise(Adam(0.8, 0.95, 1e-3), keep), method, 13)
    for cut in (3, 4, 6, 9):
        events = Events(None, checkpoint=tmp_path / f"{cut}.npz")
        for steps in (cut, 13):
            run = run_of(small(), Blockwise(Adam(0.8, 0.95, 1e-3), keep), method, steps, events=events)
        np.testing.assert_array_equal(run.x, whole.x)
        assert run.final["gradients"] == whole.final["gradients"]


def test_on_a_device_as_on_the_host(device):
    problem = text(gpt2(30, 6, 8, 3, 2, tied=False), dtype="float64")
    for optimizer, method in (
        (Adam(0.8, 0.95), Layerwise()),
        (Blockwise(Adam(0.8, 0.95)), BlockGradient(2, "uniform", 2, ["embed"], ["positions"])),
        (Blockwise(HeavyBall(0.6)), BlockGradient(2, "largest", always=["head"])),
    ):
        run = run_of(problem, optimizer, method, 5)
        backend.use("cpu")
        host = run_of(text(gpt2(30, 6, 8, 3, 2, tied=False), dtype="float64"), optimizer, method, 5)
        backend.use(device)
        np.testing.assert_allclose(backend.to_host(run.x), host.x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: BlockGradient(3, "greedy"), "order must be one of"),
        (lambda: BlockGradient(0), "period"),
        (lambda: BlockGradient(3, corrected=True), "goes with order='importance'"),
        (lambda: BlockGradient(3, always="embed"), "list of names"),
        (lambda: run_of(decoder(), SGD(), BlockGradient(3, never=["head"])), "no block is named 'head'"),
        (lambda: run_of(decoder(), SGD(), BlockGradient(3, size=9)), "size=9 blocks at a time, but there are 8"),
        (lambda: Blockwise(LAMB()), "LAMB does not work number by number"),
        (lambda: Blockwise(Adafactor()), "does not work number by number"),
        (lambda: Blockwise(NAdam()), "does not work number by number"),
        (lambda: Blockwise(Lookahead(SGD())), "does not work number by number"),
        (lambda: Blockwise("Adam"), "inner must be an optimizer"),
        (lambda: Blockwise(Adam(l2=np.ones(3))), "options of Adam that are arrays"),
        (lambda: run_of(decoder(), Blockwise(Adam()), Minibatch()), "give estimator=BlockGradient"),
        (lambda: run_of(decoder(), SGD(), Clipped(1.0, Layerwise())), "makes its gradient in pieces"),
    ],
)
def test_wrong_arguments(wrong, says):
    with pytest.raises(UserError, match=says):
        wrong()


class Late(nn.Linear):
    """Asks for its gradient again, after another layer has asked for its own."""

    def __init__(self, size, other, again):
        super().__init__(size, size)
        self.other, self.again = other, again

    def children(self):
        return [("other", self.other)]

    def forward(self, x, run):
        y, saved = self.other.forward(x, run)
        return super().forward(y, run)[0], (y, saved)

    def backward(self, dy, saved, run):
        y, kept = saved
        self.dW[...] = dy.T @ y
        dx = self.other.backward(dy @ self.W, kept, run)
        self.db[...] = dy.sum(0)  # may come late: nobody has asked for it before
        if self.again:
            self.dW[...] *= 2
        return dx


class Silent(nn.Linear):
    def backward(self, dy, saved, run):
        return None


def test_layers_that_do_not_keep_to_the_order_are_told():
    def problem(layer):
        return pictures(lambda: nn.Network(nn.Sequential(nn.Flatten(), layer, nn.Linear(64, 10)), (8, 8, 1)))

    with pytest.raises(UserError, match="handed on when another layer asked"):
        run_of(problem(Late(64, nn.Linear(64, 64), True)), SGD(), Layerwise())
    late = problem(Late(64, nn.Linear(64, 64), False))
    np.testing.assert_array_equal(*(run_of(late, SGD(), method).x for method in (Layerwise(), Minibatch())))
    with pytest.raises(UserError, match="backward has not written this gradient"):
        run_of(problem(Silent(64, 64)), SGD(), Layerwise())
