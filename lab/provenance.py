"""The head of a result's readme.txt: command, runs, time and verdicts, made from its summary.json and never typed.

    from lab import provenance; provenance.main(["docs/results/NAME"])      # the head anew, from that summary.json

A script writes it beside its report. What a person wrote below the line MARK stays; so `npopt report`, which draws
figures again, brings the head up to date, too.
"""

import collections
import shlex
import textwrap
from pathlib import Path

from lab import claims
from lab.report import duration
from lab.store import read_summary, write_text
from npopt.errors import UserError

MARK = "(The lines above are made from summary.json.)"
WIDTH = 110


def head(facts):
    """The text above MARK, and MARK, of a summary's dict."""
    args, runs = facts["arguments"], facts["runs"]
    title = f"{facts['script']} on {args.get('data', 'bundled')} data" + (", quick mode" if args.get("quick") else "")
    blocks = [
        f"{scale(facts)}, {manner(facts)}, {seeds_of(runs)}; {versions_of(facts)}.",
        f"Data: {', '.join(known['name'] for known in facts['data_sets']) or 'generated'}.",
        verdicts(facts["claims"]),
    ]
    if facts.get("troubles"):
        blocks.append(f"{len(facts['troubles'])} runs could not be made.")
    lines = textwrap.wrap(" ".join(blocks), WIDTH, break_on_hyphens=False)
    command = whole(facts)
    if args.get("data") == "real":
        command = "NPOPT_DATA=... " + command
    return "\n".join([title, "=" * len(title), "", f"    {command}", "", *lines, MARK, ""])


def scale(facts):
    """'210 runs (a: 120, b: 90), 12 min 3 s of steps'; without the time where none was taken"""
    counts = collections.Counter(run["part"] for run in facts["runs"])
    parts = f" ({', '.join(f'{part}: {n}' for part, n in counts.items())})" if len(counts) > 1 else ""
    seconds = sum(run.get("seconds") or 0 for run in facts["runs"])
    return f"{len(facts['runs'])} runs{parts}" + f", {duration(seconds)} of steps" * (seconds > 0)


def manner(facts):
    """'one at a time on one thread (CPU)'"""
    jobs, threads = facts["arguments"].get("jobs", 1), facts.get("threads", 1)
    at_once = "one at a time" if jobs == 1 else f"{jobs} at a time"
    of_each = "one thread" if threads == 1 else f"up to {threads} threads"
    return f"{at_once} on {of_each} ({facts['device'].upper()})" + ", in pieces (--parts)" * bool(facts.get("kept"))


def whole(facts):
    """The command that makes all that is reported: the last one, without --parts where it kept other parts."""
    words, kept = shlex.split(facts["command"]), []
    while words:
        word = words.pop(0)
        if facts.get("kept") and word == "--parts":
            words = words[1:]
        elif not (facts.get("kept") and word.startswith("--parts=")):
            kept.append(word)
    return shlex.join(kept)


def seeds_of(runs):
    """'10 seeds (a, c), 5 seeds (b)': for each part the most that an entry of it has."""
    entries = collections.defaultdict(set)
    for run in runs:
        entries[run["part"], run["entry"] if "entry" in run else str(run.get("tags"))].add(run["seed"])
    counts = collections.defaultdict(set)
    for (part, _), seeds in entries.items():
        counts[part].add(len(seeds))
    names = collections.defaultdict(list)
    for part, some in counts.items():
        n = max(some)
        names[n, "up to " * (len(some) > 1) + f"{n} seed{'s' if n > 1 else ''}"].append(part)
    texts = [(text, parts) for (_, text), parts in sorted(names.items(), reverse=True)]
    if len(texts) < 2:
        return texts[0][0] if texts else "no seeds"
    return ", ".join(f"{text} ({', '.join(parts)})" for text, parts in texts)


def versions_of(facts):
    known = facts.get("versions", {})
    return ", ".join(f"{name} {known[name]}" for name in ("numpy", "numba", "cupy") if name in known)


def verdicts(found):
    """'7 of 9 claims hold. Did not hold: b-large. Undecided: c-decay.'"""
    held, *_ = claims.counts(found)
    text = [f"{held} of {len(found)} claims hold."]
    for mark, words in ((False, "Did not hold"), (None, "Undecided")):
        names = [claim["id"] for claim in found if claim["holds"] is mark]
        text += [f"{words}: {', '.join(names)}."] if names else []
    return " ".join(text)


def renewed(text, facts):
    """The readme's text with its head as the summary says; what stands below MARK is kept."""
    below = text.split(MARK, 1)[1].lstrip("\n") if MARK in text else text.lstrip("\n")
    return head(facts) + ("\n" + below if below else "")


def write(folder, facts):
    """Write or renew <folder>/readme.txt."""
    path = Path(folder) / "readme.txt"
    write_text(path, renewed(path.read_text(encoding="utf-8") if path.exists() else "", facts))


def main(folders):
    for folder in folders:
        facts = read_summary(Path(folder) / "summary.json", reported={"part": str, "seed": int})
        if not facts:
            raise UserError(f"there is no whole summary.json in {folder!r}")
        write(folder, facts)
