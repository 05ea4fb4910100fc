"""What is minimised: functions with their data. Each is a Problem (problems/base.py)."""

from problems.base import Problem, Restricted
from problems.datasets import Dataset, load
from problems.landscapes import LANDSCAPES, Surface
from problems.linear import ElasticNet, Lasso, LeastSquares, LinearModel, Logistic
from problems.quadratic import Quadratic
from problems.splits import split, standardise
from problems.steep import Steep

__all__ = [
    "LANDSCAPES",
    "Dataset",
    "ElasticNet",
    "Lasso",
    "LeastSquares",
    "LinearModel",
    "Logistic",
    "Neural",
    "Problem",
    "Quadratic",
    "Restricted",
    "Steep",
    "Surface",
    "load",
    "split",
    "standardise",
]


def __getattr__(name):
    """Neural is imported when it is asked for: the convex problems need no layers."""
    if name == "Neural":
        from problems.neural import Neural

        return Neural
    raise AttributeError(f"module 'problems' has no attribute {name!r}")
