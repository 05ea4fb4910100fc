"""Phases: each is a run of minimize from the answer of the one before; kill and resume; patience."""

import os
import signal
import subprocess
import sys

import npopt
from npopt import EMA, SGD, Adam, Events, HeavyBall, Phase, RandomReshuffling, Stop, backend, checkpoint, in_phases
from npopt import minimize as plain
from npopt.errors import UserError
from npopt.phases import joined
from problems import Quadratic
from problems.unrolled import LISTA, LISTACP, SparseCodes, Unrolled, stages

import numpy as np
import pytest

FORM = LISTACP(3, 0.3)


def small(dtype="float64"):
    return Unrolled(FORM, SparseCodes(10, 20, 0.2), 8, held=30, dtype=dtype)


def test_a_run_in_phases_is_what_minimize_does_one_by_one():
    problem = small()
    phases = [
        Phase(Adam(0.8, 0.95), 2e-2, Stop(steps=5), names=("0.W", "0.theta"), depth=1),
        Phase(EMA(HeavyBall(0.5), 0.7), 1e-2, Stop(steps=4), depth=2),
        Phase(SGD(), 1e-2, Stop(steps=3), names=("layer1", "2.theta"), sampler=RandomReshuffling(3)),
    ]
    run = in_phases(problem, phases, seed=7, events=Events(2, "step"))
    x = problem.x0(None)
    for i, phase in enumerate(phases):
        part = problem if phase.depth is None else problem.upto(phase.depth)
        held = x.copy()
        if phase.names is not None:
            part = part.restrict(x, list(phase.names))
        one = plain(part, phase.optimizer, phase.sampler, phase.schedule, stop=phase.stop, events=Events(2, "step"),
                    seed=backend.key(7, "phase", i), x=x if phase.names is None else part.first)  # fmt: skip
        x = one.answer if phase.names is None else part.scatter(one.answer, held.copy())
        rows = [j for j, number in enumerate(run.columns["phase"]) if number == i]
        assert [run.columns["nmse"][j] for j in rows] == one.columns["nmse"]
        for segment in problem.segments:
            moves = phase.names is None or {segment.name, segment.block} & set(phase.names)
            moved = not np.array_equal(x[segment.slice], held[segment.slice])
            reached = phase.depth is None or int(segment.name[0]) < phase.depth
            assert moved == bool(moves and reached), (i, segment.name)
    np.testing.assert_array_equal(run.x, x)
    assert run.columns["step"] == [0, 2, 4, 5, 5, 7, 9, 9, 11, 12] and run.reason == "steps"
    assert run.final["gradients"] == 8 * 9 + 3 * 2 + 2 and len(run.config["phases"]) == 3


def test_a_segment_may_start_a_phase_as_a_copy():
    problem = small()
    phases = [
        Phase(SGD(), 0.1, Stop(steps=3), names=["layer0"], depth=1),
        Phase(SGD(), 0.1, Stop(steps=0), copies={"1.W": "0.W", "2.theta": "0.theta"}),
    ]
    run, views = in_phases(problem, phases), problem.views
    once = in_phases(problem, phases[:1])
    expected = once.x.copy()
    views(expected)["1.W"][...], views(expected)["2.theta"][...] = views(once.x)["0.W"], views(once.x)["0.theta"]
    np.testing.assert_array_equal(run.x, expected)
    assert not np.array_equal(views(run.x)["1.W"], views(once.x)["1.W"])


def test_warm_stages_start_a_layer_as_the_one_before_it():
    found = stages(LISTACP(3), 5, warm=True, fade=0.5)
    second, third = {"1.W": "0.W", "1.theta": "0.theta"}, {"2.W": "1.W", "2.theta": "1.theta"}
    assert [p.copies for p in found] == [None, None, None, second, None, None, third, None, None]
    assert found[6].schedule == found[0].schedule / 4
    free = stages(LISTA(3), 5, warm=True)
    assert [p.copies for p in free[3::3]] == [{"1.theta": "0.theta"}, {"2.V": "1.V", "2.theta": "1.theta"}]


def test_stages_are_those_of_the_authors():
    found = stages(LISTACP(2), (7, 8, 9), lr=1e-3, patience=4)
    assert [(p.names, p.depth, p.schedule, p.stop) for p in found] == [
        (names, depth, pytest.approx(1e-3 * factor), Stop(steps=steps, patience=("nmse", 4)))
        for names, depth, factor, steps in (
            (("0.W", "0.theta"), 1, 1, 7),
            (("0.W", "0.theta"), 1, 0.2, 8),
            (("0.W", "0.theta"), 1, 0.02, 9),
            (("1.W", "1.theta"), 2, 1, 7),
            (("0.W", "0.theta", "1.W", "1.theta"), 2, 0.2, 8),
            (("0.W", "0.theta", "1.W", "1.theta"), 2, 0.02, 9),
        )
    ]
    problem = small("float32")
    before = problem.nmse_by_layer(problem.x0(None))
    after = problem.nmse_by_layer(in_phases(problem, stages(FORM, 60, lr=1e-2), events=Events(None)).x)
    assert all(b < a - 1 for a, b in zip(before[1:], after[1:], strict=True)) and after == sorted(after, reverse=True)


class Cut(Exception):
    pass


@pytest.mark.parametrize("cut", [1, 4, 7, 12])
def test_a_run_that_is_cut_anywhere_resumes_bitwise(cut, tmp_path, monkeypatch):
    phases, path = stages(FORM, 3, lr=1e-2, warm=True, fade=0.8), tmp_path / "run.npz"
    events = dict(metrics=2, per="step", seconds=0)
    whole = in_phases(small("float32"), phases, seed=3, events=events)
    saves, real = [], checkpoint.save

    def save(*arguments):
        real(*arguments)
        saves.append(1)
        if len(saves) == cut:
            raise Cut

    with monkeypatch.context() as patched:
        patched.setattr("npopt.phases.checkpoint.save", save)
        with pytest.raises(Cut):
            in_phases(small("float32"), phases, seed=3, events={**events, "checkpoint": path})
    again = in_phases(small("float32"), phases, seed=3, events={**events, "checkpoint": path})
    np.testing.assert_array_equal(again.x, whole.x)
    for name, column in whole.columns.items():
        if name != "seconds":
            np.testing.assert_array_equal(column, again.columns[name], err_msg=name)
    third = in_phases(small("float32"), phases, seed=3, events={**events, "checkpoint": path})  # it is finished
    np.testing.assert_array_equal(third.x, whole.x)


KILLED = """
import sys
from npopt import Events, in_phases
from problems.unrolled import LISTACP, SparseCodes, Unrolled, stages

problem = Unrolled(LISTACP(3, 0.3), SparseCodes(10, 20, 0.2), 8, held=30)
events = Events(None, checkpoint=sys.argv[1], seconds=0, progress=lambda *a: print(a[0], flush=True))
in_phases(problem, stages(problem.form, 2000, lr=1e-2), seed=3, events=events)
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_from_its_checkpoint(tmp_path):
    path, root = tmp_path / "run.npz", os.path.dirname(os.path.dirname(npopt.__file__))
    command = [sys.executable, "-c", KILLED, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)
    for line in process.stdout:
        if float(line) > 0.5:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= checkpoint.load(path)["at"] < 9
    subprocess.run(command, check=True, cwd=root, stdout=subprocess.DEVNULL)
    whole = in_phases(small("float32"), stages(FORM, 2000, lr=1e-2), seed=3, events=Events(None))
    np.testing.assert_array_equal(checkpoint.load(path)["loop"]["x"], np.concatenate([whole.x]))


def test_another_runs_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    events = dict(metrics=None, checkpoint=path)
    in_phases(small(), stages(FORM, 2), events=events)
    with pytest.raises(checkpoint.Foreign, match="other phases, seed or start"):
        in_phases(small(), stages(FORM, 3), events=events)
    with pytest.raises(checkpoint.Foreign, match="other phases, seed or start"):
        in_phases(small(), stages(FORM, 2), seed=1, events=events)
    plain(Quadratic([1.0, 2.0]), SGD(), stop=dict(steps=1), events=dict(checkpoint=tmp_path / "other.npz"))
    with pytest.raises(checkpoint.Damaged, match="no checkpoint of phases"):
        in_phases(small(), stages(FORM, 2), events=dict(checkpoint=tmp_path / "other.npz"))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_phase_that_diverges_ends_the_run():
    problem = Quadratic([1.0, 2.0])
    run = in_phases(problem, [Phase(SGD(), 1e200, Stop(steps=5)), Phase(SGD(), 0.1)], x=np.array([1.0, -1.0]))
    assert run.diverged and set(run.columns["phase"]) == {0}


def test_columns_go_on_counting():
    one = {"step": [0, 2], "loss": [0.5, 0.4], "gradients": [0, 8]}
    two = joined(joined({}, one, 0), {"step": [0, 1], "gradients": [0, 4], "more": [7, 8]}, 1)
    assert two["step"] == [0, 2, 2, 3] and two["gradients"] == [0, 8, 8, 12] and two["phase"] == [0, 0, 1, 1]
    np.testing.assert_array_equal(two["loss"], [0.5, 0.4, np.nan, np.nan])
    np.testing.assert_array_equal(two["more"], [np.nan, np.nan, 7, 8])


@pytest.mark.parametrize(
    "wrong, says",
    [
        (lambda: in_phases(small(), []), "a list of one Phase or more"),
        (lambda: in_phases(small(), [SGD()]), "a list of one Phase or more"),
        (lambda: in_phases(Quadratic([1.0]), [Phase(SGD(), depth=2)]), "has no layers to look at"),
        (lambda: in_phases(small(), [Phase(SGD(), names=["W9"])]), "no segment or block is named W9"),
        (lambda: in_phases(small(), [Phase(SGD(), copies={"1.W": "0.theta"})]), "have different shapes"),
        (lambda: in_phases(small(), [Phase("SGD")]), "optimizer must be a value"),
        (lambda: stages(FORM, (1, 2)), "steps must be a number or 3 of them"),
        (lambda: Stop(patience=5), "patience must be"),
        (lambda: Stop(patience=("nmse", 0)), "rows of patience must be a whole number"),
        (lambda: plain(small(), SGD(), stop=Stop(patience=("error", 3))), "the patience's column 'error' is not"),
    ],
)
def test_wrong_arguments(wrong, says):
    with pytest.raises(UserError, match=says):
        wrong()


def test_patience_ends_where_the_best_row_is_so_old(tmp_path):
    problem = Quadratic([1.0, 3.0])
    stop, path = Stop(steps=60, patience=("gap", 4)), tmp_path / "run.npz"
    shared = dict(x=np.array([1.0, 1.0]), events=Events(2, "step", checkpoint=path))
    run = plain(problem, HeavyBall(0.9), RandomReshuffling(None), 0.4, stop=stop, **shared)
    gaps = run.columns["gap"]
    assert run.reason == "patience" and np.argmin(gaps) == len(gaps) - 5
    assert all(np.argmin(gaps[: k + 1]) > k - 4 for k in range(len(gaps) - 1))  # it had not waited so long before
    again = plain(problem, HeavyBall(0.9), RandomReshuffling(None), 0.4, stop=stop, **shared)
    assert again.reason == "patience" and again.columns["gap"] == gaps and again.columns["step"] == run.columns["step"]
    more = plain(problem, HeavyBall(0.9), RandomReshuffling(None), 0.4, stop=Stop(steps=60), **shared)
    assert more.final["step"] == 60
