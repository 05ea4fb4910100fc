"""Pipelines: the step of the whole network, the bubble, the passes that are kept, the bytes."""

from nn import gpt2, mlp
from npopt import LAMB, AdamW, Anderson, HeavyBall, backend
from npopt.distributed import Clock, Faults, GPipe, PipeDreamFlush, TensorParallel, simulate
from npopt.distributed.simulation import Network
from npopt.errors import UserError
from problems.neural import Neural
from problems.parts import Stage, together

import cut_networks as cut
import numpy as np
import pytest
from test_engine import reachable

THREADS = 1  # layers of a few numbers: tests/conftest.py

KINDS = [GPipe, PipeDreamFlush]
IDEAL = Clock(latency=0, bandwidth=1e30, row_seconds=12.0)
TEXTS = ["gpt2", "llama"]


def method(kind, micro=3, batch=cut.BATCH, **more):
    return kind(cut.LR, micro, batch, HeavyBall(cut.BETA), **more)


def run(kind, parts, rounds=3, start=True, **more):
    given = {name: more.pop(name) for name in ("micro", "batch", "recompute") if name in more}
    return simulate(
        method(kind, **given), parts, rounds, seed=cut.SEED, start=cut.starts(parts) if start else None, **more
    )


def traced(kind, count, micro, clock=IDEAL, name="llama", **more):
    """(events, History) of one round with a row in each micro-batch."""
    events = []
    found = run(kind, cut.stages(name, count), 1, micro=micro, batch=micro, clock=clock,
                watch=lambda *event: events.append(event), **more)  # fmt: skip
    return events, found


# --------------------------------------------------------------------------------------------------------------- steps
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name, count", [("gpt2", 1), ("gpt2", 4), ("llama", 3), ("mlp", 2), ("mlp", 4)])
def test_steps_are_those_of_the_whole_network(name, count, kind, recompute):
    """With dropout, momentum, micro-batches of 3, 2 and 2 rows, and targets that do not count."""
    parts = cut.stages(name, count)
    found = run(kind, parts, recompute=recompute)
    assert cut.apart(parts, found.x, cut.whole(name, 3)) < 1e-10


@pytest.mark.parametrize("name", TEXTS)
def test_all_orders_give_the_same_bits(name):
    first = run(GPipe, cut.stages(name, 4)).x
    for kind, recompute in ((PipeDreamFlush, False), (GPipe, True), (PipeDreamFlush, True)):
        for a, b in zip(first, run(kind, cut.stages(name, 4), recompute=recompute).x, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_start_is_the_whole_networks():
    make, feed, loss = cut.NETWORKS["llama"]
    x = Neural(make(), feed(), loss, dtype="float64").x0(backend.generator(cut.SEED, "start"))
    parts = cut.stages("llama", 3)
    still = simulate(GPipe(0.0, 2, 2), parts, 1, seed=cut.SEED)
    np.testing.assert_array_equal(together(parts, still.x), x)
    assert sum(part.dim for part in parts) == len(x) and all(part.dim < 0.6 * len(x) for part in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_that_knows_segments(kind):
    parts = cut.stages("llama", 2)
    several = simulate(kind(0.1, 3, 7, LAMB()), parts, 2, seed=cut.SEED, start=cut.starts(parts))
    alone = cut.stages("llama", 1)
    single = simulate(kind(0.1, 3, 7, LAMB()), alone, 2, seed=cut.SEED, start=cut.starts(alone))
    np.testing.assert_allclose(together(parts, several.x), single.x[0], rtol=1e-9, atol=1e-11)


def test_batch_statistics_are_those_of_the_first_micro_batch():
    """With one micro-batch they are the batch's, and so is the step; they are folded in once a step."""

    def make():
        return mlp((5, 6, 6, 3), norm="batch")

    parts = [Stage(make(), cut.table(), stage=k, stages=3, dtype="float64") for k in range(3)]
    found = simulate(GPipe(0.2, 1, 8), parts, 3, seed=cut.SEED)
    problem = Neural(make(), cut.table(), dtype="float64", seed=cut.SEED)
    x, g = problem.x0(backend.generator(cut.SEED, "start")), np.empty(problem.dim)
    for t in range(3):
        problem.begin(t)
        problem.value_and_gradient(x, backend.generator(cut.SEED, "rows of all", t).integers(20, size=8), out=g)
        problem.commit()
        x -= 0.2 * g
    np.testing.assert_allclose(together(parts, found.x), x, rtol=1e-10, atol=1e-13)
    state = {path: value for part in parts for path, value in part.network.state().items()}
    expected = problem.network.state()
    assert state.keys() == expected.keys() and len(state) == 2
    for path, values in expected.items():
        for name, value in values.items():
            np.testing.assert_allclose(state[path][name], value, rtol=1e-10, atol=1e-14)


# ------------------------------------------------------------------------------------------------------ time, memory
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count, micro", [(1, 3), (2, 1), (2, 5), (4, 2), (4, 4), (4, 9)])
def test_the_bubble(kind, count, micro):
    """(m + p - 1)(f + b) seconds, of which each stage works m (f + b): idle is (p - 1) / (m + p - 1)."""
    events, found = traced(kind, count, micro)
    seconds = found.columns["seconds"][0]
    assert seconds == pytest.approx((micro + count - 1) * 12 / count, rel=1e-12)
    for stage in range(count):
        work = sum(end - begin for rank, _, begin, end in events if rank == stage)
        assert 1 - work / seconds == pytest.approx((count - 1) / (micro + count - 1), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_passes_come_in_the_order_of_the_network(kind):
    """A micro-batch goes forward on a stage when the one before has done it, back when the one behind has; a stage does
    one thing at a time."""
    events, _ = traced(kind, 4, 6)
    when = {(rank, *what): (begin, end) for rank, what, begin, end in events}
    assert len(when) == len(events) == 4 * 6 * 2
    for k in range(6):
        for stage in range(3):
            assert when[stage, "forward", k][1] <= when[stage + 1, "forward", k][0] + 1e-9
            assert when[stage + 1, "backward", k][1] <= when[stage, "backward", k][0] + 1e-9
    for stage in range(4):
        own = sorted((begin, end) for rank, _, begin, end in events if rank == stage)
        assert all(a[1] <= b[0] + 1e-9 for a, b in zip(own[:-1], own[1:], strict=True))


class Counted(Stage):
    """A stage that counts the passes that somebody keeps."""

    alive = most = 0

    def forward(self, x, h, rows):
        y, saved = super().forward(x, h, rows)
        self.alive += 1
        self.most = max(self.most, self.alive)
        return y, saved

    def backward(self, dy, saved, rows, g):
        self.alive -= 1
        return super().backward(dy, saved, rows, g)


@pytest.mark.parametrize("count, micro", [(1, 4), (3, 2), (4, 4), (4, 9)])
def test_gpipe_keeps_all_passes_and_1f1b_no_more_than_there_are_stages_behind(count, micro):
    make, feed, loss = cut.NETWORKS["llama"]
    for kind, most in ((GPipe, lambda s: micro), (PipeDreamFlush, lambda s: min(micro, count - s))):
        parts = [Counted(make(), feed(), loss, stage=k, stages=count) for k in range(count)]
        run(kind, parts, 2, start=False, micro=micro, batch=micro)
        assert [part.most for part in parts] == [most(s) for s in range(count)]
        assert not any(part.alive for part in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_with_recomputation_a_pass_is_made_again_before_it_goes_back(kind):
    events, found = traced(kind, 3, 5, recompute=True)
    assert [part.share for part in cut.stages("llama", 3)] == [0.25, 0.25, 0.5]
    slowest = 5 - 1  # of unequal stages the slowest sets the pace: the sum of all, and (m - 1) times that one
    assert found.columns["seconds"][0] == pytest.approx((12 + 4) * (1 + slowest * 0.5), rel=1e-12)
    assert sum(what[0] == "again" for _, what, _, _ in events) == 3 * 5


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_the_activations_at_the_cuts_and_their_gradients(kind):
    found = run(kind, cut.stages("llama", 4))
    each = 3 * 2 * cut.BATCH * cut.LENGTH * cut.D * 8
    np.testing.assert_array_equal(found.columns["bytes"], each * np.arange(1, 4))
    np.testing.assert_array_equal(found.columns["messages"], 3 * 2 * 3 * np.arange(1, 4))


def test_slow_links_cost_gpipe_two_waves_and_1f1b_more():
    """A message under way for c <= f: GPipe waits for 2 (p - 1) c, 1F1B for that and more, turn by turn."""
    p, m, f, b, c = 4, 8, 1.0, 2.0, 0.5
    clock = Clock(latency=c, bandwidth=1e30, row_seconds=(f + b) * p)
    times = [traced(kind, p, m, clock)[1].columns["seconds"][0] for kind in KINDS]
    assert times[0] == pytest.approx((m + p - 1) * (f + b) + 2 * (p - 1) * c, rel=1e-12)
    assert times[1] > times[0] + c


# ------------------------------------------------------------------------------------------------------------- borders
@pytest.mark.parametrize("name, cut_into", [("gpt2", cut.stages), ("llama", cut.stages), ("gpt2", cut.shards)])
def test_where_nothing_may_be_read(name, cut_into, device):
    """Pipelines, and tensor parallelism: on the device the steps of the CPU, without a read."""
    found = []
    for where in (device, "cpu"):
        backend.use(where)
        parts = cut_into(name, 2, "float32")
        algorithm = method(PipeDreamFlush) if cut_into is cut.stages else TensorParallel(cut.LR, cut.BATCH)
        shown = simulate(algorithm, parts, 2, seed=cut.SEED).x
        found.append(backend.to_host(together(parts, shown)))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_no_stage_can_reach_another(kind):
    parts = cut.stages("gpt2", 3)
    net = Network(method(kind), parts, None, IDEAL, Faults(), cut.SEED)
    for t in range(2):
        net.round(t)
    found = [reachable(node, program) for node, program in zip(net.nodes, net.programs, strict=True)]
    for node, (_, nodes) in zip(net.nodes, found, strict=True):
        assert nodes == [node]
    for i, (arrays, _) in enumerate(found):
        for others, _ in found[:i]:
            assert not {k for k in set(arrays) & set(others) if arrays[k].dtype == np.float64}


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(UserError, match=r"head.W is embed.W, which lies in another stage; make it with tied=False"):
        cut.stages("tied", 2)
    cut.stages("tied", 1)
    with pytest.raises(UserError, match="4 blocks cannot be cut into 5 stages"):
        cut.stages("gpt2", 5)
    with pytest.raises(UserError, match=r"stage must lie in 0\.\.1"):
        Stage(gpt2(3, 2, 4, 2, 2, tied=False), cut.text(), stage=2, stages=2)
    with pytest.raises(UserError, match="20 rows cannot be cut into 30 micro-batches"):
        simulate(GPipe(0.1, 30), cut.stages("mlp", 2), 1)
    with pytest.raises(UserError, match="batch"):
        GPipe(0.1, 8, 4)
    with pytest.raises(UserError, match=r"a part of x wants an optimizer that acts number by number .* or segment"):
        PipeDreamFlush(0.1, optimizer=Anderson())
    assert GPipe(0.1, optimizer=AdamW()) == GPipe(0.1, optimizer=AdamW()) != PipeDreamFlush(0.1, optimizer=AdamW())
