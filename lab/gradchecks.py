"""`npopt gradcheck`: is each layer's backward pass the derivative of its forward pass, in float64?

    npopt gradcheck                                         every layer and network, its worst direction
    npopt gradcheck Conv2d resnet18                         these, every direction
    npopt gradcheck Linear --args 5,4,bias=False --shape 7,5        with arguments and an input of one's own
    npopt gradcheck mine.py:Softsign --args 5 --shape 3,5   a Layer, a Network, or a function that makes one

The status is 1 when a check fails. What is compared, and how near, stands in nn/gradcheck.py.
"""

import ast
import importlib.util
import sys
import traceback
from pathlib import Path

import nn
from lab.examples import EXAMPLES
from lab.listing import near, plain
from lab.methods import columns, public
from lab.options import Parser
from npopt import gradcheck
from npopt.errors import UserError

import numpy as np

KINDS = ("layers", "networks")


def check(layer, shape, batch):
    """The Report of a layer or Network. Words have no gradient. So an Embedding is checked in a small network, and a
    network that begins with one by its loss."""
    within = layer.layer if isinstance(layer, nn.Network) else layer
    first = next((leaf for leaf in within.leaves() if isinstance(leaf, nn.Embedding)), None)
    if first is not None:
        from problems import Neural
        from problems.tokens import Windows

        text, network = np.random.default_rng(0).integers(0, first.words, 60), layer
        if layer is first:
            head = nn.Linear(layer.features, layer.words)
            network = nn.Network(nn.Sequential(embed=layer, out=head), shape, "Embedding")
        problem = Neural(network, Windows(text, shape[0]), dtype="float64")
        return gradcheck(problem, network.x0(np.random.default_rng(1), "float64"), np.arange(batch))
    return nn.gradcheck_layer(layer, shape, batch=batch)


# ---------------------------------------------------------------------------------------------------- what is checked
def loaded(path, name):
    """The object of that name in a user's file; a UserError says why there is none."""
    if not path.is_file():
        raise UserError(f"there is no file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} cannot be loaded: {said(error)}") from error
    finally:
        sys.path.pop(0)
    if not hasattr(module, name):
        theirs = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, nn.Layer) and value.__module__ == path.stem
        ]
        raise UserError(f"{path} has no {name!r}; its layers are {', '.join(theirs) or 'none'}")
    return getattr(module, name)


def said(error):
    """The kind, the words and the line of an error in a user's code."""
    where = traceback.extract_tb(error.__traceback__)
    line = f" (line {where[-1].lineno} of {Path(where[-1].filename).name})" if where else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{line}"


def arguments(text):
    """(positional, named) of "5, bias=False": numbers, texts, lists and None."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        return ([ast.literal_eval(a) for a in call.args], {k.arg: ast.literal_eval(k.value) for k in call.keywords})
    except (SyntaxError, ValueError, AttributeError):
        raise UserError(f"--args takes numbers and texts of a call, as in 5,bias=False, got {text!r}") from None


def sizes(text):
    """(3, 5) of "3,5"."""
    parts = [part for part in text.replace("x", ",").split(",") if part.strip()]
    if not parts or not all(part.strip().isdigit() and int(part) for part in parts):
        raise UserError(f"--shape is that of one row of inputs, without the batch, as in 3,5, got {text!r}")
    return tuple(int(part) for part in parts)


def subject(word, args):
    """(name, layer or Network, shape of a row) of a word of the command line; a UserError says what is missing."""
    given, named = arguments(args.args or "")
    shape = sizes(args.shape) if args.shape else None
    if ":" in word or word.endswith(".py"):
        file, _, name = word.partition(":")
        if not name:
            raise UserError(f"name a class of the file, as in {file}:MyLayer")
        thing = loaded(Path(file), name)
    else:
        known = {plain(name): name for name in EXAMPLES}
        name = known.get(plain(word.removeprefix("nn.")))
        if name is None:
            raise UserError(f"no layer or network is called {word!r}; {near(word, KINDS)}")
        make, usual = EXAMPLES[name]
        if args.args is None:
            return name, make(), shape or usual
        thing = getattr(nn, name, None) or public("nn.fused")[name]
    layer = thing if isinstance(thing, (nn.Layer, nn.Network)) else made(name, thing, given, named)
    if shape is None and not isinstance(layer, nn.Network):
        raise UserError(f"{name}: say the shape of one row of inputs, without the batch, as in --shape 3,5")
    return name, layer, shape


def made(name, thing, given, named):
    """The layer that a class or a function makes."""
    try:
        layer = thing(*given, **named)
    except UserError:
        raise
    except Exception as error:
        why = said(error)
        raise UserError(f"{name} cannot be made: {why}; give arguments, as in --args 5,bias=False") from None
    if not isinstance(layer, (nn.Layer, nn.Network)):
        raise UserError(f"{name} must be a Layer or a Network, got {type(layer).__name__}")
    return layer


# ---------------------------------------------------------------------------------------------------------- the table
def row(width, cells):
    """A line: name, direction, analytic and numeric value (fewer digits where it is narrow), error, verdict."""
    digits = 6 if width >= 80 else 3
    room, wide = (width - 2 * (digits + 7) - 20) // 2, digits + 7
    name, direction = (shortened(text, room) for text in cells[:2])
    values = [value if isinstance(value, str) else f"{value:.{digits}e}" for value in cells[2:4]]
    line = f"{name:{room}} {direction:{room}} {values[0]:>{wide}} {values[1]:>{wide}} {cells[4]:>7}  {cells[5]}"
    return line.rstrip()


def shortened(text, room):
    """A text cut to `room` characters. Its middle is left out, because parameters' names differ at the end."""
    return text if len(text) <= room else f"{text[: room - room // 2 - 2]}..{text[-(room // 2) :]}"


def rows(name, report, full):
    """The cells of a report: every direction, or the worst. "ok, 0": both are 0 to rounding, see npopt.gradcheck."""
    lines = report.lines if full else [max(report.lines, key=lambda line: (line.error != line.error, line.error))]
    return [
        (name, line.where, line.analytic, line.numeric, f"{line.error:.1e}", verdict(line, report.tol))
        for line in lines
    ]


def verdict(line, tol):
    zero = line.floor > max(abs(line.numeric), abs(line.analytic))
    return "FAILS" if not line.error <= tol else "ok, 0" if zero else "ok"


def command(words):
    """npopt gradcheck [NAME ...] [--args A] [--shape S]. Returns the exit status, or a sentence."""
    p = Parser(prog="npopt gradcheck", description="Is backward the derivative of forward? By central differences.")
    p.add_argument("names", nargs="*", metavar="NAME", help="of a layer or network, or file.py:Class; default: all")
    p.add_argument("--args", help="of its constructor, as in 5,bias=False", metavar="ARGS")
    p.add_argument("--shape", help="of one row of inputs, without the batch, as in 3,5", metavar="SIZES")
    p.add_argument("--batch", help="rows (default: 3)", type=int, default=3, metavar="B")
    args = p.parse_args(words)
    if (args.args is not None or args.shape) and len(args.names) != 1:
        return "--args and --shape are those of one layer: name it"
    if args.batch < 1:
        return f"--batch must be a whole number of at least 1, got {args.batch}"
    try:
        subjects = [subject(name, args) for name in args.names or [*EXAMPLES]]
    except UserError as error:
        return str(error)
    width, failed = columns(), []
    print(row(width, ("layer", "direction", "analytic", "numeric", "error", "")))
    for name, layer, shape in subjects:
        try:
            report = check(layer, shape, args.batch)
        except Exception as error:  # of the user's code, and one layer of many
            print(f"{name}: {said(error)}", file=sys.stderr)
            failed.append(name)
            continue
        if not report.ok:
            failed.append(name)
        for cells in rows(name, report, full=bool(args.names) or not report.ok):
            print(row(width, cells), flush=True)
    print(f"\n{len(subjects)} checked, {len(failed)} failed" + (f": {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0
