"""PipeDream-Flush, or 1F1B: Narayanan et al., ICML 2021, arXiv:2006.09503, section 3.2, Figure 3.

    p = 3 stages, m = 4 micro-batches, time from left to right; b takes twice as long as f:

    stage 0   f0 f1 f2          b0 f3    b1    b2    b3
    stage 1      f0 f1       b0 f2    b1 f3 b2    b3
    stage 2         f0 b0 f1    b1 f2    b2 f3 b3

Stage s goes forward p - 1 - s times, then forward and back by turns, then back. It never keeps more than p - s passes,
however many micro-batches there are. It needs no more time than GPipe as long as messages need none. If one is under
way for c, the p passes of stage 0 are back after p (f + b) + 2 (p - 1) c: a micro-batch costs f + b + 2 c (p - 1) / p,
with GPipe f + b.
"""

from npopt.distributed.pipeline import BACKWARD, FORWARD, Pipeline


class PipeDreamFlush(Pipeline):
    """One forward, one backward, as soon as a stage has min(m, p - s) passes on their way."""

    def order(self, stage, stages):
        ahead = min(self.micro, stages - 1 - stage)
        found = [(FORWARD, k) for k in range(ahead)]
        for k in range(self.micro - ahead):
            found += [(FORWARD, ahead + k), (BACKWARD, k)]
        return found + [(BACKWARD, k) for k in range(self.micro - ahead, self.micro)]
