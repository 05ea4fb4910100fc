"""The simulated network: nobody reads what is another's, bytes and seconds are closed forms, what is lost is lost."""

import gc
import types

from npopt.distributed import (
    DSGD,
    EXTRA,
    Algorithm,
    Clock,
    DataParallel,
    Faults,
    FedAvg,
    Federated,
    History,
    Node,
    Scaffold,
    complete,
    exponential,
    ring,
    simulate,
    star,
)
from npopt.distributed.simulation import Network
from npopt.errors import UserError
from problems.quadratic import Quadratic

import numpy as np
import pytest

D = 5
LINK = Clock(latency=0.25, bandwidth=80.0)  # 40 bytes, which are 5 numbers: half a second


def quadratics(count, d=D, rows=3, dtype=np.float64):
    rng = np.random.default_rng(3)
    found = []
    for k in range(count):
        A = rng.standard_normal((d, d))
        found.append(Quadratic(A @ A.T / d + np.eye(d), rng.standard_normal(d), rows, 0.3, seed=k, dtype=dtype))
    return found


def network(algorithm, problems, graph=None, clock=None, faults=None, seed=0):
    return Network(algorithm, problems, graph, clock or Clock(), faults or Faults(), seed)


# ---------------------------------------------------------------------------------------------------------- privacy
def reachable(*things):
    """({id of memory: array}, [nodes]) of all that code with these things in its hands can reach."""
    seen, stack, arrays, nodes = set(), list(things), {}, []
    while stack:
        thing = stack.pop()
        skip = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type, types.CodeType, str, int, float)
        if id(thing) in seen or isinstance(thing, skip):
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            memory = thing
            while isinstance(memory.base, np.ndarray):
                memory = memory.base
            arrays[id(memory)] = memory
        if isinstance(thing, Node):
            nodes.append(thing)
        stack.extend(gc.get_referents(thing))
    return arrays, nodes


@pytest.mark.parametrize("algorithm", [EXTRA(0.05), FedAvg(0.05, 3), Scaffold(0.05, 2), DataParallel(0.1, ring=True)])
def test_no_node_can_reach_another(algorithm):
    """From its code, its problem and its mailbox a node comes to no other node, and to no array that another has."""
    problems = quadratics(4)
    net = network(algorithm, problems, ring(4) if isinstance(algorithm, EXTRA) else None)
    for t in range(3):
        net.round(t)
    found = [reachable(node, program) for node, program in zip(net.nodes, net.programs, strict=True)]
    for node, (arrays, nodes) in zip(net.nodes, found, strict=True):
        assert nodes == [node] and arrays
    for i, (arrays, _) in enumerate(found):
        for others, _ in found[:i]:
            assert not set(arrays) & set(others)
    leak = reachable(net.nodes[0], net)  # the walk does see what is there
    assert len(leak[1]) == net.count


class Reuse(Algorithm):
    """Sends x, writes over it at once; the receiver writes over what came."""

    def node(self, me):
        x = np.full(2, float(me.rank))
        while True:
            me.send((me.rank + 1) % me.count, x)
            x[:] = -1
            came = yield me.receive((me.rank - 1) % me.count)
            assert came[0] == (me.rank - 1) % me.count, "the message is what was sent"
            came[:] = 99
            total = yield me.all_reduce(x)
            total[:] = me.rank
            mixed = yield me.gossip(x)
            np.testing.assert_array_equal(mixed, [-1, -1])
            mixed[:] = 50
            assert (x == -1).all() and (total == me.rank).all()
            x[:] = me.rank
            yield me.show(x)


def test_what_is_sent_is_a_copy():
    run = simulate(Reuse(), quadratics(4), 3, graph=complete(4))
    assert isinstance(run, History)
    np.testing.assert_array_equal(run.x, np.arange(4.0)[:, None] * np.ones(2))


# -------------------------------------------------------------------------------------------------- bytes, seconds
class Sum(Algorithm):
    def __init__(self, numbers=D, work=0.0):
        self.numbers, self.work = numbers, work

    def node(self, me):
        while True:
            me.work(self.work)
            yield me.show((yield me.all_reduce(np.full(self.numbers, 1.0 + me.rank))))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_flat_all_reduce(count):
    """Up: the server's link takes p - 1 messages one after another. Down: the last one leaves it as the (p - 1)-th."""
    run = simulate(Sum(), quadratics(count), 2, clock=LINK)
    assert all((x == count * (count + 1) / 2).all() for x in run.x)
    np.testing.assert_allclose(run.columns["bytes"], np.array([1, 2]) * 2 * (count - 1) * 40)
    np.testing.assert_allclose(run.columns["messages"], np.array([1, 2]) * 2 * (count - 1))
    np.testing.assert_allclose(run.columns["busiest"], np.array([1, 2]) * 2 * (count - 1) * 40)
    if count > 1:
        once = 2 * (0.25 + (count - 1) * 0.5)
        assert run.columns["seconds"][0] == pytest.approx(once)


@pytest.mark.parametrize("count, numbers", [(2, 6), (3, 7), (5, 5), (4, 2)])
def test_a_ring_all_reduce(count, numbers):
    """2 (p - 1) / p of the vector by each node, in 2 (p - 1) steps of a piece each; pieces may be empty."""
    problems = [Quadratic(np.ones(numbers), np.arange(1.0, numbers + 1) * (k + 1)) for k in range(count)]
    start = np.zeros(numbers)
    flat = simulate(DataParallel(0.5), problems, 2, start=start, clock=LINK)
    net = network(DataParallel(0.5, ring=True), problems, clock=LINK)
    for node in net.nodes:
        node._start[:] = 0
    shown = [net.round(t) for t in range(2)][-1]
    np.testing.assert_allclose(shown, flat.x, rtol=1e-14)
    assert sum(net.sent) == 2 * 2 * (count - 1) * 8 * numbers
    if numbers % count == 0:
        assert len(set(net.sent)) == 1 and net.sent[0] == 2 * 2 * (count - 1) * 8 * numbers // count
        step = 0.25 + 8 * numbers / count / 80
        np.testing.assert_allclose(net.now, 2 * 2 * (count - 1) * step)


@pytest.mark.parametrize("graph, seconds", [(ring(6), 2 * 0.5 + 0.25), (exponential(8), 3 * 0.5 + 0.25)])
def test_a_gossip(graph, seconds):
    run = simulate(DSGD(0.1), quadratics(graph.n), 3, graph=graph, clock=LINK)
    np.testing.assert_allclose(run.columns["seconds"], seconds * np.arange(1, 4))
    links = graph.degrees.sum()
    np.testing.assert_array_equal(run.columns["bytes"], 40 * links * np.arange(1, 4))
    np.testing.assert_array_equal(run.columns["messages"], links * np.arange(1, 4))


def test_in_a_star_the_hub_is_the_bottleneck():
    net = network(DSGD(0.1), quadratics(5), star(5), LINK)
    net.round(0)
    np.testing.assert_allclose(net.now, 4 * 0.5 + 0.25)
    assert net.sent == [160, 40, 40, 40, 40] and net.received == [160, 40, 40, 40, 40]


def test_a_server_hears_clients_one_by_one():
    """Down: client k's message leaves as the k-th. Up: they come in one by one. Gradients take a second a row."""
    net = network(FedAvg(0.1, steps=2), quadratics(3), clock=Clock(0.25, 80.0, row_seconds=1.0))
    net.round(0)
    down = np.arange(1, 4) * 0.5 + 0.25
    ready = down + 2 * 3 * 1.0
    arrivals = ready + 0.5 + 0.25
    np.testing.assert_allclose(net.now[1:], ready)
    assert net.now[0] == pytest.approx(arrivals[-1])
    assert net.sent == [120, 40, 40, 40]


def test_stragglers_hold_up_those_who_wait_for_them():
    clock = Clock(0.25, 80.0, stragglers=0.3, slowdown=7.0)
    net = network(Sum(work=2.0), quadratics(4), clock=clock)
    slow = [clock.factors(0, t, 4) for t in range(12)]
    assert {f for factors in slow for f in factors} == {1.0, 7.0}
    late = 0.0
    for t in range(12):
        before = np.array(net.now)
        net.round(t)
        assert min(net.now) >= (before + 2 * np.array(slow[t])).max()
        late += max(net.now) - before.max()
    plain = network(Sum(work=2.0), quadratics(4), clock=LINK)
    for t in range(12):
        plain.round(t)
    assert late > max(plain.now) + 3 * 12.0


def test_a_straggler_does_not_hold_up_who_has_patience():
    clock = Clock(0.0, 1e12, row_seconds=1.0, stragglers=0.5, slowdown=100.0)
    run = simulate(FedAvg(0.1, 1, patience=5.0), quadratics(4), 10, clock=clock)
    assert run.columns["seconds"][-1] == pytest.approx(50, rel=1e-6) or run.columns["seconds"][-1] < 50
    assert simulate(FedAvg(0.1, 1), quadratics(4), 10, clock=clock).columns["seconds"][-1] > 300


# ----------------------------------------------------------------------------------------------------------- faults
class Share(Algorithm):
    """Gossips its rank, and shows what came."""

    def node(self, me):
        while True:
            yield me.show((yield me.gossip(np.array([1.0 + me.rank]))))


@pytest.mark.parametrize("faults", [Faults(loss=0.3), Faults(away=0.4), Faults(deaths={2: 1, 0: 3})])
def test_in_a_gossip_ones_own_x_stands_for_what_is_lost(faults):
    graph, net = ring(5), network(Share(), quadratics(5), ring(5), faults=faults)
    message, missing = 0, 0
    for t in range(6):
        shown, absent = net.round(t), faults.absent(0, t, range(5))
        for i in range(5):  # messages are numbered by receiver, then by sender
            expected = 0.0
            for j in graph.hears(i):
                message += j != i
                lost = j != i and (i in absent or j in absent or faults.lost(0, message))
                missing += lost
                expected += graph.W[i, j] * (1 + (i if lost else j))
            assert shown[i][0] == pytest.approx(expected, rel=1e-14)
    assert missing > 3 and sum(net.sent) - sum(net.received) == 8 * missing


def test_the_share_of_lost_messages():
    lost = [Faults(loss=0.2).lost(5, k) for k in range(4000)]
    assert np.mean(lost) == pytest.approx(0.2, abs=4 * (0.16 / 4000) ** 0.5)
    away = [len(Faults(away=0.3).absent(5, t, range(50))) / 50 for t in range(200)]
    assert np.mean(away) == pytest.approx(0.3, abs=4 * (0.21 / 10_000) ** 0.5)


def test_an_all_reduce_sends_again_what_is_lost_and_cannot_do_without_a_node():
    run = simulate(Sum(), quadratics(4), 50, clock=LINK, faults=Faults(loss=0.25))
    assert all((x == 10).all() for x in run.x)
    sent = run.columns["messages"][-1]
    assert sent == pytest.approx(50 * 6 / 0.75, rel=0.1) and run.columns["bytes"][-1] == 40 * sent
    with pytest.raises(UserError, match="rank 3 is lost; an all-reduce"):
        simulate(Sum(), quadratics(4), 5, faults=Faults(deaths={3: 2}))


def test_a_server_with_patience_goes_on_without_the_lost():
    """The clients that answered are averaged, by their rows; a dead one is never heard again."""
    problems, lr = quadratics(3), 0.1
    faults, patience = Faults(deaths={2: 1}), 3.0
    run = simulate(FedAvg(lr, 1, patience=patience), problems, 4, faults=faults, start=np.ones(D), clock=LINK)
    x = np.ones(D)
    for t in range(4):
        alive = [p for k, p in enumerate(problems) if not (t >= 1 and k == 1)]
        g = np.zeros(D)
        x = x - lr * np.mean([p.value_and_gradient(x, out=g) * 0 + g for p in alive], axis=0)
    np.testing.assert_allclose(run.x[0], x, rtol=1e-12)
    with pytest.raises(UserError, match="round 1: nobody can go on .*rank 0 for 1, 2, 3"):
        simulate(FedAvg(lr, 1), problems, 4, faults=faults)


def test_equal_seeds_give_equal_runs():
    runs = [
        simulate(
            FedAvg(0.1, 2, batch=1, share=0.5, patience=1.0),
            quadratics(6),
            9,
            clock=Clock(1e-3, 1e6, 1e-2, 0.3, 4.0),
            faults=Faults(0.2, 0.2),
            seed=seed,
            start=np.ones(D),
        )
        for seed in (4, 4, 5)
    ]
    np.testing.assert_array_equal(runs[0].x, runs[1].x)
    for name, column in runs[0].columns.items():
        np.testing.assert_array_equal(column, runs[1].columns[name])
    assert (runs[0].x[0] != runs[2].x[0]).any()


# ----------------------------------------------------------------------------------------------------------- errors
class Wrong(Algorithm):
    def __init__(self, how):
        self.how = how

    def node(self, me):
        x = np.zeros(2 + (me.rank == 1) * (self.how == "shape"), np.float32 if self.how == "dtype" else float)
        if self.how == "self":
            me.send(me.rank, x)
        if self.how == "list":
            me.send(1 - min(me.rank, 1), [1, 2])
        if self.how == "mixed" and me.rank == 1:
            yield me.all_reduce(x)
        if self.how == "end":
            return
        if self.how == "deadlock":
            yield me.receive((me.rank + 1) % me.count)
        while True:
            yield me.gossip(x.astype(float) if me.rank else x)
            yield me.show(x)


@pytest.mark.parametrize(
    "how, sentence",
    [
        ("shape", r"gossip: rank 1 sent shape \(3,\) of float64, expected \(2,\) of float64"),
        ("dtype", r"gossip: rank 1 sent shape \(2,\) of float64, expected \(2,\) of float32"),
        ("self", "rank 0 cannot send to 0"),
        ("list", "a message holds arrays of .* got list"),
        ("mixed", "rank 1 is at all_reduce while others are at gossip"),
        ("end", "rank 0 ended in round 0"),
        ("deadlock", r"nobody can go on \(rank 0 for 1; rank 1 for 2; rank 2 for 0\)"),
    ],
)
def test_one_sentence_says_what_is_wrong(how, sentence):
    with pytest.raises(UserError, match=sentence):
        simulate(Wrong(how), quadratics(3), 2, graph=ring(3))


def test_arguments_are_checked():
    for make in (lambda: Clock(latency=-1), lambda: Clock(bandwidth=0), lambda: Faults(loss=1), lambda: Faults(away=2)):
        with pytest.raises(UserError):
            make()
    with pytest.raises(UserError, match="deaths"):
        Faults(deaths=[1])
    with pytest.raises(UserError, match="EXTRA: needs a graph with symmetric weights, got exponential"):
        simulate(EXTRA(0.1), quadratics(8), 1, graph=exponential(8))
    with pytest.raises(UserError, match="a graph of 4 nodes, and problems for 3"):
        simulate(DSGD(0.1), quadratics(3), 1, graph=ring(4))
    with pytest.raises(UserError, match="needs a graph, for example"):
        simulate(DSGD(0.1), quadratics(3), 1)
    with pytest.raises(UserError, match="defines no node"):
        simulate(Algorithm(), quadratics(2), 1)
    for role in ("server", "client"):
        with pytest.raises(UserError, match=f"defines no {role}"):
            getattr(Federated(), role)(None)


def test_ten_thousand_nodes():
    one = Quadratic(np.ones(2), np.ones(2))
    run = simulate(DSGD(0.5), [one] * 10_000, 2, graph=ring(10_000), start=np.zeros(2))
    np.testing.assert_allclose(run.x, 0.75)
    assert run.columns["bytes"][-1] == 2 * 10_000 * 2 * 16
