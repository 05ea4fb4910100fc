"""Questions about a problem before and after a run: is its gradient right, how curved is it, which rates fit."""

from npopt.analysis import theory
from npopt.analysis.curvature import Spectrum, lanczos, stable
from npopt.analysis.densities import Density, Trace, density, trace
from npopt.analysis.dynamics import Dynamics
from npopt.analysis.eigen import Pairs, Top, eigenpairs, power_iteration
from npopt.analysis.gradcheck import gradcheck
from npopt.analysis.gradient_noise import GradientNoise, gradient_noise
from npopt.analysis.products import Hessian, Nonuniformity, gauss_newton, hessian
from npopt.analysis.range_test import RangeTest, range_test
from npopt.analysis.sharpness import Rise, fisher_rao, relative_flatness, scaled, scales, worst_rise
from npopt.analysis.smoothness import LocalSmoothness, Relation, local_smoothness, relation
from npopt.analysis.stability import edge, preconditioner

__all__ = [
    "Density",
    "Dynamics",
    "GradientNoise",
    "Hessian",
    "LocalSmoothness",
    "Nonuniformity",
    "Pairs",
    "RangeTest",
    "Relation",
    "Rise",
    "Spectrum",
    "Top",
    "Trace",
    "density",
    "edge",
    "eigenpairs",
    "fisher_rao",
    "gauss_newton",
    "gradcheck",
    "gradient_noise",
    "hessian",
    "lanczos",
    "local_smoothness",
    "power_iteration",
    "preconditioner",
    "range_test",
    "relation",
    "relative_flatness",
    "scaled",
    "scales",
    "stable",
    "theory",
    "trace",
    "worst_rise",
]
