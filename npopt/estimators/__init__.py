"""Where the gradient comes from: one algorithm a file. An estimator may wrap another; the innermost is Minibatch()."""

from npopt.estimators.accumulated import Accumulated
from npopt.estimators.adversarial import Adversarial
from npopt.estimators.base import Estimator, Wrapper
from npopt.estimators.clipped import Clipped
from npopt.estimators.free import FreeAdversarial
from npopt.estimators.minibatch import Minibatch
from npopt.estimators.saga import SAGA
from npopt.estimators.svrg import SVRG
from npopt.estimators.trades import TRADES

__all__ = [
    "SAGA",
    "SVRG",
    "TRADES",
    "Accumulated",
    "Adversarial",
    "Clipped",
    "Estimator",
    "FreeAdversarial",
    "Minibatch",
    "Wrapper",
]
