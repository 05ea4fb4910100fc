"""Arrows of import run one way: scripts -> lab -> problems -> nn -> npopt; every room may use those below it."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = ["npopt", "nn", "problems", "lab", "scripts"]              # from the ground up
FILES = [path for room in FLOORS for path in sorted((ROOT / room).rglob("*.py"))]


def rooms_imported(tree):
    """{room: line} of our own rooms that a syntax tree imports, at any depth (inside functions too)."""
    found = {}
    for node in ast.walk(tree):
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
    above = {room: line for room, line in rooms_imported(ast.parse(path.read_text())).items()
             if FLOORS.index(room) > here}
    assert not above, f"{path.relative_to(ROOT)} imports upward: {above}"


def test_an_import_is_seen_wherever_it_stands():
    text = "import numpy\ndef f():\n    from lab.figures import panels\n    import nn.core, problems\n"
    assert rooms_imported(ast.parse(text)) == {"lab": 3, "nn": 4, "problems": 4}
