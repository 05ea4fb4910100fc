"""Flora: Hao, Cao & Mou, ICML 2024, arXiv:2402.03293, Algorithms 1 and 2. (FLoRA, an adapter: nn/tucker.py.)"""

from npopt.optimizers.projected import Projected
from npopt.projectors import Gaussian


class Flora(Projected):
    """A method whose memory of each gradient G, (m, n), is G A', with a random A, (r, n), of N(0, 1/r):

        M <- b1 M + (1-b1) G A'         W <- W - lr alpha D A           D: inner's step in that space

    E[A' A] = I, so that G A' A is right on average. A is never stored: it is a function of (seed, segment, step), drawn
    again in each step and renewed every `period` steps. Then M <- M A_old A_new' (moments="turned"), Algorithm 2; the
    other state of inner is kept as it is. gather: so many gradients are summed up as sum G A', and one step is taken
    along their mean, Algorithm 1. State of a matrix: inner's of m r numbers, and m r for the sums where gather > 1.

    inner, None: Adam(). The authors take Adafactor: inner=Adafactor(...). side="shorter" projects m where m < n, the
    default is the paper's. The other arguments are Projected's.
    """

    def __init__(
        self,
        rank=128,
        period=1000,
        alpha=1.0,
        inner=None,
        *,
        gather=1,
        kinds=("matrix",),
        others=(),
        side="columns",
        moments="turned",
        weight_decay=0.0,
    ):
        more = dict(kinds=kinds, others=others, side=side, moments=moments, gather=gather, weight_decay=weight_decay)
        super().__init__(rank, period, alpha, inner, Gaussian(), **more)
