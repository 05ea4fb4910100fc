"""Several attacks one after the other, each on the rows that withstood those before: Croce & Hein 2020, section 6."""

from npopt.errors import UserError
from problems.attacks.apgd import APGD
from problems.attacks.base import Attack, Best, remaining
from problems.attacks.losses import LogitRatio
from problems.attacks.square import Square


class Ensemble(Attack):
    """The worst of some attacks. A row is robust if it withstands all.

    Ensemble.small(eps) is APGD on cross-entropy, APGD on LogitRatio and Square. The first climbs a gradient; the second
    one that does not vanish with a large margin; the third needs none. Where the third fools rows that the others did
    not, gradients were masked. It is AutoAttack without its targeted forms (FAB, APGD-T), so it may find less.
    """

    def __init__(self, *attacks):
        if not attacks or not all(isinstance(attack, Attack) for attack in attacks):
            raise UserError(f"Ensemble: give attacks, such as PGD(0.3) and Square(0.3), got {attacks!r}")
        self.attacks = attacks

    @classmethod
    def small(cls, eps, steps=100, queries=1000):
        return cls(APGD(eps, steps), APGD(eps, steps, loss=LogitRatio()), Square(eps, queries))

    def __call__(self, aim, seed=0, stop=True):
        best = Best(aim)
        for attack in self.attacks:
            left = remaining(best.fooled)
            if not left.shape[0]:
                break
            found = attack(aim.part(left), seed, stop)
            best.note(found.delta, found.losses, found.fooled, left)
        return best
