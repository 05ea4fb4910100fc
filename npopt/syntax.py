"""What a file of Python defines. Each name of its outermost level has a hash, and the names that its definition uses.

The hash is that of the syntax tree without the parts that decide nothing: layout, comments, docstrings, annotations of
arguments, the sentences of errors.
"""

import ast
import hashlib
import symtable

IDLE = ("ctx", "kind", "type_comment", "returns")  # fields of a syntax tree that decide nothing
DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def definitions(text):
    """{name: {"hash", "uses", "imports", "texts"}}; the entry "*" has the imports of `from m import *`.

    uses: names of the module, or of Python, with their attributes, "a.b.c". imports: {name: [[module, name in it, or ""
    for the module itself]]}, by the definition or inside it. texts: those that may name a file.
    """
    found, scopes = {}, {}
    for scope in symtable.symtable(text, "text", "exec").get_children():
        scopes[scope.get_name(), scope.get_lineno()] = scope
    for statement in ast.parse(text).body:
        for name in sorted(bound(statement)):
            entry = found.setdefault(name, {"hash": "", "uses": [], "imports": {}, "texts": []})
            add(entry, name, statement, scopes)
    return found


def add(entry, name, statement, scopes):
    """Add a statement to the definition of a name."""
    imports = imported(statement)
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        imports, meaning, uses, texts = {name: imports[name]}, f"import {imports[name]}", (), ()
    else:
        meaning, uses, texts = tree(statement), chains(statement), literals(statement)
        if isinstance(statement, DEFINED):
            own = global_names(statement, scopes)
            outside = {chain for part, value in fields(statement) if part != "body" for chain in chains(value)}
            uses = [chain for chain in uses if chain.split(".")[0] in own or chain in outside]
    entry["hash"] = hashlib.sha256((entry["hash"] + meaning).encode()).hexdigest()[:16]
    entry["uses"] = sorted({*entry["uses"], *uses})
    entry["texts"] = sorted({*entry["texts"], *texts})
    for alias, targets in imports.items():
        entry["imports"].setdefault(alias, []).extend(targets)


def bound(statement):
    """The names that a statement defines, or changes: TABLE.update(...), TABLE["a"] = ... and X.a = ... change them."""
    if isinstance(statement, DEFINED):
        return {statement.name}
    found = set(imported(statement))
    for node in outer(statement):
        if isinstance(node, DEFINED):
            found.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, (ast.Attribute, ast.Subscript)) and not isinstance(node.ctx, ast.Load):
            found.add(root(node))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found.add(root(node.value))
    return found - {None}


def outer(node):
    """The nodes of a statement, without the insides of functions and classes."""
    yield node
    if not isinstance(node, (*DEFINED, ast.Lambda)):
        for child in ast.iter_child_nodes(node):
            yield from outer(child)


def root(node):
    """The name at the beginning of a.b[c](d).e, or None."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def imported(statement):
    """{name: [[module, name in it or ""]]} of all imports in a statement; relative modules keep their dots."""
    found = {}
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.split(".")[0]
                found.setdefault(alias.asname or whole, []).append([whole, ""])
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, []).append([module, alias.name.replace("*", "")])
    return found


def global_names(statement, scopes):
    """The names that the inside of a function or class takes from its module, or from Python."""
    lines = {statement.lineno, *(decorator.lineno for decorator in statement.decorator_list)}
    open_, found = [scopes[statement.name, line] for line in lines if (statement.name, line) in scopes], set()
    while open_:
        scope = open_.pop()
        found |= {symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global()}
        open_ += scope.get_children()
    return found


# -------------------------------------------------------------------------------------------------------- the trees
def fields(node):
    """(name, value) of the fields of a node that decide something."""
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.Raise):
            value = getattr(value, "func", value) if name == "exc" else None  # which error, not what it says
        if isinstance(value, list):
            value = [v for v in value if not (isinstance(v, ast.Expr) and isinstance(v.value, ast.Constant))]
        idle = name in IDLE or (name == "annotation" and isinstance(node, ast.arg))
        idle = idle or (name == "msg" and isinstance(node, ast.Assert))
        if not idle and value is not None and value != []:  # what is empty is left out in some versions of Python
            yield name, value


def tree(node):
    """The meaning of a syntax tree as text."""
    if isinstance(node, list):
        return f"[{','.join(map(tree, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    return f"{type(node).__name__}({','.join(f'{name}={tree(value)}' for name, value in fields(node))})"


def chains(node):
    """The names that are read in a tree, with their attributes: "a.b.c"."""
    if isinstance(node, list):
        for one in node:
            yield from chains(one)
    elif isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Load):
            yield node.id
    elif isinstance(node, ast.Attribute) and (chain := dotted(node)):
        yield chain
    elif isinstance(node, ast.AST):
        for _, value in fields(node):
            yield from chains(value)


def dotted(node):
    """a.b.c of an Attribute that has nothing but names in it, else None."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else None


def literals(node):
    """The texts of a tree that may name a file."""
    for one in ast.walk(node):
        text = one.value if isinstance(one, ast.Constant) else None
        if isinstance(text, str) and 1 < len(text) < 256 and "." in text + "." and not set(text) & set("\n\0"):
            yield text
