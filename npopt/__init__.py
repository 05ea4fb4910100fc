"""npopt: a laboratory for the optimisation of deep learning, in arrays.

    from npopt import minimize, HeavyBall, RandomReshuffling
    from problems import LeastSquares

    run = minimize(LeastSquares(A, b), HeavyBall(0.9), RandomReshuffling(16), schedule=0.01, stop=dict(epochs=20))
    run.final
"""

from npopt import backend
from npopt.analysis import gradcheck, range_test, theory
from npopt.backend import elementwise
from npopt.estimators import SAGA, SVRG, Accumulated, Clipped, Minibatch
from npopt.minimize import minimize
from npopt.optimizers import (
    ASGD,
    EMA,
    FISTA,
    ISTA,
    LAMB,
    LARS,
    SGD,
    SWA,
    SWATS,
    AdaBound,
    Adadelta,
    Adafactor,
    AdaGrad,
    Adam,
    Adamax,
    AdamMini,
    AdamW,
    AMSBound,
    AMSGrad,
    Anderson,
    HeavyBall,
    Lion,
    Lookahead,
    Muon,
    NAdam,
    Nesterov,
    Proximal,
    RAdam,
    RMSProp,
    Rprop,
    SophiaG,
    SophiaH,
)
from npopt.penalties import L1, L1L2, L2, Box, Simplex
from npopt.run import Events, Run, Stop
from npopt.samplers import (
    AdaptiveImportance,
    Batch,
    ByClass,
    Importance,
    RandomReshuffling,
    ShuffleOnce,
    WithReplacement,
)
from npopt.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclical,
    Exponential,
    InverseSquareRoot,
    Linear,
    OneCycle,
    Piecewise,
    Polynomial,
    WithWarmup,
)
from npopt.version import __version__

__all__ = [
    "ASGD", "EMA", "FISTA", "ISTA", "L1", "L1L2", "L2", "LAMB", "LARS", "SAGA", "SGD", "SVRG", "SWA", "SWATS",
    "AMSBound", "AMSGrad", "Accumulated", "AdaBound", "AdaGrad", "Adadelta", "Adafactor", "Adam", "AdamMini", "AdamW",
    "Adamax", "AdaptiveImportance", "Anderson", "Batch", "Box", "ByClass", "Clipped", "Constant", "Cosine",
    "CosineRestarts", "Cyclical", "Events", "Exponential", "HeavyBall", "Importance", "InverseSquareRoot", "Linear",
    "Lion", "Lookahead", "Minibatch", "Muon", "NAdam", "Nesterov", "OneCycle", "Piecewise", "Polynomial", "Proximal",
    "RAdam", "RMSProp", "RandomReshuffling", "Rprop", "Run", "ShuffleOnce", "Simplex", "SophiaG", "SophiaH", "Stop",
    "WithReplacement", "WithWarmup", "backend", "elementwise", "gradcheck", "minimize", "range_test", "theory",
    "__version__",
]
