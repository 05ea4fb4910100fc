"""Values print as the call that makes them."""

import copy
import pickle

from npopt import SGD, Accumulated, Adam, AdamW, Clipped, Constant, HeavyBall, RandomReshuffling, Stop, WithWarmup
from npopt.values import number, printed, whole

import numpy as np
import pytest


@pytest.mark.parametrize(
    "value",
    [
        SGD(),
        HeavyBall(0.8),
        AdamW(0.8, 0.9, 1e-3, 0.2),
        RandomReshuffling(64),
        Stop(epochs=3, target=("loss", 0.1)),
        Clipped(1.0, Accumulated(32)),
        WithWarmup(Constant(0.1), 5),
    ],
)
def test_the_printed_form_makes_the_same_value_again(value):
    import npopt

    again = eval(repr(value), vars(npopt))
    assert again == value and hash(again) == hash(value) and again is not value
    assert copy.deepcopy(value) == value and pickle.loads(pickle.dumps(value)) == value


def test_every_argument_is_printed_also_at_its_default():
    assert repr(Adam()) == "Adam(b1=0.9, b2=0.999, eps=1e-08, l2=0.0)"
    assert HeavyBall(0.9) != HeavyBall(0.90000001) and HeavyBall(0.9) != 0.9


def test_arrays_are_printed_by_content():
    a, b = np.arange(3.0), np.array([0.0, 1.0, 2.5])
    assert printed(a) == printed(a.copy()) != printed(b)
    assert AdamW(weight_decay=a) == AdamW(weight_decay=a.copy()) != AdamW(weight_decay=b)


def test_starting_does_not_change_the_printed_form():
    optimizer = Adam()
    before = repr(optimizer)
    optimizer.start(np.zeros(3))
    assert repr(optimizer) == before


@pytest.mark.parametrize("bad", [float("nan"), -1, "a lot", None])
def test_a_number_out_of_range_is_named(bad):
    with pytest.raises(ValueError, match="SGD: lr must"):
        number("SGD", "lr", bad, low=0)


def test_whole_numbers():
    assert whole("a", "b", 3.0) == 3
    with pytest.raises(ValueError, match="at least 1"):
        whole("a", "b", 0)
    with pytest.raises(ValueError, match="whole number"):
        whole("a", "b", 1.5)
