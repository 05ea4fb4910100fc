"""GPipe: Huang et al., NeurIPS 2019, arXiv:1811.06965, Figure 2(c).

    p = 3 stages, m = 4 micro-batches, time from left to right; b takes twice as long as f:

    stage 0   f0 f1 f2 f3             b0    b1    b2    b3
    stage 1      f0 f1 f2 f3       b0    b1    b2    b3
    stage 2         f0 f1 f2 f3 b0    b1    b2    b3

A stage keeps all m passes until the first goes back.
"""

from npopt.distributed.pipeline import BACKWARD, FORWARD, Pipeline


class GPipe(Pipeline):
    """All micro-batches forward, then all back, the first one first (the paper's figure takes the last one first)."""

    def order(self, stage, stages):
        return [(FORWARD, k) for k in range(self.micro)] + [(BACKWARD, k) for k in range(self.micro)]
