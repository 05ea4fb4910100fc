"""Where the gradient comes from: one algorithm a file. An estimator may wrap another; the innermost is Minibatch(), or
one that knows function values alone."""

from npopt.estimators.accumulated import Accumulated
from npopt.estimators.adversarial import Adversarial
from npopt.estimators.asam import ASAM
from npopt.estimators.base import Estimator, Wrapper
from npopt.estimators.block_gradient import BlockGradient
from npopt.estimators.clipped import Clipped, Clipping
from npopt.estimators.clipped_by_segment import ClippedBySegment
from npopt.estimators.clipped_by_value import ClippedByValue
from npopt.estimators.coordinate import CoordinateDifferences
from npopt.estimators.deepzero import DeepZero
from npopt.estimators.free import FreeAdversarial
from npopt.estimators.gaussian import GaussianSmoothing
from npopt.estimators.layerwise import Layerwise
from npopt.estimators.loss_scaled import LossScaled
from npopt.estimators.lozo import LOZO
from npopt.estimators.mezo import MeZO
from npopt.estimators.mezo_svrg import MeZOSVRG
from npopt.estimators.minibatch import Minibatch
from npopt.estimators.normalised import Normalised
from npopt.estimators.saga import SAGA
from npopt.estimators.sam import SAM
from npopt.estimators.sphere import SphereSmoothing
from npopt.estimators.spsa import SPSA
from npopt.estimators.svrg import SVRG
from npopt.estimators.trades import TRADES
from npopt.estimators.zo_svrg import ZOSVRG

__all__ = [
    "ASAM",
    "LOZO",
    "LossScaled",
    "SAGA",
    "SAM",
    "SPSA",
    "SVRG",
    "ZOSVRG",
    "Accumulated",
    "BlockGradient",
    "Clipped",
    "CoordinateDifferences",
    "DeepZero",
    "Estimator",
    "GaussianSmoothing",
    "Layerwise",
    "MeZO",
    "MeZOSVRG",
    "Minibatch",
    "SphereSmoothing",
    "ClippedBySegment",
    "ClippedByValue",
    "Clipping",
    "Normalised",
    "TRADES",
    "Adversarial",
    "FreeAdversarial",
    "Wrapper",
]
