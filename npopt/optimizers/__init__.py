"""How x moves: one algorithm a file."""

from npopt.optimizers.adabound import AdaBound, AMSBound
from npopt.optimizers.adadelta import Adadelta
from npopt.optimizers.adafactor import Adafactor
from npopt.optimizers.adagrad import AdaGrad
from npopt.optimizers.adam import Adam
from npopt.optimizers.adam_mini import AdamMini
from npopt.optimizers.adamax import Adamax
from npopt.optimizers.adamw import AdamW
from npopt.optimizers.amsgrad import AMSGrad
from npopt.optimizers.anderson import Anderson
from npopt.optimizers.asgd import ASGD
from npopt.optimizers.averaging import EMA, SWA, Around, Lookahead
from npopt.optimizers.base import Array, Optimizer
from npopt.optimizers.blockwise import Blockwise
from npopt.optimizers.by_segment import BySegment
from npopt.optimizers.fista import FISTA
from npopt.optimizers.flora import Flora
from npopt.optimizers.galore import GaLore
from npopt.optimizers.golore import GoLore
from npopt.optimizers.heavy_ball import HeavyBall
from npopt.optimizers.ista import ISTA
from npopt.optimizers.lamb import LAMB
from npopt.optimizers.lars import LARS
from npopt.optimizers.lion import Lion
from npopt.optimizers.mixed_clipping import MixedClipping
from npopt.optimizers.muon import Muon
from npopt.optimizers.nadam import NAdam
from npopt.optimizers.nesterov import Nesterov
from npopt.optimizers.normalised_momentum import NormalisedMomentum
from npopt.optimizers.projected import Projected
from npopt.optimizers.proximal import Proximal
from npopt.optimizers.quantised import Quantised
from npopt.optimizers.radam import RAdam
from npopt.optimizers.relora import ReLoRA
from npopt.optimizers.rmsprop import RMSProp
from npopt.optimizers.rounded import Rounded
from npopt.optimizers.rprop import Rprop
from npopt.optimizers.sgd import SGD
from npopt.optimizers.sophia import Sophia, SophiaG, SophiaH
from npopt.optimizers.swats import SWATS

__all__ = [
    "ASGD",
    "EMA",
    "FISTA",
    "ISTA",
    "LAMB",
    "LARS",
    "SGD",
    "SWA",
    "SWATS",
    "AMSBound",
    "AMSGrad",
    "AdaBound",
    "AdaGrad",
    "Adadelta",
    "Adafactor",
    "Adam",
    "AdamMini",
    "AdamW",
    "Adamax",
    "Anderson",
    "Around",
    "Array",
    "Blockwise",
    "BySegment",
    "Flora",
    "GaLore",
    "GoLore",
    "HeavyBall",
    "Lion",
    "Lookahead",
    "MixedClipping",
    "Muon",
    "NAdam",
    "Nesterov",
    "NormalisedMomentum",
    "Optimizer",
    "Projected",
    "Proximal",
    "Quantised",
    "RAdam",
    "RMSProp",
    "ReLoRA",
    "Rounded",
    "Rprop",
    "Sophia",
    "SophiaG",
    "SophiaH",
]
