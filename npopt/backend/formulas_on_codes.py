"""A formula over arrays of which some are kept as codes: one pass over strips of blocks, on the CPU.

Some blocks are decoded, go through the formula, and are encoded again, while they are in the first cache. The text of
the loop is made of the formula's (translation.py), and compiled for one pattern of arguments. Where AVX-512 is there,
decoding, the formula and the new scales are one loop over vectors (vectors.py).
"""

import inspect

from npopt.backend import cache, coding, sixteen, vectors
from npopt.backend.draws import DRAWS_TEXT
from npopt.backend.translation import Python, Translation
from npopt.errors import UserError

import numba
import numpy as np

MANY_FROM, GROUP, STRIP = 20_000, 32_768, 512  # numbers: below, one thread; of a thread's share; decoded at a time
TEXT = DRAWS_TEXT + "".join(inspect.getsource(module) for module in (coding, sixteen, vectors))
TABLES = ("codes", "scales", "values", "lanes", "zero", "base", "bound", "key")  # what a coded argument brings along


def source(formula, arrays, coded, dtype, parallel):
    """The text of the numba module. arrays: the arguments that are plain arrays; coded: {argument: (bits, whether it is
    drawn, whether it has signs)}."""
    t = Translation(formula, (*arrays, *coded), dtype, Python(), lambda name: name)
    several = lambda name: [f"{name}_{p}" for p in TABLES] if name in coded else [name]  # noqa: E731
    arguments = [a for name in formula.arguments for a in several(name)]
    written = [name for name in arrays if name in formula.written]
    head = [f"def {formula.name}({', '.join(arguments)}, n, block, strip, first, start):"]
    head += [f"    {name} = {code}" for name, code in t.hoisted]
    for name in coded:
        head += [f"    {name}_tables = ({', '.join(f'{name}_{p}' for p in TABLES[2:7])})"]
    head += ["    strips = (n + strip - 1) // strip", f"    many = max(1, {GROUP} // strip)"]
    head += [f"    for part in {'numba.prange' if parallel else 'range'}((strips + many - 1) // many):"]
    head += [f"        {name}_w = np.empty(strip + 1, np.float32)" for name in coded]
    head += [f"        {name}_before = np.empty(strip, np.{dtype})" for name in written]
    head += ["        for s in range(np.int64(part) * many, min(strips, (np.int64(part) + 1) * many)):"]
    lines = ["lo, hi = s * strip, min(s * strip + strip, n)", "size, offset = hi - lo, start + lo"]
    for name, (bits, *_) in coded.items():
        cut = "lo:hi" if bits == 8 else "lo // 2 : (hi + 1) // 2"
        lines += [f"{name}_p, {name}_s = {name}_codes[{cut}], {name}_scales[lo // block : (hi + block - 1) // block]"]
    lines += [f"{name}_p = {name}[lo:hi]" for name in arrays]
    quick, inside = vectors.lines_of(formula, arrays, coded, dtype), plain(formula, t, arrays, written, coded, dtype)
    if quick is not None and all(bits == 8 for bits, *_ in coded.values()):
        lines += by_sixteen(quick, arrays, written, coded, formula) + ["else:"] + [f"    {line}" for line in inside]
    else:
        quick, lines = None, lines + inside
    lines += finish([name for name in coded if name in formula.written], written, coded)
    top = opening(formula, arrays, coded, dtype, parallel, quick)
    return "\n".join([*top, *head, *(f"{' ' * 12}{line}" for line in lines)]) + "\n"


def plain(formula, t, arrays, written, coded, dtype):
    """Decoding, the formula, and the scales of what it gives, one loop after the other."""
    lines = []
    for name, (bits, *_) in coded.items():
        lines += [f"decode_{bits}({name}_p, {name}_s, {name}_tables, block, {name}_w)"]
    lines += [f"copy({name}_p, {name}_before)" for name in written]
    lines += ["for i in range(size):"]
    lines += [f"    {name}_i = {name}_p[i]" for name in formula.read if name in arrays]
    lines += [f"    {name}_i = np.{dtype}({name}_w[i])" for name in formula.read if name in coded]
    lines += [f"    {name} = {code}" for name, code in t.body]
    for name, code in t.stores:
        lines += [f"    {name}_w[i] = np.float32({code})" if name in coded else f"    {name}_p[i] = {code}"]
    kept = [name for name in coded if name in formula.written]
    return lines + [f"{name}_top = measure({name}_w, size, block, {name}_s)" for name in kept]


def by_sixteen(quick, arrays, written, coded, formula):
    """The same in one loop over vectors, where the numbers of the strip are a multiple of 16."""
    some = next(iter(coded))
    lines = ["if size % 16 == 0 and (block % 16 == 0 or block >= size):", f"    for b in range({some}_s.size):"]
    given = [*(f"{name}_p" for name in arrays), *(f"{name}_before" for name in written)]
    given += [f"{name}_{p}" for name in coded for p in ("p", "s", "lanes", "w", "zero")]
    given += [*quick[2], "b", "b * block", "min(block, size - b * block)"]
    lines += [f"        one_block({', '.join(given)})"]
    return lines + [f"    {name}_top = most({name}_s)" for name in coded if name in formula.written]


def finish(kept, written, coded):
    """What comes after the formula: where a number that is to be kept as a code is not finite, it and its like are 0,
    and plain arrays are as before; then codes and scales."""
    measures = [f"{name}_top = measure({name}_w, size, block, {name}_s)" for name in kept]
    lines = [f"if {' or '.join(f'{name}_top >= {coding.INFINITE}' for name in kept)}:"] * bool(kept)
    if kept:
        lines += ["    for i in range(size):"]
        lines += [f"        if not ({' and '.join(f'np.isfinite({name}_w[i])' for name in kept)}):"]
        lines += [f"            {name}_w[i] = 0" for name in kept]
        lines += [f"            {name}_p[i] = {name}_before[i]" for name in written]
        lines += [f"    {line}" for line in measures]
    for name in kept:
        rest = f"{name}_tables, block, ({coded[name][1]}, {name}_key, first), lo, {name}_p"
        lines += [f"encode_{coded[name][0]}({name}_w, size, {name}_s, {rest})"]
    return lines


def opening(formula, arrays, coded, dtype, parallel, quick):
    """Imports, and the decorator with the types of the arguments."""
    kinds = dict.fromkeys(TABLES, "float32[::1]")
    kinds |= {"codes": "uint8[::1]", "base": "uint8[::1]", "zero": "int64", "key": "uint64"}
    types = []
    for name in formula.arguments:
        plain = f"{dtype}[::1]" if name in arrays else "uint64" if name in formula.keys else "float64"
        types += list(kinds.values()) if name in coded else [plain]
    options = f'"void({", ".join([*types, *["int64"] * 5])})", cache=True, error_model="numpy", parallel={parallel}'
    lines = ["import numba", "import numpy as np", ""]
    lines += ["from npopt.backend.coding import copy, decode_4, decode_8, encode_4, encode_8, measure, most"]
    lines += ["from npopt.backend.draws import hashed_normal, hashed_uniform"]
    if quick is not None:
        signed = {name: signs for name, (_, _, signs) in coded.items()}
        lines += ["from npopt.backend.vectors import step", "", f"one_block = step(*{quick!r}, {arrays!r}, {signed!r})"]
    return [*lines, "", "", f"@numba.njit({options})"]


compiled = {}  # (formula's name and module, pattern) -> numba function


def fused(formula, arrays, coded, dtype, parallel):
    """The compiled loop over blocks for one pattern of arguments."""
    key = (formula, arrays, tuple(coded.items()), dtype, parallel)
    if key not in compiled:
        text = source(formula, arrays, coded, dtype, parallel)
        compiled[key] = getattr(cache.module(f"{formula.name}_coded", text, TEXT), formula.name)
    return compiled[key]


def run(formula, args, offset):
    """A formula over arguments of which some are coded arrays (see codes.Coded) of one length and block, on the CPU."""
    named = dict(zip(formula.arguments, args, strict=True))
    coded = {name: a for name, a in named.items() if hasattr(a, "scales")}
    arrays = {name: a for name, a in named.items() if getattr(a, "ndim", 0) and name not in coded}
    some = next(iter(coded.values()))
    check(formula, arrays, coded)
    parallel = some.size >= MANY_FROM and numba.get_num_threads() > 1
    dtype = next(iter(arrays.values())).dtype.name if arrays else some.dtype.name
    pattern = {name: (a.code.bits, a.key is not None, a.code.signed) for name, a in coded.items()}
    given = []
    for name, a in named.items():
        if name in coded:
            base, bound = a.code.tables(a.key is not None)
            given += [a.codes, a.scales, a.code.values, a.code.lanes, a.code.zero, base, bound, np.uint64(a.key or 0)]
        else:
            given.append(a if name in arrays else np.uint64(a) if name in formula.keys else float(a))
    loop = fused(formula, tuple(arrays), pattern, dtype, parallel)
    strip = max(1, STRIP // some.block) * some.block
    loop(*given, some.size, some.block, strip, some.first, offset)


def check(formula, arrays, coded):
    """Refuse arguments that do not fit together."""
    dtypes = {a.dtype.name for a in arrays.values()} or {a.dtype.name for a in coded.values()}
    sizes = {a.size for a in (*arrays.values(), *coded.values())}
    blocks = {a.block for a in coded.values()}
    flat = all(a.ndim == 1 for a in (*arrays.values(), *coded.values()))
    scalars = [name for name in formula.written if name not in arrays and name not in coded]
    whole = all(a.flags.c_contiguous for a in arrays.values())
    fits = len(sizes) == len(blocks) == 1 and dtypes in ({"float32"}, {"float64"})
    if not fits or not flat or not whole or scalars:
        got = ", ".join(f"{name}: {a.size} of {a.dtype.name}" for name, a in (arrays | coded).items())
        raise UserError(
            f"{formula.name}: coded arrays go with flat, contiguous arrays of their length and of one dtype, and have "
            f"blocks of one length; {', '.join(formula.written)} must be arrays; got {got}"
        )
