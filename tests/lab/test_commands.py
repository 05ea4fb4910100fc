"""npopt methods, show and gradcheck: complete, true to the files, and one sentence for what is not there."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import lab
import nn
import npopt
from lab import cli, examples, listing, methods

import pytest
import test_table

ROOT = Path(__file__).resolve().parents[2]
LAYERS = """
import nn
from npopt import backend

class Softsign(nn.Layer):
    \"\"\"y = a x / (1 + |x|)\"\"\"
    def __init__(self, features, slope=1):
        self.features, self.slope = features, slope
        self.shapes, self.init = {"a": ((features,), "norm")}, {"a": nn.init.Ones()}

    def forward(self, x, run):
        h = self.slope * x / (1 + abs(x))
        return self.a * h, (x, h)

    def backward(self, dy, saved, run):
        x, h = saved
        self.da[...] = (dy * h).sum(tuple(range(dy.ndim - 1)))
        return self.slope * self.a * dy / (1 + abs(x)) ** 2

class Wrong(Softsign):
    def backward(self, dy, saved, run):
        return 1.001 * super().backward(dy, saved, run)

class Late(Softsign):
    def backward(self, dy, saved, run):
        raise RuntimeError("not written yet")

def network():
    return nn.mlp((3, 4, 2))

number = 3
"""


@pytest.fixture
def said(capsys):
    """Run a command; (status, what it printed, what it printed as an error)."""

    def run(*words):
        status = cli.main(list(words))
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(LAYERS)
    return f"{tmp_path / 'mine.py'}:"


def test_methods_are_complete(said, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    status, out, _ = said("methods")
    entries = re.findall(r"^  (\w+) +(\S+\.py)$", out, re.M)
    assert status == 0 and len(entries) == len(methods.methods())
    for module, table in test_table.TABLE.items():
        for name in table:
            file = inspect.getsourcefile(getattr(sys.modules[module], name))
            assert (name, Path(file).relative_to(ROOT).as_posix()) in entries, f"{module}.{name}"
    known = {method.thing for method in methods.methods()}
    listed = {getattr(npopt, name) for name in npopt.__all__} | {getattr(nn, name) for name in nn.__all__}
    bases = (
        npopt.optimizers.Optimizer,
        npopt.estimators.Estimator,
        npopt.samplers.Sampler,
        nn.Layer,
        npopt.schedules.Schedule,
        npopt.penalties.Regulariser,
    )
    public = {thing for thing in listed if inspect.isclass(thing) and issubclass(thing, bases)}
    assert not public - known - set(bases)


@pytest.mark.parametrize(
    "name, paper, state",
    [
        (
            "RAdam",
            "Liu, Jiang, He, Chen, Liu, Gao & Han, ICLR 2020, arXiv:1908.03265, Algorithm 2",
            "m, v: 8 bytes a parameter (float32)",
        ),
        ("Adadelta", "Zeiler, arXiv:1212.5701, Algorithm 1", "v, u: 8 bytes a parameter (float32)"),
        (
            "Lookahead",
            "Zhang, Lucas, Hinton & Ba, NeurIPS 2019, arXiv:1907.08610, Algorithm 1",
            "slow: 4 bytes a parameter (float32)",
        ),
        (
            "AdamMini",
            "Zhang et al., ICLR 2025, arXiv:2406.16793, Algorithm 1, partitioned as in the authors' code (1.1.1)",
            f"m, v: {4 + 4 / 256:.3g} bytes a parameter (float32)",
        ),  # a matrix of 256 rows of 256
        ("SGD", "Robbins & Monro, Annals of Mathematical Statistics 22, 1951", ""),
        (
            "SAGA",
            "Defazio, Bach & Lacoste-Julien, NIPS 2014, equations 1 to 3; a table of past gradients reduces the "
            "variance",
            "table (n, 1), mean (d)",
        ),
        ("BatchNorm", "Ioffe & Szegedy, ICML 2015", "a (3), b (3); statistics mean, variance"),
        ("Huber", "Huber, Ann. Math. Stat. 35, 1964", ""),
        ("Logit", "", ""),
        ("Simplex", "Held, Wolfe & Crowder, Math. Prog. 6, 1974", ""),
        ("SoftmaxCrossEntropy", "Szegedy et al., CVPR 2016, section 7, for the smoothing", ""),
        ("ReLU", "", ""),
        ("Quadratic", "", ""),
    ],
)
def test_paper_and_state_are_read_from_the_class(name, paper, state):
    (method,) = listing.named(name)
    assert (methods.paper(method), methods.state(method)) == (paper, state)


def test_every_optimizer_has_a_paper_and_every_entry_its_tests():
    for method in methods.methods():
        if method.kind == "optimizers":
            assert re.search(r"19\d\d|20\d\d|arXiv", methods.paper(method)), method.name
    tested = [name for table in test_table.TABLE.values() for name in table]
    assert sorted(method.name for method in methods.methods() if methods.tests(method)) == sorted(tested)
    (radam,) = listing.named("radam")
    assert "tests/test_optimizers.py::test_the_first_rectified_step_of_radam_and_its_factors" in methods.tests(radam)


def test_methods_without_the_tests_folder(said, monkeypatch, tmp_path):
    methods.table.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(methods, "ROOT", ROOT)
        patch.setattr(methods.Path, "exists", lambda path: False)
        assert methods.table() == {}
    methods.table.cache_clear()
    assert methods.table()


@pytest.mark.parametrize("columns, limit", [("200", 100), ("100", 100), ("60", 60), ("30", 60)])
def test_output_fits_the_terminal(said, monkeypatch, columns, limit):
    monkeypatch.setenv("COLUMNS", columns)
    for words in (["methods", "adam"], ["methods", "layers"], ["gradcheck", "BatchNorm", "basic_block"]):
        status, out, _ = said(*words)
        assert status == 0 and max(map(len, out.splitlines())) <= limit


def test_a_word_filters_by_kind_name_file_and_paper(said):
    for word, some in (
        ("adam", {"Adam", "AdamW", "RAdam", "NAdam"}),
        ("samplers", {"ByClass", "Importance"}),
        ("kingma", {"Adam", "Adamax"}),
        ("averaging.py", {"EMA", "SWA", "Lookahead"}),
    ):
        status, out, _ = said("methods", word)
        names = set(re.findall(r"^  (\w+) +\S+\.py$", out, re.M))
        assert status == 0 and some <= names and "SGD" not in names and "::test_" in out


def test_show_prints_derivation_and_code_as_they_stand(said):
    status, out, _ = said("show", "radam")
    source = (ROOT / "npopt/optimizers/radam.py").read_text()
    assert status == 0 and source[source.index("@elementwise") :].rstrip() in out
    assert inspect.getdoc(npopt.optimizers.radam) in out and inspect.getdoc(npopt.RAdam).splitlines()[0] in out
    assert "# npopt/optimizers/adam.py:" in out and "def adam(x, m, v, g, lr, b1, b2, eps, c1, c2):" in out
    status, out, _ = said("show", "linear")  # two things have this name
    assert inspect.getsource(npopt.Linear) in out and inspect.getsource(nn.Linear).rstrip() in out
    assert "def show" not in out and inspect.getsource(nn.lenet5).rstrip() in said("show", "lenet5")[1]
    assert "class AdamMini" in said("show", "adam-mini")[1]


def test_every_method_can_be_shown():
    for method in methods.methods():
        text = listing.text_of(method)
        assert text.startswith(f"# {method.file}:") and inspect.getsource(method.thing).rstrip() in text
        line = int(re.match(r"# \S+:(\d+)", text)[1])
        assert (ROOT / method.file).read_text().splitlines()[line - 1] in inspect.getsource(method.thing)


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["show", "radm"], "no method is called 'radm'; did you mean RAdam, Adam, RandK?"),
        (["show", "mini"], "no method is called 'mini'; did you mean AdamMini, Minibatch, Batched, Sign?"),
        (["show", "momentum"], "no method is called 'momentum'; did you mean NormalisedMomentum, LMomentum, HeavyBall"),
        (["show", "qqqq"], "no method is called 'qqqq'; npopt methods lists them all"),
        (["show"], "name one method"),
        (["show", "adam", "sgd"], "name one method"),
        (["show", "--foo"], "name one method"),
        (["methods", "qqqq"], "no method has 'qqqq'"),
        (["methods", "--foo"], "methods takes one word"),
        (["gradcheck", "Conv3d"], "no layer or network is called 'Conv3d'; did you mean Conv2d?"),
        (["gradcheck", "qqqq"], "no layer or network is called 'qqqq'; npopt methods layers lists them all"),
        (["gradcheck", "absent.py:A"], "there is no file 'absent.py'"),
        (["gradcheck", "MINE"], "name a class of the file"),
        (["gradcheck", "MINE:Nothing"], "its layers are Softsign, Wrong, Late"),
        (["gradcheck", "MINE:number"], "number cannot be made: TypeError"),
        (["gradcheck", "MINE:Softsign"], "Softsign cannot be made: TypeError"),
        (["gradcheck", "MINE:Softsign", "--args", "5"], "as in --shape 3,5"),
        (["gradcheck", "MINE:Softsign", "--args", "5", "--shape", "3,a"], "--shape is that of one row"),
        (["gradcheck", "MINE:Softsign", "--args", "5,f(", "--shape", "3"], "--args takes numbers and texts"),
        (["gradcheck", "lenet5", "--args", "(8,8,1)"], "npopt: lenet5: activation must be a layer's class"),
        (["gradcheck", "--args", "5"], "are those of one layer"),
        (["gradcheck", "ReLU", "--batch", "0"], "at least 1"),
    ],
)
def test_what_is_not_there_gets_one_sentence(said, mine, words, sentence):
    status, out, err = said(*[word.replace("MINE", mine[:-1]) for word in words])
    assert status == 2 and sentence in err and err.count("\n") == 1 and not out


def test_gradcheck_knows_every_layer_and_network():
    known = {method.name for method in methods.methods() if method.kind in ("layers", "networks")}
    assert set(examples.EXAMPLES) == known
    assert {
        name for name in nn.__all__ if inspect.isclass(getattr(nn, name)) and issubclass(getattr(nn, name), nn.Layer)
    } - {"Layer"} <= known


def test_gradcheck_prints_direction_values_and_verdict(said):
    status, out, _ = said("gradcheck", "linear", "embedding", "lenet5")
    assert status == 0 and "3 checked, 0 failed" in out
    head, *lines = out.splitlines()
    assert head.split() == ["layer", "direction", "analytic", "numeric", "error"]
    rows = [line.split() for line in lines if line.startswith(("Linear", "Embedding", "lenet5"))]
    assert {row[1] for row in rows if row[0] == "Linear"} == {"all", "W", "b", "inputs"}
    for row in rows:
        analytic, numeric = map(float, row[-4:-2] if row[-1] == "ok" else row[-5:-3])
        assert analytic == pytest.approx(numeric, rel=1e-5, abs=1e-8)
    assert said("gradcheck", "Linear", "--args", "5,2,bias=False", "--shape", "4x5")[1].count("Linear") == 4


def test_gradcheck_of_a_users_layer(said, mine):
    assert said("gradcheck", mine + "Softsign", "--args", "5,slope=2", "--shape", "3,5")[0] == 0
    assert said("gradcheck", mine + "network")[0] == 0  # a network knows its shape
    status, out, _ = said("gradcheck", mine + "Wrong", "--args", "5", "--shape", "3,5")
    assert status == 1 and "1 failed: Wrong" in out
    assert [line.endswith("FAILS") for line in out.splitlines() if " a  " in line] == [False]
    assert any(" inputs " in line and line.endswith("FAILS") for line in out.splitlines())
    status, out, err = said("gradcheck", mine + "Late", "--args", "5", "--shape", "5")
    assert status == 1 and re.search(r"Late: RuntimeError: not written yet \(line \d+ of mine.py\)\n", err)


def test_a_commands_file_hides_nothing_of_the_lab():
    assert not {module.split(".")[1] for module in cli.LIBRARY.values()} & set(lab.__all__)


@pytest.mark.slow
def test_gradcheck_of_everything(said):
    status, out, _ = said("gradcheck")
    assert status == 0 and f"{len(examples.EXAMPLES)} checked, 0 failed" in out


def test_a_closed_pipe_ends_quietly():
    done = subprocess.run(
        f"{sys.executable} -m lab.cli methods | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.startswith("optimizers") and not done.stderr
