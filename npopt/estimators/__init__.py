"""Where the gradient comes from: one algorithm a file. An estimator may wrap another; the innermost is Minibatch()."""

from npopt.estimators.accumulated import Accumulated
from npopt.estimators.base import Estimator, Wrapper
from npopt.estimators.clipped import Clipped, Clipping
from npopt.estimators.clipped_by_segment import ClippedBySegment
from npopt.estimators.clipped_by_value import ClippedByValue
from npopt.estimators.minibatch import Minibatch
from npopt.estimators.normalised import Normalised
from npopt.estimators.saga import SAGA
from npopt.estimators.svrg import SVRG

__all__ = [
    "SAGA",
    "SVRG",
    "Accumulated",
    "Clipped",
    "ClippedBySegment",
    "ClippedByValue",
    "Clipping",
    "Estimator",
    "Minibatch",
    "Normalised",
    "Wrapper",
]
