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
        """A figure: a function of the results. It returns a Figure (.png), an animation or many Figures (.gif), or a
        Surface or a list of them (.png), which a reader of report.html can turn (lab/turn.py)."""
        if Path(name).suffix not in report.MIME or Path(name).name != name:
            raise UserError(f"experiment: a figure is called something.png or something.gif, got {name!r}")

        def keep(function):
            self.append((name, caption, function))
            return function

        return keep
