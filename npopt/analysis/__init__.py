"""Questions about a problem before and after a run: is its gradient right, how curved is it, which rates fit."""

from npopt.analysis import theory
from npopt.analysis.curvature import Hessian, Spectrum, lanczos, stable
from npopt.analysis.gradcheck import gradcheck
from npopt.analysis.range_test import RangeTest, range_test
from npopt.analysis.smoothness import LocalSmoothness, Relation, local_smoothness, relation

__all__ = [
    "Hessian",
    "LocalSmoothness",
    "RangeTest",
    "Relation",
    "Spectrum",
    "gradcheck",
    "lanczos",
    "local_smoothness",
    "range_test",
    "relation",
    "stable",
    "theory",
]
