"""Questions about a problem before and after a run: is its gradient right, how curved is it, which rates fit."""

from npopt.analysis import theory
from npopt.analysis.curvature import Hessian, Spectrum, lanczos, stable
from npopt.analysis.gradcheck import gradcheck
from npopt.analysis.range_test import RangeTest, range_test

__all__ = ["Hessian", "RangeTest", "Spectrum", "gradcheck", "lanczos", "range_test", "stable", "theory"]
