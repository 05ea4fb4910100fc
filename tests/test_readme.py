"""What readme.txt says must run."""

import importlib.util
import os
import pathlib
import re
import runpy
import subprocess
import sys

from lab import cli

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "readme.txt").read_text()


def section(title):
    """The indented lines of a section, without the indent."""
    body = TEXT.split(f"\n{title}\n")[1]
    body = re.split(r"\n\n\n", body)[0]
    return "\n".join(line[4:] for line in body.splitlines() if line.startswith("    ") or not line.strip())


def run(code, tmp_path, name):
    path = tmp_path / f"{name}.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lines_are_at_most_100_columns_and_two_commands_open_it():
    assert max(len(line) for line in TEXT.splitlines()) <= 100
    assert len(re.findall(r"^  python3 -m venv", TEXT, re.M)) == 2


def test_the_ten_line_optimizer_does_what_its_formula_says(tmp_path, rng):
    method = run(section("Your own optimiser in ten lines"), tmp_path, "readme_optimizer").SignMomentum(0.6)
    x, m = np.ones(3), np.zeros(3)
    y = x.copy()
    method.start(x)
    for _ in range(5):
        g = rng.standard_normal(3)
        method.step(x, g, 0.1)
        m = 0.6 * m + 0.4 * g
        y = y - 0.1 * np.sign(m)
    np.testing.assert_allclose(x, y, rtol=1e-14)


def test_the_program_runs(tmp_path, capsys):
    code = section("The whole field in five lines").split("t += 1")[1]
    module = run(code, tmp_path, "readme_program")
    assert module.run.reason == "epochs" and module.run.final["gap"] < 0.1
    assert "objective" in capsys.readouterr().out


def test_your_own_data(tmp_path, capsys, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    X = rng.standard_normal((60, 3))
    lines = [f"{row @ [1, 2, -1]:.6f} 1:{row[0]:.6f} 2:{row[1]:.6f} 3:{row[2]:.6f}" for row in X]
    (tmp_path / "my.libsvm").write_text("\n".join(lines))
    module = run(section("Your own data"), tmp_path, "readme_data")
    assert module.fit.final["objective"] < 0.1
    assert float(capsys.readouterr().out) > 0.8


def test_your_own_layer(tmp_path, capsys, rng):
    module = run(section("Your own layer"), tmp_path, "readme_layer")
    assert "gradcheck of Softsign: ok" in capsys.readouterr().out
    assert sum(isinstance(layer, module.Softsign) for layer in module.network.layer.leaves()) == 1
    from nn import gradcheck_layer

    assert gradcheck_layer(module.Softsign(), (5,)).ok and gradcheck_layer(module.network, (64,)).ok
    path = tmp_path / "readme_layer.py"
    assert "mine.py:Softsign --shape 5" in TEXT and cli.main(["gradcheck", f"{path}:Softsign", "--shape", "5"]) == 0


@pytest.mark.slow
def test_your_own_script_and_fresh(tmp_path, monkeypatch, capsys):
    """It runs; a second time nothing is made, with --fresh everything is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_exp.py").write_text(section("Your own script").split("In a file")[0])
    words = ["run", "./my_exp.py", "--threads", "1", "--seeds", "1", "--epochs", "1"]
    there = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "lab.cli", *words], env=there, capture_output=True, text=True)
    assert done.returncode == 0 and "my_exp: 2 runs, 0 stored, 2 to make" in done.stdout, done.stderr
    assert "Does momentum help?" in (tmp_path / "results/my_exp/report.html").read_text()

    def start(path, words):  # here, to save the imports
        monkeypatch.setattr(sys, "argv", [str(path), *words])
        runpy.run_path(str(path), run_name="__main__")
        return 0

    monkeypatch.setattr(cli, "start", start)
    for more, said in ([], "2 stored, 0 to make"), (["--fresh"], "0 stored, 2 to make"):
        assert cli.main([*words, *more]) == 0 and f"my_exp: 2 runs, {said}" in capsys.readouterr().out


def test_every_script_is_listed():
    for script in (ROOT / "scripts").glob("[!_]*.py"):
        assert re.search(rf"^    \S+ +{script.stem} ", TEXT, re.M), f"readme.txt does not list {script.stem}"


def test_requirements_and_pyproject_name_the_same_versions():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["surfaces"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert set(wanted) == set(lines[1:-1]) - {line for line in lines if line.startswith(("pytest", "ruff"))}
    assert lines[-1] == "-e ."


def test_the_gpu_section_installs_what_the_requirements_name():
    said = section("GPU\n---")
    (wanted,) = [line for line in (ROOT / "requirements-gpu.txt").read_text().splitlines() if line.startswith("cupy")]
    assert "pip install -r requirements-gpu.txt" in said and wanted.startswith("cupy-cuda12x")
    assert wanted.replace("12x", "13x") in said


@pytest.mark.slow
def test_pytest_says_how_many_tests_passed():
    """Also where somebody adds a -q to that of pyproject.toml."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests/test_imports.py")]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert re.fullmatch(r"\d+ passed in [\d.]+s", done.stdout.splitlines()[-1])
