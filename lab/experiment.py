"""Experiment: a question, a grid of runs, the claims and the figures; everything else a script needs is done here.

    experiment = Experiment(__doc__, task="A1", source="...", parts={"a": Part("regression", "diabetes", "abalone")})

    @experiment.runs
    def runs(args):
        for data in args.data_of("a"):
            for beta in (0.5, 0.9):
                yield Entry("a", Recipe(build, data=data), HeavyBall(beta), RandomReshuffling(16), data=data, beta=beta)

    @experiment.claim("same", "both curves coincide", expected="< 5 %", source="JMLR 2016, Theorem 3")
    def same(results): return measured, holds

    @experiment.figure("loss.png", caption="...")
    def loss(results): return figure

    @experiment.conclusion
    def conclusion(results, claims): return "What was found, and what was not."

    if __name__ == "__main__":
        experiment.main()

The functions are given what they name: the results as their first argument, and, where they have such an argument,
`args` (the command line) and, for the conclusion, `claims` (dict id -> Claim). They see finished runs only, so that a
figure can be drawn again from the store at any time. A claim whose runs are missing is undecided; a claim that fails is
a result, and the script still ends with status 0. A figure or a conclusion that fails for another reason is a bug: its
traceback is printed, the report says so, and the status is 1. A run that raises a UserError is refused with its
sentence, and the others are made; every other error ends the script with its traceback.
"""

import copy
import inspect
import os
import re
import sys
import time
import traceback
import warnings
from pathlib import Path

from lab import data as data_room
from lab import engine, report
from lab.claims import Claim, judge
from lab.engine import Job, Settings
from lab.grid import Entry
from lab.options import default_parts, nearest, parse
from lab.progress import Bar
from lab.results import Finished, MissingRuns, Results
from lab.store import RESULTS, Store, key_of, write_text
from npopt.errors import UserError


class Experiment:
    """See the module.

    doc       the script's docstring: its first paragraph is the question, the rest what theory predicts
    task      the course's number for it, such as "A1"
    source    paper, figure or table
    title     heading of the report; default: the docstring's first sentence
    parts     dict name -> title or Part; default: one part called "a"
    options   list of Option, the script's own arguments
    seeds     number of seeds; quick_seeds with --quick (at least 3 are needed to tell a difference from noise)
    epochs    value of args.epochs where an entry has no `stop`; quick_epochs with --quick
    seconds   between two checkpoints of a run
    """

    def __init__(
        self, doc, task="", source="", title=None, parts=None, options=(), seeds=5, quick_seeds=3, epochs=10,
        quick_epochs=2, seconds=30.0,
    ):  # fmt: skip
        self.doc = inspect.cleandoc(doc or "No question yet.")
        self.question = self.doc
        self.title = title or report.first_sentence(self.doc)
        self.task, self.source, self.parts = task, source, default_parts(parts)
        self.options, self.seeds, self.quick_seeds = list(options), seeds, quick_seeds
        self.epochs, self.quick_epochs, self.seconds = epochs, quick_epochs, seconds
        self.grid, self.claims, self.figures, self.concluding = None, [], [], None

    # ------------------------------------------------------------------------------------------------ decorators
    def runs(self, function):
        """The grid: a function of args that yields entries; with found=None, called again with its runs (lab.finer)."""
        self.grid = function
        return function

    def claim(self, id, statement, expected="", source=""):
        """A claim: a function of the results that returns (measured, holds) or (measured, holds, note)."""

        def keep(function):
            if any(id == claim.id for claim, _ in self.claims):
                raise UserError(f"experiment: two claims are called {id!r}")
            self.claims.append((Claim(id, statement, str(expected), source or self.source), function))
            return function

        return keep

    def figure(self, name, caption=""):
        """A figure: a function of the results; it returns a Figure (.png), or an animation or many Figures (.gif)."""
        if Path(name).suffix not in report.MIME or Path(name).name != name:
            raise UserError(f"experiment: a figure is called something.png or something.gif, got {name!r}")

        def keep(function):
            self.figures.append((name, caption, function))
            return function

        return keep

    def conclusion(self, function):
        """The paragraph that says what was found and what was not: a function of the results that returns a text."""
        self.concluding = function
        return function

    # ------------------------------------------------------------------------------------------------------ main
    def main(self, argv=None, script=None):
        """Run what is missing, then write everything. Ends the process with status 2 and one sentence on bad input."""
        script = script or Path(sys.argv[0]).stem
        args = parse(self, script, sys.argv[1:] if argv is None else argv)
        started = time.monotonic()
        try:
            self.settings = Settings(args.device, args.threads, args.kernels, self.seconds)
            self.settings.apply()
            if args.profile:
                profile(script, self.jobs(args)[0])
                return
            store = Store((args.out / script / "runs").absolute())
            labelled, data = self.jobs(args)
            broken = self.make(script, args, store, labelled)
            if "found" in inspect.signature(self.grid).parameters and not args.quick:
                args.fresh = False
                labelled, data = self.jobs(args, self.load(store, labelled))
                broken |= not args.redraw and self.make(script, args, store, labelled)
            status = 0
            if not broken or self.load(store, labelled):  # where nothing ran, an older report stays as it is
                status = self.write(script, args, store, labelled, data, time.monotonic() - started)
        except BrokenPipeError:  # `| head`: nobody reads any more; everything is written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            print(f"\n{script}: interrupted; all is kept, the same command goes on from here", file=sys.stderr)
            raise SystemExit(130) from None
        except UserError as error:
            print(f"{script}: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        if broken or status:
            raise SystemExit(2 if broken else status)

    def jobs(self, args, found=None):
        """([(entry, job)] for every entry and seed, facts of the data sets)."""
        if self.grid is None:
            raise UserError("the experiment has no grid: decorate a function of args with @experiment.runs")
        data_room.check(args.data)
        labelled, seen, sets = [], set(), {}
        for entry in self.grid(args) if found is None else self.grid(args, found):
            if not isinstance(entry, Entry):
                raise UserError(f"the grid must yield Entry objects, it yielded {type(entry).__name__}")
            if entry.part not in self.parts:
                raise UserError(f"entry {entry.name!r}: no part {entry.part!r}; {nearest(entry.part, self.parts)}")
            label = entry.part, frozenset(entry.tags.items())
            if label in seen:
                raise UserError(f"two entries of part {entry.part!r} have the same tags: {entry.name or 'none'}")
            seen.add(label)
            if entry.part not in args.parts:
                continue
            entry = self.complete(entry, args)
            if entry.recipe.data is not None and entry.recipe.data not in sets:
                sets[entry.recipe.data] = data_room.facts(entry.recipe.data)
            sha = sets[entry.recipe.data]["sha256"] if entry.recipe.data is not None else ""
            printed = entry.printed()
            for seed in entry.seeds or args.seeds:
                key = key_of(
                    method=printed, code=entry.recipe.code(), data=sha, seed=seed, threads=args.threads,
                    device=args.device, kernels=args.kernels, results=RESULTS,
                )  # fmt: skip
                labelled.append((entry, Job(key, entry, seed, printed)))
        if not labelled:
            raise UserError(f"nothing to run: parts {', '.join(args.parts)} have no entries with --data {args.data}")
        return labelled, list(sets.values())

    def complete(self, entry, args):
        """The entry with the stopping rule that it leaves to the lab."""
        if entry.run is not None or entry.stop is not None:
            return entry
        from npopt import Stop

        entry = copy.copy(entry)
        entry.stop = Stop(epochs=args.epochs)
        return entry

    def make(self, script, args, store, labelled):
        """Make the runs that are not stored. Returns whether any was refused; the others are made all the same."""
        jobs = {job.key: job for _, job in labelled}
        if args.fresh and not args.redraw:
            for key in jobs:
                store.discard(key)
        store.sweep()
        missing = [job for job in jobs.values() if store.load(job.key) is None]
        refused = 0
        if args.redraw:
            if len(missing) == len(jobs):
                where = str(args.out / script)
                raise UserError(f"no stored run of this grid in {where!r}: run it first, without --redraw")
            if missing:
                print(f"{script}: {len(missing)} of {len(jobs)} runs are missing; drawn without them", file=sys.stderr)
            return False
        print(f"{script}: {len(jobs)} runs, {len(jobs) - len(missing)} stored, {len(missing)} to make", flush=True)
        with Bar(store, [job.key for job in missing], script) as bar:
            for outcome in engine.collect(missing, store, self.settings, args.jobs, args.engine, args.address):
                if outcome.status == "interrupted":
                    raise KeyboardInterrupt
                if outcome.status == "refused":
                    refused += 1
                    entry = outcome.job.entry
                    where = f"part {entry.part}, {entry.name}, seed {outcome.job.seed}"
                    bar.bar.write(f"{script}: {where}: {outcome.message}", file=sys.stderr)
                elif outcome.run and not store.has(outcome.job.key):
                    store.save(outcome.job.key, outcome.run)
                bar.finished(outcome.job.key)
        return bool(refused)

    def load(self, store, labelled):
        """The finished runs of the grid, in its order."""
        found = Results()
        for entry, job in labelled:
            stored = store.load(job.key)
            if stored is None:
                continue
            columns = stored["columns"]
            final = {name: values[-1].item() for name, values in columns.items() if values.ndim == 1 and len(values)}
            found.append(
                Finished(
                    entry.part, entry.tags, job.seed, columns=columns, final=final, key=job.key,
                    x=stored.get("x"), answer=stored.get("answer", stored.get("x")),
                    **{name: stored[name] for name in ("config", "reason", "seconds", "loop", "memory")},
                )
            )  # fmt: skip
        return found

    def write(self, script, args, store, labelled, data, elapsed):
        """Claims, figures, tables and files from the store. Returns the exit status."""
        folder, results = args.out / script, self.load(store, labelled)
        claims = [judge(claim, lambda f=f: given(f, results, args=args)) for claim, f in self.claims]
        figures = [self.draw(folder, name, caption, f, results, args) for name, caption, f in self.figures]
        text, bug = self.conclude(results, args, claims)
        status = int(bug or any(figure["bug"] for figure in figures))
        facts = report.summary(self, script, args, results, claims, data, [
            {k: figure[k] for k in ("name", "caption", "reason")} for figure in figures
        ]) | {"conclusion": text}  # fmt: skip
        report.write_csv(folder / "runs.csv", results)
        write_text(folder / "summary.json", report.as_json(facts))
        report.write_report(folder, self, facts, results, claims, figures, text)
        report.write_index(args.out)
        self.tell(folder, results, claims, text, elapsed)
        return status

    def draw(self, folder, name, caption, function, results, args):
        """Draw one figure; a dict with its name and caption, and the reason where there is no picture."""
        from lab import figures, pictures

        reason, bug = "", False
        try:
            with figures.style(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="All-NaN slice")
                pictures.save(given(function, results, args=args), folder / name)
        except MissingRuns as error:
            reason = f"not drawn: {error}"
        except Exception as error:
            reason, bug = f"not drawn, {type(error).__name__}: {error}", True
            print(f"figure {name} could not be drawn:", file=sys.stderr)
            traceback.print_exc()
        if reason:
            (folder / name).unlink(missing_ok=True)  # no picture of other runs may stay under this caption
        return {"name": name, "caption": caption, "reason": reason, "bug": bug}

    def conclude(self, results, args, claims):
        """(the text, whether a bug kept it from being drawn)."""
        if self.concluding is None:
            return self.list_claims(results, claims), False
        try:
            text = given(self.concluding, results, args=args, claims={claim.id: claim for claim in claims})
            return str(text), False
        except MissingRuns as error:
            return f"No conclusion: {error}.", False
        except Exception as error:
            print("the conclusion could not be drawn:", file=sys.stderr)
            traceback.print_exc()
            return f"No conclusion, {type(error).__name__}: {error}.", True

    def list_claims(self, results, claims):
        """Where no conclusion is written: how many claims held, and the others by name."""
        failed, open_ = ([c for c in claims if c.holds is mark] for mark in (False, None))
        blocks = [f"{len(claims) - len(failed) - len(open_)} of {len(claims)} claims held."] if claims else []
        for title, some in (("Did not hold", failed), ("Could not be decided", open_)):
            if some:
                blocks.append(f"{title}: " + "; ".join(f"{c.statement} ({c.measured or c.note})" for c in some) + ".")
        return "\n\n".join(blocks)

    def tell(self, folder, results, claims, text, elapsed):
        """The end of the script in the terminal: final numbers, claims, conclusion, where the report is."""
        for part in results.parts:
            print(f"\npart {part}: {self.parts[part].title}")
            print(report.text_table(*report.final_table(results, part)))
        if claims:
            print("\n" + report.claims_text(claims))
        if text:
            print("\n" + "\n\n".join(re.sub(r"\s+", " ", block) for block in text.strip().split("\n\n")))
        print(f"\n{len(results)} runs, {report.duration(elapsed)}; report: {folder / 'report.html'}", flush=True)


PROFILED = 10  # steps


def profile(script, labelled):
    """Print where the time of a step goes, layer by layer, for every network and batch that the grid trains."""
    from nn import Profile
    from npopt import Events, Stop, minimize

    seen, networks = {}, 0
    for entry, _ in labelled:
        if entry.problem is None or (repr(entry.problem), repr(entry.sampler)) in seen:
            continue
        problem = entry.problem()
        known = (problem.name, repr(entry.sampler)) in seen.values()
        seen[repr(entry.problem), repr(entry.sampler)] = problem.name, repr(entry.sampler)
        if known or not hasattr(problem, "network"):
            continue
        problem.metrics = lambda x: {}
        given = dict(sampler=entry.sampler, schedule=0.0, events=Events(None))
        minimize(problem, entry.optimizer, **given, stop=Stop(steps=2))  # compiled and warm
        with Profile() as found:
            run = minimize(problem, entry.optimizer, **given, stop=Stop(steps=PROFILED))
        step = run.columns["seconds"][-1] / PROFILED * 1e3
        print(f"\n{problem.name}, {entry.sampler}, {entry.optimizer}: {step:.2f} ms a step, clocks included")
        print(found.table(), flush=True)
        networks += 1
    if not networks:
        raise UserError("--profile is for networks, and the chosen parts train none")


def given(function, results, **known):
    """Call the function with the results and those of the known things that it has an argument for; an argument with a
    default that names no such thing keeps its default."""
    wanted = list(inspect.signature(function).parameters.values())[1:]
    names = [a.name for a in wanted if a.name in known or a.default is a.empty]
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(known)
        raise TypeError(
            f"{function.__name__}: unknown argument {', '.join(unknown)}; besides the results there is {there}"
        )
    return function(results, **{name: known[name] for name in names})
