"""npopt: a laboratory for the optimisation of deep learning, in arrays.

    from npopt import minimize, HeavyBall, RandomReshuffling
    from problems import LeastSquares

    run = minimize(LeastSquares(A, b), HeavyBall(0.9), RandomReshuffling(16), schedule=0.01, stop=dict(epochs=20))
    run.final
"""

__version__ = "0.1.0"

from npopt import backend, theory
from npopt.backend import elementwise
from npopt.estimators import SAGA, SVRG, Accumulated, Clipped, Minibatch
from npopt.gradcheck import gradcheck
from npopt.minimize import Events, Run, Stop, minimize
from npopt.optimizers import FISTA, ISTA, SGD, Adam, AdamW, Anderson, HeavyBall, Nesterov, Proximal
from npopt.proximal import L1, L1L2, L2, Box, Simplex
from npopt.samplers import (
    AdaptiveImportance,
    Batch,
    ByClass,
    Importance,
    RandomReshuffling,
    ShuffleOnce,
    WithReplacement,
)
from npopt.schedules import Constant, Cosine, Exponential, Linear, Piecewise, Polynomial, WithWarmup

__all__ = [
    "FISTA", "ISTA", "L1", "L1L2", "L2", "SAGA", "SGD", "SVRG", "Accumulated", "Adam", "AdamW", "AdaptiveImportance",
    "Anderson", "Batch", "Box", "ByClass", "Clipped", "Constant", "Cosine", "Events", "Exponential", "HeavyBall",
    "Importance", "Linear", "Minibatch", "Nesterov", "Piecewise", "Polynomial", "Proximal", "RandomReshuffling", "Run",
    "ShuffleOnce", "Simplex", "Stop", "WithReplacement", "WithWarmup", "backend", "elementwise", "gradcheck",
    "minimize", "theory",
]
