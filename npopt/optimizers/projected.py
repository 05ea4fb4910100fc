"""A method whose state lives in a few directions of each matrix: what GaLore, GoLore and Flora share."""

from types import SimpleNamespace

from npopt import backend
from npopt.directions import low_rank
from npopt.errors import UserError
from npopt.optimizers.adam import Adam
from npopt.optimizers.averaging import check_inner
from npopt.optimizers.base import Array, number_or_array
from npopt.optimizers.by_segment import BySegment, check_kinds, each_segment
from npopt.optimizers.lamb import along
from npopt.optimizers.muon import muon
from npopt.projectors import check_projector
from npopt.segments import Segments
from npopt.values import number, whole

SIDES = ("shorter", "rows", "columns")
MOMENTS = ("kept", "reset", "turned")


class Projected(BySegment):
    """`inner`, such as Adam, in the rank r subspace of each matrix W, (m, n), with gradient G:

        m >= n      R = G P,  P: (n, r)      W <- W - lr alpha D P'      D: inner's step along R, for a rate of 1
        m < n       R = P' G, P: (m, r)      W <- W - lr alpha P D

    All other segments are inner's own, without P and alpha: vectors, those not of `kinds`, those named in `others` (the
    authors leave out embeddings and the last layer). P is new in steps 0, period, 2 period, ..., for the gradient of
    that step. r is at most min(m, n); a convolution is (out, kh kw in).

    side        which side P stands on: the "shorter" one as above; always "rows", P: (m, r); or "columns", P: (n, r)
    moments     at a new P inner's state of the matrix is "kept", "reset" to zero, or its m is "turned" into the new
                subspace, m <- m P_old' P_new, the rest being kept
    gather      gradients whose R are summed up before inner takes a step along their mean. The others' are summed up in
                full. In the gather-1 steps before, x stays where it is
    weight_decay    decoupled and multiplied by lr, in full space; may be an array like x. inner has none of its own

    inner sees the problem's table of segments with (m, r) or (r, n) in the place of (m, n); it may be any method that
    takes a gradient in pieces. Its own state is made for that. State beside it: P, where the projector is stored, and
    the sums, where gather is not 1. lr has to be a number.
    """

    options = ("weight_decay",)
    parts = ("inner",)
    numbers = {"before": 0}  # steps before a restart: no draw comes twice

    def __init__(
        self,
        rank,
        period,
        alpha,
        inner,
        projector,
        *,
        kinds=("matrix",),
        others=(),
        side="shorter",
        moments="kept",
        gather=1,
        weight_decay=0.0,
    ):
        name = type(self).__name__
        self.rank, self.period = whole(name, "rank", rank), whole(name, "period", period)
        self.alpha = number(name, "alpha", alpha, low=0, open_low=True)
        self.inner = check_inner(name, Adam() if inner is None else inner)
        self.projector = check_projector(name, projector)
        self.kinds, self.others = check_kinds(name, kinds), (others,) if isinstance(others, str) else tuple(others)
        for what, value, known in (("side", side, SIDES), ("moments", moments, MOMENTS)):
            if value not in known:
                raise UserError(f"{name}: {what} must be one of {', '.join(known)}, got {value!r}")
        self.side, self.moments, self.gather = side, moments, whole(name, "gather", gather)
        self.weight_decay = number_or_array(name, "weight_decay", weight_decay, low=0)
        own = getattr(self.inner, "weight_decay", 0.0)
        if getattr(own, "ndim", 0) or own:
            raise UserError(f"{name}: inner works in a subspace, where it cannot decay x; give {name} its weight_decay")

    # ----------------------------------------------------------------------------------------------------- shapes
    def sizes(self, segment):
        """(m, n, r, whether P stands on the rows) of a matrix; None of other segments."""
        found = None if segment.name in self.others else low_rank(segment, self.rank, self.kinds)
        if found is None:
            return None
        m, n, _ = found
        return *found, self.side == "rows" or self.side == "shorter" and m < n

    def basis_shape(self, segment):
        """Shape of P, None where there is none to keep."""
        found = self.sizes(segment)
        return found and (found[0] if found[3] else found[1], found[2])

    def reduced(self, segment):
        """Shape of R; of other segments their own."""
        found = self.sizes(segment)
        if found is None:
            return segment.shape
        m, n, r, on_rows = found
        return (r, n) if on_rows else (m, r)

    @property
    def arrays(self):
        P, sums = Array("P", self.basis_shape), Array("sums", self.reduced)
        return (P,) * self.projector.stored + (sums,) * (self.gather > 1)

    def part(self, name, segment):
        """The part of a state array that belongs to a segment; None where there is none."""
        return dict(zip(self._slots, self.cut(segment), strict=True)).get(name)

    def start(self, x, oracle=None):
        super().start(x, oracle)
        for name in self.others:
            self.segments.find(name)  # an error where there is no such segment
        table = Segments.of(*((s.name, self.reduced(s), s.kind, s.block) for s in self.segments))
        self.table, self.small = table, {s.name: s for s in table}
        problem = SimpleNamespace(segments=table, has_penalty=False)
        there = backend.xp(x).zeros((table.dim,), dtype=x.dtype)
        self.inner.start(there, SimpleNamespace(problem=problem, seed=self.seed))
        if self.moments == "turned" and "m" not in self.inner._slots:
            raise UserError(f"{type(self).__name__}: {self.inner!r} keeps no m that could be turned")

    @property
    def seed(self):
        return getattr(self.oracle, "seed", 0)

    def restart(self, x):
        before = self.before + self.t
        super().restart(x)
        self.before = before

    # ----------------------------------------------------------------------------------------------------- a step
    def step(self, x, g, lr):
        if getattr(lr, "ndim", 0):
            raise UserError(f"{type(self).__name__}: lr must be one number; in a subspace there is no place for many")
        self.t += 1
        if self.t % self.gather:

            def gather(segment, part):
                R, _ = self.projected(segment, part)
                self.part("sums", segment)[...] += R.reshape(self.reduced(segment))

            each_segment(type(self).__name__, self.segments, g, gather)
            return
        small = backend.empty((self.table.dim,), x.dtype)
        self.inner.step(small, SimpleNamespace(each=lambda take: self.through(x, small, g, lr, take)), lr)

    def through(self, x, small, g, lr, take):
        """take(slice, R), of inner, matrix by matrix: it moves small[slice] from 0 by what is then projected back on x.
        Other segments are there in small as they are."""
        (weight_decay,) = self.current()

        def one(segment, part):
            place, own = self.small[segment.name].slice, x[segment.slice]
            decay = weight_decay[segment.slice] if getattr(weight_decay, "ndim", 0) else weight_decay
            y, (R, P) = small[place], self.projected(segment, part)
            if self.gather > 1:
                R = self.mean(segment, R)
            y[...] = own if P is None else 0
            take(place, R.reshape(-1))
            if P is not None:
                muon(own, self.back(segment, y, P), -self.alpha, lr * decay)
                return
            if getattr(decay, "ndim", 0) or decay:
                along(y, own, lr * decay)
            own[...] = y

        each_segment(type(self).__name__, self.segments, g, one)

    def mean(self, segment, R):
        """The mean of the R of `gather` gradients, of which this is the last."""
        sums = self.part("sums", segment)
        R = (sums + R.reshape(sums.shape)) / self.gather
        sums[...] = 0
        return R

    def projected(self, segment, g):
        """(R, P); (g, None) where the segment is no matrix. A new P is made where one is due."""
        found = self.sizes(segment)
        if found is None:
            return g, None
        m, n, r, on_rows = found
        G, module = g.reshape(m, n), backend.xp(g)
        P = self.basis(segment, G if on_rows else G.T, r)
        R = backend.empty(self.reduced(segment), g.dtype)
        module.matmul(*((P.T, G) if on_rows else (G, P)), out=R)
        return R, P

    def back(self, segment, y, P):
        """A step in the subspace as a flat step of the matrix."""
        m, n, _, on_rows = self.sizes(segment)
        y, U = y.reshape(self.reduced(segment)), backend.workspace((m, n), y.dtype)
        backend.xp(y).matmul(*((P, y) if on_rows else (y, P.T)), out=U)
        return U.reshape(-1)

    def basis(self, segment, H, r):
        """P of this step for H, the gradient with the side of P for rows."""
        span = self.period * self.gather
        since, now = (self.t - 1) % span, self.before + self.t - 1

        def made(at):
            return self.projector.basis(H, r, backend.key(self.seed, f"projector {segment.name}", at), at)

        kept = self.part("P", segment)
        if since:
            return made(now - since) if kept is None else kept
        P = made(now)
        if self.moments != "kept" and self.t > 1:
            self.renew(segment, made(now - span) if kept is None else kept, P)
        if kept is None:
            return P
        kept[...] = P
        return kept

    def renew(self, segment, old, new):
        """What becomes of inner's state of a matrix when its P changes."""
        small = self.small[segment.name]
        parts = dict(zip(self.inner._slots, self.inner.cut(small), strict=True))
        if self.moments == "reset":
            for part in parts.values():
                if part is not None:
                    part[...] = 0
            return
        M = parts["m"].reshape(small.shape)
        M[...] = (new.T @ old) @ M if self.sizes(segment)[3] else M @ (old.T @ new)
