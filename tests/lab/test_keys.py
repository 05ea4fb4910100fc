"""Keys follow what a run is computed from: edits of a script, of a module beside it and of the library change the keys
of the runs that reach them, and no others. Nothing is run here; a key is a function of texts.

An edit is generated: the first place of its kind in a definition, a sign, a number, a default, is changed in the text.
What it has to change is written down here by hand, by what each run of STUDY is given.
"""

import ast
import functools
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

from lab import Entry, Experiment, Recipe
from lab.data import sets_of
from lab.options import parse
from npopt import SGD, Constant, code, syntax
from npopt.errors import UserError
from problems.quadratic import Quadratic

import numpy as np
import pytest
import scipy.sparse

ROOT = pathlib.Path(__file__).resolve().parents[2]

BESIDE = '''"""A module of the user's own."""
LENGTH = 3


def shifted(v):
    """Where the walk begins."""
    return v - 0.5


def unused(v):
    return v + 0.5
'''

STUDY = '''"""What is asked?   And more."""
import numba
import numpy as np

import beside
from lab import Entry, Experiment, Option, Recipe
from nn.networks import mlp
from npopt import SGD, SVRG, Adam, Cosine, HeavyBall, RandomReshuffling, Stop, WithReplacement
from npopt.backend import elementwise
from npopt.optimizers import Optimizer
from problems import Logistic, Neural, Quadratic, load
from problems.feeds import Table
from problems.libsvm import read

HIGH, UNUSED = 2.0, 3.0
WIDTHS = {"small": 8}
WIDTHS["large"] = 16
experiment = Experiment(__doc__, seeds=1, options=[Option("--file", default="rows.libsvm")])


def half(v):
    """Half of it."""
    return v / 2  # and no more


def bowl(noise, n=8):
    """A bowl."""
    if n < 1:
        raise ValueError(f"n is {n + 1}")
    return Quadratic(half(np.linspace(0.1, HIGH, 4)), n=n, noise=noise)


def logistic():
    v = np.linspace(-1, 1, 40)
    return Logistic(v.reshape(20, 2), np.where(v[:20] > 0.3, 1, -1))


def network(size):
    return Neural(mlp((64, WIDTHS[size], 10)), Table(load("digits")))


def from_file(path):
    data = read(path)
    return Logistic(data.X, data.y)


def from_text():
    return Logistic(*np.load("numbers.npz").values())


def walk(seed, events, way, steps=5):
    return {"at": [way(beside.shifted(i * 0.25)) for i in range(steps + beside.LENGTH)]}


@numba.njit
def there(v):
    return v + 0.125


@elementwise
def own_step(x, g, lr):
    x = x - lr * g
    return x


class Own(Optimizer):
    """x <- x - lr g."""

    def __init__(self, scale=1.5):
        self.scale = scale

    def update(self, x, g, lr):
        own_step(x, g, self.scale * lr)


@experiment.runs
def runs(args):
    bowls, some, stop = Recipe(bowl, noise=0.5), WithReplacement(2), Stop(steps=9)
    for name, method in (("sgd", SGD()), ("momentum", HeavyBall(0.9)), ("own", Own())):
        yield Entry("a", bowls, method, some, 0.1, stop=stop, of=name)
    yield Entry("a", Recipe(logistic), SGD(), some, 0.1, estimator=SVRG(), stop=stop, of="svrg")
    yield Entry("a", Recipe(network, size="small"), Adam(), RandomReshuffling(8), Cosine(0.1), stop=stop, of="network")
    yield Entry("a", run=Recipe(walk, way=there), of="walk")
    yield Entry("a", Recipe(from_file, path=args.file), SGD(), some, 0.1, stop=stop, of="file")
    yield Entry("a", Recipe(from_text), SGD(), some, 0.1, stop=stop, of="text")


@experiment.claim("one", "a claim", expected="below 1")
def claimed(results):
    """Judged."""
    return 1, len(results) + 1 < 7


@experiment.figure("one.png", caption="A figure.")
def drawn(results):
    return 1 - 2
'''

RUNS = {"sgd", "momentum", "own", "svrg", "network", "walk", "file", "text"}
BOWLS, LINEAR = {"sgd", "momentum", "own"}, {"svrg", "file", "text"}
LOOP = RUNS - {"walk"}

# (file, definition, kind of edit, runs whose keys change)
HERE = "study.py"
EDITS = [
    (HERE, "half", "sign", BOWLS),
    (HERE, "half", "number", BOWLS),
    (HERE, "half", "docstring", set()),
    (HERE, "half", "comment", set()),
    (HERE, "half", "layout", set()),
    (HERE, "HIGH", "number", BOWLS),
    (HERE, "WIDTHS", "number", {"network"}),
    (HERE, "bowl", "default", BOWLS),
    (HERE, "bowl", "comparison", BOWLS),
    (HERE, "bowl", "docstring", set()),
    (HERE, "bowl", "sentence", set()),
    (HERE, "logistic", "number", {"svrg"}),
    (HERE, "logistic", "comparison", {"svrg"}),
    (HERE, "network", "number", {"network"}),
    (HERE, "walk", "sign", {"walk"}),
    (HERE, "walk", "default", {"walk"}),
    (HERE, "there", "number", {"walk"}),
    (HERE, "own_step", "sign", {"own"}),
    (HERE, "Own", "sign", {"own"}),
    (HERE, "Own", "docstring", set()),
    (HERE, "runs", "comment", set()),
    (HERE, "claimed", "number", set()),
    (HERE, "claimed", "sign", set()),
    (HERE, "claimed", "docstring", set()),
    (HERE, "drawn", "sign", set()),
    (HERE, "drawn", "layout", set()),
    ("beside.py", "shifted", "sign", {"walk"}),
    ("beside.py", "shifted", "docstring", set()),
    ("beside.py", "LENGTH", "number", {"walk"}),
    ("beside.py", "unused", "sign", set()),
    ("npopt/optimizers/heavy_ball.py", "heavy_ball", "sign", {"momentum"}),
    ("npopt/optimizers/heavy_ball.py", "HeavyBall", "default", {"momentum"}),
    ("npopt/optimizers/heavy_ball.py", "HeavyBall", "docstring", set()),
    ("npopt/optimizers/sgd.py", "sgd", "sign", {"sgd", *LINEAR}),
    ("npopt/optimizers/adam.py", "adam", "sign", {"network"}),
    ("npopt/optimizers/adam.py", "adam", "comment", set()),
    ("npopt/optimizers/lion.py", "lion", "sign", set()),
    ("npopt/optimizers/base.py", "Optimizer", "number", LOOP),
    ("npopt/schedules.py", "Cosine", "sign", {"network"}),
    ("npopt/schedules.py", "Constant", "number", LOOP - {"network"}),
    ("npopt/schedules.py", "Exponential", "sign", set()),
    ("npopt/samplers/uniform.py", "WithReplacement", "number", LOOP - {"network"}),
    ("npopt/samplers/uniform.py", "_Shuffled", "sign", {"network"}),
    ("npopt/samplers/base.py", "Sampler", "number", LOOP),
    ("npopt/estimators/svrg.py", "reduced", "sign", {"svrg"}),
    ("npopt/minimize.py", "_Loop", "sign", LOOP),
    ("npopt/minimize.py", "LONGEST", "number", LOOP),
    ("npopt/minimize.py", "minimize", "docstring", set()),
    ("npopt/code.py", "closure", "comment", set()),
    ("npopt/identity.py", "of_problem", "number", set()),
    ("npopt/backend/draws.py", "generator", "number", LOOP),
    ("problems/quadratic.py", "Quadratic", "sign", BOWLS),
    ("problems/quadratic.py", "Quadratic", "sentence", set()),
    ("problems/linear/losses.py", "Logit", "sign", LINEAR),
    ("problems/linear/losses.py", "Huber", "sign", set()),
    ("problems/libsvm.py", "stack", "number", {"file", "network"}),  # load("digits") reaches all readers
    ("nn/kernels/reference.py", "softmax", "number", {"network"}),
    ("nn/linear.py", "Linear", "number", {"network"}),
    ("nn/pooling.py", "MaxPool2d", "number", set()),
    ("lab/experiment.py", "Experiment", "number", set()),
]


# ------------------------------------------------------------------------------------------------------------- edits
def edited(text, name, kind):
    """The text with one edit in the definition of a name."""
    tree = ast.parse(text)
    statement = next(s for s in tree.body if name in named(s))
    lines = text.encode().splitlines(keepends=True)

    def place(line, column):
        return sum(map(len, lines[: line - 1])) + column

    def span(node):
        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)

    start, end, new = change(statement, kind, span, text.encode())
    return (text.encode()[:start] + new + text.encode()[end:]).decode()


def named(statement):
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {getattr(statement, "name", None), *(n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))}


def change(statement, kind, span, text):
    """(start, end, new bytes) of an edit of that kind in a statement."""
    nodes = sorted((n for n in ast.walk(statement) if hasattr(n, "lineno")), key=lambda n: span(n))
    if kind == "sign":
        other = {ast.Add: b"-", ast.Sub: b"+", ast.Mult: b"/", ast.Div: b"*"}
        node = next(n for n in nodes if isinstance(n, ast.BinOp) and type(n.op) in other)
        start, end = span(node.left)[1], span(node.right)[0]
        return start, end, re.sub(rb"[-+*/]", other[type(node.op)], text[start:end], count=1)
    if kind == "comparison":
        node = next(n for n in nodes if isinstance(n, ast.Compare))
        start, end = span(node.left)[1], span(node.comparators[0])[0]
        return start, end, text[start:end].translate(bytes.maketrans(b"<>", b"><"))
    if kind in ("number", "default"):
        inside = [d for n in ast.walk(statement) if isinstance(n, ast.arguments) for d in n.defaults]
        among = inside if kind == "default" else nodes
        kinds = (int, float)
        node = next(n for n in among if isinstance(n, ast.Constant) and type(n.value) in kinds)
        return (*span(node), repr(node.value + 1).encode())
    if kind == "docstring":
        assert ast.get_docstring(statement)
        return (*span(statement.body[0]), b'"""Something else."""')
    if kind == "sentence":
        node = next(n for r in nodes if isinstance(r, ast.Raise) for n in r.exc.args)
        return (*span(node), b'"other words" + str(1)')
    start = span(statement.body[-1])[0]
    start = text.rindex(b"\n", 0, start) + 1
    indent = b"\n" if kind == "layout" else b" " * statement.body[-1].col_offset + b"# a comment\n"
    return start, start, indent


def test_an_edit_is_one_of_the_text():
    text = STUDY
    for name, kind, before, after in (
        ("half", "sign", "v / 2", "v * 2"),
        ("HIGH", "number", "= 2.0, 3.0", "= 3.0, 3.0"),
        ("bowl", "default", "n=8)", "n=9)"),
        ("bowl", "comparison", "n < 1", "n > 1"),
        ("half", "comment", "    return v / 2", "    # a comment\n    return v / 2"),
    ):
        assert edited(text, name, kind) == text.replace(before, after, 1)


# -------------------------------------------------------------------------------------------------------------- keys
def keys(folder):
    """{run: key} of the study in a folder, which is loaded anew."""
    code.step.cache_clear()
    code.closure.cache_clear()
    for name in ("study", "beside"):
        sys.modules.pop(name, None)
    spec = importlib.util.spec_from_file_location("study", folder / HERE)
    study = sys.modules["study"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(study)
    labelled, _ = study.experiment.jobs(parse(study.experiment, "study", ["--threads", "1"]))
    return {entry.tags["of"]: job.key for entry, job in labelled}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the study, the module and the files that it reads; the current one, and the first on the path."""
    (tmp_path / HERE).write_text(STUDY)
    (tmp_path / "beside.py").write_text(BESIDE)
    (tmp_path / "rows.libsvm").write_text("1 1:0.5 2:1\n-1 1:0.25\n")
    np.savez(tmp_path / "numbers.npz", X=np.eye(2), y=np.array([1.0, -1.0]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # whose files are told apart by seconds
    forget = (code.path_of, code.step, code.closure, code.definitions)
    for found in forget:
        found.cache_clear()
    yield tmp_path
    for name in ("study", "beside"):
        sys.modules.pop(name, None)
    for found in forget:
        found.cache_clear()


@pytest.mark.slow
def test_fifty_edits_change_the_keys_of_the_runs_that_reach_them_and_no_others(folder, monkeypatch):
    before, texts, definitions = keys(folder), {}, code.definitions
    assert set(before) == RUNS and len(set(before.values())) == len(RUNS)
    monkeypatch.setattr(code, "definitions", lambda path: texts.get(path) or definitions(path))
    wrong = []
    for file, name, kind, wanted in EDITS:
        path = folder / file if "/" not in file else ROOT / file
        text = path.read_text()
        other = edited(text, name, kind)
        texts = {str(path): syntax.definitions(other)}
        if "/" not in file:  # a file of the library is left as it is, and read otherwise
            path.write_text(other)
        changed = {of for of, key in keys(folder).items() if key != before[of]}
        if changed != wanted:
            wrong.append(f"{file} {name}, {kind}: {sorted(changed)} instead of {sorted(wanted)}")
        if "/" not in file:
            path.write_text(text)
    texts = {}
    assert len(EDITS) >= 50 and not wrong, "\n".join(wrong)
    assert keys(folder) == before


def test_the_files_that_a_run_reads_count(folder, monkeypatch):
    before = keys(folder)
    for name, wanted in (("rows.libsvm", {"file"}), ("numbers.npz", {"text"})):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data.replace(b"0.25", b"0.75") if name == "rows.libsvm" else data[:-1] + b"\1")
        changed = {of for of, key in keys(folder).items() if key != before[of]}
        (folder / name).write_bytes(data)
        assert changed == wanted
    assert keys(folder) == before

    def closed(*words, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("problems.files.open", closed, raising=False)
    (folder / "rows.libsvm").write_bytes(b"1 1:0.25\n-1 1:1\n")
    with pytest.raises(UserError, match="rows.libsvm cannot be read .Permission denied.; see to its permissions"):
        keys(folder)


KEYS = """
import study
from lab.data import sets_of
from lab.options import parse
args = parse(study.experiment, "study", ["--threads", "1"])
print({entry.tags["of"]: job.key for entry, job in study.experiment.jobs(args)[0]})
"""


@pytest.mark.slow
def test_keys_are_those_of_another_process_and_follow_its_copy_of_the_library(folder, tmp_path_factory):
    before, other = keys(folder), tmp_path_factory.mktemp("elsewhere")
    for room in ("lab", "problems", "nn", "npopt"):
        shutil.copytree(ROOT / room, other / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (HERE, "beside.py", "rows.libsvm", "numbers.npz"):
        shutil.copy(folder / name, other)

    def there(number):
        words = {"PYTHONPATH": str(other), "PYTHONHASHSEED": str(number), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", KEYS]
        return ast.literal_eval(subprocess.check_output(command, cwd=other, env=os.environ | words, text=True))

    assert there(1) == there(2) == before
    for file, name, kind, wanted in (
        e for e in EDITS if e[1] in ("heavy_ball", "lion", "LONGEST", "walk", "Quadratic")
    ):
        text = (other / file).read_text()
        (other / file).write_text(edited(text, name, kind))
        assert {of for of, key in there(3).items() if key != before[of]} == wanted, (file, name, kind)
        (other / file).write_text(text)


# ------------------------------------------------------------------------------------------------- what is refused
class Data:
    def __init__(self, n):
        self.n = n

    def problem(self):
        return Quadratic(np.ones(self.n))


def good(n=3):
    return Quadratic(np.ones(n))


def make(n):
    def build():
        return good(n)

    return build


REFUSED = {
    "a lambda": lambda: Recipe(lambda n=3: good(n)),
    "make.build, which is made inside a function": lambda: Recipe(make(3)),
    "Data.problem, a method of an object": lambda: Recipe(Data(3).problem),
    "a functools.partial": lambda: Recipe(functools.partial(good, 3)),
    "an object of type str": lambda: Recipe("good"),
    "argument n: a Data does not print": lambda: Recipe(good, n=Data(3)),
    "argument n: a Quadratic does not print": lambda: Recipe(good, n=good()),
    "argument n: a functools.partial does not print": lambda: Recipe(good, n=functools.partial(good, 3)),
    "argument n: a lambda does not print": lambda: Recipe(good, n=[{"f": lambda v: v}]),
    "argument n: an array of objects does not print": lambda: Recipe(good, n=np.array([object()])),
    "argument n: a csr_matrix does not print": lambda: Recipe(good, n=scipy.sparse.csr_matrix(np.eye(2))),
    "vary: a lambda does not print": lambda: Entry("a", Recipe(good), SGD(), vary={"beta": lambda t: t}, of="m"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_has_no_name_or_does_not_print_is_refused(words):
    with pytest.raises(UserError, match=re.escape(words)) as refused:
        REFUSED[words]()
    assert "\n" not in str(refused.value) and re.search(
        r"write def build\(n\)|; give numbers, texts", str(refused.value)
    )


def test_what_prints_is_taken():
    some = (3, 2.5, "text", None, True, (1, 2), {"a": [1.0]}, {3, 4}, np.arange(3), np.float32(0.1), np.dtype("f4"))
    for value in (*some, Constant(0.1), SGD, good, np.sqrt, pathlib.Path("file"), range(3)):
        assert repr(Recipe(good, n=value)) == repr(Recipe(good, n=value))
    assert Recipe(good, n=np.float32(0.5)) != Recipe(good, n=0.5)
    assert repr(Recipe(good, n={"b", "a", "c"})).endswith(".good(n=set('a', 'b', 'c'))")


def test_entries_that_print_alike_are_refused():
    experiment = Experiment("?", seeds=1)
    experiment.runs(lambda args: [Entry("a", Recipe(good), SGD(), lr=lr) for lr in (0.1, 0.10001)])
    with pytest.raises(UserError, match="two entries of part 'a' print alike, lr 0.1, with lr 0.1 and 0.10001; give"):
        experiment.jobs(parse(experiment, "s", []))


def test_a_function_that_stands_in_no_file_is_refused():
    scope = {"__name__": "__main__"}
    exec("def typed():\n    pass", scope)
    with pytest.raises(UserError, match="got typed, whose text is in no file"):
        Recipe(scope["typed"])


@pytest.mark.slow
def test_a_script_that_is_edited_makes_its_runs_again_and_one_with_new_words_does_not(toy, finish):
    def run(text):
        toy.write_text(text)
        return next(line for line in finish(toy, "--seeds", "1").stdout.splitlines() if "stored" in line)

    text = toy.read_text()
    assert run(text) == "toy: 2 runs, 0 stored, 2 to make"
    words = text.replace("The gap <over> steps.", "The gap.").replace(
        "def quadratic(noise):", "def quadratic(noise):  #"
    )
    assert run(words.replace("last < first", "last <= first")) == "toy: 2 runs, 2 stored, 0 to make"
    assert run(text.replace("SIZE = 12", "SIZE = 13")) == "toy: 2 runs, 0 stored, 2 to make"
    assert run(text.replace("n=50", "n=51")) == "toy: 2 runs, 0 stored, 2 to make"
    assert run(text) == "toy: 2 runs, 2 stored, 0 to make"


def told(models, kind):
    """A run."""


def test_data_sets_are_found_in_nested_arguments():
    """Runs of models that are told by tuples, such as (data, steps, rate), depend on the data, too."""
    recipe = Recipe(told, models=[("digits", 5), {"more": ("breast_cancer",)}], kind=("small", None, 4))
    assert sets_of(recipe) == ["breast_cancer", "digits"]
    assert sets_of(Recipe(told, models=((3, "nothing of the kind"),), kind="k")) == []
