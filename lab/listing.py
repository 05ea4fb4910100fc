"""`npopt show NAME`: the derivation and the code of one algorithm, as they stand in its file."""

import ast
import difflib
import inspect
import re
from pathlib import Path

from lab.methods import ROOMS, ROOT, methods
from npopt.backend import elementwise


def plain(name):
    """A name in small letters without marks: adam-mini and AdamMini give the same."""
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def named(word):
    """The methods of that name; two kinds may share one (a schedule and a layer are called Linear)."""
    return [method for method in methods() if plain(method.name) == plain(word)]


def near(word, kinds=tuple(ROOMS)):
    """'did you mean ...?' for an unknown name: names that contain it, files whose first line has it, similar names."""
    some = [method for method in methods() if method.kind in kinds]
    known = {plain(method.name): method.name for method in some}
    whole = re.compile(rf"\b{re.escape(word)}\b", re.I)
    found = [name for key, name in known.items() if plain(word) in key]
    found += [method.name for method in some if whole.search(first_line(method))]
    found += [known[key] for key in difflib.get_close_matches(plain(word), list(known), n=3, cutoff=0.5)]
    close = list(dict.fromkeys(found))[:5]
    where = f" {kinds[0]}" if len(kinds) < len(ROOMS) else ""
    return f"did you mean {', '.join(close)}?" if close else f"npopt methods{where} lists them all"


def first_line(method):
    return (inspect.getmodule(method.thing).__doc__ or "").partition("\n")[0]


def pieces(thing):
    """[(first line, text)] of what a class or function reaches in its own file, in the order of the file.

    The module's docstring comes first, comments stay with what they stand above.
    """
    source = inspect.getsource(inspect.getmodule(thing))
    lines, tree = source.splitlines(), ast.parse(source)
    nodes, wanted, open_ = {}, set(), [thing.__name__]
    for node in tree.body:
        targets = [t for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)]
        for name in [getattr(node, "name", None), *(target.id for target in targets)]:
            if name and not isinstance(node, (ast.Import, ast.ImportFrom)):
                nodes[name] = node
    while open_:
        node = nodes.get(open_.pop())
        if node is not None and node not in wanted:
            wanted.add(node)
            open_ += [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
    if ast.get_docstring(tree):
        wanted.add(tree.body[0])
    found = []
    for node in sorted(wanted, key=lambda node: node.lineno):
        first = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", ()))])
        while first > 1 and lines[first - 2].startswith("#"):
            first -= 1
        found.append((first, "\n".join(lines[first - 1 : node.end_lineno])))
    return found


def formulas(thing, text):
    """[(place, text)] of the formulas that the code takes from other files."""
    module, used = inspect.getmodule(thing), {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}
    found = []
    for name in sorted(used):
        value = getattr(module, name, None)
        if isinstance(value, elementwise) and value.__module__ != module.__name__:
            code, line = inspect.getsourcelines(value.__wrapped__)
            file = Path(inspect.getsourcefile(value.__wrapped__)).resolve().relative_to(ROOT)
            found.append((f"{file.as_posix()}:{line}", "".join(code).rstrip()))
    return found


def text_of(method):
    """The text that is printed for one method."""
    own = pieces(method.thing)
    line = next(first for first, text in own if re.search(rf"^(class|def) {method.name}\b", text, re.M))
    code = "\n\n\n".join(text for _, text in own)
    parts = [f"# {method.file}:{line}\n{code}"]
    parts += [f"# {place}\n{text}" for place, text in formulas(method.thing, code)]
    return "\n\n\n".join(parts)


def command(words):
    """npopt show NAME. Returns the exit status, or a sentence."""
    if len(words) != 1 or words[0].startswith("-"):
        return "name one method, as in: npopt show radam; npopt methods lists them"
    found = named(words[0])
    if not found:
        return f"no method is called {words[0]!r}; {near(words[0])}"
    print("\n\n\n".join(text_of(method) for method in found))
    return 0
