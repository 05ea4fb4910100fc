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
    finer,
    interval,
    lower,
    middle_and_band,
    show,
    spread,
    together,
    within,
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


def test_what_it_took_to_reach_a_level():
    runs = [dict(step=[0, 5, 10], loss=losses) for losses in ([3, 1, 2], [3, np.nan, 1], [3, 2, 1.5], [1, 9, 9])]
    results = Results(finished(seed=seed, values=np.arange(3) * 7, **columns) for seed, columns in enumerate(runs))
    np.testing.assert_array_equal(results.until("loss", 1), [5, 10, np.inf, 0])
    np.testing.assert_array_equal(results.until("loss", 2, "values"), [7, 14, 7, 0])


def test_passes_are_rows_differentiated_by_rows():
    some = Results([finished(gradients=[0, 5, 20], loss=[3, 2, 1]), finished(gradients=[0, 8])])
    some[0].config, some[1].config = {"n": 10}, {"n": 4}
    one, two = some.in_passes()
    np.testing.assert_array_equal(one.columns["passes"], [0, 0.5, 2])
    np.testing.assert_array_equal(two.columns["passes"], [0, 2])
    assert list(one.columns) == ["gradients", "loss", "passes"] and "passes" not in some[0].columns


def test_final_is_nan_where_a_diverged_run_has_no_value():
    results = Results([finished(epoch=[0, 1], gap=[2, 1]), finished(epoch=[0], reason="diverged: loss is nan")])
    np.testing.assert_array_equal(results.final("gap"), [1, np.nan])
    with pytest.raises(MissingRuns, match="no run has a column 'nothing'; the columns are epoch, gap"):
        results.final("nothing")


def test_levels_rise_with_the_tag_and_hold_a_row_for_each_seed():
    results = Results(
        finished(tags={"c": c}, seed=seed, gap=[9, 9, 10 * c + seed, 10 * c + seed + 2])
        for c in (0.5, 0.25, 2)
        for seed in (0, 1)
    )
    values, means = results.levels("gap", "c")
    np.testing.assert_array_equal(values, [0.25, 0.5, 2])
    np.testing.assert_array_equal(means, [[3.5, 6, 21], [4.5, 7, 22]])


def at_rate(method, lr, losses, **more):
    return [
        finished(tags={"method": method, "lr": lr, "data": "d"}, seed=seed, held=[9, loss], **more)
        for seed, loss in enumerate(losses)
    ]


def test_a_method_is_tuned_by_its_mean_over_seeds_and_values_that_diverged_are_out():
    runs = at_rate("A", 0.1, [0.5, 0.51]) + at_rate("A", 1, [0.2, 0.21]) + at_rate("A", 10, [0.3, 0.31])
    runs += at_rate("B", 0.5, [0.4]) + at_rate("B", 2, [0.1], reason="diverged: x is nan")
    tuned = Results([*runs, finished(name="C", held=[1])]).tuned(by="held")
    assert list(tuned) == ["A", "B"]  # C has no rate to tune
    assert (tuned["A"].value, tuned["A"].runs.values("lr"), tuned["A"].inside) == (1, [1], True)
    np.testing.assert_allclose(list(tuned["A"].scores.values()), [0.505, 0.205, 0.305])
    assert tuned["B"].value == 0.5 and np.isnan(tuned["B"].scores[2]) and tuned["B"].inside is False
    assert list(Results(runs).tuned(by="held", of=("data", "method"))) == [("d", "A"), ("d", "B")]
    best = Results(runs).at_best(by="held")
    assert [run.tags for run in best] == [{"method": method, "data": "d"} for method in "AAB"]
    assert [run.seed for run in best] == [0, 1, 0]
    assert [name for name, _ in best.lines()] == ["A", "B"] and runs[2].tags["lr"] == 1


def test_of_rates_within_one_standard_error_of_the_best_the_middle_one_is_taken():
    # at 1: mean 0.2, standard error 0.1 / sqrt(3) = 0.0577; 3 and 10 lie within it, 30 does not
    runs = at_rate("A", 1, [0.1, 0.2, 0.3]) + at_rate("A", 3, [0.25] * 3) + at_rate("A", 10, [0.257] * 3)
    runs += at_rate("A", 30, [0.26] * 3) + at_rate("A", 0.3, [0.9] * 3)
    assert Results(runs).tuned(by="held")["A"].value == 3
    assert Results(run for run in runs if run.seed == 1).tuned(by="held")["A"].value == 1  # one seed knows no error


def test_a_value_beside_a_diverged_one_is_not_known_to_be_inside():
    runs = at_rate("A", 1, [0.5]) + at_rate("A", 2, [0.2]) + at_rate("A", 4, [0.1], reason="diverged: loss is nan")
    assert Results(runs).tuned(by="held")["A"].inside is None
    assert Results(runs[:2] + at_rate("A", 3, [0.3]) + runs[2:]).tuned(by="held")["A"].inside is True


def test_a_second_grid_lies_about_the_best_of_the_first():
    assert finer([4, 1, 16], None, "a", "held") == [1, 4, 16]
    runs = at_rate("A", 1, [3]) + at_rate("A", 4, [1]) + at_rate("A", 16, [2]) + at_rate("B", 1, [0])
    assert finer([1, 4, 16], Results(runs), "a", "held", method="A") == [1, 2, 4, 8, 16]
    assert finer([1, 4, 16], Results(runs), "a", "held", method="B") == [0.25, 0.5, 1, 2, 4, 16]  # best at the end
    assert finer([1, 4], Results(runs), "a", "held", method="A") == [1, 4]  # no grid
    assert finer([1, 4, 16], Results(runs), "a", "held", method="C") == [1, 4, 16]  # no runs


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


def test_the_interval_is_students_of_the_mean_difference():
    # d = 0.1, 0.1, 0.4: mean 0.2, std 0.173205; t(0.975, 2) = 4.302653 of the tables: 4.302653 x 0.1 = 0.4302653
    mean, half = interval([1.0, 2.0, 3.0], [0.9, 1.9, 2.6])
    assert mean == pytest.approx(0.2) and half == pytest.approx(0.4302653, rel=1e-6)
    # ten values 0..9: std 3.0276504, t(0.975, 9) = 2.262157; 2.262157 x 3.0276504 / sqrt(10)
    mean, half = interval(np.arange(10.0))
    assert mean == 4.5 and half == pytest.approx(2.1658506, rel=1e-6)
    assert interval(np.tile(np.arange(10.0), 4))[1] < half / 1.9  # more seeds shorten it
    with pytest.raises(Undecided, match="at least 3 seeds"):
        interval([1, 2], [0, 0])


def test_an_order_is_decided_where_the_interval_is_off_zero_only():
    low, high, wide = [1.0, 2.0, 3.0], [1.5, 2.6, 3.5], [0.0, 3.0, 2.5]
    assert (lower(low, high), lower(high, low), lower(low, wide)) == (True, False, None)
    assert lower(low, low) is False and lower(low, high, margin=1) is True
    assert lower(low, np.add(low, [0.1, 0.11, 0.12]), margin=0.2) is True  # off zero: it holds, however small
    assert lower(low, np.add(low, [-0.01, 0.0, 0.01]), margin=0.2) is False and lower(low, wide, margin=9) is False
    assert (within([1, 2, 3.0], -1, 5), within([1, 2, 3.0], 5), within([1, 2, 3.0], 2)) == (True, False, None)


def test_verdicts_together():
    assert decided("t", True, np.bool_(True)) == ("t", True) and decided("t", None, False, True) == ("t", False)
    text, holds, note = decided("t", True, None)
    assert text == "t" and holds is None and "cannot tell" in note
    assert together([]) is True


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
