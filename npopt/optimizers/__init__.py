"""How x moves: one algorithm a file."""

from npopt.optimizers.adam import Adam
from npopt.optimizers.adamw import AdamW
from npopt.optimizers.anderson import Anderson
from npopt.optimizers.base import Optimizer
from npopt.optimizers.fista import FISTA
from npopt.optimizers.heavy_ball import HeavyBall
from npopt.optimizers.ista import ISTA
from npopt.optimizers.nesterov import Nesterov
from npopt.optimizers.proximal import Proximal
from npopt.optimizers.sgd import SGD

__all__ = ["FISTA", "ISTA", "SGD", "Adam", "AdamW", "Anderson", "HeavyBall", "Nesterov", "Optimizer", "Proximal"]
