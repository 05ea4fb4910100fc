"""Attacks on networks: small changes of the inputs that change the answer. One algorithm a file.

    found = attacked(problem, x, PGD(0.3, 0.01, 40), rows=range(1000))
    found.robust.mean(), found.counts["gradients"]

Pixels run from 0 to 1, and eps is in their units, whatever scale the network sees (npopt/ball.py).
"""

from problems.attacks.apgd import APGD
from problems.attacks.base import Attack, Attacked, attacked
from problems.attacks.ensemble import Ensemble
from problems.attacks.losses import LogitMargin, LogitRatio
from problems.attacks.pgd import FGSM, PGD
from problems.attacks.square import Square

__all__ = ["APGD", "FGSM", "PGD", "Attack", "Attacked", "Ensemble", "LogitRatio", "LogitMargin", "Square", "attacked"]
