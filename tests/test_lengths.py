"""Code stays short enough to be read: files of 350 lines, functions of 60, nine positional arguments."""

import ast
import functools
import pathlib

import pytest
from trees import statements

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ("npopt", "nn", "problems", "lab", "scripts")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
LINES, LONGEST, ARGUMENTS = 350, 60, 9
FOREIGN = {"gemmStridedBatchedEx"}  # cuBLAS's own 22 arguments


def is_formula(node):
    """Whether a function is decorated with @elementwise: its arguments are the arrays and numbers of a paper's rule."""
    return any(getattr(d, "id", getattr(d, "attr", "")) == "elementwise" for d in node.decorator_list)


@functools.cache
def formulas():
    """The names of all formulas."""
    texts = [text for text in (path.read_text() for path in FILES) if "elementwise" in text]
    found = [node for text in texts for node in statements(ast.parse(text))]
    return {node.name for node in found if isinstance(node, ast.FunctionDef) and is_formula(node)}


def faults(text):
    """What is too long in a text, as (line, what)."""
    if (lines := len(text.splitlines())) > LINES:
        yield lines, f"a file of {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1
            if length > LONGEST:
                yield node.lineno, f"{node.name} has {length} lines"
            count = len(node.args.posonlyargs) + len(node.args.args)
            if count > ARGUMENTS and not is_formula(node):
                yield node.lineno, f"{node.name} takes {count} positional arguments"
        elif isinstance(node, ast.Call) and len(node.args) > ARGUMENTS:
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name not in formulas() | FOREIGN:
                yield node.lineno, f"{name} is called with {len(node.args)} positional arguments"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_no_function_and_no_list_of_arguments_is_too_long(path):
    assert list(faults(path.read_text())) == []


def test_what_is_too_long_is_found():
    ten = ", ".join("abcdefghij")
    assert list(faults("x = 1\n" * 351)) == [(351, "a file of 351 lines")]
    assert list(faults("def f():\n" + "    x = 1\n" * 60)) == [(1, "f has 61 lines")]
    assert list(faults(f"def f({ten}):\n    pass\n")) == [(1, "f takes 10 positional arguments")]
    assert list(faults(f"f({ten})\n")) == [(1, "f is called with 10 positional arguments")]
    assert list(faults(f"@elementwise\ndef f({ten}):\n    adamw({ten})\n")) == []
