"""MeZO: Malladi, Gao, Nichani, Damian, Lee, Chen & Arora, NeurIPS 2023, arXiv:2305.17333, Algorithms 1 and 2."""

from npopt import backend
from npopt.directions import Normals
from npopt.errors import UserError
from npopt.estimators.zeroth import ZerothOrder


class Pieces:
    """The gradient sum_j c_j z_j that is never whole: iterated over, it makes (slice, piece) segment by segment, each
    piece valid until the next one is asked for. `terms` is [(c_j, direction z_j)] of the last estimate."""

    def __init__(self, segments, kind):
        self.segments, self.kind, self.terms = segments, kind, ()

    def __iter__(self):
        for segment in self.segments:
            piece = backend.empty((segment.size,), self.kind)
            piece[...] = 0
            for c, direction in self.terms:
                direction.add(piece, c, segment)
            yield segment.slice, piece


class MeZO(ZerothOrder):
    """g = (1/q) sum_k s_k z_k,  z_k ~ N(0, I), s_k = (f(x + mu z_k) - f(x - mu z_k)) / (2 mu), by inference alone.

    It is GaussianSmoothing of the same radius, q, difference and seed, to rounding. But no z is ever whole. Its numbers
    are functions of a key: a network makes x + mu z one layer at a time while it runs, so that x is only read, and
    needs not be restored (the released code adds +mu, -2 mu and +mu, which drifts in half precision:
    princeton-nlp/MeZO#42). The step replays z one segment at a time: what the optimizer is given as g is an iterator
    over pieces. So every optimizer that takes pieces runs with it: SGD, momentum or Adam; those that need the whole g
    say so. Memory beside x, passes and the optimizer's state: the parameters of one layer. A problem without layers
    copies x.

    `projected` holds s_1, ..., s_q of the last step: with the seed they are the whole run, see `replay`.
    """

    projected = ()

    def start(self, problem, x, seed):
        self.ready(problem, seed)
        return Pieces(problem.segments, x.dtype)

    def direction(self, k, t=None):
        """Direction k of step t, along which the loss is probed; by default of this step."""
        return Normals(self.key(k, t))

    def terms(self, projected, t=None):
        """[(c, direction)] of the estimate with these s_k."""
        return [(s / self.q, self.direction(k, t)) for k, s in enumerate(projected)]

    def step_terms(self, projected):
        """The same, of a step: what is gathered from step to step is gathered here."""
        return self.terms(projected)

    def __call__(self, x, batch, out):
        self.batch = batch
        return self.give(*self.probe(x), out)

    def again(self, y, out):
        projected, loss = self.probe(y)
        return write(out, self.terms(projected), loss, self.problem.segments)

    def probe(self, y):
        """([s_1, ..., s_q], loss) of this step's batch and directions at y."""
        first = self.value(y) if self.difference == "forward" else None
        projected, total = [], 0.0
        for k in range(self.q):
            direction = self.direction(k)
            s, loss = self.slope([self.value(y, (a, direction)) for a in self.amounts], first)
            projected.append(s)
            total = total + loss
        return projected, total / self.q

    def give(self, projected, loss, out):
        """Let `out`, Pieces or a vector, be the estimate of this step."""
        self.projected = projected
        terms = self.step_terms(projected)
        if isinstance(out, Pieces):
            out.terms = terms
            return loss
        return write(out, terms, loss, self.problem.segments)


def write(out, terms, loss, segments):
    """out: the vector sum_j c_j z_j; returns the loss."""
    out[...] = 0
    for segment in segments:
        for c, direction in terms:
            direction.add(out[segment.slice], c, segment)
    return loss


def replay(estimator, optimizer, problem, x, tape, rates, seed=0):
    """Make the steps of a run of MeZO or LOZO again without an evaluation: x, (dim,), the start, is moved in place.

    tape     (steps, q) projected gradients, `estimator.projected` of each step
    rates    the learning rate of each step
    seed     that of the run. The others are those that the run was made with. The end is the run's, bit for bit.
    """
    if len(tape) != len(rates):
        raise UserError(f"replay: {len(tape)} steps of projected gradients need as many rates, got {len(rates)}")
    g = estimator.start(problem, x, seed)
    optimizer.start(x, estimator)
    for t, (projected, lr) in enumerate(zip(tape, rates, strict=True)):
        problem.begin(t)
        estimator.give([float(s) for s in projected], 0.0, g)
        optimizer.step(x, g, lr)
