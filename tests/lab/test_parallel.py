"""Recipes of model parallelism, and the time of a large network on published links."""

from types import SimpleNamespace

from lab.links import LAYERS, LINKS, RATE, ROWS, D, T, clock_of, efficiency, theory, under_way
from lab.parallel import IDEAL, KINDS, by_stage, idle, piped, replicated, sharded
from npopt import AdamW
from npopt.distributed import GPipe, PipeDreamFlush, TensorParallel, ZeRO

import numpy as np
import pytest

SIZE = dict(length=4, features=8, layers=2, heads=2)
WORDS = 200
PARAMETERS = 2 * WORDS * 8 + 4 * 8 + 2 * (12 * 64 + 13 * 8) + 16


def ran(columns):
    columns = {name: np.array(values) for name, values in columns.items()}
    return SimpleNamespace(columns=columns, final={name: values[-1] for name, values in columns.items()})


def test_a_pipeline_as_a_table_of_passes():
    """Two stages, three micro-batches of two rows: 2 * 3 * 2 passes, idle 1/4 of the time."""
    columns = piped(0, None, data="chain", size=SIZE, method=GPipe(1.0, 3, 6), stages=2)
    run = ran(columns)
    assert {len(values) for values in columns.values()} == {12} and run.final["apart"] < 1e-10
    np.testing.assert_allclose(idle(run), 1 / 4, rtol=1e-12)
    np.testing.assert_array_equal(by_stage(run, "passes"), [3, 3])
    np.testing.assert_array_equal(run.columns["kind"][:6], [0, 0, 0, 1, 1, 1])
    assert KINDS[:2] == ("forward", "backward") and run.final["time"] == pytest.approx(4 * 2 * IDEAL.row_seconds / 2)
    assert run.final["bytes"] == 2 * 6 * 4 * 8 * 8
    other = ran(piped(0, None, data="chain", size=SIZE, method=PipeDreamFlush(1.0, 3, 6), stages=2))
    np.testing.assert_array_equal(by_stage(other, "passes"), [2, 1])
    np.testing.assert_allclose(by_stage(other, "kept") / by_stage(run, "kept"), [2 / 3, 1 / 3], rtol=1e-12)


def test_what_a_stage_keeps_is_counted_array_by_array():
    """A stage of one layer: of a row of T words the input, two norms, q, k, v, o, and the feed-forward part."""
    run = ran(piped(0, None, data="chain", size=SIZE, method=GPipe(1.0, 1, 3), stages=2))
    B, T_, d = 3, 4, 8
    least = B * T_ * (2 * d + 4 * d + d + 2 * 4 * d) * 8  # inputs of maps and of GELU, q, k, v, o
    assert least < by_stage(run, "kept")[0] < 2 * least


def test_shards_and_zero_as_tables():
    found = sharded(0, None, data="chain", size=SIZE, method=TensorParallel(1.0, 3), ranks=2)
    assert found["apart"][0] < 1e-10 and found["bytes"] == [4 * 2 * 2 * 3 * 4 * 8 * 8]
    assert found["numbers"] == [PARAMETERS - (12 * 64 + 7 * 8)]
    both = dict(method=ZeRO(0.01, AdamW(), 2), plain=ZeRO(0.01, AdamW(), 2, sharded=False))
    found = replicated(0, None, data="chain", size=SIZE, nodes=3, rounds=2, **both)
    assert found["differing"] == [0] and found["parameters"] == [PARAMETERS]
    assert found["whole"] == [8 * PARAMETERS] and found["state"] == [8 * -(-PARAMETERS // 3)]
    assert found["bytes"][0] == pytest.approx(2 * 2 / 3 * 4 * PARAMETERS, rel=1e-12)


@pytest.mark.parametrize("link", ["NVLink 3", "Ethernet 10 Gb/s"])
def test_a_small_network_on_a_slow_clock_takes_the_large_ones_time(link):
    """Written out: operations over the peak rate, bytes over the link."""
    layer = 24 * T * D * D + 4 * T * T * D  # products of matrices; scores and what they weigh
    row = LAYERS * 3 * layer / RATE
    speed, nodes, same = LINKS[link], 2, dict(data="chain", size=SIZE)
    tensors = ROWS * row / nodes + LAYERS * 4 * 2 * (ROWS * T * D * 2 / nodes / speed + 1e-5)
    pipe = (8 + 1) * row / nodes + 2 * (T * D * 2 / speed + 1e-5)
    zero = ROWS * row + 2 * (LAYERS * 12 * D * D * 2 / nodes / speed + 1e-5)
    assert under_way(speed) == pytest.approx(T * D * 2 / speed + 1e-5, rel=1e-12)
    for how, seconds in (("tensors", tensors), ("GPipe, m = 8", pipe), ("ZeRO", zero)):
        assert theory(how, nodes, speed) == pytest.approx(seconds, rel=1e-12)
    clocks = {how: clock_of(how, link, SIZE, PARAMETERS) for how in ("tensors", "pipeline", "ZeRO")}
    one = sharded(0, None, method=TensorParallel(1.0, 2, ring=True), ranks=nodes, clock=clocks["tensors"], **same)
    two = piped(0, None, method=GPipe(1.0, 8, 8), stages=nodes, clock=clocks["pipeline"], **same)
    both = dict(method=ZeRO(0.1, AdamW(), 1), plain=ZeRO(0.1, AdamW(), 1, False), nodes=nodes, rounds=1)
    three = replicated(0, None, clock=clocks["ZeRO"], **both, **same)
    for found, seconds in ((one, tensors), (two, pipe), (three, zero)):
        assert found["time"][-1] == pytest.approx(seconds, rel=1e-3)  # pieces of unequal length
    assert efficiency("tensors", nodes, tensors) == pytest.approx(ROWS * row / nodes / tensors)
    assert efficiency("ZeRO", nodes, zero) == pytest.approx(ROWS * row / zero)
    assert efficiency("1F1B, m = 8", nodes, pipe) == pytest.approx(8 * row / nodes / pipe)
    assert theory("1F1B, m = 8", nodes, speed) is None
