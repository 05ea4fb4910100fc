"""The laboratory: a grid of runs with one progress bar, a store that survives a kill, claims, figures, one report."""

import os
import signal
import sys

if os.path.basename("".join(sys.argv[:1])) == "npopt":  # the command, while it is loaded: Ctrl-C just ends it
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import npopt  # noqa: F401  # isort: skip (before NumPy: it says how pools of threads wait)
from lab.album import Album
from lab.claims import (
    Claim,
    alike,
    decided,
    inside,
    larger,
    listed,
    no_larger,
    on_every,
    show,
    slope,
    spread,
    spreads,
)
from lab.data import dataset
from lab.experiment import Experiment
from lab.grid import Entry, Part, Recipe
from lab.options import Arguments, Option
from lab.results import Finished, MissingRuns, Results, Tuned, finer, middle_and_band
from lab.verdicts import Undecided, close, interval, lower, no_higher, shown, together, within

__all__ = [
    "Album", "Arguments", "Claim", "Entry", "Experiment", "Finished", "MissingRuns", "Option", "Part", "Recipe",
    "Results", "Tuned", "Undecided", "alike", "close", "dataset", "decided", "finer", "inside", "interval", "larger",
    "listed", "lower", "middle_and_band", "no_higher", "no_larger", "on_every", "show", "shown", "slope", "spread",
    "spreads", "together", "within",
]  # fmt: skip
