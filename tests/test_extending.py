"""Every example of docs/extending.txt runs as it stands, and does what it says."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import nn
from npopt import SGD, Minibatch, RandomReshuffling, backend, minimize
from problems import LeastSquares, Neural, datasets
from problems.attacks import FGSM, attacked
from problems.feeds import Images, Table

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "extending.txt").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in re.split(r"\n\n\n", TEXT)[1:]}


def code(title):
    """The indented lines of a section."""
    return "\n".join(line[4:] for line in SECTIONS[title].splitlines() if line.startswith("    ") or not line.strip())


def load(title, tmp_path):
    path = tmp_path / (title.replace(" ", "_") + ".py")
    path.write_text(code(title))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_one_of_each_kind():
    kinds = ["An optimizer", "An estimator", "A sampler", "A layer", "A loss", "An attack"]
    kinds += ["An algorithm of many nodes", "A data set", "A script"]
    assert list(SECTIONS) == kinds
    for path in re.findall(r"\b[\w/]+\.(?:py|txt)\b", TEXT):
        assert (ROOT / path).exists() or "NAME" in path or path in ("my_script.py", "__init__.py"), path


def problem(n=40, d=5):
    rng = np.random.default_rng(1)
    return LeastSquares(rng.standard_normal((n, d)), rng.standard_normal(n), 0.1)


def test_the_optimizer(tmp_path, rng, device):
    method = load("An optimizer", tmp_path).Centred(0.7, 1e-2)
    x, m, v, y = np.ones(6), 0, 0, np.ones(6)
    there = backend.asarray(x)
    method.start(there)
    for _ in range(8):
        g = rng.standard_normal(6)
        method.step(there, backend.asarray(g), 0.1)
        m, v = 0.7 * m + 0.3 * g, 0.7 * v + 0.3 * g**2
        y = y - 0.1 * g / (np.sqrt(np.maximum(v - m**2, 0)) + 1e-2)
    np.testing.assert_allclose(backend.to_host(there), y, rtol=1e-11)


def test_the_estimator(tmp_path):
    Noisy = load("An estimator", tmp_path).Noisy
    quiet, loud = (
        minimize(problem(), SGD(), RandomReshuffling(8), 0.05, estimator, seed=3)
        for estimator in (Minibatch(), Noisy(0.3))
    )
    same = minimize(problem(), SGD(), RandomReshuffling(8), 0.05, Noisy(0.3), seed=3)
    assert not np.array_equal(quiet.x, loud.x) and np.array_equal(same.x, loud.x)
    draws, p = [], problem()
    for t in range(400):
        p.begin(t)
        g = Noisy(0.5).start(p, np.zeros(5), 0)
        estimator = Noisy(0.5)
        estimator.start(p, np.zeros(5), 0)
        estimator(np.zeros(5), type("B", (), {"rows": None, "weights": None})(), g)
        draws.append(g.copy())
    exact = np.empty(5)
    p.value_and_gradient(np.zeros(5), out=exact)
    np.testing.assert_allclose(np.mean(draws, 0), exact, atol=5 * 0.5 / 20)  # five standard errors
    np.testing.assert_allclose(np.std(draws, 0), 0.5, rtol=0.2)


def test_the_sampler(tmp_path):
    sampler = load("A sampler", tmp_path).Sweep(8)
    sampler.start(problem(), 5)
    for e in range(3):
        order, _ = sampler.epoch(e)
        assert sorted(order) == list(range(40)) and set(np.diff(order) % 40) == {39 if e % 2 else 1}
    assert minimize(problem(), SGD(), sampler.__class__(8), 0.05).reason == "epochs"


@pytest.mark.parametrize("path", ["fast", "reference"])
def test_the_layer(path, tmp_path, capsys):
    nn.kernels.use(path)
    try:
        module = load("A layer", tmp_path)
        assert "inputs" in capsys.readouterr().out
        network = nn.Network(nn.Sequential(nn.Linear(3, 5), module.Softsign(5), nn.Linear(5, 2)), (3,))
        assert nn.gradcheck_layer(network, (3,)).ok
    finally:
        nn.kernels.use("fast")


def test_the_loss(tmp_path, rng):
    loss = load("A loss", tmp_path).LogCosh()
    z, t, d = rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), rng.standard_normal((4, 3))
    np.testing.assert_allclose(loss.rows(z, t), np.log(np.cosh(z - t)).sum(1), rtol=1e-12)
    w, h = rng.random(4), 1e-6
    _, dz = loss.value_and_gradient(z, t, w)
    numeric = (loss.value(z + h * d, t, w) - loss.value(z - h * d, t, w)) / (2 * h)
    assert numeric == pytest.approx((dz * d).sum(), rel=1e-7)
    data = type("D", (), {"name": "rows", "x_train": z, "y_train": t, "x_test": None, "y_test": None})
    assert minimize(Neural(nn.mlp((3, 8, 3)), Table(data), loss), SGD(), RandomReshuffling(2), 0.1).reason == "epochs"


def test_the_attack(tmp_path, rng):
    Blind = load("An attack", tmp_path).Blind
    p = Neural(nn.mlp((64, 16, 10)), Images(datasets.load("digits").part(300)))
    x = minimize(p, SGD(), RandomReshuffling(20), 0.1, stop=dict(epochs=10), seed=1).x
    blind, more, fgsm = (
        attacked(p, x, a, rows=range(80), keep=True) for a in (Blind(0.1, 3), Blind(0.1, 9), FGSM(0.1))
    )
    assert blind.right.mean() >= blind.robust.mean() >= more.robust.mean() > fgsm.robust.mean()
    assert not (more.robust & ~blind.robust).any() and 0 < abs(more.delta).max() <= 0.1 + 1e-6


def test_the_algorithm_of_many_nodes(tmp_path):
    """Against a slow loop; a trivial W would leave each node at its own minimum, k."""
    module = load("An algorithm of many nodes", tmp_path)
    W, x, m = module.ring(8).W.toarray(), np.zeros((8, 3)), 0
    for _ in range(30):
        m = 0.7 * m + x - np.arange(8.0)[:, None]
        x = W @ x - 0.02 * m
    some = dict(rounds=30, graph=module.ring(8), start=np.zeros(3))
    run = module.simulate(module.GossipMomentum(0.02, 0.7), module.problems, **some)
    np.testing.assert_allclose(run.x, x, rtol=1e-12)
    assert np.ptp(x) < 3 and module.run.columns["bytes"][-1] == 500 * 16 * 24
    assert abs(np.mean(module.run.x) - 3.5) < 1e-3


def test_the_data_set(tmp_path):
    module = load("A data set", tmp_path)
    run = minimize(module.network, SGD(), RandomReshuffling(10), 0.5, stop=dict(epochs=30), seed=0)
    assert run.final["test_accuracy"] > 0.85
    run = minimize(module.linear, SGD(), RandomReshuffling(10), 0.1, stop=dict(epochs=3), seed=0)
    assert run.final["test_accuracy"] < 0.7  # no line separates opposite corners


def test_the_script(tmp_path):
    path = tmp_path / "my_script.py"
    path.write_text(code("A script"))
    done = subprocess.run(
        [sys.executable, str(path), "--quick", "--jobs", "1", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "out" / "my_script" / "summary.json").read_text())
    assert len(summary["runs"]) == 6 and (tmp_path / "out" / "my_script" / "gaps.png").exists()
