"""`npopt methods`: every public algorithm with its paper, file, state and tests, read from where each of them stands.

Names come from the packages, papers from docstrings, the state from a method that was started, tests from the table
in tests/test_table.py, where that file is there.
"""

import ast
import functools
import importlib
import inspect
import re
import shutil
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from npopt.errors import UserError
from npopt.segments import Segments

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {  # kind: the modules in which it is public
    "optimizers": ("npopt.optimizers",),
    "codes": ("npopt.codes",),
    "estimators": ("npopt.estimators",),
    "samplers": ("npopt.samplers",),
    "schedules": ("npopt.schedules",),
    "projectors": ("npopt.projectors",),
    "penalties": ("npopt.penalties",),
    "layers": (
        "nn.linear",
        "nn.convolution",
        "nn.embedding",
        "nn.positions",
        "nn.attention",
        "nn.transformer",
        "nn.norms",
        "nn.fused",
        "nn.layer_norm",
        "nn.activations",
        "nn.gated",
        "nn.pooling",
        "nn.dropout",
        "nn.recurrent",
        "nn.composites",
        "nn.adapters",
        "nn.tucker",
        "nn.low_rank",
    ),
    "networks": ("nn.networks",),
    "decoding": ("nn.decoding.state", "nn.decoding.caches", "nn.decoding.choosing"),
    "losses": ("nn.losses", "problems.linear.losses"),
    "initialisers": ("nn.init",),
    "problems": ("problems", "problems.unrolled", "problems.batched", "problems.scored", "problems.parts"),
    "feeds": ("problems.feeds", "problems.tokens", "problems.encoded"),
    "attacks": ("problems.attacks",),
    "distributed": ("npopt.distributed",),
    "analysis": (
        "npopt.analysis.curvature",
        "npopt.analysis.products",
        "npopt.analysis.eigen",
        "npopt.analysis.densities",
        "npopt.analysis.dynamics",
        "npopt.analysis.gradient_noise",
        "npopt.analysis.sharpness",
        "npopt.analysis.smoothness",
        "npopt.analysis.planes",
        "npopt.analysis.surfaces",
        "npopt.analysis.trajectories",
        "npopt.analysis.wavelets",
        "npopt.analysis.persistence",
        "npopt.analysis.fits",
        "problems.curved",
        "nn.twice",
        "nn.spectra",
    ),
}
BASES = {
    "Array",
    "Estimator",
    "Wrapper",
    "Clipping",
    "Optimizer",
    "Sampler",
    "Schedule",
    "Layer",
    "Recurrent",
    "Loss",
    "Initialiser",
    "Problem",
    "Activation",
    "Smooth",
    "OfRows",
    "Part",
    "Stack",
    "Pool",
    "Dataset",
    "Restricted",
    "Batch",
    "Regulariser",
    "Around",
    "BySegment",
    "Projected",
    "Projector",
    "Sophia",
    "Mirrored",
    "Feed",
    "DataFeed",
    "Padded",
    "Attack",
    "Attacked",
    "Real",
    "Margin",
    "Chain",
    "Sum",
    "FullMemory",
    "Cache",
    "Tree",
    "Adapted",
    "Algorithm",
    "Federated",
    "Compressor",
}
CITES = re.compile(r"\b(?:19|20)\d\d\b(?! *[*/^])|arXiv:")
WIDE, NARROW = 100, 60


class Method(NamedTuple):
    """One entry: kind, name, and the class or function."""

    kind: str
    name: str
    thing: object

    @property
    def file(self):
        """Its file, relative to the folder of the packages."""
        return Path(inspect.getsourcefile(self.thing)).resolve().relative_to(ROOT).as_posix()


def public(module):
    """{name: class} that a module offers: those of its `__all__`, or its own, without bases and private ones."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or [
        name
        for name, value in vars(found).items()
        if inspect.isclass(value) and value.__module__ == module and not name.startswith("_")
    ]
    return {name: getattr(found, name) for name in names if inspect.isclass(getattr(found, name)) and name not in BASES}


def networks():
    """{name: function} that make networks."""
    from nn import networks as module

    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }


@functools.cache
def methods():
    """Every Method, kind by kind."""
    found = []
    for kind, modules in ROOMS.items():
        for module in modules:
            things = networks() if kind == "networks" else public(module)
            found += [Method(kind, name, things[name]) for name in sorted(things, key=str.lower)]
    return found


# ------------------------------------------------------------------------------------------------------------ the paper
def sentences(text):
    """Sentences of a docstring; an indented formula ends one, a dot in an abbreviation does not."""
    prose = [
        " ".join(part.splitlines())
        for part in re.split(r"\n\n|(?:^|\n)(?: {4}.*(?:\n|$))+", inspect.cleandoc(text or ""))
        if part.strip()
    ]
    return [
        piece.strip()
        for part in prose
        for piece in re.split(
            r"(?<![A-Z]\.)(?<![A-Z][a-z]\.)(?<![A-Z][a-z]{2}\.)(?<![A-Z][a-z]{3}\.)(?<=\.)\s+(?=[A-Z(`])", part
        )
    ]


def paper(method):
    """What the docstrings cite: the file's first line, where that is a paper, or else the sentence that names one."""
    names = re.compile(rf"\b{method.name}\b[^:]*: (?=[A-Z])")
    module = sentences(inspect.getmodule(method.thing).__doc__)
    cited = [text for text in module if CITES.search(text)]
    if module[0] in cited[:1] and method.kind in ("optimizers", "estimators", "samplers", "attacks", "distributed"):
        return re.sub(r"^[^:.]*: ", "", module[0]).rstrip(".")
    for text in cited:
        if names.match(text):
            return names.sub("", text).rstrip(".")
    for text in sentences(method.thing.__doc__):
        if CITES.search(text):
            inside = [part for part in re.findall(r"\(([^()]+)\)", text) if CITES.search(part)]
            return "; ".join(inside) if inside else text.rstrip(".:")
    return ""


# ----------------------------------------------------------------------------------------------------------- the state
def example(kind):
    """An object of a class: its defaults, SGD() or RandomReshuffling() where it takes an inner method, 1 where a number
    must be given. Quantised takes one that has a state, Adam()."""
    from npopt import SGD, Adam, Blockwise, Quantised, RandomReshuffling

    inner = {"inner": Adam() if kind in (Blockwise, Quantised) else SGD(), "sampler": RandomReshuffling()}
    given = [
        inner.get(p.name, 1)
        for p in inspect.signature(kind).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    return kind(*given)


def arrays(state, prefix=""):
    """[(name, array)] of a state."""
    found = []
    for name, value in state.items():
        if isinstance(value, dict):
            found += arrays(value, f"{prefix}{name}.")
        elif getattr(value, "ndim", 0):
            found.append((prefix + name, value))
    return found


def network():
    """A small network on 31 rows of 7 numbers."""
    from nn import mlp
    from problems import Dataset, Neural
    from problems.feeds import Table

    x, y = np.ones((31, 7)), np.arange(31) % 2
    return Neural(mlp((7, 2)), Table(Dataset("rows", "classification", x, y, x, y, (0, 1), "", "")), dtype="float64")


def state(method):
    """The arrays that an object of this class keeps, found by starting one; "" where it keeps none."""
    if method.kind == "optimizers":
        segments = Segments.of(("w", (256, 256), "matrix", "w"))
        x, optimizer = np.zeros(segments.dim, np.float32), example(method.thing)
        problem = SimpleNamespace(segments=segments, has_penalty=False)
        blocks = dict(blocks=["w"], always=(), active=["w"], size=1, phase=0)  # what Blockwise asks
        optimizer.start(x, SimpleNamespace(problem=problem, **blocks))
        kept = arrays(optimizer.state())
        size = sum(array.nbytes for _, array in kept) / x.size
        return f"{', '.join(name for name, _ in kept)}: {size:.3g} bytes a parameter (float32)" if kept else ""
    if method.kind in ("estimators", "samplers"):
        from problems import LeastSquares

        problem = LeastSquares(np.ones((31, 7)), np.arange(31.0))
        started = example(method.thing)
        try:
            started.start(*([problem, np.zeros(7), 0] if method.kind == "estimators" else [problem, 0]))
        except UserError:  # one that takes a network alone
            problem = network()
            started.start(problem, np.zeros(problem.dim), 0)
        return ", ".join(
            f"{name} ({', '.join({31: 'n', 7: 'd'}.get(k, str(k)) for k in array.shape)})"
            for name, array in arrays(started.state())
        )
    if method.kind in ("layers", "networks"):
        from lab.examples import parameters

        return parameters(method.name)
    return ""


# ------------------------------------------------------------------------------------------------------------ the tests
@functools.cache
def table():
    """{class: [test, ...]} of tests/test_table.py; empty where the tests are not there."""
    path, names = ROOT / "tests" / "test_table.py", {}
    if not path.exists():
        return {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            try:  # the table is made of plain text, lists and dicts
                exec(compile(ast.Module([node], []), str(path), "exec"), names)
            except NameError:
                continue  # what needs the file's imports
    return {
        getattr(importlib.import_module(module), name): tests
        for module, entries in names.get("TABLE", {}).items()
        for name, tests in entries.items()
    }


def tests(method):
    """Its tests as pytest takes them."""
    return [f"tests/{test.removesuffix('::')}" for test in table().get(method.thing, ())]


# ------------------------------------------------------------------------------------------------------------ the words
def columns():
    """The width of the terminal, between 60 and 100."""
    return min(WIDE, max(NARROW, shutil.get_terminal_size((WIDE, 24)).columns))


def block(method, width, full):
    """The lines of one entry."""
    lines = [f"  {method.name:20} {method.file}"]
    proofs = tests(method)
    count = f"{len(proofs)} in tests/test_table.py" if proofs else ""
    for label, text in (("paper", paper(method)), ("state", state(method)), ("tests", "" if full else count)):
        if text:
            lines += textwrap.wrap(text, width, initial_indent=f"    {label}  ", subsequent_indent=" " * 11)
    for i, test in enumerate(proofs if full else ()):
        lines += textwrap.wrap(
            test, width, initial_indent="    tests  " if i == 0 else " " * 11, subsequent_indent=" " * 13
        )
    return lines


def chosen(word):
    """The methods in whose kind, name, file or paper the word occurs."""
    word = word.lower()
    return [m for m in methods() if any(word in text.lower() for text in (m.kind, m.name, m.file, paper(m)))]


def command(words):
    """npopt methods [WORD]. Returns the exit status, or a sentence."""
    if len(words) > 1 or any(word.startswith("-") for word in words):
        return f"methods takes one word, as in: npopt methods adam; got {' '.join(words)!r}"
    found, width = chosen(words[0]) if words else methods(), columns()
    if not found:
        return f"no method has {words[0]!r} in its kind, name, file or paper; npopt methods lists all"
    for kind in dict.fromkeys(method.kind for method in found):
        some = [method for method in found if method.kind == kind]
        print(f"{kind} ({len(some)})\n")
        for method in some:
            print("\n".join(block(method, width, full=bool(words))))
        print()
    print(f"{len(found)} methods; npopt show NAME prints one" + ("" if words else ", npopt methods WORD their tests"))
    return 0
