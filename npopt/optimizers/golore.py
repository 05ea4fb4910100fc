"""GoLore: He, Li, Hu, Chen & Yuan 2024, arXiv:2410.11289: GaLore first, random projections late."""

from npopt.optimizers.projected import Projected
from npopt.projectors import Stiefel, Svd, Switching
from npopt.values import whole


class GoLore(Projected):
    """GaLore, whose P are random from step `at` on: uniform over matrices with orthonormal columns, whatever G is.

    Near a stationary point the singular vectors of a stochastic gradient are those of its noise, and what the gradient
    itself has left may lie outside of them for ever. A random subspace takes in r/k of it on average,
    E[P P'] = (r/k) I for a side of k. `first` is the projector before `at` (steps count from 0), None: Svd(); at = 0 is
    random from the start. The authors' theory is of momentum SGD: inner=HeavyBall(beta). The other arguments are
    GaLore's.
    """

    def __init__(
        self,
        rank=128,
        period=200,
        alpha=0.25,
        at=0,
        inner=None,
        first=None,
        *,
        kinds=("matrix",),
        others=(),
        side="shorter",
        moments="kept",
        weight_decay=0.0,
    ):
        self.at, self.first = whole("GoLore", "at", at, 0), Svd() if first is None else first
        more = dict(kinds=kinds, others=others, side=side, moments=moments, weight_decay=weight_decay)
        super().__init__(rank, period, alpha, inner, Switching(self.first, Stiefel(), self.at), **more)
