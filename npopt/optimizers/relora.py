"""ReLoRA: Lialin, Shivagunde, Muckatira & Rumshisky, ICLR 2024, arXiv:2307.05695, Algorithm 1."""

from npopt import backend
from npopt.errors import UserError
from npopt.optimizers.adam import Adam
from npopt.optimizers.averaging import check_inner
from npopt.optimizers.base import Optimizer
from npopt.values import number, whole


class ReLoRA(Optimizer):
    """`inner` on a network with LoRA, merged and begun anew after every `period` steps:

        W <- W + s B A        B <- 0        A drawn as at the start, by (seed, layer, step)

    A sum of changes of rank r may have a higher one. At a restart a share `keep` of inner's state of A and B stays, and
    the rest becomes 0: by "magnitude", the largest numbers of each array; "random", any of them. The paper has 0.01 and
    leaves both open; its code drops 99.9 % by magnitude in place of all. The count of steps, and with it the correction
    of moments, goes on. The rate has to begin anew as well: JaggedCosine(lr, every=period, warmup=...).

    The problem is a network with nn.LoRA in it, restricted to what is trained (problems/merging.py): minimize(
    problem.restrict(x, free(network)), ReLoRA(...)). Its loss does not change when it is merged. State: inner's.
    """

    parts = ("inner",)
    numbers = {"before": 0}  # steps before a restart of the whole method: no draw comes twice
    WAYS = ("magnitude", "random")

    def __init__(self, inner=None, period=1000, keep=0.01, by="magnitude"):
        self.inner = check_inner("ReLoRA", Adam() if inner is None else inner)
        self.period = whole("ReLoRA", "period", period)
        self.keep = number("ReLoRA", "keep", keep, low=0, high=1)
        if by not in self.WAYS:
            raise UserError(f"ReLoRA: by must be one of {', '.join(self.WAYS)}, got {by!r}")
        self.by = by

    def start(self, x, oracle=None):
        super().start(x, oracle)
        self.inner.start(x, oracle)

    def restart(self, x):
        before = self.before + self.t
        super().restart(x)
        self.before = before

    def step(self, x, g, lr):
        problem = getattr(self.oracle, "problem", None)
        if not getattr(problem, "merges", False):
            raise UserError(
                "ReLoRA: the problem has nothing to merge; give it problem.restrict(x, free(network)), the network "
                "being adapted(network, LoRA, rank=...)"
            )
        self.t += 1
        self.inner.step(x, g, lr)
        if self.t % self.period == 0:
            key = backend.key(self.oracle.seed, "ReLoRA", self.before + self.t)
            for name in problem.merge(x, key):
                for i, part in enumerate(self.inner.cut(problem.segments.find(name))):
                    if part is not None:
                        thin(part.reshape(-1), self.keep, self.by, backend.key(key, name, i))


def thin(v, keep, by, key):
    """Make all but a share `keep` of the flat v zero, in place."""
    m, count = backend.xp(v), round(keep * v.size)
    if by == "random":
        u = backend.row_uniform(key, None, backend.empty((1, v.size), "float64"))
        v *= u[0] < keep
    elif count == 0:
        v[...] = 0
    else:
        size = abs(v)
        v *= size >= m.partition(size, v.size - count)[v.size - count]
