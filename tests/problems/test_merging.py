"""ReLoRA: adapters are merged in mid-run; the loop written out, breaks, phases, moments."""

import nn
from nn.adapters import free
from nn.language import llama
from npopt import (
    Adam,
    Events,
    HeavyBall,
    JaggedCosine,
    Phase,
    RandomReshuffling,
    ReLoRA,
    Stop,
    backend,
    checkpoint,
    in_phases,
    minimize,
)
from npopt.optimizers.relora import thin
from problems import Neural
from problems.tokens import Windows

import numpy as np
import pytest

TEXT = np.random.default_rng(0).integers(0, 11, 400)
SAMPLER = RandomReshuffling(4)


def problem():
    network = nn.adapted(llama(11, 6, 8, 1, 2, 12), nn.LoRA, rank=2, alpha=3.0)
    return Neural(network, Windows(TEXT, 6), dtype="float64", metrics_rows=8)


def restricted(whole=None):
    whole = problem() if whole is None else whole
    return whole.restrict(whole.x0(backend.generator(0, "x0")), free(whole.network))


def test_a_run_is_the_loop_written_out():
    """Gradients of the network, Adam and the restarts by hand, step by step."""
    part, schedule = restricted(), JaggedCosine(0.02, 5, 2, length=14)
    run = minimize(part, ReLoRA(Adam(0.7, 0.9, 1e-2), 5, 0.0), SAMPLER, schedule, stop=Stop(steps=14), seed=3)
    other = problem()
    x, table = other.x0(backend.generator(0, "x0")), other.segments
    moving = np.concatenate([np.full(s.size, s.name in free(other.network)) for s in table])
    sampler, g, m, v = RandomReshuffling(4), np.empty(other.dim), 0.0, 0.0
    other.set_seed(3)
    sampler.start(other, 3)
    schedule.start(100, 14)
    for t, batch in enumerate(sampler.take(14)):
        other.begin(t)
        other.value_and_gradient(x, batch.rows, out=g)
        m, v = 0.7 * m + 0.3 * g, 0.9 * v + 0.1 * g**2
        step = m / (1 - 0.7 ** (t + 1)) / (np.sqrt(v / (1 - 0.9 ** (t + 1))) + 1e-2)
        x = x - np.where(moving, schedule(t) * step, 0)
        if (t + 1) % 5 == 0:
            for s in table:
                if s.name.endswith(".A"):
                    W, A, B = (table.view(x, s.name[:-1] + name) for name in "WAB")
                    W += 1.5 * B @ A
                    key = backend.key(backend.key(3, "ReLoRA", t + 1), f"restart {s.name[:-2]}")
                    u = backend.row_uniform(key, None, np.empty(A.shape))
                    A[...], B[...] = (2 * u - 1) / np.sqrt(A.shape[1]), 0
                    for name in "AB":
                        for moment in (m, v):
                            table.view(moment, s.name[:-1] + name)[...] = 0
    np.testing.assert_allclose(run.x, x[moving], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(part.place(run.x), x, rtol=1e-8, atol=1e-10)


def test_merging_changes_no_value_and_may_raise_the_rank():
    part = restricted()
    first, y = part.whole.copy(), part.first.copy()
    rng, rows = np.random.default_rng(1), np.arange(8)
    for k in (1, 2, 3):
        y += 0.3 * rng.standard_normal(part.dim)
        before = part.value(y, rows)
        names = part.merge(y, k)
        assert part.value(y, rows) == pytest.approx(before, rel=1e-10)
        assert len(names) == 14 and not part.segments.view(y, names[1]).any()
        change = part.whole - first
        W = "layer1.attention.query.W"
        assert np.linalg.matrix_rank(part.problem.segments.view(change, W), tol=1e-9) == 2 * k
    with pytest.raises(ValueError, match="its adapters were merged"):
        minimize(part, Adam(), SAMPLER, stop=Stop(steps=1))


@pytest.mark.parametrize("by", ReLoRA.WAYS)
def test_two_halves_of_a_run_that_merges_are_the_whole(by, tmp_path):
    def run(steps, path):
        part = restricted()
        found = minimize(part, ReLoRA(Adam(), 4, 0.2, by), SAMPLER, JaggedCosine(0.02, 4, 2, length=11), seed=2,
                         stop=Stop(steps=steps), events=Events(None, checkpoint=tmp_path / path))  # fmt: skip
        return found, part.place(found.x).copy()

    whole, ended = run(11, "whole.npz")
    for steps in (3, 6, 11):
        rest, there = run(steps, "parts.npz")
    np.testing.assert_array_equal(rest.x, whole.x)
    np.testing.assert_array_equal(there, ended)
    assert "held" in checkpoint.load(tmp_path / "parts.npz")["problem"]


def test_phases_go_on_with_what_was_merged(tmp_path):
    """A full-rank warm start, then ReLoRA, then all again; broken anywhere it is the whole, W with it."""
    base = [name for name in problem().segments.names if name.rsplit(".", 1)[1] not in "AB"]

    def run(path=None, **events):
        phases = [
            Phase(Adam(), 0.01, Stop(steps=3), base, sampler=SAMPLER),
            Phase(ReLoRA(HeavyBall(0.5), 2), 0.01, Stop(steps=5), free(problem().network), sampler=SAMPLER),
            Phase(Adam(), 0.01, Stop(steps=4), base, sampler=SAMPLER),
        ]
        return in_phases(problem(), phases, seed=1, events=Events(1, "step", checkpoint=path, **events))

    whole = run()
    segments = problem().segments
    x0 = problem().x0(backend.generator(1, "x0"))
    W = "layer1.attention.query.W"
    assert (segments.view(whole.x, W) != segments.view(x0, W)).all()
    losses = whole.columns["train_loss"]
    assert losses[9] == pytest.approx(losses[10], rel=1e-6)  # the phase before handed on its W and its adapters
    stopped = []

    class Enough(Exception):
        pass

    def progress(fraction, epoch, loss):
        stopped.append(fraction)
        if len(stopped) == 7:
            raise Enough

    path = tmp_path / "c.npz"
    with pytest.raises(Enough):
        run(path, seconds=0, progress=progress)
    np.testing.assert_array_equal(run(path).x, whole.x)


def test_moments_are_thinned_by_magnitude_or_at_random(rng, device):
    v = rng.standard_normal(1000)
    there = backend.asarray(v.copy())
    thin(there, 0.03, "magnitude", 1)
    kept = backend.to_host(there)
    assert (kept != 0).sum() == 30
    np.testing.assert_array_equal(kept[kept != 0], v[kept != 0])
    assert np.abs(kept[kept != 0]).min() > np.abs(v[kept == 0]).max()
    there = backend.asarray(v.copy())
    thin(there, 0.3, "random", 1)
    kept = backend.to_host(there)
    assert 250 < (kept != 0).sum() < 350 and abs(np.abs(kept[kept != 0]).mean() - np.abs(v).mean()) < 0.1
    for keep, count in ((0.0, 0), (1.0, 1000)):
        for by in ReLoRA.WAYS:
            there = backend.asarray(v.copy())
            thin(there, keep, by, 2)
            assert (backend.to_host(there) != 0).sum() == count


def test_training_with_restarts_where_nothing_may_be_read():
    found = {}
    for device in ("cpu", "strict"):
        backend.use(device)
        part = restricted()
        run = minimize(part, ReLoRA(Adam(), 3, 0.2), SAMPLER, 0.01, stop=Stop(steps=7), events=Events(None))
        found[device] = backend.to_host(run.x)
    np.testing.assert_allclose(found["strict"], found["cpu"], rtol=1e-7, atol=1e-9)


def test_what_is_refused():
    for wrong, message in (
        (lambda: ReLoRA(by="size"), "ReLoRA: by must be one of magnitude, random"),
        (lambda: ReLoRA(keep=2), "ReLoRA: keep must lie in"),
        (
            lambda: minimize(problem(), ReLoRA(), SAMPLER, stop=Stop(steps=1)),
            "ReLoRA: the problem has nothing to merge",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
