"""What readme.txt says must run."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import numpy as np

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
    code = section("Your own optimiser in ten lines").split("from npopt import gradcheck")[0]
    method = run(code, tmp_path, "readme_optimizer").SignMomentum(0.6)
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


def test_every_script_is_listed():
    for script in (ROOT / "scripts").glob("[!_]*.py"):
        assert re.search(rf"^    \S+ +{script.stem} ", TEXT, re.M), f"readme.txt does not list {script.stem}"


def test_requirements_and_pyproject_name_the_same_versions():
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert set(wanted) == set(lines[1:-1]) - {line for line in lines if line.startswith(("pytest", "ruff"))}
    assert lines[-1] == "-e ."


def test_the_gpu_section_installs_what_the_requirements_name():
    said = section("GPU\n---")
    (wanted,) = [line for line in (ROOT / "requirements-gpu.txt").read_text().splitlines() if line.startswith("cupy")]
    assert "pip install -r requirements-gpu.txt" in said and wanted.startswith("cupy-cuda12x")
    assert wanted.replace("12x", "13x") in said


def test_pytest_says_how_many_tests_passed():
    """Also where somebody adds a -q to that of pyproject.toml."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests/test_imports.py")]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert re.fullmatch(r"\d+ passed in [\d.]+s", done.stdout.splitlines()[-1])
