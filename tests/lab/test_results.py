"""Results and claims: stacking over seeds, medians and bands, the three states of a claim."""

import json
import pathlib

from lab import (
    Claim,
    Finished,
    MissingRuns,
    Results,
    Undecided,
    decided,
    different,
    lower,
    middle_and_band,
    show,
    spread,
)
from lab import report as report_room
from lab.claims import counts, judge

import numpy as np
import pytest


def finished(part="a", name="m", seed=0, reason="epochs", tags=None, **columns):
    columns = {k: np.asarray(v, float) for k, v in columns.items()}
    final = {k: float(v[-1]) for k, v in columns.items()}
    return Finished(part, tags or {"method": name}, seed, {}, columns, final, 1.0, reason)


def test_select_takes_values_collections_and_functions_and_names_what_is_missing():
    results = Results([finished("a", tags={"method": "x", "lr": 0.1}), finished("a", "y", 1), finished("b", "x")])
    assert [run.part for run in results.select(method="x")] == ["a", "b"]
    assert results.select("a", method=["x", "y"]).values("method") == ["x", "y"]
    assert results.select("a", seed=1).values("method") == ["y"]
    assert results.select(method=lambda name: name > "x").parts == ["a"]
    assert [run.part for run in results.select(lr=0.1)] == ["a"] and results.values("lr") == [0.1]
    assert len(results.select(lr=lambda lr: lr > 0)) == 1  # a run without the tag is not asked
    with pytest.raises(MissingRuns, match="no finished run of part 'b', method 'y'"):
        results.select("b", method="y")
    with pytest.raises(MissingRuns, match="no finished run of beta 0.9"):
        results.select(beta=0.9)


def test_groups_by_tags_in_the_order_of_the_grid():
    results = Results(finished(tags={"method": m, "lr": lr}, seed=s) for m in "ba" for lr in (1.0, 0.1) for s in (0, 1))
    results.append(finished(tags={"method": "c"}))
    assert [(m, len(runs)) for m, runs in results.groups("method")] == [("b", 4), ("a", 4), ("c", 1)]
    assert [(key, runs.seeds) for key, runs in results.groups("lr", "method")][:2] == [
        ((1.0, "b"), [0, 1]),
        ((0.1, "b"), [0, 1]),
    ]
    assert len(results.groups("lr", "method")) == 4  # c has no lr
    assert [name for name, _ in results.select(lr=0.1).lines()] == ["b", "a"]
    assert [name for name, _ in results.select(method="a").lines()] == ["lr 1", "lr 0.1"]
    assert [name for name, _ in results.select(method="a", lr=0.1).lines()] == ["a, lr 0.1"]
    assert [name for name, _ in results.lines()] == ["b, lr 1", "b, lr 0.1", "a, lr 1", "a, lr 0.1", "c"]


def test_ends_means_and_tables_by_tags():
    runs = [
        finished(tags={"b1": b1, "b2": b2}, seed=s, loss=[9, b1 + b2 + s])
        for b1, b2 in ((2, 1), (1, 1), (1, 3))
        for s in (0, 1)
    ]
    runs += [finished(tags={"b1": 2, "b2": 3}, loss=[1], reason="diverged: nan")]
    results = Results(runs)
    np.testing.assert_array_equal(results.finals("loss", "b1", "b2")[1, 3], [4, 5])
    np.testing.assert_array_equal(results.means("loss", "b2")[1], 3.0)
    table, rows, columns = results.table("loss", "b1", "b2")
    np.testing.assert_array_equal(table, [[2.5, 4.5], [3.5, np.nan]])
    assert (rows, columns) == ([1, 2], [1, 3])


def test_values_of_rows_and_means_of_late_rows():
    results = Results([finished(loss=[5, 4, 3, 2, 1]), finished(seed=1, loss=[1, 2, 3])])
    np.testing.assert_array_equal(results.at("loss", 1), [4, 2])
    np.testing.assert_array_equal(results.late("loss"), [2, 2.5])  # rows from 5 // 2 and from 3 // 2 on
    np.testing.assert_array_equal(results.late("loss", 2 / 3), [2.5, 2.5])  # from 5 // 3, 3 // 3


def test_final_is_nan_where_a_diverged_run_has_no_value():
    results = Results([finished(epoch=[0, 1], gap=[2, 1]), finished(epoch=[0], reason="diverged: loss is nan")])
    np.testing.assert_array_equal(results.final("gap"), [1, np.nan])
    with pytest.raises(MissingRuns, match="no run has a column 'nothing'; the columns are epoch, gap"):
        results.final("nothing")


def test_a_method_is_tuned_by_its_mean_over_seeds_and_values_that_diverged_are_out():
    def run(method, lr, held, **more):
        return finished(tags={"method": method, "lr": lr, "data": "d"}, held=[0, held], **more)

    runs = [
        run("A", lr, score + 0.01 * seed, seed=seed)
        for lr, score in ((0.1, 0.5), (1, 0.8), (10, 0.7))
        for seed in (0, 1)
    ]
    runs += [run("B", 0.5, 0.6), run("B", 2, 0.9, reason="diverged: x is nan"), finished(name="C", held=[1])]
    tuned = Results(runs).tuned(over="lr", by="held")
    assert list(tuned) == ["A", "B"]  # C has no rate to tune
    assert (tuned["A"].value, tuned["A"].runs.values("lr"), tuned["A"].inside) == (1, [1], True)
    np.testing.assert_allclose(list(tuned["A"].scores.values()), [0.505, 0.805, 0.705])
    assert tuned["B"].value == 0.5 and np.isnan(tuned["B"].scores[2]) and not tuned["B"].inside
    assert Results(runs).tuned(by="held", least=True)["A"].value == 0.1
    assert list(Results(runs).tuned(by="held", of=("data", "method"))) == [("d", "A"), ("d", "B")]
    best = Results(runs).at_best(by="held")
    assert [run.tags for run in best] == [{"method": method, "data": "d"} for method in "AAB"]
    assert [run.seed for run in best] == [0, 1, 0]
    assert [name for name, _ in best.lines()] == ["A", "B"] and runs[2].tags["lr"] == 1


def test_stack_puts_runs_on_a_common_grid_and_interpolates_inside_a_run_only():
    results = Results([finished(epoch=[0, 1, 2], y=[4, 2, 0]), finished(seed=1, epoch=[0, 1.5], y=[3, 0])])
    grid, values = results.stack("y")
    np.testing.assert_array_equal(grid, [0, 1, 1.5, 2])
    np.testing.assert_allclose(values, [[4, 2, 1, 0], [3, 1, 0, np.nan]], rtol=1e-15)


def test_stack_passes_over_rows_without_a_value():
    grid, values = Results([finished(epoch=[0, 1, 2], loss=[np.nan, 5, 4])]).stack("loss")
    np.testing.assert_array_equal(values, [[np.nan, 5, 4]])
    with pytest.raises(MissingRuns, match="no run has the columns 'epoch' and 'y'"):
        Results([finished(epoch=[0], loss=[1])]).stack("y")


def test_the_band_is_the_range_of_few_runs_and_the_quartiles_of_many():
    few, many = np.array([[1.0], [2], [9]]), np.arange(9.0)[:, None]
    middle, low, high, what = middle_and_band(few)
    assert (middle[0], low[0], high[0], what) == (2, 1, 9, "min to max")
    middle, low, high, what = middle_and_band(many)
    assert (middle[0], low[0], high[0], what) == (4, 2, 6, "quartiles")
    middle, *_ = middle_and_band(np.array([[np.nan, 1], [np.nan, 3]]))
    np.testing.assert_array_equal(middle, [np.nan, 2])


def test_spread_survives_huge_numbers():
    assert spread([1.0, 3.0]) == "2 ± 1.4 (2 seeds)" and spread([0.0, 0.0]) == "0 ± 0 (2 seeds)"
    assert spread([0.5]) == "0.5 (1 seed)"
    assert spread([1e200, 3e200]) == "2e+200 ± 1.4e+200 (2 seeds)"


def test_a_difference_counts_beyond_two_standard_deviations_of_the_pairs():
    mean, two, real = different([1.0, 2.0, 3.0], [0.9, 1.9, 2.8])  # d = 0.1, 0.1, 0.2: mean 0.1333, std 0.0577
    assert (round(mean, 4), round(two, 4), real) == (0.1333, 0.1155, True)
    assert not different([1.0, 2.0, 3.0], [1.1, 1.9, 2.8])[2]
    with pytest.raises(Undecided, match="at least 3 seeds"):
        different([1, 2], [0, 0])


def test_an_order_is_decided_beyond_two_standard_deviations_only():
    low, high, wide = [1.0, 2.0, 3.0], [1.5, 2.6, 3.5], [0.0, 3.0, 2.5]
    assert (lower(low, high), lower(high, low), lower(low, wide)) == (True, False, None)
    assert decided("t", True, True) == ("t", True) and decided("t", None, False, True) == ("t", False)
    text, holds, note = decided("t", True, None)
    assert text == "t" and holds is None and "two standard deviations" in note


def test_show():
    assert [show(v) for v in (0.98765432, 3.0, 7, True, "text", None, np.float32(0.25), 1e9)] == [
        "0.9877", "3", "7", "yes", "text", "", "0.25", "1e+09",
    ]  # fmt: skip


def raising(error):
    def function():
        raise error

    return function


def test_a_claim_holds_fails_or_is_undecided_for_a_reason(capsys):
    claim = Claim("c", "it is so", "1")
    states = {
        "holds": judge(claim, lambda: (0.98765432, np.bool_(True))),
        "does not hold": judge(claim, lambda: ("text", False, "why")),
        "undecided": judge(claim, lambda: (1.5, None, "one seed")),
    }
    assert [c.mark for c in states.values()] == list(states)
    assert [c.holds for c in states.values()] == [True, False, None] and type(states["holds"].holds) is bool
    assert states["holds"].measured == "0.9877" and states["does not hold"].note == "why"
    assert judge(claim, raising(Undecided("too small"))).note == "too small"
    assert judge(claim, raising(MissingRuns("no finished run"))).note == "no finished run"
    assert judge(claim, lambda: (float("nan"), False)).holds is None
    assert capsys.readouterr().err == ""


def test_a_claim_that_cannot_be_computed_is_undecided_and_its_traceback_shown(capsys):
    broken = judge(Claim("c", "it is so", "1"), lambda: 1 / 0)
    assert broken.holds is None and broken.note == "not computed, ZeroDivisionError: division by zero"
    assert "Traceback" in capsys.readouterr().err
    assert "must return (measured, holds)" in judge(Claim("c", "it is so", "1"), lambda: True).note


def test_counts():
    claims = [Claim("a", "", "", holds=True), Claim("b", "", "", holds=None), {"holds": False}, {"holds": None}]
    assert counts(claims) == (1, 1, 2)


def test_no_file_of_the_stored_results_is_larger_than_a_megabyte_and_a_half():
    files = [path for path in (pathlib.Path(__file__).parents[2] / "docs" / "results").rglob("*") if path.is_file()]
    large = {str(path): path.stat().st_size for path in files if path.stat().st_size > 1_500_000}
    assert len(files) > 30 and not large


def test_a_summary_has_tags_and_config_once_an_entry():
    runs = [
        dict(name=n, seed=s, tags={"method": n}, config={"dim": 3}, final={"loss": s}) for n in "ab" for s in (0, 1)
    ]
    facts = report_room.shared({"script": "x", "runs": runs})
    assert facts["entries"] == [{"tags": {"method": n}, "config": {"dim": 3}} for n in "ab"]
    found = json.loads(report_room.as_json(facts))
    assert found == facts and [r["entry"] for r in found["runs"]] == [0, 0, 1, 1]
    assert [{k: v for k, v in r.items() if k != "entry"} | found["entries"][r["entry"]] for r in found["runs"]] == runs
