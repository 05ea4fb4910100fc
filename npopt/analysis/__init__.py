"""Questions about a problem before and after a run: is its gradient right, how curved is it, which rates fit."""

from npopt.analysis import theory
from npopt.analysis.curvature import Spectrum, lanczos, stable
from npopt.analysis.densities import Density, Trace, density, trace
from npopt.analysis.dynamics import Dynamics
from npopt.analysis.eigen import Pairs, Top, eigenpairs, power_iteration
from npopt.analysis.fits import GaussianFit, QuadraticFit, gaussian_fit, quadratic_fit
from npopt.analysis.gradcheck import gradcheck
from npopt.analysis.gradient_noise import GradientNoise, gradient_noise
from npopt.analysis.persistence import Diagram, bottleneck, persistence
from npopt.analysis.planes import Plane, Projection, cosines, random_direction
from npopt.analysis.products import Hessian, Nonuniformity, gauss_newton, hessian
from npopt.analysis.range_test import RangeTest, range_test
from npopt.analysis.sharpness import Rise, fisher_rao, relative_flatness, scaled, scales, worst_rise
from npopt.analysis.smoothness import LocalSmoothness, Relation, local_smoothness, relation
from npopt.analysis.stability import edge, preconditioner
from npopt.analysis.surfaces import Barrier, LossSurface, barrier, interpolation, loss_surface
from npopt.analysis.trajectories import Components, components, tsne, walk_coordinates, walk_shares
from npopt.analysis.wavelets import Wavelets, wavelets

__all__ = [
    "Barrier",
    "Components",
    "Density",
    "Dynamics",
    "Diagram",
    "GaussianFit",
    "GradientNoise",
    "Hessian",
    "LocalSmoothness",
    "LossSurface",
    "Nonuniformity",
    "Pairs",
    "Plane",
    "Projection",
    "QuadraticFit",
    "RangeTest",
    "Relation",
    "Rise",
    "Spectrum",
    "Top",
    "Trace",
    "Wavelets",
    "barrier",
    "bottleneck",
    "components",
    "cosines",
    "density",
    "edge",
    "eigenpairs",
    "fisher_rao",
    "gauss_newton",
    "gaussian_fit",
    "gradcheck",
    "gradient_noise",
    "hessian",
    "interpolation",
    "lanczos",
    "local_smoothness",
    "loss_surface",
    "persistence",
    "power_iteration",
    "preconditioner",
    "quadratic_fit",
    "random_direction",
    "range_test",
    "relation",
    "relative_flatness",
    "scaled",
    "scales",
    "stable",
    "theory",
    "trace",
    "tsne",
    "walk_coordinates",
    "walk_shares",
    "wavelets",
    "worst_rise",
]
