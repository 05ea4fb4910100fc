"""What CuPy offers under NumPy's names, as a table: functions and methods with their parameters, ufuncs, other names.

    python tests/cupy_table.py           where CuPy is installed (a driver is not needed): writes tests/cupy.json

The strict device (strict.py) holds every call to this table. Where CuPy can be imported, a test compares the two.
"""

import inspect
import json
import pathlib
import re

import numpy as np

PATH = pathlib.Path(__file__).with_name("cupy.json")
SPELLED = {  # their signature says **kwargs, their source this
    "einsum": "*operands, dtype=0, optimize=0",
    "meshgrid": "*xi, copy=0, sparse=0, indexing=0",
}


def short(parameters):
    """A list of parameters as Python source without annotations, every default 0: "a, axis=0, *, out=0"."""
    found, star = [], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not star:
            found.append("*")
            star = True
        star = star or p.kind is p.VAR_POSITIONAL
        mark = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        found.append(mark + p.name + ("" if p.default is p.empty else "=0"))
    return ", ".join(found)


def described(function):
    """The parameters of a compiled function, from the first line of its docstring; None where there is none."""
    line = re.match(r"[\w.]+\((.*?)\)(?: ->.*)?$", (function.__doc__ or "").split("\n")[0])
    if line is None:
        return None
    parts = [re.sub(r"=.*", "=0", part).split()[-1] for part in line[1].split(", ") if part not in ("self", "")]
    return ", ".join(parts)


def parameters(name, function):
    if name in SPELLED:
        return SPELLED[name]
    try:
        return short([p for p in inspect.signature(function).parameters.values() if p.name != "self"])
    except ValueError:
        return described(function)


def ufunc_keywords(cupy):
    """Which of NumPy's keyword arguments CuPy's ufuncs take: the others are a TypeError before any device is asked."""
    found = []
    for name in ("casting", "dtype", "order", "out", "subok", "where"):
        try:
            cupy.add(1, 2, **{name: None})
        except TypeError:
            continue
        except Exception:  # no driver: the arguments had passed by then
            pass
        found.append(name)
    return found


def table(cupy):
    """The table of this CuPy."""
    functions, ufuncs, names = {}, {}, []
    for module, theirs, path in ((cupy, np, ""), (cupy.linalg, np.linalg, "linalg.")):
        for name in sorted(set(dir(module)) & set(dir(theirs))):
            value = getattr(module, name)
            if name.startswith("_") or inspect.ismodule(value):
                continue
            if isinstance(value, cupy.ufunc):
                ufuncs[path + name] = [value.nin, value.nout]
            elif callable(value) and not isinstance(value, type):
                functions[path + name] = parameters(path + name, value)
            else:
                names.append(path + name)
    both = sorted(set(dir(cupy.ndarray)) & set(dir(np.ndarray)))
    methods = {name: getattr(cupy.ndarray, name) for name in both if not name.startswith("_")}
    methods = {name: parameters(name, value) for name, value in methods.items() if callable(value)}
    return {
        "cupy": cupy.__version__,
        "ufunc_keywords": ufunc_keywords(cupy),
        "names": names,
        "ufuncs": ufuncs,
        "functions": functions,
        "methods": methods,
    }


def main():
    import cupy

    found = table(cupy)
    PATH.write_text(json.dumps(found, indent=0) + "\n")
    print(
        f"{PATH}: CuPy {found['cupy']}, {len(found['functions'])} functions, {len(found['ufuncs'])} ufuncs, "
        f"{len(found['methods'])} methods"
    )


if __name__ == "__main__":
    main()
