"""What a script leaves behind: runs.csv, summary.json, report.html, and index.html over all of them.

The report is one file with its pictures and its style inside; it opens from disk, needs no script, and prints.
"""

import base64
import collections
import csv
import functools
import io
import itertools
import json
import os
import platform
import re
import shlex
import shutil
import sys
import textwrap
from importlib import metadata
from pathlib import Path

from lab import claims as claims_room
from lab.claims import show, spread
from lab.store import plain, read_summary, write_text
from npopt.errors import UserError

import jinja2
import numpy as np
from PIL import Image

PACKAGES = ("npopt", "numpy", "scipy", "scikit-learn", "numba", "matplotlib", "joblib", "cupy")
COUNTERS = ("epoch", "step", "seconds", "gradients", "values", "bytes", "lr")
MIME = {".png": "image/png", ".gif": "image/gif"}


# ------------------------------------------------------------------------------------------- runs.csv, summary.json
def write_csv(path, results):
    """Long form: part, name, seed, then a run's row in its columns; a column that a run lacks stays empty."""
    columns = dict.fromkeys(c for run in results for c, values in run.columns.items() if values.ndim == 1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["part", "name", "seed", *columns])
    for run in results:
        table = [run.columns[c] if c in columns and c in run.columns else itertools.repeat("") for c in columns]
        for row in itertools.islice(zip(*table, strict=False), run.rows):
            writer.writerow([run.part, run.name, run.seed, *map(cell, row)])
    write_text(path, text.getvalue())


def cell(value):
    return repr(value.item()) if isinstance(value, np.generic) else value


def summary(experiment, script, args, results, claims, data, figures):
    """The dict of summary.json: everything that is known about the runs, except the curves."""
    return shared(plain({
        "script": script,
        "task": experiment.task,
        "title": experiment.title,
        "source": experiment.source,
        "question": experiment.question,
        "data": {
            "name": ", ".join(d["name"] for d in data),
            "sha256": ", ".join(d["sha256"] for d in data),
            "rows": sum(d["rows"] or 0 for d in data),
        },
        "data_sets": data,
        "arguments": arguments(args),
        "command": shlex.join(["npopt", "run", script, *args.words]),
        "device": args.device,
        "threads": args.threads,
        "seeds": args.seeds,
        "versions": versions(),
        "machine": machine(),
        "runs": [
            {
                "part": run.part, "name": run.name, "tags": run.tags, "seed": run.seed, "config": own(run.config, args),
                "final": run.final,
                "seconds": run.seconds, "reason": run.reason, "loop": run.loop, "key": run.key,
            }
            for run in results
        ],
        "claims": [vars(claim) for claim in claims],
        "figures": figures,
        "seconds": sum(run.seconds for run in results),
    }))  # fmt: skip


def shared(facts):
    """The facts with the tags and config of each entry once, in "entries". A run has the number of its entry. Tags and
    config are the same for all seeds, and most of the file."""
    entries = [{name: run[name] for name in ("tags", "config") if name in run} for run in facts["runs"]]
    texts = [json.dumps(entry, sort_keys=True) for entry in entries]
    different = list(dict.fromkeys(texts))
    runs = [
        {name: value for name, value in run.items() if name not in ("tags", "config")}
        | {"entry": different.index(text)}
        for run, text in zip(facts["runs"], texts, strict=True)
    ]
    return {**facts, "entries": [entries[texts.index(text)] for text in different], "runs": runs}


def own(config, args):
    """A run's config without what the summary says once for all runs, and without what stands in the run itself."""
    common = {"device": args.device, "threads": args.threads, "seed": config.get("seed")}
    if config.get("versions", {}).items() <= versions().items():
        common["versions"] = config.get("versions")
    return {k: v for k, v in config.items() if k not in common or v != common[k]}


def as_json(facts):
    """The text of summary.json: readable, with one line a run and an entry."""
    text = json.dumps({**facts, "runs": ["RUNS"], "entries": ["ENTRIES"]}, indent=1, ensure_ascii=False)
    for name in ("runs", "entries"):
        lines = [json.dumps(item, ensure_ascii=False, separators=(",", ":")) for item in facts[name]]
        text = text.replace(f'"{name.upper()}"', ",\n".join(lines), 1)
    return text + "\n"


def arguments(args):
    """The arguments without those that say where files lie."""
    hidden = ("out", "address", "words", "part_table", "epochs_given", "fresh", "redraw", "only")
    return {name: value for name, value in vars(args).items() if name not in hidden}


@functools.cache
def versions():
    """{package: version}, read once: whoever changes it copies it first."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return found


def machine():
    """What times depend on, without anything that names the machine."""
    facts = {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()}
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        facts["processor"] = names[0].strip() if names else facts["processor"]
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError):
        pass
    return facts


# ------------------------------------------------------------------------------------------------------------- tables
def final_table(results, part):
    """(header, rows) of a part: for every method its seeds, how its runs ended, the last value of each metric, time."""
    runs = results.select(part=part)
    metrics = list(dict.fromkeys(c for run in runs for c in run.final if c not in COUNTERS))
    header = ["method", "seeds", "epochs", "ended by", *metrics, "time [s]"]
    rows = []
    for name, group in runs.lines():
        reasons = dict.fromkeys(run.reason.split(":")[0] for run in group)
        counted = ", ".join(
            reason if len(reasons) == 1 else f"{reason} x{sum(run.reason.split(':')[0] == reason for run in group)}"
            for reason in reasons
        )
        values = [short_spread(group, metric) for metric in metrics]
        epochs = show(round(float(np.median([run.final.get("epoch", np.nan) for run in group])), 3))
        rows.append([name, str(len(group)), epochs, counted, *values, f"{np.median([r.seconds for r in group]):.3g}"])
    return header, rows


def short_spread(group, metric):
    """'mean ± std' of the last values of the runs that did not diverge; a dash if there is none."""
    values = np.array([run.final.get(metric, np.nan) for run in group if not run.diverged], float)
    values = values[np.isfinite(values)]
    return spread(values).split(" (")[0] if len(values) else "–"


def text_table(header, rows, indent="  "):
    """A table for the terminal: the first column to the left, numbers to the right."""
    if not rows:
        return ""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [str(cell).rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = cells[0].strip().ljust(widths[0])
        lines.append(indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def claims_text(claims):
    """The claims for the terminal, in its width."""
    if not claims:
        return ""
    width, lines = min(110, shutil.get_terminal_size((110, 0)).columns), ["claims"]
    for claim in claims:
        head = f"  {claim.mark.upper():14} {claim.id}: {claim.statement}"
        lines += textwrap.wrap(head, width, subsequent_indent=" " * 17)
        body = f"expected {claim.expected}" + (f"; measured {claim.measured}" if claim.measured else "")
        body += f" ({claim.note})" if claim.note else ""
        lines += textwrap.wrap(body, width, initial_indent=" " * 17, subsequent_indent=" " * 17)
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------------------- HTML
@functools.cache
def environment():
    """What knows our templates; it keeps what it has translated of them."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    room = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    room.filters["show"] = show
    room.filters["paragraphs"] = paragraphs
    return room


def paragraphs(text):
    """[(kind, text)] of a docstring: 'p' for prose, 'pre' where every line is indented."""
    blocks = [block for block in re.split(r"\n\s*\n", textwrap.dedent(str(text)).strip("\n")) if block.strip()]
    return [
        ("pre", textwrap.dedent(block)) if all(line.startswith("  ") for line in block.splitlines())
        else ("p", " ".join(block.split()))
        for block in blocks
    ]  # fmt: skip


def picture(path):
    """{"source": a data: address, "width": in CSS pixels, so that text has one size in all figures} of a file.

    An animation has its last frame beside it, {"last": a data: address}, for paper.
    """
    with Image.open(path) as image:
        dots, still = image.width, io.BytesIO()
        if path.suffix == ".gif":
            image.seek(image.n_frames - 1)
            image.convert("RGB").quantize(256).save(still, "PNG", optimize=True)
    last = {"last": address(".png", still.getvalue())} if path.suffix == ".gif" else {}
    width = round(dots / 1.3) if path.suffix == ".png" else dots
    return {"source": address(path.suffix, path.read_bytes()), "width": width, **last}


def address(suffix, data):
    return f"data:{MIME[suffix]};base64,{base64.b64encode(data).decode()}"


def write_report(folder, experiment, facts, results, claims, figures, conclusion):
    """report.html in `folder`. figures: dicts with name, caption, and the reason where there is no picture."""
    shown = [f if f["reason"] else f | picture(folder / f["name"]) for f in figures]
    tables = [(part, experiment.parts[part].title, *final_table(results, part)) for part in results.parts]
    held, failed, open_ = claims_room.counts(claims)
    page = environment().get_template("report.html.j2").render(
        experiment=experiment, facts=facts, results=results, claims=claims, figures=shown, tables=tables,
        conclusion=conclusion, held=held, failed=failed, undecided=open_, counters=COUNTERS,
        broken=sum(claim.broken for claim in claims), threads=threads_used(results, facts["threads"]),
        time=duration(sum(run.seconds for run in results)), started=first_sentence(experiment.question),
    )  # fmt: skip
    write_text(folder / "report.html", page)


def threads_used(results, most):
    """'1 thread a run', or '1 thread (6 runs), 2 threads (3 runs)': lab.engine.threads_of chooses for each run."""
    used = collections.Counter(run.config.get("threads", most) for run in results)
    names = {n: f"{n} thread{'' if n == 1 else 's'}" for n in sorted(used)}
    if len(used) == 1:
        return f"{names.popitem()[1]} a run"
    return ", ".join(f"{name} ({used[n]} run{'' if used[n] == 1 else 's'})" for n, name in names.items())


def write_index(out):
    """index.html over every <out>/<script>/summary.json; one that cannot be read is left out. Returns its path."""
    entries = []
    for path in sorted(Path(out).glob("*/summary.json")):
        try:
            facts = read_summary(path, reported={"part": str, "seed": int})
            if not facts:
                print(f"{path} is damaged and left out of the index; run {path.parent.name} again", file=sys.stderr)
                continue
            held, failed, open_ = claims_room.counts(facts["claims"])
            entries.append(
                facts
                | {"held": held, "failed": failed, "undecided": open_, "time": duration(facts["seconds"] or 0)}
                | {"folder": path.parent.name, "lead": first_sentence(facts["question"]), "count": len(facts["runs"])}
                | {"page": "report.html" if (path.parent / "report.html").exists() else "readme.txt"}
            )
        except UserError as error:
            print(f"{error}; it is left out of the index", file=sys.stderr)
        except (KeyError, TypeError):
            print(f"{path} is damaged and left out of the index; run {path.parent.name} again", file=sys.stderr)
    entries.sort(key=lambda facts: task_order(facts.get("task", "")))
    path = Path(out) / "index.html"
    write_text(path, environment().get_template("index.html.j2").render(entries=entries))
    return path


def task_order(task):
    """A1 before A2 before A10 before B1: letters, then numbers by size; no task comes last."""
    pieces = re.findall(r"(\D*)(\d*)", task)
    return [(not task, "", 0)] + [(False, letters, int(digits or 0)) for letters, digits in pieces]


def first_sentence(text):
    return re.split(r"(?<=[.?!])\s", " ".join(str(text).split()), maxsplit=1)[0]


def duration(seconds):
    """'0.8 s', '3 min 20 s', '2 h 5 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
