"""Runs that diverged, or seeds that are missing, decide no comparison."""

from npopt.lab import Results, Undecided, different, larger, no_difference
from npopt.lab.results import Finished

import numpy as np
import pytest


def runs(name, values, seeds=None):
    seeds = range(len(values)) if seeds is None else seeds
    return [Finished("a", name, s, {}, {"loss": np.array([v])}, {"loss": v}, 0.0, "epochs")
            for s, v in zip(seeds, values, strict=True)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_undecided(bad):
    with pytest.raises(Undecided, match="1 of 6 values are not finite"):
        different([bad, 1, 1], [1, 2, 3.0])
    for claim in (no_difference("a", "one", "two", "loss"), larger("a", "one", "two", "loss")):
        with pytest.raises(Undecided, match="not finite"):
            claim(Results(runs("one", [1, 2, bad]) + runs("two", [1, 2, bad])))


def test_methods_with_different_seeds_are_not_paired():
    with pytest.raises(Undecided, match="the seeds differ"):
        no_difference("a", "one", "two", "loss")(Results(runs("one", [1, 2, 3]) + runs("two", [1, 2, 3], [0, 1, 5])))


def test_the_verdicts():
    some = Results(runs("one", [1.0, 1.1, 0.9]) + runs("two", [1.05, 1.0, 1.0]) + runs("far", [3.0, 3.1, 2.9]))
    assert no_difference("a", "one", "two", "loss")(some)[1] and not no_difference("a", "far", "two", "loss")(some)[1]
    assert larger("a", "far", "one", "loss")(some)[1] and not larger("a", "one", "far", "loss")(some)[1]
