"""The last line of a terminal while something takes long: a bar over the whole grid, or what is being done.

Each running process notes how far it is in the lock file of its run (`Lock.note`); a thread here adds the notes up.
So the bar moves in the same way for one process, many, a cluster on a shared folder, and runs of another command.
When the bar stands still, it says why. Both lines fit the terminal. Where stderr is no terminal they are silent.
"""

import math
import shutil
import threading
import time

from tqdm import tqdm

LAYOUT = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} [{elapsed}<{remaining}{postfix}]"
STILL = "{desc}: |{bar}| {n:.1f}/{total} [{elapsed}{postfix}]"
PATIENCE = 3.0  # seconds without a step until the bar says why


def columns():
    return min(shutil.get_terminal_size().columns, 100) - 1


def line(**settings):
    """A tqdm that is drawn on terminals only, but also on those that do not say how large they are."""
    return tqdm(ncols=columns(), nrows=20, disable=None, **settings)


def short(name, room):
    """A name cut to `room` columns."""
    return name if len(name) <= room else name[: room - 1] + "…"


class Line:
    """with Line(bar): a thread calls draw() twice a second. bar: a tqdm."""

    def __init__(self, bar):
        self.bar, self.stop = bar, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        if not self.bar.disable:
            self.draw()
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        if not self.bar.disable:
            self.thread.join()
            self.draw()
        self.bar.close()

    def watch(self):
        while not self.stop.wait(0.5):
            self.draw()

    def draw(self):
        """Write the line; subclasses know what."""


class Doing(Line):
    """with Doing("adam: loading mnist"): ...   shows what is being done (a text, or a function that returns it) and for
    how long."""

    def __init__(self, what):
        self.what = what if callable(what) else lambda: what
        super().__init__(line(desc=self.text(), bar_format="{desc} [{elapsed}]", leave=False))

    def text(self):
        return short(self.what(), columns() - 12)

    def draw(self):
        self.bar.set_description_str(self.text())


class Bar(Line):
    """with Bar(store, keys, "title") as bar: ...; bar.finished(key) for each."""

    def __init__(self, store, keys, title=""):
        self.store, self.open, self.total = store, set(keys), len(keys)
        self.title, self.moved, self.started = title, time.monotonic(), False
        super().__init__(line(desc=self.name(), total=len(keys), bar_format=LAYOUT, smoothing=0.05))

    def name(self):
        return short(self.title, 24 if columns() >= 79 else 12)

    def finished(self, key):
        self.open.discard(key)

    def draw(self):
        notes = [note for note in map(self.store.note, tuple(self.open)) if note]
        at = self.total - len(self.open) + sum(fraction for fraction, _ in notes)
        now = time.monotonic()
        if at > self.bar.n:
            self.moved, self.started = now, True
        self.bar.update(max(0.0, at - self.bar.n))
        still = self.open and now - self.moved > PATIENCE
        losses = [loss for _, loss in notes if math.isfinite(loss)]
        wide = columns() >= 79
        said = "loss " + ", ".join(f"{loss:.4g}" for loss in losses[: 4 if wide else 1]) if losses else ""
        if still or (self.open and not self.started):
            said = "compiling, measuring" if notes else "loading, compiling"
        self.bar.bar_format, self.bar.ncols = STILL if still else LAYOUT, columns()
        self.bar.set_description_str(self.name(), refresh=False)
        self.bar.set_postfix_str(said, refresh=False)
        self.bar.refresh()
