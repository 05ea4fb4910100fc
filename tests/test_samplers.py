"""Orders and batches."""

from types import SimpleNamespace

from npopt import RandomReshuffling, ShuffleOnce, WithReplacement, backend

import numpy as np
import pytest

ALL = [WithReplacement, ShuffleOnce, RandomReshuffling]


def started(sampler, n=10, seed=3):
    sampler.start(SimpleNamespace(n=n, name="toy"), seed)
    return sampler


def rows(batches):
    return [None if b.rows is None else backend.to_host(b.rows).tolist() for b in batches]


@pytest.mark.parametrize("kind", ALL)
def test_batches_are_slices_of_the_epochs_order(kind, device):
    sampler = started(kind(4))
    assert sampler.steps_per_epoch == 3
    batches = list(sampler.take(7))
    assert [b.epoch for b in batches] == [0, 0, 0, 1, 1, 1, 2]
    assert [len(r) for r in rows(batches)] == [4, 4, 2, 4, 4, 2, 4]
    for e in (0, 1):
        assert sum(rows(batches)[3 * e : 3 * e + 3], []) == sampler.epoch(e)[0].tolist()


@pytest.mark.parametrize("kind", ALL)
def test_an_order_is_a_function_of_seed_and_epoch(kind):
    a, b, c = started(kind(3)), started(kind(3)), started(kind(3), seed=4)
    assert rows(a.take(8)) == rows(b.take(2)) + rows(b.take(1)) + rows(b.take(5)) != rows(c.take(8))


def test_without_replacement_every_row_comes_once_an_epoch():
    for kind in (ShuffleOnce, RandomReshuffling):
        sampler = started(kind(3))
        for _ in range(3):
            assert sorted(sum(rows(sampler.take(4)), [])) == list(range(10))


def test_shuffle_once_repeats_its_batches_and_reshuffling_does_not():
    once, again = started(ShuffleOnce(3)), started(RandomReshuffling(3))
    a, b = list(once.take(4)), list(once.take(4))
    assert rows(a) == rows(b) and [x.key for x in a] == [x.key for x in b] == [0, 1, 2, 3]
    assert rows(again.take(4)) != rows(again.take(4)) and next(again.take(1)).key is None


def test_with_replacement_is_uniform():
    sampler = started(WithReplacement(1), n=8)
    counts = np.bincount(sampler.rows(8000), minlength=8)
    assert ((counts - 1000) ** 2 / 1000).sum() < 29              # chi-square, 7 degrees of freedom: p = 1e-4


def test_a_full_batch_is_all_rows_in_order_for_shuffles_and_a_sample_with_replacement():
    for kind in (ShuffleOnce, RandomReshuffling):
        assert rows(started(kind(10)).take(2)) == rows(started(kind(None)).take(2)) == [None, None]
    (sample,) = rows(started(WithReplacement(10)).take(1))
    assert len(sample) == 10 and len(set(sample)) < 10


def test_the_short_batch_is_used_or_dropped():
    assert [len(r) for r in rows(started(RandomReshuffling(4, drop_last=True)).take(4))] == [4, 4, 4, 4]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", [1, 3, 10])
def test_rows_are_the_rows_of_the_same_batches(kind, size):
    a, b = started(kind(size)), started(kind(size))
    flat = [r if r is not None else list(range(10)) for r in rows(a.take(9))]
    assert b.rows(9).tolist() == sum(flat, []) and a.state() == b.state() == {"taken": 9}


def test_resuming_is_setting_one_number():
    a, b = started(RandomReshuffling(3)), started(RandomReshuffling(3))
    list(a.take(6))
    b.load_state(a.state())
    assert rows(a.take(5)) == rows(b.take(5))


def test_a_batch_counts_as_taken_when_it_is_handed_out():
    sampler = started(RandomReshuffling(3))
    for batch in sampler.take(100):
        if batch.epoch == 2:
            break
    assert sampler.taken == 9


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="batch_size 11 is larger than the 10 rows of toy"):
        started(RandomReshuffling(11))
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match="batch_size must be a whole number"):
            WithReplacement(wrong)
    with pytest.raises(ValueError, match="no fixed rows"):
        started(WithReplacement(1), n=None)
