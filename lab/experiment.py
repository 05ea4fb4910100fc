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

The functions get the results as their first argument. One with an argument `args` also gets the command line, and a
conclusion with an argument `claims` also gets a dict id -> Claim. They see finished runs only, so a figure can be drawn
again from the store at any time. A claim whose runs are missing is undecided. A claim that fails is a result, and the
script still ends with status 0. A run, a claim, a figure or a conclusion that fails for another reason is a bug: its
traceback is printed, the report says so, all others are made, and the status is 1. A run that raises a UserError is
refused with its sentence; where nothing worse happens, the status is then 2.
"""

import contextlib
import copy
import inspect
import re
import sys
import textwrap
import time
import traceback
import warnings
from pathlib import Path

from lab import data as data_room
from lab import earlier, engine, ingredients, processes, provenance, ranks, report
from lab.account import print_accounts
from lab.album import Album
from lab.claims import Claim, judge
from lab.engine import Job, Settings
from lab.grid import Entry, tell_apart
from lab.options import default_parts, nearest, parse
from lab.profiling import profile
from lab.progress import Bar, Doing
from lab.results import Finished, MissingRuns, Results
from lab.store import RESULTS, Store, key_of, write_text
from npopt.checkpoint import Unwritable
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
    figures   an Album from a file of its own; `experiment.figure` adds to a copy of it
    epochs    value of args.epochs where an entry has no `stop`; quick_epochs with --quick
    seconds   between two checkpoints of a run
    """

    def __init__(
        self, doc, *, task="", source="", title=None, parts=None, options=(), figures=(), seeds=5, quick_seeds=3,
        epochs=10, quick_epochs=2, seconds=30.0,
    ):  # fmt: skip
        self.doc = inspect.cleandoc(doc or "No question yet.")
        self.question = self.doc
        self.title = title or report.first_sentence(self.doc)
        self.task, self.source, self.parts = task, source, default_parts(parts)
        self.options, self.seeds, self.quick_seeds = list(options), seeds, quick_seeds
        self.epochs, self.quick_epochs, self.seconds = epochs, quick_epochs, seconds
        self.grid, self.claims, self.figures, self.concluding = None, [], Album(figures), None
        self.figure = self.figures.figure

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

    def conclusion(self, function):
        """The paragraph that says what was found and what was not: a function of the results that returns a text."""
        self.concluding = function
        return function

    # ------------------------------------------------------------------------------------------------------ main
    def main(self, argv=None, script=None):
        """Run what is missing, then write everything. Ends the process with status 2 and one sentence on bad input."""
        if processes.worker:
            raise SystemExit  # the script has been loaded for its functions
        script, words = script or Path(sys.argv[0]).stem, sys.argv[1:] if argv is None else argv
        started = time.monotonic()
        with ranks.joined(self, script, words) as own, processes.ending(script):
            args = parse(self, script, words)
            if own:
                own.check(args)
            self.settings = Settings(args.device, args.threads, args.kernels, self.seconds, self.text(), own)
            self.settings.apply()
            if args.profile:
                profile(script, self.jobs(args)[0])
                return
            if args.memory:
                print_accounts(self.jobs(args)[0])
                return
            store = Store((args.out / script / "runs").absolute())
            labelled, data = self.jobs(args)
            troubles = self.make(script, args, store, labelled)
            if "found" in inspect.signature(self.grid).parameters and not args.quick:
                args.fresh = False
                labelled, data = self.jobs(args, self.load(store, labelled))
                troubles += [] if args.redraw else self.make(script, args, store, labelled)
            bugs = [trouble for trouble in troubles if trouble["status"] == "failed"]
            status = 1 if bugs else 2 if troubles else 0
            if bugs or not troubles or self.load(store, labelled):  # where all is refused, an older report stays
                worse = self.write(script, args, store, labelled, data, troubles, started)
                status = worse or status
            if status:
                raise SystemExit(status)

    def text(self):
        """(path, text) of the script that runs this experiment; (None, None) elsewhere, as in a notebook."""
        main = sys.modules["__main__"]
        if all(value is not self for value in vars(main).values()) or not hasattr(main, "__file__"):
            return None, None
        return main.__file__, Path(main.__file__).read_text(encoding="utf-8")

    def jobs(self, args, found=None):
        """([(entry, job)] for every entry and seed, facts of the data sets)."""
        if self.grid is None:
            raise UserError("the experiment has no grid: decorate a function of args with @experiment.runs")
        data_room.check(args.data)
        labelled, seen, sets = [], {}, {}
        asked = copy.copy(args)
        asked.only = args.parts  # the data of other parts need not be there
        for entry in self.grid(asked) if found is None else self.grid(asked, found):
            if not isinstance(entry, Entry):
                raise UserError(f"the grid must yield Entry objects, it yielded {type(entry).__name__}")
            if entry.part not in self.parts:
                raise UserError(f"entry {entry.name!r}: no part {entry.part!r}; {nearest(entry.part, self.parts)}")
            tell_apart(entry, seen)
            if entry.part not in args.parts:
                continue
            entry = self.complete(entry, args)
            ranks.check_entry(entry, args)
            own = data_room.sets_of(entry.recipe)
            sets |= {name: data_room.facts(name) for name in own if name not in sets}
            printed, found = entry.printed(), ingredients.of(entry)
            for seed in entry.seeds or args.seeds:
                key = key_of(
                    method=printed, **found, data={name: sets[name]["sha256"] for name in own}, seed=seed,
                    threads=args.threads, device=args.device, kernels=args.kernels, results=RESULTS,
                    **ranks.ingredients(args),
                )  # fmt: skip
                labelled.append((entry, Job(key, entry, seed, printed)))
        if not labelled:
            raise UserError(f"nothing to run: parts {', '.join(args.parts)} have no entries with --data {args.data}")
        return labelled, list(sets.values())

    def complete(self, entry, args):
        """The entry, with a stopping rule from the lab if it has none."""
        if entry.run is not None or entry.stop is not None:
            return entry
        from npopt import Stop

        entry = copy.copy(entry)
        entry.stop = Stop(epochs=args.epochs)
        return entry

    def make(self, script, args, store, labelled):
        """Make the runs that are not stored. Returns those that could not be made, as `troubles` lists them."""
        jobs = {job.key: job for _, job in labelled}
        if args.fresh and not args.redraw:
            for key in jobs:
                store.discard(key)
        store.sweep()
        missing = [job for job in jobs.values() if store.load(job.key) is None]
        if args.redraw:
            if len(missing) == len(jobs):
                raise UserError(f"no stored run of this grid in {str(args.out / script)!r}{store.hint()}")
            if missing:
                print(f"{script}: {len(missing)} of {len(jobs)} runs are missing; drawn without them", file=sys.stderr)
            return []
        print(f"{script}: {len(jobs)} runs, {len(jobs) - len(missing)} stored, {len(missing)} to make", flush=True)
        found = {}
        made = engine.collect(missing, store, self.settings, args.jobs, args.engine, args.address)
        with Bar(store, [job.key for job in missing], script) as bar, contextlib.closing(made):
            for outcome in made:
                if outcome.status == "interrupted":
                    raise KeyboardInterrupt
                if outcome.status == "unwritable":
                    raise UserError(f"{outcome.message}; what was stored is kept, the same command goes on from there")
                if outcome.status in ("refused", "failed"):
                    bar.bar.write(f"{script}: {told(outcome, found.values())}", file=sys.stderr)
                    found[outcome.job.key] = outcome
                elif outcome.run and not store.has(outcome.job.key):
                    store.save(outcome.job.key, outcome.run)
                bar.finished(outcome.job.key)
        return troubles(labelled, found)

    def load(self, store, labelled):
        """The finished runs of the grid, in its order."""
        found = Results()
        for entry, job in labelled:
            stored = store.load(job.key)
            if stored is not None:
                found.append(Finished.of(entry.part, entry.tags, job.seed, job.key, stored))
        return found

    def write(self, script, args, store, labelled, data, troubles, started):
        """Claims, figures, tables and files from the store. Returns the exit status."""
        folder, (others, sets) = args.out / script, earlier.kept(self, script, args, store)
        results = earlier.together(self, self.load(store, labelled), others)
        data = list({known["name"]: known for known in [*sets, *data]}.values())
        with Doing(f"{script}: judging claims"):
            claims = [judge(claim, lambda f=f: given(f, results, args=args)) for claim, f in self.claims]
        figures = [self.draw(folder, name, caption, f, results, args) for name, caption, f in self.figures]
        text, bug = self.conclude(results, args, claims)
        bug = bug or any(claim.broken for claim in claims) or any(figure["bug"] for figure in figures)
        facts = report.summary(self, script, args, results, claims, data, [
            {k: figure[k] for k in ("name", "caption", "reason")} for figure in figures
        ]) | {"conclusion": text, "troubles": troubles, "kept": others.parts}  # fmt: skip
        report.write_csv(folder / "runs.csv", results)
        write_text(folder / "summary.json", report.as_json(facts))
        report.write_report(folder, self, facts, results, claims, figures, text)
        provenance.write(folder, facts)
        report.write_index(args.out)
        if len(args.parts) < len(self.parts):  # the terminal hears of these parts alone
            ways = (lambda some, f=f: given(f, some, args=args) for _, f in self.claims)
            claims = earlier.touched(zip(claims, ways, strict=True), others)
            text = self.list_claims(results, claims)
        self.tell(folder, args.parts, results, claims, text, started)
        return int(bug)

    def draw(self, folder, name, caption, function, results, args):
        """Draw one figure. Returns a dict with its name and caption, the reason where there is no picture, and for
        Surfaces what the page needs to turn them."""
        from lab import figures, pictures, turn

        reason, bug, turned = "", False, None
        try:
            with Doing(f"drawing {name}"), figures.style(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="All-NaN slice")
                shown = given(function, results, args=args)
                if some := turn.surfaces(shown):
                    turned, shown = turn.payload(some), turn.picture(some)
                pictures.save(shown, folder / name, shaded=turned is not None, sketch=args.quick)
        except MissingRuns as error:
            reason = f"not drawn: {error}"
        except Unwritable:
            raise
        except Exception as error:
            reason, bug, turned = f"not drawn, {type(error).__name__}: {error}", True, None
            print(f"figure {name} could not be drawn:", file=sys.stderr)
            traceback.print_exc()
        if reason:
            (folder / name).unlink(missing_ok=True)  # no picture of other runs may stay under this caption
        return {"name": name, "caption": caption, "reason": reason, "bug": bug, "turn": turned}

    def conclude(self, results, args, claims):
        """(the text, whether a bug kept the conclusion from being drawn)."""
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
        """The text where no conclusion is written: how many claims held, and the others by name."""
        failed, open_ = ([c for c in claims if c.holds is mark] for mark in (False, None))
        blocks = [f"{len(claims) - len(failed) - len(open_)} of {len(claims)} claims held."] if claims else []
        for title, some in (("Did not hold", failed), ("Could not be decided", open_)):
            if some:
                blocks.append(f"{title}: " + "; ".join(f"{c.statement} ({c.measured or c.note})" for c in some) + ".")
        return "\n\n".join(blocks)

    def tell(self, folder, parts, results, claims, text, started):
        """The end of the script in the terminal: final numbers, claims, conclusion, where the report is."""
        for part in [part for part in results.parts if part in parts]:
            print(f"\npart {part}: {self.parts[part].title}")
            print(report.text_table(*report.final_table(results, part)))
        if claims:
            print("\n" + report.claims_text(claims))
        if text:
            print("\n" + "\n\n".join(re.sub(r"\s+", " ", block) for block in text.strip().split("\n\n")))
        elapsed = report.duration(time.monotonic() - started)  # with figures and report
        print(f"\n{len(results)} runs, {elapsed}; report: {folder / 'report.html'}", flush=True)


def told(outcome, before):
    """What the terminal says of a run that could not be made; a traceback that was printed before is not repeated."""
    entry = outcome.job.entry
    where = f"part {entry.part}, {entry.name}, seed {outcome.job.seed}"
    if outcome.status == "refused":
        return f"{where}: {outcome.message}"
    if any(outcome.message == other.message for other in before):
        return f"{where}: failed in the same way"
    return f"{where}: failed\n{textwrap.indent(outcome.message, '    ')}"


def troubles(labelled, outcomes):
    """[{part, name, seed, status, message}]: the runs of the grid that could not be made, in its order."""
    return [
        {"part": entry.part, "name": entry.name, "seed": job.seed}
        | {"status": outcomes[job.key].status, "message": outcomes[job.key].message}
        for entry, job in labelled
        if job.key in outcomes
    ]


def given(function, results, **known):
    """Call the function with the results, and with those of the known things that its arguments name. An argument with
    a default keeps it, if it names no such thing."""
    wanted = list(inspect.signature(function).parameters.values())[1:]
    names = [a.name for a in wanted if a.name in known or a.default is a.empty]
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(known)
        raise UserError(
            f"{function.__name__}: unknown argument {', '.join(unknown)}; besides the results there is {there}"
        )
    return function(results, **{name: known[name] for name in names})
