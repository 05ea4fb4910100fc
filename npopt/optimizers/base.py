"""What every optimizer shares: state arrays like x, a step counter, pieces, saving."""

from npopt import backend
from npopt.values import Value, number


def number_or_array(owner, name, value, **bounds):
    """Check an argument that may be a number or an array like x (one value a coordinate), and return it."""
    if not getattr(value, "ndim", 0):
        return number(owner, name, value, **bounds)
    host = backend.to_host(value)
    number(owner, f"the least of {name}", host.min(), **bounds)
    number(owner, f"the largest of {name}", host.max(), **bounds)
    return value


class Optimizer(Value):
    """A subclass names its state in `arrays` and gives the formula for a piece of x, `update(x, g, lr, *arrays)`.

    x and the state are written in place, g is only read; self.t counts steps from 1 and is already advanced when
    `update` runs. lr may be an array like x. `options` names the hyper-parameters that may be one, too ("no decay on
    biases"): update takes them after the arrays, cut to the piece. A subclass that needs more than elementwise updates
    overrides `step`. `proximal`: it takes the problem's prox, too. `plain`: a step is x <- prox_{lr h}(x - lr g) and
    nothing else, so that an estimator may run it in compiled code.
    """

    arrays = ()
    options = ()
    proximal = False
    plain = False

    def start(self, x, oracle=None):
        """Allocate state for x, shape (n,); the oracle is the started estimator, which most methods never ask."""
        self.t, self.oracle = 0, oracle
        self._slots, self._converted = tuple(backend.xp(x).zeros_like(x) for _ in self.arrays), {}
        for name in self.options:
            value = getattr(self, name)
            if getattr(value, "ndim", 0):
                if value.shape != x.shape:
                    raise ValueError(f"{type(self).__name__}: {name} has shape {value.shape}, x has {x.shape}")
                self._converted[name] = backend.asarray(value, x.dtype)

    def restart(self, x):
        """Forget the state, in the middle of a run."""
        self.start(x, self.oracle)

    def current(self):
        """The hyper-parameters that `options` names, arrays in x's dtype, on its device."""
        return [self._converted.get(name, getattr(self, name)) for name in self.options]

    def update(self, x, g, lr, *arrays):
        raise ValueError(f"{type(self).__name__} has no update(self, x, g, lr, {', '.join(self.arrays)})")

    def step(self, x, g, lr):
        """One step. g: an array like x, or an iterator over (slice, piece of the gradient) that covers x once."""
        self.t += 1
        options = self.current()
        if hasattr(g, "dtype"):
            self.update(x, g, lr, *self._slots, *options)
            return
        for piece, gradient in g:
            cut = [v[piece] if getattr(v, "ndim", 0) else v for v in (lr, *self._slots, *options)]
            self.update(x[piece], gradient, *cut)

    def answer(self, x):
        """The point to report; x itself unless the method keeps a better one."""
        return x

    def slot(self, name):
        """A state array by its name."""
        return self._slots[self.arrays.index(name)]

    def state(self):
        return {"t": self.t, **dict(zip(self.arrays, self._slots, strict=True))}

    def load_state(self, state):
        self.t = int(state["t"])
        for name, slot in zip(self.arrays, self._slots, strict=True):
            slot[...] = backend.asarray(state[name], slot.dtype)
