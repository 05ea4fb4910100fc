"""The profile: every layer once, own times only, and nothing left behind."""

import types

import nn
from nn.layer import Layer

import numpy as np
import pytest

TICK = 1e-5


class Clock:
    """Advances by a tick whenever it is read, and by what is asked of it: the times below are exact."""

    now = 0.0

    def perf_counter(self):
        self.now += TICK
        return self.now


class Slow(nn.Tanh):
    """Takes 4 ms forward and 8 ms backward, by the clock above."""

    clock = None

    def forward(self, x, run):
        self.clock.now += 0.004
        return super().forward(x, run)

    def backward(self, dy, saved, run):
        self.clock.now += 0.008
        return super().backward(dy, saved, run)


def test_times_are_each_layers_own(rng, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("nn.profile.time", types.SimpleNamespace(perf_counter=clock.perf_counter))
    monkeypatch.setattr(Slow, "clock", clock)
    network = nn.Network(
        nn.Sequential(fc=nn.Linear(3, 3), inner=nn.Residual(nn.Sequential(slow=Slow(), fc=nn.Linear(3, 3)))),
        (3,),
        "small",
    )
    x, a = rng.standard_normal(network.dim), rng.standard_normal((2, 3))
    run, g = nn.Run(dx=True), np.empty(network.dim)
    before = {kind: dict(vars(kind)) for kind in (nn.Network, nn.Linear, Layer, Slow)}

    def step():
        network.bind(x, g)
        y, saved = network.forward(a, run)
        return network.backward(np.cos(y), saved, run)

    plain = step().copy()
    with nn.Profile() as profile:
        for _ in range(3):
            same = step()
    np.testing.assert_array_equal(plain, same)
    assert all(dict(vars(kind)) == names for kind, names in before.items())
    assert profile.passes == {"small": [3, 3]}
    rows = {(path, kind): times for path, kind, *times in profile.rows("small")}
    there, back, share = rows["inner.slow", "Slow"]
    three = 3 * TICK  # the clock is read again before and after Tanh's own pass
    assert there == pytest.approx(0.004 + three) and back == pytest.approx(0.008 + three)
    assert share > 0.9 and sum(row[2] for row in rows.values()) == pytest.approx(1)
    assert TICK <= rows["inner", "Residual"][0] < 5 * TICK  # without what the block inside it takes
    table = profile.table()
    assert table.splitlines()[0].split() == ["layer", "forward", "[ms]", "backward", "[ms]", "share"]
    assert "inner.slow" in table and table.splitlines()[-1].startswith("sum")


def test_an_error_inside_leaves_the_layers_as_they_were(rng):
    forward = nn.Linear.forward
    with pytest.raises(KeyError), nn.Profile():
        raise KeyError
    assert nn.Linear.forward is forward
