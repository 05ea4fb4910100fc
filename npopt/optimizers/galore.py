"""GaLore: Zhao et al., ICML 2024, arXiv:2403.03507, Algorithm 2, and the authors' code (projectors of type "std")."""

from npopt.optimizers.projected import Projected
from npopt.projectors import Svd


class GaLore(Projected):
    """Adam in the leading singular subspace of each matrix's gradient, renewed every `period` steps:

        m >= n      P = V_r of G = U S V'       R = G P         W <- W - lr alpha N P'
        m < n       P = U_r                     R = P' G        W <- W - lr alpha P N

    N = mh / (sqrt(vh) + eps) is Adam's step along R; m and v are neither reset nor turned when P changes, as in the
    authors' code (`moments` is for trials of the other ways). State of a matrix with m <= n: m r numbers for P and
    2 n r for m and v, where Adam has 2 m n. alpha multiplies what is projected back, so that matrices move at lr alpha;
    the authors pre-train with lr 0.01, alpha 0.25 and period 200. The other arguments are Projected's: inner, None:
    Adam(); projector, such as RangeFinder(), which is cheaper than Svd(); kinds; others, where the last layer is not an
    embedding; side; weight_decay.
    """

    def __init__(
        self,
        rank=128,
        period=200,
        alpha=0.25,
        inner=None,
        projector=Svd(),  # noqa: B008 (a value)
        *,
        kinds=("matrix",),
        others=(),
        side="shorter",
        moments="kept",
        weight_decay=0.0,
    ):
        more = dict(kinds=kinds, others=others, side=side, moments=moments, weight_decay=weight_decay)
        super().__init__(rank, period, alpha, inner, projector, **more)
