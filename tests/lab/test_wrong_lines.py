"""Wrong command lines: each gets one sentence on stderr and status 2, prints nothing else and makes nothing."""

import runpy
import sys

from lab import cli

import pytest

LINES = [
    ("frobnicate", "no command is called 'frobnicate'; there is list, run, all"),
    ("lst", "no command is called 'lst'; did you mean 'list'?"),
    ("list --foo", "list takes no arguments, got '--foo'"),
    ("run", "name a script, as in: npopt run NAME"),
    ("run --quick toy", "name a script, as in: npopt run NAME"),
    ("run nosuch", "no script is called 'nosuch'; there is toy"),
    ("run toi", "no script is called 'toi'; did you mean 'toy'?"),
    ("run ./missing.py", "there is no file './missing.py'"),
    ("run missing.py", "there is no file 'missing.py'"),
    ("run folder/toy", "there is no file 'folder/toy'"),
    ("run ./plain.py", "'./plain.py' is no script of the lab: a .py file that makes an Experiment"),
    ("run ./rows.libsvm", "'./rows.libsvm' is no script of the lab"),
    ("run toy --foo", "toy: unrecognized arguments: --foo"),
    ("run ./toy.py extra", "toy: unrecognized arguments: extra"),
    ("run toy --quik", "toy: unrecognized arguments: --quik"),
    ("run toy --threads 9999", "argument --threads: this machine has "),
    ("run toy --threads 0", "threads must be a whole number of at least 1, got '0'"),
    ("run toy --jobs 0", "jobs must be a whole number of at least 1, got '0'"),
    ("run toy --jobs 2.5", "jobs must be a whole number of at least 1, got '2.5'"),
    ("run toy --seeds 1,1", "seeds must be a count of at least 1, or different whole numbers"),
    ("run toy --seeds -1", "seeds must be a count of at least 1"),
    ("run toy --epochs nan", "epochs must be a positive number, got 'nan'"),
    ("run toy --steps many", "argument --steps: invalid int value: 'many'"),
    ("run toy --device tpu", "argument --device: invalid choice: 'tpu'"),
    ("run toy --engine spark", "argument --engine: the engines are local, dask and mpi, got 'spark'"),
    ("run toy --kernels", "argument --kernels: expected one argument"),
    ("run toy --parts b", "no part is called 'b'; there is a"),
    ("run toy --parts ,", "--parts names no part; there is a"),
    ("run toy --address host:1", "argument --address: it is that of a cluster; add --engine dask"),
    ("run toy --data minst", "no data set is called 'minst'; did you mean 'mnist'?"),
    ("run toy --data ./rows.libsvm", "--data: './rows.libsvm' is a path, not the name of a data set: problems.libsvm"),
    ("run toy --data ./none.libsvm", "--data: no data set is named './none.libsvm', and there is no such file"),
    ("run toy --out FILE/below", "is not writable"),
    ("run toy --redraw", "no stored run of this grid in 'results/toy': run it first, without --redraw"),
    ("all --foo", "npopt all: unrecognized arguments: --foo"),
    ("all extra", "npopt all: unrecognized arguments: extra"),
    ("all --jobs 0", "jobs must be a whole number of at least 1, got '0'"),
    ("all --jobs", "jobs must be a whole number of at least 1, got ''"),
    ("all --data minst", "no data set is called 'minst'; did you mean 'mnist'?"),
    ("all --parts z", "argument --parts: parts are those of one script; name it"),
    ("all --out FILE/below", "cannot be written"),
    ("report", "no results in 'results'; npopt all --quick makes some"),
    ("report nosuch", "no script is called 'nosuch'; there is toy"),
    ("report ./missing.py", "there is no file './missing.py'"),
    ("report toy extra", "toy: unrecognized arguments: extra"),
    ("report --out nowhere", "no results in 'nowhere'"),
    ("report --foo", "npopt report: unrecognized arguments: --foo"),
    ("show nosuch", "no method is called 'nosuch'; npopt methods lists them all"),
    ("show", "name one method"),
    ("methods a b", "methods takes one word"),
    ("gradcheck toy.py:Nothing", "toy.py"),
    ("gradcheck missing.py:Nothing", "there is no file 'missing.py'"),
    ("gradcheck Conv3d", "no layer or network is called 'Conv3d'; did you mean Conv2d?"),
    ("gradcheck ReLU --batch none", "batch"),
]


@pytest.fixture
def folder(toy, monkeypatch):
    """The toy's folder; scripts run in this process, as `python toy.py ...` would."""
    (toy.parent / "plain.py").write_text("raise AssertionError('not an experiment')\n")
    (toy.parent / "rows.libsvm").write_text("1 1:2\n")
    (toy.parent / "FILE").write_text("")

    def start(path, words):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [str(path), *words])
            try:
                runpy.run_path(str(path), run_name="__main__")
            except SystemExit as end:
                return end.code
        return 0

    monkeypatch.setattr(cli, "scripts", lambda: {"toy": toy})
    monkeypatch.setattr(cli, "start", start)
    monkeypatch.chdir(toy.parent)
    return toy.parent


@pytest.mark.parametrize("line, sentence", LINES, ids=[line for line, _ in LINES])
def test_a_wrong_line_gets_one_sentence(folder, capsys, line, sentence):
    before = sorted(folder.rglob("*"))
    try:
        status = cli.main(line.split())
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert status == 2 and sentence in err and err.count("\n") == 1 and not out
    assert [path for path in sorted(folder.rglob("*")) if path not in before and "__pycache__" not in path.parts] == [
        path for path in (folder / "results", folder / "results/toy", folder / "results/toy/runs") if path.exists()
    ]


def test_the_lines_are_wrong_by_one_thing(folder, capsys):
    """Without it the script runs: by its name, as a file, from elsewhere."""
    for words in (["run", "toy"], ["run", "toy.py"], ["run", "./toy.py"], ["run", str(folder / "toy.py")]):
        assert cli.main([*words, "--steps", "30", "--seeds", "1"]) == 0
    assert "2 runs, 2 stored, 0 to make" in capsys.readouterr().out
    assert cli.main(["report", "./toy.py"]) == 0 and (folder / "results/toy/report.html").exists()
