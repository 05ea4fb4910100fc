"""A loss of linear models in CUDA C++: its own text, or its `one` translated as formulas of optimizers are."""

import ast
import inspect
import math
import textwrap

from npopt.backend.translation import Cuda, Translation

import numpy as np

HEAD = "template <typename S>\n__device__ double loss_of(const double* numbers, double y, S& s, int first, int K) {\n"
SAME = {"maximum": "max", "minimum": "min", "fabs": "abs"}  # NumPy's names of what formulas call otherwise


def cuda(loss):
    """The text of `loss_of` (see steps.cuh), or None if the loss has none. Its steps are then made one by one."""
    for kind in type(loss).__mro__:
        if "cuda" in vars(kind):
            return f"{HEAD}{kind.cuda}}}\n"
        if "many" in vars(kind) or "one" in vars(kind):
            try:
                return translated(kind.one, loss._fields) if loss.outputs == 1 else None
            except (AttributeError, OSError, SyntaxError, TypeError):  # no source, or not of the language of formulas
                return None
    return None


def translated(one, fields):
    """one(self, y, z) -> (l, l'), with self's numbers by these names."""
    formula = Formula(one, fields)
    t = Translation(
        formula, formula.read, "float64", Cuda(), lambda name: f"numbers[{formula.arguments.index(name) - 2}]"
    )
    y, z = formula.read
    lines = [f"const double {y}_i = y, {z}_i = s[first];"]
    lines += [f"const double {name} = {code};" for name, code in t.hoisted + t.body]
    (_, value), (_, slope) = t.stores
    lines += [f"s[first] = {slope};", f"return {value};"]
    return HEAD + "".join(f"    {line}\n" for line in lines) + "}\n"


class Formula(ast.NodeTransformer):
    """The method in the form that a Translation reads. Its arguments are y, z and the loss's numbers, and what it
    returns has names."""

    written = ("own value", "own slope")  # no name of Python's

    def __init__(self, one, fields):
        tree = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
        self.own, *self.read = [a.arg for a in tree.args.args]
        self.fields, self.homes = fields, one.__globals__
        self.arguments = [*self.read, *(f"own {name}" for name in fields)]
        body = [self.visit(s) for s in tree.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        *self.statements, last = body
        for s in self.statements:
            if not (isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ast.Name)):
                self.refuse(s, "only assignments and one return")
        if not (isinstance(last, ast.Return) and isinstance(last.value, ast.Tuple) and len(last.value.elts) == 2):
            self.refuse(last, "two numbers are returned")
        for name, value in zip(self.written, last.value.elts, strict=True):
            self.statements.append(ast.Assign([ast.Name(name)], value))

    def visit_Attribute(self, node):
        """self.delta, np.exp, math.exp."""
        if isinstance(node.value, ast.Name):
            if node.value.id == self.own and node.attr in self.fields:
                return ast.Name(f"own {node.attr}")
            if self.homes.get(node.value.id) in (np, math):
                return ast.Name(SAME.get(node.attr, node.attr))
        return node

    def refuse(self, node, why):
        raise SyntaxError(f"{why}: {ast.unparse(node)}")
