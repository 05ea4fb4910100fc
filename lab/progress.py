"""One bar over the whole grid, whoever does the work.

Each running process notes how far it is in the lock file of its run (`Lock.note`); a thread here adds the notes up.
So the bar moves in the same way for one process, many, a cluster on a shared folder, and runs of another command.
"""

import math
import threading

from tqdm import tqdm

LAYOUT = "{desc}{percentage:3.0f}%|{bar:30}| {n:.1f}/{total} runs [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Bar:
    """with Bar(store, keys, "title") as bar: ...; bar.finished(key) for each. Silent where stderr is no terminal."""

    def __init__(self, store, keys, title=""):
        self.store, self.open, self.total = store, set(keys), len(keys)
        self.bar = tqdm(total=len(keys), desc=title, unit="run", bar_format=LAYOUT, disable=None, smoothing=0.05)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        if not self.bar.disable:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join()
            self.draw()
        self.bar.close()

    def finished(self, key):
        self.open.discard(key)

    def watch(self):
        while not self.stop.wait(0.5):
            self.draw()

    def draw(self):
        notes = [note for note in map(self.store.note, tuple(self.open)) if note]
        at = self.total - len(self.open) + sum(fraction for fraction, _ in notes)
        self.bar.update(max(0.0, at - self.bar.n))
        losses = [loss for _, loss in notes if math.isfinite(loss)]
        if losses:
            self.bar.set_postfix_str("loss " + ", ".join(f"{loss:.4g}" for loss in losses[:4]), refresh=False)
        self.bar.refresh()
