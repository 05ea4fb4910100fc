"""Runs that are broken off and go on: the bits of a run without a break, simulated and on ranks (here threads)."""

from npopt import checkpoint
from npopt.distributed import EXTRA, Algorithm, Clock, DataParallel, Faults, FedAvg, ring, simulate
from npopt.distributed.ranks import on_ranks
from npopt.errors import UserError

import numpy as np
import pytest
import rank_program
from test_ranks import COUNTED, Threads, together

ROUNDS, BREAK, COUNT = 9, 6, 4
CASES = rank_program.CASES


class Broken(Exception):
    pass


def breaking(at):
    """An observe that counts rounds, and raises in round `at`."""
    seen = []

    def observe(shown):
        seen.append(1)
        if len(seen) == at:
            raise Broken
        return {"first": float(shown[0][0])}

    return observe


def simulated(name, **more):
    algorithm, graph = CASES[name]
    problems = [rank_program.problem(k) for k in range(COUNT - algorithm.federated)]
    clock = Clock(1e-3, 1e6, 1e-3, stragglers=0.3, slowdown=5.0)
    some = dict(graph=graph and graph(COUNT), seed=rank_program.SEED, clock=clock) | more
    return simulate(algorithm, problems, ROUNDS, **some)


def same(found, expected, names=None):
    np.testing.assert_array_equal(found.x, expected.x)
    for name in names or expected.columns:
        np.testing.assert_array_equal(found.columns[name], expected.columns[name])


@pytest.mark.parametrize("name", CASES)
def test_a_simulation_goes_on(name, tmp_path):
    file, expected = tmp_path / "run.npz", simulated(name, observe=breaking(0))
    with pytest.raises(Broken):
        simulated(name, observe=breaking(BREAK), checkpoint=file, seconds=0)
    assert checkpoint.load(file)["t"] == BREAK - 1
    seen = breaking(ROUNDS - BREAK + 2)  # it must not begin again
    same(simulated(name, observe=seen, checkpoint=file, seconds=0), expected)
    same(simulated(name, observe=breaking(1), checkpoint=file), expected)  # all is there: nothing is run


@pytest.mark.parametrize("name", CASES)
def test_ranks_go_on(name, tmp_path):
    file, expected = tmp_path / "run.npz", simulated(name, observe=breaking(0))

    def part(wires, at):
        algorithm, graph = CASES[name]
        first = int(algorithm.federated)
        own = rank_program.problem(wires.rank - first) if wires.rank >= first else None
        some = dict(graph=graph and graph(COUNT), seed=rank_program.SEED, wires=wires, checkpoint=file, seconds=0)
        return on_ranks(algorithm, own, ROUNDS, observe=breaking(at), **some)

    found = together(COUNT, lambda wires: part(wires, BREAK))
    assert isinstance(found[0], Broken) and checkpoint.load(file)["t"] == BREAK - 1
    for at in (ROUNDS - BREAK + 2, 1):
        found = together(COUNT, lambda wires, at=at: part(wires, at))
        assert not [f for f in found if isinstance(f, Exception)], found
        same(found[0], expected, (*COUNTED, "first"))
        for rank in range(1, COUNT):
            if not CASES[name][0].federated:
                np.testing.assert_array_equal(found[rank].x[0], expected.x[rank])


class Halves(FedAvg):
    """The server hears every other client in a round; what the others sent waits."""

    def server(self, me):
        x, t = me.state(me.start(), 0)
        while True:
            me.broadcast(x)
            answers = yield me.receive_from(me.clients[t % 2 :: 2], self.patience)
            x = x + sum(change for change in answers if change is not None) / 4
            t += 1
            yield me.show(x, t)


@pytest.mark.parametrize("kind", [FedAvg, Halves])
def test_faults_and_what_is_under_way_go_on(kind, tmp_path):
    """Messages have numbers, by which they are lost; some wait in the server's box between two rounds."""
    some = dict(clock=Clock(1e-3, 1e4, 1e-2, 0.3, 40.0), faults=Faults(0.1, 0.1), seed=3, start=np.ones(6))
    problems = [rank_program.problem(k) for k in range(5)]
    algorithm, file = kind(0.05, 2, batch=1, patience=0.1), tmp_path / "run.npz"
    expected, waiting = simulate(algorithm, problems, 30, **some), 0
    for at in range(2, 30, 4):
        file.unlink(missing_ok=True)
        with pytest.raises(Broken):
            simulate(algorithm, problems, 30, observe=breaking(at), checkpoint=file, seconds=0, **some)
        waiting += len(checkpoint.load(file)["links"]["boxes"])
        same(simulate(algorithm, problems, 30, checkpoint=file, **some), expected)
    assert (waiting > 0) == (kind is Halves)


def test_ranks_refuse_to_save_while_a_message_is_under_way(tmp_path, capsys):
    def part(wires):
        own = rank_program.problem(wires.rank) if wires.rank else None
        some = dict(wires=wires, checkpoint=tmp_path / "run.npz", seconds=0)
        return on_ranks(Halves(0.05, 2), own, 5, **some)

    found = together(3, part)
    assert isinstance(found[0], UserError) and not (tmp_path / "run.npz").exists()
    assert "npopt: rank 0: round 1: a message is under way" in capsys.readouterr().err


def test_another_run_is_refused(tmp_path):
    file, problems = tmp_path / "run.npz", [rank_program.problem(k) for k in range(3)]

    def run(algorithm=None, problems=problems, **more):
        return simulate(
            algorithm or EXTRA(0.1), problems, 3, graph=ring(3), checkpoint=file, **(dict(seconds=0) | more)
        )

    run()
    others = {
        "algorithm": dict(algorithm=EXTRA(0.2)),
        "seed": dict(seed=1),
        "clock": dict(clock=Clock(1.0)),
        "every": dict(every=2),
        "code, problems or start": dict(problems=[*problems[:2], rank_program.problem(7)]),
    }
    for word, other in others.items():
        with pytest.raises(checkpoint.Foreign, match=f"checkpoint of another run .other {word}"):
            run(**other)
    with pytest.raises(checkpoint.Foreign, match="start"):
        run(start=np.ones(6))
    checkpoint.save(file, {"t": 3})
    with pytest.raises(checkpoint.Damaged, match="no checkpoint of nodes"):
        run()
    file.write_bytes(b"half")
    with pytest.raises(checkpoint.Damaged, match="not a whole checkpoint"):
        run()
    with pytest.raises(UserError, match="seconds must lie"):
        run(seconds=-1)


class Forgetful(Algorithm):
    def __init__(self, how):
        self.how = how

    def node(self, me):
        x = me.start()
        if self.how == "less":
            x, _ = me.state(x, x)
        while True:
            yield me.show((yield me.all_reduce(x)))


def test_who_does_not_say_what_lasts_cannot_be_saved(tmp_path):
    problems = [rank_program.problem(k) for k in range(2)]
    with pytest.raises(UserError, match="needs nodes that say by me.state"):
        simulate(Forgetful("none"), problems, 2, checkpoint=tmp_path / "run.npz", seconds=0)
    assert not (tmp_path / "run.npz").exists()
    with pytest.raises(UserError, match="rank 0 keeps 1 values, and began with 2"):
        simulate(Forgetful("less"), problems, 2)
    assert simulate(Forgetful("none"), problems, 2).columns["round"][-1] == 2  # without a file it need not be said


def test_ctrl_c_saves_and_is_raised(tmp_path):
    """The round at hand is finished first."""
    import signal

    file, problems = tmp_path / "run.npz", [rank_program.problem(k) for k in range(2)]

    def observe(shown, rounds=[]):  # noqa: B006
        rounds.append(1)
        if len(rounds) == 4:
            signal.raise_signal(signal.SIGINT)
        return {}

    some = dict(seed=2, checkpoint=file)
    with pytest.raises(KeyboardInterrupt):
        simulate(DataParallel(0.1, batch=1), problems, 8, observe=observe, **some)
    assert checkpoint.load(file)["t"] == 4
    same(
        simulate(DataParallel(0.1, batch=1), problems, 8, **some),
        simulate(DataParallel(0.1, batch=1), problems, 8, seed=2),
    )


def test_one_rank_alone_goes_on(tmp_path):
    some = dict(graph=ring(1), checkpoint=tmp_path / "run.npz", seconds=0, wires=Threads(0, {}, 1))
    with pytest.raises(Broken):
        on_ranks(EXTRA(0.1), rank_program.problem(0), 5, observe=breaking(3), **some)
    run = on_ranks(EXTRA(0.1), rank_program.problem(0), 5, **some)
    same(run, simulate(EXTRA(0.1), [rank_program.problem(0)], 5, graph=ring(1)), COUNTED)
