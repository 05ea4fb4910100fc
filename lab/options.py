"""The arguments that every script takes, and the sentences that come back when one of them is wrong."""

import argparse
import difflib
import math
import shlex
import textwrap
from pathlib import Path

from lab.grid import Part
from lab.store import read_summary
from npopt.errors import UserError

import joblib

BUNDLED, REAL = "bundled", "real"


class Option:
    """An argument of one script: Option("--beta", type=float, default=0.9, help="momentum"), as argparse spells it."""

    def __init__(self, *names, **settings):
        self.names, self.settings = names, settings


class Arguments(argparse.Namespace):
    """What the command line said: data, device, seeds (a list), epochs, quick, jobs, threads, out, engine, address,
    kernels, parts (a list), profile, memory, fresh, redraw, and the script's own options."""

    only = None  # the parts that may ask for data; None: all

    def budget(self, full, quick):
        """The number of epochs of an entry: --epochs if it was given, else `quick` under --quick, else `full`."""
        return self.epochs_given or self.pick(full, quick)

    def pick(self, full, quick):
        """`quick` under --quick, else `full`."""
        return quick if self.quick else full

    def data_of(self, part):
        """Names of the data sets that the part uses under --data, a list.

        `bundled` and `real` are looked up in the part. Any other name is a data set. The parts that list it use it, and
        all others get an empty list and are left out. If no part lists it, every part uses it. A part that --parts
        leaves out gets an empty list.
        """
        if self.only is not None and part not in self.only:
            return []
        table = self.part_table
        if self.data == BUNDLED:
            return list(table[part].bundled)
        if self.data == REAL:
            return list(table[part].real or table[part].bundled)
        listed = any(self.data in other.names for other in table.values())
        return [self.data] if self.data in table[part].names or not listed else []


class Parser(argparse.ArgumentParser):
    """argparse, with one sentence for an error."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


def nearest(word, known):
    """' ; did you mean ...?' as the end of an error's sentence, or the list of what there is."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there is {', '.join(known)}"


def whole(low, what):
    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low:
            raise argparse.ArgumentTypeError(f"{what} must be a whole number of at least {low}, got {text!r}")
        return value

    return parse


def positive(text):
    """A positive number, as an int where it is whole."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"epochs must be a positive number, got {text!r}")
    return int(value) if value == int(value) else value


def seeds(text):
    """'5' is the list 0..4; '0,3,7' and '3,' are the lists of these numbers."""
    try:
        if "," not in text:
            count = int(text)
            if count < 1:
                raise ValueError
            return list(range(count))
        found = [int(item) for item in text.split(",") if item.strip()]
        if not found or min(found) < 0 or len(set(found)) < len(found):
            raise ValueError
        return found
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"seeds must be a count of at least 1, or different whole numbers such as 0,3,7, got {text!r}"
        ) from None


def engine(text):
    if text in ("local", "dask", "mpi"):
        return text
    gone = "Ray is not supported any more, because its joblib backend never started a run; " if text == "ray" else ""
    raise argparse.ArgumentTypeError(f"{gone}the engines are local, dask and mpi, got {text!r}")


def parser(experiment, script):
    """The Parser of one experiment."""
    parts = "".join(f"\n  {name}  {part.title}" for name, part in experiment.parts.items())
    question = textwrap.dedent(experiment.doc).strip()
    p = Parser(
        prog=script,
        description=question + (f"\n\nparts:{parts}" if len(experiment.parts) > 1 else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def add(name, help, **settings):
        p.add_argument(name, help=help, **settings)

    some, quick = experiment.seeds, experiment.quick_seeds
    text = "bundled (default): data that come with scikit-learn; real: the sets the question is about; or a set's name"
    add("--data", text, default=BUNDLED, metavar="NAME")
    add("--device", "where the arrays live (default: cpu)", choices=("cpu", "gpu"), default="cpu")
    add("--seeds", f"how many, or a list such as 0,3,7 (default: {some}, quick: {quick})", type=seeds, metavar="N")
    add("--epochs", "passes over the data, instead of each part's own", type=positive, metavar="E")
    add("--quick", "a small version of every part, in a minute or so", action="store_true")
    add("--parts", f"only these parts, such as {','.join(list(experiment.parts)[:2])}", metavar="LIST")
    add("--jobs", "runs at the same time (default: 1)", type=whole(1, "jobs"), default=1, metavar="N")
    text = "threads of one run, at most: small networks take one (default: cores / jobs)"
    add("--threads", text, type=whole(1, "threads"), metavar="N")
    add(
        "--engine",
        "who makes the runs: local (default), dask, or mpi: the ranks of mpiexec",
        type=engine,
        default="local",
        metavar="NAME",
    )
    add("--address", "of a running Dask cluster (default: start one here)", metavar="HOST:PORT")
    add(
        "--kernels",
        "network kernels: compiled, with less rounding, or plain array code",
        choices=("fast", "accurate", "reference"),
        default="fast",
    )
    add("--profile", "store nothing: a few steps of each network, and the time of each layer", action="store_true")
    add("--memory", "store nothing: bytes of each method's step by kind, counted and measured", action="store_true")
    add("--out", "results go to FOLDER/<script> (default: results)", default="results", metavar="FOLDER")
    add("--fresh", "forget the stored runs of this grid and start again", action="store_true")
    add("--redraw", "run nothing: figures and report again from the stored runs", action="store_true")
    group = p.add_argument_group("options of this script") if experiment.options else p
    for option in experiment.options:
        group.add_argument(*option.names, **option.settings)
    return p


def lasting(words):
    """The words of a command line that say what is run: without paths, addresses, --fresh and --redraw."""
    kept, words = [], list(words)
    while words:
        word = words.pop(0)
        if word in ("--out", "--address"):
            words = words[1:]
        elif word not in ("--fresh", "--redraw") and not word.startswith(("--out=", "--address=")):
            kept.append(word)
    return kept


def merged(words):
    """The words with each option once: the last that was given stands."""
    found, name = {}, None
    for word in words:
        if word.startswith("--"):
            name = word.split("=")[0]
            found[name] = []
        found[name].append(word)
    return [word for group in found.values() for word in group]


def check(p, args):
    """Refuse values that an option allows, and this machine or another option does not."""
    if args.threads and args.threads > joblib.cpu_count() and args.engine == "local" and not args.redraw:
        p.error(f"argument --threads: this machine has {joblib.cpu_count()} cores, got {args.threads}")
    if args.jobs > 1 and args.engine == "mpi":
        p.error("argument --jobs: all ranks make one run at a time")
    if args.address and args.engine != "dask":
        p.error("argument --address: it is that of a cluster; add --engine dask")


def before(path):
    """The words of the command behind a summary.json; an empty list where there is no whole one."""
    facts = read_summary(path)
    try:
        words = shlex.split(facts.get("command", ""))[3:]
    except ValueError:
        return []
    known = not facts or "--threads" in words
    return words if known else [*words, "--threads", str(facts.get("threads", 1))]


def parse(experiment, script, words):
    """Arguments, with every default filled in. With --redraw the words of the stored results go before those given."""
    p = parser(experiment, script)
    args = p.parse_args(words, Arguments())
    if args.redraw:
        try:
            words = merged([*before(Path(args.out) / script / "summary.json"), *words])
        except UserError as error:
            p.exit(2, f"{script}: {error}\n")
        args = p.parse_args(words, Arguments())
    check(p, args)
    args.words = lasting(words)
    wanted = list(experiment.parts) if args.parts is None else [w for w in args.parts.replace(",", " ").split()]
    for part in wanted:
        if part not in experiment.parts:
            p.error(f"no part is called {part!r}; {nearest(part, experiment.parts)}")
    args.parts = [part for part in experiment.parts if part in wanted]
    if not args.parts:
        p.error(f"--parts names no part; {nearest('', experiment.parts)}")
    args.part_table = experiment.parts
    args.seeds = args.seeds or list(range(experiment.quick_seeds if args.quick else experiment.seeds))
    args.epochs_given = args.epochs
    args.epochs = args.budget(experiment.epochs, experiment.quick_epochs)
    args.threads = args.threads or (1 if args.engine == "mpi" else max(1, joblib.cpu_count() // args.jobs))
    args.out = Path(args.out)
    return args


def default_parts(parts):
    """parts as the experiment was given them (None, or name -> title or Part) as a dict name -> Part."""
    return {name: part if isinstance(part, Part) else Part(part) for name, part in (parts or {"a": "all runs"}).items()}
