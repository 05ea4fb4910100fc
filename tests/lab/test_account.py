"""The account of memory: what is counted is what is measured, and both are what definitions say."""

import re
import subprocess
import sys
from pathlib import Path

from lab.account import KINDS, Meter, account_of, bytes_of
from npopt import SGD, Adam, AdamW, BlockGradient, Blockwise, Layerwise, MeZO, RandomReshuffling, backend
from problems.language import gpt

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SIZE = dict(data="chain", length=64, features=128, layers=4, heads=4, held=500)


def model():
    return gpt(**SIZE)


def account(optimizer, estimator=None):
    return account_of(model, optimizer, RandomReshuffling(8), estimator, 1e-4)


@pytest.fixture(scope="module")
def found():
    blocks = [name for name in model().segments.blocks if not name.startswith("layer")]
    methods = {
        "SGD": (SGD(), None),
        "Adam": (Adam(), None),
        "layerwise": (AdamW(), Layerwise()),
        **{
            f"layer{i}": (
                Blockwise(Adam()),
                BlockGradient(100, "ascending", never=[*blocks, *(f"layer{j}" for j in range(1, 5) if j != i)]),
            )
            for i in (1, 4)
        },
        "LISA": (Blockwise(Adam()), BlockGradient(100, "uniform", 1, ["embed"], ["positions", "norm"])),
        "MeZO": (SGD(), MeZO()),
    }
    return {name: account(*method) for name, method in methods.items()}


def test_counted_is_measured_within_five_per_cent(found):
    for name, one in found.items():
        for kind in KINDS[:-1]:
            counted, measured = one.counted[kind], one.measured[kind]
            assert measured == pytest.approx(counted, rel=0.05, abs=100_000), (name, kind)
        assert sum(one.measured.values()) > 0 and one.counted["workspace"] is None


def test_counts_are_those_of_the_definitions(found):
    problem = model()
    sizes = {block: 4 * sum(s.size for s in problem.segments if s.block == block) for block in problem.segments.blocks}
    whole, layer = 4 * problem.dim, sizes["layer1"]
    for name, states in (("SGD", 0), ("Adam", 2 * whole), ("layerwise", 2 * whole), ("layer1", 2 * layer), ("MeZO", 0)):
        assert found[name].counted["weights"] == whole
        assert found[name].counted["states"] == pytest.approx(states, abs=200), name
    assert found["LISA"].counted["states"] == pytest.approx(2 * (layer + sizes["embed"]), abs=200)
    for name in ("SGD", "Adam"):
        assert found[name].counted["gradients"] == pytest.approx(whole, abs=500)  # and the batch's rows
    assert found["layerwise"].counted["gradients"] < whole / 4 and found["MeZO"].counted["gradients"] < 500
    kept = {name: one.counted["activations"] for name, one in found.items()}
    assert kept["SGD"] == kept["Adam"] == kept["layerwise"] and kept["LISA"] == pytest.approx(kept["Adam"], rel=0.02)
    assert kept["layer4"] < 0.6 * kept["layer1"] < 0.62 * kept["Adam"] and kept["MeZO"] == 0


def test_the_highest_point_falls_as_theory_says(found):
    """AdamW: 16 bytes a parameter; in pieces 12; MeZO 4, and what one layer needs."""
    top = {name: sum(one.measured.values()) for name, one in found.items()}
    dim = model().dim
    assert top["Adam"] - top["layerwise"] == pytest.approx(4 * dim, rel=0.35)
    assert top["layer4"] < top["layer1"] < top["layerwise"] < top["Adam"]
    assert top["MeZO"] < top["SGD"] < top["Adam"]


def test_the_meter_counts_what_is_lent_and_not_what_the_pool_holds():
    with Meter() as meter:
        a = backend.empty((1 << 20,), "float32")
        assert meter.now() == pytest.approx(1 << 22, rel=0.02)
        del a
        assert abs(meter.now()) < 1 << 16 and meter.most >= 1 << 22
        meter.forget()
        b = np.ones(1 << 18)
        meter.look()
        assert meter.most == pytest.approx(b.nbytes, rel=0.05)


def test_shared_memory_counts_once():
    a = np.zeros(1000)
    assert bytes_of(a, [a[:10], (a.reshape(10, 100),)], {"b": np.zeros(5, np.uint8)}, 3, None) == 8005


def test_memory_prints_a_table_for_each_method(tmp_path):
    words = [sys.executable, SCRIPTS / "adam_mini.py", "--memory", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^  activations +[\d.,]+ MB +[\d.,]+ MB$", done.stdout, re.M)) >= 2
    assert not list(tmp_path.iterdir())
