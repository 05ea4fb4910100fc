"""Memory that goes round: blocks return with the last view, serve again, and are not shared by two."""

import gc
import threading

from npopt import backend
from npopt.backend.allocator import AGE, SMALL, Pool, Spaces

import numpy as np
import pytest


@pytest.fixture
def pool():
    return Pool()


def test_a_block_returns_with_its_last_view_and_serves_again(pool):
    a = pool.empty((64, 100), "float32", 1)
    at, view, turned = a.ctypes.data, a[3:5], a.T
    assert a.flags.carray and at % 64 == 0
    del a
    assert pool.empty((64, 100), "float32", 1).ctypes.data != at  # a view holds it
    del view
    assert turned.shape == (100, 64)
    del turned
    gc.collect()
    asked = pool.asked
    again = [pool.empty((64, 100), "float32", 1) for _ in range(2)]
    assert at in [b.ctypes.data for b in again] and pool.asked == asked
    again[0][...], again[1][...] = 1, 2
    assert (again[0] == 1).all()


def test_a_larger_block_serves_within_its_slack_and_a_smaller_never(pool):
    pool.empty((10_000,), "float64", 1)
    assert pool.asked == 1
    pool.empty((9_000,), "float64", 1)
    assert pool.asked == 2  # of another size
    pool.empty((5_100,), "float64", 2)
    assert pool.asked == 2  # 9,000 is less than twice as large
    pool.empty((4_000,), "float64", 2)
    assert pool.asked == 3
    pool.empty((20_000,), "float64", 100)
    assert pool.asked == 4 and pool.held >= 8 * (10_000 + 9_000 + 4_000 + 20_000)


def test_sizes_that_nobody_asks_for_go_back_to_the_system(pool):
    pool.empty((100_000,), "float64", 1)
    for _ in range(AGE + 1):
        pool.takes += 1
    pool.empty((10,), "float64", 1)
    assert pool.held < 800_000
    pool.release()
    assert pool.held == 0


def test_spaces_are_as_many_as_are_in_use_at_once():
    spaces, kind = Spaces(), np.dtype("float64")
    for _ in range(3):
        for sizes in ((9000, 20_000), (5000,), (30_000, 9000, 4000)):
            held = [spaces.empty((n,), kind) for n in sizes]
            for i, a in enumerate(held):
                a[...] = i
            assert all((a == i).all() for i, a in enumerate(held))
            del held, a
        if _ == 0:
            asked = spaces.asked
    assert spaces.asked == asked and len(spaces.free) == 3


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", bool, "int64"])
def test_arrays_are_like_numpys(dtype):
    a, b = backend.empty((300, 400), dtype), backend.zeros((300, 400), dtype)
    assert (a.shape, a.dtype, a.strides) == (b.shape, b.dtype, b.strides) and a.flags.writeable
    assert backend.empty(5, "float32").shape == (5,) and backend.empty((0, 3), "float32").size == 0
    assert backend.empty((SMALL // 4,), "float32").base is not None and backend.empty((4,), "float32").base is None


@pytest.mark.parametrize("which", [Pool, Spaces])
def test_two_threads_never_hold_one_block(which):
    wrong, pool = [], which()

    def work(number):
        for i in range(2000):
            a = pool.empty((3000 + i % 7,), np.dtype("int64"), *[2] * (which is Pool))
            a[...] = number
            if not (a == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
