"""Calls of every public optimizer, no hyper-parameter at its default, for tests that run over all of them; a table of
segments of all kinds."""

from types import SimpleNamespace

from npopt import (
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
    Flora,
    GaLore,
    GoLore,
    HeavyBall,
    Lion,
    Lookahead,
    MixedClipping,
    Muon,
    NAdam,
    Nesterov,
    NormalisedMomentum,
    Proximal,
    Quantised,
    RAdam,
    RMSProp,
    Rounded,
    Rprop,
    SophiaG,
    SophiaH,
)
from npopt.projectors import RangeFinder, Stiefel, Svd, Switching
from npopt.segments import Segments

import numpy as np

ELEMENTWISE = [
    SGD(),
    HeavyBall(0.7),
    Nesterov(0.7),
    Adam(0.7, 0.95, 1e-2),
    Adam(0.7, 0.95, 1e-2, 0.3),
    AdamW(0.7, 0.95, 1e-2, 0.2),
    AdaGrad(1e-2, 0.3),
    Adadelta(0.8, 1e-2),
    RMSProp(0.8, 1e-2),
    RMSProp(0.8, 1e-2, True),
    RMSProp(0.8, 1e-2, False, 0.6),
    RMSProp(0.8, 1e-2, True, 0.6, True),
    AMSGrad(0.7, 0.8, 1e-2, "original"),
    AMSGrad(0.7, 0.8, 1e-2, "raw"),
    AMSGrad(0.7, 0.8, 1e-2, "corrected"),
    NAdam(0.7, 0.95, 1e-2, 0.05),
    NAdam(0.7, 0.95, 1e-2, None),
    RAdam(0.7, 0.9, 1e-2, 4),
    RAdam(0.7, 0.9, 1e-2, 5),
    AdaBound(0.7, 0.8, 1e-2, 0.05, 0.2),
    AMSBound(0.7, 0.8, 1e-2, 0.05, 0.2, 0.06),
    Lion(0.7, 0.95, 0.2),
    Adamax(0.7, 0.9, 1e-2),
    Adamax(0.7, 0.9, 1e-2, True),
    ASGD(0.3, 0.6),
    ASGD(0.3, 0.6, 4),
    *(Rprop(0.6, 1.3, 0.3, 2.0, variant) for variant in Rprop.VARIANTS),
    Lookahead(Adam(0.7, 0.95, 1e-2), 4, 0.3),
    Lookahead(HeavyBall(0.7), 4, 0.3, True),
    EMA(HeavyBall(0.7), 0.8),
    SWA(HeavyBall(0.7), 5, 3),
    Rounded(HeavyBall(0.7), "bfloat16"),
    Rounded(HeavyBall(0.7), "float8_e4m3", True),
]
WHOLE = [  # need the whole gradient at once
    SWATS(0.7, 0.8, 1e-2, 0.3, True),
    MixedClipping(0.04, 0.7, 0.6),
    MixedClipping(0.04, 0.7, 0.6, True),
    NormalisedMomentum(0.7),
]

TABLE = Segments.of(
    ("fc.W", (3, 4), "matrix", "fc"),
    ("fc.b", (3,), "bias", "fc"),
    ("conv.W", (2, 1, 2, 3), "conv", "conv"),
    ("bn.a", (2,), "norm", "bn"),
    ("embed", (5, 2), "embedding", "embed"),
    ("zero", (2, 2), "matrix", "zero"),
)
ORACLE = SimpleNamespace(problem=SimpleNamespace(segments=TABLE))
DECAY = np.concatenate([np.full(s.size, 0.0 if s.kind in ("bias", "norm") else 0.3) for s in TABLE])
BY_SEGMENT = [
    LARS(0.7, 0.2, 0.05),
    LARS(0.7, 0.2, 0.05, ("matrix", "bias")),
    LAMB(0.7, 0.9, 1e-2, 0.2),
    LAMB(0.7, 0.9, 1e-2, 0.2, 0.8, False, "conv"),
    AdamMini(0.7, 0.9, 1e-2, 0.2),
    Adafactor(0.6, 1e-3, 0.2, 0.7, True, 2, 0.3),
    Adafactor(0.9, 1e-3, 0.2, 1.5, False, 3),
    Adafactor(0.6, 1e-3, 0.2, 0.7, True, 2, 0.3, 0.6),
    Adafactor(0.9, 1e-3, 0.2, 1.5, False, 3, b1=0.8),
    LARS(0.7, DECAY, 0.05),
    LAMB(0.7, 0.9, 1e-2, DECAY),
    Muon(0.7, True, 3, "original", 0.2, others="zero", adam_rate=0.4, b1=0.8, b2=0.9, eps=1e-2),
    Muon(
        0.7,
        False,
        2,
        "rms",
        DECAY,
        ("matrix", "conv", "embedding"),
        others=["fc.W"],
        adam_rate=1.3,
        b1=0.8,
        b2=0.9,
        eps=1e-2,
    ),
    AdamMini(0.7, 0.9, 1e-2, DECAY),
    Adafactor(0.9, 1e-3, 0.2, 0.7, weight_decay=DECAY),
]
ADAM = Adam(0.7, 0.95, 1e-2)
SUBSPACE = [
    GaLore(2, 3, 0.7, ADAM, weight_decay=0.2),
    GaLore(2, 4, 0.7, ADAM, kinds=("matrix", "conv", "embedding"), others="zero", moments="reset", weight_decay=DECAY),
    GaLore(1, 3, 0.7, HeavyBall(0.6), side="columns", moments="turned"),
    GaLore(2, 3, 0.7, ADAM, Stiefel()),
    GaLore(2, 3, 0.7, ADAM, Switching(Stiefel(), Svd(), 7), side="rows"),
    GoLore(2, 3, 0.7, 6, ADAM, weight_decay=0.2),
    GoLore(1, 2, 0.7, 0, HeavyBall(0.6), moments="turned"),
    Flora(2, 3, 0.7, ADAM, weight_decay=0.2),
    Flora(1, 2, 0.7, HeavyBall(0.6), gather=3, kinds=("matrix", "embedding")),
]
PROXIMAL = [
    Proximal(SGD()),
    Proximal(SGD(), 3),
    ISTA(True, 1.7),
    FISTA("function", True, 1.7),
    FISTA("gradient"),
    Anderson(3),
    Anderson(3, "gram", 1e-9),
    Anderson(2, guard=False),
    Anderson(0),
]
ASKING = [
    SophiaH(0.7, 0.8, 0.5, 1e-3, 0.2, 3, 1e-2),
    SophiaG(0.7, 0.8, 5.0, 1e-3, 0.2, 3),
    Lookahead(SophiaG(0.7, 0.8, 5.0, 1e-3, 0.2, 3), 4, 0.3, True),
]  # ask for second gradients
SMALL = dict(smallest=5, whole=("bias",))
QUANTISED = [
    Quantised(AdamW(0.7, 0.95, 1e-2, DECAY), 4, **SMALL),
    Quantised(HeavyBall(0.7), None, "linear", **SMALL),
    Quantised(Adam(0.7, 0.95, 1e-2), 8, ("dynamic", "positive"), 4, True, **SMALL),
    Quantised(LAMB(0.7, 0.9, 1e-2, 0.2), 4, **SMALL),
    Lookahead(Quantised(Lion(0.7, 0.95, 0.2), 4, **SMALL), 4, 0.3),
]
FOUND = [GaLore(1, 3, 0.7, ADAM, RangeFinder(1, 1))]  # whose subspace is no closed form
EVERY = ELEMENTWISE + WHOLE + BY_SEGMENT + SUBSPACE + FOUND + PROXIMAL + ASKING + QUANTISED


def short(optimizer):
    """A short name for a test of one of them."""
    return f"{type(optimizer).__name__} {sum(map(ord, repr(optimizer)))}"
