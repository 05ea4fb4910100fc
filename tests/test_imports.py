"""Arrows of import run one way: scripts -> lab -> problems -> nn -> npopt; every room may use those below it."""

import ast
import graphlib
import pathlib
import tomllib

import pytest
from trees import statements

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = ["npopt", "nn", "problems", "lab", "scripts"]  # from the ground up
FILES = [path for room in FLOORS for path in sorted((ROOT / room).rglob("*.py"))]


def rooms_imported(text):
    """{room: line} of our own rooms that a file's text imports, at any depth (inside functions too)."""
    found, tree = {}, ast.parse(text)
    for node in ast.walk(tree) if "import_module" in text else statements(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module" and node.args:
            names = [str(getattr(node.args[0], "value", ""))]
        else:
            continue
        found.update({name.split(".")[0]: node.lineno for name in names if name.split(".")[0] in FLOORS})
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_imports_a_room_above_its_own(path):
    here = FLOORS.index(path.relative_to(ROOT).parts[0])
    above = {room: line for room, line in rooms_imported(path.read_text()).items() if FLOORS.index(room) > here}
    assert not above, f"{path.relative_to(ROOT)} imports upward: {above}"


def test_an_import_is_seen_wherever_it_stands():
    text = "import numpy\ndef f():\n    from lab.figures import panels\n    import nn.core, problems\n"
    assert rooms_imported(text) == {"lab": 3, "nn": 4, "problems": 4}
    text = "try:\n    pass\nexcept OSError:\n    import npopt\nelse:\n    y = [import_module('scripts.adam')]\n"
    assert rooms_imported(text) == {"npopt": 4}
    assert rooms_imported(text.replace("import_module", "importlib.import_module")) == {"npopt": 4, "scripts": 6}


def test_every_package_is_installed_where_the_installation_is_not_editable():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    inits = [path for room in FLOORS[:-1] for path in (ROOT / room).rglob("__init__.py")]
    assert set(listed) == {".".join(path.parent.relative_to(ROOT).parts) for path in inits}


def modules_imported(tree, known):
    """The modules among `known` that a syntax tree imports, at any depth; `from a import b` is a.b if it is one."""
    found = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in known else node.module for name in inner)
    return found & set(known)


def test_no_modules_import_each_other_in_a_circle():
    known = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    arrows = {name: modules_imported(ast.parse(path.read_text()), known) - {name} for name, path in known.items()}
    assert sum(map(len, arrows.values())) > len(known)
    graphlib.TopologicalSorter(arrows).prepare()  # a CycleError names the circle


def test_a_circle_of_modules_is_seen():
    known = {"lab.a", "lab.b"}
    arrows = {
        "lab.a": modules_imported(ast.parse("def f():\n    from lab import b\n"), known),
        "lab.b": modules_imported(ast.parse("import lab.a\n"), known),
    }
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(arrows).prepare()
