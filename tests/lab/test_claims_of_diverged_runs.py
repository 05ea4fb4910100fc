"""Runs that diverged, or seeds that are missing, decide no comparison."""

import dataclasses

from lab import MissingRuns, Results, Undecided, alike, inside, interval, larger, no_larger, on_every
from lab.results import Finished

import numpy as np
import pytest


def runs(name, values, seeds=None):
    seeds = range(len(values)) if seeds is None else seeds
    return [
        Finished("a", {"method": name}, s, {}, {"loss": np.array([v])}, {"loss": v}, 0.0, "epochs")
        for s, v in zip(seeds, values, strict=True)
    ]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_undecided(bad):
    with pytest.raises(Undecided, match="1 of 6 values are not finite"):
        interval([bad, 1, 1], [1, 2, 3.0])
    for claim in (alike("a", "one", "two", "loss", 1), larger("a", "one", "two", "loss")):
        with pytest.raises(Undecided, match="not finite"):
            claim(Results(runs("one", [1, 2, bad]) + runs("two", [1, 2, bad])))


def test_methods_with_different_seeds_are_not_paired():
    with pytest.raises(Undecided, match="the seeds differ"):
        alike("a", "one", "two", "loss", 1)(Results(runs("one", [1, 2, 3]) + runs("two", [1, 2, 3], [0, 1, 5])))


def test_methods_are_compared_at_their_best_values():
    def group(method, lr, held, losses):
        return [
            Finished("a", {"method": method, "lr": lr}, s, {}, {}, {"held": held, "loss": v}, 0.0, "epochs")
            for s, v in enumerate(losses)
        ]

    some = Results(
        group("one", 0.1, 0.5, [9, 9, 9.1])
        + group("one", 1, 0.2, [1.0, 1.1, 0.9])
        + group("one", 10, 0.3, [0, 0, 0])
        + group("two", 1, 0.1, [3.0, 3.1, 2.9])
        + group("two", 5, 0.2, [0])
    )
    text, holds = larger("a", "two", "one", "loss", by="held")(some)
    assert holds and text.startswith("3 ± 0.1 (3 seeds) and 1 ± 0.1")
    assert larger("a", {"method": "two", "lr": 1}, {"method": "one", "lr": 1}, "loss")(some)[0] == text
    assert alike("a", "one", "two", "loss", 0.5, by="held")(some)[1] is False
    with pytest.raises(MissingRuns, match="no finished run of method 'three'"):
        larger("a", "three", "one", "loss", by="held")(some)
    with pytest.raises(Undecided, match="fewer than three"):
        inside("a", "held")(some)
    assert inside("a", "held")(some.select(method="one")) == ("1 of 1 inside", True)
    three = Results(some.select(method="one") + group("one", 0.01, 0.1, [1]))
    assert inside("a", "held")(three) == ("0 of 1 inside; at an end: one 0.01", False)
    beside = Results(some.select(method="one"))
    beside[-1] = dataclasses.replace(beside[-1], reason="diverged: x is nan")
    assert inside("a", "held")(beside)[:2] == ("0 of 1 inside; beside a value that diverges: one 1", None)


def test_a_claim_on_every_set_lists_what_each_measured():
    judged = on_every([("x", 1), ("y", 2)], lambda name, value: (f"{name}{value}", value < 2))
    assert judged == ("x x1, y y2", False)
    assert on_every([("x", 1)], lambda name, value: (0.5, True)) == ("x 0.5", True)
    unclear = [("x", True), ("y", None)]
    assert on_every(unclear, lambda name, value: (name, value))[:2] == ("x x, y y", None)
    assert on_every([*unclear, ("z", False)], lambda name, value: (name, value))[1] is False


def test_alike_needs_the_whole_interval_within_the_margin():
    some = Results(
        runs("one", [1.0, 1.1, 0.9, 1.0])
        + runs("two", [1.01, 1.1, 0.92, 1.0])
        + runs("far", [3.0, 3.1, 2.9, 3.0])
        + runs("wild", [0.0, 2.0, 1.0, 0.9])
    )
    # d = -0.01, 0, -0.02, 0: mean -0.0075, std 0.009574, t = 3.1824: half = 0.01523
    text, holds = alike("a", "one", "two", "loss", 0.03)(some)
    assert holds is True and "difference -0.0075 ± 0.015 (95 %)" in text
    assert alike("a", "one", "far", "loss", 0.03)(some)[1] is False
    assert alike("a", "one", "wild", "loss", 0.03)(some)[1] is None
    assert alike("a", "one", "two", "loss", 0.02)(some)[1] is None


def test_the_verdicts():
    some = Results(runs("one", [1.0, 1.1, 0.9]) + runs("two", [1.05, 1.0, 1.0]) + runs("far", [3.0, 3.1, 2.9]))
    assert larger("a", "far", "one", "loss")(some)[1] is True and larger("a", "one", "far", "loss")(some)[1] is False
    assert larger("a", "two", "one", "loss")(some)[1] is None  # noise is not "false"
    assert larger("a", "two", "one", "loss", margin=0.3)(some)[1] is False  # at most 0.2753 above: alike
    # far - one = 2 in every seed; two - one = 0.05, -0.1, 0.1: mean 0.0167, std 0.104, half = 0.2586
    assert no_larger("a", "far", "one", "loss", 1.9)(some)[1] is False
    assert no_larger("a", "two", "one", "loss", 0.28)(some)[1] is True
    assert no_larger("a", "two", "one", "loss", 0.27)(some)[1] is None


def test_methods_at_several_budgets_are_named_by_both():
    some = Results(
        Finished("a", {"method": m, "steps": n, "lr": lr}, 0, {}, {}, {"held": abs(np.log(lr / best))}, 0.0, "steps")
        for m, n, best in (("one", 6, 0.1), ("one", 24, 1.0))
        for lr in (0.01, 0.1, 1.0)
    )
    assert inside("a", "held", of=("method", "steps"))(some) == ("1 of 2 inside; at an end: one, 24 1", False)
