"""The figures of an experiment: names, captions and functions, in the order of the report."""

from pathlib import Path

from lab import report
from npopt.errors import UserError


class Album(list):
    """Figures as (name, caption, function). A script with many keeps them in a file of its own:

    album = Album()                                             # scripts/figures/NAME.py

    @album.figure("loss.png", caption="...")
    def loss(results): return figure

    experiment = Experiment(__doc__, figures=album, ...)        # scripts/NAME.py
    """

    def figure(self, name, caption=""):
        """A figure: a function of the results; it returns a Figure (.png), or an animation or many Figures (.gif)."""
        if Path(name).suffix not in report.MIME or Path(name).name != name:
            raise UserError(f"experiment: a figure is called something.png or something.gif, got {name!r}")

        def keep(function):
            self.append((name, caption, function))
            return function

        return keep
