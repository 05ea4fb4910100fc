"""The command `npopt`: list, run, all, report; methods, show, gradcheck (files of their own, see LIBRARY).

Every script runs in its own process, like python scripts/NAME.py. `npopt all` runs as many scripts at a time as there
are cores, each on one core. So compilation and figures of one overlap with the runs of another. It prints a row of its
table as each script ends. What a script prints goes to <out>/<script>/output.txt.
"""

import ast
import concurrent.futures
import importlib
import os
import queue
import sys
import threading
import time
from pathlib import Path

from lab import data, options, ranks, report
from lab.claims import counts
from lab.experiment import Experiment
from lab.options import nearest
from lab.processes import Interrupts, quiet, spawn
from lab.progress import Doing
from lab.store import read_summary
from lab.warm import Warm
from lab.workers import manner
from npopt import checkpoint
from npopt.backend import cores
from npopt.checkpoint import Unwritable
from npopt.errors import UserError

USAGE = """npopt: a laboratory for the optimisation of deep learning, in NumPy

  npopt list                      the scripts: task, name, question
  npopt run NAME [options]        run one, or FILE.py, a script of your own; npopt run NAME --help
                                  says what it asks, and which options are its own
  npopt all [--quick] [options]   run every script, on all cores (--jobs: on some), and write
                                  results/index.html
  npopt report [NAME] [options]   figures and reports again from stored results, without running
  npopt methods [WORD]            every optimizer, sampler, layer, ...: paper, file, state, tests
  npopt show NAME                 the derivation and the code of one of them
  npopt gradcheck [NAME ...]      layers and networks, all or those named, or FILE.py:CLASS, against
                                  differences; npopt gradcheck --help
  npopt verse LINE [options]      a network writes the lower line of a couplet, or --page: in a
                                  browser; npopt verse --help
  npopt generate --model PATH --prompt TEXT
                                  a language model goes on with your text; npopt generate --help

Finished runs are kept: a command that was stopped goes on where it was. Options that every script
takes (the defaults of --seeds are those of most):
"""

LIBRARY = {
    "methods": "lab.methods",
    "show": "lab.listing",
    "gradcheck": "lab.gradchecks",
    "verse": "lab.assistant",
    "generate": "lab.generate",
}  # imported when asked for


ROW = "{:7} {:{}} {:>11} {:>5} {:>5} {:>9}"  # 60 columns
VERDICTS = ("holds", "fails", "undecided")


RUNNING, ENDING = set(), threading.Event()  # scripts of `npopt all`, and whether they have been told to end


def main(argv=None):
    """Returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {"list": list_scripts, "run": run, "all": run_all, "report": redraw, **dict.fromkeys(LIBRARY)}
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] not in commands:
        return refuse(f"no command is called {words[0]!r}; {nearest(words[0], commands)}")
    try:
        Interrupts.listen()
        if words[0] in LIBRARY:
            answer = importlib.import_module(LIBRARY[words[0]]).command(words[1:])
            return refuse(answer) if isinstance(answer, str) else answer
        return commands[words[0]](words[1:])
    except UserError as error:
        return refuse(error)
    except KeyboardInterrupt:
        return Interrupts.status()
    except BrokenPipeError:  # `| head`: nobody reads any more
        quiet()
        return 1
    except Unwritable as error:
        return refuse(error)


def usage():
    """The commands, and the options of every script with what they mean."""
    words = options.parser(Experiment("Every script."), "npopt").format_help()
    return USAGE + words.split("show this help message and exit\n")[1].rstrip()


def refuse(sentence):
    print(f"npopt: {sentence}", file=sys.stderr)
    return 2


def scripts():
    """{name: path} of the scripts beside the package (or in the current folder, for an installed package)."""
    for folder in (Path(__file__).resolve().parents[1] / "scripts", Path("scripts")):
        found = {path.stem: path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")}
        if found:
            return {name: path for name, path in found.items() if described(path)}
    return {}


def described(path):
    """(task, question) of a script, read from its text without running it; None where it makes no Experiment."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        return "", f"(cannot be read: {error})"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Experiment":
            words = {word.arg: getattr(word.value, "value", "") for word in node.keywords}
            return words.get("task", ""), report.first_sentence(ast.get_docstring(tree) or "")
    return None


def list_scripts(words):
    if words:
        return refuse(f"list takes no arguments, got {' '.join(words)!r}")
    rows = [(described(path)[0], name, described(path)[1]) for name, path in scripts().items()]
    if not rows:
        return refuse("no scripts here; run it in a checkout of the repository")
    width = max(len(name) for _, name, _ in rows)
    for task, name, question in sorted(rows, key=lambda row: report.task_order(row[0])):
        print(f"{task:7} {name:{width}}  {question}")
    return 0


def start(path, words):
    """Run a script and return its exit status. If npopt is told to end, it tells the script, which saves and ends."""
    mpi = ranks.asked(words)  # a rank then talks to mpiexec through a file that it inherits
    process, told = spawn([sys.executable, str(path), *words], close_fds=not mpi), False
    while True:
        try:
            status = process.wait()
            break
        except KeyboardInterrupt:
            process.terminate()
            told = True
    if told:
        raise KeyboardInterrupt
    if status < 0:
        if mpi:
            print(
                f"npopt: rank {ranks.launched() or 0} ended {manner(status)}, and the others end with it; what was "
                "stored is kept, the same command goes on from there",
                file=sys.stderr,
                flush=True,
            )
            return 128 - status
        print(
            f"npopt: {path.stem} ended {manner(status)}; what was stored is kept, and with --jobs 2 each run has a "
            "process of its own, so a run that ends its process leaves the others alone",
            file=sys.stderr,
        )
        return 128 - status
    return status


def chosen(name):
    """(path, None) for a script, given by its name or as a file; or (None, the sentence that says there is none)."""
    known, file = scripts(), Path(name)
    if name.removesuffix(".py") in known:
        return known[name.removesuffix(".py")], None
    if file.suffix == ".py" or file.name != name:
        if not file.is_file():
            return None, f"there is no file {name!r}"
        if file.suffix == ".py" and described(file):
            return file, None
        return None, f"{name!r} is no script of the lab: a .py file that makes an Experiment, as readme.txt shows"
    return None, f"no script is called {name!r}; " + (nearest(name, known) if known else "there are no scripts here")


def run(words):
    if not words or words[0].startswith("-"):
        return refuse("name a script, as in: npopt run NAME; npopt list shows them")
    path, sentence = chosen(words[0])
    return refuse(sentence) if path is None else start(path, words[1:])


def run_all(words):
    """Run every script, some at a time. A script that fails does not stop the others, but the status is then 1."""
    known = scripts()
    if "-h" in words or "--help" in words:
        print(usage())
        return 0
    if not known:
        return refuse("no scripts here; run it in a checkout of the repository")
    jobs, words = shared(words, len(known))
    check_options("npopt all", words)
    try:
        checkpoint.writable(folder_of(words) / "index.html")
    except ValueError as error:
        return refuse(f"{error} with --out")
    order = sorted(known, key=lambda name: report.task_order(described(known[name])[0]))
    width, failed, started = max(map(len, order)), [], time.monotonic()
    print(f"{len(order)} scripts, {jobs} at a time\n\n" + ROW.format("task", "script", width, "time", *VERDICTS))
    ENDING.clear()
    pool, warm = concurrent.futures.ThreadPoolExecutor(jobs), queue.SimpleQueue()
    for _ in range(jobs):
        warm.put(Warm())
    runs = {pool.submit(quietly, known[name], words, warm): name for name in spread(order, jobs)}
    try:
        for ended in watched(runs):
            name, (status, seconds) = runs[ended], ended.result()
            found = [f"failed ({status})", "", ""] if status else tally(folder_of(words) / name / "summary.json")
            task = described(known[name])[0]
            print(ROW.format(task, name, width, report.duration(seconds), *found).rstrip(), flush=True)
            if status:
                failed.append(name)
                print(last_words(folder_of(words) / name), file=sys.stderr)
    finally:  # told to end, or nobody reads what is printed: the scripts save and end
        pool.shutdown(wait=False, cancel_futures=True)
        ENDING.set()
        for process in list(RUNNING):
            process.terminate()
        pool.shutdown()
        while not warm.empty():
            warm.get().close()
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    index = report.write_index(folder_of(words))
    print(f"\n{len(order)} scripts, {report.duration(time.monotonic() - started)}; all reports: {index}")
    return 1 if failed else 0


def spread(order, jobs):
    """The names, those of each of `jobs` pieces in turn: neighbours would compile the same kernels at the same time."""
    step = -(-len(order) // jobs)
    return [order[k] for i in range(step) for k in range(i, len(order), step)]


def watched(runs):
    """The futures of `npopt all` as they end; the terminal's last line says which scripts are waited for."""

    def waited():
        names = ", ".join(name for future, name in runs.items() if future.running())
        return f"{sum(future.done() for future in runs)} of {len(runs)} done; now: {names}"

    ends = concurrent.futures.as_completed(runs)
    for _ in runs:
        with Doing(waited):
            ended = next(ends)
        yield ended


def check_options(prog, words):
    """Refuse options that no script takes, before any script starts. It prints one sentence and ends this process."""
    p = options.parser(Experiment("Every script."), prog)
    args = p.parse_args(words, options.Arguments())
    options.check(p, args)
    if args.parts:
        p.error("argument --parts: parts are those of one script; name it")
    data.check(args.data)


def shared(words, count):
    """(scripts at a time, the words for each). --jobs of the command, or all cores, are shared out among the scripts.
    A run has one core, unless --threads says otherwise."""
    jobs, rest = cores(), list(words)
    for i, word in enumerate(words):
        if word == "--jobs" or word.startswith("--jobs="):
            text, drop = (word[7:], 1) if "=" in word else (words[i + 1] if i + 1 < len(words) else "", 2)
            if not text.isdigit() or int(text) < 1:
                raise UserError(f"jobs must be a whole number of at least 1, got {text!r}")
            jobs, rest = int(text), [*words[:i], *words[i + drop :]]
    threads = [] if any(word.split("=")[0] == "--threads" for word in rest) else ["--threads", "1"]
    at_once = min(jobs, count)
    return at_once, [*rest, "--jobs", str(jobs // at_once), *threads]


def quietly(path, words, warm):
    """Run a script in one of the warm processes and write what it prints into its output.txt. Returns (exit status,
    seconds)."""
    output, before = folder_of(words) / path.stem / "output.txt", time.monotonic()
    checkpoint.writable(output)
    home = warm.get()
    try:
        process = home.run(path, words, output)
        RUNNING.add(process)
        if ENDING.is_set():
            process.terminate()
        try:
            return process.wait(), time.monotonic() - before
        finally:
            RUNNING.discard(process)
    finally:  # another thread waits for it
        warm.put(home)


def last_words(folder, lines=5, width=150):
    """The last lines that a script printed, indented, and the file where all of them stand."""
    path = folder / "output.txt"
    said = [f"      {line[:width]}" for line in path.read_text(errors="replace").rstrip().splitlines()[-lines:]]
    return "\n".join([*said, f"      (all it said: {path})"])


def folder_of(words):
    """The folder that --out names, else results."""
    for i, word in enumerate(words):
        if word == "--out" and i + 1 < len(words):
            return Path(words[i + 1])
        if word.startswith("--out="):
            return Path(word.removeprefix("--out="))
    return Path("results")


def tally(path):
    """[held, failed, undecided] of a summary, as text."""
    try:
        return [str(n) for n in counts(read_summary(path)["claims"])]
    except (UserError, KeyError):
        return ["", "", ""]


def redraw(words):
    """Draw figures and write reports again, with the arguments of the last run if none are given."""
    out, rest = folder_of(words), list(words)
    if rest and not rest[0].startswith("-"):
        path, sentence = chosen(rest.pop(0))
        status = refuse(sentence) if path is None else start(path, [*rest, "--redraw"])
        if status == 2:
            return status
        paths = [path]
    else:
        check_options("npopt report", [*rest, "--redraw"])
        paths = [path for name, path in scripts().items() if (out / name / "summary.json").exists()]
        status = max([start(path, [*rest, "--redraw"]) for path in paths], default=0)
    if not paths:
        return refuse(f"no results in {os.fspath(out)!r}; npopt all --quick makes some")
    print(f"\nall reports: {report.write_index(out)}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
