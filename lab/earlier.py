"""A run with --parts keeps the other parts: their runs that were last reported, under the keys in summary.json.

They come from the store. The grid is not asked for them, so the data of these parts need not be there.
"""

import contextlib
import io

from lab import report
from lab.claims import judge
from lab.results import Finished, Results
from lab.store import plain, read_summary

FREE = ("parts", "jobs", "threads", "engine", "profile", "memory")  # arguments in which the two commands may differ


def kept(experiment, script, args, store):
    """(Results of the parts that this command leaves alone, the facts of all data sets that were reported)."""
    facts = read_summary(args.out / script / "summary.json")
    others = [part for part in experiment.parts if part not in args.parts]
    runs = [run for run in facts.get("runs", []) if run["part"] in others]
    if not runs:
        return Results(), []
    before, now = facts["arguments"], plain(report.arguments(args))
    different = [name for name in now if name not in FREE and before.get(name) != now[name]]
    if different:
        print(
            f"{script}: the report is of part {', '.join(args.parts)} alone; the other parts were made with other "
            f"arguments ({', '.join(different)})",
            flush=True,
        )
        return Results(), []
    found = ((run, store.load(run["key"])) for run in runs)
    held = Results(Finished.of(run["part"], run["tags"], run["seed"], run["key"], tree) for run, tree in found if tree)
    return held, facts["data_sets"]


def together(experiment, own, others):
    """The runs of all parts, in the order of the parts."""
    order = list(experiment.parts)
    return Results(sorted([*own, *others], key=lambda run: order.index(run.part)))


def touched(judged, others):
    """Those of [(claim, function of the results)] that say something else without the runs of this command's parts."""
    found = []
    for claim, function in judged:
        with contextlib.redirect_stderr(io.StringIO()):
            without = judge(claim, lambda function=function: function(others))
        if (without.measured, without.holds, without.note) != (claim.measured, claim.holds, claim.note):
            found.append(claim)
    return found
