"""The command `npopt`: list, run, all, report; methods, show, gradcheck (files of their own, see LIBRARY).

Every script runs in its own process, like python scripts/NAME.py.
"""

import ast
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from lab import options, report
from lab.claims import counts
from lab.experiment import Experiment
from lab.options import nearest
from npopt import checkpoint

USAGE = """npopt: a laboratory for the optimisation of deep learning, in NumPy

  npopt list                      the scripts: task, name, question
  npopt run NAME [options]        run one; npopt run NAME --help says what it asks, and its options
  npopt all [--quick] [options]   run every script, and write results/index.html
  npopt report [NAME] [options]   figures and reports again from stored results, without running
  npopt methods [WORD]            every optimizer, sampler, layer, ...: paper, file, state, tests
  npopt show NAME                 the derivation and the code of one of them
  npopt gradcheck [NAME ...]      layers and networks, all or those named, or FILE.py:CLASS, against
                                  differences; npopt gradcheck --help

Options that every script takes: --data --device --seeds --epochs --quick --jobs --threads --parts
--engine --address --kernels --out --fresh. Finished runs are kept: a command that was stopped goes
on where it was."""

LIBRARY = {"methods": "lab.methods", "show": "lab.show", "gradcheck": "lab.gradchecks"}      # imported when asked for


def main(argv=None):
    """Returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    commands = {"list": list_scripts, "run": run, "all": run_all, "report": redraw, **dict.fromkeys(LIBRARY)}
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if words[0] not in commands:
        return refuse(f"no command is called {words[0]!r}; {nearest(words[0], commands)}")
    try:
        if words[0] in LIBRARY:
            answer = importlib.import_module(LIBRARY[words[0]]).command(words[1:])
            return refuse(answer) if isinstance(answer, str) else answer
        return commands[words[0]](words[1:])
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:                                     # `| head`: nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


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
    """Run a script and return its exit status; Ctrl-C goes to the script, which saves and ends."""
    process = subprocess.Popen([sys.executable, str(path), *words])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def chosen(name):
    """(path, None) of a script, or (None, the sentence that says there is none)."""
    known = scripts()
    if name in known:
        return known[name], None
    return None, f"no script is called {name!r}; " + (nearest(name, known) if known else "there are no scripts here")


def run(words):
    if not words or words[0].startswith("-"):
        return refuse("name a script, as in: npopt run NAME; npopt list shows them")
    path, sentence = chosen(words[0].removesuffix(".py"))
    return refuse(sentence) if path is None else start(path, words[1:])


def run_all(words):
    """Every script in turn. One that fails does not stop the rest; then the status is 1."""
    known = scripts()
    if "-h" in words or "--help" in words:
        print(USAGE)
        return 0
    if not known:
        return refuse("no scripts here; run it in a checkout of the repository")
    check_options("npopt all", words)
    try:
        checkpoint.writable(folder_of(words) / "index.html")
    except ValueError as error:
        return refuse(f"{error} with --out")
    order = sorted(known, key=lambda name: report.task_order(described(known[name])[0]))
    rows, failed = [], []
    for name in order:
        print(f"\n===== {name}: {described(known[name])[1]}", flush=True)
        before = time.monotonic()
        status = start(known[name], words)
        if status == 130:
            return 130
        if status:
            failed.append(name)
        rows.append([name, f"failed ({status})" if status else "done", report.duration(time.monotonic() - before)])
        rows[-1] += tally(folder_of(words) / name / "summary.json") if not status else ["", "", ""]
    index = report.write_index(folder_of(words))
    print("\n" + report.text_table(["script", "", "time", "holds", "fails", "undecided"], rows))
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    print(f"\nall reports: {index}")
    return 1 if failed else 0


def check_options(prog, words):
    """Refuse, before any script starts, what no script takes: one sentence, and the end of this process."""
    p = options.parser(Experiment("Every script."), prog)
    options.check(p, p.parse_args(words, options.Arguments()))


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
        return [str(n) for n in counts(json.loads(path.read_text())["claims"])]
    except (OSError, ValueError, KeyError):
        return ["", "", ""]


def redraw(words):
    """Figures and reports again, with the arguments of the last run where none are given."""
    known, out = scripts(), folder_of(words)
    names, rest = [], list(words)
    if rest and not rest[0].startswith("-"):
        names = [rest.pop(0).removesuffix(".py")]
        if chosen(names[0])[0] is None:
            return refuse(chosen(names[0])[1])
    else:
        check_options("npopt report", rest)
        names = [name for name in known if (out / name / "summary.json").exists()]
    status = 0
    for name in names:
        status = max(status, start(known[name], [*rest, "--redraw"]))
    if not names:
        return refuse(f"no results in {os.fspath(out)!r}; npopt all --quick makes some")
    print(f"\nall reports: {report.write_index(out)}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
