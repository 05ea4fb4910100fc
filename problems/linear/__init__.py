"""Linear models on dense or CSR rows: a loss (losses.py) of W a + c, perhaps with an l2 term and a penalty.

    f(x) = (1/n) sum_i f_i(x)          f_i(x) = l(W a_i + c; y_i) + l2/2 |W|^2

so the 1/2 and the 1/n are in the objective, and l2 is not divided by n. a_i is row i of X, shape (n, d). x is W
flattened, (d,) or (C, d). With intercept=True the 1 or C numbers c stand behind it, and l2 does not touch c. Without an
intercept there is no c.

With weights the l2 term is weighted too, as part of f_i: the gradient over rows is (1/B) sum_b w_b grad f_b, exactly.

A penalty h (npopt.penalties) may be added, on W alone: the objective is then f(x) + h(W).
"""

from problems.linear.losses import Huber, Logit, Loss, Softmax, Squared, SquaredHinge
from problems.linear.model import LinearModel
from problems.linear.models import ElasticNet, Lasso, LeastSquares, Logistic

__all__ = [
    "ElasticNet",
    "Huber",
    "Lasso",
    "LeastSquares",
    "LinearModel",
    "Logistic",
    "Logit",
    "Loss",
    "Softmax",
    "Squared",
    "SquaredHinge",
]
