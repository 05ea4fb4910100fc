"""How long each layer takes, there and back.

    with Profile() as profile:
        step()                          # passes of any networks
    print(profile.table())

Times are a layer's own, without its children's; a fused layer counts under its batch norm's name. On a GPU the clock
waits for the device around every layer. A step that is not timed does not wait.
"""

import time

from npopt import backend
from npopt.errors import UserError

from .layer import Layer
from .network import Network

DIRECTIONS = ("forward", "backward")


def family(kind):
    """A class and all classes below it."""
    return [kind] + [one for child in kind.__subclasses__() for one in family(child)]


class Profile:
    """Takes the time of every layer's forward and backward while it is open.

    seconds: {network's name: {layer: [forward, backward]}}   passes: {network's name: [forward, backward]}
    """

    def __init__(self):
        self.seconds, self.passes, self.patched, self.inner = {}, {}, [], [0.0]
        self.network, self.own = None, {}

    def __enter__(self):
        Network.recordable = False
        for kind in (*family(Layer), *family(Network)):
            for which, name in enumerate(DIRECTIONS):
                if name in vars(kind):
                    function = vars(kind)[name]
                    self.patched.append((kind, name, function))
                    setattr(kind, name, self._timed(function, which))
        return self

    def __exit__(self, *_):
        for kind, name, function in self.patched:
            setattr(kind, name, function)
        self.patched.clear()
        Network.recordable = True

    def _timed(self, function, which):
        def call(this, *arguments, **named):
            if isinstance(this, Network):
                self.network = this.name
                self.passes.setdefault(this.name, [0, 0])[which] += 1
            backend.synchronize()
            self.inner.append(0.0)
            begin = time.perf_counter()
            try:
                result = function(this, *arguments, **named)
                backend.synchronize()
            finally:
                taken = time.perf_counter() - begin
                own = taken - self.inner.pop()
                self.inner[-1] += taken
                layers = self.seconds.setdefault(self.network, {})
                label = ("network",) if isinstance(this, Network) else (this.path, type(this).__name__, id(this))
                layers.setdefault(label, [0.0, 0.0])[which] += own
            return result

        return call

    def rows(self, network):
        """[(layer, kind, forward, backward, share of both)] of one network, in seconds a pass. Layers come in the order
        of a first call's forward passes. Those that take next to no time are left out."""
        passes = self.passes[network]
        found = [
            (key[0], key[1] if len(key) > 1 else "", *(t / max(1, n) for t, n in zip(times, passes, strict=True)))
            for key, times in self.seconds[network].items()
        ]
        total = sum(there + back for *_, there, back in found)
        return [(*row, (row[2] + row[3]) / total) for row in found if row[2] + row[3] > 1e-4 * total]

    def table(self, network=None):
        """The rows as text, in ms a pass; for the only network if none is named."""
        if not self.passes:
            raise UserError("Profile: no network made a pass while it was open")
        name = network or next(iter(self.passes))
        rows = self.rows(name)
        there, back = sum(row[2] for row in rows), sum(row[3] for row in rows)
        shown = [(path or "(all)", kind, *times) for path, kind, *times in rows] + [("sum", "", there, back, 1.0)]
        wide = max(len(row[0]) for row in shown) + 2
        lines = [f"{'layer':{wide}}{'':16}{'forward [ms]':>13}{'backward [ms]':>15}{'share':>8}"]
        for path, kind, a, b, share in shown:
            lines.append(f"{path:{wide}}{kind:16}{a * 1e3:13.3f}{b * 1e3:15.3f}{share:8.1%}")
        return "\n".join(lines)
