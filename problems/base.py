"""What is minimised: the interface between a function with its data and the methods that see it row by row."""

from collections.abc import Callable

from npopt import backend
from npopt.contracts import Array, Number, Rows, Shift, State
from npopt.directions import as_direction, moved
from npopt.errors import UserError
from npopt.segments import Segments

import numpy as np


class Problem:
    """f(x) = (1/n) sum_i f_i(x), x a flat vector of `dim` numbers of one `dtype`; the objective is f + penalty.

    A subclass sets `dim` and `dtype` (with `set_shape`), and `n` and `name`; it defines `loss` (or `value`) and
    `value_and_gradient`. Over given rows, with B their number, repeats counted, and weights w (None: all one):

        value               (1/B) sum_b w_b f_b(x)
        value_and_gradient  the same number, and out = (1/B) sum_b w_b grad f_b(x), written, not added

    rows None is all n rows in order; n None means that rows are keys from which samples are generated. The number
    returned is a Python float on the host, a 0-d device array elsewhere. Only problems that have them define

        scalars(x, rows, out, weights), combine(s, rows, out)         linear models
        curvature(x, rows, weights) -> (v -> H v), exact, or None where it is not known
        smoothness(), row_smoothness(), strong_convexity(), minimum() -> (x, f)

    Ask with `hasattr` whether a problem has them. They speak of f, without the penalty; only minimum() speaks of the
    objective. The penalty is `regulariser`, a value of npopt.penalties, or None.
    """

    name = "problem"
    n = None
    t = 0
    regulariser = None
    _shifted = None

    def __repr__(self):
        return self.name

    def set_shape(self, dim: int, dtype, segments: Segments | None = None) -> None:
        """Store dim, dtype and the table of segments, by default one segment "w" of kind vector."""
        self.dim, self.dtype = int(dim), np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise UserError(f"{self.name}: numbers must be float32 or float64, got {self.dtype}")
        self.segments = Segments.of(("w", (self.dim,), "vector", "w")) if segments is None else segments

    def check(self, x: Array, what: str = "x") -> Array:
        """x itself, if it is a contiguous vector of the right length and dtype. A UserError says what else it is."""
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
        if shape != (self.dim,) or dtype != self.dtype or not x.flags.c_contiguous:
            came = type(x).__name__ if shape is None else f"shape {shape} of {dtype}"
            gaps = " with gaps between its numbers" if shape == (self.dim,) and not x.flags.c_contiguous else ""
            raise UserError(
                f"{self.name}: {what} must be a contiguous vector of {self.dim} numbers of {self.dtype}, "
                f"got {came}{gaps}"
            )
        return x

    # ------------------------------------------------------------------------------------------------ the function

    def x0(self, rng: np.random.Generator) -> Array:
        """The start: zeros unless a problem says otherwise. rng is a NumPy Generator."""
        return backend.zeros((self.dim,), self.dtype)

    def loss(self, x: Array, rows: Rows, weights: Array | None) -> Number:
        """The value at exactly x. A subclass defines it, not `value`, if the scratch copy below will do for `shift`."""
        raise UserError(f"{type(self).__name__} defines neither loss nor value")

    def value(self, x: Array, rows: Rows = None, weights: Array | None = None, shift: Shift | None = None) -> Number:
        """(1/B) sum_b w_b f_b at x; with shift = (a, direction) at x + a z, x untouched. The direction is a key, for
        its normal numbers, or one of npopt/directions.py."""
        return self.loss(self.check(x) if shift is None else self.shifted(x, *shift), rows, weights)

    def shifted(self, x: Array, a: Number, direction) -> Array:
        """x + a z in a scratch vector of this problem, valid until the next call."""
        self.check(x)
        if self._shifted is None:
            self._shifted = backend.empty((self.dim,), self.dtype)
        y, direction = self._shifted, as_direction(direction)
        y[...] = x
        for segment in self.segments:
            direction.add(y[segment.slice], a, segment)
        return y

    def moved_values(self, x: Array, places, amounts, rows: Rows = None, weights: Array | None = None):
        """For each number i of `places`, rising, the list of values where x_i is x_i + a, for each a of `amounts`. An
        iterator; while it waits x is as it was, bit for bit."""
        self.check(x)
        yield from moved(x, places, amounts, lambda: self.value(x, rows, weights))

    def value_and_gradient(
        self,
        x: Array,
        rows: Rows = None,
        weights: Array | None = None,
        out: Array | None = None,
        inputs: Array | None = None,
        dinputs: Array | None = None,
    ) -> Number:
        """The loss; out takes the gradient. inputs replaces the rows' inputs, dinputs receives d loss / d inputs."""
        raise UserError(f"{type(self).__name__} defines no value_and_gradient")

    def value_and_pieces(
        self, x: Array, rows: Rows = None, weights: Array | None = None, names: list[str] | None = None
    ) -> tuple[Number, Callable]:
        """(loss, each): each(take) calls take(slice, piece of the gradient) once for each segment, or for those that
        `names` names (or names of blocks), in any order. take may write into that piece of x. By default the gradient
        is taken whole; a network hands it out while it goes back, and none of it is kept."""
        gradient = backend.empty((self.dim,), self.dtype)
        loss = self.value_and_gradient(x, rows, weights, out=gradient)
        wanted = None if names is None else set(self.segments.select(names).names)

        def each(take):
            for segment in self.segments:
                if wanted is None or segment.name in wanted:
                    take(segment.slice, gradient[segment.slice])

        return loss, each

    @property
    def has_penalty(self):
        """Whether the objective has a part beside f."""
        return self.regulariser is not None

    def penalty(self, x: Array) -> float:
        """The non-smooth part of the objective, a Python float. On a device this waits."""
        return 0.0 if self.regulariser is None else self.regulariser.value(self.regularised(x))

    def prox(self, x: Array, step: float) -> Array:
        """argmin_u penalty(u) + |u - x|^2 / (2 step), written into x and returned; the identity without a penalty."""
        if self.regulariser is not None:
            self.regulariser.prox(self.regularised(x), step)
        return x

    def regularised(self, x: Array) -> Array:
        """The piece of x on which the penalty acts, a view."""
        return x

    def targets(self) -> np.ndarray:
        """Labels or values to predict, (n,), on the host."""
        raise UserError(f"{self.name} has no targets, by which rows could be put in order")

    def metrics(self, x: Array) -> dict[str, float]:
        """{name: float} for the log, in evaluation mode, on the host; changes nothing."""
        found = {"objective": float(backend.to_host(self.value(x)))}
        if self.has_penalty:
            found["objective"] += self.penalty(x)
        return found

    def row_norms(self) -> Array | None:
        """Gradient norms of the rows of the last pass, shape (B,), or None where they are not known."""
        return None

    # ------------------------------------------------------------------------------------------------ a step

    def begin(self, t: int) -> None:
        """Step t starts: until the next begin the problem is one fixed function."""
        self.t = t

    def commit(self) -> None:
        """The step was taken: what its first pass left pending becomes part of the state. By default there is
        nothing."""

    def set_seed(self, seed: int) -> None:
        """The seed of what a step draws (dropout, augmentation); minimize passes its own. By default nothing is
        drawn."""

    def reset(self) -> None:
        """Forget what steps left behind: a run from x0 starts with a problem as good as new."""
        self.t = 0

    def state(self) -> State:
        """What changes from step to step."""
        return {"t": self.t}

    def load_state(self, state: State) -> None:
        """Take back what state() returned."""
        self.t = state["t"]

    # ------------------------------------------------------------------------------------------------ blocks

    def restrict(self, x: Array, names: list[str]) -> "Restricted":
        """The problem in the named segments (or blocks) alone, the rest held at x."""
        return Restricted(self, x, names)


class Restricted(Problem):
    """A problem in the compact vector y of some segments; the others keep the values that x had. Works on any problem.

    gather(v, out)   the pieces of any vector like x, as a compact vector
    scatter(y, v)    a compact vector, into those pieces of any vector like x
    place(y)         the whole x with y in its place, a vector of this problem, valid until the next call

    Step, statistics and draws are those of the whole problem. penalty(y) counts the held part too, a constant; prox is
    right where the penalty is a sum over segments. The gradient is taken whole and gathered: a problem that can leave
    the held part out (a network) defines its own restrict.
    """

    def __init__(self, problem, x, names):
        table = problem.segments.select(names)
        self.problem, self.n = problem, problem.n
        self.name = f"{problem.name}[{', '.join(table.names)}]"
        self.set_shape(table.dim, problem.dtype, table)
        self.pairs = spans(table, problem.segments)
        self.whole = problem.check(x).copy()
        self.first = self.gather(self.whole)
        self.gradient = None

    @property
    def has_penalty(self):
        return self.problem.has_penalty

    def gather(self, v, out=None):
        out = backend.empty((self.dim,), v.dtype) if out is None else out
        for compact, whole in self.pairs:
            out[compact] = v[whole]
        return out

    def scatter(self, y, v):
        for compact, whole in self.pairs:
            v[whole] = y[compact]
        return v

    def place(self, y):
        return self.scatter(self.check(y), self.whole)

    def x0(self, rng):
        """The values that x had in these segments."""
        return self.first.copy()

    def set_seed(self, seed):
        self.problem.set_seed(seed)

    def reset(self):
        self.problem.reset()

    def loss(self, y, rows, weights):
        return self.problem.value(self.place(y), rows, weights)

    def value_and_gradient(self, x, rows=None, weights=None, out=None, inputs=None, dinputs=None):
        if self.gradient is None:
            self.gradient = backend.empty((self.problem.dim,), self.dtype)
        g = self.gradient if out is not None else None
        loss = self.problem.value_and_gradient(self.place(x), rows, weights, out=g, inputs=inputs, dinputs=dinputs)
        if out is not None:
            self.gather(g, self.check(out, "out"))
        return loss

    def curvature(self, x, rows=None, weights=None):
        """The block of the whole Hessian, or None."""
        known = getattr(self.problem, "curvature", None)
        whole = known and known(self.place(x).copy(), rows, weights)
        if whole is None:
            return None
        return lambda v: self.gather(whole(self.scatter(v, backend.zeros((self.problem.dim,), self.dtype))))

    def penalty(self, x):
        return self.problem.penalty(self.place(x))

    def prox(self, x, step):
        if not self.has_penalty:
            return x
        return self.gather(self.problem.prox(self.place(x).copy(), step), x)

    def targets(self):
        return self.problem.targets()

    def metrics(self, x):
        return self.problem.metrics(self.place(x))

    def row_norms(self):
        return self.problem.row_norms()

    def begin(self, t):
        self.problem.begin(t)

    def commit(self):
        self.problem.commit()

    def state(self):
        return self.problem.state()

    def load_state(self, state):
        self.problem.load_state(state)

    def restrict(self, x, names):
        """The whole problem in fewer segments, with the rest held at its present values."""
        wanted = self.segments.select(names).names
        return self.problem.restrict(self.place(x), wanted)


def number(value):
    """A Python float of a NumPy number; a 0-d device array is left where it is."""
    return float(value) if isinstance(value, np.generic) else value


def spans(table, whole):
    """Pairs (slice of the compact vector, slice of the whole one), neighbours merged: copies are few and long."""
    pairs = []
    for segment in table:
        there = whole.find(segment.name)
        if pairs and pairs[-1][1].stop == there.start:
            compact, found = pairs.pop()
            pairs.append((slice(compact.start, segment.stop), slice(found.start, there.stop)))
        else:
            pairs.append((segment.slice, there.slice))
    return pairs
