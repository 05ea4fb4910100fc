"""LOZO: Chen, Zhang, Cao, Yuan & Wen, ICLR 2025, arXiv:2410.07698, Algorithm 1; LOZO-M: Algorithm 2."""

from npopt import backend
from npopt.backend import elementwise
from npopt.directions import LowRank, low_rank
from npopt.estimators.mezo import MeZO
from npopt.optimizers.by_segment import check_kinds
from npopt.values import number, whole


@elementwise
def average(N, U, momentum, s):
    N = momentum * N + (1 - momentum) * s * U
    return N


class LOZO(MeZO):
    """MeZO along matrices of low rank.   For W, (m, n):   U, (m, r), anew at every step; V, (n, r), every `every`
    steps.

        s = (f(W + mu U V') - f(W - mu U V')) / (2 mu)      g = s U V' / r;   all matrices at once, other segments by z

    E[g] is the gradient: E[<G, U V'> U V'] = r G, hence 1/r, as in the paper. The released code leaves it out
    (mean=False), so that its rate is r times smaller. Within `every` steps x moves in the columns of V alone.

    With momentum (LOZO-M), for each matrix N, (m, r), and for other segments N like them:

        N <- momentum N + (1 - momentum) s U        g = N V' / r        at a new V first:  N <- N V_old' V_new / n

    which projects the average on the new columns. SGD then makes the paper's steps. Conv weights count as matrices
    (out, kh kw in); the released code treats Linear's alone.

    The released code draws V and U from one seeded stream. Its update seeds anew and draws U alone, so that at every
    step with a new V the update's U is not the probe's, whose s it is multiplied by. Here U and V have streams of their
    own.
    """

    def __init__(self, rank=2, every=50, radius=1e-3, momentum=0.0, mean=True, kinds=("matrix", "conv", "embedding")):
        super().__init__(radius)
        self.rank, self.every = whole("LOZO", "rank", rank), whole("LOZO", "every", every)
        self.momentum = number("LOZO", "momentum", momentum, low=0, high=1, open_high=True)
        self.mean, self.kinds = bool(mean), check_kinds("LOZO", kinds)

    def start(self, problem, x, seed):
        g, start, self.places = super().start(problem, x, seed), 0, {}
        for segment in problem.segments if self.momentum else ():
            sizes = low_rank(segment, self.rank, self.kinds)
            stop = start + (sizes[0] * sizes[2] if sizes else segment.size)
            self.places[segment.name], start = slice(start, stop), stop
        self.N = backend.zeros((start,), x.dtype)
        return g

    def direction(self, k, t=None, mean=False):
        t = self.problem.t if t is None else t
        keys = self.key(k, t), backend.key(self.seed, "columns", t // self.every)
        return LowRank(*keys, self.rank, self.kinds, mean)

    def terms(self, projected, t=None):
        return [(projected[0], self.direction(0, t, self.mean))]

    def step_terms(self, projected):
        if not self.momentum:
            return self.terms(projected)
        self.gather(projected[0])
        return [(1.0, Gathered(self, self.direction(0, mean=self.mean)))]

    def gather(self, s):
        """N of this step, from its s."""
        t, now = self.problem.t, self.direction(0)
        for segment in self.problem.segments:
            N, sizes = self.N[self.places[segment.name]], now.sizes(segment)
            if sizes is None:
                fresh = backend.zeros((segment.size,), N.dtype)
                now.add(fresh, 1.0, segment)
            else:
                m, n, r = sizes
                fresh = now.factor(now.u, m, r, segment, N.dtype).reshape(-1)
                if t and t % self.every == 0:
                    before = self.direction(0, t - 1)
                    old, new = (d.factor(d.v, n, r, segment, N.dtype) for d in (before, now))
                    N[...] = (N.reshape(m, r) @ (old.T @ new) / n).reshape(-1)
            average(N, fresh, self.momentum, s)

    def state(self):
        return {**super().state(), "N": self.N}

    def load_state(self, state):
        super().load_state(state)
        self.N[...] = backend.asarray(state["N"], self.N.dtype)


class Gathered:
    """What LOZO-M has gathered, as a direction: N V', divided by r with `mean`; N itself where there is no V."""

    def __init__(self, lozo, now):
        self.lozo, self.now = lozo, now

    def add(self, out, a, segment):
        N, sizes = self.lozo.N[self.lozo.places[segment.name]], self.now.sizes(segment)
        if sizes is None:
            out += a * N
            return
        m, n, r = sizes
        V = self.now.factor(self.now.v, n, r, segment, out.dtype)
        out += ((a / r if self.now.mean else a) * (N.reshape(m, r) @ V.T)).reshape(-1)
