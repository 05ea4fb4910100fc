"""What users did wrong is a UserError: no other exception is raised where arguments, files and data come in."""

import ast
import builtins
import functools
import pathlib

import pytest
from trees import BODIES

ROOT = pathlib.Path(__file__).parents[1]
FILES = [path for room in ("npopt", "nn", "problems", "lab") for path in sorted((ROOT / room).rglob("*.py"))]

# (file, function): why it raises another exception.
OTHERS = {
    ("nn/layer.py", "__getattr__"): "Python asks for an AttributeError",
    ("npopt/backend/cache.py", "make_private"): "folder() catches it and goes on to the next candidate",
    ("npopt/backend/cache.py", "check_above"): "the same",
    ("npopt/backend/graphs.py", "_done"): "a status of NVIDIA's library; a pass that cannot be recorded is not",
    ("npopt/backend/graphs.py", "_library"): "the same",
    ("problems/linear/formula.py", "refuse"): "the loss then has no CUDA source, and steps are launched one by one",
    ("npopt/backend/once.py", "rebuild"): "cache.py catches it, and the caller is compiled again",
    ("npopt/backend/once.py", "pointer"): "while a kernel is compiled, where only a bug leads",
    ("nn/kernels/packed.py", "emit"): "while a kernel is compiled, where only a bug leads",
    ("nn/kernels/simd.py", "scalar"): "while a kernel is compiled, where only a bug leads",
    ("problems/__init__.py", "__getattr__"): "Python asks for an AttributeError",
    ("problems/minima/yardstick.py", "note"): "ends the loop of a solver of another library",
    ("problems/linear/passes.py", "check"): "compiled; the model catches it and finds out what did not fit",
    ("problems/linear/passes.py", "check_combine"): "the same",
    ("problems/linear/model.py", "array_pass"): "the same on a GPU",
    ("problems/linear/model.py", "array_combine"): "the same on a GPU",
}


def raised(node):
    """The name of the built-in exception that a raise makes, or None. (ArithmeticError: there is no minimum; `minimum`
    answers None.)"""
    found = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    kind = getattr(builtins, getattr(found, "id", ""), None)
    known = isinstance(kind, type) and issubclass(kind, Exception) and kind is not ArithmeticError
    return kind.__name__ if known else None


def others(node, function=""):
    """(function, line, exception) of each raise of a built-in exception that no try of the same function catches."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        function = node.name
    if isinstance(node, ast.Raise) and raised(node):
        yield function, node.lineno, raised(node)
    for field in BODIES:
        caught = [ast.unparse(h.type) for h in node.handlers] if isinstance(node, ast.Try) and field == "body" else []
        for child in getattr(node, field, []):
            found = others(child, function)
            yield from (row for row in found if not any(row[2] in types for types in caught))


@functools.cache
def found_in(path):
    """{(file, function): (line, exception)} of a file."""
    name = str(path.relative_to(ROOT))
    return {(name, function): (line, kind) for function, line, kind in others(ast.parse(path.read_text()))}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_users_errors_are_of_one_type(path):
    assert not set(found_in(path)) - set(OTHERS), found_in(path)


def test_every_line_of_the_list_is_needed():
    assert set(OTHERS) <= {place for path in FILES for place in found_in(path)}


def test_what_the_same_function_catches_is_no_other_error():
    text = """
def f(x):
    try:
        raise ValueError
    except (TypeError, ValueError):
        raise TypeError("seen")
    raise UserError("not built in")
"""
    assert list(others(ast.parse(text))) == [("f", 6, "TypeError")]
