"""What changes from step to step: named arrays and numbers, saved as they are, loaded only where they fit.

A state is a dict of arrays, numbers, text, None and further dicts, with the same names, shapes and types from the
start to the end of a run; None stands for a number that is not known yet. So the state of an object that has just been
started is the pattern of what may be loaded into it.
"""

from npopt import backend, checkpoint
from npopt.errors import UserError

import numpy as np


def misfit(pattern, state, name=""):
    """What does not fit when `state` is loaded in the place of `pattern`, in a few words that name its place, or None.

    It fits if arrays have the pattern's shape and dtype, counts are not negative, and the names are those of the
    pattern and no others.
    """
    if isinstance(pattern, dict):
        return _misfit_of_names(pattern, state, name)
    if isinstance(pattern, (list, tuple)):
        if not isinstance(state, (list, tuple)) or len(state) != len(pattern):
            return f"{name} is {_kind(state)} there, a list of {len(pattern)} here"
        return _first(misfit(p, s, f"{name}/{i}") for i, (p, s) in enumerate(zip(pattern, state, strict=True)))
    pattern, state = (v.item() if isinstance(v, np.generic) else v for v in (pattern, state))
    if pattern is None:
        fits = state is None or type(state) in (int, float) and state == state
        return None if fits else f"{name} is {'NaN' if type(state) is float else _kind(state)} there, a number here"
    same = _kind(pattern) == _kind(state) or isinstance(pattern, float) and type(state) is int
    if not same:
        return f"{name} is {_kind(state)} there, {_kind(pattern)} here"
    return f"{name} is {state}, which is negative" if type(pattern) is int and state < 0 <= pattern else None


def misfit_of_columns(names, columns):
    """The same for a run's columns. They must be lists of one length, not empty, with numbers, under all of `names`."""
    if not isinstance(columns, dict):
        return f"columns is {_kind(columns)} there, a table of names here"
    missing = [name for name in names if name not in columns]
    if missing:
        return f"columns/{missing[0]} is missing there"
    rows = len(columns[names[0]]) if isinstance(columns[names[0]], list) else 0
    uneven = [name for name, column in columns.items() if not isinstance(column, list) or len(column) != rows]
    if not rows or uneven:
        return f"columns/{[*uneven, names[0]][0]} has not one entry a row"
    wrong = [name for name in names for value in columns[name] if type(value) not in (int, float)]
    return f"columns/{wrong[0]} holds something else than numbers" if wrong else None


def disagreement(state):
    """Where a run's checkpoint contradicts itself, though its parts fit one by one, in words; or None. Its step is
    compared with the counters that were saved with it and with the last row of its columns."""
    t, last, estimator = state["t"], {name: column[-1] for name, column in state["columns"].items()}, state["estimator"]
    while "inner" in estimator:
        estimator = estimator["inner"]
    since, ended = state["loss"][1], state["reason"] is not None
    if state["optimizer"].get("t", t) != t:
        return f"t is {t}, but its optimizer has made {state['optimizer']['t']} steps"
    if last["step"] + since != t and not (ended and last["step"] <= t):
        return f"t is {t}, but its columns and losses end at step {last['step'] + since}"
    if state["sampler"].get("taken", t) < t:
        return f"t is {t}, but its sampler has handed out {state['sampler']['taken']} batches"
    counts = {"seconds": state["seconds"], **estimator.get("counts", {})}
    ahead = [name for name, count in counts.items() if last.get(name, 0) > count]
    return f"{ahead[0]} is {counts[ahead[0]]}, but its columns end at {last[ahead[0]]}" if ahead else None


def _misfit_of_names(pattern, state, name):
    if not isinstance(state, dict):
        return f"{name or 'it'} is {_kind(state)} there, a table of names here"
    inside = f"{name}/" if name else ""
    for one, other, what in ((pattern, state, "is missing there"), (state, pattern, "is not known here")):
        strange = [key for key in one if key not in other]
        if strange:
            return f"{inside}{strange[0]} {what}"
    return _first(misfit(pattern[key], state[key], f"{inside}{key}") for key in pattern)


def _first(found):
    return next((text for text in found if text is not None), None)


def _kind(value):
    """Dtype and shape of an array, the type of a number, in words."""
    if getattr(value, "shape", None) is not None:
        return f"{value.dtype.name} {tuple(value.shape)}"
    return {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        dict: "a table of names",
        list: "a list",
        type(None): "nothing",
    }.get(type(value), type(value).__name__)


class Stateful:
    """A subclass says what it keeps, `kept()`: a dict of arrays, numbers and other Stateful objects. An array is loaded
    in place, a number is set under its name."""

    def kept(self):
        raise UserError(f"{type(self).__name__} does not say what it keeps; define kept(self)")

    def state(self):
        """A dict of arrays (not copied) and numbers."""
        return {name: value.state() if isinstance(value, Stateful) else value for name, value in self.kept().items()}

    def load_state(self, state):
        """Take back what state() returned. If something does not fit, that is a UserError, and nothing is loaded."""
        wrong = misfit(self.state(), state)
        if wrong:
            raise UserError(f"{type(self).__name__}: this state is another's: {wrong}; start afresh")
        for name, value in self.kept().items():
            if isinstance(value, Stateful):
                value.load_state(state[name])
            elif getattr(value, "ndim", 0):
                value[...] = backend.asarray(state[name], value.dtype)
            else:
                setattr(self, name, float(state[name]) if isinstance(value, float) else state[name])

    def bytes(self):
        """Bytes of all arrays that are kept."""
        return sum(
            value.bytes() if isinstance(value, Stateful) else getattr(value, "nbytes", 0)
            for value in self.kept().values()
        )


WORDS = {  # what a checkpoint is made of, and what to say where it is made of something else
    "problem": "other data, network or settings of the problem",
    "code": "other code, of npopt or your own,",
    "start": "another start x",
}


def check_fits(own, names, state, path):
    """Raise, with one sentence, if `state` is not a state of this run. path: the file that it was read from; own: what
    the run would save now; names: the columns that the run has in any case."""
    config, made_of = own["config"], own["made_of"]
    known = isinstance(state, dict) and isinstance(state.get("config"), dict)
    if not known or state.get("format") != own["format"] or not isinstance(state.get("made_of"), dict):
        raise checkpoint.Damaged(
            f"{path} is a file of another kind or of another version, not a run's checkpoint; choose another path"
        )
    theirs = state["config"]
    different = [f"{k} {theirs.get(k)!r} there, {config[k]!r} here" for k in config if theirs.get(k) != config[k]]
    different += [f"{WORDS[k]} there" for k in WORDS if state["made_of"].get(k) != made_of[k]]
    if different:
        raise checkpoint.Foreign(
            f"minimize: {path} is the checkpoint of another run ({'; '.join(different)}); remove it "
            "or choose another path"
        )
    without = {"config": None, "columns": None}
    pattern = {**own, "reason": None if state.get("reason") is None else "", **without}
    wrong = misfit_of_columns(names, state.get("columns")) or misfit(pattern, {**state, **without})
    wrong = wrong or disagreement(state)
    if wrong:
        raise checkpoint.Damaged(f"minimize: {path} does not fit this run: {wrong}; remove it or choose another path")
