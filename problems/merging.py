"""A network with adapters, restricted to them: what is held back changes in mid-run, when they are merged into it."""

import functools

from nn.adapters import adapters, restarted
from npopt import backend
from npopt.errors import UserError


class Merging:
    """A part of RestrictedNeural.

    merge(y, key) adds the change of every LoRA to its weight, which is held, and begins it anew in y; the loss stays
    what it is. So with such layers the held x is a part of the state, and of checkpoints.
    """

    changed = False  # whether what is held is no longer what it was when the problem was made

    @functools.cached_property
    def merges(self):
        """Whether there is something to merge."""
        return any(getattr(leaf, "merge", None) is not None for leaf in adapters(self.problem.network))

    def merge(self, y, key):
        """Merge all adapters; y, (dim,), is written. Returns the names of its segments that begin anew."""
        self.place(y)
        names = set(restarted(self.problem.network, self.whole, key))
        self.gather(self.whole, y)
        self.changed = True
        return [name for name in self.segments.names if name in names]

    def reset(self):
        if self.changed:
            raise UserError(
                f"{self.name}: its adapters were merged, and what it held at first is gone; restrict the problem anew"
            )
        super().reset()

    def state(self):
        return super().state() | ({"held": self.whole} if self.merges else {})

    def load_state(self, state):
        state = dict(state)
        if self.merges:
            self.whole[...] = backend.asarray(state.pop("held"), self.dtype)
            self.changed = True
        super().load_state(state)
