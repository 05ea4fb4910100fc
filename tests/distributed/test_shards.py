"""Tensor parallelism and ZeRO: the step of one node that has everything, to rounding or to the bit, and the bytes."""

from nn import Alibi, EncoderLayer, Linear, MultiHeadAttention, Network, Sequential, feed_forward, gpt2
from nn.parallel import Same, Split, shard, sharded
from npopt import LAMB, SGD, Adamax, AdamW, HeavyBall, Lion, NAdam
from npopt.distributed import Clock, DataParallel, TensorParallel, ZeRO, simulate
from npopt.errors import UserError
from problems.parts import Shard
from problems.quadratic import Quadratic

import cut_networks as cut
import numpy as np
import pytest
from bowls import PROBLEMS, SHARES, X0

NUMBERS = cut.BATCH * cut.LENGTH * cut.D  # B T D


def split(name, count, rounds=3, ring=False, **more):
    parts = cut.shards(name, count)
    method = TensorParallel(cut.LR, cut.BATCH, HeavyBall(cut.BETA), ring)
    return parts, simulate(method, parts, rounds, seed=cut.SEED, start=cut.starts(parts), **more)


# ------------------------------------------------------------------------------------------------------------- tensors
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize(
    "name, count", [("gpt2", 1), ("gpt2", 2), ("gpt2", 4), ("llama", 2), ("tied", 4), ("wide", 2), ("wide", 4)]
)
def test_steps_are_those_of_the_whole_network(name, count, ring):
    """Biases, dropout behind the sums, heads that share keys, gates, tied tables, parts without norm."""
    parts, found = split(name, count, ring=ring)
    assert cut.apart(parts, found.x, cut.whole(name, 3)) < 1e-10


def test_what_all_have_whole_stays_the_same_everywhere_bit_for_bit():
    parts, found = split("gpt2", 4)
    shared = 0
    for segment in parts[1].segments:
        if segment.shape == parts[1].whole.segments.find(segment.name).shape:
            views = [x[part.segments.find(segment.name).slice] for part, x in zip(parts, found.x, strict=True)]
            shared += 1
            for view in views[1:]:
                np.testing.assert_array_equal(view, views[0])
    assert shared == 2 + 4 * 4 + 3  # tables, two norms with two vectors in four layers, norm and head


@pytest.mark.parametrize("name, per", [("gpt2", 4 * 4), ("llama", 4 * 4)])
def test_a_layer_needs_two_sums_forward_and_two_back(name, per):
    """Each of B T D numbers of 8 bytes, to rank 0 and back: 2 (N - 1) times their bytes, through a ring as well."""
    for count in (1, 2):
        for ring in (False, True):
            columns = split(name, count, 1, ring)[1].columns
            assert columns["bytes"][0] == per * 2 * (count - 1) * NUMBERS * 8
    assert split(name, 2, 1)[1].columns["messages"][0] == per * 2


def test_a_feed_forward_part_needs_one_sum_each_way():
    columns = split("wide", 2, 1)[1].columns
    assert columns["messages"][0] == 2 * 2 * 2 and columns["bytes"][0] == 2 * 2 * 2 * cut.BATCH * 6 * 8


def test_a_rank_has_its_share_of_what_is_cut_and_all_of_the_rest():
    """GPT-2's layer: 12 D^2 + 7 D numbers in N parts, and b_o, b_down once; 4 D of the norms on every rank."""
    D, layers = cut.D, 4
    whole = cut.shards("gpt2", 1)[0].dim
    rest = whole - layers * (12 * D * D + 9 * D)  # 9 D biases
    for count in (2, 4):
        dims = [part.dim for part in cut.shards("gpt2", count)]
        cut_part = (12 * D * D + 7 * D) // count
        assert dims[1:] == [rest + layers * cut_part] * (count - 1)
        assert dims[0] == dims[1] + layers * 2 * D


def test_cut_the_other_way_the_sum_is_another_function(rng):
    """GELU is no linear function: with A cut by rows sum_i phi(X_i A_i) is not phi(X A), with columns it is."""
    X, A, B = rng.standard_normal((3, 4)), rng.standard_normal((4, 6)), rng.standard_normal((6, 2))
    phi = lambda z: z * np.tanh(z)  # noqa: E731
    right = phi(X @ A) @ B
    columns = sum(phi(X @ A[:, i : i + 3]) @ B[i : i + 3] for i in (0, 3))
    rows = sum(phi(X[:, i : i + 2] @ A[i : i + 2]) @ B for i in (0, 2))
    np.testing.assert_allclose(columns, right, rtol=1e-12)
    assert np.abs(rows - right).max() > 0.1


def test_the_clock_gives_each_node_its_share_of_the_work():
    found = split("gpt2", 4, 2, clock=Clock(latency=0, bandwidth=1e30, row_seconds=8.0))[1]
    np.testing.assert_allclose(found.columns["seconds"], [cut.BATCH * 2.0, cut.BATCH * 4.0], rtol=1e-12)


def test_layers_that_cannot_be_cut_are_refused():
    for layer, count, message in (
        (MultiHeadAttention(12, 3), 2, "the 3 heads cannot be cut into 2 equal parts"),
        (MultiHeadAttention(12, 4, 1), 2, "the 1 heads of keys and values"),
        (MultiHeadAttention(12, 4, positions=Alibi()), 2, "cannot be cut by heads"),
        (MultiHeadAttention(12, 4, dropout=0.1), 2, "cannot be cut by heads"),
        (MultiHeadAttention(12, 4, cross=True), 2, "cannot be cut by heads"),
        (feed_forward(4, 6), 4, r"the 6 outputs of Linear\(4, 6, bias=True\)"),
    ):
        with pytest.raises(UserError, match=message):
            shard(layer, 0, count)
    post = Network(Sequential(first=Linear(4, 4), layer=EncoderLayer(4, 2, place="post")), (3, 4))
    with pytest.raises(UserError, match="layer has its norms behind the sums"):
        sharded(post, 0, 2)
    with pytest.raises(UserError, match=r"rank must lie in 0\.\.1"):
        Shard(gpt2(3, 2, 4, 2, 2), cut.text(), rank=2, ranks=2)
    with pytest.raises(UserError, match="acts number by number"):
        TensorParallel(0.1, optimizer=LAMB())
    kinds = [type(part) for part in cut.shards("wide", 2)[0].parts]
    assert kinds == [Same, Split, Split, Same]


# ---------------------------------------------------------------------------------------------------------------- ZeRO
def bowls(count, dtype=np.float64):
    rng = np.random.default_rng(8)
    found = []
    for k in range(count):
        A = rng.standard_normal((37, 37))
        found.append(Quadratic(A @ A.T / 37 + np.eye(37), rng.standard_normal(37), 3 + k, 0.7, seed=k, dtype=dtype))
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "optimizer", [AdamW(0.7, 0.9, 1e-2, 0.1), HeavyBall(0.7), Lion(0.8, 0.9, 0.1), Adamax(0.7, 0.9)], ids=repr
)
def test_zero_takes_the_steps_of_data_parallel_training_bit_for_bit(optimizer, count, dtype):
    """37 numbers, which no number of nodes but one divides: pieces differ in length."""
    some = [
        simulate(ZeRO(0.05, optimizer, 2, sharded), bowls(count, dtype), 8, seed=3, start=np.ones(37))
        for sharded in (True, False)
    ]
    for one, two in zip(*(found.x for found in some), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, some[0].x[0])
    for column in ("bytes", "messages", "busiest"):
        np.testing.assert_array_equal(some[0].columns[column], some[1].columns[column])
    np.testing.assert_array_equal(some[0].columns["bytes"], 2 * (count - 1) * 37 * np.dtype(dtype).itemsize
                                  * np.arange(1, 9))  # fmt: skip
    assert not np.array_equal(some[0].x[0], np.ones(37))


def test_steps_of_zero_are_those_of_a_slow_loop():
    """AdamW on the mean gradient over all rows, written out."""
    b1, b2, eps, decay, lr = 0.7, 0.9, 1e-2, 0.2, 0.1
    found = simulate(ZeRO(lr, AdamW(b1, b2, eps, decay)), PROBLEMS, 9, start=X0)
    x, m, v = X0.copy(), 0.0, 0.0
    for t in range(1, 10):
        g = sum(s * (p.exact_A @ x - p.exact_b) for s, p in zip(SHARES, PROBLEMS, strict=True))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        x = x - lr * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * x)
    for shown in found.x:
        np.testing.assert_allclose(shown, x, rtol=1e-11)


@pytest.mark.parametrize("apart", [True, False])
def test_no_state_exists_twice(apart):
    told = {}

    def watch(rank, what, *_):
        told[rank] = what

    simulate(ZeRO(0.1, AdamW(), sharded=apart), bowls(4), 2, watch=watch)
    assert [what[0] for what in told.values()] == ["state"] * 4
    assert sum(what[1] for what in told.values()) == (2 * 37 * 8 if apart else 4 * 2 * 37 * 8)
    assert max(what[1] for what in told.values()) == (2 * 10 * 8 if apart else 2 * 37 * 8)


def test_optimizers_that_look_at_more_than_a_number_are_refused():
    for optimizer in (LAMB(), NAdam(), "adam"):
        with pytest.raises(UserError, match=r"ZeRO: a part of x wants an optimizer that acts number by number"):
            ZeRO(0.1, optimizer)


def test_without_state_zero_is_data_parallel_sgd():
    one = simulate(ZeRO(0.1, SGD(), 2), PROBLEMS, 5, seed=2, start=X0)
    two = simulate(DataParallel(0.1, 2, ring=True), PROBLEMS, 5, seed=2, start=X0)
    np.testing.assert_allclose(one.x, two.x, rtol=1e-14)
