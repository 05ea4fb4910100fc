"""The profile: every layer once, own times only, and nothing left behind."""

import time

import nn
from nn.core import Layer

import numpy as np
import pytest


class Slow(nn.Tanh):
    """Sleeps 4 ms forward and 8 ms backward."""

    def forward(self, x, ctx):
        time.sleep(0.004)
        return super().forward(x, ctx)

    def backward(self, dy, need_dx=True):
        time.sleep(0.008)
        return super().backward(dy, need_dx)


def test_times_are_each_layers_own(rng):
    network = nn.Network(
        nn.Sequential(fc=nn.Linear(3, 3), inner=nn.Residual(nn.Sequential(slow=Slow(), fc=nn.Linear(3, 3)))),
        (3,),
        "small",
    )
    x, a = rng.standard_normal(network.dim), rng.standard_normal((2, 3))
    ctx, g = nn.Context(), np.empty(network.dim)
    before = {kind: dict(vars(kind)) for kind in (nn.Network, nn.Linear, Layer, Slow)}

    def step():
        network.bind(x, g)
        return network.backward(np.cos(network.forward(a, ctx, need_dx=True)), need_dx=True)

    plain = step().copy()
    with nn.Profile() as profile:
        for _ in range(3):
            same = step()
    np.testing.assert_array_equal(plain, same)
    assert all(dict(vars(kind)) == names for kind, names in before.items())
    assert profile.passes == {"small": [3, 3]}
    rows = {(path, kind): times for path, kind, *times in profile.rows("small")}
    there, back, share = rows["inner.slow", "Slow"]
    assert 0.004 <= there < 0.1 and 0.008 <= back < 0.1
    assert share > 0.5 and sum(row[2] for row in rows.values()) == pytest.approx(1, abs=0.01)
    assert rows["inner", "Residual"][0] < 0.004  # without what the block inside it takes
    table = profile.table()
    assert table.splitlines()[0].split() == ["layer", "forward", "[ms]", "backward", "[ms]", "share"]
    assert "inner.slow" in table and table.splitlines()[-1].startswith("sum")


def test_an_error_inside_leaves_the_layers_as_they_were(rng):
    forward = nn.Linear.forward
    with pytest.raises(KeyError), nn.Profile():
        raise KeyError
    assert nn.Linear.forward is forward
